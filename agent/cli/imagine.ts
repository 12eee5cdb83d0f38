// What a cluster would make of resources that only state intentions: an address for each service and pod, a ready pod for
// each Deployment that has none, the Service and pod of a waypoint. So that a folder can be explained before it runs.
// Must not live here: running any of it (sandbox/, Kubernetes), the decisions (mesh/).
import { gateway, isWaypoint, type GatewayBody } from '../config/gateway.ts'
import { gatewayName } from '../config/labels.ts'
import { parseObject } from '../config/load.ts'
import { deployment, pod, podAddresses, type DeploymentBody, type PodBody } from '../config/pod.ts'
import type { Resource } from '../config/resource.ts'
import { service, type ServiceBody } from '../config/service.ts'
import type { ResourceSet } from '../config/store.ts'
import { selects } from '../mesh/applicable.ts'

export interface Imagined {
  readonly set: ResourceSet
  /** One sentence for each thing that was made up. */
  readonly assumed: readonly string[]
}

/** The node that made-up pods are on. */
const NODE = 'assumed-node'

/** Fills in what is missing; what is there stays as it is. Addresses are from 240.0.0.0/4, which no network uses. */
export function imagine(set: ResourceSet): Imagined {
  const assumed: string[] = []
  const resources: Resource[] = []
  let serviceCount = 0
  let podCount = 0
  const podAddress = (): string => `240.1.${++podCount >> 8}.${podCount & 255}`
  for (const resource of set.resources) {
    if (is<ServiceBody>(resource, service))
      resources.push(withClusterIp(resource, () => `240.0.${++serviceCount >> 8}.${serviceCount & 255}`))
    else if (is<PodBody>(resource, pod)) resources.push(withPodIp(resource, podAddress))
    else resources.push(resource)
  }
  const pods = resources.filter((one) => is<PodBody>(one, pod))
  const make = (value: unknown, like: Resource): void => {
    resources.push(...parseObject(value, like.origin).resources)
  }
  for (const one of set.resources) {
    const { namespace, name } = one.metadata
    if (is<DeploymentBody>(one, deployment)) {
      const { template, replicas } = one.body.spec
      const labels = template.metadata?.labels ?? {}
      if (
        replicas === 0 ||
        pods.some((other) => other.metadata.namespace === namespace && selects(labels, other.metadata.labels))
      )
        continue
      assumed.push(`Deployment ${namespace}/${name} has one ready pod.`)
      const metadata = { ...template.metadata, namespace, name: `${name}-assumed` }
      make(podOf(metadata, labels, template.spec, podAddress(), name), one)
    } else if (is<GatewayBody>(one, gateway) && isWaypoint(one)) {
      const exists = pods.some(
        (other) => other.metadata.namespace === namespace && gatewayName(other.metadata.labels) === name,
      )
      if (exists) continue
      assumed.push(`The waypoint ${namespace}/${name} has one ready pod.`)
      const labels = { 'gateway.networking.k8s.io/gateway-name': name }
      if (
        !set.resources.some(
          (other) =>
            is<ServiceBody>(other, service) && other.metadata.namespace === namespace && other.metadata.name === name,
        )
      ) {
        const ports = [{ name: 'mesh', port: 15008, appProtocol: 'tls' }]
        const clusterIP = `240.0.${++serviceCount >> 8}.${serviceCount & 255}`
        make(
          {
            apiVersion: 'v1',
            kind: 'Service',
            metadata: { namespace, name, labels },
            spec: { selector: labels, ports, clusterIP },
          },
          one,
        )
      }
      const spec = { serviceAccountName: name, containers: [{ name: 'waypoint' }] }
      make(podOf({ namespace, name: `${name}-assumed` }, labels, spec, podAddress(), name), one)
    }
  }
  return { set: { ...set, resources }, assumed }
}

function is<Body>(resource: Resource, definition: { group: string; kind: string }): resource is Resource<Body> {
  return resource.definition.group === definition.group && resource.definition.kind === definition.kind
}

function withClusterIp(one: Resource<ServiceBody>, address: () => string): Resource {
  const { spec } = one.body
  if (spec.type === 'ExternalName' || spec.clusterIP || spec.clusterIPs?.length) return one
  return { ...one, body: { ...one.body, spec: { ...spec, clusterIP: address() } } }
}

function withPodIp(one: Resource<PodBody>, address: () => string): Resource {
  if (podAddresses(one).length > 0) return one
  const { spec, status } = one.body
  return {
    ...one,
    body: { ...one.body, spec: { ...spec, nodeName: spec.nodeName ?? NODE }, status: { ...status, podIP: address() } },
  }
}

function podOf(
  metadata: object,
  labels: Readonly<Record<string, string>>,
  spec: object,
  podIP: string,
  owner: string,
): unknown {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...metadata,
      labels: { ...labels, 'pod-template-hash': 'assumed' },
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `${owner}-assumed`, uid: 'assumed' }],
    },
    spec: { ...spec, nodeName: NODE },
    status: { phase: 'Running', podIP, podIPs: [{ ip: podIP }] },
  }
}
