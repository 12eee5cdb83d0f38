// What spec.infrastructure.parametersRef of a waypoint's Gateway asks for: a ConfigMap whose keys are partial objects, laid over
// those that control makes, as Istio has it. Pure. Must not live here: the objects (waypoint.ts), the merge (strategic-merge.ts).
import { parseDocument } from 'yaml'
import { AmbitError } from '../base/errors.ts'
import type { GatewayBody } from './gateway.ts'
import { strategicMerge } from './strategic-merge.ts'
import { WAYPOINT_CONTAINER } from './waypoint-pod.ts'
import type { KubernetesObject } from './waypoint.ts'

type Fields = Readonly<Record<string, unknown>>

const KINDS = {
  serviceAccount: 'ServiceAccount',
  service: 'Service',
  deployment: 'Deployment',
  podDisruptionBudget: 'PodDisruptionBudget',
  horizontalPodAutoscaler: 'HorizontalPodAutoscaler',
} as const
type Key = keyof typeof KINDS

export type WaypointParameters = Readonly<Partial<Record<Key, Fields>>>

/** Longest text of one key: an overlay is a screenful. */
const MAX_TEXT = 65_536

/** What a Gateway or GatewayClass refers to. */
export interface ParametersRef {
  readonly group: string
  readonly kind: string
  readonly name: string
}

/** Undefined where there is none. Throws CONFIG_PARAMETERS_INVALID for what is no ConfigMap. */
export function parametersRefOf(
  ref: NonNullable<GatewayBody['spec']['infrastructure']>['parametersRef'],
): string | undefined {
  if (!ref) return undefined
  const { group, kind, name } = ref
  if (group === '' && kind === 'ConfigMap') return name
  throw invalid(
    `parametersRef names a ${kind} of group '${group}'`,
    "Write group: '', kind: ConfigMap and the name of one.",
  )
}

/** Reads the data of the ConfigMap `name`. Throws CONFIG_PARAMETERS_INVALID naming the key. */
export function readParameters(name: string, data: Readonly<Record<string, string>>): WaypointParameters {
  const parameters: Partial<Record<Key, Fields>> = {}
  for (const [key, text] of Object.entries(data)) {
    const where = `key ${key} of ConfigMap ${name}`
    if (!Object.hasOwn(KINDS, key))
      throw invalid(`${where} is none of a waypoint's`, `There are ${Object.keys(KINDS).join(', ')}.`)
    if (text.length > MAX_TEXT)
      throw invalid(`${where} is longer than ${MAX_TEXT} characters`, 'Say only what differs.')
    const document = parseDocument(text)
    const [error] = document.errors
    if (error)
      throw invalid(
        `${where} is no YAML: ${error.message.split('\n')[0]}`,
        'Write a part of the object, beginning with spec:.',
      )
    let value: unknown
    try {
      value = document.toJS({ maxAliasCount: 100 })
    } catch (cause) {
      throw invalid(`${where} has too many aliases`, 'Write them out.', cause)
    }
    if (value === null || value === undefined) continue
    if (!isMap(value)) throw invalid(`${where} is no map`, 'Write a part of the object, beginning with spec:.')
    parameters[key as Key] = value
  }
  if (parameters.horizontalPodAutoscaler && replicasOf(parameters.deployment) !== undefined) {
    throw invalid(
      `ConfigMap ${name} gives deployment.spec.replicas and a horizontalPodAutoscaler`,
      'Leave the replicas away: the autoscaler sets them.',
    )
  }
  return parameters
}

/** What stays as it is: without it the waypoint would not be found, not be trusted, or be captured itself. */
const FIXED: Readonly<Record<string, readonly string[]>> = {
  '*': ['apiVersion', 'kind', 'metadata.name', 'metadata.namespace', 'metadata.ownerReferences'],
  Service: ['spec.selector'],
  Deployment: ['spec.selector', 'spec.template.spec.serviceAccountName', 'spec.template.spec.hostNetwork'],
  PodDisruptionBudget: ['spec.selector'],
  HorizontalPodAutoscaler: ['spec.scaleTargetRef'],
}
/** Maps that may get more, while what is in them stays. */
const KEPT: Readonly<Record<string, readonly string[]>> = {
  '*': ['metadata.labels'],
  Deployment: ['spec.template.metadata.labels'],
}

/** Lays parameters over the objects they are for. Throws CONFIG_PARAMETERS_INVALID. */
export function withParameters(
  objects: readonly KubernetesObject[],
  parameters: WaypointParameters,
): readonly KubernetesObject[] {
  return objects.map((object) => {
    const key = (Object.keys(KINDS) as Key[]).find((one) => KINDS[one] === object.kind)
    const patch = key && parameters[key]
    if (!key || !patch) return object
    let merged: KubernetesObject
    try {
      merged = strategicMerge(object, key === 'deployment' ? renamed(patch) : patch) as KubernetesObject
    } catch (cause) {
      throw invalid(`the parameter ${key} is nested too deeply`, 'Say only what differs.', cause)
    }
    if (key === 'podDisruptionBudget') merged = withOneBound(merged, patch)
    for (const path of [...FIXED['*']!, ...(FIXED[object.kind] ?? [])]) {
      if (JSON.stringify(at(merged, path)) !== JSON.stringify(at(object, path)))
        throw invalid(`the parameter ${key} changes ${path}`, 'Leave it away: it is what makes this a waypoint.')
    }
    for (const path of [...KEPT['*']!, ...(KEPT[object.kind] ?? [])]) {
      const after = at(merged, path)
      for (const [name, value] of Object.entries((at(object, path) ?? {}) as Fields))
        if (!isMap(after) || after[name] !== value)
          throw invalid(`the parameter ${key} changes ${path}["${name}"]`, 'Add labels; those of Ambit stay.')
    }
    return merged
  })
}

/** Istio's parameters speak of its proxy's container. */
function renamed(patch: Fields): Fields {
  const containers = at(patch, 'spec.template.spec.containers')
  if (!Array.isArray(containers)) return patch
  const to = containers.map((one: unknown) =>
    isMap(one) && one['name'] === 'istio-proxy' ? { ...one, name: WAYPOINT_CONTAINER } : one,
  )
  const spec = patch['spec'] as { template: { spec: Fields } }
  return {
    ...patch,
    spec: { ...spec, template: { ...spec.template, spec: { ...spec.template.spec, containers: to } } },
  }
}

/** A budget has either bound: who gives minAvailable does not want the other one of ours. */
function withOneBound(merged: KubernetesObject, patch: Fields): KubernetesObject {
  if (at(patch, 'spec.minAvailable') === undefined || at(patch, 'spec.maxUnavailable') !== undefined) return merged
  const { maxUnavailable: _, ...spec } = merged.spec as Fields
  return { ...merged, spec }
}

function replicasOf(deployment: Fields | undefined): unknown {
  return at(deployment, 'spec.replicas')
}

function at(value: unknown, path: string): unknown {
  let found = value
  for (const step of path.split('.')) found = isMap(found) && Object.hasOwn(found, step) ? found[step] : undefined
  return found
}

function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(what: string, hint: string, cause?: unknown): AmbitError {
  return new AmbitError('CONFIG_PARAMETERS_INVALID', `${what}`, { hint, ...(cause === undefined ? {} : { cause }) })
}
