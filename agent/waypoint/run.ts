// One request on its way through the waypoint: plain fields that filters, the router and the telemetry share. It lives in
// the `slot` of the downstream exchange. Must not live here: behaviour (pipeline.ts, forward.ts).
import type { RequestHead, ServerExchange } from '../http/message.ts'
import type { CompiledPolicies, Verdict } from '../mesh/authorize.ts'
import type { RouteMatched } from '../mesh/match-route.ts'
import { emptyRequest, type RequestAttributes } from '../mesh/request.ts'
import type { Destination } from '../mesh/route.ts'
import type { Workload } from '../mesh/workload.ts'
import type { Downstream } from './downstream.ts'
import type { ServiceTable } from './route/table.ts'

export class Run {
  readonly exchange: ServerExchange
  /** The request as it will be sent on: filters and routes change it. */
  readonly head: RequestHead
  readonly downstream: Downstream
  readonly table: ServiceTable
  readonly attributes: RequestAttributes = emptyRequest()
  /** Path as the client sent it. */
  readonly originalPath: string
  readonly grpc: boolean
  /** Monotonic milliseconds. */
  readonly startedAt: number
  /** Milliseconds since the epoch. */
  readonly startedTime: number

  matched: RouteMatched | undefined
  destination: Destination | undefined
  /** `outbound|port|subset|host` as Envoy names clusters. */
  cluster = ''
  /** The endpoint of the latest attempt. */
  endpoint: Workload | undefined
  endpointAddress = ''
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
  requestMessages = 0
  responseMessages = 0
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
  /** The router's own state. */
  forwarding: unknown = undefined

  constructor(
    exchange: ServerExchange,
    head: RequestHead,
    downstream: Downstream,
    table: ServiceTable,
    grpc: boolean,
    startedAt: number,
    startedTime: number,
  ) {
    this.exchange = exchange
    this.head = head
    this.downstream = downstream
    this.table = table
    this.grpc = grpc
    this.originalPath = head.path
    this.startedAt = startedAt
    this.startedTime = startedTime
  }
}

function nothing(): void {}
