// The suite `tunnel`: agent to agent across two hosts, beside the same path without a mesh in the same run. Laid out so that its figures stand beside
// those of other meshes: two nodes, each end's app and agent on one core; iperf3, nginx and wrk with kept-alive connections.
// Must not live here: the sandbox (sandbox.ts), TLS handshakes alone (handshake.ts).
import type { SuiteOptions } from './main.ts'
import { recordProfiles } from './profiles.ts'
import { cpuMs, memoryOf } from './programs.ts'
import { BenchSandbox } from './sandbox.ts'
import { Samples, type Report } from './table.ts'
import { judge, type TargetSpec } from './targets.ts'
import { parseH2load, parseIperf, parseWrk } from './tools.ts'

/** The client's and the server's. */
const NODES = ['node-1', 'node-2'] as const
const PLAIN = 'no mesh'
const MESH = 'mesh'
/**
 * Requests per second of the measurement of latency alone, on one connection: h2load gives its rate out every 10 ms, so that
 * several connections would send at the same moment and wait for each other.
 */
const FIXED_RATE = 1_000

const ADDED = `mesh: p99 added at ${FIXED_RATE}/s`

const NOTES = [
  'Two nodes, HBONE with mutual TLS between them. Core 0: client and its agent; core 1: server and its agent. iperf3 with one stream; wrk and nginx, keep-alive;',
  `p99 at ${FIXED_RATE} requests/s: h2load at a fixed rate on one HTTP/1.1 connection, one at a time. RSS: after the throughput.`,
  'By CPU: what the CPU time of everything at an end would give with its core to itself: the busier end sets it, at 1 connection both together, as one waits for the other.',
  'It leaves out what the kernel does for no process (soft interrupts on its own threads), and waiting: where the machine is idle otherwise, the rate itself is what counts.',
] as const

const TARGETS: readonly TargetSpec[] = [
  // As it was and by the CPU time it took: on a machine that does other work as well only the second means much.
  ...['', ' by CPU'].flatMap((by) => [
    share(`throughput${by}`, 0.22, 'ztunnel: 0.18–0.25'),
    share(`requests${by}, 1 connection`, 0.23, 'ztunnel: 0.21'),
    share(`requests${by}, 32 connections`, 0.28, 'ztunnel: 0.19–0.27'),
  ]),
  { row: ADDED, baseline: '', limit: 0.5, atMost: true },
]

function share(what: string, limit: number, reference: string): TargetSpec {
  return { row: `${MESH}: ${what}`, baseline: `${PLAIN}: ${what}`, limit, atMost: false, reference }
}

export async function benchTunnel(options: SuiteOptions): Promise<Report> {
  const { rounds, seconds, say, only, profile } = options
  say('bringing the world up')
  return await BenchSandbox.with('bench-tunnel', async (sandbox) => {
    const samples = new Samples()
    const plain = new Path(sandbox, PLAIN, seconds, samples, undefined)
    const mesh = new Path(sandbox, MESH, seconds, samples, plain)
    const paths = [plain, mesh]
    for (const path of paths) await path.warm()
    if (profile !== undefined) {
      const names = Object.keys(mesh.measurements).filter((name) => only === undefined || name.includes(only))
      await recordProfiles(
        profile,
        NODES.map((node) => ({ name: `agent of ${node}`, pid: sandbox.agentPid(node) })),
        names.map((name) => ({ name, run: async () => await mesh.measurements[name]?.() })),
      )
      return { rows: [], notes: [], targets: [] }
    }
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds}`)
      // Path by path within a measurement: what is compared stands next to each other in time.
      for (const name of Object.keys(plain.measurements)) {
        if (only !== undefined && !name.includes(only)) continue
        for (const path of paths) await path.measurements[name]?.()
      }
    }
    const rows = samples.rows()
    return { rows, notes: NOTES, targets: judge(TARGETS, rows) }
  })
}

class Path {
  readonly #sandbox: BenchSandbox
  readonly #name: string
  readonly #seconds: number
  readonly #samples: Samples
  readonly #client: string
  readonly #server: string
  readonly #agents: readonly number[]
  /** What it is compared with; undefined for the plain path itself. */
  readonly #plain: Path | undefined

  /** p99 at the fixed rate in the latest round. */
  fixedP99Ms = Number.NaN

  readonly measurements: Readonly<Record<string, () => Promise<void>>> = {
    throughput: () => this.#throughput(),
    'requests, 1 connection': () => this.#requests(1),
    'requests, 32 connections': () => this.#requests(32),
    'new connections': () => this.#newConnections(),
    'fixed rate': () => this.#fixedRate(),
  }

  constructor(sandbox: BenchSandbox, name: string, seconds: number, samples: Samples, plain: Path | undefined) {
    this.#plain = plain
    const namespace = name === PLAIN ? 'plain' : 'mesh'
    this.#sandbox = sandbox
    this.#name = name
    this.#seconds = seconds
    this.#samples = samples
    this.#client = `${namespace}/client`
    this.#server = sandbox.address(namespace, 'far')
    this.#agents = name === PLAIN ? [] : NODES.map((node) => sandbox.agentPid(node))
  }

  async warm(): Promise<void> {
    await this.#run(['wrk', '-t1', '-c2', '-d1s', this.#url])
  }

  get #url(): string {
    return `http://${this.#server}:8080/`
  }

  #run(command: readonly string[]): Promise<string> {
    return this.#sandbox.inPod(this.#client, command, (this.#seconds + 20) * 1000)
  }

  #add(what: string, value: number, unit: string): void {
    this.#samples.add(`${this.#name}: ${what}`, value, unit, this.#name === PLAIN ? '' : `${PLAIN}: ${what}`)
  }

  /** CPU time of the two agents, ms. */
  #cpu(): number {
    return this.#agents.reduce((sum, pid) => sum + cpuMs(pid), 0)
  }

  /** Runs a load and gives the CPU time of each end meanwhile, µs, app and agent. */
  async #ends<T>(task: () => Promise<T>): Promise<{ result: T; ends: [number, number] }> {
    const now = (): number[] => NODES.map((node) => this.#sandbox.cpuMicros(node))
    const before = now()
    const result = await task()
    const after = now()
    return { result, ends: after.map((micros, i) => micros - (before[i] ?? 0)) as [number, number] }
  }

  async #throughput(): Promise<void> {
    const before = this.#cpu()
    const { result: text, ends } = await this.#ends(() =>
      this.#run(['iperf3', '-c', this.#server, '-t', String(this.#seconds), '-J']),
    )
    const gbits = parseIperf(text)
    this.#add('throughput', gbits, 'Gbit/s')
    this.#add('throughput by CPU', (gbits * this.#seconds * 1e6) / Math.max(...ends), 'Gbit/s')
    if (this.#agents.length === 0) return
    this.#samples.add('agents: CPU, throughput', (this.#cpu() - before) / (gbits * this.#seconds), 'ms/Gbit', '')
    for (const [i, pid] of this.#agents.entries()) {
      const { rssMb, peakMb } = memoryOf(pid)
      const side = i === 0 ? "client's" : "server's"
      this.#samples.add(`agents: RSS, ${side}`, rssMb, 'MiB', '')
      this.#samples.add(`agents: highest RSS, ${side}`, peakMb, 'MiB', '')
    }
  }

  async #requests(connections: number): Promise<void> {
    const before = this.#cpu()
    const what = connections === 1 ? '1 connection' : `${connections} connections`
    const { result: text, ends } = await this.#ends(() =>
      this.#run(['wrk', '--latency', '-t1', `-c${connections}`, `-d${this.#seconds}s`, this.#url]),
    )
    const result = parseWrk(text)
    if (result.errors > 0) throw new Error(`${this.#name}, ${what}: ${result.errors} requests failed`)
    this.#add(`requests, ${what}`, result.requestsPerSecond, '1/s')
    const [client, server] = ends
    const micros = connections === 1 ? client + server : Math.max(client, server)
    this.#add(`requests by CPU, ${what}`, (result.requests * 1e6) / micros, '1/s')
    this.#add(`p50, ${what}`, result.p50Ms, 'ms')
    this.#add(`p99, ${what}`, result.p99Ms, 'ms')
    if (this.#agents.length > 0)
      this.#samples.add(`agents: CPU, ${what}`, ((this.#cpu() - before) * 1000) / result.requests, 'µs/request', '')
  }

  async #newConnections(): Promise<void> {
    const text = await this.#run(
      // prettier-ignore
      ['wrk', '--latency', '-t1', '-c8', `-d${this.#seconds}s`, '-H', 'Connection: close', this.#url],
    )
    const { requestsPerSecond, errors } = parseWrk(text)
    this.#add('new connections', requestsPerSecond, '1/s')
    this.#samples.add(`${this.#name}: failed new connections`, errors, '', '')
  }

  /** Latency where nothing queues; the difference of the two paths is what the mesh adds. */
  async #fixedRate(): Promise<void> {
    // Its log must be a file that it can open: a pipe is none.
    const command = 'log=$(mktemp) && h2load --log-file="$log" "$@"; code=$?; cat "$log"; rm -f "$log"; exit $code'
    const text = await this.#run([
      ...['sh', '-c', command, 'sh', '--h1', '-t1', '-c1'],
      ...[`--rps=${FIXED_RATE}`, '-D', String(this.#seconds), this.#url],
    ])
    const { p50Ms, p99Ms, errors } = parseH2load(text, text)
    if (errors > 0) throw new Error(`${this.#name} at a fixed rate: ${errors} requests failed`)
    this.#add(`p50 at ${FIXED_RATE}/s`, p50Ms, 'ms')
    this.#add(`p99 at ${FIXED_RATE}/s`, p99Ms, 'ms')
    this.fixedP99Ms = p99Ms
    if (this.#plain) this.#samples.add(ADDED, p99Ms - this.#plain.fixedP99Ms, 'ms', '')
  }
}
