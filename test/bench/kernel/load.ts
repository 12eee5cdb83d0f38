// The load program of the suite `kernel` (load.c): builds it, runs its ends where they are to run, reads what they say. Must not live here: what is
// compared with what (suite.ts).
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const source = fileURLToPath(new URL('load.c', import.meta.url))
const folder = fileURLToPath(new URL('../../../build/bench', import.meta.url))
const program = `${folder}/load`

/** Both ends of a pair: one core, so that no waiting for another hides what a path costs, and no wake-up across cores blurs it. */
export const CORE = 1
export const PORT = 7000
const PORTS = { echo: PORT, sink: PORT + 1, close: PORT + 2 } as const
const LIMIT_MS = 20_000

/** Where a program runs. */
export interface Place {
  /** Path of the network namespace. */
  readonly netns: string
  /** Folder of the cgroup. */
  readonly cgroup: string
}

/** What is done over and over. */
export type Work =
  | { readonly kind: 'requests'; readonly connections: number }
  | { readonly kind: 'throughput'; readonly size: number }
  | { readonly kind: 'connections' }

export interface Measured {
  /** Requests, connections, or bytes. */
  readonly count: number
  readonly seconds: number
  /** CPU time of both ends, seconds. */
  readonly cpuSeconds: number
  /** Of a request, or of connect() alone; NaN for throughput. */
  readonly p50Us: number
  readonly p99Us: number
}

/** Compiles the program if its source is newer. Throws with the compiler's words. */
export function buildLoad(): void {
  mkdirSync(folder, { recursive: true })
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return
  execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** The shell moves itself, so that the program is in the cgroup from its first system call. */
function start(place: Place, args: readonly string[]): ChildProcess {
  const script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
  const enter = ['nsenter', `--net=${place.netns}`, 'taskset', '-c', String(CORE)]
  return spawn('sh', ['-c', script, 'sh', place.cgroup, ...enter, program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

export class Server {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Resolves once it listens. */
  static async start(place: Place): Promise<Server> {
    const child = start(place, ['serve', String(PORT)])
    let err = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (err += text))
    await new Promise<void>((resolve, reject) => {
      child.stdout!.once('data', () => resolve())
      child.once('close', () => reject(new Error(`the server of the load ended: ${err}`)))
    })
    return new Server(child)
  }

  /** CPU time so far, ns. What it does in the middle of a run of its own is missing, not what it did before it last waited. */
  cpuNs(): number {
    return Number(readFileSync(`/proc/${this.#child.pid}/schedstat`, 'utf8').split(' ')[0])
  }

  stop(): void {
    this.#child.kill('SIGKILL')
  }
}

interface Said {
  readonly count: number
  readonly ns: number
  readonly cpuNs: number
  readonly p50Ns: number
  readonly p99Ns: number
}

/** Lets a client at `place` work against `server`, which it knows by `address` and, for a service, by ports of its own. */
export async function runLoad(
  work: Work,
  place: Place,
  server: Server,
  address: string,
  seconds: number,
): Promise<Measured> {
  const ms = String(Math.round(seconds * 1000))
  const args =
    work.kind === 'requests'
      ? ['ping', address, String(PORTS.echo), String(work.connections), ms]
      : work.kind === 'throughput'
        ? ['stream', address, String(PORTS.sink), String(work.size), ms]
        : ['connect', address, String(PORTS.close), ms]
  const before = server.cpuNs()
  const said = JSON.parse(await outputOf(start(place, args), args)) as Said
  const cpuSeconds = (said.cpuNs + server.cpuNs() - before) / 1e9
  const micros = (ns: number): number => (work.kind === 'throughput' ? Number.NaN : ns / 1000)
  return {
    count: said.count,
    seconds: said.ns / 1e9,
    cpuSeconds,
    p50Us: micros(said.p50Ns),
    p99Us: micros(said.p99Ns),
  }
}

async function outputOf(child: ChildProcess, args: readonly string[]): Promise<string> {
  let out = ''
  let err = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (err += text))
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  clearTimeout(timer)
  if (code !== 0) throw new Error(`load ${args.join(' ')} failed (${code ?? 'killed'}): ${err.trim()}`)
  return out
}
