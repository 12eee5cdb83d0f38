// From the codec to the router: every request on every inner connection of the waypoint comes in here. It normalises the
// path, runs the filters, matches a route and acts on it; it completes each request exactly once. Must not live here:
// connections (listen/), attempts (forward.ts), matching and verdicts (mesh/).
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { messageOf } from '../base/errors.ts'
import {
  header,
  setHeader,
  type ExchangeError,
  type Headers,
  type RequestHead,
  type ServerEvents,
  type ServerExchange,
} from '../http/message.ts'
import type { Connection } from '../io/connection.ts'
import { applyHeaderOps, type CompiledHeaderOps } from '../mesh/header-ops.ts'
import type { RouteMatched } from '../mesh/match-route.ts'
import { matchRoute } from '../mesh/match-route.ts'
import { normalizePath } from '../mesh/normalize-path.ts'
import { redirectLocation } from '../mesh/redirect.ts'
import { compileRetry } from '../mesh/retry.ts'
import type { Service } from '../mesh/service.ts'
import type { MeshState } from '../mesh/state.ts'
import { pickWeighted } from '../mesh/weighted.ts'
import { clientNamespace, type Downstream } from './downstream.ts'
import { compileChain, type Filter, type FilterChain } from './filter/filter.ts'
import { Forwarding, type ForwardOptions, type ForwardPlan } from './forward.ts'
import { isGrpc, replies, sendReply, unsupportedRule, type LocalReply } from './reply.ts'
import { Run } from './run.ts'
import { noTable, type Tables } from './route/table.ts'
import type { Cluster } from './upstream/cluster.ts'
import type { Clusters } from './upstream/clusters.ts'
import { normalizeUpgrade } from './upgrade.ts'

export interface PipelineOptions {
  readonly state: MeshState
  readonly tables: Tables
  readonly clusters: Clusters
  readonly filters: readonly Filter[]
  readonly clock: Clock
  readonly random: () => number
  readonly log: Logger
  /** Who talks on an inner connection: its owner (listen/) knows. */
  downstreamOf(connection: Connection): Downstream
  /** Whether a request more is too much. Absent: never. */
  readonly overload?: { refuses(active: number): boolean }
}

const NO_LABELS: Readonly<Record<string, string>> = Object.freeze({})
const NO_OPS: readonly CompiledHeaderOps[] = []
const DEFAULT_RETRY = compileRetry(undefined)

export class Pipeline implements ServerEvents, ForwardOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly chain: FilterChain
  readonly #options: PipelineOptions
  /** Requests in flight, for the drain. */
  active = 0

  constructor(options: PipelineOptions) {
    this.#options = options
    this.clock = options.clock
    this.random = options.random
    this.chain = compileChain(options.filters)
  }

  // --- ServerEvents; `slot` of the exchange is its Run.

  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    const downstream = this.#options.downstreamOf(exchange.connection)
    const { tables } = this.#options
    const table = downstream.service
      ? tables.forService(downstream.service, clientNamespace(downstream))
      : downstream.workload
        ? tables.forWorkload(downstream.workload)
        : noTable
    const run = new Run(
      exchange,
      head,
      downstream,
      table,
      isGrpc(head.headers),
      this.clock.monotonic(),
      this.clock.now(),
    )
    exchange.slot = run
    this.active++
    run.requestEnded = end
    try {
      this.#begin(run, end)
    } catch (error) {
      // A bug in a decision must not let the request through, nor take the process down.
      this.#options.log.error({ error: messageOf(error), path: run.originalPath }, 'request failed in the pipeline')
      this.reply(run, { status: 500, body: '', flags: '-', details: 'internal_error' })
    }
  }

  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    const run = exchange.slot as Run
    run.requestBytes += end - start
    for (const filter of this.chain.requestData) {
      const reply = filter.onRequestData?.(run, arena, start, end)
      if (reply) {
        this.#forwarding(run)?.cancel()
        this.reply(run, reply)
        return
      }
    }
    this.#forwarding(run)?.data(arena, start, end)
  }

  onEnd(exchange: ServerExchange, trailers: Headers): void {
    const run = exchange.slot as Run
    run.requestEnded = true
    for (const filter of this.chain.requestEnd) filter.onRequestEnd?.(run, trailers)
    this.#forwarding(run)?.end(trailers)
  }

  onDrain(exchange: ServerExchange): void {
    this.#forwarding(exchange.slot as Run)?.drained()
  }

  onClose(exchange: ServerExchange, error: ExchangeError | undefined): void {
    const run = exchange.slot as Run | undefined
    if (!run) return
    if (error) {
      if (run.flags === '-') flagClientError(run, error)
      this.#forwarding(run)?.cancel()
    }
    this.complete(run)
  }

  // --- ForwardOptions

  /** Answers from here. Does nothing if an answer has begun: then the exchange is cut. */
  reply(run: Run, reply: LocalReply): void {
    if (run.completed) return
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
    for (const filter of this.chain.complete) filter.onComplete?.(run)
  }

  // --- own

  #forwarding(run: Run): Forwarding | undefined {
    return run.forwarding as Forwarding | undefined
  }

  #begin(run: Run, end: boolean): void {
    const { exchange, head } = run
    if (this.#options.overload?.refuses(this.active)) return this.reply(run, replies.overload)
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
    this.#describe(run)
    this.#filter(run, end, 0)
  }

  #describe(run: Run): void {
    const { attributes, exchange, head, downstream } = run
    attributes.sourceAddress = downstream.client.address
    attributes.identity = downstream.identity
    attributes.destinationAddress = downstream.address
    attributes.destinationPort = downstream.port
    attributes.method = head.method
    attributes.scheme = schemeOf(head, exchange.version)
    attributes.authority = head.authority
    attributes.path = head.path
    attributes.headers = head.headers
    // No hop in front of a waypoint is trusted: the remote address is the peer's.
    attributes.remoteAddress = downstream.client.address
    attributes.servicePort = downstream.port
    attributes.sourceNamespace = clientNamespace(downstream)
    attributes.sourceLabels = downstream.source?.labels ?? NO_LABELS
  }

  #filter(run: Run, end: boolean, from: number): void {
    const filters = this.chain.request
    for (let i = from; i < filters.length; i++) {
      const result = filters[i]?.onRequest?.(run)
      if (result === undefined) continue
      if (result === 'wait') {
        run.exchange.pause()
        run.proceed = () => {
          run.proceed = ignore
          if (run.completed) return
          run.exchange.resume()
          this.#filter(run, end, i + 1)
        }
        return
      }
      return this.reply(run, result)
    }
    this.#route(run, end)
  }

  #route(run: Run, end: boolean): void {
    const { table, downstream } = run
    if (table.route === 'broken') return this.reply(run, unsupportedRule(['a route that does not compile']))
    if (!table.service || !table.route || table.route.route.rules.length === 0) {
      const cluster = table.service
        ? this.#options.clusters.forService(table.service, downstream.port, '', clientNamespace(downstream))
        : this.#options.clusters.forWorkload(
            downstream.workload as NonNullable<Downstream['workload']>,
            downstream.address,
            downstream.port,
          )
      if (cluster === 'no_subset') return this.reply(run, replies.noHealthyUpstream)
      return this.#forward(run, cluster, table.service, downstream.port, undefined, NO_OPS, end)
    }
    const matched = matchRoute(table.route, run.attributes)
    if (!matched) return this.reply(run, replies.routeNotFound)
    run.matched = matched
    if (matched.rule.unsupported.length > 0) return this.reply(run, unsupportedRule(matched.rule.unsupported))
    const { action } = matched.rule
    switch (action.type) {
      case 'respond':
        return this.reply(run, { status: action.status, body: action.body, flags: '-', details: 'direct_response' })
      case 'redirect': {
        const location = redirectLocation(action.redirect, matched.match?.path, table.route.route.dialect, {
          scheme: run.head.scheme || 'http',
          authority: run.head.authority,
          path: run.head.path,
          port: downstream.port,
        })
        const { status } = action.redirect
        return this.reply(run, {
          status,
          body: '',
          flags: '-',
          details: 'direct_response',
          headers: ['location', location],
        })
      }
      case 'forward':
        return this.#forwardTo(run, matched, end)
    }
  }

  #forwardTo(run: Run, matched: RouteMatched, end: boolean): void {
    const { head, downstream } = run
    const { compiled } = matched
    const chosen = compiled.destinations[pickWeighted(compiled.weights, this.random)]
    if (!chosen) return this.reply(run, replies.invalidBackend)
    run.destination = chosen.destination
    const { destination } = chosen
    const service = this.#options.state.service(destination.service)
    if (!service) {
      // HTTPRoute: an invalid backend answers 500 for its share; VirtualService: the cluster is unknown.
      const http = run.table.route !== 'broken' && run.table.route?.route.dialect === 'HTTPRoute'
      return this.reply(run, http ? replies.invalidBackend : replies.clusterNotFound)
    }
    const only = service.ports.length === 1 ? service.ports[0]?.port : undefined
    const port = destination.port || only || downstream.port
    const cluster = this.#options.clusters.forService(service, port, destination.subset, clientNamespace(downstream))
    if (cluster === 'no_subset') {
      run.cluster = `outbound|${port}|${destination.subset}|${service.hostname}`
      return this.reply(run, replies.noHealthyUpstream)
    }
    if (matched.rewritePath) {
      const rewritten = matched.rewritePath(head.path)
      // What the client asked for, as Envoy tells the app.
      if (rewritten !== head.path) setHeader(head.headers, 'x-envoy-original-path', head.path)
      head.path = rewritten
    }
    if (matched.rule.rewrite?.authority !== undefined) head.authority = matched.rule.rewrite.authority
    const responseOps: CompiledHeaderOps[] = []
    for (const ops of [compiled.requestHeaders, chosen.requestHeaders]) {
      if (!ops) continue
      applyHeaderOps(head.headers, ops)
      if (ops.authority !== undefined) head.authority = ops.authority
    }
    for (const ops of [compiled.responseHeaders, chosen.responseHeaders]) if (ops) responseOps.push(ops)
    this.#forward(run, cluster, service, port, matched, responseOps.length > 0 ? responseOps : NO_OPS, end)
  }

  #forward(
    run: Run,
    cluster: Cluster,
    service: Service | undefined,
    port: number,
    matched: RouteMatched | undefined,
    responseHeaders: readonly CompiledHeaderOps[],
    end: boolean,
  ): void {
    run.cluster = cluster.name
    const plan: ForwardPlan = {
      cluster,
      version: this.#version(run, cluster, service, port),
      retry: matched?.compiled.retry ?? DEFAULT_RETRY,
      timeoutMs: this.#timeout(run, matched?.rule.timeoutMs ?? 0),
      responseHeaders,
    }
    const forwarding = new Forwarding(run, plan, this)
    run.forwarding = forwarding
    forwarding.start(end)
  }

  /** HTTP version towards the app: by the port's protocol, an upgrade policy, or as the client speaks. */
  #version(run: Run, cluster: Cluster, service: Service | undefined, port: number): 1 | 2 {
    const pool = cluster.policy.connectionPool
    const declared = service?.ports.find((candidate) => candidate.port === port)?.protocol
    // An app that is not known to speak HTTP/2 is asked for a WebSocket as all of them understand it.
    if (run.head.protocol) return declared === 'grpc' || declared === 'http2' ? 2 : 1
    if (pool?.useClientProtocol) return run.exchange.version
    switch (declared) {
      case 'grpc':
      case 'http2':
        return 2
      case 'http':
        return pool?.h2Upgrade === 'UPGRADE' ? 2 : 1
      default:
        return run.exchange.version
    }
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

/** HTTP/1.1 has no scheme of its own: a proxy in front says it in x-forwarded-proto (as Envoy reads it). */
function schemeOf(head: RequestHead, version: 1 | 2): string {
  if (version === 1) {
    const forwarded = header(head.headers, 'x-forwarded-proto')
    if (forwarded === 'http' || forwarded === 'https') return forwarded
  }
  return head.scheme || 'http'
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
