// Opaque connections through the waypoint: routed by the TCP rules of the service, judged by what can be judged without a
// request (fail closed), relayed to one endpoint. Must not live here: HTTP, detection (inner.ts).
import type { Clock } from '../../base/clock.ts'
import type { Connection, ConnectionHandler } from '../../io/connection.ts'
import { Relay, type RelayObserver } from '../../io/relay.ts'
import { authorizeRequest } from '../../mesh/authorize.ts'
import { emptyRequest } from '../../mesh/request.ts'
import type { MeshState } from '../../mesh/state.ts'
import { compileWeights, pickWeighted } from '../../mesh/weighted.ts'
import type { Workload } from '../../mesh/workload.ts'
import { clientNamespace, type Downstream } from '../downstream.ts'
import type { ServiceTable, Tables } from '../route/table.ts'
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

/** Makes `opaque` of inner.ts. */
export function opaqueServer(
  options: OpaqueOptions,
): (connection: Connection, downstream: Downstream) => ConnectionHandler {
  const { state, tables, clusters, tunnels, clock, random } = options

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
      if (flow.cluster && flow.host) {
        flow.cluster.releaseConnection(flow.host)
        if (error && relay.secondBytes === 0 && flow.flags === '-') {
          flow.flags = 'UF'
          flow.details = error.message
          flow.cluster.reportFailure(flow.host, 'connect')
        }
      }
      done(flow, relay.firstBytes, relay.secondBytes)
    },
  }

  return (connection, downstream) => {
    const flow: Flow = {
      downstream,
      startedAt: clock.monotonic(),
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
    const table = downstream.service
      ? tables.forService(downstream.service, clientNamespace(downstream))
      : tables.forWorkload(downstream.workload as Workload)
    const cluster = route(table, downstream)
    if (typeof cluster === 'string')
      return refuse(cluster, cluster === 'NR' ? 'route_not_found' : 'no_healthy_upstream')
    flow.cluster = cluster
    const host = cluster.acquireConnection()
    if (typeof host === 'string') return refuse(host === 'overflow' ? 'UO' : 'UH', host)
    const attributes = emptyRequest()
    attributes.sourceAddress = downstream.client.address
    attributes.identity = downstream.identity
    attributes.destinationAddress = downstream.address
    attributes.destinationPort = downstream.port
    const verdict = authorizeRequest(table.forConnection(host.candidate.workload), attributes)
    if (!verdict.allowed) {
      cluster.releaseConnection(host)
      return refuse('-', verdict.details)
    }
    flow.host = host
    const relay = new Relay(observer, flow)
    relay.attach(connection)
    const timeout = cluster.policy.connectionPool?.connectTimeoutMs ?? CONNECT_TIMEOUT_MS
    relay.expect(
      tunnels.connect(host.candidate, downstream.client, downstream.source, timeout, relay.second, undefined),
    )
    return relay.first
  }

  function route(table: ServiceTable, downstream: Downstream): Cluster | 'NR' | 'UH' {
    const { service, workload, address, port } = downstream
    if (!service) return clusters.forWorkload(workload as Workload, address, port)
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
