// From the codec to the router: every request on every inner connection of the waypoint comes in here. It normalises the
// path, runs the filters, matches a route and acts on it; it completes each request exactly once. Must not live here:
// connections (listen/), attempts (forward.ts), matching and verdicts (mesh/).
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { messageOf } from '../base/errors.ts'
import {
  setHeader,
  type ExchangeError,
  type Headers,
  type RequestHead,
  type ServerEvents,
  type ServerExchange,
} from '../http/message.ts'
import type { Connection } from '../io/connection.ts'
import { applyHeaderOps, type CompiledHeaderOps } from '../mesh/header-ops.ts'
import { matchRoute, type CompiledDestination, type RouteMatched } from '../mesh/match-route.ts'
import { normalizePath } from '../mesh/normalize-path.ts'
import { redirectLocation } from '../mesh/redirect.ts'
import { compileRetry } from '../mesh/retry.ts'
import type { MeshState } from '../mesh/state.ts'
import { pickWeighted } from '../mesh/weighted.ts'
import { Deadlines } from './deadlines.ts'
import type { Downstream } from './downstream.ts'
import { RouteChains, type Filter, type FilterResult, type RouteFilter } from './filter/filter.ts'
import { receiveHead } from './filter/headers.ts'
import { Forwarding, type ForwardOptions } from './forward.ts'
import { replies, sendReply, unsupportedRule, type LocalReply } from './reply.ts'
import type { Hop, NoHop } from './route/hop.ts'
import { noTable, type Tables } from './route/table.ts'
import { HeldBody, Run } from './run.ts'
import type { Clusters } from './upstream/clusters.ts'
import { normalizeUpgrade } from './upgrade.ts'

export interface PipelineOptions {
  readonly state: MeshState
  readonly tables: Tables
  readonly clusters: Clusters
  /** Of every request, in order. */
  readonly filters: readonly Filter[]
  /** Of requests by their route. */
  readonly routeFilters?: readonly RouteFilter[]
  readonly clock: Clock
  readonly random: () => number
  readonly log: Logger
  /** Who talks on an inner connection: its owner (listen/) knows. */
  downstreamOf(connection: Connection): Downstream
  /** Whether a request more is too much. Absent: never. */
  readonly overload?: { refuses(active: number): boolean }
}

const DEFAULT_RETRY = compileRetry(undefined)

export class Pipeline implements ServerEvents, ForwardOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly deadlines: Deadlines
  readonly #chains: RouteChains
  readonly #options: PipelineOptions
  /** Requests in flight, for the drain. */
  active = 0

  constructor(options: PipelineOptions) {
    this.#options = options
    this.clock = options.clock
    this.random = options.random
    this.deadlines = new Deadlines(options.clock)
    this.#chains = new RouteChains(options.filters, options.routeFilters)
  }

  // --- ServerEvents; `slot` of the exchange is its Run.

  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    const { tables, clusters, state } = this.#options
    const downstream = this.#options.downstreamOf(exchange.connection)
    if (downstream.version !== state.version) downstream.refresh(state)
    const dialed = (downstream.dialed ??= tables.dial(downstream, clusters))
    const { common } = this.#chains
    const run = new Run(exchange, head, downstream, dialed.table, common, this.clock.monotonic(), this.clock.now())
    exchange.slot = run
    this.active++
    run.requestEnded = end
    try {
      this.#begin(run)
    } catch (error) {
      // A bug in a decision must not let the request through, nor take the process down.
      this.#options.log.error({ error: messageOf(error), path: run.originalPath }, 'request failed in the pipeline')
      this.reply(run, { status: 500, body: '', flags: '-', details: 'internal_error' })
    }
  }

  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    const run = exchange.slot as Run
    if (run.completed) return
    run.requestBytes += end - start
    const filters = run.chain.requestData
    for (let i = 0; i < filters.length; i++) {
      const reply = filters[i]?.onRequestData?.(run, arena, start, end)
      if (!reply) continue
      this.reply(run, reply)
      return
    }
    const { held } = run
    if (!held) {
      run.forwarding?.data(arena, start, end)
      return
    }
    held.bytes += end - start
    if (held.bytes > held.limit) this.reply(run, replies.payloadTooLarge)
    else held.chunks.push(Buffer.from(arena.subarray(start, end)))
  }

  onEnd(exchange: ServerExchange, trailers: Headers): void {
    const run = exchange.slot as Run
    run.requestEnded = true
    const filters = run.chain.requestEnd
    for (let i = 0; i < filters.length; i++) filters[i]?.onRequestEnd?.(run, trailers)
    const { held } = run
    if (!held) {
      run.forwarding?.end(trailers)
      return
    }
    held.trailers = trailers
    if (held.gathering) this.#gathered(run, held)
  }

  onDrain(exchange: ServerExchange): void {
    ;(exchange.slot as Run).forwarding?.drained()
  }

  onClose(exchange: ServerExchange, error: ExchangeError | undefined): void {
    const run = exchange.slot as Run | undefined
    if (!run) return
    if (error) {
      if (run.flags === '-') flagClientError(run, error)
      run.forwarding?.cancel()
    }
    this.complete(run)
  }

  // --- ForwardOptions

  /** Answers from here. Does nothing if an answer has begun: then the exchange is cut. */
  reply(run: Run, reply: LocalReply): void {
    if (run.completed) return
    run.held = undefined
    run.forwarding?.cancel()
    run.flags = run.flags === '-' || reply.flags !== '-' ? reply.flags : run.flags
    run.details = reply.details
    if (run.exchange.responded) {
      run.exchange.reset('internal')
      return
    }
    const sent = sendReply(run.exchange, run.head, reply)
    run.status = sent.status
    run.responseBytes += sent.bytes
  }

  complete(run: Run): void {
    if (run.completed) return
    run.completed = true
    this.active--
    const filters = run.chain.complete
    for (let i = 0; i < filters.length; i++) filters[i]?.onComplete?.(run)
  }

  // --- own

  #begin(run: Run): void {
    const { exchange, head } = run
    if (this.#options.overload?.refuses(this.active)) return this.reply(run, replies.overload)
    receiveHead(run)
    // Istio answers HTTP/1.0 with 426 unless told otherwise.
    if (exchange.version === 1 && exchange.minor === 0) return this.reply(run, replies.lowVersion)
    if (!head.authority) return this.reply(run, replies.missingHost)
    normalizeUpgrade(head)
    // Istio lets WebSocket through and nothing else; a plain CONNECT would make the waypoint an open proxy.
    if (head.method === 'CONNECT' || (head.protocol && head.protocol.toLowerCase() !== 'websocket')) {
      return this.reply(run, replies.upgradeFailed)
    }
    if (run.table === noTable) return this.reply(run, replies.routeNotFound)
    const path = normalizePath(head.path, this.#options.state.settings.pathNormalization)
    if (path === undefined) return this.reply(run, replies.badPath)
    head.path = path
    run.path = path
    run.method = head.method
    this.#filter(run, 0)
  }

  /** Walks the filters before the route (`onRequest`), or those once it is known (`onRoute`), each of which may hold the request. */
  #filter(run: Run, from: number): void {
    const { routed } = run
    const filters = routed ? run.chain.route : run.chain.request
    for (let i = from; i < filters.length; i++) {
      const filter = filters[i] as Filter
      const result: FilterResult = routed ? filter.onRoute?.(run) : filter.onRequest?.(run)
      if (result === undefined) continue
      if (result !== 'wait') return this.reply(run, result)
      // What has been read already still comes: it is held, bounded by what the client may send unasked.
      run.held ??= new HeldBody()
      run.exchange.pause()
      run.proceed = () => {
        run.proceed = ignore
        if (run.completed || run.exchange.responded) return
        run.exchange.resume()
        this.#filter(run, i + 1)
      }
      return
    }
    if (routed) this.#act(run)
    else this.#route(run)
  }

  #route(run: Run): void {
    const { route } = run.table
    if (route === 'broken') return this.reply(run, unsupportedRule(['a route that does not compile']))
    if (route && route.route.rules.length > 0) {
      const matched = matchRoute(route, run)
      if (!matched) return this.reply(run, replies.routeNotFound)
      run.matched = matched
      run.chain = this.#chains.of(matched.compiled)
      if (matched.rule.unsupported.length > 0) return this.reply(run, unsupportedRule(matched.rule.unsupported))
    }
    run.routed = true
    if (run.chain.route.length > 0) this.#filter(run, 0)
    else this.#act(run)
  }

  #act(run: Run): void {
    const { matched } = run
    if (!matched) {
      const { dialed } = run.downstream
      if (dialed) this.#towards(run, dialed.plain(), undefined, undefined)
      return
    }
    const { action } = matched.rule
    switch (action.type) {
      case 'respond':
        return this.reply(run, { status: action.status, body: action.body, flags: '-', details: 'direct_response' })
      case 'redirect': {
        const { route } = run.table
        const dialect = route && route !== 'broken' ? route.route.dialect : 'VirtualService'
        const location = redirectLocation(action.redirect, matched.match?.path, dialect, {
          scheme: run.head.scheme || 'http',
          authority: run.head.authority,
          path: run.head.path,
          port: run.downstream.port,
        })
        const { status } = action.redirect
        const headers = ['location', location]
        return this.reply(run, { status, body: '', flags: '-', details: 'direct_response', headers })
      }
      case 'forward': {
        const { destinations, weights } = matched.compiled
        const chosen = destinations[pickWeighted(weights, this.random)]
        const { dialed } = run.downstream
        if (!chosen || !dialed) return this.reply(run, replies.invalidBackend)
        return this.#towards(run, dialed.to(chosen), matched, chosen)
      }
    }
  }

  /** The destination is known: the head takes its last form. */
  #towards(
    run: Run,
    hop: Hop | NoHop,
    matched: RouteMatched | undefined,
    chosen: CompiledDestination | undefined,
  ): void {
    if (!hop.cluster) {
      run.cluster = hop.name
      return this.reply(run, hop.reply)
    }
    const { head, exchange } = run
    run.cluster = hop.cluster.name
    if (matched) {
      if (matched.rewritePath) {
        const rewritten = matched.rewritePath(head.path)
        // What the client asked for, as Envoy tells the app.
        if (rewritten !== head.path) setHeader(head.headers, 'x-envoy-original-path', head.path)
        head.path = rewritten
      }
      if (matched.rule.rewrite?.authority !== undefined) head.authority = matched.rule.rewrite.authority
      requestOps(head, matched.compiled.requestHeaders)
      requestOps(head, chosen?.requestHeaders)
    }
    run.forwarding = new Forwarding(
      run,
      hop.cluster,
      head.protocol !== '' ? hop.upgradeVersion : hop.version || exchange.version,
      matched?.compiled.retry ?? DEFAULT_RETRY,
      this.#timeout(run, matched?.rule.timeoutMs ?? 0),
      matched?.compiled.responseHeaders,
      chosen?.responseHeaders,
      this,
    )
    const { requestBody } = run.chain
    if (requestBody.length > 0 && head.protocol === '' && !(run.requestEnded && !run.held)) this.#gather(run)
    else this.#send(run, run.forwarding)
  }

  /** Holds the body until it is whole, for the filters that want it so. */
  #gather(run: Run): void {
    const held = (run.held ??= new HeldBody())
    held.gathering = true
    for (const filter of run.chain.requestBody) held.limit = Math.min(held.limit, filter.bodyLimit ?? 0)
    if (held.bytes > held.limit) this.reply(run, replies.payloadTooLarge)
    else if (run.requestEnded) this.#gathered(run, held)
  }

  #gathered(run: Run, held: HeldBody): void {
    const body = held.chunks.length === 1 ? (held.chunks[0] as Buffer) : Buffer.concat(held.chunks)
    for (const filter of run.chain.requestBody) {
      const reply = filter.onRequestBody?.(run, body)
      if (reply) return this.reply(run, reply)
    }
    if (run.forwarding) this.#send(run, run.forwarding)
  }

  /** Off it goes, with what was held of its body. */
  #send(run: Run, forwarding: Forwarding): void {
    const { held } = run
    if (!held) return forwarding.start(run.requestEnded, true)
    run.held = undefined
    const empty = held.bytes === 0 && held.trailers.length === 0
    forwarding.start(run.requestEnded && empty, false)
    for (const chunk of held.chunks) forwarding.data(chunk, 0, chunk.length)
    if (run.requestEnded && !empty) forwarding.end(held.trailers)
  }

  /** The route's timeout, or the shorter one a gRPC client asks for. */
  #timeout(run: Run, route: number): number {
    if (!run.grpc) return route
    for (let i = 0; i < run.head.headers.length; i += 2) {
      if (run.head.headers[i] !== 'grpc-timeout') continue
      const asked = grpcTimeout(run.head.headers[i + 1] as string)
      if (asked > 0) return route > 0 ? Math.min(route, asked) : asked
    }
    return route
  }
}

function requestOps(head: RequestHead, ops: CompiledHeaderOps | undefined): void {
  if (!ops) return
  applyHeaderOps(head.headers, ops)
  if (ops.authority !== undefined) head.authority = ops.authority
}

const UNITS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 0.001, n: 0.000001 }

/** Milliseconds of a grpc-timeout value (at most eight digits and a unit); 0 if it is none. */
export function grpcTimeout(value: string): number {
  if (!/^[0-9]{1,8}[HMSmun]$/.test(value)) return 0
  return Math.max(1, Math.round(Number(value.slice(0, -1)) * (UNITS[value.slice(-1)] ?? 0)))
}

/** What the access log says of a request that its client broke off, or broke (Envoy's flags and details). */
function flagClientError(run: Run, error: ExchangeError): void {
  if (error.answered > 0) run.status = error.answered
  const { version } = run.exchange
  if (error.reason === 'timeout' && !error.remote) {
    run.flags = 'SI'
    run.details = 'stream_idle_timeout'
  } else if (version === 1 ? error.reason === 'protocol' : !error.remote && isPeersFault(error)) {
    run.flags = 'DPE'
    run.details = version === 1 ? 'http1.codec_error' : 'http2.violation.of.messaging.rule'
  } else if (error.remote) {
    run.flags = error.reason === 'closed' ? 'DC' : 'DR'
    run.details = error.reason === 'closed' ? 'downstream_remote_disconnect' : 'downstream_remote_reset'
  }
}

/** The codec cut a stream, or a whole connection, for what the client sent: only it gives these codes. */
function isPeersFault(error: ExchangeError): boolean {
  return error.reason === 'protocol' || error.reason === 'flow' || (error.reason === 'closed' && error.http2Code > 0)
}

function ignore(): void {}
