// One endpoint of a cluster with the HTTP sessions to it. Sessions in tunnels are pooled by original client and HTTP version,
// because the app sees the client a tunnel was opened for: such a session is never shared between two clients. An endpoint
// without HBONE sees the waypoint anyhow: its sessions serve all.
// Must not live here: choosing a host, limits of the cluster (cluster.ts), how a session is made (sessions.ts).
import type { ClientSession } from '../../http/message.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { HostHealth } from '../../mesh/outlier.ts'
import type { Candidate } from '../../mesh/pick-endpoint.ts'

/** A request that asks for a session. The cluster answers with exactly one of the two calls, unless it was cancelled. */
export interface Waiting {
  readonly client: Endpoint
  readonly version: 1 | 2
  /** The session has room; the request must be started before this returns. */
  onSession(session: ClientSession, host: Host): void
  /** No session could be had from the chosen host. */
  onNoSession(host: Host, kind: 'connect' | 'timeout', message: string): void
}

/** A session in a pool: the `slot` of the ClientSession. */
export interface Pooled {
  readonly host: Host
  readonly key: string
  /** It has been available once: a close before that is a failed connect. */
  opened: boolean
  draining: boolean
  requests: number
  /** Monotonic time since which it has been idle; 0: never used yet. */
  idleSince: number
  readonly session: ClientSession
}

export class Host {
  readonly candidate: Candidate
  readonly health: HostHealth | undefined
  active = 0
  /** False once the endpoint has left: nothing new goes to it. */
  current = true
  readonly sessions = new Set<Pooled>()
  readonly #pools = new Map<string, Pooled[]>()
  readonly #waiting = new Map<string, Waiting[]>()

  constructor(candidate: Candidate, health: HostHealth | undefined) {
    this.candidate = candidate
    this.health = health
  }

  add(pooled: Pooled): void {
    this.sessions.add(pooled)
    const pool = this.#pools.get(pooled.key)
    if (pool) pool.push(pooled)
    else this.#pools.set(pooled.key, [pooled])
  }

  remove(pooled: Pooled): void {
    this.sessions.delete(pooled)
    const pool = this.#pools.get(pooled.key)
    if (!pool) return
    const at = pool.indexOf(pooled)
    if (at >= 0) pool.splice(at, 1)
    if (pool.length === 0) this.#pools.delete(pooled.key)
  }

  /** A session with room; the most recently used first, so that surplus ones grow idle and go. */
  available(key: string): Pooled | undefined {
    const pool = this.#pools.get(key)
    if (!pool) return undefined
    for (let i = pool.length - 1; i >= 0; i--) {
      const pooled = pool[i] as Pooled
      if (!pooled.draining && pooled.session.available > 0) return pooled
    }
    return undefined
  }

  /** Sessions of a pool that are still being opened. */
  connecting(key: string): number {
    let count = 0
    for (const pooled of this.#pools.get(key) ?? []) if (!pooled.opened) count++
    return count
  }

  poolSize(key: string): number {
    return this.#pools.get(key)?.length ?? 0
  }

  enqueue(key: string, waiting: Waiting): void {
    const queue = this.#waiting.get(key)
    if (queue) queue.push(waiting)
    else this.#waiting.set(key, [waiting])
  }

  dequeue(key: string): Waiting | undefined {
    const queue = this.#waiting.get(key)
    const first = queue?.shift()
    if (queue?.length === 0) this.#waiting.delete(key)
    return first
  }

  waiting(key: string): number {
    return this.#waiting.get(key)?.length ?? 0
  }

  /** A request that waits although no session is being opened for it. */
  unserved(): { readonly key: string; readonly waiting: Waiting } | undefined {
    for (const [key, queue] of this.#waiting) {
      const first = queue[0]
      if (!first) continue
      const connecting = this.connecting(key)
      if (first.version === 2 ? connecting === 0 : connecting < queue.length) return { key, waiting: first }
    }
    return undefined
  }

  /** Takes a request out of the queue; false if it was not in it. */
  withdraw(key: string, waiting: Waiting): boolean {
    const queue = this.#waiting.get(key)
    const at = queue ? queue.indexOf(waiting) : -1
    if (!queue || at < 0) return false
    queue.splice(at, 1)
    if (queue.length === 0) this.#waiting.delete(key)
    return true
  }

  /** Every waiting request with its pool, emptied. */
  takeWaiting(): Waiting[] {
    const all = [...this.#waiting.values()].flat()
    this.#waiting.clear()
    return all
  }
}

/** Which pool of an endpoint a request takes its session from. */
export function poolKey(candidate: Candidate, client: Endpoint, version: 1 | 2): string {
  if (candidate.workload.tunnelProtocol !== 'HBONE') return version === 2 ? '2' : '1'
  return `${version} ${client.address}`
}
