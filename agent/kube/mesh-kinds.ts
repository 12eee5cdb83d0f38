// The kinds that the mesh reads, and the fields of each that it keeps; what is kept still looks like the object, so that
// config/ reads it as it reads a document. Must not live here: keeping (keep.ts), what the fields mean (config/).
import { Interner, keep, type Fields } from './keep.ts'
import type { KubeObject, Resource } from './resource.ts'
import type { Scope } from './watch.ts'

const core = (plural: string, kind: string, namespaced = true): Resource => ({
  group: '',
  version: 'v1',
  plural,
  kind,
  namespaced,
})
const of = (group: string, version: string, plural: string, kind: string, namespaced = true): Resource => ({
  group,
  version,
  plural,
  kind,
  namespaced,
})

export const NAMESPACES = core('namespaces', 'Namespace', false)
export const NODES = core('nodes', 'Node', false)
export const PODS = core('pods', 'Pod')
export const SERVICES = core('services', 'Service')
export const CONFIG_MAPS = core('configmaps', 'ConfigMap')
export const SECRETS = core('secrets', 'Secret')
export const SERVICE_ACCOUNTS = core('serviceaccounts', 'ServiceAccount')
export const ENDPOINT_SLICES = of('discovery.k8s.io', 'v1', 'endpointslices', 'EndpointSlice')
export const DEPLOYMENTS = of('apps', 'v1', 'deployments', 'Deployment')
export const EVENTS = core('events', 'Event')
export const LEASES = of('coordination.k8s.io', 'v1', 'leases', 'Lease')

const ISTIO_NETWORKING = 'networking.istio.io'
const ISTIO_SECURITY = 'security.istio.io'
const GATEWAY_API = 'gateway.networking.k8s.io'

/** What people write for the mesh: spec is kept whole. */
export const CONFIG_KINDS: readonly Resource[] = [
  of(ISTIO_NETWORKING, 'v1', 'virtualservices', 'VirtualService'),
  of(ISTIO_NETWORKING, 'v1', 'destinationrules', 'DestinationRule'),
  of(ISTIO_NETWORKING, 'v1', 'gateways', 'Gateway'),
  of(ISTIO_NETWORKING, 'v1', 'serviceentries', 'ServiceEntry'),
  of(ISTIO_NETWORKING, 'v1', 'workloadentries', 'WorkloadEntry'),
  of(ISTIO_SECURITY, 'v1', 'authorizationpolicies', 'AuthorizationPolicy'),
  of(ISTIO_SECURITY, 'v1', 'peerauthentications', 'PeerAuthentication'),
  of(ISTIO_SECURITY, 'v1', 'requestauthentications', 'RequestAuthentication'),
  of('telemetry.istio.io', 'v1', 'telemetries', 'Telemetry'),
  of(GATEWAY_API, 'v1', 'gatewayclasses', 'GatewayClass', false),
  of(GATEWAY_API, 'v1', 'gateways', 'Gateway'),
  of(GATEWAY_API, 'v1', 'httproutes', 'HTTPRoute'),
  of(GATEWAY_API, 'v1beta1', 'referencegrants', 'ReferenceGrant'),
  of('linkerd.io', 'v1alpha2', 'serviceprofiles', 'ServiceProfile'),
]

/**
 * Everything the mesh reads of a cluster. `configMaps` by name: clusters have thousands of others, and a right to read them all
 * nobody needs to give.
 */
export function meshScopes(configMaps: readonly { readonly namespace: string; readonly name: string }[]): Scope[] {
  return [
    ...[NAMESPACES, NODES, PODS, SERVICES, ENDPOINT_SLICES, ...CONFIG_KINDS].map((resource) => ({ resource })),
    ...configMaps.map(({ namespace, name }) => ({
      resource: CONFIG_MAPS,
      namespace,
      fieldSelector: `metadata.name=${name}`,
    })),
  ]
}

/** Annotations that say something to the mesh: those of Istio, Ambit and Linkerd, by the domain before the slash. */
function speaksToMesh(name: string): boolean {
  const domain = name.slice(0, name.indexOf('/'))
  return /(^|\.)(istio\.io|ambit\.io|linkerd\.io)$/.test(domain)
}

/** Of a static pod's mirror: what the kubelet calls it. */
const speaksOfPod = (name: string): boolean => speaksToMesh(name) || name === 'kubernetes.io/config.hash'

/** Kept by kubectl for itself; as long as the object. */
const notLastApplied = (name: string): boolean => name !== 'kubectl.kubernetes.io/last-applied-configuration'

const onlyReady = (conditions: unknown): unknown =>
  Array.isArray(conditions)
    ? conditions
        .filter((one: { type?: unknown }) => one.type === 'Ready')
        .map(({ type, status }: { type: unknown; status: unknown }) => ({ type, status }))
    : undefined

export type Project = (object: KubeObject) => KubeObject

/**
 * What to keep of a kind's objects. Each call makes a store of equal values of its own: it lives as long as the objects.
 * `apiVersion` and `kind` are put in, since lists leave them out.
 */
export function projectionOf(resource: Resource): Project {
  const interner = new Interner()
  const fields = fieldsOf(resource, interner)
  const apiVersion = resource.group === '' ? resource.version : `${resource.group}/${resource.version}`
  const { kind } = resource
  return (object) => ({ apiVersion, kind, ...(keep(object, fields) as { metadata: KubeObject['metadata'] }) })
}

function fieldsOf(resource: Resource, interner: Interner): { readonly [field: string]: Fields } {
  const { string } = interner
  const metadata = {
    name: true,
    namespace: string,
    uid: true,
    generation: true,
    creationTimestamp: true,
    deletionTimestamp: true,
    labels: interner.record(),
    annotations: interner.record(speaksToMesh),
  } as const
  const containers = [{ containerID: true }] as const
  const owners = [{ kind: string, name: string, controller: true }] as const
  switch (`${resource.group}/${resource.kind}`) {
    case '/Namespace':
      return { metadata }
    case '/ServiceAccount':
      return { metadata }
    case '/Node':
      return { metadata, status: { addresses: true, conditions: onlyReady } }
    case '/Pod':
      return {
        metadata: { ...metadata, annotations: interner.record(speaksOfPod), ownerReferences: owners },
        spec: {
          nodeName: string,
          serviceAccountName: string,
          hostNetwork: true,
          containers: [{ name: string, ports: [{ name: string, containerPort: true, protocol: string }] }],
        },
        status: {
          phase: string,
          podIPs: [{ ip: true }],
          conditions: onlyReady,
          containerStatuses: containers,
          initContainerStatuses: containers,
          ephemeralContainerStatuses: containers,
        },
      }
    case '/Service':
      return { metadata, spec: true }
    case 'discovery.k8s.io/EndpointSlice':
      return {
        metadata,
        addressType: string,
        ports: true,
        endpoints: [
          {
            addresses: true,
            conditions: true,
            hostname: true,
            nodeName: string,
            zone: string,
            targetRef: { kind: string, name: true, namespace: string },
          },
        ],
      }
    case '/ConfigMap':
      return { metadata, data: true }
    case '/Secret':
      return { metadata, type: string, data: true }
    case 'apps/Deployment':
      return {
        metadata: { ...metadata, ownerReferences: owners },
        spec: { replicas: true },
        status: { readyReplicas: true, observedGeneration: true },
      }
    default:
      return {
        metadata: { ...metadata, annotations: interner.record(notLastApplied), ownerReferences: owners },
        spec: true,
        status: true,
      }
  }
}
