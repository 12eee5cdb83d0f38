// Gateway API's Gateway and GatewayClass: a Gateway of class ambit-waypoint (or istio-waypoint) is a waypoint.
// Must not live here: the objects that run it (waypoint.ts), who uses it (waypoint-use.ts), ingress (a later feature).
import { z } from 'zod'
import { defineKind, sourceOf, type Report, type Resource } from './resource.ts'
import { labels, object, port } from './schema.ts'
import { serviceHost } from './service.ts'
import type { WaypointGateway } from './translation.ts'
import { meshLabel } from './labels.ts'

/** Names of the GatewayClass whose Gateways are waypoints. */
export const WAYPOINT_CLASSES: readonly string[] = ['ambit-waypoint', 'istio-waypoint']

const listener = z.strictObject({
  name: z.string().min(1),
  hostname: z.string().optional(),
  port,
  protocol: z.string().min(1),
  tls: z.looseObject({}).optional(),
  allowedRoutes: object({
    namespaces: object({
      from: z.enum(['All', 'Same', 'Selector', 'None']),
      selector: z.looseObject({ matchLabels: labels.optional() }),
    }),
    kinds: z.array(z.looseObject({})),
  }).optional(),
})

const schema = z.strictObject({
  spec: z.strictObject({
    gatewayClassName: z.string().min(1),
    listeners: z.array(listener).max(64).optional(),
    addresses: z.array(z.looseObject({})).optional(),
    infrastructure: object({
      labels,
      annotations: labels,
      parametersRef: z.strictObject({ group: z.string(), kind: z.string().min(1), name: z.string().min(1) }),
    }).optional(),
    allowedListeners: z.looseObject({}).optional(),
    tls: z.looseObject({}).optional(),
    defaultScope: z.string().optional(),
  }),
  status: z.unknown().optional(),
})
export type GatewayBody = z.infer<typeof schema>

export const gateway = defineKind({
  kind: 'Gateway',
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  schema,
  mistakes: {
    'spec.className': 'The field is called gatewayClassName.',
    'spec.selector': 'That is a field of Istio’s Gateway (networking.istio.io/v1); this one has gatewayClassName.',
  },
  check,
})

export const gatewayClass = defineKind({
  kind: 'GatewayClass',
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  scope: 'Cluster',
  schema: z.strictObject({
    spec: z.strictObject({
      controllerName: z.string().min(1),
      parametersRef: z.looseObject({}).optional(),
      description: z.string().optional(),
    }),
    status: z.unknown().optional(),
  }),
})

export const referenceGrant = defineKind({
  kind: 'ReferenceGrant',
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  schema: z.strictObject({
    spec: z.strictObject({
      from: z.array(z.strictObject({ group: z.string(), kind: z.string(), namespace: z.string() })),
      to: z.array(z.strictObject({ group: z.string(), kind: z.string(), name: z.string().optional() })),
    }),
  }),
})

const WAYPOINT_FOR = ['service', 'workload', 'all', 'none'] as const

function check(resource: Resource<GatewayBody>, report: Report): void {
  const { spec } = resource.body
  if (!isWaypoint(resource)) {
    report({
      severity: 'warning',
      code: 'CONFIG_NOT_YET',
      path: ['spec', 'gatewayClassName'],
      message: `class ${spec.gatewayClassName}: ingress gateways are a feature Ambit does not have yet.`,
      hint: `Waypoints are of class ${WAYPOINT_CLASSES.join(' or ')}.`,
    })
    return
  }
  const wanted = meshLabel(resource.metadata.labels, 'waypoint-for')
  if (wanted && !WAYPOINT_FOR.includes(wanted.value as never)) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path: ['metadata', 'labels', wanted.key],
      message: `Must be one of ${WAYPOINT_FOR.join(', ')}, not ${JSON.stringify(wanted.value)}.`,
    })
  }
  const parameters = spec.infrastructure?.parametersRef
  if (parameters && (parameters.group !== '' || parameters.kind !== 'ConfigMap')) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path: ['spec', 'infrastructure', 'parametersRef', parameters.kind === 'ConfigMap' ? 'group' : 'kind'],
      message: `The parameters of a waypoint are in a ConfigMap, not in a ${parameters.kind} of group ${JSON.stringify(parameters.group)}.`,
      hint: "Write group: '', kind: ConfigMap and its name.",
    })
  }
  const listeners = spec.listeners ?? []
  const hbone = listeners.filter((one) => one.protocol === 'HBONE')
  if (hbone.length === 0) {
    report({
      severity: 'error',
      code: 'CONFIG_REQUIRED',
      path: ['spec'],
      message: 'A waypoint needs a listener of protocol HBONE.',
      hint: 'Write listeners: [{name: mesh, port: 15008, protocol: HBONE}].',
    })
  }
  for (const [index, one] of listeners.entries()) {
    if (one.protocol === 'HBONE' && one.port !== 15008) {
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: ['spec', 'listeners', index, 'port'],
        message: `HBONE is served on port 15008, not ${one.port}.`,
        hint: 'Write port: 15008.',
      })
    } else if (one.protocol !== 'HBONE') {
      report({
        severity: 'warning',
        code: 'CONFIG_NOT_YET',
        path: ['spec', 'listeners', index, 'protocol'],
        message: `protocol ${one.protocol}: ingress listeners of a waypoint are a feature Ambit does not have yet.`,
      })
    }
  }
}

export function isWaypoint(resource: Resource<GatewayBody>): boolean {
  return WAYPOINT_CLASSES.includes(resource.body.spec.gatewayClassName)
}

/** The waypoint a Gateway asks for. `selectNamespaces` resolves allowedRoutes' selector. */
export function toWaypoint(
  resource: Resource<GatewayBody>,
  clusterDomain: string,
  selectNamespaces: (wanted: Readonly<Record<string, string>>) => readonly string[],
): WaypointGateway {
  const { name, namespace, labels: own } = resource.metadata
  const allowed = new Set<string>()
  for (const one of resource.body.spec.listeners ?? []) {
    if (one.protocol !== 'HBONE') continue
    const rule = one.allowedRoutes?.namespaces
    if (rule?.from === 'All') allowed.add('*')
    else if (rule?.from === 'Selector')
      for (const found of selectNamespaces(rule.selector?.matchLabels ?? {})) allowed.add(found)
    else if (rule?.from !== 'None') allowed.add(namespace)
  }
  return {
    namespace,
    name,
    className: resource.body.spec.gatewayClassName,
    waypointFor: (meshLabel(own, 'waypoint-for')?.value ?? 'all') as WaypointGateway['waypointFor'],
    service: `${namespace}/${serviceHost(name, namespace, clusterDomain)}`,
    serviceAccount: name,
    allowedNamespaces: [...allowed],
    source: sourceOf(resource),
  }
}
