// Which policies speak about a workload or a service, and where they are evaluated. With `l7Selector: ambit` every policy
// of a workload behind a waypoint is the waypoint's; with `istio` the waypoint has those with targetRefs only and the
// agent the others. Must not live here: evaluation (authorize.ts).
import type { Policy, TargetRef } from './policy.ts'
import type { Service } from './service.ts'
import type { MeshView } from './state.ts'
import type { Workload } from './workload.ts'

export interface PolicyList {
  readonly policies: readonly Policy[]
  /** References (`namespace/name`) to policies that are not known: whoever has one is denied to all. */
  readonly unknown: readonly string[]
}

/** A waypoint as policies name it. */
export interface WaypointName {
  readonly namespace: string
  /** Name of its Gateway. */
  readonly name: string
}

/** Names of the GatewayClass under which `targetRefs` may address every waypoint (root namespace only). */
export const WAYPOINT_CLASSES: readonly string[] = ['ambit-waypoint', 'istio-waypoint']

/** Policies an agent evaluates for connections to a workload: mesh-wide, of its namespace, and those it lists. */
export function agentPolicies(view: MeshView, workload: Workload): PolicyList {
  const policies = new Set<Policy>(view.globalPolicies())
  for (const policy of view.namespacePolicies(workload.namespace)) policies.add(policy)
  const unknown: string[] = []
  for (const key of workload.authorizationPolicies) {
    const policy = view.policy(key)
    if (policy) policies.add(policy)
    else unknown.push(key)
  }
  return { policies: [...policies], unknown }
}

/** True if every label of the selector is on the workload; an empty selector selects all. */
export function selects(selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>): boolean {
  for (const key in selector) if (labels[key] !== selector[key]) return false
  return true
}

/**
 * Policies a waypoint evaluates for a request to `service` that ends at `workload`; either may be absent: without a
 * service the client dialled a pod address, without a workload only what holds for every endpoint is listed.
 */
export function waypointPolicies(
  view: MeshView,
  waypoint: WaypointName,
  service: Service | undefined,
  workload: Workload | undefined,
): readonly Policy[] {
  const { settings } = view
  const namespace = workload?.namespace ?? service?.namespace ?? ''
  const found: Policy[] = []
  for (const policy of view.policies()) {
    let applies = false
    if (policy.scope === 'target') {
      applies = policy.targets.some((target) => targets(target, policy, waypoint, service, settings.rootNamespace))
    } else if (settings.l7Selector === 'ambit') {
      if (policy.scope === 'global') applies = true
      else if (policy.scope === 'namespace') applies = policy.namespace === namespace
      else if (workload) {
        const reaches = policy.namespace === workload.namespace || policy.namespace === settings.rootNamespace
        applies = reaches && selects(policy.selector, workload.labels)
      }
    }
    // Synthetic policies of PeerAuthentication are about the last hop, which only its agent sees.
    if (applies && policy.source.kind !== 'PeerAuthentication') found.push(policy)
  }
  return found.sort((a, b) => (policyName(a) < policyName(b) ? -1 : 1))
}

function policyName(policy: Policy): string {
  return `${policy.namespace}/${policy.name}`
}

function targets(
  target: TargetRef,
  policy: Policy,
  waypoint: WaypointName,
  service: Service | undefined,
  rootNamespace: string,
): boolean {
  switch (target.kind) {
    case 'Gateway':
      return target.namespace === waypoint.namespace && target.name === waypoint.name
    case 'GatewayClass':
      return policy.namespace === rootNamespace && WAYPOINT_CLASSES.includes(target.name)
    case 'Service':
    case 'ServiceEntry':
      return service !== undefined && target.namespace === service.namespace && target.name === service.name
    default:
      return false
  }
}

/** Endpoints of a service that are subject to the same policies. */
export interface PolicyGroup {
  readonly policies: readonly Policy[]
  readonly workloads: readonly Workload[]
}

/**
 * The policies of a service's endpoints, grouped. One group (the usual case) can be judged before routing; several mean
 * that the verdict depends on the endpoint, and has to be given once one is chosen. A service without endpoints has one
 * group without workloads.
 */
export function policyGroups(view: MeshView, waypoint: WaypointName, service: Service): readonly PolicyGroup[] {
  const groups = new Map<string, { policies: readonly Policy[]; workloads: Workload[] }>()
  for (const workload of view.endpoints(`${service.namespace}/${service.hostname}`)) {
    const policies = waypointPolicies(view, waypoint, service, workload)
    const key = policies.map(policyName).join(' ')
    const group = groups.get(key)
    if (group) group.workloads.push(workload)
    else groups.set(key, { policies, workloads: [workload] })
  }
  if (groups.size === 0) return [{ policies: waypointPolicies(view, waypoint, service, undefined), workloads: [] }]
  return [...groups.values()]
}
