// Pods (and bare endpoints) as the domain's workloads: identity, place, enrolment, waypoint, services.
// Must not live here: which policies speak about them (security.ts).
import type { Service } from '../mesh/service.ts'
import type { GatewayRef, Locality, Workload } from '../mesh/workload.ts'
import type { Context } from './context.ts'
import { node } from './core-kinds.ts'
import { findEndpoints, servicesOf, type BareEndpoint, type Link, type PortMap } from './endpoints.ts'
import { meshLabel, SAME_NODE } from './labels.ts'
import type { Memory } from './memory.ts'
import { enrolmentOf } from './node-pods.ts'
import { hasEnded, isReady, pod, podAddresses, type PodBody } from './pod.ts'
import type { Resource } from './resource.ts'
import type { WaypointUse } from './waypoint-use.ts'

/** The name of the only cluster, as Istio names it. */
export const CLUSTER_ID = 'Kubernetes'

const NOWHERE: Locality = { region: '', zone: '', subzone: '' }
const NO_LINKS: readonly Link[] = []

/** Every pod with an address that has not ended. Lists of policies are empty: security.ts fills them. */
export function toWorkloads(context: Context, use: WaypointUse, memory: Memory): Workload[] {
  const endpoints = findEndpoints(context, memory)
  const nodes = new Map(context.of(node).map((one) => [one.metadata.name, one]))
  const frame = memory.frame(context.settings, use.waypoints)
  const workloads: Workload[] = []
  /** Where in `workloads` pods are that still serve, and are on their way out. */
  const leaving: number[] = []
  for (const one of context.of(pod)) {
    const addresses = podAddresses(one)
    if (addresses.length === 0 || hasEnded(one)) continue
    const { namespace } = one.metadata
    const links = endpoints.ofPods.get(one) ?? NO_LINKS
    const host = nodes.get(one.body.spec.nodeName ?? '')
    // A link is another one as soon as its Service is.
    const inputs = [frame, context.namespaceResource(namespace), host, ...links]
    if (one.metadata.deleting && isReady(one)) leaving.push(workloads.length)
    workloads.push(
      memory.workloads.of(context, one, inputs, () =>
        toWorkload(one, addresses, servicesOf(links), host ? localityOf(host) : NOWHERE, context, use),
      ),
    )
  }
  for (const one of endpoints.bare) workloads.push(toBareWorkload(one, context))
  if (leaving.length > 0) keepTheLast(workloads, leaving)
  return workloads
}

/**
 * Nothing new goes to a pod that is on its way out, as kube-proxy has it (KEP 1669); unless a service has no other that is
 * ready: then those that still serve are better than none.
 */
function keepTheLast(workloads: Workload[], leaving: readonly number[]): void {
  // Services that nobody is known to serve but those.
  const alone = new Set(leaving.flatMap((at) => Object.keys((workloads[at] as Workload).services)))
  for (const { healthy, services } of workloads) if (healthy) for (const service in services) alone.delete(service)
  if (alone.size === 0) return
  for (const at of leaving) {
    const one = workloads[at] as Workload
    if (Object.keys(one.services).some((service) => alone.has(service))) workloads[at] = { ...one, healthy: true }
  }
}

function toWorkload(
  one: Resource<PodBody>,
  addresses: readonly string[],
  services: Readonly<Record<string, PortMap>>,
  locality: Locality,
  context: Context,
  use: WaypointUse,
): Workload {
  const { name, namespace, labels } = one.metadata
  const { spec } = one.body
  const hostNetwork = spec.hostNetwork ?? false
  const enrolment = enrolmentOf(one, context, use)
  const native = enrolment === 'own_tunnel'
  const waypoint = native ? undefined : waypointOf(one, services, context, use)
  const owner = ownerOf(one)
  const canonicalName =
    labels['service.istio.io/canonical-name'] ?? labels['app.kubernetes.io/name'] ?? labels['app'] ?? owner.name
  return {
    uid: `${CLUSTER_ID}//Pod/${namespace}/${name}`,
    name,
    namespace,
    serviceAccount: spec.serviceAccountName || 'default',
    trustDomain: context.settings.trustDomain,
    addresses,
    network: '',
    node: spec.nodeName ?? '',
    clusterId: CLUSTER_ID,
    tunnelProtocol: native || enrolment === 'enrolled' ? 'HBONE' : 'NONE',
    nativeTunnel: native,
    hostNetwork,
    ...(waypoint ? { waypoint } : {}),
    services,
    authorizationPolicies: [],
    healthy: isReady(one) && !one.metadata.deleting,
    canonicalName,
    canonicalRevision:
      labels['service.istio.io/canonical-revision'] ??
      labels['app.kubernetes.io/version'] ??
      labels['version'] ??
      'latest',
    workloadType: owner.type,
    workloadName: owner.name,
    locality,
    capacity: 1,
    labels,
    sameNode: sameNodeOf(one, context),
  }
}

/** `same-node` of the pod, else of its namespace, else of the mesh; a label or an annotation. */
function sameNodeOf(one: Resource<PodBody>, context: Context): Workload['sameNode'] {
  for (const holder of [one, context.namespaceResource(one.metadata.namespace)]) {
    if (!holder) continue
    for (const part of ['labels', 'annotations'] as const) {
      const said = meshLabel(holder.metadata[part], 'same-node')
      if (!said) continue
      const value = SAME_NODE.find((known) => known === said.value)
      if (value) return value
      context.reportOnce(holder, {
        severity: 'warning',
        code: 'CONFIG_INVALID_VALUE',
        path: ['metadata', part, said.key],
        message: `Must be direct or tunnel, not ${JSON.stringify(said.value)}: tunnels are used.`,
      })
      // Who wrote something here wanted something: the stricter of the two.
      return 'tunnel'
    }
  }
  return context.settings.sameNode
}

/** By label of pod or namespace, or because a service it belongs to has one: such a workload is reached through it only. */
function waypointOf(
  one: Resource<PodBody>,
  services: Readonly<Record<string, PortMap>>,
  context: Context,
  use: WaypointUse,
): GatewayRef | undefined {
  const own = use.of(one, 'workload')
  if (own) return own
  const keys = Object.keys(services).sort()
  const wanted = keys.flatMap((key) => {
    const ref = serviceOf(context, key)?.waypoint
    return ref ? [{ key, ref }] : []
  })
  const [first] = wanted
  const other = wanted.find((each) => each.ref.hostname !== first?.ref.hostname)
  if (first && other) {
    context.report(one, {
      severity: 'warning',
      code: 'CONFIG_CONFLICT',
      path: [],
      message: `Belongs to services with different waypoints (${first.key}, ${other.key}): only traffic through that of ${first.key} reaches it.`,
      hint: 'Give both services one waypoint.',
    })
  }
  return first?.ref
}

/** By its key, `namespace/hostname`. */
function serviceOf(context: Context, key: string): Service | undefined {
  return context.services.get(key.slice(key.indexOf('/') + 1))
}

/** As Istio names workloads: a ReplicaSet made by a Deployment stands for it. */
function ownerOf(one: Resource<PodBody>): { type: string; name: string } {
  const { owners, labels, name } = one.metadata
  const [owner] = owners
  if (!owner) return { type: 'pod', name }
  const hash = labels['pod-template-hash']
  if (owner.kind === 'ReplicaSet') {
    const suffix =
      hash === undefined
        ? owner.name.lastIndexOf('-')
        : owner.name.endsWith(`-${hash}`)
          ? owner.name.length - hash.length - 1
          : -1
    return { type: 'deployment', name: suffix > 0 ? owner.name.slice(0, suffix) : owner.name }
  }
  return { type: owner.kind.toLowerCase(), name: owner.name }
}

function localityOf(one: Resource): Locality {
  const { labels } = one.metadata
  return {
    region: labels['topology.kubernetes.io/region'] ?? '',
    zone: labels['topology.kubernetes.io/zone'] ?? '',
    subzone: labels['topology.istio.io/subzone'] ?? '',
  }
}

function toBareWorkload(one: BareEndpoint, context: Context): Workload {
  return {
    uid: one.uid,
    name: `${one.name}-${one.address}`,
    namespace: one.namespace,
    serviceAccount: 'default',
    trustDomain: context.settings.trustDomain,
    addresses: [one.address],
    network: '',
    node: one.node,
    clusterId: CLUSTER_ID,
    tunnelProtocol: 'NONE',
    nativeTunnel: false,
    hostNetwork: false,
    services: one.services,
    authorizationPolicies: [],
    healthy: one.ready,
    canonicalName: one.name,
    canonicalRevision: 'latest',
    workloadType: 'pod',
    workloadName: one.name,
    locality: { ...NOWHERE, zone: one.zone },
    capacity: 1,
    labels: {},
    sameNode: context.settings.sameNode,
  }
}
