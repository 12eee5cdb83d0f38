// Whether a pod of this node is to be in the mesh: a pure function of what is known. Must not live here: what is done about it.
import type { MeshView } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { RegisteredPod } from './contract.ts'

/** `unknown`: this agent never had a state, nothing may be changed. */
export interface Wanted {
  readonly verdict: 'in' | 'out' | 'unknown'
  /** One sentence, for people. */
  readonly reason: string
}

/** Ambit's own and the cluster's namespaces: their pods must come up while there is no mesh. */
export const defaultExemptNamespaces: readonly string[] = ['ambit-system', 'kube-system']

/**
 * A workload decides by its tunnelProtocol (which control derives from the labels of namespace and pod). While it is
 * not known yet, its namespace decides: a new pod of an enrolled namespace is captured from its first packet on.
 * A pod on the host network has no namespace of its own to register; the kernel half refuses the node's.
 */
export function wantedPod(
  view: MeshView | undefined,
  node: string,
  pod: RegisteredPod,
  exempt: readonly string[] = defaultExemptNamespaces,
): Wanted {
  if (exempt.includes(pod.namespace)) {
    return { verdict: 'out', reason: `Namespace ${pod.namespace} is never captured.` }
  }
  if (!view) return { verdict: 'unknown', reason: 'This agent has no state yet.' }
  const workload = workloadOf(view, node, pod)
  if (!workload) {
    return view.settings.enrolledNamespaces.includes(pod.namespace)
      ? { verdict: 'in', reason: `Namespace ${pod.namespace} is enrolled; the workload is not known yet.` }
      : { verdict: 'out', reason: `Namespace ${pod.namespace} is not enrolled and the workload is not known.` }
  }
  if (workload.nativeTunnel) return { verdict: 'out', reason: 'The pod ends tunnels itself, as waypoints do.' }
  return workload.tunnelProtocol === 'HBONE'
    ? { verdict: 'in', reason: `Workload ${workload.uid} is enrolled.` }
    : { verdict: 'out', reason: `Workload ${workload.uid} is not enrolled.` }
}

/** The workload that is this pod: it has one of its addresses, its name and its node. An address alone may be stale. */
export function workloadOf(view: MeshView, node: string, pod: RegisteredPod): Workload | undefined {
  for (const address of pod.addresses) {
    const workload = view.workloadByAddress(address)
    if (workload?.name === pod.name && workload.namespace === pod.namespace && workload.node === node) return workload
  }
  return undefined
}
