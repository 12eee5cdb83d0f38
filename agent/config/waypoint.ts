// The Kubernetes objects that run a waypoint, from its Gateway: ServiceAccount, Service, Deployment. Pure: the sandbox
// runs them as processes, control applies them to a cluster. Must not live here: who uses the waypoint (waypoint-use.ts).
import type { GatewayBody } from './gateway.ts'
import type { Resource } from './resource.ts'

export interface WaypointOptions {
  /** Image of the container; default `ambit:latest`. */
  readonly image?: string
  /** `host:port` of control; default that of the chart. */
  readonly control?: string
}

/** Where the waypoint's container finds its root certificate and its token. */
export const WAYPOINT_ROOT_CERT = '/var/run/secrets/ambit/root-cert.pem'
export const WAYPOINT_TOKEN = '/var/run/secrets/tokens/istio-token'

/** A Kubernetes object as plain data, ready to be written as YAML or applied. */
export interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly labels: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
    readonly ownerReferences?: readonly unknown[]
  }
  readonly spec?: unknown
}

/**
 * The objects of a waypoint, all named after its Gateway. Labels and annotations of spec.infrastructure go to all of
 * them; with the Gateway's uid known they belong to it and go with it.
 */
export function waypointResources(
  gateway: Resource<GatewayBody>,
  options: WaypointOptions = {},
): readonly KubernetesObject[] {
  const { name, namespace, uid } = gateway.metadata
  const { gatewayClassName, infrastructure } = gateway.body.spec
  const selector = { 'gateway.networking.k8s.io/gateway-name': name }
  const labels = {
    ...infrastructure?.labels,
    ...selector,
    'gateway.networking.k8s.io/gateway-class-name': gatewayClassName,
    'gateway.istio.io/managed': 'ambit.io-mesh-controller',
  }
  const metadata = {
    name,
    namespace,
    labels,
    ...(infrastructure?.annotations ? { annotations: infrastructure.annotations } : {}),
    ...(uid
      ? {
          ownerReferences: [
            { apiVersion: gateway.apiVersion, kind: 'Gateway', name, uid, controller: true, blockOwnerDeletion: true },
          ],
        }
      : {}),
  }
  // A waypoint ends tunnels itself and is never captured; both prefixes, so that an Istio beside Ambit leaves it alone too.
  const podLabels = {
    ...labels,
    'ambit.io/dataplane-mode': 'none',
    'istio.io/dataplane-mode': 'none',
    'service.istio.io/canonical-name': name,
    'service.istio.io/canonical-revision': 'latest',
  }
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: {
        type: 'ClusterIP',
        selector,
        trafficDistribution: 'PreferClose',
        ports: [
          { name: 'status-port', port: 15021, targetPort: 15021, protocol: 'TCP', appProtocol: 'http' },
          { name: 'mesh', port: 15008, targetPort: 15008, protocol: 'TCP', appProtocol: 'tls' },
        ],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata,
      spec: {
        replicas: 1,
        selector: { matchLabels: selector },
        template: {
          metadata: {
            labels: podLabels,
            annotations: {
              ...infrastructure?.annotations,
              'prometheus.io/scrape': 'true',
              'prometheus.io/port': '15020',
              'prometheus.io/path': '/metrics',
            },
          },
          spec: podSpec(name, namespace, options),
        },
      },
    },
  ]
}

function podSpec(name: string, namespace: string, options: WaypointOptions): unknown {
  const { image = 'ambit:latest', control = 'control.ambit-system.svc:15012' } = options
  return {
    serviceAccountName: name,
    terminationGracePeriodSeconds: 60,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        name: 'waypoint',
        image,
        command: ['ambit'],
        // prettier-ignore
        args: [
          'waypoint',
          '--name', name,
          '--namespace', namespace,
          '--service-account', name,
          '--control', control,
          '--root-cert', WAYPOINT_ROOT_CERT,
          '--token-file', WAYPOINT_TOKEN,
          '--listen', '[::]:15008',
          '--metrics', '[::]:15020',
          '--ready', '[::]:15021',
        ],
        ports: [
          { name: 'mesh', containerPort: 15008, protocol: 'TCP' },
          { name: 'metrics', containerPort: 15020, protocol: 'TCP' },
          { name: 'status-port', containerPort: 15021, protocol: 'TCP' },
        ],
        readinessProbe: { httpGet: { path: '/healthz/ready', port: 15021 }, periodSeconds: 5 },
        resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '1Gi' } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: [
          { name: 'root-cert', mountPath: '/var/run/secrets/ambit', readOnly: true },
          { name: 'token', mountPath: '/var/run/secrets/tokens', readOnly: true },
        ],
      },
    ],
    volumes: [
      {
        name: 'root-cert',
        configMap: { name: 'ambit-root-cert', items: [{ key: 'root-cert.pem', path: 'root-cert.pem' }] },
      },
      {
        name: 'token',
        projected: {
          sources: [{ serviceAccountToken: { audience: 'istio-ca', expirationSeconds: 43_200, path: 'istio-token' } }],
        },
      },
    ],
  }
}
