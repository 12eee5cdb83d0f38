// A pod as the agent of its node has to know it: how to find it there, and whether it is to be captured. Known from the moment
// it is scheduled, before it has an address; what others need to know of it is its workload (workload.ts).
// `ambit.v1.Pod` on the wire. Must not live here: finding it (node/enroll).
import type { MeshSettings } from './settings.ts'
import type { Workload } from './workload.ts'

/**
 * Whether it is in the mesh, or why not: `exempt`: of a namespace that is never captured. `host_network`: it has no network of
 * its own. `sidecar`: it has a mesh of its own already. `own_tunnel`: it ends tunnels itself, as waypoints do.
 */
export type Enrolment = 'enrolled' | 'not_enrolled' | 'exempt' | 'host_network' | 'sidecar' | 'own_tunnel'

/** Kubernetes' PodPhase; who has ended is not told of. */
export type PodStage = 'Pending' | 'Running' | 'Unknown'

export interface NodePod {
  /** metadata.uid */
  readonly uid: string
  /**
   * What the kubelet calls it, on cgroups and to the runtime: of a static pod the hash of its file, which the API's mirror has as
   * annotation kubernetes.io/config.hash; else the same as `uid`.
   */
  readonly kubeletUid: string
  readonly namespace: string
  readonly name: string
  readonly node: string
  readonly serviceAccount: string
  /** Canonical text form; empty until it has some. */
  readonly addresses: readonly string[]
  /** Ids of its containers without the runtime's name, for nodes whose cgroups do not say the pod's uid. */
  readonly containers: readonly string[]
  readonly hostNetwork: boolean
  readonly stage: PodStage
  readonly enrolment: Enrolment
}

/** `node/uid`: its name on the wire. */
export function nodePodKey(pod: Pick<NodePod, 'node' | 'uid'>): string {
  return `${pod.node}/${pod.uid}`
}

/**
 * What can be said of a new pod's workload before control has told of it, which it does when the API knows the pod's address: enough
 * to dial out as who the pod is. It has no labels yet and belongs to no service.
 */
export function earlyWorkload(
  pod: NodePod,
  addresses: readonly string[],
  settings: MeshSettings,
  clusterId = 'Kubernetes',
): Workload {
  const { namespace, name, serviceAccount, node, hostNetwork } = pod
  return {
    uid: `${clusterId}//Pod/${namespace}/${name}`,
    name,
    namespace,
    serviceAccount,
    trustDomain: settings.trustDomain,
    addresses,
    network: '',
    node,
    clusterId,
    tunnelProtocol: pod.enrolment === 'enrolled' ? 'HBONE' : 'NONE',
    nativeTunnel: false,
    hostNetwork,
    services: {},
    authorizationPolicies: [],
    healthy: true,
    canonicalName: name,
    canonicalRevision: 'latest',
    workloadType: 'pod',
    workloadName: name,
    locality: { region: '', zone: '', subzone: '' },
    capacity: 1,
    labels: {},
    sameNode: settings.sameNode,
  }
}
