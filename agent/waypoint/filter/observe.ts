// What is counted and written for each request: Istio's metrics with reporter="waypoint", and one JSON access line with the
// fields of Istio's default format. Must not live here: series and files (telemetry/).
import { formatIdentity } from '../../mesh/identity.ts'
import { identityOf } from '../../mesh/workload.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import type { Edge, HttpEdge, HttpMetrics, TcpMetrics } from '../../telemetry/istio.ts'
import type { Clock } from '../../base/clock.ts'
import { joinHostPort } from '../../base/ip.ts'
import type { Downstream } from '../downstream.ts'
import type { Run } from '../run.ts'
import type { OpaqueRecord } from '../listen/opaque.ts'
import { writeAccessLine } from './access-line.ts'
import type { Filter } from './filter.ts'

export interface ObserveOptions {
  readonly metrics: HttpMetrics
  readonly access: AccessLog
  readonly clock: Clock
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

/** Endpoints whose counters a connection keeps at hand. */
const MAX_EDGES = 256

/** Counts and logs every request when it is over. */
export function observeFilter(options: ObserveOptions): Filter {
  const { metrics, access, clock } = options

  const edge = (run: Run): HttpEdge => {
    const { downstream, endpoint, grpc } = run
    const known = grpc ? downstream.grpcEdges : downstream.edges
    let found = known.get(endpoint)
    if (!found) {
      if (known.size >= MAX_EDGES) known.clear()
      known.set(endpoint, (found = metrics.edge(edgeOf(run), grpc ? 'grpc' : 'http')))
    }
    return found
  }

  return {
    name: 'observe',
    onComplete(run) {
      const duration = clock.monotonic() - run.startedAt
      const grpcStatus = run.grpc && run.grpcStatus >= 0 ? String(run.grpcStatus) : ''
      const received = run.requestBytes + run.headBytes
      edge(run).record(run.status, grpcStatus, run.flags, duration, received, run.responseBytes)
      writeAccessLine(access, run, duration)
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
