// What the kernel counted, as metrics: Istio's for connections it handles alone, and what only the kernel knows of them and
// of the agent's tunnels (round-trip times, retransmits, refusals by reason). Connections the agent carries are counted in
// flow.ts and are not in the kernel's edges. Must not live here: how the kernel is read (../redirect/edges.ts).
import type { Clock, Timer } from '../../base/clock.ts'
import type { Metrics } from '../../telemetry/exposition.ts'
import type { Edge, TcpMetrics, TcpSeries } from '../../telemetry/istio.ts'
import type { CounterFamily, HistogramFamily, HistogramSeries, Series } from '../../telemetry/series.ts'
import type { EdgeTotals, KernelEdge, KernelRefusal, KernelTelemetry } from '../redirect/contract.ts'
import type { Ends } from './ends.ts'

/** Without scrapes too, edges are swept and round-trip times taken. */
const ROUND_MS = 60_000
/** Buckets of the kernel's that make one of ours: powers of four from 16 µs to 262 ms. */
const STEP = 2
const rttBounds: readonly number[] = Array.from({ length: 8 }, (_, i) => (16 * 4 ** i) / 1e6)
const REASONS: readonly KernelRefusal[] = ['policy', 'no_verdict', 'plaintext']

export interface KernelEdgesOptions {
  readonly telemetry: KernelTelemetry
  readonly ends: Ends
  readonly tcp: TcpMetrics
  readonly metrics: Metrics
  readonly clock: Clock
}

/** Where an edge counts, as long as its ends are who they are. */
interface Place {
  readonly edge: Edge | undefined
  readonly tcp: TcpSeries
  connect: TcpSeries | undefined
  deny: TcpSeries | undefined
  rtt: HistogramSeries | undefined
  retransmits: Series | undefined
  readonly refused: Map<KernelRefusal, Series>
}

/** What of an edge was counted already. */
interface Counted {
  place: Place | undefined
  /** Of `Ends`, and the pods of the edge, when its place was found. */
  generation: number
  pods: number
  version: number
  opened: number
  closed: number
  failed: number
  sent: number
  received: number
  retransmits: number
  rttSumUs: number
  readonly refused: Record<KernelRefusal, number>
  readonly rtt: Float64Array
}

export class KernelEdges {
  readonly #options: KernelEdgesOptions
  readonly #rtt: HistogramFamily
  readonly #retransmits: CounterFamily
  readonly #refused: CounterFamily
  readonly #counted = new Map<KernelEdge, Counted>()
  /** Rendered labels → edges that count there. */
  readonly #users = new Map<string, number>()
  #timer: Timer | undefined

  constructor(options: KernelEdgesOptions) {
    this.#options = options
    const { metrics } = options
    // By Deployment, not by pod, so that a rollout adds no series; few labels, since a histogram is many lines.
    this.#rtt = metrics.histogram({
      name: 'ambit_tcp_rtt_seconds',
      help: 'Smoothed round-trip times of connections the kernel handles alone and of tunnels.',
      labels: [
        'reporter',
        'source_workload',
        'source_workload_namespace',
        'destination_workload',
        'destination_workload_namespace',
        'connection_security_policy',
      ],
      bounds: rttBounds,
    })
    this.#retransmits = metrics.counter({
      name: 'ambit_tcp_retransmits_total',
      help: 'Segments sent again, of the same connections.',
      labels: [
        'reporter',
        'source_workload',
        'source_workload_namespace',
        'destination_workload',
        'destination_workload_namespace',
        'connection_security_policy',
      ],
    })
    this.#refused = metrics.counter({
      name: 'ambit_tcp_connections_refused_total',
      help: 'Connections refused by the kernel, by reason.',
      labels: [
        'reporter',
        'source_workload',
        'source_workload_namespace',
        'destination_workload',
        'destination_workload_namespace',
        'connection_security_policy',
        'reason',
      ],
    })
  }

  /** Begins the rounds that need no scrape. */
  start(): void {
    this.#timer = this.#options.clock.after(ROUND_MS, this.#round, true)
  }

  stop(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }

  /** Counts up to what the kernel has now; before a scrape. */
  refresh(): void {
    const { telemetry, ends } = this.#options
    ends.refresh()
    for (const edge of telemetry.edges()) {
      let counted = this.#counted.get(edge)
      if (!counted) this.#counted.set(edge, (counted = nothing(edge.totals)))
      const place = this.#placeOf(edge, counted)
      // What belongs to a pod that is not known yet waits for it.
      if (place && counted.version !== edge.version) this.#count(edge, counted, place)
    }
  }

  readonly #round = (): void => {
    this.refresh()
    for (const edge of this.#options.telemetry.sweep()) {
      const counted = this.#counted.get(edge)
      if (counted?.place) this.#leave(counted.place)
      this.#counted.delete(edge)
    }
    this.start()
  }

  /** The place of an edge; another one when other workloads are at its ends. Who has gone stays who they were. */
  #placeOf(edge: KernelEdge, counted: Counted): Place | undefined {
    const { place } = counted
    if (edge.overflow) return (counted.place ??= emptyPlace(undefined, this.#options.tcp.other))
    const { ends } = this.#options
    const pods = (edge.pod === undefined ? 0 : 1) + (edge.peer === undefined ? 0 : 1)
    if (counted.generation === ends.generation && counted.pods === pods) return place
    counted.generation = ends.generation
    counted.pods = pods
    const found = ends.edge(edge)
    if (!found) return place
    const old = place?.edge
    if (old) {
      const source = found.source ?? old.source
      const destination = found.destination ?? old.destination
      const service = found.service ?? old.service
      if (source === old.source && destination === old.destination && service === old.service) return place
    }
    if (place) this.#leave(place)
    counted.place = emptyPlace(found, this.#options.tcp.edge(found))
    this.#enter(counted.place.tcp.labels)
    return counted.place
  }

  #count(edge: KernelEdge, counted: Counted, place: Place): void {
    const { totals, direction } = edge
    counted.version = edge.version
    const retransmits = totals.retransmits - counted.retransmits
    if (retransmits > 0) {
      place.retransmits ??= this.#own(this.#retransmits, place)
      place.retransmits.value += retransmits
      counted.retransmits = totals.retransmits
    }
    this.#countRtt(totals, counted, place)
    // Of what goes through tunnels the agent counts connections and bytes.
    if (edge.security === 'tunnel') return
    const { tcp } = place
    if (totals.opened > 0) {
      tcp.opened.value += totals.opened - counted.opened
      tcp.closed.value += totals.closed - counted.closed
      // Istio names them from the server's side: received is what the client sent.
      const [sent, received] = direction === 'outbound' ? [tcp.received, tcp.sent] : [tcp.sent, tcp.received]
      sent.value += totals.sent - counted.sent
      received.value += totals.received - counted.received
      counted.opened = totals.opened
      counted.closed = totals.closed
      counted.sent = totals.sent
      counted.received = totals.received
    }
    if (totals.failed > counted.failed) {
      place.connect ??= this.#flagged(place, 'CONNECT')
      place.connect.failed.value += totals.failed - counted.failed
      counted.failed = totals.failed
    }
    for (const reason of REASONS) {
      const refused = totals.refused[reason] - counted.refused[reason]
      if (refused === 0) continue
      place.deny ??= this.#flagged(place, 'DENY')
      place.deny.failed.value += refused
      let series = place.refused.get(reason)
      if (!series) place.refused.set(reason, (series = this.#own(this.#refused, place, reason)))
      series.value += refused
      counted.refused[reason] = totals.refused[reason]
    }
  }

  #countRtt(totals: EdgeTotals, counted: Counted, place: Place): void {
    // Between two pods of a node both ends see the same; the one that dialled says it.
    if (place.edge?.security === 'same_node' && place.edge.reporter === 'destination') return
    let samples = 0
    for (let i = 0; i < totals.rtt.length; i++) {
      const more = (totals.rtt[i] as number) - (counted.rtt[i] as number)
      if (more === 0) continue
      samples += more
      place.rtt ??= this.#own(this.#rtt, place)
      const bucket = Math.min(rttBounds.length, Math.ceil(i / STEP))
      place.rtt.counts[bucket] = (place.rtt.counts[bucket] as number) + more
      counted.rtt[i] = totals.rtt[i] as number
    }
    if (samples === 0 || !place.rtt) return
    place.rtt.count += samples
    place.rtt.sum += (totals.rttSumUs - counted.rttSumUs) / 1e6
    counted.rttSumUs = totals.rttSumUs
  }

  #flagged(place: Place, flags: 'CONNECT' | 'DENY'): TcpSeries {
    if (!place.edge) return place.tcp
    const series = this.#options.tcp.edge(place.edge, flags)
    this.#enter(series.labels)
    return series
  }

  /** A series of a family of ours. */
  #own<S extends { readonly labels: string }>(family: Named<S>, { edge }: Place, reason?: string): S {
    if (!edge) return family.other()
    const values = [
      edge.reporter,
      edge.source?.workloadName || 'unknown',
      edge.source?.namespace || 'unknown',
      edge.destination?.workloadName || 'unknown',
      edge.destination?.namespace || 'unknown',
      edge.security,
    ]
    const series = family.with(reason === undefined ? values : [...values, reason])
    this.#enter(family.name + series.labels)
    return series
  }

  #enter(labels: string): void {
    this.#users.set(labels, (this.#users.get(labels) ?? 0) + 1)
  }

  /** An edge counts there no more; series without edges go. */
  #leave(place: Place): void {
    const { tcp } = this.#options
    for (const series of [place.tcp, place.connect, place.deny]) {
      if (series && this.#isLast(series.labels)) tcp.drop(series)
    }
    this.#leaveOwn(this.#rtt, place.rtt)
    this.#leaveOwn(this.#retransmits, place.retransmits)
    for (const series of place.refused.values()) this.#leaveOwn(this.#refused, series)
  }

  #leaveOwn<S extends { readonly labels: string }>(family: Named<S>, series: S | undefined): void {
    if (series && this.#isLast(family.name + series.labels)) family.drop(series)
  }

  #isLast(labels: string): boolean {
    const left = (this.#users.get(labels) ?? 0) - 1
    if (left > 0) this.#users.set(labels, left)
    else this.#users.delete(labels)
    return left <= 0
  }
}

interface Named<S> {
  readonly name: string
  with(values: readonly string[]): S
  other(): S
  drop(series: S): void
}

function emptyPlace(edge: Edge | undefined, tcp: TcpSeries): Place {
  return {
    edge,
    tcp,
    connect: undefined,
    deny: undefined,
    rtt: undefined,
    retransmits: undefined,
    refused: new Map(),
  }
}

function nothing(totals: EdgeTotals): Counted {
  return {
    place: undefined,
    generation: -1,
    pods: -1,
    version: -1,
    opened: 0,
    closed: 0,
    failed: 0,
    sent: 0,
    received: 0,
    retransmits: 0,
    rttSumUs: 0,
    refused: { policy: 0, no_verdict: 0, plaintext: 0 },
    rtt: new Float64Array(totals.rtt.length),
  }
}
