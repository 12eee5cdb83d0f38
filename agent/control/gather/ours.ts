// Which objects of Gateway API are Ambit's to judge: others run controllers of their own beside it, and their Gateways and routes
// are none of its business. Must not live here: judging them (report/, admit/).
import { WAYPOINT_CLASSES } from '../../config/gateway.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { CONTROLLER_NAME } from '../operate/wishes.ts'
import type { ObjectView } from './objects.ts'

export const GATEWAY_API = 'gateway.networking.k8s.io'

const kindOf = (kind: string): Resource =>
  CONFIG_KINDS.find((one) => one.group === GATEWAY_API && one.kind === kind) as Resource
export const GATEWAYS = kindOf('Gateway')
export const GATEWAY_CLASSES = kindOf('GatewayClass')
export const ROUTES = kindOf('HTTPRoute')

interface Parent {
  readonly group?: unknown
  readonly kind?: unknown
  readonly namespace?: unknown
  readonly name?: unknown
}
export type Held = Pick<ObjectView, 'get'>

const specOf = (object: unknown): Readonly<Record<string, unknown>> =>
  ((object as { spec?: unknown } | undefined)?.spec ?? {}) as Readonly<Record<string, unknown>>

export function isOurClass(gatewayClass: unknown): boolean {
  return specOf(gatewayClass)['controllerName'] === CONTROLLER_NAME
}

/** A waypoint's, of a class that no other controller has (Gateway API: a class has one). */
export function isOurGateway(gateway: unknown, held: Held): boolean {
  const className = String(specOf(gateway)['gatewayClassName'])
  if (!WAYPOINT_CLASSES.includes(className)) return false
  const found = held.get(GATEWAY_CLASSES, '', className)
  return found === undefined || isOurClass(found)
}

/** A parent of a route in `namespace`: Services are the mesh's, Gateways by their class. */
export function isOurParent(parent: Parent, namespace: string, held: Held): boolean {
  if (parent.kind === 'Service') return true
  if ((parent.kind ?? 'Gateway') !== 'Gateway' || (parent.group ?? GATEWAY_API) !== GATEWAY_API) return false
  const gateway = held.get(
    GATEWAYS,
    typeof parent.namespace === 'string' ? parent.namespace : namespace,
    String(parent.name),
  )
  return gateway !== undefined && isOurGateway(gateway, held)
}

/** One of the kinds of the mesh is; of Gateway API's, what has to do with waypoints or Services. */
export function isOurs(group: string, kind: string, object: unknown, held: Held): boolean {
  if (group !== GATEWAY_API) return true
  switch (kind) {
    case 'GatewayClass':
      return isOurClass(object)
    case 'Gateway':
      return isOurGateway(object, held)
    case 'HTTPRoute': {
      const parents = specOf(object)['parentRefs']
      const { namespace = 'default' } = (object as KubeObject).metadata
      return Array.isArray(parents) && parents.some((one) => isOurParent((one ?? {}) as Parent, namespace, held))
    }
    default:
      return true
  }
}
