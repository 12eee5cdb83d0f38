// The HTTP sessions to one endpoint of one HTTP version on behalf of one client (or of all, where the endpoint cannot tell
// them apart), and the requests that wait for one. Must not live here: limits (cluster.ts), how a session is made (sessions.ts).
import type { ClientSession } from '../../http/message.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { Host } from './host.ts'

/** A request that asks for a session. The cluster answers with exactly one of the two calls, unless it was cancelled. */
export interface Waiting {
  readonly client: Endpoint
  readonly version: 1 | 2
  /** Where it waits; the cluster's own. */
  pool: Pool | undefined
  /** The session has room; the request must be started before this returns. */
  onSession(session: ClientSession, host: Host): void
  /** No session could be had from the chosen host. */
  onNoSession(host: Host, kind: 'connect' | 'timeout', message: string): void
}

/** A session in a pool: the `slot` of the ClientSession. */
export class Pooled {
  readonly pool: Pool
  readonly session: ClientSession
  /** It has been available once: a close before that is a failed connect. */
  opened = false
  draining = false
  /** It stands in the pool's `ready`. */
  listed = false
  requests = 0
  /** Monotonic time; 0: not yet. */
  openedAt = 0
  /** Used since the last look of the sweep, which says since when it is idle: so that a request reads no clock for it. */
  used = true
  idleSince = 0

  constructor(pool: Pool, session: ClientSession) {
    this.pool = pool
    this.session = session
  }
}

export class Pool {
  readonly host: Host
  readonly version: 1 | 2
  /** Address of the client, '' where the pool serves all. */
  readonly client: string
  readonly sessions = new Set<Pooled>()
  readonly waiting: Waiting[] = []
  /** Sessions that are still being opened. */
  connecting = 0
  /** Sessions that had room when last heard of, most recently used last: surplus ones grow idle at the front and go. */
  readonly #ready: Pooled[] = []

  constructor(host: Host, version: 1 | 2, client: string) {
    this.host = host
    this.version = version
    this.client = client
  }

  get empty(): boolean {
    return this.sessions.size === 0 && this.waiting.length === 0
  }

  add(pooled: Pooled): void {
    this.sessions.add(pooled)
    this.connecting++
  }

  /** The session can be used. True the first time. */
  offer(pooled: Pooled): boolean {
    const first = !pooled.opened
    if (first) {
      pooled.opened = true
      this.connecting--
    }
    if (!pooled.listed && !pooled.draining) {
      pooled.listed = true
      this.#ready.push(pooled)
    }
    return first
  }

  remove(pooled: Pooled): void {
    this.sessions.delete(pooled)
    if (!pooled.opened) this.connecting--
    if (!pooled.listed) return
    pooled.listed = false
    const at = this.#ready.lastIndexOf(pooled)
    if (at >= 0) this.#ready.splice(at, 1)
  }

  /** A session with room, the most recently used first. `streams`: requests at once that a session may carry. */
  available(streams: number): Pooled | undefined {
    const ready = this.#ready
    for (let i = ready.length - 1; i >= 0; i--) {
      const pooled = ready[i] as Pooled
      if (!pooled.draining && pooled.session.available > 0 && pooled.session.active < streams) return pooled
      pooled.listed = false
      ready.pop()
    }
    return undefined
  }

  /** Requests wait for whom no session is being opened. */
  get unserved(): boolean {
    if (this.waiting.length === 0) return false
    return this.version === 2 ? this.connecting === 0 : this.connecting < this.waiting.length
  }
}
