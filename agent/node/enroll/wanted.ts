// Whether a pod of this node is to be in the mesh: a pure function of what is known. Must not live here: what is done about it.
import type { Enrolment, NodePod } from '../../mesh/pod.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { RegisteredPod } from './contract.ts'

/** `unknown`: this agent never had a state, nothing may be changed. */
export interface Wanted {
  readonly verdict: 'in' | 'out' | 'unknown'
  /** One sentence, for people. */
  readonly reason: string
  /** True if nothing is known of the pod itself, so that its namespace decided: word of it may come in a moment. */
  readonly guessed?: boolean
}

/** Ambit's own and the cluster's namespaces: their pods must come up while there is no mesh. */
export const defaultExemptNamespaces: readonly string[] = ['ambit-system', 'kube-system']

const outside: Readonly<Record<Exclude<Enrolment, 'enrolled'>, string>> = {
  not_enrolled: 'Neither the pod nor its namespace has the label, or the pod opts out.',
  exempt: 'Its namespace is never captured.',
  host_network: 'It is on the host network.',
  sidecar: 'It has a sidecar.',
  own_tunnel: 'The pod ends tunnels itself, as waypoints do.',
}

/**
 * What control says of the pod decides; without that (a control plane of another make), its workload's tunnelProtocol. While neither is
 * known, its namespace does: a new pod of an enrolled namespace is captured from its first packet on. `held`: it is captured
 * now; one that nobody tells of any more stays so until its namespace is gone, since it may be deleted by force and still run.
 */
export function wantedPod(
  view: MeshView | undefined,
  node: string,
  pod: RegisteredPod,
  exempt: readonly string[] = defaultExemptNamespaces,
  held = false,
): Wanted {
  if (exempt.includes(pod.namespace)) {
    return { verdict: 'out', reason: `Namespace ${pod.namespace} is never captured.` }
  }
  if (!view) return { verdict: 'unknown', reason: 'This agent has no state yet.' }
  const told = nodePodOf(view, pod)
  if (told) {
    return told.enrolment === 'enrolled'
      ? { verdict: 'in', reason: 'The pod is enrolled.' }
      : { verdict: 'out', reason: outside[told.enrolment] }
  }
  const workload = workloadOf(view, node, pod)
  if (!workload) {
    if (view.settings.enrolledNamespaces.includes(pod.namespace)) {
      const reason = `Namespace ${pod.namespace} is enrolled; the pod is not known yet.`
      return { verdict: 'in', reason, guessed: true }
    }
    return held
      ? { verdict: 'in', reason: 'Nobody tells of the pod any more; it stays captured until its network is gone.' }
      : {
          verdict: 'out',
          reason: `Namespace ${pod.namespace} is not enrolled and the pod is not known.`,
          guessed: true,
        }
  }
  if (workload.nativeTunnel) return { verdict: 'out', reason: outside.own_tunnel }
  return workload.tunnelProtocol === 'HBONE'
    ? { verdict: 'in', reason: `Workload ${workload.uid} is enrolled.` }
    : { verdict: 'out', reason: `Workload ${workload.uid} is not enrolled.` }
}

/** What control told of this pod. A runtime that does not say pods' uids registers them by their sandbox: those go by name. */
export function nodePodOf(view: MeshView, pod: RegisteredPod): NodePod | undefined {
  const fits = (one: NodePod): boolean => one.namespace === pod.namespace && one.name === pod.name
  if (pod.uid === pod.sandbox) return [...view.pods()].find(fits)
  const told = view.pod(pod.uid)
  return told && fits(told) ? told : undefined
}

/** The workload that is this pod: it has one of its addresses, its name and its node. An address alone may be stale. */
export function workloadOf(view: MeshView, node: string, pod: RegisteredPod): Workload | undefined {
  for (const address of pod.addresses) {
    const workload = view.workloadByAddress(address)
    if (workload?.name === pod.name && workload.namespace === pod.namespace && workload.node === node) return workload
  }
  return undefined
}
