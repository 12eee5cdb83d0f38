// Service (core/v1): schema, checks, and the domain service it becomes.
// Must not live here: its endpoints (endpoints.ts), its waypoint (waypoint-use.ts).
import { z } from 'zod'
import { canonicalIp } from '../base/ip.ts'
import type { AppProtocol, Service, ServicePort } from '../mesh/service.ts'
import type { GatewayRef } from '../mesh/workload.ts'
import { defineKind, type Report, type Resource } from './resource.ts'
import { intOrName, labels, object, port, unread } from './schema.ts'

const servicePort = z.strictObject({
  port,
  name: z.string().optional(),
  protocol: z.enum(['TCP', 'UDP', 'SCTP']).optional(),
  appProtocol: z.string().optional(),
  targetPort: intOrName.optional(),
  nodePort: z.int().optional(),
})
export type ServicePortSpec = z.infer<typeof servicePort>

const schema = z.strictObject({
  spec: object({
    selector: labels,
    ports: z.array(servicePort),
    type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']),
    clusterIP: z.string(),
    clusterIPs: z.array(z.string()),
    externalName: z.string(),
    internalTrafficPolicy: z.enum(['Cluster', 'Local']),
    trafficDistribution: z.string(),
    publishNotReadyAddresses: z.boolean(),
    sessionAffinity: z.enum(['ClientIP', 'None']),
    sessionAffinityConfig: object({ clientIP: object({ timeoutSeconds: z.int().min(1).max(86_400) }) }),
    ipFamilies: z.array(z.enum(['IPv4', 'IPv6'])),
    ipFamilyPolicy: z.enum(['SingleStack', 'PreferDualStack', 'RequireDualStack']),
    ...unread<
      | 'externalIPs'
      | 'externalTrafficPolicy'
      | 'healthCheckNodePort'
      | 'loadBalancerIP'
      | 'loadBalancerClass'
      | 'loadBalancerSourceRanges'
      | 'allocateLoadBalancerNodePorts'
    >(
      'externalIPs externalTrafficPolicy healthCheckNodePort loadBalancerIP loadBalancerClass loadBalancerSourceRanges allocateLoadBalancerNodePorts',
    ),
  }),
  status: z.unknown().optional(),
})
export type ServiceBody = z.infer<typeof schema>

export const service = defineKind({
  kind: 'Service',
  group: '',
  versions: ['v1'],
  lenient: true,
  schema,
  mistakes: {
    'spec.selectors': 'The field is called selector.',
    'spec.selector.matchLabels': 'A Service names labels directly below selector.',
  },
  check,
})

function check(resource: Resource<ServiceBody>, report: Report): void {
  const names = new Set<string>()
  const ports = resource.body.spec.ports ?? []
  for (const [index, one] of ports.entries()) {
    const path = ['spec', 'ports', index, 'name']
    if (ports.length > 1 && !one.name) {
      report({
        severity: 'error',
        code: 'CONFIG_REQUIRED',
        path: ['spec', 'ports', index],
        message: 'A Service with several ports needs a name for each.',
        hint: 'Begin the name with the protocol, as in http-api.',
      })
    }
    if (one.name && names.has(one.name))
      report({ severity: 'error', code: 'CONFIG_DUPLICATE', path, message: `The port name ${one.name} is used twice.` })
    if (one.name) names.add(one.name)
  }
  for (const [index, ip] of (resource.body.spec.clusterIPs ?? []).entries()) {
    if (ip !== 'None' && ip !== '' && !canonicalIp(ip))
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: ['spec', 'clusterIPs', index],
        message: `${JSON.stringify(ip)} is no IP address.`,
      })
  }
  const ip = resource.body.spec.clusterIP
  if (ip && ip !== 'None' && !canonicalIp(ip))
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path: ['spec', 'clusterIP'],
      message: `${JSON.stringify(ip)} is no IP address.`,
    })
}

/** As the API server fills it in: three hours. */
const DEFAULT_AFFINITY_SECONDS = 10_800

/** `name.namespace.svc.domain`. */
export function serviceHost(name: string, namespace: string, clusterDomain: string): string {
  return `${name}.${namespace}.svc.${clusterDomain}`
}

/** The domain service; undefined for ExternalName, which is DNS only. */
export function toService(
  resource: Resource<ServiceBody>,
  clusterDomain: string,
  waypoint: GatewayRef | undefined,
  namespaceAnnotations: Readonly<Record<string, string>>,
): Service | undefined {
  const { metadata, body } = resource
  const { spec } = body
  if (spec.type === 'ExternalName') return undefined
  const addresses = (spec.clusterIPs?.length ? spec.clusterIPs : spec.clusterIP ? [spec.clusterIP] : [])
    .map((ip) => canonicalIp(ip))
    .filter((ip) => ip !== undefined)
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    hostname: serviceHost(metadata.name, metadata.namespace, clusterDomain),
    addresses,
    ports: (spec.ports ?? []).filter((one) => (one.protocol ?? 'TCP') === 'TCP').map(toPort),
    subjectAltNames: [],
    ...(waypoint ? { waypoint } : {}),
    ...balancing(resource, namespaceAnnotations),
    allowUnhealthy: spec.publishNotReadyAddresses ?? false,
    sessionAffinitySeconds:
      spec.sessionAffinity === 'ClientIP'
        ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? DEFAULT_AFFINITY_SECONDS)
        : 0,
  }
}

function toPort(spec: ServicePortSpec): ServicePort {
  return {
    port: spec.port,
    targetPort: typeof spec.targetPort === 'string' ? 0 : (spec.targetPort ?? spec.port),
    name: spec.name ?? '',
    protocol: protocolOf(spec),
  }
}

/** As Istio derives it (pilot serviceregistry/ambient services.go): internalTrafficPolicy wins over trafficDistribution. */
function balancing(
  resource: Resource<ServiceBody>,
  namespaceAnnotations: Readonly<Record<string, string>>,
): Pick<Service, 'routingPreference' | 'loadBalancing'> {
  const { spec } = resource.body
  if (spec.internalTrafficPolicy === 'Local') return { routingPreference: ['NODE'], loadBalancing: 'STRICT' }
  const annotation = 'networking.istio.io/traffic-distribution'
  const wanted =
    spec.trafficDistribution ?? resource.metadata.annotations[annotation] ?? namespaceAnnotations[annotation]
  switch (wanted ?? '') {
    case 'PreferClose':
    case 'PreferSameZone':
      return { routingPreference: ['NETWORK', 'REGION', 'ZONE'], loadBalancing: 'FAILOVER' }
    case 'PreferSameNode':
      return { routingPreference: ['NETWORK', 'REGION', 'ZONE', 'SUBZONE', 'NODE'], loadBalancing: 'FAILOVER' }
    default:
      return { routingPreference: [], loadBalancing: 'UNSPECIFIED' }
  }
}

const PROTOCOLS: ReadonlyMap<string, AppProtocol> = new Map([
  ['http', 'http'],
  ['grpc-web', 'http'],
  ['http2', 'http2'],
  ['grpc', 'grpc'],
  ['https', 'tls'],
  ['tls', 'tls'],
  ['tcp', 'tcp'],
  ['mongo', 'tcp'],
  ['mysql', 'tcp'],
  ['redis', 'tcp'],
])

/** Names that Kubernetes defines for appProtocol alone. */
const STANDARD: ReadonlyMap<string, AppProtocol> = new Map([
  ['kubernetes.io/h2c', 'http2'],
  ['kubernetes.io/ws', 'http'],
  ['kubernetes.io/wss', 'tls'],
])

/** Protocols where the server speaks first, by their ports: detection would wait for a client that waits. SMTP, DNS, MySQL, MongoDB. */
const SERVER_FIRST = [25, 53, 3306, 27017]

/**
 * Istio's protocol selection (ConvertProtocol): appProtocol, where it is set, else the port's name, each up to its first dash;
 * where that is no protocol, a well-known port is TCP and any other is detected.
 */
export function protocolOf(spec: Pick<ServicePortSpec, 'port' | 'name' | 'appProtocol'>): AppProtocol {
  const standard = spec.appProtocol === undefined ? undefined : STANDARD.get(spec.appProtocol)
  if (standard) return standard
  const name = (spec.appProtocol ?? spec.name ?? '').toLowerCase()
  const dash = name.indexOf('-')
  const word = name === 'grpc-web' || name.startsWith('grpc-web-') ? 'grpc-web' : dash < 0 ? name : name.slice(0, dash)
  return PROTOCOLS.get(word) ?? (SERVER_FIRST.includes(spec.port) ? 'tcp' : 'unknown')
}
