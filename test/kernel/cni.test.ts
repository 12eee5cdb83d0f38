// The CNI plugin where it stands: chained behind Debian's bridge and host-local in a conflist, an agent's real enrolment behind
// its socket, the kernel half in place, real connections from the first moment a pod can run.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../agent/base/clock.ts'
import { silentLog } from '../../agent/base/log.ts'
import type { Listener } from '../../agent/io/connection.ts'
import { transport } from '../../agent/io/index.ts'
import type { MeshState } from '../../agent/mesh/state.ts'
import type { Enrollment } from '../../agent/node/enroll/contract.ts'
import { startEnrollment } from '../../agent/node/enroll/enrollment.ts'
import { shopMesh } from '../../agent/node/enroll/testing.ts'
import { pluginProgram } from '../../native/cni/test/plugin.ts'
import { ip, type Pod, type Sockets } from '../world/netns.ts'
import { Queue, TestNode } from './node.ts'
import { PluginError, Runtime, type PodName, type Sandbox } from './runtime.ts'

const GATEWAY = '10.88.7.1'

describe('a pod that a runtime starts', () => {
  let node: TestNode
  let mesh: MeshState | undefined
  let folder: string
  let enrollment: Enrollment | undefined
  let outbound: Queue
  let runtime: Runtime
  const listening = new Map<string, Listener>()
  const captured: string[] = []

  async function startAgent(): Promise<void> {
    enrollment = await startEnrollment({
      node: 'one',
      redirect: node.redirect,
      view: () => mesh,
      socketPath: join(folder, 'agent.sock'),
      stateDir: join(folder, 'state'),
      log: silentLog,
      clock: systemClock,
      onEnrolled: async ({ uid }, listeners) => {
        captured.push(uid)
        listening.set(uid, await transport.listen({ fd: listeners.outbound, handler: outbound }))
      },
      onUnenrolled: async ({ uid }) => listening.get(uid)?.stop(),
    })
  }

  /** The network of the node: a bridge with a leg per pod, and the plugin behind it. */
  function writeNetwork(cniVersion: string, change: object = {}, more: object = {}): void {
    const dataDir = join(folder, 'host-local')
    const ipam = { type: 'host-local', dataDir, ranges: [[{ subnet: '10.88.7.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] }
    const plugins = [
      { type: 'bridge', bridge: 'cni0', isGateway: true, ipam: { ...ipam, ...more } },
      { type: 'ambit-cni', socket: join(folder, 'agent.sock'), timeoutSeconds: 5, ...change },
    ]
    writeFileSync(join(folder, 'net.d/10-node.conflist'), JSON.stringify({ cniVersion, name: 'node', plugins }))
  }

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-cni-'))
    mkdirSync(join(folder, 'net.d'))
    node = await TestNode.open()
    mesh = shopMesh()
    outbound = new Queue(() => node.redirect)
    runtime = new Runtime(node.world, join(folder, 'net.d'), ['/usr/lib/cni', dirname(pluginProgram('release'))])
    writeNetwork('1.0.0')
    await startAgent()
  })
  afterEach(async () => {
    await enrollment?.close()
    enrollment = undefined
    for (const listener of listening.values()) await listener.stop()
    listening.clear()
    captured.length = 0
    await node.close()
    rmSync(folder, { recursive: true, force: true })
  })

  let pods = 0
  const pod = (namespace = 'shop'): PodName => ({ namespace, name: `web-${++pods}`, uid: `uid-${pods}` })
  /** A process of the pod; its first act is a connection to the node's side of the bridge. */
  async function firstAct(of: Pod): Promise<{ app: Sockets; error: string | undefined }> {
    const app = node.world.sockets(of)
    const { error } = await app.call('connect', { to: GATEWAY, port: 80, timeout: 2 })
    return { app, error }
  }
  /** What of TCP has left pods for the node's bridge. */
  async function watch(): Promise<() => Promise<string[]>> {
    const watcher = node.world.packets(node.world.outside)
    const { socket } = await watcher.must('watch', { device: 'cni0' })
    return async () => {
      const { packets } = await watcher.must('seen', { socket })
      return packets!.filter(({ protocol }) => protocol === 'tcp').map(({ from }) => String(from))
    }
  }
  /** What the chain was refused with. */
  async function refusal(attempt: Promise<unknown>): Promise<{ type: string; code: number | undefined }> {
    const error: unknown = await attempt.then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    if (!(error instanceof PluginError)) throw new Error(`not refused by a plugin: ${String(error)}`)
    return { type: error.type, code: error.result.error.code }
  }

  it.each(['0.3.1', '0.4.0', '1.0.0'])('sends nothing before it is captured (CNI %s)', async (cniVersion) => {
    writeNetwork(cniVersion)
    // Outside the mesh it is seen to send: the watch sees, and without the plugin this is what the first act would be.
    const plain = await runtime.run(pod('plain'))
    const sent = await watch()
    const server = node.world.sockets(node.world.outside)
    await server.must('listen', { bind: GATEWAY, source: 80 })
    expect((await firstAct(plain.pod)).error).toBeUndefined()
    expect(new Set(await sent())).toEqual(new Set([plain.pod.v4]))
    for (let i = 0; i < 5; i++) {
      const sandbox = await runtime.run(pod())
      expect(captured).toHaveLength(i + 1)
      expect((await firstAct(sandbox.pod)).error).toBeUndefined()
      const { original } = await outbound.next()
      expect(original).toEqual({ address: GATEWAY, port: 80 })
      expect(await sent()).toEqual([])
    }
    expect(node.redirect.enrolled()).toHaveLength(5)
  })

  it('answers CHECK, and DEL as often as it is asked', async () => {
    writeNetwork('0.4.0')
    const sandbox = await runtime.run(pod())
    expect((await runtime.check(sandbox)).map(({ code }) => code)).toEqual([0, 0])
    const [name] = node.redirect.enrolled()
    // Another agent, or none, would not know it.
    await enrollment!.del(name!)
    expect((await runtime.check(sandbox)).at(-1)?.error).toMatchObject({ code: 101, msg: expect.any(String) as string })
    for (let i = 0; i < 2; i++) expect((await runtime.release(sandbox))[0]).toMatchObject({ code: 0, stdout: '' })
    const other = await runtime.run(pod())
    expect(node.redirect.enrolled()).toHaveLength(1)
    expect((await runtime.stop(other)).map(({ code }) => code)).toEqual([0, 0])
    expect(node.redirect.enrolled()).toEqual([])
    expect(enrollment!.list()).toEqual([])
  })

  it('is captured with both its families', async () => {
    const range = [[{ subnet: '10.88.7.0/24' }], [{ subnet: 'fd88:7::/64' }]]
    writeNetwork('1.0.0', {}, { ranges: range })
    const { pod: dual } = await runtime.run(pod())
    expect(enrollment!.list()[0]!.pod.addresses).toEqual([dual.v4, dual.v6])
    const app = node.world.sockets(dual)
    await app.must('connect', { family: 6, to: 'fd88:7::1', port: 80, timeout: 2 })
    expect((await outbound.next()).original).toEqual({ address: 'fd88:7::1', port: 80 })
  })

  it('waits for an agent, but not in an exempt namespace', async () => {
    await enrollment!.close()
    enrollment = undefined
    expect(await refusal(runtime.run(pod()))).toEqual({ type: 'ambit-cni', code: 11 })
    // What the chain did before it was taken back: the address is free again.
    const exempt = await runtime.run(pod('kube-system'))
    expect(exempt.pod.v4).toMatch(/^10\.88\.7\./)
    await runtime.stop(exempt)
    expect((await runtime.network('STATUS', 'ambit-cni')).code).toBe(0)
    await startAgent()
    await runtime.run(pod())
    expect(captured).toHaveLength(1)
  })

  it('is refused by an agent that never had a state, but not in an exempt namespace', async () => {
    mesh = undefined
    expect(await refusal(runtime.run(pod('plain')))).toEqual({ type: 'ambit-cni', code: 11 })
    await runtime.run(pod('ambit-system'))
    expect((await runtime.network('STATUS', 'ambit-cni')).code).toBe(0)
    mesh = shopMesh()
    await runtime.run(pod('plain'))
    await runtime.run(pod())
    expect(captured).toHaveLength(1)
  })

  it('is not let go by the end of its former sandbox', async () => {
    const web = pod()
    const first = await runtime.run(web)
    const second = await runtime.run(web)
    await runtime.stop(first)
    expect(node.redirect.enrolled()).toEqual([web.uid])
    const sent = await watch()
    expect((await firstAct(second.pod)).error).toBeUndefined()
    expect((await outbound.next()).original).toEqual({ address: GATEWAY, port: 80 })
    expect(await sent()).toEqual([])
  })

  it('is captured when many start at once', async () => {
    const sandboxes: Sandbox[] = await Promise.all(Array.from({ length: 12 }, () => runtime.run(pod())))
    expect(new Set(captured).size).toBe(12)
    const sent = await watch()
    for (const { pod: started } of sandboxes) expect((await firstAct(started)).error).toBeUndefined()
    expect(await sent()).toEqual([])
    const gone = sandboxes.map((sandbox) => runtime.stop(sandbox))
    expect((await Promise.all(gone)).flat().every(({ code }) => code === 0)).toBe(true)
    expect(node.redirect.enrolled()).toEqual([])
  })

  it('leaves nothing when its namespace goes without a DEL', async () => {
    const sandbox = await runtime.run(pod())
    expect(await runtime.network('GC', 'ambit-cni')).toMatchObject({ code: 0, stdout: '' })
    await enrollment!.settled()
    expect(node.redirect.enrolled()).toHaveLength(1)
    ip('netns', 'del', sandbox.id)
    await runtime.network('GC', 'ambit-cni')
    await enrollment!.settled()
    expect(node.redirect.enrolled()).toEqual([])
  })
})

describe('the program that keeps the plugin chained', () => {
  let node: TestNode
  let folder: string
  let runtime: Runtime
  const at = (path: string): string => join(folder, path)
  const cni = (): string[] => ['--cni-conf-dir', at('net.d'), '--cni-bin-dir', at('bin')]

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-cni-'))
    mkdirSync(at('net.d'))
    mkdirSync(at('bin'))
    node = await TestNode.open()
    runtime = new Runtime(node.world, at('net.d'), ['/usr/lib/cni', at('bin')])
    const ranges = [[{ subnet: '10.88.7.0/24' }]]
    const ipam = { type: 'host-local', dataDir: at('host-local'), ranges }
    const conf = { cniVersion: '1.0.0', name: 'node', type: 'bridge', bridge: 'cni0', isGateway: true, ipam }
    writeFileSync(at('net.d/10-node.conf'), JSON.stringify(conf))
    pluginProgram('release')
  })
  afterEach(async () => {
    await node.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const run = (namespace: string): Promise<Sandbox> => runtime.run({ namespace, name: 'web', uid: 'uid-web' })
  const types = (): string[] => runtime.list.plugins.map(({ type }) => type)

  it('is there before the first pod, stays when it ends, and leaves when it is uninstalled', async () => {
    const agent = new AgentProgram(node, folder, cni())
    try {
      await agent.says('agent started')
      expect(types()).toEqual(['bridge', 'ambit-cni'])
      expect(await agent.metric('ambit_cni_chained')).toBe(1)
      // It never had a state.
      await expect(run('shop')).rejects.toMatchObject({
        type: 'ambit-cni',
        message: expect.stringContaining('no state'),
      })
      await runtime.stop(await run('kube-system'))
      expect(await agent.end()).toBe(0)
    } finally {
      agent.kill()
    }
    expect(types()).toEqual(['bridge', 'ambit-cni'])
    await expect(run('shop')).rejects.toMatchObject({ type: 'ambit-cni' })
    execFileSync('agent/bin/ambit', ['agent', '--uninstall', '--pin-root', node.world.bpffs, ...cni()])
    expect(readdirSync(at('net.d'))).toEqual(['10-node.conf'])
    expect(readdirSync(at('bin'))).toEqual([])
    await runtime.stop(await run('shop'))
  })
})

/** `ambit agent` of a node, without a control plane. */
class AgentProgram {
  readonly #process: ChildProcess
  readonly #ended: Promise<unknown>
  readonly #admin: string
  #log = ''

  constructor(node: TestNode, folder: string, more: readonly string[]) {
    this.#admin = join(folder, 'admin.sock')
    writeFileSync(join(folder, 'token'), 'x')
    execFileSync(
      'openssl',
      `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=mesh -keyout ${folder}/key -out ${folder}/root`.split(
        ' ',
      ),
      { stdio: 'ignore' },
    )
    const flags = {
      node: 'one',
      control: '127.0.0.1:1',
      'root-cert': join(folder, 'root'),
      'token-file': join(folder, 'token'),
      cgroup: node.world.cgroup,
      'pin-root': node.world.bpffs,
      socket: join(folder, 'agent.sock'),
      'state-dir': join(folder, 'state'),
      metrics: '127.0.0.1:0',
      ready: '127.0.0.1:0',
      admin: `unix:${this.#admin}`,
    }
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
    const script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
    const command = [node.world.agentCgroup, 'agent/bin/ambit', 'agent', ...args, ...more]
    this.#process = spawn('sh', ['-c', script, 'sh', ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#ended = once(this.#process, 'close')
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) {
      stream.on('data', (chunk: Buffer) => (this.#log += chunk.toString()))
    }
  }

  async says(text: string): Promise<void> {
    const end = performance.now() + 60_000
    while (!this.#log.includes(text)) {
      if (performance.now() > end || this.#process.exitCode !== null) {
        throw new Error(`the agent never said '${text}': ${this.#log}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  async metric(name: string): Promise<number> {
    const text = execFileSync('curl', ['-sS', '--unix-socket', this.#admin, 'http://agent/metrics'], {
      encoding: 'utf8',
    })
    return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1])
  }

  async end(): Promise<number | null> {
    this.#process.kill('SIGTERM')
    await this.#ended
    return this.#process.exitCode
  }

  kill(): void {
    this.#process.kill('SIGKILL')
  }
}
