// Says where a policy or route that is fine by itself is not carried out: workloads outside the mesh, request rules
// without a waypoint to judge them. Nothing here changes what is translated.
import { needsRequest } from '../mesh/lower.ts'
import type { Policy } from '../mesh/policy.ts'
import type { Service } from '../mesh/service.ts'
import type { Workload } from '../mesh/workload.ts'
import type { Context } from './context.ts'
import type { FieldPath, Resource } from './resource.ts'

const HOW_TO_ENROL = 'Label the namespace istio.io/dataplane-mode: ambient.'
const HOW_TO_WAYPOINT =
  'Add a Gateway of class ambit-waypoint and label the namespace istio.io/use-waypoint with its name.'

/** For a policy by selector or of a namespace; `selected` are the workloads it speaks about. */
export function reportEnforcement(
  context: Context,
  resource: Resource,
  policy: Policy,
  selected: readonly Workload[],
): void {
  if (policy.action === 'AUDIT' || policy.dryRun) return
  const outside = selected.filter((one) => one.tunnelProtocol === 'NONE')
  if (outside.length > 0) {
    context.report(resource, {
      severity: 'warning',
      code: 'CONFIG_NOT_ENFORCED',
      path: [],
      message: `Not enforced at ${count(outside)}: not in the mesh.`,
      hint: HOW_TO_ENROL,
    })
  }
  if (!needsRequest(policy)) return
  const without = selected.filter(
    (one) =>
      one.tunnelProtocol === 'HBONE' && !one.nativeTunnel && (!one.waypoint || context.settings.l7Selector === 'istio'),
  )
  if (without.length === 0) return
  const upstream = context.settings.l7Selector === 'istio'
  const effect =
    policy.action === 'ALLOW'
      ? 'the rules that ask for methods, paths, headers or tokens never match there'
      : 'its rules match there whatever the method, path, headers or token'
  context.report(resource, {
    severity: 'warning',
    code: 'CONFIG_NEEDS_WAYPOINT',
    path: ['spec', 'rules'],
    message: `${count(without)} ${without.length === 1 ? (upstream ? 'judges' : 'has') : upstream ? 'judge' : 'have'} ${upstream ? 'connections only (l7Selector: istio)' : 'no waypoint'}: ${effect}.`,
    hint: upstream ? 'Use targetRefs, or l7Selector: ambit in the mesh configuration.' : HOW_TO_WAYPOINT,
  })
}

/** For what only a waypoint carries out on requests to a service. */
export function reportNoWaypoint(context: Context, resource: Resource, service: Service, path: FieldPath): void {
  if (service.waypoint) return
  context.report(resource, {
    severity: 'warning',
    code: 'CONFIG_NEEDS_WAYPOINT',
    path,
    message: `${service.hostname} has no waypoint: the ${resource.kind} is not applied to it.`,
    hint: HOW_TO_WAYPOINT,
  })
}

function count(workloads: readonly Workload[]): string {
  const [first] = workloads
  const name = first ? `${first.namespace}/${first.name}` : ''
  return workloads.length === 1 ? `workload ${name}` : `${workloads.length} workloads (${name}, …)`
}
