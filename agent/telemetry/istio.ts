// Istio's standard metrics: names, labels and their order, buckets. Both programs count through here, so that the
// dashboards people have keep working. A label without a value is `unknown`, never absent (reference: l7, Istio standard
// metrics; ambient, ztunnel metrics). Must not live here: when to count (node/, waypoint/).
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import type { Service } from '../mesh/service.ts'
import type { Workload } from '../mesh/workload.ts'
import type { Metrics } from './exposition.ts'
import { renderLabels, type CounterFamily, type HistogramFamily, type HistogramSeries, type Series } from './series.ts'

export type Reporter = 'source' | 'destination' | 'waypoint'
/** `same_node`: plain, between two pods of a node whose kernel attests both and enforces policy. */
export type Security = 'mutual_tls' | 'same_node' | 'none' | 'unknown'

/** Who talked to whom. Objects are compared by identity to find a series again: pass those of the state. */
export interface Edge {
  readonly reporter: Reporter
  readonly source: Workload | undefined
  /** Verified; undefined for plaintext. */
  readonly sourceIdentity: Identity | undefined
  readonly destination: Workload | undefined
  readonly destinationIdentity: Identity | undefined
  readonly service: Service | undefined
  readonly security: Security
}

const UNKNOWN = 'unknown'

const EDGE_LABELS: readonly string[] = [
  'reporter',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
  'destination_service',
  'destination_service_namespace',
  'destination_service_name',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'destination_workload_namespace',
  'destination_principal',
  'destination_app',
  'destination_version',
  'destination_cluster',
  'request_protocol',
]

const TCP_LABELS: readonly string[] = [
  ...EDGE_LABELS,
  'response_flags',
  'connection_security_policy',
  'source_region',
  'source_zone',
  'destination_region',
  'destination_zone',
]

const HTTP_LABELS: readonly string[] = [
  ...EDGE_LABELS,
  'response_code',
  'grpc_response_status',
  'response_flags',
  'connection_security_policy',
]

/** Upper bounds of duration (milliseconds) and size (bytes) histograms: Envoy's. */
export const ISTIO_BUCKETS: readonly number[] = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
  3_600_000,
]

/** `response_flags` of a connection, as ztunnel's. */
export type TcpFlags =
  | '-'
  | 'DENY'
  | 'CONNECT'
  | 'TLS_FAILURE'
  | 'H2_HANDSHAKE_FAILURE'
  | 'NETWORK_POLICY'
  | 'IDENTITY_ERROR'
  | 'CERT_REVOKED'

/** The series of connections of one edge. `sent` counts bytes to the client, `received` bytes from it, as Istio names them. */
export interface TcpSeries {
  readonly opened: Series
  readonly closed: Series
  readonly sent: Series
  readonly received: Series
  readonly failed: Series
  /** Rendered labels, the same for all of them. */
  readonly labels: string
}

type TcpFamilies = Readonly<Record<'opened' | 'closed' | 'sent' | 'received' | 'failed', CounterFamily>>

/** Made when first asked for: what never failed, or never opened, is no line of a scrape. */
class LazyTcpSeries implements TcpSeries {
  readonly labels: string
  readonly #families: TcpFamilies
  readonly #values: readonly string[] | undefined
  readonly #made: Partial<Record<keyof TcpFamilies, Series>> = {}

  /** Without values, it takes what there is no room for. */
  constructor(families: TcpFamilies, values?: readonly string[]) {
    this.#families = families
    this.#values = values
    this.labels = values ? renderLabels(families.opened.labelNames, values) : ''
  }

  get opened(): Series {
    return this.#series('opened')
  }
  get closed(): Series {
    return this.#series('closed')
  }
  get sent(): Series {
    return this.#series('sent')
  }
  get received(): Series {
    return this.#series('received')
  }
  get failed(): Series {
    return this.#series('failed')
  }

  drop(): void {
    for (const [name, series] of Object.entries(this.#made)) this.#families[name as keyof TcpFamilies].drop(series)
  }

  #series(name: keyof TcpFamilies): Series {
    const made = this.#made[name]
    if (made && !made.dropped) return made
    const family = this.#families[name]
    return (this.#made[name] = this.#values ? family.with(this.#values, this.labels) : family.other())
  }
}

export class TcpMetrics {
  /** For connections whose edge has no place of its own. */
  readonly other: TcpSeries
  readonly #families: TcpFamilies
  readonly #known = new EdgeCache<Map<string, LazyTcpSeries>>(() => new Map())

  constructor(metrics: Metrics) {
    const family = (name: string, help: string): CounterFamily =>
      metrics.counter({ name: `istio_tcp_${name}_total`, help, labels: TCP_LABELS })
    this.#families = {
      opened: family('connections_opened', 'TCP connections opened.'),
      closed: family('connections_closed', 'TCP connections closed.'),
      sent: family('sent_bytes', 'Bytes sent to the client of the connection.'),
      received: family('received_bytes', 'Bytes received from the client of the connection.'),
      failed: family('connections_failed', 'TCP connections refused or failed before a byte went through.'),
    }
    this.other = new LazyTcpSeries(this.#families)
  }

  /** The series of an edge; ask once per connection and keep it. */
  edge(edge: Edge, flags: TcpFlags = '-'): TcpSeries {
    const byFlags = this.#known.get(edge)
    let series = byFlags.get(flags)
    if (!series) {
      series = new LazyTcpSeries(this.#families, [
        ...edgeValues(edge, 'tcp'),
        flags,
        edge.security,
        edge.source?.locality.region || UNKNOWN,
        edge.source?.locality.zone || UNKNOWN,
        edge.destination?.locality.region || UNKNOWN,
        edge.destination?.locality.zone || UNKNOWN,
      ])
      byFlags.set(flags, series)
    }
    return series
  }

  /** Forgets the series of an edge; who counts on it yet begins anew. */
  drop(series: TcpSeries): void {
    if (series instanceof LazyTcpSeries) series.drop()
  }

  /** Forgets series in which a label value is `name`, as that of a workload that is gone. */
  forget(gone: (values: readonly string[]) => boolean): void {
    for (const family of Object.values(this.#families)) family.forget(gone)
  }
}

interface HttpSeries {
  readonly requests: Series
  readonly duration: HistogramSeries
  readonly requestBytes: HistogramSeries
  readonly responseBytes: HistogramSeries
}

/** The requests of one edge and protocol. */
export class HttpEdge {
  readonly #make: (status: number, grpcStatus: string, flags: string) => HttpSeries
  /** By status, for requests without flags or gRPC status: the usual ones, found without building a key. */
  readonly #plain = new Map<number, HttpSeries>()
  readonly #others = new Map<string, HttpSeries>()

  constructor(make: (status: number, grpcStatus: string, flags: string) => HttpSeries) {
    this.#make = make
  }

  /**
   * Counts a finished request. `grpcStatus`: decimal text, '' when it is no gRPC; `flags`: Envoy's short names, '-' for
   * none; sizes: bytes of head and body.
   */
  record(
    status: number,
    grpcStatus: string,
    flags: string,
    durationMs: number,
    requestBytes: number,
    responseBytes: number,
  ): void {
    const series = this.#series(status, grpcStatus, flags)
    series.requests.value++
    series.duration.observe(durationMs)
    series.requestBytes.observe(requestBytes)
    series.responseBytes.observe(responseBytes)
  }

  #series(status: number, grpcStatus: string, flags: string): HttpSeries {
    if (grpcStatus === '' && flags === '-') {
      let series = this.#plain.get(status)
      if (!series) this.#plain.set(status, (series = this.#make(status, grpcStatus, flags)))
      return series
    }
    const key = `${status} ${grpcStatus} ${flags}`
    let series = this.#others.get(key)
    if (!series) {
      // Statuses and flags come from a small vocabulary; an upstream that makes them up is kept from filling memory.
      if (this.#others.size >= 256) this.#others.clear()
      this.#others.set(key, (series = this.#make(status, grpcStatus, flags)))
    }
    return series
  }
}

export class HttpMetrics {
  readonly #requests: CounterFamily
  readonly #duration: HistogramFamily
  readonly #requestBytes: HistogramFamily
  readonly #responseBytes: HistogramFamily
  readonly #requestMessages: CounterFamily
  readonly #responseMessages: CounterFamily
  readonly #known = new EdgeCache<{ http?: HttpEdge; grpc?: HttpEdge }>(() => ({}))

  constructor(metrics: Metrics) {
    const labels = HTTP_LABELS
    const bounds = ISTIO_BUCKETS
    this.#requests = metrics.counter({ name: 'istio_requests_total', help: 'Requests.', labels })
    this.#duration = metrics.histogram({
      name: 'istio_request_duration_milliseconds',
      help: 'Time from the first byte of the request to the last of the response.',
      labels,
      bounds,
    })
    this.#requestBytes = metrics.histogram({ name: 'istio_request_bytes', help: 'Size of requests.', labels, bounds })
    this.#responseBytes = metrics.histogram({
      name: 'istio_response_bytes',
      help: 'Size of responses.',
      labels,
      bounds,
    })
    this.#requestMessages = metrics.counter({
      name: 'istio_request_messages_total',
      help: 'gRPC messages from clients.',
      labels,
    })
    this.#responseMessages = metrics.counter({
      name: 'istio_response_messages_total',
      help: 'gRPC messages to clients.',
      labels,
    })
  }

  /** The edge for requests of one protocol; found again without allocation for the same objects. */
  edge(edge: Edge, protocol: 'http' | 'grpc'): HttpEdge {
    const known = this.#known.get(edge)
    return (known[protocol] ??= this.#edge(edge, protocol))
  }

  /** Counts gRPC messages of a finished call. */
  messages(edge: Edge, status: number, grpcStatus: string, flags: string, sent: number, received: number): void {
    const values = [...edgeValues(edge, 'grpc'), String(status), grpcStatus, flags, edge.security]
    this.#requestMessages.with(values).add(received)
    this.#responseMessages.with(values).add(sent)
  }

  #edge(edge: Edge, protocol: 'http' | 'grpc'): HttpEdge {
    const base = edgeValues(edge, protocol)
    return new HttpEdge((status, grpcStatus, flags) => {
      const values = [...base, String(status), grpcStatus, flags, edge.security]
      return {
        requests: this.#requests.with(values),
        duration: this.#duration.with(values),
        requestBytes: this.#requestBytes.with(values),
        responseBytes: this.#responseBytes.with(values),
      }
    })
  }
}

function edgeValues(edge: Edge, protocol: string): string[] {
  const { source, destination, service } = edge
  return [
    edge.reporter,
    source?.workloadName || UNKNOWN,
    source?.canonicalName || UNKNOWN,
    source?.canonicalRevision || UNKNOWN,
    source?.namespace || UNKNOWN,
    edge.sourceIdentity ? formatIdentity(edge.sourceIdentity) : UNKNOWN,
    source?.labels['app'] || source?.canonicalName || UNKNOWN,
    source?.labels['version'] || source?.canonicalRevision || UNKNOWN,
    source?.clusterId || UNKNOWN,
    service?.hostname || UNKNOWN,
    service?.namespace || UNKNOWN,
    service?.name || UNKNOWN,
    destination?.workloadName || UNKNOWN,
    destination?.canonicalName || UNKNOWN,
    destination?.canonicalRevision || UNKNOWN,
    destination?.namespace || UNKNOWN,
    edge.destinationIdentity ? formatIdentity(edge.destinationIdentity) : UNKNOWN,
    destination?.labels['app'] || destination?.canonicalName || UNKNOWN,
    destination?.labels['version'] || destination?.canonicalRevision || UNKNOWN,
    destination?.clusterId || UNKNOWN,
    protocol,
  ]
}

const NOBODY: object = {}

/** Finds an edge's value again by the identity of its objects; entries go with the workloads. */
class EdgeCache<V> {
  readonly #make: () => V
  readonly #bySource = new WeakMap<object, WeakMap<object, { edge: Edge; value: V }[]>>()

  constructor(make: () => V) {
    this.#make = make
  }

  get(edge: Edge): V {
    const source = edge.source ?? NOBODY
    const destination = edge.destination ?? NOBODY
    let byDestination = this.#bySource.get(source)
    if (!byDestination) this.#bySource.set(source, (byDestination = new WeakMap()))
    let list = byDestination.get(destination)
    if (!list) byDestination.set(destination, (list = []))
    for (let i = 0; i < list.length; i++) {
      const entry = list[i] as { edge: Edge; value: V }
      if (sameEdge(entry.edge, edge)) return entry.value
    }
    const value = this.#make()
    // Between two workloads there are few services; strangers to each other may differ in anything, and are bounded.
    if (list.length >= 64) list.length = 0
    list.push({ edge: { ...edge }, value })
    return value
  }
}

function sameEdge(a: Edge, b: Edge): boolean {
  return (
    a.service === b.service &&
    a.security === b.security &&
    a.reporter === b.reporter &&
    samePrincipal(a.sourceIdentity, b.sourceIdentity) &&
    samePrincipal(a.destinationIdentity, b.destinationIdentity)
  )
}

function samePrincipal(a: Identity | undefined, b: Identity | undefined): boolean {
  return (
    a === b ||
    (a !== undefined &&
      b !== undefined &&
      a.serviceAccount === b.serviceAccount &&
      a.namespace === b.namespace &&
      a.trustDomain === b.trustDomain)
  )
}
