// Which pods and services a folder of Kubernetes YAML asks for. Pure: resources in, wishes out. Must not live here: which
// pods exist (plan.ts), how they are run (container-command.ts).
import { createHash } from 'node:crypto'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { isWaypoint, type GatewayBody } from '../../config/gateway.ts'
import { configMap, type ConfigMapBody } from '../../config/core-kinds.ts'
import { parseObject } from '../../config/load.ts'
import type { PodSpec, DeploymentBody, PodBody } from '../../config/pod.ts'
import type { Resource } from '../../config/resource.ts'
import type { ServiceBody } from '../../config/service.ts'
import { readParameters, type WaypointParameters } from '../../config/waypoint-parameters.ts'
import { waypointResources } from '../../config/waypoint.ts'

export type Owner = 'Deployment' | 'Pod' | 'Gateway'

/** A set of equal pods. */
export interface PodSet {
  /** `Deployment/namespace/name`. */
  readonly key: string
  readonly owner: Owner
  readonly namespace: string
  readonly name: string
  readonly replicas: number
  /** Of everything that makes a pod different: another hash = other pods. */
  readonly hash: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly serviceAccount: string
  readonly spec: PodSpec
}

export interface ServiceWish {
  readonly namespace: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly spec: ServiceBody['spec']
}

export interface Desired {
  readonly podSets: readonly PodSet[]
  readonly services: readonly ServiceWish[]
  /** What the sandbox does not do for these resources, one sentence each. */
  readonly notes: readonly string[]
}

/** Shown in the pods' objects; nothing is pulled. */
const WAYPOINT_IMAGE = 'ambit:latest'

function hashOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 10)
}

/** Parts of a pod that the sandbox leaves out, by their field. */
const LEFT_OUT: readonly (readonly [string, string])[] = [
  ['initContainers', 'init containers are not run'],
  ['volumes', 'volumes are not mounted'],
]

function podSet(
  owner: Owner,
  metadata: Pick<Resource['metadata'], 'namespace' | 'name' | 'labels' | 'annotations'>,
  replicas: number,
  spec: PodSpec,
): PodSet {
  const serviceAccount = spec.serviceAccountName ?? 'default'
  return {
    key: `${owner}/${metadata.namespace}/${metadata.name}`,
    owner,
    namespace: metadata.namespace,
    name: metadata.name,
    replicas,
    hash: hashOf([metadata.labels, metadata.annotations, spec]),
    labels: metadata.labels,
    annotations: metadata.annotations,
    serviceAccount,
    spec,
  }
}

/** The Deployment and the Service that a waypoint Gateway stands for. Throws CONFIG_PARAMETERS_INVALID. */
function waypointOf(
  resource: Resource<GatewayBody>,
  control: string,
  parameters: readonly WaypointParameters[],
): { set: PodSet; services: ServiceWish[] } {
  const made = waypointResources(resource, { image: WAYPOINT_IMAGE, control, sandbox: true, parameters }).flatMap(
    (object) => parseObject(object).resources,
  )
  const deployment = made.find((one) => one.kind === 'Deployment') as Resource<DeploymentBody>
  return {
    set: deploymentSet('Gateway', deployment),
    services: made.filter((one) => one.kind === 'Service').map((one) => serviceWish(one as Resource<ServiceBody>)),
  }
}

function parametersOf(gateway: Resource<GatewayBody>, resources: readonly Resource[]): WaypointParameters[] {
  const name = gateway.body.spec.infrastructure?.parametersRef?.name
  if (name === undefined) return []
  const found = resources.find(
    (one) =>
      one.definition === (configMap as Resource['definition']) &&
      one.metadata.namespace === gateway.metadata.namespace &&
      one.metadata.name === name,
  ) as Resource<ConfigMapBody> | undefined
  if (!found) throw new AmbitError('CONFIG_PARAMETERS_INVALID', `there is no ConfigMap ${name} in its namespace`)
  return [readParameters(name, found.body.data ?? {})]
}

function deploymentSet(owner: Owner, resource: Resource<DeploymentBody>): PodSet {
  const { metadata, body } = resource
  return podSet(
    owner,
    {
      namespace: metadata.namespace,
      name: metadata.name,
      labels: body.spec.template.metadata?.labels ?? {},
      annotations: body.spec.template.metadata?.annotations ?? {},
    },
    body.spec.replicas ?? 1,
    body.spec.template.spec,
  )
}

function serviceWish({ metadata, body }: Resource<ServiceBody>): ServiceWish {
  const { namespace, name, labels, annotations } = metadata
  return { namespace, name, labels, annotations, spec: body.spec }
}

/** Reads the wishes out of checked resources. `control`: `host:port` for waypoints. */
export function desiredOf(resources: readonly Resource[], control: string): Desired {
  const podSets: PodSet[] = []
  const services: ServiceWish[] = []
  const notes = new Set<string>()
  for (const resource of resources) {
    const { metadata } = resource
    switch (resource.kind) {
      case 'Deployment':
        podSets.push(deploymentSet('Deployment', resource as Resource<DeploymentBody>))
        break
      case 'Pod':
        podSets.push(podSet('Pod', metadata, 1, (resource as Resource<PodBody>).body.spec))
        break
      case 'Service':
        services.push(serviceWish(resource as Resource<ServiceBody>))
        break
      case 'Gateway': {
        const gateway = resource as Resource<GatewayBody>
        if (resource.definition.group !== 'gateway.networking.k8s.io' || !isWaypoint(gateway)) break
        let made: ReturnType<typeof waypointOf>
        try {
          made = waypointOf(gateway, control, parametersOf(gateway, resources))
        } catch (error) {
          notes.add(`Gateway ${metadata.namespace}/${metadata.name} runs without its parameters: ${messageOf(error)}.`)
          made = waypointOf(gateway, control, [])
        }
        podSets.push(made.set)
        services.push(...made.services)
        break
      }
      case 'StatefulSet':
      case 'DaemonSet':
      case 'Job':
      case 'CronJob':
      case 'ReplicaSet':
        notes.add(
          `${resource.kind} ${metadata.namespace}/${metadata.name}: the sandbox runs Deployments and Pods only.`,
        )
        break
      default:
    }
  }
  for (const set of podSets.filter((one) => one.owner !== 'Gateway'))
    for (const [field, what] of LEFT_OUT)
      if (Array.isArray(set.spec[field]) && set.spec[field].length > 0)
        notes.add(`${set.owner} ${set.namespace}/${set.name}: ${what} in the sandbox.`)
  return { podSets, services, notes: [...notes] }
}
