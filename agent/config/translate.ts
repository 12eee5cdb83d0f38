// All resources together in the domain's words. Pure: the same set gives the same translation.
// Must not live here: any one kind (its own files), what is published to whom (control/publish).
import { Context } from './context.ts'
import { toUpstreams } from './destination-rule-upstreams.ts'
import { toHttpRoutes } from './http-route-routes.ts'
import { meshLabel } from './labels.ts'
import { namespace } from './core-kinds.ts'
import { Memory } from './memory.ts'
import { toNodePods } from './node-pods.ts'
import { sortProblems } from './problem.ts'
import { toSecurity } from './security.ts'
import type { Resource } from './resource.ts'
import { service, toService, type ServiceBody } from './service.ts'
import type { ResourceSet } from './store.ts'
import type { Translation } from './translation.ts'
import { toRoutes } from './virtual-service-routes.ts'
import { WaypointUse } from './waypoint-use.ts'
import { toWorkloads } from './workloads.ts'

/**
 * Translates a set of resources. Never throws; what refers to nothing, selects nothing or contradicts is in `problems`. With the
 * `memory` of the translation before, what did not change costs little and comes out as the same objects.
 */
export function translate(set: ResourceSet, memory: Memory = new Memory()): Translation {
  const context = new Context(set)
  const use = new WaypointUse(context)
  const frame = memory.frame(context.settings, use.waypoints)
  for (const one of context.of(service)) {
    const { namespace } = one.metadata
    const translated = memory.services.of(context, one, [frame, context.namespaceResource(namespace)], () =>
      toService(one, context.settings.clusterDomain, use.of(one, 'service'), context.namespaceAnnotations(namespace)),
    )
    if (translated) context.services.set(translated.hostname, translated)
    reportSelector(context, one)
  }
  reportNamespaces(context)
  const security = toSecurity(context, toWorkloads(context, use, memory), set.denials, memory)
  const routes = [...toRoutes(context), ...toHttpRoutes(context)]
  const upstreams = toUpstreams(context)
  return {
    settings: context.settings,
    workloads: security.workloads,
    pods: toNodePods(context, use, memory),
    services: [...context.services.values()],
    policies: security.policies,
    peerAuthentications: security.peerAuthentications,
    routes,
    upstreams,
    waypoints: use.waypoints,
    problems: sortProblems(context.problems),
  }
}

function reportSelector(context: Context, one: Resource<ServiceBody>): void {
  const { selector, type } = one.body.spec
  if (!selector || Object.keys(selector).length === 0 || type === 'ExternalName') return
  if (context.someWorkload(selector, one.metadata.namespace)) return
  const text = Object.entries(selector)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
  context.report(one, {
    severity: 'warning',
    code: 'CONFIG_SELECTS_NOTHING',
    path: ['spec', 'selector'],
    message: `No workload in namespace ${one.metadata.namespace} has the labels ${text}: the service has no endpoint.`,
    hint: 'Check the labels and the namespace.',
  })
}

function reportNamespaces(context: Context): void {
  for (const one of context.of(namespace)) {
    const label = meshLabel(one.metadata.labels, 'dataplane-mode')
    if (!label || label.value === 'ambient' || label.value === 'none') continue
    context.report(one, {
      severity: 'warning',
      code: 'CONFIG_INVALID_VALUE',
      path: ['metadata', 'labels', label.key],
      message: `Must be ambient or none, not ${JSON.stringify(label.value)}: the namespace is not enrolled.`,
      hint: `Write ${label.key}: ambient.`,
    })
  }
}
