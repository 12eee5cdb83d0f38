// What is counted and written for each request: Istio's metrics with reporter="waypoint", and one JSON access line with the
// fields of Istio's default format. Must not live here: series and files (telemetry/).
import { header } from '../../http/message.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import { identityOf } from '../../mesh/workload.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import type { HttpMetrics, TcpMetrics, Edge } from '../../telemetry/istio.ts'
import type { Clock } from '../../base/clock.ts'
import { joinHostPort } from '../../base/ip.ts'
import type { Downstream } from '../downstream.ts'
import type { Run } from '../run.ts'
import type { OpaqueRecord } from '../listen/opaque.ts'
import type { Filter } from './filter.ts'

export interface ObserveOptions {
  readonly metrics: HttpMetrics
  readonly access: AccessLog
  readonly clock: Clock
}

/** Bytes of a head, about: what a size histogram needs. */
function headBytes(headers: readonly string[]): number {
  let bytes = 0
  for (let i = 0; i < headers.length; i++) bytes += (headers[i] as string).length + 2
  return bytes
}

function edgeOf(run: Run): Edge {
  const { downstream, endpoint } = run
  return {
    reporter: 'waypoint',
    source: downstream.source,
    sourceIdentity: downstream.identity,
    destination: endpoint ?? downstream.workload,
    destinationIdentity: endpoint ? identityOf(endpoint) : undefined,
    service: downstream.service,
    security: downstream.identity ? 'mutual_tls' : 'none',
  }
}

/** Counts and logs every request when it is over. */
export function observeFilter(options: ObserveOptions): Filter {
  const { metrics, access, clock } = options
  return {
    name: 'observe',
    onComplete(run) {
      const duration = clock.monotonic() - run.startedAt
      const grpcStatus = run.grpc && run.grpcStatus >= 0 ? String(run.grpcStatus) : ''
      metrics
        .edge(edgeOf(run), run.grpc ? 'grpc' : 'http')
        .record(
          run.status,
          grpcStatus,
          run.flags,
          duration,
          run.requestBytes + headBytes(run.head.headers),
          run.responseBytes,
        )
      const { downstream, head } = run
      const { headers } = head
      const upstreamTime = run.upstreamHeadAt > 0 ? Math.round(run.upstreamHeadAt - run.upstreamSentAt) : null
      access.entry({
        type: 'access',
        start_time: new Date(run.startedTime).toISOString(),
        method: head.method,
        path: run.originalPath,
        protocol: run.exchange.version === 2 ? 'HTTP/2' : `HTTP/1.${run.exchange.minor}`,
        response_code: run.status,
        response_flags: run.flags,
        response_code_details: run.details || null,
        connection_termination_details: null,
        upstream_transport_failure_reason: run.transportFailure || null,
        bytes_received: run.requestBytes,
        bytes_sent: run.responseBytes,
        duration: Math.round(duration),
        upstream_service_time: upstreamTime,
        x_forwarded_for: header(headers, 'x-forwarded-for') ?? null,
        user_agent: header(headers, 'user-agent') ?? null,
        request_id: header(headers, 'x-request-id') ?? null,
        authority: head.authority,
        upstream_host: run.endpointAddress || null,
        upstream_cluster: run.cluster || null,
        downstream_local_address: joinHostPort(downstream.address, downstream.port),
        downstream_remote_address: joinHostPort(downstream.client.address, downstream.client.port),
        requested_server_name: null,
        route_name: run.matched?.name || null,
        ...(grpcStatus && { grpc_status: Number(grpcStatus) }),
        attempts: run.attempts,
        source_principal: downstream.identity ? formatIdentity(downstream.identity) : null,
        source_workload: downstream.source ? `${downstream.source.namespace}/${downstream.source.name}` : null,
        destination_principal: run.endpoint ? formatIdentity(identityOf(run.endpoint)) : null,
        destination_workload: run.endpoint ? `${run.endpoint.namespace}/${run.endpoint.name}` : null,
        ...(run.verdict?.policy && {
          policy: `${run.verdict.policy.namespace}/${run.verdict.policy.name}`,
          policy_rule: run.verdict.rule,
        }),
      })
    },
  }
}

/** Logs bytes that never became a request, as Envoy does: no method, no path, the codec's answer. */
export function observeRefused(
  access: AccessLog,
  clock: Clock,
  downstream: Downstream,
  status: number,
  details: string,
): void {
  access.entry({
    type: 'access',
    start_time: new Date(clock.now()).toISOString(),
    method: null,
    path: null,
    protocol: 'HTTP/1.1',
    response_code: status,
    // A late head breaks no rule of the protocol.
    response_flags: status === 408 ? '-' : 'DPE',
    response_code_details: details,
    bytes_received: 0,
    downstream_local_address: joinHostPort(downstream.address, downstream.port),
    downstream_remote_address: joinHostPort(downstream.client.address, downstream.client.port),
    source_principal: downstream.identity ? formatIdentity(downstream.identity) : null,
  })
}

/** Counts and logs an opaque connection. */
export function observeOpaque(metrics: TcpMetrics, access: AccessLog, record: OpaqueRecord): void {
  const { downstream, endpoint } = record
  const series = metrics.edge({
    reporter: 'waypoint',
    source: downstream.source,
    sourceIdentity: downstream.identity,
    destination: endpoint ?? downstream.workload,
    destinationIdentity: endpoint ? identityOf(endpoint) : undefined,
    service: downstream.service,
    security: downstream.identity ? 'mutual_tls' : 'none',
  })
  series.opened.value++
  series.closed.value++
  series.received.value += record.received
  series.sent.value += record.sent
  access.entry({
    type: 'access',
    start_time: new Date(record.startedTime).toISOString(),
    protocol: 'TCP',
    response_code: 0,
    response_flags: record.flags,
    response_code_details: record.details || null,
    bytes_received: record.received,
    bytes_sent: record.sent,
    duration: Math.round(record.durationMs),
    upstream_host: record.endpointAddress || null,
    upstream_cluster: record.cluster || null,
    downstream_local_address: joinHostPort(downstream.address, downstream.port),
    downstream_remote_address: joinHostPort(downstream.client.address, downstream.client.port),
    source_principal: downstream.identity ? formatIdentity(downstream.identity) : null,
    destination_principal: endpoint ? formatIdentity(identityOf(endpoint)) : null,
  })
}
