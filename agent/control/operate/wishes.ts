// What a Gateway wants: the objects of its waypoint, or none, or what is wrong with it. Must not live here: making them so
// (term.ts), what they are (config/waypoint.ts).
import { AmbitError, messageOf } from '../../base/errors.ts'
import { WAYPOINT_CLASSES, type GatewayBody } from '../../config/gateway.ts'
import { parseObject } from '../../config/load.ts'
import type { Resource } from '../../config/resource.ts'
import {
  parametersRefOf,
  readParameters,
  type ParametersRef,
  type WaypointParameters,
} from '../../config/waypoint-parameters.ts'
import { waypointResources, type KubernetesObject } from '../../config/waypoint.ts'
import { keyOf, type KubeObject } from '../../kube/resource.ts'
import type { WaypointProblem } from './facts.ts'
import type { ParameterMap } from './parameter-maps.ts'

export type Wish =
  | {
      readonly kind: 'objects'
      readonly objects: readonly KubernetesObject[]
      /** It has parameters: what the API server refuses may be theirs. */
      readonly parameters: boolean
    }
  /** It is no waypoint (any more): what was made for it goes. */
  | { readonly kind: 'nothing' }
  /** Things stay as they are, until it changes. */
  | { readonly kind: 'wait'; readonly problem?: WaypointProblem; readonly again?: boolean }

/** In the GatewayClasses whose Gateways are ours; a class that is only a name is ours too. */
export const CONTROLLER_NAME = 'ambit.io/gateway-controller'

export interface WishOptions {
  readonly image: string | undefined
  readonly control: string
  /** Its GatewayClass, if there is one. */
  readonly gatewayClass: KubeObject | undefined
  parameterMap(namespace: string, name: string): ParameterMap
}

interface RawGateway extends KubeObject {
  readonly spec?: { readonly gatewayClassName?: string }
}
interface RawClass extends KubeObject {
  readonly spec?: {
    readonly controllerName?: string
    readonly parametersRef?: ParametersRef & { readonly namespace?: string }
  }
}

/** `used` gets the keys of the ConfigMaps that were looked at. */
export function wishOf(gateway: KubeObject, options: WishOptions, used: Set<string>): Wish {
  if (!WAYPOINT_CLASSES.includes((gateway as RawGateway).spec?.gatewayClassName ?? '')) return { kind: 'nothing' }
  const { controllerName } = (options.gatewayClass as RawClass | undefined)?.spec ?? {}
  // Gateway API's law: a class has one controller. Where Istio runs beside Ambit, istio-waypoint is its own.
  if (controllerName !== undefined && controllerName !== CONTROLLER_NAME) return { kind: 'nothing' }
  // It goes, and takes all of it along.
  if (gateway.metadata.deletionTimestamp !== undefined) return { kind: 'wait' }
  const resource = parseObject(gateway).resources[0] as Resource<GatewayBody> | undefined
  // Refused as a resource, and told so as one.
  if (!resource) return { kind: 'wait' }
  const { image, control } = options
  if (image === undefined) {
    return waits(
      'refused',
      'CONTROL_NO_IMAGE',
      'Control was not told which image waypoints run.',
      'Start it with --image or AMBIT_IMAGE.',
    )
  }
  try {
    const parameters: WaypointParameters[] = []
    for (const ref of refsOf(resource, options.gatewayClass)) {
      used.add(keyOf(ref))
      const map = options.parameterMap(ref.namespace, ref.name)
      if (map.kind === 'waiting') {
        if (map.why === undefined) return { kind: 'wait', again: true }
        const message = `${describe(ref)} cannot be read: ${map.why}.`
        const wait = waits('refused', 'CONTROL_NO_PARAMETERS', message, 'May control list and watch ConfigMaps?')
        return { ...wait, again: true }
      }
      if (map.kind === 'too-many')
        throw invalid(
          `${describe(ref)} is one too many to be followed.`,
          'Let several Gateways name the same ConfigMap.',
        )
      if (map.kind === 'absent')
        throw invalid(`${describe(ref)} does not exist.`, 'Make it, or take the reference away.')
      parameters.push(readParameters(ref.name, map.data))
    }
    const objects = waypointResources(resource, { image, control, parameters })
    return { kind: 'objects', objects, parameters: parameters.length > 0 }
  } catch (error) {
    const hint = error instanceof AmbitError ? (error.hint ?? '') : ''
    return waits('parameters', 'CONFIG_PARAMETERS_INVALID', sentence(messageOf(error)), hint)
  }
}

interface Ref {
  readonly namespace: string
  readonly name: string
  readonly from: string
}

/** The class's first: the Gateway's lies over it. */
function refsOf(gateway: Resource<GatewayBody>, gatewayClass: KubeObject | undefined): Ref[] {
  const refs: Ref[] = []
  const ofClass = (gatewayClass as RawClass | undefined)?.spec?.parametersRef
  if (ofClass) {
    const name = parametersRefOf(ofClass)
    if (ofClass.namespace === undefined)
      throw invalid('The parametersRef of the GatewayClass names no namespace.', 'Add it: a class has none.')
    if (name !== undefined)
      refs.push({ namespace: ofClass.namespace, name, from: `GatewayClass ${gatewayClass?.metadata.name}` })
  }
  const { namespace, name: own } = gateway.metadata
  const name = parametersRefOf(gateway.body.spec.infrastructure?.parametersRef)
  if (name !== undefined) refs.push({ namespace, name, from: `Gateway ${own}` })
  return refs
}

function describe({ namespace, name, from }: Ref): string {
  return `ConfigMap ${namespace}/${name}, which ${from} names,`
}

function waits(
  kind: WaypointProblem['kind'],
  code: string,
  message: string,
  hint: string,
): Extract<Wish, { kind: 'wait' }> {
  return { kind: 'wait', problem: { kind, code, message, hint } }
}

function invalid(message: string, hint: string): AmbitError {
  return new AmbitError('CONFIG_PARAMETERS_INVALID', message, { hint })
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, '.')
}
