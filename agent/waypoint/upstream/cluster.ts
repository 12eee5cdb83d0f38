// One upstream: a service port, or a subset of it, with its hosts, limits and outlier detection (DestinationRule). It hands out
// sessions and counts; it knows nothing of requests beyond their number. Limits are Envoy's circuit breakers: reaching one is
// an immediate refusal (UO), never a longer wait. Must not live here: retries, timeouts (forward.ts).
import type { Clock } from '../../base/clock.ts'
import type { ClientSession, SessionEvents } from '../../http/message.ts'
import { OutlierDetector } from '../../mesh/outlier.ts'
import { Balancer, type Candidate, type HostStates } from '../../mesh/pick-endpoint.ts'
import type { TrafficPolicy } from '../../mesh/upstream.ts'
import { Host } from './host.ts'
import { Pooled, type Pool, type Waiting } from './pool.ts'

/** How a session to a host is made (sessions.ts). `slot` of the returned session is set by the cluster. */
export type OpenSession = (
  candidate: Candidate,
  waiting: Pick<Waiting, 'client' | 'version'>,
  timeoutMs: number,
  events: SessionEvents,
) => ClientSession

export interface ClusterOptions {
  readonly name: string
  readonly policy: TrafficPolicy
  readonly open: OpenSession
  readonly clock: Clock
  readonly random: () => number
}

/** Idle sessions kept per pool; of those beyond, the ones that were not used since the last look are closed. */
const MAX_IDLE_PER_POOL = 64
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000
const DEFAULT_IDLE_TIMEOUT_MS = 3_600_000

export type Refusal = 'no_healthy_upstream' | 'overflow'

export class Cluster implements SessionEvents {
  readonly name: string
  readonly policy: TrafficPolicy
  /** Requests in flight, requests waiting for a session, open or opening sessions, retries in flight. */
  active = 0
  pending = 0
  connections = 0
  retries = 0
  /** Its last request has been taken: whoever kept it asks for its successor. */
  drained = false
  readonly #options: ClusterOptions
  /** Requests at once on one session (maxConcurrentStreams); its peer may allow fewer. */
  readonly #streams: number
  readonly #detector: OutlierDetector | undefined
  readonly #states: HostStates
  #hosts: Host[] = []
  #balancer: Balancer
  /** Hosts that have left and still carry something. */
  readonly #draining = new Set<Host>()
  #sweptAt: number

  constructor(options: ClusterOptions) {
    this.#options = options
    this.name = options.name
    this.policy = options.policy
    this.#streams = options.policy.connectionPool?.maxConcurrentStreams || Infinity
    this.#detector = options.policy.outlierDetection && new OutlierDetector(options.policy.outlierDetection)
    this.#balancer = new Balancer(this.#algorithm(), [])
    this.#sweptAt = options.clock.monotonic()
    this.#states = {
      usable: (index) => {
        const health = this.#hosts[index]?.health
        return !health || !this.#detector || this.#detector.usable(health)
      },
      active: (index) => this.#hosts[index]?.active ?? 0,
    }
  }

  /** Sets the endpoints. Hosts that stay keep their sessions and their record; those that left drain. */
  update(candidates: readonly Candidate[]): void {
    if (sameCandidates(this.#balancer.candidates, candidates)) return
    const old = new Map(this.#hosts.map((host) => [identityOf(host.candidate), host]))
    this.#detector?.sync(candidates.map(identityOf))
    this.#hosts = candidates.map((candidate) => {
      const key = identityOf(candidate)
      const known = old.get(key)
      old.delete(key)
      return known ?? new Host(candidate, this.#detector?.host(key))
    })
    this.#balancer = new Balancer(this.#algorithm(), candidates)
    for (const host of old.values()) this.#retire(host)
  }

  /**
   * Asks for a session; undefined: it will be answered through `waiting`, maybe at once. `tried`: hosts to avoid if others
   * can be had.
   */
  acquire(waiting: Waiting, tried: readonly Host[]): Refusal | undefined {
    this.#sweep()
    const pool = this.policy.connectionPool
    if (pool?.http2MaxRequests !== undefined && this.active >= pool.http2MaxRequests) return 'overflow'
    const avoid = tried.length > 0 ? tried.map((host) => this.#hosts.indexOf(host)) : undefined
    const host = this.#hosts[this.#balancer.pick(this.#states, this.#options.random, avoid)]
    if (!host) return 'no_healthy_upstream'
    const target = host.pool(waiting.client, waiting.version)
    const ready = target.available(this.#streams)
    if (ready) {
      this.#give(ready, waiting)
      return undefined
    }
    if (pool?.http1MaxPendingRequests !== undefined && this.pending >= pool.http1MaxPendingRequests) {
      host.dropIfEmpty(target)
      return 'overflow'
    }
    waiting.pool = target
    target.waiting.push(waiting)
    this.pending++
    this.#openFor(target)
    return undefined
  }

  /** A host for an opaque connection, which counts against maxConnections until `releaseConnection`. */
  acquireConnection(): Host | Refusal {
    this.#sweep()
    const host = this.#hosts[this.#balancer.pick(this.#states, this.#options.random)]
    if (!host) return 'no_healthy_upstream'
    const max = this.policy.connectionPool?.maxConnections
    if (max !== undefined && this.connections >= max) return 'overflow'
    this.connections++
    this.active++
    host.active++
    return host
  }

  releaseConnection(host: Host): void {
    this.connections--
    this.release(host)
  }

  /** A waiting request gave up. */
  cancel(waiting: Waiting): void {
    const { pool } = waiting
    if (!pool) return
    waiting.pool = undefined
    const at = pool.waiting.indexOf(waiting)
    if (at < 0) return
    pool.waiting.splice(at, 1)
    this.pending--
    pool.host.dropIfEmpty(pool)
  }

  /** A request on a session is over. */
  release(host: Host): void {
    this.active--
    host.active--
    if (!host.current && host.active === 0 && host.sessions.size === 0) this.#draining.delete(host)
  }

  /** An HTTP status came back from a host (gRPC mapped). */
  reportStatus(host: Host, status: number): void {
    if (host.health) this.#detector?.onResponse(host.health, status, this.#options.clock.monotonic())
  }

  /** A host gave no answer. */
  reportFailure(host: Host, kind: 'connect' | 'timeout' | 'reset'): void {
    if (host.health) this.#detector?.onLocalFailure(host.health, kind, this.#options.clock.monotonic())
  }

  get ejected(): number {
    return this.#detector?.ejected ?? 0
  }

  get hosts(): readonly Host[] {
    return this.#hosts
  }

  /** Closes sessions that have been idle too long or are surplus, and lets those that are too old end. Called every few seconds. */
  closeIdle(): void {
    const { idleTimeoutMs = DEFAULT_IDLE_TIMEOUT_MS, maxConnectionDurationMs = 0 } = this.policy.connectionPool ?? {}
    const now = this.#options.clock.monotonic()
    for (const host of this.#hosts) {
      for (const pool of host.pools()) {
        let surplus = pool.sessions.size - MAX_IDLE_PER_POOL
        for (const pooled of pool.sessions) {
          if (!pooled.opened || pooled.draining) continue
          if (pooled.used || pooled.session.active > 0) {
            pooled.used = false
            pooled.idleSince = now
          }
          const idle = pooled.session.active === 0 ? now - pooled.idleSince : -1
          // 0 switches it off (DestinationRule http.idleTimeout).
          if ((idleTimeoutMs > 0 && idle >= idleTimeoutMs) || (surplus > 0 && idle > 0)) {
            surplus--
            this.#drain(pooled)
          } else if (maxConnectionDurationMs > 0 && now - pooled.openedAt >= maxConnectionDurationMs)
            this.#drain(pooled)
        }
      }
    }
    this.#sweep()
  }

  /** Lets running requests end, then closes everything. */
  drain(): void {
    this.drained = true
    for (const host of this.#hosts) this.#retire(host)
    this.#hosts = []
    this.#balancer = new Balancer(this.#algorithm(), [])
  }

  // --- SessionEvents: `slot` of every session is its Pooled.

  onAvailable(session: ClientSession): void {
    const pooled = session.slot as Pooled
    const { pool } = pooled
    if (pool.offer(pooled)) pooled.openedAt = this.#options.clock.monotonic()
    while (pool.waiting.length > 0 && !pooled.draining && session.available > 0 && session.active < this.#streams) {
      const waiting = pool.waiting.shift() as Waiting
      waiting.pool = undefined
      this.pending--
      this.#give(pooled, waiting)
    }
    if (this.pending === 0) return
    // More waited for this session than it may carry.
    if (pool.waiting.length > 0) this.#openFor(pool)
    if (session.active > 0 || session.available === 0) return
    // At the limit an idle session gives its place to whoever waits for one of another client or host.
    if (this.connections >= this.#maxConnections()) session.close()
  }

  onDraining(session: ClientSession): void {
    const pooled = session.slot as Pooled
    pooled.draining = true
    this.#replace(pooled.pool)
  }

  onClose(session: ClientSession, error: Error | undefined): void {
    const pooled = session.slot as Pooled | null
    if (!pooled) return
    const { pool } = pooled
    const { host } = pool
    host.sessions.delete(pooled)
    pool.remove(pooled)
    this.connections--
    if (!host.current && host.active === 0 && host.sessions.size === 0) this.#draining.delete(host)
    if (pooled.opened) this.#replace(pool)
    else {
      const timeout = error !== undefined && 'code' in error && String(error.code).includes('TIMEOUT')
      this.reportFailure(host, 'connect')
      // Only as many fail as this session was for: others wait for sessions that are still opening.
      const fails = pool.connecting === 0 ? pool.waiting.length : Math.min(1, pool.waiting.length)
      for (const next of pool.waiting.splice(0, fails)) {
        next.pool = undefined
        this.pending--
        next.onNoSession(host, timeout ? 'timeout' : 'connect', error?.message ?? 'closed before it was open')
      }
    }
    host.dropIfEmpty(pool)
    this.#pump()
  }

  #algorithm(): NonNullable<TrafficPolicy['loadBalancer']> {
    return this.policy.loadBalancer ?? 'LEAST_REQUEST'
  }

  #give(pooled: Pooled, waiting: Waiting): void {
    const { host } = pooled.pool
    this.active++
    host.active++
    pooled.requests++
    pooled.used = true
    const limit = this.policy.connectionPool?.maxRequestsPerConnection ?? 0
    waiting.onSession(pooled.session, host)
    if (limit > 0 && pooled.requests >= limit) this.#drain(pooled)
  }

  /** Takes no more requests; closes when the last one ends, at once if there is none. */
  #drain(pooled: Pooled): void {
    if (pooled.draining) return
    pooled.draining = true
    pooled.session.drain()
  }

  /** Opens one more session if those who wait need it and the limits allow it. */
  #openFor(pool: Pool): void {
    const { host } = pool
    const [first] = pool.waiting
    // HTTP/2 sessions multiplex: one that opens will serve all who wait.
    if (!first || !pool.unserved) return
    // A host without any session may have one over the limit, else it could never be reached (as Envoy does).
    if (this.connections >= this.#maxConnections() && host.sessions.size > 0) {
      this.#evictIdle()
      return
    }
    this.connections++
    const timeout = this.policy.connectionPool?.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS
    const session = this.#options.open(host.candidate, first, timeout, this)
    const pooled = new Pooled(pool, session)
    session.slot = pooled
    host.sessions.add(pooled)
    pool.add(pooled)
  }

  #maxConnections(): number {
    return this.policy.connectionPool?.maxConnections ?? Number.POSITIVE_INFINITY
  }

  /** Closes one idle session: sessions are never shared between clients, so one client's idle ones could starve another. */
  #evictIdle(): void {
    for (const host of this.#hosts) {
      for (const pooled of host.sessions) {
        if (!pooled.opened || pooled.draining || pooled.session.active > 0) continue
        pooled.draining = true
        pooled.session.close()
        return
      }
    }
  }

  /** A place came free: opens sessions for those who could not have one. */
  #pump(): void {
    if (this.pending === 0) return
    for (const host of this.#hosts) {
      for (const pool of host.pools()) {
        if (this.connections >= this.#maxConnections()) return
        if (pool.unserved) this.#openFor(pool)
      }
    }
  }

  /** A session went or takes no more: those who wait for its pool need another. */
  #replace(pool: Pool): void {
    if (pool.waiting.length > 0 && !pool.available(this.#streams)) this.#openFor(pool)
  }

  #retire(host: Host): void {
    host.current = false
    for (const pool of host.pools()) {
      for (const waiting of pool.waiting.splice(0)) {
        waiting.pool = undefined
        this.pending--
        waiting.onNoSession(host, 'connect', 'the endpoint has left')
      }
    }
    if (host.sessions.size > 0 || host.active > 0) this.#draining.add(host)
    for (const pooled of host.sessions) this.#drain(pooled)
  }

  #sweep(): void {
    const detector = this.#detector
    if (!detector) return
    const now = this.#options.clock.monotonic()
    if (now - this.#sweptAt < detector.settings.intervalMs) return
    this.#sweptAt = now
    detector.sweep(now)
  }
}

function identityOf(candidate: Candidate): string {
  return `${candidate.workload.uid} ${candidate.address} ${candidate.port}`
}

function sameCandidates(a: readonly Candidate[], b: readonly Candidate[]): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) {
    const one = a[i] as Candidate
    const other = b[i] as Candidate
    if (one.workload !== other.workload || one.rank !== other.rank || one.port !== other.port) return false
  }
  return true
}
