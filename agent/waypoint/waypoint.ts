// A waypoint as one object: the pipeline with everything below it, and the listener in front. The program (main.ts) gives it a
// mesh state, certificates and a transport; so does a test. Must not live here: flags, control, admin servers.
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { http1Server, type Http1Server } from '../http/http1/index.ts'
import { http2Server, type Http2Server } from '../http/http2/index.ts'
import type { Listener, Transport } from '../io/connection.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Place } from '../mesh/localize.ts'
import type { MeshState } from '../mesh/state.ts'
import type { Certificates } from '../pki/contract.ts'
import type { AccessLog } from '../telemetry/access-log.ts'
import type { Metrics } from '../telemetry/exposition.ts'
import { HttpMetrics, TcpMetrics } from '../telemetry/istio.ts'
import { authorizeFilter } from './filter/authorize.ts'
import type { Filter, RouteFilter } from './filter/filter.ts'
import { observeFilter, observeOpaque, observeRefused } from './filter/observe.ts'
import { hboneServer } from './listen/hbone.ts'
import { downstreamOf, innerServer, type InnerServer } from './listen/inner.ts'
import { opaqueServer, type OpaqueServer } from './listen/opaque.ts'
import { plainHandler, type PlainTarget } from './listen/plain.ts'
import { Pipeline } from './pipeline.ts'
import { Tables } from './route/table.ts'
import { serverTls } from './tls.ts'
import { Clusters } from './upstream/clusters.ts'
import { sessionOpener } from './upstream/sessions.ts'
import { Tunnels } from './upstream/tunnels.ts'

/** While draining, a kept-alive connection is closed once it was idle for so long: a client that uses it more often gets `connection: close`. */
const DRAIN_IDLE_MS = 5_000

/** An address, or an inherited socket of which a duplicate is used. */
export type ListenAt = { readonly host: string; readonly port: number } | { readonly fd: number }

export interface WaypointParts {
  /** Name and namespace of the Gateway. */
  readonly name: string
  readonly namespace: string
  readonly identity: Identity
  readonly place: Place
  readonly state: MeshState
  readonly certificates: Certificates
  readonly transport: Transport
  readonly clock: Clock
  /** [0, 1). */
  readonly random: () => number
  readonly log: Logger
  readonly access: AccessLog
  readonly metrics: Metrics
  /** Bounds; absent ones are those of the transport and the codec. */
  readonly limits?: {
    /** Open connections of a listener; more are refused and counted. */
    readonly maxConnections?: number
    readonly headTimeoutMs?: number
    readonly bodyIdleTimeoutMs?: number
  }
  /** Absent: nothing is shed. */
  readonly overload?: { refuses(active: number): boolean }
  /** Further filters, behind the waypoint's own. */
  readonly filters?: readonly Filter[]
  readonly routeFilters?: readonly RouteFilter[]
}

export class Waypoint {
  readonly pipeline: Pipeline
  readonly clusters: Clusters
  readonly tunnels: Tunnels
  /** Opaque connections in flight. */
  opaque = 0
  readonly #parts: WaypointParts
  readonly #outer: Http2Server
  readonly #http1: Http1Server
  readonly #http2: Http2Server
  readonly #opaque: OpaqueServer
  readonly #inner: InnerServer
  readonly #listeners: Listener[] = []

  constructor(parts: WaypointParts) {
    this.#parts = parts
    const { state, certificates, identity, transport, clock, random, log, access, metrics } = parts
    const { name, namespace } = parts
    const tunnels = new Tunnels({ transport, state, certificates, identity, clock })
    const clusters = new Clusters({
      state,
      place: parts.place,
      open: sessionOpener(tunnels, state, clock),
      clock,
      random,
    })
    const tables = new Tables(state, { namespace, name }, log)
    const tcpMetrics = new TcpMetrics(metrics)
    this.tunnels = tunnels
    this.clusters = clusters
    this.pipeline = new Pipeline({
      state,
      tables,
      clusters,
      // The observer stands first, so that its onComplete sees what all others did.
      filters: [
        observeFilter({ metrics: new HttpMetrics(metrics), access, clock }),
        authorizeFilter,
        ...(parts.filters ?? []),
      ],
      ...(parts.routeFilters && { routeFilters: parts.routeFilters }),
      clock,
      random,
      log,
      downstreamOf,
      ...(parts.overload && { overload: parts.overload }),
    })
    const refusedRequests = metrics.counter({
      name: 'ambit_waypoint_requests_refused_total',
      help: 'Bytes that were no request: answered by the HTTP/1.1 codec and closed, by status.',
      labels: ['status'],
    })
    this.#http1 = http1Server(
      this.pipeline,
      { clock, ...timeoutsOf(parts.limits) },
      {
        onRefused(connection, status, details) {
          refusedRequests.with([String(status)]).value++
          observeRefused(access, clock, downstreamOf(connection), status, details)
        },
      },
    )
    this.#http2 = http2Server(this.pipeline, { clock, extendedConnect: true })
    const opaque = opaqueServer({
      state,
      tables,
      clusters,
      tunnels,
      clock,
      random,
      onStart: () => {
        this.opaque++
      },
      onDone: (record) => {
        this.opaque--
        observeOpaque(tcpMetrics, access, record)
      },
    })
    this.#opaque = opaque
    this.#inner = innerServer({
      http1: this.#http1,
      http2: this.#http2,
      clock,
      deadlines: this.pipeline.deadlines,
      headTimeoutMs: parts.limits?.headTimeoutMs ?? 60_000,
      opaque: (connection, downstream) => opaque.take(connection, downstream),
    })
    const refused = metrics.counter({
      name: 'ambit_waypoint_tunnels_refused_total',
      help: 'CONNECT requests refused, by status.',
      labels: ['status'],
    })
    this.#outer = hboneServer({
      state,
      waypoint: () => `${namespace}/${name}.${namespace}.svc.${state.settings.clusterDomain}`,
      inner: this.#inner,
      log,
      onRefused: (status) => {
        refused.with([String(status)]).value++
      },
    })
    registerGauges(metrics, this)
  }

  /** Takes HBONE on an address, or on a bound socket. Rejects with IO_ADDRESS_IN_USE or IO_LISTEN. */
  async listen(where: ListenAt): Promise<Listener> {
    const { transport, certificates, identity, state, limits } = this.#parts
    const tls = serverTls(certificates, identity, state)
    const listener = await transport.listen({
      ...where,
      tls,
      handler: this.#outer,
      ...(limits?.maxConnections !== undefined && { maxConnections: limits.maxConnections }),
    })
    this.#listeners.push(listener)
    return listener
  }

  /**
   * Takes requests in plaintext on an address, or on a bound socket, and serves them as requests for one service, from clients without an identity
   * (a Gateway's HTTP listener). Rejects like `listen`.
   */
  async listenHttp(where: ListenAt, target: PlainTarget): Promise<Listener> {
    const { transport, state, limits } = this.#parts
    const listener = await transport.listen({
      ...where,
      handler: plainHandler(state, target, this.#inner),
      ...(limits?.maxConnections !== undefined && { maxConnections: limits.maxConnections }),
    })
    this.#listeners.push(listener)
    return listener
  }

  /** Stops accepting for a while, or goes on: connections wait in the kernel's queue meanwhile. */
  setAccepting(accepting: boolean): void {
    for (const listener of this.#listeners) {
      if (accepting) listener.resume()
      else listener.pause()
    }
  }

  /** Connections of all listeners, and those refused because there were too many or accept failed. */
  get connections(): { readonly open: number; readonly refused: number } {
    let open = 0
    let refused = 0
    for (const listener of this.#listeners) {
      open += listener.connections
      refused += listener.refused
    }
    return { open, refused }
  }

  /** Called when the mesh state changed: what is open and no longer right is cut. Requests are judged one by one anyway. */
  refresh(): void {
    this.tunnels.prune()
    this.clusters.refresh()
    this.#opaque.refresh()
  }

  /**
   * Takes nothing new, lets what is open end, for `ms` at most. Nobody's request is lost: the accept queue is emptied first,
   * HTTP/2 is told in two steps, and a kept-alive HTTP/1.1 connection is closed with an answer or after it was idle.
   */
  async drain(ms: number): Promise<void> {
    const { clock } = this.#parts
    // Callbacks of setImmediate come right after a poll, and a poll accepts until the queue is empty.
    await new Promise((resolve) => setImmediate(resolve))
    await Promise.all(this.#listeners.map((listener) => listener.stop()))
    this.#http1.drain(Math.min(DRAIN_IDLE_MS, ms / 2))
    this.#http2.drain()
    this.#outer.drain()
    const end = clock.monotonic() + ms
    while (this.#open > 0 && clock.monotonic() < end) {
      await new Promise<void>((resolve) => clock.after(50, resolve))
    }
  }

  /** Whatever a drain waits for: requests, opaque connections, and connections in any state, handshakes included. */
  get #open(): number {
    return this.pipeline.active + this.opaque + this.#outer.sessions.size + this.connections.open
  }

  /** Cuts what is left. */
  close(): void {
    this.#opaque.stop()
    this.#outer.close()
    this.#http1.close()
    this.#http2.close()
    this.clusters.drain()
    this.tunnels.pool.close()
  }
}

function timeoutsOf(limits: WaypointParts['limits']): { headTimeoutMs?: number; bodyIdleTimeoutMs?: number } {
  const { headTimeoutMs, bodyIdleTimeoutMs } = limits ?? {}
  return {
    ...(headTimeoutMs !== undefined && { headTimeoutMs }),
    ...(bodyIdleTimeoutMs !== undefined && { bodyIdleTimeoutMs }),
  }
}

function registerGauges(metrics: Metrics, waypoint: Waypoint): void {
  const { clusters, pipeline, tunnels } = waypoint
  const active = metrics.gauge({ name: 'ambit_waypoint_requests_active', help: 'Requests in flight.', labels: [] })
  const opaque = metrics.gauge({
    name: 'ambit_waypoint_opaque_active',
    help: 'Opaque connections in flight.',
    labels: [],
  })
  const connections = metrics.gauge({
    name: 'ambit_waypoint_connections',
    help: 'Connections to the HBONE listener, handshakes included.',
    labels: [],
  })
  const refused = metrics.counter({
    name: 'ambit_waypoint_connections_refused_total',
    help: 'Connections closed at once: too many, or no descriptors left.',
    labels: [],
  })
  const sessions = metrics.gauge({ name: 'ambit_waypoint_tunnels', help: 'HBONE sessions to endpoints.', labels: [] })
  const ejected = metrics.gauge({
    name: 'ambit_waypoint_hosts_ejected',
    help: 'Endpoints ejected by outlier detection.',
    labels: ['cluster'],
  })
  metrics.beforeScrape(() => {
    active.with([]).value = pipeline.active
    connections.with([]).value = waypoint.connections.open
    refused.with([]).value = waypoint.connections.refused
    opaque.with([]).value = waypoint.opaque
    sessions.with([]).value = tunnels.pool.sessions
    // Clusters come and go, and their series with them.
    ejected.forget(() => true)
    for (const cluster of clusters.all()) {
      if (cluster.policy.outlierDetection) ejected.with([cluster.name]).value = cluster.ejected
    }
  })
}
