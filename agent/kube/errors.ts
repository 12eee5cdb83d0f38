// What the API server refuses, as errors with a code; and whether trying again can help. Must not live here: trying again.
import { AmbitError } from '../base/errors.ts'

/** The part of a `Status` object (meta/v1) that is read. */
interface Status {
  readonly reason?: string
  readonly message?: string
  readonly metadata?: { readonly continue?: string }
  readonly details?: { readonly retryAfterSeconds?: number }
}

export class KubeError extends AmbitError {
  /** HTTP status; 0 when there was no answer. */
  readonly status: number
  /** Milliseconds the server asks to wait. */
  readonly retryAfterMs: number | undefined
  /** With 410 for a page: a token that goes on from there, on a newer state. */
  readonly continueToken: string | undefined

  constructor(
    code: string,
    message: string,
    more: {
      readonly status?: number
      readonly hint?: string | undefined
      readonly retryAfterMs?: number | undefined
      readonly continueToken?: string | undefined
      readonly cause?: unknown
    } = {},
  ) {
    super(code, message, {
      ...(more.hint === undefined ? {} : { hint: more.hint }),
      ...(more.cause === undefined ? {} : { cause: more.cause }),
    })
    this.name = 'KubeError'
    this.status = more.status ?? 0
    this.retryAfterMs = more.retryAfterMs
    this.continueToken = more.continueToken
  }
}

const CODES: Readonly<Record<number, readonly [code: string, hint?: string]>> = {
  400: ['KUBE_INVALID'],
  401: ['KUBE_UNAUTHORIZED', 'The token or certificate is wrong, expired or of another cluster.'],
  403: ['KUBE_FORBIDDEN', 'The role of the service account lacks this right; install the chart of this version again.'],
  404: ['KUBE_NOT_FOUND'],
  409: ['KUBE_CONFLICT', 'Somebody else changed it in between.'],
  410: ['KUBE_GONE'],
  422: ['KUBE_INVALID'],
  429: ['KUBE_THROTTLED', 'The API server has more requests than it can take.'],
}

/** Longest wait that a server may impose: it cannot put a client to sleep for a day. */
const MAX_RETRY_AFTER_MS = 60_000

/** The error for an answer of `status` (400 and up). `retryAfter` is the header, in seconds. */
export function errorOf(what: string, status: number, body: unknown, retryAfter?: string): KubeError {
  const said = (typeof body === 'object' && body !== null ? body : {}) as Status
  const [code, hint] = CODES[status] ?? [status >= 500 ? 'KUBE_SERVER_ERROR' : 'KUBE_REFUSED']
  const seconds = Number(retryAfter ?? said.details?.retryAfterSeconds)
  return new KubeError(code, `${what}: ${said.message ?? `the API server answered ${status}`}`, {
    status,
    hint,
    retryAfterMs: seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : undefined,
    continueToken: said.metadata?.continue,
  })
}
