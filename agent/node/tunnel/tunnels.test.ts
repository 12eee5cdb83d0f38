// The tunnel half of the agent, two nodes in one process over real TLS: who gets through, who is refused and how, what both
// ends know of each other, what happens when things change meanwhile.
import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connectHttp2, openTunnel, TunnelRefused } from '../../http/http2/index.ts'
import type { ClientSession } from '../../http/message.ts'
import { Recorder } from '../../io/contract.ts'
import { transport } from '../../io/index.ts'
import { samplePod, samplePolicy, sampleService } from '../../mesh/samples.ts'
import { STATIC_STRICT } from '../../mesh/peer-authentication.ts'
import type { Policy } from '../../mesh/policy.ts'
import { Cluster, outcome, root, type TestNode, type TestPod } from './world.ts'

let cluster: Cluster
let one: TestNode
let two: TestNode
let client: TestPod
let server: TestPod

const strict: Policy = {
  ...samplePolicy('DENY', { notPrincipals: [{ type: 'presence' }] }),
  namespace: 'istio-system',
  name: STATIC_STRICT,
  scope: 'workload',
}

function allowOnly(principal: string): Policy {
  return {
    ...samplePolicy('ALLOW', { principals: [{ type: 'exact', value: principal }] }),
    name: 'only',
    scope: 'workload',
  }
}

beforeEach(async () => {
  cluster = new Cluster(77)
  one = cluster.node('node1')
  two = cluster.node('node2')
  client = await cluster.pod(one, 'client')
  server = await cluster.pod(two, 'server')
})

afterEach(() => cluster.close())

/** The counter of refusals, by direction and reason; asks until one of them is there. */
async function refusals(node: TestNode): Promise<Record<string, number>> {
  for (;;) {
    const found: Record<string, number> = {}
    for (const [, direction, reason, value] of (await node.metrics.text()).matchAll(
      /ambit_connections_refused_total\{direction="(\w+)",reason="(\w+)"\} (\d+)/g,
    ))
      found[`${direction} ${reason}`] = Number(value)
    if (Object.keys(found).length > 0) return found
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

const echo = (): Promise<void> => cluster.app(server.address, 8080, (socket) => void socket.pipe(socket))
const target = (): { address: string; port: number } => ({ address: server.address, port: 8080 })

describe('a connection from pod to pod', () => {
  it('goes through both agents, and both log who talked to whom', async () => {
    await echo()
    const socket = client.dial(target())
    socket.end('hello')
    expect(await outcome(socket)).toEqual({ text: 'hello', ended: true, error: '' })
    const sent = await one.lines.until((line) => line['message'] === 'connection complete')
    const received = await two.lines.until((line) => line['message'] === 'connection complete')
    expect(sent).toMatchObject({
      direction: 'outbound',
      'src.workload': 'client',
      'src.identity': 'spiffe://cluster.local/ns/default/sa/client',
      'dst.identity': 'spiffe://cluster.local/ns/default/sa/server',
      'dst.addr': `${server.address}:15008`,
      'dst.hbone_addr': `${server.address}:8080`,
      bytes_sent: 5,
      bytes_recv: 5,
    })
    expect(received).toMatchObject({
      direction: 'inbound',
      'src.identity': 'spiffe://cluster.local/ns/default/sa/client',
      'dst.workload': 'server',
    })
    expect(sent['error']).toBeUndefined()
    const text = await two.metrics.text()
    expect(text).toMatch(
      /istio_tcp_connections_opened_total\{reporter="destination",source_workload="client".*mutual_tls.* 1/,
    )
    expect(text).toMatch(/istio_tcp_received_bytes_total\{reporter="destination".* 5/)
  })

  it("shows the app the client's own address and port", async () => {
    await echo()
    const socket = client.dial(target())
    await new Promise((resolve) => socket.once('connect', resolve))
    const port = socket.localPort as number
    socket.end('x')
    await outcome(socket)
    expect(cluster.world.shown).toEqual([{ address: client.address, port }])
    const line = await one.lines.until((entry) => entry['message'] === 'connection complete')
    expect(line['src.addr']).toBe(`${client.address}:${port}`)
  })

  it('carries a half-close in either direction', async () => {
    await cluster.app(server.address, 8080, (socket) => {
      socket.end('banner')
      const parts: Buffer[] = []
      socket.on('data', (chunk: Buffer) => parts.push(chunk))
      socket.on('end', () => answers.push(Buffer.concat(parts).toString()))
    })
    const answers: string[] = []
    const socket = client.dial(target())
    await new Promise((resolve) => socket.once('end', resolve).resume())
    socket.end('after the server had ended')
    while (answers.length === 0) await new Promise((resolve) => setTimeout(resolve, 2))
    expect(answers).toEqual(['after the server had ended'])
  })

  it("never makes an app's reset look like an end", async () => {
    await cluster.app(server.address, 8080, (socket) => {
      socket.write('half')
      setTimeout(() => socket.resetAndDestroy(), 20)
    })
    const result = await outcome(client.dial(target()))
    expect(result).toMatchObject({ text: 'half', ended: false, error: 'ECONNRESET' })
    const line = await one.lines.until((entry) => entry['message'] === 'connection complete')
    expect(line).toMatchObject({ level: 'error' })
  })

  it('stops the far writer when the reader stops, whatever it would send', async () => {
    let written = 0
    await cluster.app(server.address, 8080, (socket) => {
      const block = Buffer.alloc(1 << 20)
      const more = (): void => {
        while (!socket.destroyed && written < 512 << 20) {
          written += block.length
          if (!socket.write(block)) return
        }
      }
      socket.on('drain', more)
      more()
    })
    const socket = client.dial(target())
    socket.pause()
    let before = -1
    while (written !== before) {
      before = written
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    // Windows, relays and socket buffers of four hops; the application would have sent 512 MB.
    expect(written).toBeLessThan(64 << 20)
  })

  it('uses one tunnel per pair of pods, and never shares it between two source pods', async () => {
    await echo()
    const twin = await cluster.pod(one, 'twin', { serviceAccount: 'client' })
    const sockets = [client.dial(target()), client.dial(target()), client.dial(target()), twin.dial(target())]
    for (const socket of sockets) {
      socket.write('x')
      await new Promise((resolve) => socket.once('data', resolve))
    }
    expect(one.tunnels.sessions).toBe(2)
    expect(two.tunnels.status().find((pod) => pod.name === 'default/server')).toMatchObject({
      tunnelsIn: 2,
      connections: 4,
    })
  })

  it('serves a hundred at once through one tunnel', async () => {
    await echo()
    const results = await Promise.all(
      Array.from({ length: 100 }, (_, i) => {
        const socket = client.dial(target())
        socket.end(`message ${i}`)
        return outcome(socket)
      }),
    )
    expect(results.map((result) => result.text)).toEqual(Array.from({ length: 100 }, (_, i) => `message ${i}`))
    expect(one.tunnels.sessions).toBe(1)
  })
})

describe('a service', () => {
  it('leads to a healthy endpoint and its target port', async () => {
    const service = sampleService({ name: 'shop', addresses: ['10.96.0.7'] })
    cluster.state.setService(service)
    cluster.state.setWorkload({ ...server.workload, services: { [`default/${service.hostname}`]: { 80: 8080 } } })
    await echo()
    const socket = client.dial({ address: '10.96.0.7', port: 80 })
    socket.end('via service')
    expect((await outcome(socket)).text).toBe('via service')
    const line = await two.lines.until((entry) => entry['message'] === 'connection complete')
    expect(line['dst.service']).toBe(service.hostname)
  })

  it("leads to the kernel's choice where it has made one", async () => {
    const service = sampleService({ name: 'shop', addresses: ['10.96.0.7'] })
    const services = { [`default/${service.hostname}`]: { 80: 8080 } }
    cluster.state.setService(service)
    cluster.state.setWorkload({ ...server.workload, services })
    const absent = { ...server.workload, uid: 'a/first', name: 'first', addresses: ['127.250.0.9'], services }
    cluster.state.setWorkload(absent)
    await echo()
    for (let i = 0; i < 8; i++) {
      const socket = client.dial({ address: '10.96.0.7', port: 80, chosen: { address: server.address, port: 8080 } })
      socket.end('chosen')
      expect((await outcome(socket)).text).toBe('chosen')
    }
  })

  it('without a healthy endpoint is refused with its reason, not passed on', async () => {
    cluster.state.setService(sampleService({ name: 'shop', addresses: ['10.96.0.7'] }))
    expect((await outcome(client.dial({ address: '10.96.0.7', port: 80 }))).ended).toBe(false)
    expect(await one.lines.until((entry) => entry['policy'] === 'no_healthy_upstream')).toMatchObject({
      message: 'connection failed',
      level: 'warn',
    })
  })
})

describe('what is outside the mesh', () => {
  it('is passed on plainly', async () => {
    const lines: string[] = []
    const { createServer } = await import('node:net')
    const outside = createServer((socket) => {
      lines.push(socket.remoteAddress ?? '')
      socket.end('outside')
    })
    await new Promise<void>((resolve) => outside.listen(0, '127.0.0.1', resolve))
    cluster.servers.push(outside)
    const { port } = outside.address() as { port: number }
    expect((await outcome(client.dial({ address: '127.0.0.1', port }))).text).toBe('outside')
    expect(lines).toEqual([client.address])
    const line = await one.lines.until((entry) => entry['message'] === 'connection complete')
    expect(line['dst.identity']).toBeUndefined()
  })

  it('is refused under REGISTRY_ONLY', async () => {
    cluster.state.settings = { ...cluster.state.settings, outboundTrafficPolicy: 'REGISTRY_ONLY' }
    expect((await outcome(client.dial({ address: '192.0.2.1', port: 80 }))).ended).toBe(false)
    await one.lines.until((entry) => entry['policy'] === 'registry_only')
    expect(await refusals(one)).toEqual({ 'outbound registry_only': 1 })
  })

  it('is what a connection leads to that was not captured: nowhere', async () => {
    const socket = client.dial(target())
    cluster.world.wanted.length = 0
    expect((await outcome(socket)).ended).toBe(false)
    expect(await refusals(one)).toEqual({ 'outbound not_captured': 1 })
    expect(one.warnings).toMatchObject([{ reason: 'not_captured', pod: 'default/client' }])
  })
})

describe('policy', () => {
  it('denies a peer by its identity before the app sees a byte', async () => {
    let seen = 0
    await cluster.app(server.address, 8080, () => seen++)
    cluster.state.setPolicy(allowOnly('cluster.local/ns/default/sa/other'))
    cluster.state.setWorkload({ ...server.workload, authorizationPolicies: ['default/only'] })
    cluster.changed()
    expect(await outcome(client.dial(target()))).toMatchObject({ text: '', ended: false })
    expect(seen).toBe(0)
    expect(await two.lines.until((entry) => entry['message'] === 'connection failed')).toMatchObject({
      'src.identity': 'spiffe://cluster.local/ns/default/sa/client',
      policy: 'rbac_access_denied_matched_policy[none]',
    })
    expect(String((await one.lines.until((entry) => 'error' in entry))['error'])).toContain(
      "denied by the destination's policy",
    )
    expect(await two.metrics.text()).toMatch(/istio_tcp_connections_failed_total\{.*response_flags="DENY".* 1/)
    expect(await refusals(two)).toEqual({ 'inbound not_allowed': 1 })
    expect(two.lines.entries).toHaveLength(1)
    expect(two.warnings).toEqual([])
  })

  it('denies what refers to a policy that has not come', async () => {
    await echo()
    cluster.state.setWorkload({ ...server.workload, authorizationPolicies: ['default/not-there'] })
    cluster.changed()
    expect((await outcome(client.dial(target()))).ended).toBe(false)
    expect((await two.lines.until((entry) => 'policy' in entry))['policy']).toBe('unknown_policy[default/not-there]')
  })

  it('that changes closes the connections it denies now, and leaves the others', async () => {
    await echo()
    const other = await cluster.pod(one, 'other')
    const sockets = [client.dial(target()), other.dial(target())] as const
    for (const socket of sockets) {
      socket.write('x')
      await new Promise((resolve) => socket.once('data', resolve))
    }
    cluster.state.setPolicy(allowOnly('cluster.local/ns/default/sa/other'))
    cluster.state.setWorkload({ ...server.workload, authorizationPolicies: ['default/only'] })
    cluster.changed()
    expect((await outcome(sockets[0])).ended).toBe(false)
    const line = await two.lines.until((entry) => entry['message'] === 'connection complete')
    expect(String(line['error'])).toContain('policy change')
    expect(await refusals(two)).toEqual({ 'inbound not_allowed': 1 })
    sockets[1].write('still here')
    await new Promise((resolve) => sockets[1].once('data', resolve))
  })
})

describe('plaintext', () => {
  const plain = (): ReturnType<Cluster['connect']> => cluster.connect(server.address, 9_080, '127.77.0.200')
  const app = (): Promise<void> => cluster.app(server.address, 9_080, (socket) => void socket.end('plain'))

  it('is served where nothing forbids it, and counted as not encrypted', async () => {
    await app()
    const socket = plain()
    socket.end()
    expect((await outcome(socket)).text).toBe('plain')
    expect(cluster.world.shown[0]).toEqual({ address: '127.77.0.200', port: expect.any(Number) as number })
    const line = await two.lines.until((entry) => entry['message'] === 'connection complete')
    expect(line['src.identity']).toBeUndefined()
  })

  it('is reset under STRICT, which the kernel is told too', async () => {
    await app()
    cluster.state.setPolicy(strict)
    cluster.state.setWorkload({ ...server.workload, authorizationPolicies: [`istio-system/${STATIC_STRICT}`] })
    cluster.changed()
    expect(await outcome(plain())).toMatchObject({ text: '', ended: false, error: 'ECONNRESET' })
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(cluster.world.modes.get('server')).toBe('refuse')
    cluster.state.setWorkload(server.workload)
    cluster.changed()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(cluster.world.modes.get('server')).toBe('judge')
  })

  it('is denied by an ALLOW that names principals', async () => {
    await app()
    cluster.state.setPolicy(allowOnly('cluster.local/ns/default/sa/client'))
    cluster.state.setWorkload({ ...server.workload, authorizationPolicies: ['default/only'] })
    cluster.changed()
    expect((await outcome(plain())).error).toBe('ECONNRESET')
    expect(await refusals(two)).toEqual({ 'inbound not_allowed': 1 })
    expect(two.lines.entries).toMatchObject([{ policy: 'rbac_access_denied_matched_policy[none]' }])
  })
})

describe('identities', () => {
  it('of a server that is not the workload meant are refused by the client', async () => {
    await echo()
    two.certificates.instead.set(
      'spiffe://cluster.local/ns/default/sa/server',
      'spiffe://cluster.local/ns/default/sa/impostor',
    )
    expect((await outcome(client.dial(target()))).ended).toBe(false)
    const line = await one.lines.until((entry) => entry['message'] === 'connection failed')
    expect(String(line['error'])).toContain('sa/impostor, not spiffe://cluster.local/ns/default/sa/server')
    expect(await one.metrics.text()).toMatch(/connections_failed_total\{.*TLS_FAILURE.* 1/)
    expect(await refusals(one)).toEqual({ 'outbound wrong_peer': 1 })
  })

  it('of another trust domain are refused by the server', async () => {
    await echo()
    one.certificates.instead.set(
      'spiffe://cluster.local/ns/default/sa/client',
      'spiffe://elsewhere/ns/default/sa/client',
    )
    expect((await outcome(client.dial(target()))).ended).toBe(false)
    expect(two.lines.entries).toEqual([])
    expect(await refusals(two)).toEqual({ 'inbound trust_domain_mismatch': 1 })
    expect(two.warnings).toMatchObject([{ reason: 'trust_domain_mismatch', pod: 'default/server' }])
  })

  it('that do not come are waited for, for a bounded time', async () => {
    await echo()
    one.certificates.held = true
    expect((await outcome(client.dial(target()))).ended).toBe(false)
    const line = await one.lines.until((entry) => entry['message'] === 'connection failed')
    expect(String(line['error'])).toContain('No certificate')
  })

  it('of a new pod of which nothing but the name is known are those of its service account', async () => {
    await echo()
    const early = await cluster.pod(one, 'early', {}, false)
    cluster.state.setPod(samplePod({ uid: early.pod.uid, name: 'early', serviceAccount: 'client', node: one.name }))
    cluster.changed()
    const socket = early.dial(target())
    socket.end('first words')
    expect((await outcome(socket)).text).toBe('first words')
    const line = await one.lines.until((entry) => entry['message'] === 'connection complete')
    expect(line).toMatchObject({
      'src.workload': 'early',
      'src.identity': 'spiffe://cluster.local/ns/default/sa/client',
    })
    // Its workload comes: the tunnel stays.
    const sessions = one.tunnels.sessions
    cluster.state.setWorkload({ ...early.workload, serviceAccount: 'client' })
    cluster.changed()
    const again = early.dial(target())
    again.end('more')
    expect((await outcome(again)).text).toBe('more')
    expect(one.tunnels.sessions).toBe(sessions)
  })

  it('of a pod that control has not named yet are waited for', async () => {
    await echo()
    const late = await cluster.pod(one, 'late', {}, false)
    const socket = late.dial(target())
    socket.end('patience')
    setTimeout(() => {
      cluster.state.setWorkload(late.workload)
      cluster.changed()
    }, 50)
    expect((await outcome(socket)).text).toBe('patience')
    const never = await cluster.pod(one, 'never', {}, false)
    expect((await outcome(never.dial(target()))).ended).toBe(false)
    expect(String((await one.lines.until((entry) => 'error' in entry))['error'])).toContain(
      'nothing is known of pod default/never',
    )
  })
})

describe('the tunnel port', () => {
  async function session(uri: string): Promise<ClientSession> {
    return new Promise((resolve) => {
      connectHttp2(
        transport,
        {
          host: server.address,
          port: 15008,
          source: '127.77.0.201',
          tls: {
            trust: () => root.certificate,
            certificate: () => root.issue(uri),
            verify: () => undefined,
            alpn: ['h2'],
          },
        },
        { onAvailable: resolve, onDraining: () => undefined, onClose: () => undefined },
      )
    })
  }

  async function ask(from: ClientSession, authority: string, headers: string[] = []): Promise<Recorder> {
    const recorder = new Recorder()
    const tunnel = openTunnel(from, authority, headers, recorder)
    await recorder.until(() => recorder.closes > 0 || tunnel.writable)
    return recorder
  }

  const status = (recorder: Recorder): number => (recorder.error instanceof TunnelRefused ? recorder.error.status : 0)

  it('answers each wrong question with the status Istio gives it', async () => {
    const from = await session('spiffe://cluster.local/ns/default/sa/client')
    expect(status(await ask(from, '127.77.0.99:8080'))).toBe(400)
    expect(status(await ask(from, 'server.default.svc:8080'))).toBe(400)
    expect(status(await ask(from, `${server.address}:0`))).toBe(400)
    expect(status(await ask(from, `${server.address}:8081`))).toBe(503)
    expect(status(await ask(from, `${server.address}:15008`))).toBe(401)
    const answers: number[] = []
    await new Promise<void>((resolve) => {
      from.request({ method: 'GET', scheme: 'https', authority: 'x', path: '/', protocol: '', headers: [] }, true, {
        onInformational: () => undefined,
        onResponse: (_exchange, head) => answers.push(head.status),
        onData: () => undefined,
        onEnd: () => undefined,
        onDrain: () => undefined,
        onClose: () => resolve(),
      })
    })
    expect(answers).toEqual([400])
    expect(await refusals(two)).toEqual({ 'inbound bad_request': 4, 'inbound tunnel_port': 1 })
    // The first of them; the others came within its second and are told with the next.
    expect(two.warnings).toMatchObject([{ reason: 'bad_request' }])
    from.close()
  })

  it('refuses a client without a certificate', async () => {
    const recorder = new Recorder()
    const { connect } = await import('node:tls')
    const socket = connect({
      host: server.address,
      port: 15008,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: false,
      ca: root.certificate,
    })
    socket.on('error', (error) => recorder.onClose(undefined as never, error))
    socket.on('close', () => recorder.onClose(undefined as never, recorder.error))
    socket.on('data', () => undefined)
    await recorder.until(() => recorder.closes > 0)
    expect(two.lines.entries).toEqual([])
    expect(await refusals(two)).toEqual({ 'inbound handshake': 1 })
    expect(two.warnings).toMatchObject([{ reason: 'handshake' }])
  })

  it('takes only its waypoint for a workload that has one, and believes the client it names', async () => {
    await echo()
    const waypoint = await cluster.pod(one, 'waypoint', {
      nativeTunnel: true,
      services: { 'default/waypoint.default.svc.cluster.local': { 15008: 15008 } },
    })
    cluster.state.setWorkload({
      ...server.workload,
      waypoint: { hostname: 'default/waypoint.default.svc.cluster.local', port: 15008 },
    })
    cluster.changed()
    const authority = `${server.address}:8080`
    const direct = await session('spiffe://cluster.local/ns/default/sa/client')
    expect(status(await ask(direct, authority, ['forwarded', 'for="192.0.2.7:4321"']))).toBe(401)
    expect((await two.lines.until((entry) => 'policy' in entry))['policy']).toContain('waypoint_required')
    const through = await session(`spiffe://cluster.local/ns/default/sa/${waypoint.workload.serviceAccount}`)
    const recorder = await ask(through, authority, ['forwarded', 'for="192.0.2.7:4321"'])
    expect(recorder.error).toBeUndefined()
    expect(cluster.world.shown).toEqual([{ address: '192.0.2.7', port: 4321 }])
    direct.close()
    through.close()
  })

  it('does not believe the client that another peer names', async () => {
    await echo()
    const from = await session('spiffe://cluster.local/ns/default/sa/client')
    await ask(from, `${server.address}:8080`, ['forwarded', 'for="192.0.2.7:4321"'])
    expect(cluster.world.shown[0]?.address).toBe('127.77.0.201')
    from.close()
  })

  it("is a pod's way to a waypoint when the workload has one", async () => {
    const hostname = 'waypoint.default.svc.cluster.local'
    const waypoint = await cluster.pod(two, 'waypoint', {
      nativeTunnel: true,
      services: { [`default/${hostname}`]: { 15008: 15008 } },
    })
    cluster.state.setWorkload({ ...server.workload, waypoint: { hostname: `default/${hostname}`, port: 15008 } })
    // Its agent-side stand-in refuses, since the authority is not its own address: which is how we see where the tunnel led.
    expect((await outcome(client.dial(target()))).ended).toBe(false)
    const line = await one.lines.until((entry) => entry['message'] === 'connection failed')
    expect(line).toMatchObject({
      'dst.addr': `${waypoint.address}:15008`,
      'dst.hbone_addr': `${server.address}:8080`,
      'dst.identity': 'spiffe://cluster.local/ns/default/sa/waypoint',
    })
    cluster.state.removeWorkload(waypoint.workload.uid)
    await outcome(client.dial(target()))
    await one.lines.until((entry) => entry['policy'] === 'waypoint_missing')
  })
})

describe('changes', () => {
  it('drop the tunnels to a workload that is gone', async () => {
    await echo()
    const socket = client.dial(target())
    socket.write('x')
    await new Promise((resolve) => socket.once('data', resolve))
    cluster.state.removeWorkload(server.workload.uid)
    cluster.changed()
    expect((await outcome(socket)).ended).toBe(false)
    expect(one.tunnels.sessions).toBe(0)
  })

  it('end the connections of a pod that leaves', async () => {
    await echo()
    const socket = client.dial(target())
    socket.write('x')
    await new Promise((resolve) => socket.once('data', resolve))
    await one.tunnels.removePod('client')
    expect((await outcome(socket)).ended).toBe(false)
    expect(one.tunnels.sessions).toBe(0)
    expect(one.tunnels.pods).toBe(0)
  })

  it('are ended between two exchanges when an agent drains, never within one', async () => {
    // Answers a line at once, or, asked for it, late.
    await cluster.app(server.address, 8080, (socket) =>
      socket.on('data', (data) =>
        data.toString().startsWith('late')
          ? setTimeout(() => socket.write('late answer'), 1_100)
          : socket.write('answer'),
      ),
    )
    const [idle, asking, silent] = [client.dial(target()), client.dial(target()), client.dial(target())]
    const ends = Promise.all([idle, asking, silent].map(outcome))
    idle.write('now')
    await once(idle, 'data')
    const began = performance.now()
    const drained = two.tunnels.drain(4_000)
    // Asked before anything is ended, answered when the rest is gone.
    await new Promise((resolve) => setTimeout(resolve, 2_700))
    asking.write('late')
    expect(await ends).toMatchObject([
      { text: 'answer', ended: true, error: '' },
      { text: 'late answer', ended: true, error: '' },
      { text: '', ended: true, error: '' },
    ])
    await drained
    expect(performance.now() - began).toBeGreaterThan(3_800)
  })

  it('let running connections finish when an agent drains', async () => {
    await echo()
    const socket = client.dial(target())
    socket.write('x')
    await new Promise((resolve) => socket.once('data', resolve))
    const drained = two.tunnels.drain(5_000)
    await new Promise((resolve) => setTimeout(resolve, 50))
    socket.end('last words')
    expect((await outcome(socket)).text).toContain('last words')
    await drained
    expect((await outcome(client.dial(target()))).ended).toBe(false)
  })
})
