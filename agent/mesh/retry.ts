// When a request is tried again: Envoy's retry-on words compiled to flags, and the waiting time between attempts.
// Must not live here: buffering, budgets, the attempts themselves (waypoint/upstream).
import type { RetryPolicy } from './route.ts'

/** How an attempt failed, as the vocabulary sees it. */
export type AttemptFailure =
  /** No connection: refused, timed out, TLS failed. Nothing was sent. */
  | 'connect'
  /** REFUSED_STREAM, or a reused connection that went away before a byte came back to a request it may not have seen. */
  | 'refused'
  /** Cut before the response head. */
  | 'reset'
  /** Cut before any of the request was sent on an open connection. */
  | 'reset-before-request'
  /** The per-try timeout. */
  | 'timeout'

/** Istio's default: these words, two retries (reference: l7, defaults). */
export const DEFAULT_RETRY_ON: readonly string[] = ['connect-failure', 'refused-stream', 'unavailable', 'cancelled']
export const DEFAULT_ATTEMPTS = 2
/** Base interval where a policy names none. */
export const DEFAULT_BACKOFF_MS = 25

/** Every word understood. A policy with another is for config/ to report. */
export const RETRY_WORDS: readonly string[] = [
  '5xx',
  'gateway-error',
  'reset',
  'reset-before-request',
  'connect-failure',
  'envoy-ratelimited',
  'retriable-4xx',
  'refused-stream',
  'retriable-status-codes',
  'retriable-headers',
  'http3-post-connect-failure',
  'cancelled',
  'deadline-exceeded',
  'internal',
  'resource-exhausted',
  'unavailable',
]

const GRPC_WORDS: Readonly<Record<string, number>> = {
  cancelled: 1,
  'deadline-exceeded': 4,
  'resource-exhausted': 8,
  internal: 13,
  unavailable: 14,
}

export interface CompiledRetry {
  /** Re-tries after the first attempt; 0: none. */
  readonly attempts: number
  readonly perTryTimeoutMs: number | undefined
  readonly backoffMs: number
  /** Prefer a host that was not tried yet. */
  readonly ignorePreviousHosts: boolean
  readonly failures: Readonly<Record<AttemptFailure, boolean>>
  readonly any5xx: boolean
  readonly gatewayError: boolean
  readonly conflict: boolean
  readonly rateLimited: boolean
  readonly statusCodes: ReadonlySet<number>
  readonly grpcCodes: ReadonlySet<number>
}

/** Compiles a policy; undefined is Istio's default policy, attempts 0 none. Codes may stand among the words (`503,reset`). */
export function compileRetry(policy: RetryPolicy | undefined): CompiledRetry {
  const words = new Set(policy && policy.retryOn.length > 0 ? policy.retryOn : DEFAULT_RETRY_ON)
  const statusCodes = new Set(policy?.statusCodes ?? [])
  const grpcCodes = new Set<number>()
  for (const word of words) {
    if (/^[1-5][0-9][0-9]$/.test(word)) statusCodes.add(Number(word))
    const code = GRPC_WORDS[word]
    if (code !== undefined) grpcCodes.add(code)
  }
  const any5xx = words.has('5xx')
  const gatewayError = words.has('gateway-error')
  const reset = words.has('reset') || any5xx
  return {
    attempts: policy?.attempts ?? DEFAULT_ATTEMPTS,
    perTryTimeoutMs: policy?.perTryTimeoutMs,
    backoffMs: policy?.backoffMs || DEFAULT_BACKOFF_MS,
    ignorePreviousHosts: policy?.ignorePreviousHosts ?? true,
    failures: {
      connect: words.has('connect-failure') || reset,
      refused: words.has('refused-stream') || reset,
      reset,
      'reset-before-request': words.has('reset-before-request') || reset,
      // A per-try timeout counts as a 504 of the gateway and as a reset.
      timeout: reset || gatewayError || statusCodes.has(504),
    },
    any5xx,
    gatewayError,
    conflict: words.has('retriable-4xx'),
    rateLimited: words.has('envoy-ratelimited'),
    statusCodes,
    grpcCodes,
  }
}

/** True if a response head is to be retried. `grpcStatus`: of a trailers-only response, −1 otherwise. */
export function retriesStatus(retry: CompiledRetry, status: number, grpcStatus: number, rateLimited: boolean): boolean {
  if (rateLimited) return retry.rateLimited
  if (status >= 500 && status <= 599 && retry.any5xx) return true
  if (retry.gatewayError && (status === 502 || status === 503 || status === 504)) return true
  if (status === 409 && retry.conflict) return true
  return retry.statusCodes.has(status) || (grpcStatus >= 0 && retry.grpcCodes.has(grpcStatus))
}

/** Milliseconds before retry number `retry` (from 1): random in [0, (2^n − 1)·base), at most ten times the base. */
export function retryDelay(baseMs: number, retry: number, random: () => number): number {
  const step = Math.min(10 * baseMs, (2 ** Math.min(retry, 30) - 1) * baseMs)
  return random() * step
}
