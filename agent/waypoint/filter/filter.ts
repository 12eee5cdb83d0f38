// The filter interface: what stands between the codec and the router. A filter is one object per waypoint or per route,
// compiled in order into a chain; what it remembers about a request it keeps in `run` or in a slot of its own. Hooks run in
// order on the way in and in reverse on the way out. Must not live here: filters, the router (forward.ts).
import type { Headers, ResponseHead } from '../../http/message.ts'
import type { CompiledRule } from '../../mesh/match-route.ts'
import type { LocalReply } from '../reply.ts'
import type { Run } from '../run.ts'

/**
 * `undefined` goes on; a reply ends the request; 'wait' holds the request until `run.proceed()` (bounded by the filter's own
 * deadline), while body bytes are held back by pausing the client.
 */
export type FilterResult = undefined | LocalReply | 'wait'

/** Makes a filter of a route rule: undefined where the rule does not ask for it. Called once per rule and state of the mesh. */
export type RouteFilter = (rule: CompiledRule) => Filter | undefined

export interface Filter {
  readonly name: string
  /** The request head, before routing. May change `run.head`. */
  onRequest?(run: Run): FilterResult
  /** The request head once its route is known: the first that a filter of a route sees. */
  onRoute?(run: Run): FilterResult
  /** A piece of the request body on its way to the upstream; bytes are valid until the turn ends and must not be changed. A reply cuts the request. */
  onRequestData?(run: Run, bytes: Uint8Array, start: number, end: number): LocalReply | undefined
  onRequestEnd?(run: Run, trailers: Headers): void
  /** With `onRequestBody`: bytes of body this filter holds at most; a longer one is answered 413. */
  readonly bodyLimit?: number
  /** The whole request body, gathered before the request goes to an upstream. Such a request may not be an upgrade. */
  onRequestBody?(run: Run, body: Uint8Array): LocalReply | undefined
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
  readonly all: readonly Filter[]
  readonly request: readonly Filter[]
  readonly route: readonly Filter[]
  readonly requestData: readonly Filter[]
  readonly requestEnd: readonly Filter[]
  readonly requestBody: readonly Filter[]
  readonly endpoint: readonly Filter[]
  readonly response: readonly Filter[]
  readonly responseData: readonly Filter[]
  readonly responseEnd: readonly Filter[]
  readonly complete: readonly Filter[]
}

/** Compiles filters into a chain, in the order they are to see a request. */
export function compileChain(filters: readonly Filter[]): FilterChain {
  const back = filters.toReversed()
  for (const filter of filters) {
    if (filter.onRequestBody && !(filter.bodyLimit !== undefined && filter.bodyLimit >= 0)) {
      throw new TypeError(`the filter '${filter.name}' gathers bodies and states no limit`)
    }
  }
  return {
    all: filters,
    request: filters.filter((filter) => filter.onRequest),
    route: filters.filter((filter) => filter.onRoute),
    requestData: filters.filter((filter) => filter.onRequestData),
    requestEnd: filters.filter((filter) => filter.onRequestEnd),
    requestBody: filters.filter((filter) => filter.onRequestBody),
    endpoint: filters.filter((filter) => filter.onEndpoint),
    response: back.filter((filter) => filter.onResponse),
    responseData: back.filter((filter) => filter.onResponseData),
    responseEnd: back.filter((filter) => filter.onResponseEnd),
    complete: back.filter((filter) => filter.onComplete),
  }
}

/** The chains of routes: the waypoint's filters, then those a rule asks for. Rules are compiled objects and go with their route. */
export class RouteChains {
  readonly common: FilterChain
  readonly #makers: readonly RouteFilter[]
  readonly #chains = new WeakMap<CompiledRule, FilterChain>()

  constructor(filters: readonly Filter[], makers: readonly RouteFilter[] = []) {
    this.common = compileChain(filters)
    this.#makers = makers
  }

  of(rule: CompiledRule): FilterChain {
    if (this.#makers.length === 0) return this.common
    let chain = this.#chains.get(rule)
    if (!chain) {
      const own: Filter[] = []
      for (const make of this.#makers) {
        const filter = make(rule)
        if (filter) own.push(filter)
      }
      chain = own.length === 0 ? this.common : compileChain([...this.common.all, ...own])
      this.#chains.set(rule, chain)
    }
    return chain
  }
}
