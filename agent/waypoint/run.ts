// One request on its way through the waypoint: plain fields that filters, the router and the telemetry share. It lives in
// the `slot` of the downstream exchange, and is itself what policies and routes judge (RequestAttributes): one object per
// request. Must not live here: behaviour (pipeline.ts, forward.ts).
import type { Headers, RequestHead, ServerExchange } from '../http/message.ts'
import type { CompiledPolicies, Verdict } from '../mesh/authorize.ts'
import type { Identity } from '../mesh/identity.ts'
import type { RouteMatched } from '../mesh/match-route.ts'
import type { RequestAttributes } from '../mesh/request.ts'
import type { Workload } from '../mesh/workload.ts'
import { clientNamespace, type Downstream } from './downstream.ts'
import type { FilterChain } from './filter/filter.ts'
import type { Forwarding } from './forward.ts'
import type { ServiceTable } from './route/table.ts'
import type { Host } from './upstream/host.ts'

const NO_LABELS: Readonly<Record<string, string>> = Object.freeze({})

export class Run implements RequestAttributes {
  readonly exchange: ServerExchange
  /** The request as it will be sent on: filters and routes change it. */
  readonly head: RequestHead
  readonly downstream: Downstream
  readonly table: ServiceTable
  /** What it passes: the waypoint's filters, from its route on also that route's. */
  chain: FilterChain
  /** Path as the client sent it. */
  readonly originalPath: string

  // --- as policies and routes see it (RequestAttributes)
  readonly sourceAddress: string
  readonly identity: Identity | undefined
  readonly destinationAddress: string
  readonly destinationPort: number
  readonly sni = ''
  method: string
  scheme: string
  authority: string
  /** Normalised; stays what was matched when the route rewrites `head.path`. */
  path: string
  readonly headers: readonly string[]
  /** No hop in front of a waypoint is trusted: the remote address is the peer's. */
  readonly remoteAddress: string
  readonly servicePort: number
  readonly sourceNamespace: string
  readonly sourceLabels: Readonly<Record<string, string>>

  // --- what the one pass over the head found (filter/headers.ts)
  grpc = false
  requestId = ''
  userAgent: string | undefined
  forwardedFor: string | undefined
  /** Bytes of the head as it came, about: what a size histogram needs. */
  headBytes = 0

  /** Monotonic milliseconds. */
  readonly startedAt: number
  /** Milliseconds since the epoch. */
  readonly startedTime: number
  matched: RouteMatched | undefined
  /** `outbound|port|subset|host` as Envoy names clusters. */
  cluster = ''
  /** The endpoint of the latest attempt. */
  host: Host | undefined
  /** Policies already judged for this request, so that an endpoint with the same ones is not judged again. */
  judged: CompiledPolicies | undefined
  verdict: Verdict | undefined
  attempts = 0
  /** As the client saw it; 0 if it saw none. */
  status = 0
  /** gRPC status from trailers or a trailers-only head; −1 if there was none. */
  grpcStatus = -1
  flags = '-'
  details = ''
  requestBytes = 0
  responseBytes = 0
  /** Monotonic time at which the last upstream attempt was sent and its response head came; 0: never. */
  upstreamSentAt = 0
  upstreamHeadAt = 0
  /** A reason the upstream gave for a failed transport. */
  transportFailure = ''
  /** True once the request has been received whole. */
  requestEnded = false
  completed = false
  /** Set by the pipeline: goes on after a filter answered 'wait'. */
  proceed: () => void = nothing
  /** Its route is known, or that it has none. */
  routed = false
  /** What came of the body while the request waits for a filter (pipeline.ts). */
  held: HeldBody | undefined
  /** The router's own state. */
  forwarding: Forwarding | undefined = undefined

  constructor(
    exchange: ServerExchange,
    head: RequestHead,
    downstream: Downstream,
    table: ServiceTable,
    chain: FilterChain,
    startedAt: number,
    startedTime: number,
  ) {
    this.exchange = exchange
    this.head = head
    this.downstream = downstream
    this.table = table
    this.chain = chain
    this.originalPath = head.path
    this.startedAt = startedAt
    this.startedTime = startedTime
    this.sourceAddress = downstream.client.address
    this.identity = downstream.identity
    this.destinationAddress = downstream.address
    this.destinationPort = downstream.port
    this.method = head.method
    this.scheme = head.scheme
    this.authority = head.authority
    this.path = head.path
    this.headers = head.headers
    this.remoteAddress = downstream.client.address
    this.servicePort = downstream.port
    this.sourceNamespace = clientNamespace(downstream)
    this.sourceLabels = downstream.source?.labels ?? NO_LABELS
  }

  get endpoint(): Workload | undefined {
    return this.host?.candidate.workload
  }
}

/** A request body that is held back. */
export class HeldBody {
  readonly chunks: Buffer[] = []
  bytes = 0
  /** Bytes held at most: the smallest limit of the filters that want it whole. */
  limit = Infinity
  /** Until it is whole. */
  gathering = false
  trailers: Headers = []
}

function nothing(): void {}
