// One endpoint of a cluster with its pools. In tunnels sessions are pooled by original client, because the app sees the client
// a tunnel was opened for: such a session is never shared between two clients. An endpoint without HBONE sees the waypoint
// anyhow: its sessions serve all. Must not live here: choosing a host, limits (cluster.ts), sessions (pool.ts).
import type { Endpoint } from '../../io/connection.ts'
import type { HostHealth } from '../../mesh/outlier.ts'
import type { Candidate } from '../../mesh/pick-endpoint.ts'
import { joinHostPort } from '../../base/ip.ts'
import type { OutcomePart } from '../filter/access-line.ts'
import { Pool, type Pooled } from './pool.ts'

export class Host {
  readonly candidate: Candidate
  readonly address: string
  readonly health: HostHealth | undefined
  active = 0
  /** False once the endpoint has left: nothing new goes to it. */
  current = true
  readonly sessions = new Set<Pooled>()
  /** Parts of access lines (filter/access-line.ts). */
  readonly outcomes: OutcomePart[] = []
  readonly #shared: boolean
  readonly #http1 = new Map<string, Pool>()
  readonly #http2 = new Map<string, Pool>()

  constructor(candidate: Candidate, health: HostHealth | undefined) {
    this.candidate = candidate
    this.address = joinHostPort(candidate.address, candidate.port)
    this.health = health
    this.#shared = candidate.workload.tunnelProtocol !== 'HBONE'
  }

  /** The pool a client's requests take their sessions from. */
  pool(client: Endpoint, version: 1 | 2): Pool {
    const pools = version === 2 ? this.#http2 : this.#http1
    const key = this.#shared ? '' : client.address
    let pool = pools.get(key)
    if (!pool) pools.set(key, (pool = new Pool(this, version, key)))
    return pool
  }

  *pools(): Iterable<Pool> {
    yield* this.#http1.values()
    yield* this.#http2.values()
  }

  /** Forgets a pool that has nothing in it: clients come and go. */
  dropIfEmpty(pool: Pool): void {
    if (pool.empty) (pool.version === 2 ? this.#http2 : this.#http1).delete(pool.client)
  }
}
