// Pods as the agents of their nodes have to know them, and which of them are in the mesh. Must not live here: the workload that
// all others know (workloads.ts).
import type { Enrolment, NodePod, PodStage } from '../mesh/pod.ts'
import type { Context } from './context.ts'
import { hasSidecar, meshLabel } from './labels.ts'
import type { Memory } from './memory.ts'
import { containerIds, hasEnded, kubeletUid, pod, podAddresses, type PodBody } from './pod.ts'
import type { Resource } from './resource.ts'
import type { WaypointUse } from './waypoint-use.ts'

/** Every pod that has a node and has not ended. One without a uid cannot be found on a node, so that it is left out. */
export function toNodePods(context: Context, use: WaypointUse, memory: Memory): NodePod[] {
  const pods: NodePod[] = []
  const frame = memory.frame(context.settings, use.waypoints)
  for (const one of context.of(pod)) {
    const { uid, namespace } = one.metadata
    const { nodeName } = one.body.spec
    if (!nodeName || uid === '' || hasEnded(one)) continue
    const inputs = [frame, context.namespaceResource(namespace)]
    pods.push(memory.pods.of(context, one, inputs, () => toNodePod(one, nodeName, context, use)))
  }
  return pods
}

function toNodePod(one: Resource<PodBody>, node: string, context: Context, use: WaypointUse): NodePod {
  const { uid, namespace, name } = one.metadata
  const { serviceAccountName, hostNetwork = false } = one.body.spec
  return {
    uid,
    kubeletUid: kubeletUid(one),
    namespace,
    name,
    node,
    serviceAccount: serviceAccountName || 'default',
    addresses: podAddresses(one),
    containers: containerIds(one),
    hostNetwork,
    stage: stageOf(one),
    enrolment: enrolmentOf(one, context, use),
  }
}

function stageOf(one: Resource<PodBody>): PodStage {
  const phase = one.body.status?.phase
  return phase === 'Pending' || phase === 'Running' ? phase : 'Unknown'
}

/**
 * Whether the pod is in the mesh. Its own label wins over its namespace's; a pod with a sidecar or without a network of its
 * own, and the exempt namespaces, stay out whatever they say.
 */
export function enrolmentOf(one: Resource<PodBody>, context: Context, use: WaypointUse): Enrolment {
  const { namespace, labels, annotations } = one.metadata
  if (one.body.spec.hostNetwork === true) return 'host_network'
  if (use.isPartOfWaypoint(one) || labels['networking.istio.io/tunnel'] === 'http') return 'own_tunnel'
  if (context.isExempt(namespace)) return 'exempt'
  if (hasSidecar(annotations)) return 'sidecar'
  const own = meshLabel(labels, 'dataplane-mode')
  if (own && own.value !== 'ambient' && own.value !== 'none') {
    context.reportOnce(one, {
      severity: 'warning',
      code: 'CONFIG_INVALID_VALUE',
      path: ['metadata', 'labels', own.key],
      message: `Must be ambient or none, not ${JSON.stringify(own.value)}; the namespace's label counts.`,
    })
  } else if (own) return own.value === 'ambient' ? 'enrolled' : 'not_enrolled'
  return context.isEnrolled(namespace) ? 'enrolled' : 'not_enrolled'
}
