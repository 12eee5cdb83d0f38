// What is counted and logged of each connection the agent carries: Istio's TCP metrics and one access line, with ztunnel's
// field names (reference: ambient, ztunnel access log); of those that the kernel carries the line alone. Must not live here:
// verdicts, bytes.
import type { Clock } from '../../base/clock.ts'
import { joinHostPort } from '../../base/ip.ts'
import type { Endpoint } from '../../io/connection.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import type { Edge, TcpFlags, TcpMetrics, TcpSeries } from '../../telemetry/istio.ts'
import type { KernelFlow, KernelRefusal } from '../redirect/contract.ts'
import type { RefusalReason, Refusals } from './refusals.ts'

/** What they mean to who reads the log. */
const REFUSALS: Readonly<Record<KernelRefusal, string>> = {
  policy: 'denied by policy',
  no_verdict: 'its policy was replaced meanwhile',
  plaintext: 'plaintext is refused there',
}

export interface FlowFacts {
  readonly direction: 'inbound' | 'outbound'
  readonly edge: Edge
  /** The client, as the app sees it. */
  readonly source: Endpoint
  /** Where the agent connected, or was connected: the tunnel's address for HBONE. */
  readonly destination: Endpoint
  /** `:authority` of the CONNECT, '' without a tunnel. */
  readonly authority: string
}

/** A connection that is being carried. */
export interface Flow {
  readonly facts: FlowFacts
  /** Monotonic milliseconds. */
  readonly started: number
  readonly series: TcpSeries
  /** Bytes already counted, from and to the client. */
  received: number
  sent: number
}

export class Flows {
  /** For refusals that have no flow of their own. */
  readonly refusals: Refusals
  readonly #metrics: TcpMetrics
  readonly #log: AccessLog
  readonly #clock: Clock
  /** A series is one edge's, and goes with it. */
  readonly #texts = new WeakMap<TcpSeries, EdgeText>()
  #lastTime = -1
  #lastText = ''

  constructor(metrics: TcpMetrics, refusals: Refusals, log: AccessLog, clock: Clock) {
    this.#metrics = metrics
    this.refusals = refusals
    this.#log = log
    this.#clock = clock
  }

  /** Both sides are open. `started`: when the client's connection was accepted. */
  open(facts: FlowFacts, started: number): Flow {
    const series = this.#metrics.edge(facts.edge)
    series.opened.value++
    return { facts, started, series, received: 0, sent: 0 }
  }

  /** Counts up to these totals: at scrapes for connections that live long, and at the end. */
  progress(flow: Flow, fromClient: number, toClient: number): void {
    flow.series.received.value += fromClient - flow.received
    flow.series.sent.value += toClient - flow.sent
    flow.received = fromClient
    flow.sent = toClient
  }

  close(flow: Flow, fromClient: number, toClient: number, error: string): void {
    this.progress(flow, fromClient, toClient)
    flow.series.closed.value++
    const level = error === '' ? 'info' : 'error'
    this.#line(level, 'connection complete', flow.facts, flow.series, flow.started, { fromClient, toClient, error })
  }

  /** Refused, for a reason of this agent's, or failed before a byte went through. `policy`: what decided, where a policy did. */
  fail(
    facts: FlowFacts,
    started: number,
    flags: TcpFlags,
    error: string,
    reason: RefusalReason | undefined,
    policy: string,
  ): void {
    const series = this.#metrics.edge(facts.edge, flags)
    series.failed.value++
    if (reason !== undefined) this.refusals.count(facts.direction, reason)
    this.#line('warn', 'connection failed', facts, series, started, { fromClient: 0, toClient: 0, error, policy })
  }

  /** A line about a connection that the kernel carried, and counted. */
  kernel(flow: KernelFlow, edge: Edge): void {
    const { source, destination, failed, refusal } = flow
    const facts: FlowFacts = { direction: 'outbound', edge, source, destination, authority: '' }
    const error = refusal === undefined ? flow.error : `refused by the destination's kernel: ${REFUSALS[refusal]}`
    const level = failed ? 'warn' : error === '' ? 'info' : 'error'
    const message = failed ? 'connection failed' : 'connection complete'
    const end = { fromClient: flow.sent, toClient: flow.received, error }
    this.#line(level, message, facts, undefined, this.#clock.monotonic() - flow.durationMs, end)
  }

  /** Written by hand: what is the same for every connection of an edge is rendered once. Undefined fields are left out. */
  #line(
    level: string,
    message: string,
    facts: FlowFacts,
    series: TcpSeries | undefined,
    started: number,
    end: { fromClient: number; toClient: number; error: string; policy?: string },
  ): void {
    const { direction, source, destination, authority } = facts
    const known = this.#textOf(facts.edge, series)
    const outbound = direction === 'outbound'
    // ztunnel names them from the local app's side: sent is what it sent.
    const sent = outbound ? end.fromClient : end.toClient
    const received = outbound ? end.toClient : end.fromClient
    const time = this.#time(this.#clock.now())
    let line = `{"time":"${time}","level":"${level}","scope":"access","message":"${message}"`
    line += `,"src.addr":${JSON.stringify(joinHostPort(source.address, source.port))}${known.source}`
    line += `,"dst.addr":${JSON.stringify(joinHostPort(destination.address, destination.port))}`
    if (authority !== '') line += `,"dst.hbone_addr":${JSON.stringify(authority)}`
    line += `${known.destination},"direction":"${direction}","bytes_sent":${sent},"bytes_recv":${received}`
    line += `,"duration":"${Math.round(this.#clock.monotonic() - started)}ms"`
    if (end.policy) line += `,"policy":${JSON.stringify(end.policy)}`
    if (end.error !== '') line += `,"error":${JSON.stringify(end.error)}`
    this.#log.line(`${line}}`)
  }

  /** Rendered once for a series; without one, anew. */
  #textOf(edge: Edge, series: TcpSeries | undefined): EdgeText {
    if (!series) return edgeText(edge)
    let known = this.#texts.get(series)
    if (!known) this.#texts.set(series, (known = edgeText(edge)))
    return known
  }

  /** ISO text of a time; many connections end in one millisecond. */
  #time(now: number): string {
    if (now !== this.#lastTime) {
      this.#lastTime = now
      this.#lastText = new Date(now).toISOString()
    }
    return this.#lastText
  }
}

interface EdgeText {
  readonly source: string
  readonly destination: string
}

/** The fields of an access line that say who an edge joins, each with a comma before it. */
function edgeText(edge: Edge): EdgeText {
  const { source, destination, service } = edge
  return {
    source: fields({
      'src.workload': source?.name,
      'src.namespace': source?.namespace,
      'src.identity': edge.sourceIdentity && formatIdentity(edge.sourceIdentity),
      'src.cluster': source?.clusterId,
    }),
    destination: fields({
      'dst.service': service?.hostname,
      'dst.workload': destination?.name,
      'dst.namespace': destination?.namespace,
      'dst.identity': edge.destinationIdentity && formatIdentity(edge.destinationIdentity),
      'dst.cluster': destination?.clusterId,
    }),
  }
}

function fields(values: Readonly<Record<string, string | undefined>>): string {
  const inside = JSON.stringify(values).slice(1, -1)
  return inside === '' ? '' : `,${inside}`
}
