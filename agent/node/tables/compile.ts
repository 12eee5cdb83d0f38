// What the kernel's tables say of one address: the state in the words of rows. Pure; what is not certain to be right for every
// captured pod of this node is the agent's. Must not live here: when rows are written (sync.ts), verdicts (mesh/tabulate.ts).
import type { Endpoint } from '../../io/connection.ts'
import { addressLike, nearness, targetPortOf, type Place } from '../../mesh/localize.ts'
import { usableEndpoints } from '../../mesh/resolve.ts'
import type { Service } from '../../mesh/service.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { AddressRow, ServiceRow } from '../redirect/contract.ts'

/** Slots of one port of a service, also those that weights need. A service with more is the agent's. */
export const MAX_SLOTS = 4_096

/** What rows say depends on where they are read: this node and its captured pods. */
export interface Here {
  /** Where the node's pods are; undefined while none is known: what depends on it is the agent's. */
  readonly place: Place | undefined
  /** Uid of the captured pod that has this address and is this workload. */
  podAt(address: string, workload: Workload): string | undefined
}

/** The row of an address; undefined where the mesh does not know it. */
export function addressRow(view: MeshView, here: Here, address: string): AddressRow | undefined {
  // A port that the service does not have is the agent's to refuse.
  if (view.servicesByAddress(address).length > 0) return { address, class: 'agent' }
  const workload = view.workloadByAddress(address)
  if (!workload) return undefined
  // Refused there, or led through a waypoint.
  if (here.place?.network !== workload.network || workload.waypoint) return { address, class: 'agent' }
  if (workload.tunnelProtocol === 'NONE') return { address, class: 'plain' }
  const pod = workload.sameNode === 'direct' ? here.podAt(address, workload) : undefined
  return pod === undefined ? { address, class: 'agent' } : { address, class: 'direct', pod }
}

/** The rows of a service's address: ports that the kernel may balance. The address's own row leads the others to the agent. */
export function serviceRows(view: MeshView, here: Here, address: string): readonly ServiceRow[] {
  const services = view.servicesByAddress(address)
  const [service] = services
  // Whose address it is depends on the client's namespace where services share it.
  if (!service || services.length > 1 || service.waypoint || service.loadBalancing === 'PASSTHROUGH') return []
  const rows: ServiceRow[] = []
  for (const { port } of service.ports) {
    const backends = backendsOf(view, here, service, address, port)
    if (!backends) continue
    rows.push({ address, port, kind: 'balanced', backends, affinitySeconds: service.sessionAffinitySeconds })
  }
  return rows
}

/** The nearest usable endpoints, each as often as its weight says; undefined where the agent must choose. */
function backendsOf(
  view: MeshView,
  here: Here,
  service: Service,
  address: string,
  port: number,
): readonly Endpoint[] | undefined {
  const { place } = here
  if (!place) return undefined
  let best = 0
  let nearest: Workload[] = []
  for (const workload of usableEndpoints(view, service, port, place).workloads) {
    const rank = nearness(service.routingPreference, place, workload)
    if (rank < best) continue
    if (rank > best) nearest = []
    best = rank
    nearest.push(workload)
  }
  const shares = sharesOf(nearest)
  if (!shares) return undefined
  const backends: Endpoint[] = []
  for (const [index, workload] of nearest.entries()) {
    const share = shares[index] as number
    if (share === 0) continue
    const target = addressLike(workload, address)
    if (target === undefined) return undefined
    // Another workload has claimed the address meanwhile: who is there is not who is meant. A node's is nobody's.
    if (!workload.hostNetwork && view.workloadByAddress(target) !== workload) return undefined
    const endpoint = { address: target, port: targetPortOf(workload, service, port) }
    for (let i = 0; i < share; i++) backends.push(endpoint)
  }
  return backends
}

/** How many slots each gets; undefined if there is nobody, or more than fit. */
function sharesOf(workloads: readonly Workload[]): readonly number[] | undefined {
  let divisor = 0
  let total = 0
  for (const { capacity } of workloads) {
    divisor = gcd(divisor, capacity)
    total += capacity
  }
  if (divisor === 0 || total / divisor > MAX_SLOTS) return undefined
  return workloads.map(({ capacity }) => capacity / divisor)
}

function gcd(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b]
  return a
}
