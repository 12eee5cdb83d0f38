// The load generators and what they print, as numbers: wrk and h2load (requests, latencies), iperf3 (throughput). Must not live
// here: what is compared with what.

import { latencies } from './latencies.ts'

export interface LoadResult {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Socket errors and answers other than 2xx and 3xx. */
  readonly errors: number
  readonly requests: number
}

const UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1_000, m: 60_000 }

/** Reads the output of `wrk --latency`. Throws if it is none. */
export function parseWrk(text: string): LoadResult {
  const latency = (percent: string): number => {
    const match = new RegExp(String.raw`^\s+${percent}%\s+([0-9.]+)(us|ms|s|m)`, 'm').exec(text)
    return match ? Number(match[1]) * (UNITS[match[2] as string] ?? 1) : Number.NaN
  }
  const rate = /^Requests\/sec:\s+([0-9.]+)/m.exec(text)
  if (!rate) throw new Error(`wrk said: ${text.slice(0, 400)}`)
  const sockets = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)
  const bad = /Non-2xx or 3xx responses: (\d+)/.exec(text)
  return {
    requestsPerSecond: Number(rate[1]),
    p50Ms: latency('50'),
    p99Ms: latency('99'),
    requests: Number(/(\d+) requests in/.exec(text)?.[1] ?? 0),
    errors: (sockets ? sockets.slice(1).reduce((sum, one) => sum + Number(one), 0) : 0) + Number(bad?.[1] ?? 0),
  }
}

/** Gbit/s received, from `iperf3 -J`. Throws if it failed. */
export function parseIperf(text: string): number {
  const result = JSON.parse(text) as { error?: string; end?: { sum_received?: { bits_per_second: number } } }
  const bits = result.end?.sum_received?.bits_per_second
  if (bits === undefined) throw new Error(`iperf3 said: ${result.error ?? text.slice(0, 400)}`)
  return bits / 1e9
}

/**
 * Reads the output of `h2load -D … --log-file`, and that file: a line a request, "start status duration", in microseconds.
 * The two may be one text. Throws if it is none. Requests cut off by the end of the measurement are not errors.
 */
export function parseH2load(text: string, log: string): LoadResult {
  const rate = /^finished in [^,]+, ([0-9.]+) req\/s/m.exec(text)
  const counts = /^requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/m.exec(text)
  const codes = /^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx/m.exec(text)
  if (!rate || !counts || !codes) throw new Error(`h2load said: ${text.slice(-600)}`)
  const times: number[] = []
  for (const [, time] of log.matchAll(/^\d+\t\d+\t(\d+)$/gm)) times.push(Number(time))
  return {
    requestsPerSecond: Number(rate[1]),
    requests: Number(counts[1]),
    errors: Number(counts[3]) + Number(counts[4]) + Number(codes[2]) + Number(codes[3]) + Number(codes[4]),
    ...latencies(times),
  }
}

/** Reads the output of `openssl s_time`, which knows no latencies. Throws if it made no connection. */
export function parseOpensslTime(text: string): LoadResult {
  // "N connections in X real seconds, …"; the line before counts user seconds, the client's own.
  const line = /(\d+) connections in (\d+) real seconds/.exec(text)
  const requests = Number(line?.[1] ?? 0)
  if (!line || requests === 0) throw new Error(`openssl s_time said: ${text.slice(-400)}`)
  return { requests, requestsPerSecond: requests / Number(line[2]), p50Ms: Number.NaN, p99Ms: Number.NaN, errors: 0 }
}
