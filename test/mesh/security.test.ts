// Who gets in and who does not: plaintext under STRICT and PERMISSIVE, wrong certificates, the agent's own listeners, a
// workload behind its waypoint, what a pod can reach of the machine.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { metricsUrl } from '../../agent/sandbox/programs.ts'
import { allowOnly, TWO_WAYS } from '../world/meshes.ts'
import { eventually, openWorld, run } from '../world/sandbox.ts'
import { app, idle, peerAuthentication } from '../world/yaml.ts'

let world: Awaited<ReturnType<typeof openWorld>>
beforeAll(async () => {
  world = await openWorld({
    'mesh.yaml': TWO_WAYS['mesh.yaml'],
    'policy.yaml': allowOnly('way', 'behind', 'friend'),
    'friend.yaml': idle({ namespace: 'way', name: 'friend', node: 'node-1' }),
  })
})
afterAll(async () => {
  await world?.close()
})

const REFUSED = [7, 52, 56]

describe('plaintext from outside the mesh', () => {
  it('is refused under STRICT, on both families and on every port', async () => {
    for (const pod of ['far', 'near', 'behind'])
      for (const address of world.pod(pod).addresses) {
        const host = address.includes(':') ? `[${address}]` : address
        for (const port of [8080, 9090, 15008])
          expect(REFUSED, `${pod} ${host}:${port}`).toContain(
            (await world.status('outsider', ['-m', '5', `http://${host}:${port}/`])).exit,
          )
      }
    expect(REFUSED).toContain((await world.status('outsider', ['http://far.direct/'])).exit)
  })

  it('is served under PERMISSIVE, unless an ALLOW policy names principals', async () => {
    const url = `http://${world.pod('far').addresses[0]}:8080/plain`
    world.write('permissive.yaml', peerAuthentication('direct', 'PERMISSIVE').replace('"default"', '"open"'))
    world.edit('mesh.yaml', (text) => text.replace('"mode":"STRICT"', '"mode":"PERMISSIVE"'))
    world.remove('permissive.yaml')
    await eventually('served', async () => (await world.status('outsider', [url])).status === 200)
    expect((await world.curl('outsider', [url])).peer.address).toBe(world.pod('outsider').addresses[0])
    world.write('only.yaml', allowOnly('direct', 'far', 'client'))
    await eventually('refused', async () => REFUSED.includes((await world.status('outsider', [url])).exit))
    expect((await world.curl('client', [url])).pod).toBe(world.pod('far').name)
    await eventually('another identity of the mesh refused', async () =>
      REFUSED.includes((await world.status('second', [url])).exit),
    )
    world.remove('only.yaml')
    world.edit('mesh.yaml', (text) => text.replace('"mode":"PERMISSIVE"', '"mode":"STRICT"'))
    await eventually('refused again', async () => REFUSED.includes((await world.status('outsider', [url])).exit))
  })

  it('reaches what is not in the mesh, as does the mesh itself', async () => {
    expect((await world.curl('outsider', ['http://foreign/'])).pod).toBe(world.pod('foreign').name)
    expect((await world.curl('client', ['http://foreign.outside/'])).peer.address).toBeOneOf([
      ...world.pod('client').addresses,
    ])
  })
})

describe('the kubelet of a node', () => {
  it('probes a pod under STRICT over the node’s own network, and nobody else of the node reaches it', async () => {
    world.write(
      'probed.yaml',
      app({
        namespace: 'direct',
        name: 'probed',
        node: 'node-1',
        ports: { http: 8080 },
        container: { readinessProbe: { httpGet: { path: '/healthy', port: 'http' }, periodSeconds: 1 } },
      }),
    )
    await eventually('a ready pod', () => world.sandbox.pods.some((one) => one.set.name === 'probed' && one.ready))
    const pod = world.pod('probed')
    expect(pod.enrolled).toBe(true)
    const node = world.sandbox.layout.nodes[0]!
    const metrics = await (await fetch(metricsUrl(node))).text()
    expect(metrics).toMatch(/ambit_kernel_events_total\{event="passed.probe"\} [1-9]/)
    const url = `http://${pod.addresses[0]}:8080/healthy`
    const other = await run(['nsenter', `--net=/run/netns/${node.netns}`, 'curl', '-sS', '-m', '5', url])
    expect(REFUSED).toContain(other.code)
    world.remove('probed.yaml')
  })
})

describe('a pod', () => {
  it('cannot open another’s tunnel port with a certificate of its own making', async () => {
    const target = world.pod('far').addresses[0]!
    const { out, err } = await world.sh(
      'outsider',
      `cd /tmp && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out c.pem -days 1 \
         -subj / -addext 'subjectAltName=URI:spiffe://cluster.local/ns/direct/sa/client' 2>/dev/null
       (printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n'; sleep 1) | timeout 5 openssl s_client -connect ${target}:15008 -alpn h2 -cert c.pem -key k.pem 2>&1`,
    )
    expect(out + err).toMatch(/alert|reset|errno|Connection refused/i)
    await eventually('the agent says why', () =>
      world.logs('agent-node-2').some((line) => JSON.stringify(line).match(/certificate|handshake|TLS/i)),
    )
  })

  it('cannot get in by the listeners that the agent has in its namespace', async () => {
    const pod = world.pod('client')
    const ports = (await world.sh('client', `ss -Hltn | sed 's/.*:\\([0-9]*\\) .*/\\1/' | sort -un`)).out
      .trim()
      .split('\n')
      .filter(Boolean)
    for (const port of ports)
      for (const host of ['127.0.0.1', '[::1]', pod.addresses[0]!]) {
        const told = await world.status('client', ['-m', '3', `http://${host}:${port}/`])
        expect(told.status, `${host}:${port}`).toBe(0)
      }
  })

  it('finds no key, no socket and no BPF of an agent', async () => {
    const { out } = await world.sh(
      'client',
      `find / -xdev \\( -name '*.sock' -o -name 'ca-key.pem' -o -name 'token' \\) -newermt '-1 hour' 2>/dev/null; ls -A /run /sys/fs/bpf; cat /proc/net/unix | grep ambit; true`,
    )
    expect(out).not.toMatch(/agent|ambit|ca-key|admin/)
    expect((await world.sh('client', 'bpftool prog list 2>&1')).code).not.toBe(0)
  })

  it('does not get round the waypoint by the workload’s own address', async () => {
    const address = world.pod('behind').addresses[0]!
    expect((await world.status('friend', [`http://${address}:8080/x`])).status).toBe(200)
    expect((await world.status('friend', ['http://behind/x'])).status).toBe(200)
    for (const url of [`http://${address}:8080/x`, 'http://behind.way/x'])
      expect(await world.status('client', [url])).toMatchObject({ status: 403, body: 'RBAC: access denied' })
    expect(REFUSED).toContain((await world.status('outsider', [`http://${address}:8080/x`])).exit)
  })

  it('is refused while its waypoint is missing, never let by', async () => {
    world.edit('mesh.yaml', (text) => text.replace('"kind":"Gateway"', '"kind":"GatewayClass"'))
    await eventually('no waypoint', () => world.sandbox.pods.every((pod) => pod.set.owner !== 'Gateway'), 20_000)
    const address = world.pod('behind').addresses[0]!
    await eventually('refused', async () =>
      REFUSED.includes((await world.status('friend', [`http://${address}:8080/x`])).exit),
    )
    expect(REFUSED).toContain((await world.status('friend', ['http://behind/x'])).exit)
    world.edit('mesh.yaml', (text) => text.replace('"kind":"GatewayClass"', '"kind":"Gateway"'))
    await eventually('back', async () => (await world.status('friend', ['http://behind/x'])).status === 200, 30_000)
  })
})
