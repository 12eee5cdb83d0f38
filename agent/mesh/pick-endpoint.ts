// Which endpoint of a service takes a request at a waypoint: the candidates (health, subset, locality, ports) are listed
// when endpoints change, one of them is picked per request. Randomness and the state of hosts come from the caller.
// Must not live here: ejection (outlier.ts), limits and pools (waypoint/upstream), the agent's choice (resolve.ts).
import { selects } from './applicable.ts'
import { addressLike, nearness, targetPortOf, type Place } from './localize.ts'
import type { Service } from './service.ts'
import type { MeshView } from './state.ts'
import type { TrafficPolicy } from './upstream.ts'
import type { Workload } from './workload.ts'

export interface Candidate {
  readonly workload: Workload
  readonly address: string
  /** The port the app listens on. */
  readonly port: number
  readonly weight: number
  /** Preferences of the service it does not meet; 0 is nearest. */
  readonly rank: number
}

export interface CandidateOptions {
  /** Labels of the subset; absent: every endpoint. */
  readonly subset?: Readonly<Record<string, string>> | undefined
  /** Where the waypoint is. */
  readonly client: Place
  /** An address whose family is preferred. */
  readonly like?: string
}

/** The usable endpoints of a service port, nearest first, then by uid. Empty: 503 `no healthy upstream`. */
export function listCandidates(
  view: MeshView,
  service: Service,
  port: number,
  options: CandidateOptions,
): readonly Candidate[] {
  const { subset, client, like = '' } = options
  const preference = service.routingPreference
  const found: Candidate[] = []
  for (const workload of view.endpoints(`${service.namespace}/${service.hostname}`)) {
    if (!workload.healthy && !service.allowUnhealthy) continue
    if (subset && !selects(subset, workload.labels)) continue
    const rank = preference.length - nearness(preference, client, workload)
    if (rank > 0 && service.loadBalancing === 'STRICT') continue
    const target = targetPortOf(workload, service, port)
    const address = addressLike(workload, like)
    if (target === 0 || address === undefined) continue
    found.push({ workload, address, port: target, weight: Math.max(0, workload.capacity), rank })
  }
  // Endpoints come in order of uid and sorting is stable.
  return found.sort((a, b) => a.rank - b.rank)
}

/** What the caller knows of the hosts, by index into the candidates. */
export interface HostStates {
  /** Not ejected, and has room. */
  usable(index: number): boolean
  /** Requests in flight. */
  active(index: number): number
}

export type Algorithm = NonNullable<TrafficPolicy['loadBalancer']>

interface Group {
  readonly start: number
  readonly end: number
  readonly total: number
  readonly equal: boolean
}

/** Re-selections to avoid a host that was tried already, as Istio's hostSelectionRetryMaxAttempts. */
const RESELECT = 5

/**
 * Picks among fixed candidates. Nearer groups first: a farther one only while no host of the nearer is usable.
 * LEAST_REQUEST: the less loaded of two random ones; PASSTHROUGH has no dialled endpoint at a waypoint and is RANDOM.
 */
export class Balancer {
  readonly candidates: readonly Candidate[]
  readonly algorithm: Algorithm
  readonly #groups: Group[] = []
  /** ROUND_ROBIN: the next index for equal weights, running scores for unequal ones. */
  readonly #cursors: number[] = []
  readonly #scores: Float64Array

  constructor(algorithm: Algorithm, candidates: readonly Candidate[]) {
    this.algorithm = algorithm
    this.candidates = candidates
    this.#scores = new Float64Array(candidates.length)
    for (let start = 0; start < candidates.length;) {
      const { rank, weight } = candidates[start] as Candidate
      let end = start
      let total = 0
      let equal = true
      for (; end < candidates.length && (candidates[end] as Candidate).rank === rank; end++) {
        total += (candidates[end] as Candidate).weight
        if ((candidates[end] as Candidate).weight !== weight) equal = false
      }
      this.#groups.push({ start, end, total, equal: equal || total === 0 })
      this.#cursors.push(start)
      start = end
    }
  }

  /** Index of the chosen candidate, −1 if none is usable. `tried`: indexes to avoid if another can be had. */
  pick(hosts: HostStates, random: () => number, tried?: readonly number[]): number {
    let chosen = this.#once(hosts, random)
    if (tried !== undefined && tried.length > 0) {
      for (let i = 0; i < RESELECT && chosen >= 0 && tried.includes(chosen); i++) chosen = this.#once(hosts, random)
    }
    return chosen
  }

  #once(hosts: HostStates, random: () => number): number {
    for (let i = 0; i < this.#groups.length; i++) {
      const group = this.#groups[i] as Group
      const chosen =
        this.algorithm === 'ROUND_ROBIN'
          ? this.#roundRobin(group, i, hosts)
          : this.algorithm === 'LEAST_REQUEST'
            ? this.#leastRequest(group, hosts, random)
            : this.#sample(group, hosts, random)
      if (chosen >= 0) return chosen
    }
    return -1
  }

  #roundRobin(group: Group, groupIndex: number, hosts: HostStates): number {
    const size = group.end - group.start
    if (group.equal) {
      const from = this.#cursors[groupIndex] as number
      for (let i = 0; i < size; i++) {
        const index = group.start + ((from - group.start + i) % size)
        if (!hosts.usable(index)) continue
        this.#cursors[groupIndex] = index + 1 === group.end ? group.start : index + 1
        return index
      }
      return -1
    }
    // Smooth weighted round robin: each usable host gains its weight, the highest score goes and pays the sum.
    let best = -1
    let total = 0
    for (let index = group.start; index < group.end; index++) {
      const { weight } = this.candidates[index] as Candidate
      if (weight === 0 || !hosts.usable(index)) continue
      total += weight
      const score = (this.#scores[index] as number) + weight
      this.#scores[index] = score
      if (best < 0 || score > (this.#scores[best] as number)) best = index
    }
    if (best >= 0) this.#scores[best] = (this.#scores[best] as number) - total
    return best
  }

  #leastRequest(group: Group, hosts: HostStates, random: () => number): number {
    const first = this.#sample(group, hosts, random)
    if (first < 0 || group.end - group.start === 1) return first
    const second = this.#sample(group, hosts, random)
    return this.#load(second, hosts) < this.#load(first, hosts) ? second : first
  }

  #load(index: number, hosts: HostStates): number {
    return (hosts.active(index) + 1) / ((this.candidates[index] as Candidate).weight || 1)
  }

  /** A usable host by weight. Tries a few draws, then walks on from the last one, so that it ends whatever is usable. */
  #sample(group: Group, hosts: HostStates, random: () => number): number {
    let index = -1
    for (let draw = 0; draw < 4; draw++) {
      index = this.#draw(group, random())
      if (hosts.usable(index)) return index
    }
    const size = group.end - group.start
    for (let i = 1; i < size; i++) {
      const next = group.start + ((index - group.start + i) % size)
      if (hosts.usable(next) && (group.equal || (this.candidates[next] as Candidate).weight > 0)) return next
    }
    return -1
  }

  #draw(group: Group, at: number): number {
    if (group.equal) return Math.min(group.end - 1, group.start + Math.floor(at * (group.end - group.start)))
    let left = at * group.total
    for (let index = group.start; index < group.end; index++) {
      left -= (this.candidates[index] as Candidate).weight
      if (left < 0) return index
    }
    return group.end - 1
  }
}
