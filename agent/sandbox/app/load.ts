// `ambit app load`: sends requests at a rate or as fast as they come back, and sums up codes, who answered and how long
// it took. On Node's own http and http2. Must not live here: how the summary is printed (main.ts).
import { Agent, request as requestHttp1 } from 'node:http'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'

export interface LoadOptions {
  readonly url: URL
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer | undefined
  /** Requests in flight. */
  readonly concurrency: number
  /** Requests a second; 0 = as fast as they come back. */
  readonly rate: number
  /** Stop after so many; 0 = no limit. */
  readonly requests: number
  /** Stop after so many milliseconds; 0 = no limit. */
  readonly durationMs: number
  /** A request without an answer for so long counts as error TIMEOUT. */
  readonly timeoutMs: number
  readonly http2: boolean
  /** A new connection for every request. */
  readonly close: boolean
}

export interface LoadSummary {
  readonly url: string
  readonly requests: number
  /** Answers by status code. */
  readonly codes: Readonly<Record<string, number>>
  /** Requests without an answer, by error code. */
  readonly errors: Readonly<Record<string, number>>
  /** Answers by the responding pod and version (`x-echo-pod`, `x-echo-version`). */
  readonly pods: Readonly<Record<string, number>>
  readonly versions: Readonly<Record<string, number>>
  /** Client addresses the responders saw, without ports. */
  readonly peers: Readonly<Record<string, number>>
  readonly seconds: number
  readonly perSecond: number
  readonly latencyMs: { readonly p50: number; readonly p90: number; readonly p99: number; readonly max: number }
}

interface Outcome {
  readonly status: number
  readonly pod: string | undefined
  readonly version: string | undefined
  readonly peer: string | undefined
}

/** Latencies kept for the percentiles; beyond, every further one replaces a random one (reservoir sampling). */
const MAX_SAMPLES = 1_000_000

class Samples {
  #values: number[] = []
  #seen = 0
  max = 0

  add(value: number): void {
    this.#seen++
    if (value > this.max) this.max = value
    if (this.#values.length < MAX_SAMPLES) this.#values.push(value)
    else {
      const at = Math.floor(Math.random() * this.#seen)
      if (at < MAX_SAMPLES) this.#values[at] = value
    }
  }

  percentiles(): LoadSummary['latencyMs'] {
    const sorted = Float64Array.from(this.#values).sort()
    const at = (share: number): number =>
      round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
    return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: round(this.max) }
  }
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000
}

type Sender = () => Promise<Outcome>

function header(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value
}

function http1Sender(options: LoadOptions): { send: Sender; close(): void } {
  const agent = new Agent({ keepAlive: !options.close, maxSockets: options.concurrency })
  const send: Sender = () =>
    new Promise((resolve, reject) => {
      const request = requestHttp1(
        options.url,
        { agent, method: options.method, headers: options.headers, timeout: options.timeoutMs },
        (response) => {
          response.on('error', reject)
          response.on('aborted', () => reject(Object.assign(new Error('aborted'), { code: 'ABORTED' })))
          response.on('end', () =>
            resolve({
              status: response.statusCode ?? 0,
              pod: header(response.headers['x-echo-pod']),
              version: header(response.headers['x-echo-version']),
              peer: header(response.headers['x-echo-peer']),
            }),
          )
          response.resume()
        },
      )
      request.on('timeout', () => request.destroy(Object.assign(new Error('timeout'), { code: 'TIMEOUT' })))
      request.on('error', reject)
      request.end(options.body)
    })
  return { send, close: () => agent.destroy() }
}

function http2Sender(options: LoadOptions): { send: Sender; close(): void } {
  const count = Math.max(1, Math.ceil(options.concurrency / 32))
  const sessions: (ClientHttp2Session | undefined)[] = Array.from({ length: count })
  let turn = 0
  const sessionAt = (at: number): ClientHttp2Session => {
    const existing = sessions[at]
    if (existing && !existing.closed && !existing.destroyed) return existing
    const session = connectHttp2(options.url.origin)
    session.on('error', () => undefined)
    sessions[at] = session
    return session
  }
  const send: Sender = () =>
    new Promise((resolve, reject) => {
      const session = sessionAt(turn++ % count)
      const stream = session.request({
        ':method': options.method,
        ':path': options.url.pathname + options.url.search,
        ...options.headers,
      })
      let outcome: Outcome | undefined
      stream.setTimeout(options.timeoutMs, () =>
        stream.destroy(Object.assign(new Error('timeout'), { code: 'TIMEOUT' })),
      )
      stream.on('response', (headers) => {
        outcome = {
          status: headers[':status'] ?? 0,
          pod: header(headers['x-echo-pod']),
          version: header(headers['x-echo-version']),
          peer: header(headers['x-echo-peer']),
        }
      })
      stream.on('error', reject)
      stream.on('close', () => {
        if (outcome && stream.rstCode === 0) resolve(outcome)
        else reject(Object.assign(new Error('reset'), { code: `RST_${stream.rstCode}` }))
      })
      stream.resume()
      stream.end(options.body)
    })
  return { send, close: () => sessions.forEach((session) => session?.destroy()) }
}

/** Runs the load. `stopped` ends it early, with the summary of what was sent until then. */
export async function runLoad(options: LoadOptions, stopped: () => boolean = () => false): Promise<LoadSummary> {
  const { send, close } = options.http2 ? http2Sender(options) : http1Sender(options)
  const codes: Record<string, number> = {}
  const errors: Record<string, number> = {}
  const pods: Record<string, number> = {}
  const versions: Record<string, number> = {}
  const peers: Record<string, number> = {}
  const samples = new Samples()
  const start = performance.now()
  let started = 0
  let done = 0

  const count = (into: Record<string, number>, key: string | undefined): void => {
    if (key) into[key] = (into[key] ?? 0) + 1
  }
  const over = (): boolean =>
    stopped() ||
    (options.requests > 0 && started >= options.requests) ||
    (options.durationMs > 0 && performance.now() - start >= options.durationMs)

  const worker = async (): Promise<void> => {
    while (!over()) {
      const slot = started++
      if (options.rate > 0) {
        const wait = start + (slot * 1000) / options.rate - performance.now()
        if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait))
      }
      const began = performance.now()
      try {
        const outcome = await send()
        samples.add(performance.now() - began)
        count(codes, String(outcome.status))
        count(pods, outcome.pod)
        count(versions, outcome.version)
        count(peers, outcome.peer?.slice(0, outcome.peer.lastIndexOf(':')))
      } catch (error) {
        count(errors, (error as NodeJS.ErrnoException).code ?? 'ERROR')
      }
      done++
    }
  }
  await Promise.all(Array.from({ length: options.concurrency }, worker))
  close()
  const seconds = (performance.now() - start) / 1000
  return {
    url: options.url.href,
    requests: done,
    codes,
    errors,
    pods,
    versions,
    peers,
    seconds: round(seconds),
    perSecond: round(done / seconds),
    latencyMs: samples.percentiles(),
  }
}
