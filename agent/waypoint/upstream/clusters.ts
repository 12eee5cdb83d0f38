// The clusters in use, by service, port and subset, kept current with the mesh state. A cluster lives as long as its
// policy: when the policy changes a new one takes over and the old one drains. Must not live here: requests, sessions.
import type { Clock, Timer } from '../../base/clock.ts'
import type { Place } from '../../mesh/localize.ts'
import { listCandidates, type Candidate } from '../../mesh/pick-endpoint.ts'
import { serviceKey, type Service } from '../../mesh/service.ts'
import type { MeshState } from '../../mesh/state.ts'
import { subsetOf, trafficPolicyOf } from '../../mesh/traffic-policy.ts'
import type { TrafficPolicy } from '../../mesh/upstream.ts'
import { addressLike } from '../../mesh/localize.ts'
import type { Workload } from '../../mesh/workload.ts'
import { Cluster, type OpenSession } from './cluster.ts'

export interface ClustersOptions {
  readonly state: MeshState
  /** Where this waypoint is, for locality. */
  readonly place: Place
  readonly open: OpenSession
  readonly clock: Clock
  readonly random: () => number
}

/** Idle sessions and ejections are looked at this often. */
const SWEEP_MS = 5_000
/** Changes of the mesh state mostly come several at once. */
const REFRESH_MS = 50
/** Bound on clusters: services × ports × subsets × client namespaces in use; the least recently made idle ones go first. */
const MAX_CLUSTERS = 10_000

interface Entry {
  readonly cluster: Cluster
  readonly policyText: string
  version: number
  /** Brings it up to date; false where what it stands for is gone. */
  readonly renew: () => boolean
}

export class Clusters {
  readonly #options: ClustersOptions
  readonly #entries = new Map<string, Entry>()
  #timer: Timer | undefined
  #refresh: Timer | undefined

  constructor(options: ClustersOptions) {
    this.#options = options
    this.#schedule()
  }

  /** The cluster of a service port as clients of a namespace use it. 'no_subset': the subset is not defined. */
  forService(service: Service, port: number, subset: string, consumerNamespace: string): Cluster | 'no_subset' {
    const { state } = this.#options
    const key = `${serviceKey(service)} ${port} ${subset} ${consumerNamespace}`
    const known = this.#entries.get(key)
    if (known?.version === state.version) return known.cluster
    const upstream = state.upstream(serviceKey(service), consumerNamespace)
    const found = subset === '' ? undefined : subsetOf(upstream, subset)
    if (subset !== '' && !found) return 'no_subset'
    const candidates = listCandidates(state, service, port, {
      subset: found?.labels,
      client: this.#options.place,
      like: service.addresses[0] ?? '',
    })
    const name = `outbound|${port}|${subset}|${service.hostname}`
    return this.#current(key, name, trafficPolicyOf(upstream, found, port), candidates, () => {
      const now = state.service(serviceKey(service))
      return now !== undefined && this.forService(now, port, subset, consumerNamespace) !== 'no_subset'
    })
  }

  /** The cluster of a pod that was dialled by its own address. */
  forWorkload(workload: Workload, address: string, port: number): Cluster {
    const key = `${workload.uid} ${address} ${port}`
    const known = this.#entries.get(key)
    if (known?.version === this.#options.state.version) return known.cluster
    const candidate: Candidate = {
      workload,
      address: workload.addresses.includes(address) ? address : (addressLike(workload, address) ?? address),
      port,
      weight: 1,
      rank: 0,
    }
    return this.#current(key, `inbound|${port}||${workload.name}`, {}, [candidate], () => {
      const now = this.#options.state.workload(workload.uid)
      if (now) this.forWorkload(now, address, port)
      return now !== undefined
    })
  }

  /** Every cluster, for metrics and the dump. */
  all(): Iterable<Cluster> {
    return [...this.#entries.values()].map((entry) => entry.cluster)
  }

  /**
   * The mesh state has changed: endpoints that left drain now, not with the next request. Costs a listing of endpoints for
   * every cluster in use, so it waits for a quiet moment, at most REFRESH_MS.
   */
  refresh(): void {
    this.#refresh ??= this.#options.clock.after(
      REFRESH_MS,
      () => {
        this.#refresh = undefined
        for (const [key, entry] of this.#entries) {
          if (entry.version === this.#options.state.version || entry.renew()) continue
          entry.cluster.drain()
          this.#entries.delete(key)
        }
      },
      true,
    )
  }

  drain(): void {
    this.#refresh?.cancel()
    this.#timer?.cancel()
    for (const entry of this.#entries.values()) entry.cluster.drain()
    this.#entries.clear()
  }

  #current(
    key: string,
    name: string,
    policy: TrafficPolicy,
    candidates: readonly Candidate[],
    renew: () => boolean,
  ): Cluster {
    const policyText = JSON.stringify(policy)
    let entry = this.#entries.get(key)
    if (entry?.policyText !== policyText) {
      entry?.cluster.drain()
      if (!entry && this.#entries.size >= MAX_CLUSTERS) this.#evict()
      const { open, clock, random } = this.#options
      entry = { cluster: new Cluster({ name, policy, open, clock, random }), policyText, version: -1, renew }
      this.#entries.set(key, entry)
    }
    entry.version = this.#options.state.version
    entry.cluster.update(candidates)
    return entry.cluster
  }

  #evict(): void {
    for (const [key, entry] of this.#entries) {
      if (entry.cluster.active > 0 || entry.cluster.pending > 0) continue
      entry.cluster.drain()
      this.#entries.delete(key)
      return
    }
  }

  #schedule(): void {
    this.#timer = this.#options.clock.after(
      SWEEP_MS,
      () => {
        for (const entry of this.#entries.values()) entry.cluster.closeIdle()
        this.#schedule()
      },
      true,
    )
  }
}
