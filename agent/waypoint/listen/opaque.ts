// Opaque connections through the waypoint: routed by the TCP rules of the service, judged by what can be judged without a
// request (fail closed), relayed to one endpoint. Must not live here: HTTP, detection (inner.ts).
import type { Clock, Timer } from '../../base/clock.ts'
import { AmbitError } from '../../base/errors.ts'
import type { Connection, ConnectionHandler } from '../../io/connection.ts'
import { Relay, type RelayObserver } from '../../io/relay.ts'
import { authorizeRequest, type Verdict } from '../../mesh/authorize.ts'
import { emptyRequest } from '../../mesh/request.ts'
import type { MeshState } from '../../mesh/state.ts'
import { compileWeights, pickWeighted } from '../../mesh/weighted.ts'
import type { Workload } from '../../mesh/workload.ts'
import { clientNamespace, type Downstream } from '../downstream.ts'
import { noTable, type ServiceTable, type Tables } from '../route/table.ts'
import type { Cluster } from '../upstream/cluster.ts'
import type { Clusters } from '../upstream/clusters.ts'
import type { Host } from '../upstream/host.ts'
import type { Tunnels } from '../upstream/tunnels.ts'

export interface OpaqueRecord {
  readonly downstream: Downstream
  readonly endpoint: Workload | undefined
  readonly endpointAddress: string
  readonly cluster: string
  readonly startedTime: number
  readonly durationMs: number
  /** From the client, and to it. */
  readonly received: number
  readonly sent: number
  readonly flags: string
  readonly details: string
}

export interface OpaqueOptions {
  readonly state: MeshState
  readonly tables: Tables
  readonly clusters: Clusters
  readonly tunnels: Tunnels
  readonly clock: Clock
  readonly random: () => number
  /** A connection is taken over; `onDone` follows once. */
  onStart(): void
  onDone(record: OpaqueRecord): void
}

interface Flow {
  readonly downstream: Downstream
  /** As the last sweep saw it, and when that had changed. */
  bytes: number
  movedAt: number
  readonly startedAt: number
  readonly startedTime: number
  cluster: Cluster | undefined
  host: Host | undefined
  flags: string
  details: string
}

const CONNECT_TIMEOUT_MS = 10_000

/** Swallows what comes on a connection that has been refused; its end is reported once. */
class Refused implements ConnectionHandler {
  readonly #onClose: () => void

  constructor(onClose: () => void) {
    this.#onClose = onClose
  }

  onOpen(): void {}
  onRead(): void {}
  onDrain(): void {}
  onEnd(): void {}
  onClose(): void {
    this.#onClose()
  }
}

/** How often idle connections are looked for. */
const SWEEP_MS = 30_000
const DEFAULT_IDLE_TIMEOUT_MS = 3_600_000

export interface OpaqueServer {
  /** The `opaque` of inner.ts. */
  take(connection: Connection, downstream: Downstream): ConnectionHandler
  /** Judges the connections that are open again, after policies or endpoints changed; those now denied are cut. */
  refresh(): void
  stop(): void
}

export function opaqueServer(options: OpaqueOptions): OpaqueServer {
  const { state, tables, clusters, tunnels, clock, random } = options

  const relays = new Set<Relay>()
  let timer: Timer | undefined

  const sweep = (): void => {
    timer = undefined
    const now = clock.monotonic()
    for (const relay of relays) {
      const flow = relay.slot as Flow
      const bytes = relay.firstBytes + relay.secondBytes
      if (bytes !== flow.bytes) {
        flow.bytes = bytes
        flow.movedAt = now
        continue
      }
      // 0 switches it off (DestinationRule tcp.idleTimeout).
      const limit = flow.cluster?.policy.connectionPool?.tcpIdleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS
      if (limit === 0 || now - flow.movedAt < limit) continue
      flow.details = 'idle_timeout'
      relay.abort('timeout', new AmbitError('WAYPOINT_IDLE', `No byte moved for ${limit} ms.`))
    }
    if (relays.size > 0) timer = clock.after(SWEEP_MS, sweep, true)
  }

  const verdictOf = (flow: Flow, host: Host): Verdict => {
    const { downstream } = flow
    const attributes = emptyRequest()
    attributes.sourceAddress = downstream.client.address
    attributes.remoteAddress = downstream.client.address
    attributes.identity = downstream.identity
    attributes.destinationAddress = downstream.address
    attributes.destinationPort = downstream.port
    return authorizeRequest(tableOf(downstream).forConnection(host.candidate.workload), attributes)
  }

  const tableOf = (downstream: Downstream): ServiceTable =>
    downstream.service
      ? tables.forService(downstream.service, clientNamespace(downstream))
      : downstream.workload
        ? tables.forWorkload(downstream.workload)
        : noTable

  const done = (flow: Flow, received: number, sent: number): void => {
    const candidate = flow.host?.candidate
    options.onDone({
      downstream: flow.downstream,
      endpoint: candidate?.workload,
      endpointAddress: candidate ? `${candidate.address}:${candidate.port}` : '',
      cluster: flow.cluster?.name ?? '',
      startedTime: flow.startedTime,
      durationMs: clock.monotonic() - flow.startedAt,
      received,
      sent,
      flags: flow.flags,
      details: flow.details,
    })
  }

  const observer: RelayObserver = {
    onDone(relay, error) {
      const flow = relay.slot as Flow
      relays.delete(relay)
      if (flow.cluster && flow.host) {
        flow.cluster.releaseConnection(flow.host)
        if (error && relay.secondBytes === 0 && flow.flags === '-' && flow.details === '') {
          flow.flags = 'UF'
          flow.details = error.message
          flow.cluster.reportFailure(flow.host, 'connect')
        }
      }
      done(flow, relay.firstBytes, relay.secondBytes)
    },
  }

  const take = (connection: Connection, downstream: Downstream): ConnectionHandler => {
    const now = clock.monotonic()
    const flow: Flow = {
      downstream,
      bytes: -1,
      movedAt: now,
      startedAt: now,
      startedTime: clock.now(),
      cluster: undefined,
      host: undefined,
      flags: '-',
      details: '',
    }
    options.onStart()
    const refuse = (flags: string, details: string): ConnectionHandler => {
      flow.flags = flags
      flow.details = details
      connection.abort('denied')
      return new Refused(() => done(flow, 0, 0))
    }
    const cluster = route(tableOf(downstream), downstream)
    if (typeof cluster === 'string')
      return refuse(cluster, cluster === 'NR' ? 'route_not_found' : 'no_healthy_upstream')
    flow.cluster = cluster
    const host = cluster.acquireConnection()
    if (typeof host === 'string') return refuse(host === 'overflow' ? 'UO' : 'UH', host)
    const verdict = verdictOf(flow, host)
    if (!verdict.allowed) {
      cluster.releaseConnection(host)
      return refuse('-', verdict.details)
    }
    flow.host = host
    const relay = new Relay(observer, flow)
    relays.add(relay)
    timer ??= clock.after(SWEEP_MS, sweep, true)
    relay.attach(connection)
    const timeout = cluster.policy.connectionPool?.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
    relay.expect(
      tunnels.connect(host.candidate, downstream.client, downstream.source, timeout, relay.second, undefined),
    )
    return relay.first
  }

  return {
    take,
    refresh() {
      for (const relay of relays) {
        const flow = relay.slot as Flow
        if (!flow.host) continue
        const verdict = verdictOf(flow, flow.host)
        if (verdict.allowed) continue
        flow.details = verdict.details
        relay.abort('denied', new AmbitError('WAYPOINT_DENIED', 'A policy that changed denies the connection.'))
      }
    },
    stop() {
      timer?.cancel()
      for (const relay of relays) relay.abort('shutdown', new AmbitError('WAYPOINT_STOPPED', 'The waypoint stops.'))
    },
  }

  function route(table: ServiceTable, downstream: Downstream): Cluster | 'NR' | 'UH' {
    const { service, workload, address, port } = downstream
    if (!service) return workload ? clusters.forWorkload(workload, address, port) : 'NR'
    const rules = table.route && table.route !== 'broken' ? table.route.route.tcp : []
    if (table.route === 'broken') return 'NR'
    const namespace = clientNamespace(downstream)
    if (rules.length === 0) {
      const plain = clusters.forService(service, port, '', namespace)
      return plain === 'no_subset' ? 'UH' : plain
    }
    const rule = rules.find((candidate) => candidate.port === 0 || candidate.port === port)
    if (!rule) return 'NR'
    const weights = compileWeights(rule.destinations.map((destination) => destination.weight))
    const destination = rule.destinations[pickWeighted(weights, random)]
    const target = destination && state.service(destination.service)
    if (!destination || !target) return 'NR'
    const only = target.ports.length === 1 ? target.ports[0]?.port : undefined
    const cluster = clusters.forService(target, destination.port || only || port, destination.subset, namespace)
    return cluster === 'no_subset' ? 'UH' : cluster
  }
}
