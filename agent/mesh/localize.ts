// How near a workload is to its client, in the words of a service's routing preference, and the weighted choice among
// the nearest. Must not live here: balancing by load (pick-endpoint.ts), what a choice leads to (resolve.ts).
import type { Service } from './service.ts'
import type { Workload } from './workload.ts'

/** Where a client is: what preferences compare. */
export interface Place {
  readonly network: string
  readonly clusterId: string
  readonly node: string
  readonly locality: { readonly region: string; readonly zone: string; readonly subzone: string }
}

/** How many leading preferences hold; the higher the better. All hold: `preference.length`. */
export function nearness(preference: Service['routingPreference'], client: Place, workload: Place): number {
  for (let i = 0; i < preference.length; i++) {
    if (!holds(preference[i] as Service['routingPreference'][number], client, workload)) return i
  }
  return preference.length
}

function holds(scope: Service['routingPreference'][number], client: Place, workload: Place): boolean {
  const here = client.locality
  const there = workload.locality
  switch (scope) {
    case 'NETWORK':
      return client.network === workload.network
    case 'CLUSTER':
      return client.clusterId === workload.clusterId
    case 'REGION':
      return here.region === there.region
    case 'ZONE':
      return here.region === there.region && here.zone === there.zone
    case 'SUBZONE':
      return here.region === there.region && here.zone === there.zone && here.subzone === there.subzone
    case 'NODE':
      return client.node !== '' && client.node === workload.node
  }
}

/** Nearest waypoint first: own node, then zone, then region. */
export const WAYPOINT_PREFERENCE: Service['routingPreference'] = ['REGION', 'ZONE', 'NODE']

/** One of the candidates with the highest rank, by capacity; undefined if there is none. `random` in [0,1). */
export function pickNearest(
  candidates: readonly Workload[],
  rank: (workload: Workload) => number,
  random: () => number,
): Workload | undefined {
  let best = -1
  let total = 0
  for (const candidate of candidates) {
    const value = rank(candidate)
    if (value < best || value < 0) continue
    if (value > best) {
      best = value
      total = 0
    }
    total += candidate.capacity
  }
  if (best < 0) return undefined
  let left = random() * total
  let last: Workload | undefined
  for (const candidate of candidates) {
    if (rank(candidate) !== best) continue
    last = candidate
    left -= candidate.capacity
    if (left < 0) return candidate
  }
  // Only capacities of zero, or rounding: the last of the best.
  return last
}

/** The address of a workload in the family of `like`, else its first; undefined for a workload without addresses. */
export function addressLike(workload: Workload, like: string): string | undefined {
  const six = like.includes(':')
  for (const address of workload.addresses) if (address.includes(':') === six) return address
  return workload.addresses[0]
}

/** The port a workload serves a service's port on; 0 if it does not. */
export function targetPortOf(workload: Workload, service: Service, port: number): number {
  const own = workload.services[`${service.namespace}/${service.hostname}`]?.[port]
  if (own !== undefined && own > 0) return own
  return service.ports.find((candidate) => candidate.port === port)?.targetPort ?? 0
}
