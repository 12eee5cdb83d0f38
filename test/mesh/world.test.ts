// The sandbox's world by itself, without a mesh: wires, names, service addresses, cages, life of pods, what is left behind.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { eventually, makeFolder, openWorld, run, uniqueName, ambit, type World } from '../world/sandbox.ts'
import { app, documents, idle, namespace, service } from '../world/yaml.ts'

/** Everything on the machine that a sandbox of this number and name could leave; others may run beside the test. */
async function traces(id: number, name: string): Promise<string[]> {
  const tag = `ambit-${id}`
  const links = (await run(['ip', '-o', 'link'])).out.split('\n').filter((line) => line.includes(`: ambit${id}@`))
  const spaces = existsSync('/run/netns') ? readdirSync('/run/netns').filter((one) => one.startsWith(`${tag}-`)) : []
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`${tag}-`) || line.includes(`/${name}/`))
  const cgroups = existsSync('/sys/fs/cgroup/unified') ? '/sys/fs/cgroup/unified' : '/sys/fs/cgroup'
  const folders = [`${cgroups}/${tag}`, `/sys/fs/bpf/${tag}`, `/run/ambit/${name}`].filter((path) => existsSync(path))
  return [...links, ...spaces, ...mounts, ...folders]
}

const FILES = {
  'apps.yaml': documents(
    namespace('plain'),
    idle({ namespace: 'plain', name: 'client', node: 'node-1' }),
    idle({ namespace: 'plain', name: 'neighbour', node: 'node-1' }),
    app({
      namespace: 'plain',
      name: 'web',
      replicas: 2,
      labels: { version: 'v1' },
      ports: { http: 8080, 'tcp-sink': 9001, 'tcp-source': 9002, 'tcp-smtp': 9003, tcp: 9004 },
    }),
    service('plain', 'web', { http: [80, 8080], 'tcp-sink': [9001, 9001] }),
    service('plain', 'web-headless', { http: [8080, 8080] }, { app: 'web', spec: { clusterIP: 'None' } }),
    service('plain', 'nobody', { http: [80, 8080] }, { app: 'nobody' }),
  ),
}

describe('the world of a sandbox', () => {
  let world: Awaited<ReturnType<typeof openWorld>>
  beforeAll(async () => {
    world = await openWorld(FILES, { mesh: false })
  })
  afterAll(async () => {
    await world?.close()
  })

  it('spreads the pods of a set over the nodes', () => {
    const nodes = world.sandbox.pods.filter((pod) => pod.set.name === 'web').map((pod) => pod.node.name)
    expect(nodes.toSorted()).toEqual(['node-1', 'node-2'])
  })

  it('carries IPv4 and IPv6 between pods of one node and of two, with their own addresses', async () => {
    for (const pod of world.sandbox.pods.filter((one) => one.set.name === 'web'))
      for (const address of pod.addresses) {
        const host = address.includes(':') ? `[${address}]` : address
        const echo = await world.curl('client', [`http://${host}:8080/`])
        expect(echo.pod).toBe(pod.name)
        expect(world.pod('client').addresses).toContain(echo.peer.address)
      }
  })

  it('answers for service names, headless services and pods, and denies what does not exist', async () => {
    const hosts = async (name: string): Promise<string[]> =>
      (await world.sh('client', `getent ahosts ${name} | cut -d' ' -f1 | sort -u`)).out
        .trim()
        .split('\n')
        .filter(Boolean)
    expect((await hosts('web')).length).toBe(2)
    const backends = world.sandbox.pods.filter((pod) => pod.set.name === 'web').flatMap((pod) => pod.addresses)
    expect((await hosts('web-headless.plain.svc.cluster.local')).toSorted()).toEqual(backends.toSorted())
    const pod = world.pod('web')
    expect(await hosts(`${pod.addresses[0]!.replaceAll('.', '-')}.plain.pod.cluster.local`)).toEqual([pod.addresses[0]])
    expect(await hosts('missing')).toEqual([])
  })

  it('spreads service addresses over ready endpoints, and refuses at once where there is none', async () => {
    const { out } = await world.sh('client', 'for i in $(seq 40); do curl -s -m 5 http://web/; done')
    const pods = new Set(
      out
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { pod: string }).pod),
    )
    expect(pods.size).toBe(2)
    const nobody = await world.status('client', ['http://nobody/'])
    expect(nobody.exit).toBe(7)
  })

  it('lets a pod reach itself through its own service', async () => {
    const { out } = await world.sh('web', 'for i in $(seq 12); do curl -s -m 5 http://web/; done')
    expect(out.trim().split('\n')).toHaveLength(12)
  })

  it('gives a container the default capabilities, a root of its own and nothing of the machine’s state', async () => {
    const status = (await world.sh('client', 'cat /proc/self/status')).out
    // Docker's and containerd's default set.
    expect(status).toMatch(/CapEff:\s+00000000a80425fb/)
    expect(status).toMatch(/CapBnd:\s+00000000a80425fb/)
    expect(status).toMatch(/NoNewPrivs:\s+1/)
    expect((await world.sh('client', 'ls /run/ambit /run/netns')).code).not.toBe(0)
    expect((await world.sh('client', 'ls -A /sys/fs/bpf /sys/fs/cgroup')).out).not.toMatch(/ambit|procs/)
    expect((await world.sh('client', 'ps ax | wc -l')).out.trim()).toMatch(/^[3-9]$/)
    for (const forbidden of [
      'echo 1 >/proc/sys/net/ipv4/ip_forward',
      'echo x >/proc/sys/kernel/core_pattern',
      'mount -t tmpfs none /mnt',
      'mount -o remount,rw /sys',
      'ip addr add 10.9.9.9/32 dev eth0',
      'mknod /tmp/disk b $(stat -c "%Hd %Ld" / 2>/dev/null || echo 254 0) && dd if=/tmp/disk of=/dev/null bs=1 count=1',
      'nsenter --net=/proc/1/ns/net --target 1 --mount true && ls /run/ambit',
    ])
      expect((await world.sh('client', forbidden)).code, forbidden).not.toBe(0)
    await world.sh('client', 'echo mine >/etc/written-by-a-pod')
    expect(existsSync('/etc/written-by-a-pod')).toBe(false)
    expect((await world.sh('neighbour', 'cat /etc/written-by-a-pod')).code).not.toBe(0)
  })

  it('drops packets that a pod sends with the address of another', async () => {
    const victim = world.pod('neighbour').addresses[0]!
    const target = world.pod('web')
    const script = `
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
def send(source):
    payload = b'spoofed-' + source.encode()
    udp = struct.pack('!HHHH', 4000, 9999, 8 + len(payload), 0) + payload
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton('${target.addresses[0]}'))
    s.sendto(ip + udp, ('${target.addresses[0]}', 0))
for i in range(5):
    send('${victim}')
    send('${world.pod('client').addresses[0]}')
`
    const listener = world.exec(target.name, [
      'python3',
      '-c',
      `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9999)); s.settimeout(4)
seen = set()
try:
    while True: seen.add(s.recvfrom(2000)[0].decode())
except TimeoutError: pass
print(sorted(seen))`,
    ])
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    const sent = await world.exec('client', ['python3', '-c', script])
    expect(sent.err).toBe('')
    const { out } = await listener
    expect(out).toContain(`spoofed-${world.pod('client').addresses[0]}`)
    expect(out).not.toContain(`spoofed-${victim}`)
  })

  it('passes standard input, output and the exit code through exec', async () => {
    const ran = await world.sh('client', 'cat; echo bad >&2; exit 42', { input: 'hello' })
    expect(ran).toEqual({ code: 42, out: 'hello', err: 'bad\n' })
  })

  it('follows the YAML: more replicas, fewer, another template, gone', async () => {
    const names = (): string[] =>
      world.sandbox.pods.filter((pod) => pod.set.name === 'web' && pod.ready).map((pod) => pod.name)
    const first = names()
    world.edit('apps.yaml', (text) => text.replace('"replicas":2', '"replicas":4'))
    await eventually('four pods', () => names().length === 4)
    expect(names()).toEqual(expect.arrayContaining(first))
    world.edit('apps.yaml', (text) => text.replace('"replicas":4', '"replicas":1'))
    await eventually('one pod', () => world.sandbox.pods.filter((pod) => pod.set.name === 'web').length === 1)
    const old = names()
    world.edit('apps.yaml', (text) => text.replace('"version":"v1"', '"version":"v2"'))
    await eventually('another pod', () => names().length === 1 && names()[0] !== old[0])
    await eventually('v2', async () => (await world.curl('client', ['http://web/'])).version === 'v2')
    world.write('gone.yaml', idle({ namespace: 'plain', name: 'gone' }))
    await eventually('a new pod', () => world.sandbox.pods.some((pod) => pod.set.name === 'gone' && pod.ready))
    const gone = world.pod('gone')
    world.remove('gone.yaml')
    await eventually('no such pod', () => world.sandbox.pods.every((pod) => pod.set.name !== 'gone'))
    expect(existsSync(gone.netnsPath)).toBe(false)
    expect(existsSync(gone.cgroup)).toBe(false)
  })

  it('starts a container again when it dies, and keeps an unready pod out of its service', async () => {
    const pod = world.pod('web')
    const pid = pod.pid!
    process.kill(pid, 'SIGKILL')
    await eventually('another process', () => pod.pid !== undefined && pod.pid !== pid && pod.ready)
    await eventually('an endpoint again', async () => (await world.curl('client', ['http://web/'])).pod === pod.name)
    world.write(
      'sick.yaml',
      documents(
        app({
          namespace: 'plain',
          name: 'sick',
          ports: { http: 8080 },
          container: {
            readinessProbe: { httpGet: { path: '/healthy', port: 'http' }, periodSeconds: 1, failureThreshold: 1 },
          },
        }),
        service('plain', 'sick', { http: [80, 8080] }),
      ),
    )
    await eventually('a ready pod', () => world.sandbox.pods.some((one) => one.set.name === 'sick' && one.ready))
    await eventually('in the service', async () => (await world.status('client', ['http://sick/'])).status === 200)
    await world.sh('sick', `curl -sS -X PUT localhost:8080/-/behaviour -d '{"status":500}'`)
    await eventually('out of the service', async () => (await world.status('client', ['http://sick/'])).exit === 7)
    await world.sh('sick', `curl -sS -X PUT localhost:8080/-/behaviour -d '{"status":200}'`)
    await eventually('back in', async () => (await world.status('client', ['http://sick/'])).status === 200)
    world.remove('sick.yaml')
  })

  it('keeps what runs when a file is broken, and says where', async () => {
    world.write('broken.yaml', 'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many}\n')
    await eventually('a complaint', () => world.told.some((line) => /broken\.yaml:4: spec/.test(line)))
    expect((await world.curl('client', ['http://web/'])).version).toBe('v2')
    world.remove('broken.yaml')
  })

  it('stands beside another sandbox, on other addresses', async () => {
    const other: World & { close(): Promise<string[]> } = await openWorld(FILES, { mesh: false, nodes: 1 })
    try {
      expect(other.sandbox.layout.id).not.toBe(world.sandbox.layout.id)
      expect((await other.curl('client', ['http://web/'])).namespace).toBe('plain')
      expect((await world.curl('client', ['http://web/'])).namespace).toBe('plain')
      const foreign = other.pod('web').addresses[0]!
      expect((await world.status('client', ['-m', '2', `http://${foreign}:8080/`])).exit).not.toBe(0)
    } finally {
      expect(await other.close()).toEqual([])
    }
    expect((await world.curl('client', ['http://web/'])).version).toBe('v2')
  })

  it('leaves nothing behind', async () => {
    const { id, name } = world.sandbox.layout
    expect(await traces(id, name)).not.toEqual([])
    expect(await world.close()).toEqual([])
    expect(await traces(id, name)).toEqual([])
  })
})

describe('a sandbox on the command line', () => {
  it('comes up detached, tells its state, and is swept by the next up after a kill -9', async () => {
    const dir = makeFolder({
      'a.yaml': documents(namespace('plain'), idle({ namespace: 'plain', name: 'client' })),
    })
    const name = uniqueName()
    const up = (): ReturnType<typeof run> =>
      run([ambit, 'sandbox', 'up', dir, '--name', name, '--no-mesh', '--detach', '--nodes', '1'])
    const sandbox = (...args: string[]): ReturnType<typeof run> => run([ambit, 'sandbox', ...args])
    const owner = (): { pid: number; id: number } =>
      JSON.parse(readFileSync(`/run/ambit/${name}/owner.json`, 'utf8')) as { pid: number; id: number }
    const ids: number[] = []
    try {
      const first = await up()
      expect(first.err).toBe('')
      expect(first.code).toBe(0)
      const twice = await up()
      expect(twice.code).toBe(1)
      expect(twice.out + twice.err).toContain('SANDBOX_RUNNING')
      const status = JSON.parse((await sandbox('status', '--name', name, '-o', 'json')).out) as {
        nodes: Record<string, unknown>[]
        pods: Record<string, unknown>[]
      }
      expect(Object.keys(status.nodes[0]!)).toEqual([
        'name',
        'netns',
        'cgroup',
        'agentPid',
        'metricsUrl',
        'adminSocket',
      ])
      expect(Object.keys(status.pods[0]!)).toEqual(['namespace', 'name', 'ips', 'node', 'netns', 'pid', 'enrolled'])
      const ran = await run([ambit, 'sandbox', 'exec', '--name', name, 'client', '--', 'sh', '-c', 'cat; exit 3'], {
        input: 'through',
      })
      expect(ran).toEqual({ code: 3, out: 'through', err: '' })
      const logs = (await sandbox('logs', '--name', name)).out.trim().split('\n')
      for (const line of logs) expect(JSON.parse(line)).toBeTypeOf('object')
      const { pid, id } = owner()
      ids.push(id)
      process.kill(pid, 'SIGKILL')
      await eventually('the process is gone', () => !existsSync(`/proc/${pid}`))
      expect(await traces(id, name)).not.toEqual([])
      expect((await up()).code).toBe(0)
      ids.push(owner().id)
      expect((await run([ambit, 'sandbox', 'exec', '--name', name, 'client', '--', 'true'])).code).toBe(0)
    } finally {
      expect((await sandbox('down', '--name', name)).code).toBe(0)
    }
    for (const id of ids) expect(await traces(id, name)).toEqual([])
  })

  it('refuses a name, a folder and a node count that cannot be, each with a code', async () => {
    const refused = async (...args: string[]): Promise<string> => {
      const { code, out, err } = await run([ambit, 'sandbox', ...args])
      expect(code).not.toBe(0)
      return out + err
    }
    expect(await refused('up', '/nowhere/at/all')).toContain('SANDBOX_NO_FOLDER')
    expect(await refused('up', '/tmp', '--name', 'Not_A_Name')).toContain('SANDBOX_NAME_INVALID')
    expect(await refused('up', '/tmp', '--nodes', '99')).toContain('whole number from 1 to 32')
    expect(await refused('status', '--name', 'not-there')).toContain('SANDBOX_NOT_RUNNING')
  })
})
