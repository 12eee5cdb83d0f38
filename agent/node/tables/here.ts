// The captured pods of this node as the tables see them: which workload each is, where they are, and which of them the kernel
// may decide for. Must not live here: whether a pod is captured (../enroll).
import { sameIdentity } from '../../mesh/identity.ts'
import type { Place } from '../../mesh/localize.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { CapturedPod } from '../../mesh/tabulate.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { workloadOf } from '../enroll/wanted.ts'
import type { Here } from './compile.ts'

/**
 * The pods whose workloads are known, in a stable order. A pod that is elsewhere than the first of them (another network,
 * another zone: there is no such node) is left to the agent, so that one table of endpoints is right for all.
 */
export class Neighbours implements Here {
  readonly place: Place | undefined
  readonly pods: readonly CapturedPod[]
  readonly #byAddress = new Map<string, CapturedPod>()

  constructor(state: MeshState, node: string, captured: Iterable<RegisteredPod>) {
    const pods: CapturedPod[] = []
    for (const pod of captured) {
      const workload = workloadOf(state, node, pod)
      if (workload) pods.push({ uid: pod.uid, addresses: pod.addresses, workload })
    }
    pods.sort((a, b) => (a.uid < b.uid ? -1 : 1))
    this.place = placeOf(pods[0]?.workload ?? anyOf(state, node))
    this.pods = pods.filter(({ workload }) => samePlace(this.place, placeOf(workload)))
    for (const pod of this.pods) for (const address of pod.addresses) this.#byAddress.set(address, pod)
  }

  podAt(address: string, workload: Workload): string | undefined {
    const pod = this.#byAddress.get(address)
    return pod?.workload === workload ? pod.uid : undefined
  }
}

/** Before the first pod comes, any workload tells where the node is. */
function anyOf(state: MeshState, node: string): Workload | undefined {
  for (const workload of state.workloads())
    if (workload.node === node && workload.tunnelProtocol === 'HBONE') return workload
  return undefined
}

function placeOf(workload: Workload | undefined): Place | undefined {
  if (!workload) return undefined
  const { network, clusterId, node, locality } = workload
  return { network, clusterId, node, locality }
}

/** True if tables of verdicts say the same of both as clients. */
export function sameClient(a: Workload, b: Workload): boolean {
  return sameIdentity(identityOf(a), identityOf(b)) && a.sameNode === b.sameNode && a.uid === b.uid
}

export function samePlace(a: Place | undefined, b: Place | undefined): boolean {
  if (!a || !b) return a === b
  return (
    a.network === b.network &&
    a.clusterId === b.clusterId &&
    a.node === b.node &&
    a.locality.region === b.locality.region &&
    a.locality.zone === b.locality.zone &&
    a.locality.subzone === b.locality.subzone
  )
}
