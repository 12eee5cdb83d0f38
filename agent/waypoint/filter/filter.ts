// The filter interface: what stands between the codec and the router. A filter is one object per waypoint, compiled in
// order into a chain; what it remembers about a request it keeps in `run` or in a slot of its own. Hooks run in order on
// the way in and in reverse on the way out. Must not live here: filters, the router (forward.ts).
import type { Headers, ResponseHead } from '../../http/message.ts'
import type { LocalReply } from '../reply.ts'
import type { Run } from '../run.ts'

/**
 * `undefined` goes on; a reply ends the request; 'wait' holds the request until `run.proceed()` (bounded by the filter's own
 * deadline), while body bytes are held back by pausing the client.
 */
export type FilterResult = undefined | LocalReply | 'wait'

export interface Filter {
  readonly name: string
  /** The request head, before routing. May change `run.head`. */
  onRequest?(run: Run): FilterResult
  /** A piece of the request body on its way to the upstream; bytes are valid until the turn ends and must not be changed. A reply cuts the request. */
  onRequestData?(run: Run, bytes: Uint8Array, start: number, end: number): LocalReply | undefined
  onRequestEnd?(run: Run, trailers: Headers): void
  /** An endpoint was chosen; what depends on it is judged here. */
  onEndpoint?(run: Run): LocalReply | undefined
  /** The response head, before it goes to the client. May change it. */
  onResponse?(run: Run, head: ResponseHead): void
  onResponseData?(run: Run, bytes: Uint8Array, start: number, end: number): void
  onResponseEnd?(run: Run, trailers: Headers): void
  /** The exchange is over, whatever way: exactly once, last. */
  onComplete?(run: Run): void
}

/** Filters by hook, so that the hot path walks only those that have it. */
export interface FilterChain {
  readonly request: readonly Filter[]
  readonly requestData: readonly Filter[]
  readonly requestEnd: readonly Filter[]
  readonly endpoint: readonly Filter[]
  readonly response: readonly Filter[]
  readonly responseData: readonly Filter[]
  readonly responseEnd: readonly Filter[]
  readonly complete: readonly Filter[]
}

/** Compiles filters into a chain, in the order they are to see a request. */
export function compileChain(filters: readonly Filter[]): FilterChain {
  const back = filters.toReversed()
  return {
    request: filters.filter((filter) => filter.onRequest),
    requestData: filters.filter((filter) => filter.onRequestData),
    requestEnd: filters.filter((filter) => filter.onRequestEnd),
    endpoint: filters.filter((filter) => filter.onEndpoint),
    response: back.filter((filter) => filter.onResponse),
    responseData: back.filter((filter) => filter.onResponseData),
    responseEnd: back.filter((filter) => filter.onResponseEnd),
    complete: back.filter((filter) => filter.onComplete),
  }
}
