// What is counted and logged of each connection the agent carries: Istio's TCP metrics and one access line, with ztunnel's
// field names (reference: ambient, ztunnel access log). Must not live here: verdicts, bytes.
import type { Clock } from '../../base/clock.ts'
import { joinHostPort } from '../../base/ip.ts'
import type { Endpoint } from '../../io/connection.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import type { Edge, TcpFlags, TcpMetrics, TcpSeries } from '../../telemetry/istio.ts'

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
  readonly #metrics: TcpMetrics
  readonly #log: AccessLog
  readonly #clock: Clock

  constructor(metrics: TcpMetrics, log: AccessLog, clock: Clock) {
    this.#metrics = metrics
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
    this.#line(error === '' ? 'info' : 'error', 'connection complete', flow.facts, flow.started, {
      fromClient,
      toClient,
      error,
    })
  }

  /** Refused, or failed before a byte went through. `policy`: what decided, where a policy did. */
  fail(facts: FlowFacts, started: number, flags: TcpFlags, error: string, policy = ''): void {
    this.#metrics.edge(facts.edge, flags).failed.value++
    this.#line('warn', 'connection failed', facts, started, { fromClient: 0, toClient: 0, error, policy })
  }

  #line(
    level: string,
    message: string,
    facts: FlowFacts,
    started: number,
    end: { fromClient: number; toClient: number; error: string; policy?: string },
  ): void {
    const { direction, edge } = facts
    const { source, destination, service } = edge
    const outbound = direction === 'outbound'
    this.#log.entry({
      time: new Date(this.#clock.now()).toISOString(),
      level,
      scope: 'access',
      message,
      'src.addr': joinHostPort(facts.source.address, facts.source.port),
      'src.workload': source?.name,
      'src.namespace': source?.namespace,
      'src.identity': edge.sourceIdentity && formatIdentity(edge.sourceIdentity),
      'src.cluster': source?.clusterId,
      'dst.addr': joinHostPort(facts.destination.address, facts.destination.port),
      'dst.hbone_addr': facts.authority || undefined,
      'dst.service': service?.hostname,
      'dst.workload': destination?.name,
      'dst.namespace': destination?.namespace,
      'dst.identity': edge.destinationIdentity && formatIdentity(edge.destinationIdentity),
      'dst.cluster': destination?.clusterId,
      direction,
      // ztunnel names them from the local app's side: sent is what it sent.
      bytes_sent: outbound ? end.fromClient : end.toClient,
      bytes_recv: outbound ? end.toClient : end.fromClient,
      duration: `${Math.round(this.#clock.monotonic() - started)}ms`,
      policy: end.policy || undefined,
      error: end.error || undefined,
    })
  }
}
