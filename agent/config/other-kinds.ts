// Kinds that Ambit knows by name and does not act on: a feature to come, something that has no meaning without sidecars,
// or nothing of a mesh's business. Each is reported by name, so that nobody thinks it is in force.
import { z } from 'zod'
import { defineKind, type KindDefinition, type Support } from './resource.ts'
import { object, selector, targetRef, unread } from './schema.ts'

const anySpec = z.looseObject({ spec: z.looseObject({}).optional() })

const ISTIO = ['v1', 'v1beta1', 'v1alpha3']

function known(
  group: string,
  versions: readonly string[],
  support: Support,
  feature: string,
  kinds: string,
  extra: Partial<KindDefinition> = {},
): KindDefinition[] {
  return kinds
    .split(' ')
    .map((kind) => defineKind({ kind, group, versions, support, feature, schema: anySpec, ...extra }))
}

/** Without it tokens are not checked: rules that ask for one deny (authorization-policy.ts). */
const requestAuthentication = defineKind({
  kind: 'RequestAuthentication',
  group: 'security.istio.io',
  versions: ['v1', 'v1beta1'],
  support: 'not-yet',
  feature: 'JSON Web Tokens; AuthorizationPolicy rules that ask for a token deny until then',
  security: true,
  schema: z.strictObject({
    spec: object({
      selector,
      targetRef,
      targetRefs: z.array(targetRef).max(16),
      jwtRules: z.array(
        object({
          issuer: z.string(),
          audiences: z.array(z.string()),
          jwksUri: z.string(),
          jwks_uri: z.string(),
          jwks: z.string(),
          fromHeaders: z.array(z.strictObject({ name: z.string(), prefix: z.string().optional() })),
          fromParams: z.array(z.string()),
          fromCookies: z.array(z.string()),
          outputPayloadToHeader: z.string(),
          outputClaimToHeaders: z.array(object({ header: z.string(), claim: z.string() })),
          forwardOriginalToken: z.boolean(),
          ...unread<'timeout' | 'spaceDelimitedClaims'>('timeout spaceDelimitedClaims'),
        }),
      ),
    }),
    status: z.unknown().optional(),
  }),
})

export const otherKinds: readonly KindDefinition[] = [
  requestAuthentication as KindDefinition,
  ...known(
    'networking.istio.io',
    ISTIO,
    'not-yet',
    'services outside the cluster',
    'ServiceEntry WorkloadEntry WorkloadGroup',
  ),
  ...known(
    'networking.istio.io',
    ISTIO,
    'no-effect',
    'it trims and configures sidecars, and there are none',
    'Sidecar',
  ),
  ...known(
    'networking.istio.io',
    ['v1beta1'],
    'no-effect',
    'it configures sidecars, and there are none',
    'ProxyConfig',
  ),
  ...known(
    'networking.istio.io',
    ['v1alpha3'],
    'no-effect',
    'it patches Envoy, and no part of Ambit is Envoy',
    'EnvoyFilter',
  ),
  ...known('extensions.istio.io', ['v1alpha1'], 'not-yet', 'extensions in waypoints', 'WasmPlugin TrafficExtension'),
  ...known(
    'gateway.networking.k8s.io',
    ['v1', 'v1beta1', 'v1alpha3', 'v1alpha2'],
    'not-yet',
    'routes of this kind',
    'GRPCRoute TCPRoute TLSRoute UDPRoute',
  ),
  ...known(
    'gateway.networking.k8s.io',
    ['v1', 'v1beta1', 'v1alpha3', 'v1alpha2'],
    'not-yet',
    'TLS towards backends',
    'BackendTLSPolicy',
  ),
  ...known('gateway.networking.k8s.io', ['v1'], 'not-yet', 'ingress gateways', 'ListenerSet'),
  ...known(
    'gateway.networking.x-k8s.io',
    ['v1alpha1'],
    'not-yet',
    'experimental Gateway API kinds',
    'XBackend XBackendTrafficPolicy XMesh XListenerSet',
  ),
  ...known(
    'policy.linkerd.io',
    ['v1beta3', 'v1beta2', 'v1beta1', 'v1alpha1'],
    'not-yet',
    'Linkerd policy: nothing of it is enforced; use AuthorizationPolicy (security.istio.io/v1)',
    'Server ServerAuthorization AuthorizationPolicy MeshTLSAuthentication NetworkAuthentication HTTPRoute EgressNetwork HTTPLocalRateLimitPolicy',
  ),
  ...known(
    'workload.linkerd.io',
    ['v1beta1', 'v1alpha1'],
    'not-yet',
    'workloads outside the cluster',
    'ExternalWorkload',
  ),
  ...known(
    'install.istio.io',
    ['v1alpha1'],
    'no-effect',
    'it installs Istio; mesh-wide settings are read from MeshConfig',
    'IstioOperator',
  ),
  ...known(
    '',
    ['v1'],
    'foreign',
    '',
    'Secret Endpoints PersistentVolume PersistentVolumeClaim LimitRange ResourceQuota ReplicationController PodTemplate Event Binding ComponentStatus',
    { schema: z.looseObject({}) },
  ),
  ...known('apps', ['v1'], 'foreign', '', 'ReplicaSet StatefulSet DaemonSet ControllerRevision', {
    schema: z.looseObject({}),
  }),
]
