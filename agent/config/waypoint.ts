// The Kubernetes objects that run a waypoint, from its Gateway: ServiceAccount, Service, Deployment, PodDisruptionBudget, and
// what its parameters ask for beside. Pure: the sandbox runs them as processes, control applies them to a cluster. Must not live
// here: the container (waypoint-pod.ts), parameters (waypoint-parameters.ts), who uses the waypoint (waypoint-use.ts).
import type { GatewayBody } from './gateway.ts'
import type { Resource } from './resource.ts'
import { withParameters, type WaypointParameters } from './waypoint-parameters.ts'
import { waypointPod, type WaypointPodOptions } from './waypoint-pod.ts'

export { WAYPOINT_ROOT_CERT, WAYPOINT_TOKEN } from './waypoint-pod.ts'

export interface WaypointOptions extends WaypointPodOptions {
  /** Those of the GatewayClass, then those of the Gateway: a later one lies over the ones before. */
  readonly parameters?: readonly WaypointParameters[]
}

/** On every object that control makes: whose it is to repair and to remove. */
export const MANAGED_LABEL = 'gateway.istio.io/managed'
export const MANAGED_BY = 'ambit.io-mesh-controller'

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
 * them; with the Gateway's uid known they belong to it and go with it. The Deployment says nothing of replicas unless the
 * parameters do: then they are the business of who scales it, a person or an autoscaler (one at first).
 * Throws CONFIG_PARAMETERS_INVALID for parameters that cannot be laid over these objects.
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
    [MANAGED_LABEL]: MANAGED_BY,
  }
  const metadata = {
    name,
    namespace,
    labels,
    ...(infrastructure?.annotations ? { annotations: infrastructure.annotations } : {}),
    ...(uid
      ? { ownerReferences: [{ apiVersion: gateway.apiVersion, kind: 'Gateway', name, uid, controller: true }] }
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
  const objects: KubernetesObject[] = [
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
        selector: { matchLabels: selector },
        // A new one is ready before an old one goes.
        strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
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
          spec: waypointPod({ name, namespace, selector }, options),
        },
      },
    },
    {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata,
      spec: {
        selector: { matchLabels: selector },
        // Not minAvailable: 1, which would keep a node with the only replica from ever being drained.
        maxUnavailable: 1,
        unhealthyPodEvictionPolicy: 'AlwaysAllow',
      },
    },
  ]
  const parameters = options.parameters ?? []
  if (parameters.some((one) => one.horizontalPodAutoscaler)) {
    objects.push({
      apiVersion: 'autoscaling/v2',
      kind: 'HorizontalPodAutoscaler',
      metadata,
      spec: { scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name } },
    })
  }
  return parameters.reduce<readonly KubernetesObject[]>((made, one) => withParameters(made, one), objects)
}
