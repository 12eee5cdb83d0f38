// What the suite `http` measures: which protocol by which load generator through which proxy at how many connections. Must not live here: starting
// proxies (peers.ts, world.ts), the table (suite.ts).
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cpuMs, load } from '../programs.ts'
import { parseH2load, parseWrk, type LoadResult } from '../tools.ts'
import { GRPC_PATH, grpcMessage, MEGABYTE } from './peers.ts'

/** A way through a proxy. */
export interface Proxy {
  readonly name: string
  readonly pid: number
  /** Its access log: emptied after each measurement. */
  readonly log: string
}

export interface Case {
  /** "H1 → H1". */
  readonly protocol: string
  readonly connections: number
  readonly proxy: Proxy
  /** Runs the load for so long. */
  readonly run: (seconds: number) => Promise<LoadResult>
}

export interface Sample extends LoadResult {
  /** CPU time of the proxy per request, microseconds. */
  readonly cpuMicros: number
  /** Share of one core the proxy took, [0, 1]. */
  readonly busy: number
}

const SLACK_MS = 30_000

/** Share of failed requests that is shown as it is; more end the bench, since the rate then says nothing. */
const TOLERATED = 0.01

/** One measurement; the proxy's CPU time is that of the whole run. None answered in time is a rate of 0. Throws if too many requests failed. */
export async function measure(one: Case, seconds: number): Promise<Sample> {
  const { pid, log } = one.proxy
  const cpuBefore = cpuMs(pid)
  const begin = performance.now()
  const result = await one.run(seconds)
  const cpu = cpuMs(pid) - cpuBefore
  const elapsed = performance.now() - begin
  const failed = result.errors > result.requests * TOLERATED
  const last = failed ? readFileSync(log, 'utf8').trim().split('\n').at(-1) : ''
  // Appended to by the proxy, so that the next byte lands at the start again.
  writeFileSync(log, '')
  if (failed)
    throw new Error(`${nameOf(one)}: ${result.errors} errors, ${result.requests} answers. Its log ends: ${last}`)
  // Load generators count in their own seconds, which begin when all connections are open.
  const requests = result.requestsPerSecond * Math.min(seconds, elapsed / 1000)
  return { ...result, cpuMicros: (cpu * 1000) / Math.max(requests, result.requests), busy: cpu / (seconds * 1000) }
}

export function nameOf({ protocol, connections, proxy }: Case): string {
  return `${protocol}, ${connections} ${connections === 1 ? 'connection' : 'connections'}: ${proxy.name}`
}

export class Loads {
  readonly #folder: string
  readonly #message: string
  readonly #upload: string

  constructor(folder: string) {
    this.#folder = folder
    this.#message = join(folder, 'message.bin')
    this.#upload = join(folder, 'upload.lua')
    writeFileSync(this.#message, grpcMessage())
    writeFileSync(
      this.#upload,
      `wrk.method = "POST"\nwrk.body = string.rep("x", ${MEGABYTE})\nwrk.headers["content-type"] = "application/octet-stream"\n`,
    )
  }

  async wrk(port: number, path: string, connections: number, seconds: number, upload = false): Promise<LoadResult> {
    const script = upload ? ['-s', this.#upload] : []
    return parseWrk(
      await this.#run(seconds, [
        ...['wrk', '--latency', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', ...script],
        `http://127.0.0.1:${port}${path}`,
      ]),
    )
  }

  /** HTTP/2 with prior knowledge, one stream a connection. */
  async h2load(port: number, connections: number, seconds: number, grpc: boolean): Promise<LoadResult> {
    const log = join(this.#folder, 'h2load.log')
    rmSync(log, { force: true })
    const more = grpc ? ['-d', this.#message, '-H', 'te: trailers', '-H', 'content-type: application/grpc'] : []
    const text = await this.#run(seconds, [
      ...['h2load', '-t1', '-m1', `-c${connections}`, '-D', String(seconds), `--log-file=${log}`, ...more],
      `http://127.0.0.1:${port}${grpc ? GRPC_PATH : '/'}`,
    ])
    return parseH2load(text, readFileSync(log, 'utf8'))
  }

  async program(command: readonly string[], seconds: number): Promise<LoadResult> {
    const result = JSON.parse(await this.#run(seconds, command)) as LoadResult & { firstError: string }
    if (result.errors > 0) throw new Error(`the load generator met ${result.errors} errors: ${result.firstError}`)
    return result
  }

  #run(seconds: number, command: readonly string[]): Promise<string> {
    return load(command, seconds * 1000 + SLACK_MS, this.#folder)
  }
}
