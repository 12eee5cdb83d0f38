// The agent as it runs: `ambit control` and `ambit agent` as processes, pods in namespaces captured by the real kernel half,
// ordinary programs in them that know nothing of a mesh. Must not live here: the sandbox, waypoints.
import { spawn, type ChildProcess } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { World, type Pod, type Sockets } from '../world/netns.ts'

const program = new URL('../../agent/bin/ambit.ts', import.meta.url).pathname
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function eventually<T>(
  what: string,
  task: () => T | undefined | Promise<T | undefined>,
  ms = 15_000,
): Promise<T> {
  const until = Date.now() + ms
  for (;;) {
    const value = await Promise.resolve()
      .then(task)
      .catch(() => undefined)
    if (value !== undefined) return value
    if (Date.now() > until) throw new Error(`not within ${ms} ms: ${what}`)
    await sleep(50)
  }
}

/** A program of Ambit's with the JSON lines it prints. */
class Program {
  readonly lines: Record<string, unknown>[] = []
  readonly child: ChildProcess
  readonly ended: Promise<number | null>

  constructor(argv: readonly string[], cgroup: string | undefined, env: Record<string, string> = {}) {
    const script = cgroup ? 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"' : 'shift && exec "$@"'
    this.child = spawn('sh', ['-c', script, 'sh', cgroup ?? '', process.execPath, program, ...argv], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NODE_OPTIONS: '', NODE_NO_WARNINGS: '1', ...env },
    })
    let rest = ''
    this.child.stdout?.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n')
      rest = parts.pop() ?? ''
      for (const part of parts) this.lines.push(JSON.parse(part) as Record<string, unknown>)
    })
    this.ended = new Promise((resolve) => this.child.once('exit', resolve))
  }

  line(test: (line: Record<string, unknown>) => boolean, ms?: number): Promise<Record<string, unknown>> {
    return eventually('a log line', () => this.lines.find(test), ms)
  }
}

describe('an agent with the real kernel, control and pods', () => {
  const world = new World()
  const folder = mkdtempSync(join(tmpdir(), 'ambit-agent-'))
  const config = join(folder, 'config')
  const port = 20_000 + (process.pid % 5_000)
  const pods: Record<string, Pod> = {}
  const apps: Record<string, Sockets> = {}
  let control: Program
  let agent: Program

  const podYaml = (name: string): string => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: shop, labels: {app: ${name}}}
spec:
  serviceAccountName: ${name}
  nodeName: node1
  containers: [{name: app, image: echo}]
status:
  phase: Running
  podIP: ${pods[name]?.v4}
  podIPs: [{ip: ${pods[name]?.v4}}, {ip: "${pods[name]?.v6}"}]
  conditions: [{type: Ready, status: "True"}]
---`

  /** `sameNode`: whether the two pods, who are on one node, talk through tunnels as pods of two nodes do. */
  function writeShop(sameNode: 'direct' | 'tunnel'): void {
    const labels = `{istio.io/dataplane-mode: ambient, ambit.io/same-node: ${sameNode}}`
    writeFileSync(
      join(config, 'shop.yaml'),
      `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: ${labels}}
---${podYaml('client')}${podYaml('server')}`,
    )
  }

  async function metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${port + 1}/metrics`)).text()
    const line = text.split('\n').find((one) => one.startsWith(`${name} `))
    return Number(line?.slice(name.length + 1) ?? Number.NaN)
  }

  function startAgent(): Program {
    return new Program(
      [
        'agent',
        ...['--node', 'node1', '--control', `127.0.0.1:${port}`, '--root-cert', join(folder, 'control/root-cert.pem')],
        ...['--token-file', join(folder, 'token'), '--cgroup', world.cgroup, '--pin-root', world.bpffs],
        ...['--socket', join(folder, 'agent.sock'), '--state-dir', join(folder, 'agent')],
        ...['--metrics', `127.0.0.1:${port + 1}`, '--ready', `127.0.0.1:${port + 2}`],
        ...['--admin', `unix:${join(folder, 'admin.sock')}`],
      ],
      world.agentCgroup,
      { AMBIT_DRAIN_SECONDS: '2' },
    )
  }

  const ready = (): Promise<true> =>
    eventually('readiness', async () => {
      const answer = await fetch(`http://127.0.0.1:${port + 2}/healthz/ready`)
      return answer.status === 200 ? true : undefined
    })

  function api(request: Record<string, unknown>): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const socket = connect(join(folder, 'agent.sock'), () => socket.write(`${JSON.stringify(request)}\n`))
      let text = ''
      socket.on('data', (chunk) => {
        text += chunk.toString()
        if (!text.includes('\n')) return
        socket.destroy()
        resolve(JSON.parse(text) as Record<string, unknown>)
      })
      socket.on('error', reject)
    })
  }

  const add = (name: string): Promise<Record<string, unknown>> => {
    const pod = pods[name] as Pod
    return api({ op: 'add', uid: name, namespace: 'shop', name, netns: pod.netns, addresses: [pod.v4, pod.v6] })
  }

  /** A question and its answer between two pods: the server says whom it saw. Undefined where there was none. */
  async function ask(from: string, family: 4 | 6): Promise<{ text: string; saw: string } | undefined> {
    const server = pods['server'] as Pod
    const client = apps[from] as Sockets
    const opened = await client.call('connect', { family, to: family === 4 ? server.v4 : server.v6, port: 8080 })
    if (opened.error) return undefined
    const { socket } = opened
    await client.call('send', { socket, data: 'question' })
    const { data } = await client.call('receive', { socket })
    await client.must('close', { socket })
    return data ? (JSON.parse(data) as { text: string; saw: string }) : undefined
  }

  /** A program in a pod that is given as a script, once it has said its first word. */
  async function inPod(name: string, script: string): Promise<ChildProcess> {
    const child = world.spawn(pods[name] as Pod, process.execPath, ['-e', script])
    await new Promise((resolve) => child.stdout?.once('data', resolve))
    return child
  }

  beforeAll(async () => {
    mkdirSync(config)
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256' }
    writeFileSync(join(folder, 'keys.jwks'), JSON.stringify({ keys: [jwk] }))
    const token = await new SignJWT({
      'kubernetes.io': {
        namespace: 'ambit-system',
        serviceaccount: { name: 'ambit-agent' },
        node: { name: 'node1' },
      },
    })
      .setProtectedHeader({ alg: 'ES256', kid: 'k' })
      .setIssuer('ambit-sandbox')
      .setAudience('istio-ca')
      .setSubject('system:serviceaccount:ambit-system:ambit-agent')
      .setIssuedAt()
      .setExpirationTime('1h')
      .sign(privateKey)
    writeFileSync(join(folder, 'token'), token)
    for (const name of ['client', 'server']) {
      pods[name] = world.pod()
      apps[name] = world.sockets(pods[name])
    }
    apps['outside'] = world.sockets(world.outside, world.outside.cgroup)
    writeShop('tunnel')
    control = new Program(
      [
        'control',
        ...['--config-dir', config, '--listen', `127.0.0.1:${port}`, '--state-dir', join(folder, 'control')],
        ...['--token-keys', join(folder, 'keys.jwks'), '--admin', `unix:${join(folder, 'control.sock')}`],
      ],
      undefined,
    )
    await eventually('the root certificate', () => {
      try {
        return readFileSync(join(folder, 'control/root-cert.pem'), 'utf8')
      } catch {
        return undefined
      }
    })
    agent = startAgent()
    await ready()
    expect(await add('client')).toMatchObject({ ok: true })
    expect(await add('server')).toMatchObject({ ok: true })
    await inPod(
      'server',
      `require('net').createServer((s) => { s.on('error', () => {})
        s.on('data', (d) => s.write(JSON.stringify({ text: 'answer to ' + d, saw: s.remoteAddress })))
      }).listen(8080, '::', () => console.log('ready'))`,
    )
  })

  afterAll(async () => {
    for (const one of [agent, control]) one.child.kill('SIGKILL')
    await Promise.all([agent.ended, control.ended])
    await world.close()
    rmSync(folder, { recursive: true, force: true })
  })

  it.each([4, 6] as const)(
    'carries a connection over IPv%i between captured pods, and the app sees the client',
    async (family) => {
      const answer = await ask('client', family)
      expect(answer?.text).toBe('answer to question')
      const client = pods['client'] as Pod
      expect(answer?.saw).toBe(family === 4 ? `::ffff:${client.v4}` : client.v6)
      const line = await agent.line(
        (one) =>
          one['direction'] === 'inbound' && String(one['src.addr']).includes(family === 4 ? client.v4 : client.v6),
      )
      expect(line).toMatchObject({
        'src.identity': 'spiffe://cluster.local/ns/shop/sa/client',
        'dst.identity': 'spiffe://cluster.local/ns/shop/sa/server',
        'dst.workload': 'server',
        message: 'connection complete',
      })
    },
  )

  it('counts it in the metrics, and shows the state without a key', async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${port + 1}/metrics`)).text()
    expect(metrics).toMatch(
      /istio_tcp_connections_opened_total\{reporter="source",source_workload="client".*mutual_tls/,
    )
    expect(metrics).toMatch(/ambit_pods\{phase="captured"\} 2/)
    expect(metrics).toMatch(/ambit_kernel_events_total\{event="redirected"\} [1-9]/)
    const dump = await new Promise<string>((resolve, reject) => {
      const socket = connect(join(folder, 'admin.sock'), () => socket.write('GET /config_dump HTTP/1.0\r\n\r\n'))
      let text = ''
      socket.on('data', (chunk) => (text += chunk.toString()))
      socket.on('end', () => resolve(text))
      socket.on('error', reject)
    })
    expect(dump).toContain('spiffe://cluster.local/ns/shop/sa/server')
    expect(dump).not.toContain('PRIVATE KEY')
  })

  it('serves plaintext from outside until the mesh is STRICT, then refuses it at once', async () => {
    expect(await ask('outside', 4)).toEqual({ text: 'answer to question', saw: `::ffff:${world.outside.v4}` })
    writeFileSync(
      join(config, 'strict.yaml'),
      `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
`,
    )
    const server = pods['server'] as Pod
    const outside = apps['outside'] as Sockets
    await eventually('a refusal by the kernel', async () =>
      (await outside.call('connect', { to: server.v4, port: 8080 })).error === 'ECONNREFUSED' ? true : undefined,
    )
    expect((await ask('client', 4))?.text).toBe('answer to question')
  })

  it('denies by principal, names the policy, and lets go again', async () => {
    const file = join(config, 'deny.yaml')
    writeFileSync(
      file,
      `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: shop}
spec:
  action: DENY
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
`,
    )
    const line = await eventually('a denial', async () => {
      await ask('client', 4)
      return agent.lines.find((one) => String(one['policy']).includes('no-client'))
    })
    expect(line).toMatchObject({
      'src.identity': 'spiffe://cluster.local/ns/shop/sa/client',
      message: 'connection failed',
    })
    expect(await ask('client', 4)).toBeUndefined()
    rmSync(file)
    await eventually('an answer again', () => ask('client', 4))
  })

  it('keeps its memory within 64 MB of idle while a slow reader takes a transfer', async () => {
    const total = 256 << 20
    await inPod(
      'server',
      `require('net').createServer((s) => { const b = Buffer.alloc(1 << 20, 'x'); let n = 0
        const more = () => { while (n < ${total}) { n += b.length; if (!s.write(b)) return } s.end() }
        s.on('drain', more); more() }).listen(9000, '::', () => console.log('ready'))`,
    )
    const rss = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${agent.child.pid}/status`, 'utf8'))?.[1] ?? 0) >> 10
    const idle = rss()
    let peak = idle
    const watch = setInterval(() => (peak = Math.max(peak, rss())), 50)
    const reader = world.spawn(pods['client'] as Pod, process.execPath, [
      '-e',
      `let n = 0; const s = require('net').connect(9000, '${(pods['server'] as Pod).v4}')
        s.on('data', (d) => { n += d.length; s.pause(); setTimeout(() => s.resume(), 1) })
        s.on('end', () => { console.log(n); process.exit() })`,
    ])
    const text = await new Promise<string>((resolve) =>
      reader.stdout?.once('data', (chunk: Buffer) => resolve(chunk.toString())),
    )
    clearInterval(watch)
    expect(Number(text)).toBe(total)
    expect(peak - idle).toBeLessThan(64)
  })

  it('refuses, and never passes on in the clear, while it is dead; and serves again when it is back', async () => {
    agent.child.kill('SIGKILL')
    await agent.ended
    const client = apps['client'] as Sockets
    const answer = await client.call('connect', { to: (pods['server'] as Pod).v4, port: 8080, timeout: 1 })
    const got = answer.error ?? (await client.call('receive', { socket: answer.socket, timeout: 1 })).error
    expect(got).toBeDefined()
    agent = startAgent()
    await ready()
    await eventually('an answer again', () => ask('client', 4))
  })

  it('lets neighbours talk directly where they may, judged by the same policies, also while it is dead', async () => {
    const direct = (): Promise<number> => metric('ambit_kernel_events_total{event="attested"}')
    expect(await direct()).toBe(0)
    writeShop('direct')
    await eventually('a direct connection', async () => {
      expect((await ask('client', 4))?.text).toBe('answer to question')
      return (await direct()) > 0 ? true : undefined
    })
    const before = await direct()
    const client = pods['client'] as Pod
    // STRICT is in force: a neighbour that the kernel attests is authenticated.
    expect((await ask('client', 6))?.saw).toBe(client.v6)
    expect((await ask('client', 4))?.saw).toBe(`::ffff:${client.v4}`)
    expect(await direct()).toBe(before + 2)
    // The kernel tells of them: the side that dialled, and no tunnel.
    const line = await agent.line((one) => String(one['src.addr']).includes(client.v6) && !('dst.hbone_addr' in one))
    expect(line).toMatchObject({
      message: 'connection complete',
      direction: 'outbound',
      'src.identity': 'spiffe://cluster.local/ns/shop/sa/client',
      'dst.identity': 'spiffe://cluster.local/ns/shop/sa/server',
      bytes_sent: 'question'.length,
      bytes_recv: JSON.stringify({ text: 'answer to question', saw: client.v6 }).length,
    })
    const counted = async (reporter: string): Promise<number> => {
      const text = await (await fetch(`http://127.0.0.1:${port + 1}/metrics`)).text()
      const found = new RegExp(
        `^istio_tcp_connections_closed_total\\{reporter="${reporter}",source_workload="client".*"same_node".* (\\d+)$`,
        'm',
      )
      return Number(found.exec(text)?.[1] ?? Number.NaN)
    }
    const closed = await direct()
    const allOf = async (reporter: string, count: number): Promise<true | undefined> =>
      (await counted(reporter)) === count ? true : undefined
    await eventually('counts at the source', () => allOf('source', closed))
    await eventually('counts at the destination', () => allOf('destination', closed))

    agent.child.kill('SIGKILL')
    await agent.ended
    expect((await ask('client', 4))?.text).toBe('answer to question')
    agent = startAgent()
    await ready()
    // With the one that nobody was there to see.
    await eventually('counts that go on', () => allOf('source', closed + 1))
    expect((await ask('client', 4))?.text).toBe('answer to question')

    const app = apps['client'] as Sockets
    // Its tables are not in force at once.
    const adopted = await direct()
    await eventually('a direct connection again', async () => {
      await ask('client', 4)
      return (await direct()) > adopted ? true : undefined
    })
    const open = await app.must('connect', { to: (pods['server'] as Pod).v4, port: 8080 })
    await app.must('send', { socket: open.socket, data: 'held' })
    expect((await app.must('receive', { socket: open.socket })).data).toContain('answer to held')
    const file = join(config, 'deny.yaml')
    writeFileSync(
      file,
      `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: shop}
spec:
  action: DENY
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
`,
    )
    await eventually('a refusal by the kernel', async () => {
      const answer = await app.call('connect', { to: (pods['server'] as Pod).v4, port: 8080 })
      return answer.error === 'ECONNREFUSED' ? true : undefined
    })
    expect(await metric('ambit_kernel_events_total{event="dropped.policy_denied"}')).toBeGreaterThan(0)
    // What was open of before is ended.
    await eventually('a reset', async () => {
      const answer = await app.call('receive', { socket: open.socket, timeout: 0.1 })
      return answer.error === 'ECONNRESET' ? true : undefined
    })
    expect(await metric('ambit_kernel_events_total{event="dropped.revoked"}')).toBeGreaterThan(0)
    await app.must('close', { socket: open.socket })
    rmSync(file)
    await eventually('an answer again', () => ask('client', 4))
    writeShop('tunnel')
    await eventually('a tunnel again', async () => {
      await ask('client', 4)
      return agent.lines.find((one) => one['dst.workload'] === 'server' && 'dst.hbone_addr' in one)
    })
  })

  it('knows its last good state when control is away', async () => {
    agent.child.kill('SIGTERM')
    expect(await agent.ended).toBe(0)
    control.child.kill('SIGKILL')
    await control.ended
    agent = startAgent()
    await ready()
    // STRICT still holds; no certificate comes, so that what needs one is refused, not passed on.
    const outside = apps['outside'] as Sockets
    expect((await outside.call('connect', { to: (pods['server'] as Pod).v4, port: 8080 })).error).toBe('ECONNREFUSED')
    const client = apps['client'] as Sockets
    const { socket } = await client.must('connect', { to: (pods['server'] as Pod).v4, port: 8080 })
    const answer = await client.call('receive', { socket })
    expect(answer.error ?? answer.data).not.toBe('answer to question')
    const line = await agent.line((one) => one['direction'] === 'outbound' && 'error' in one)
    expect(String(line['error'])).toMatch(/certificate/i)
  })
})
