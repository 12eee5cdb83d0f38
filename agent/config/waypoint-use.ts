// Who uses which waypoint: the use-waypoint labels of pods, services and namespaces against the Gateways there are.
// A label that names a waypoint which is missing, or may not be used from here, still counts: the reference then leads
// nowhere and agents refuse (Istio goes direct). Must not live here: the Gateway itself (gateway.ts).
import type { GatewayRef } from '../mesh/workload.ts'
import type { Context } from './context.ts'
import { gateway, isWaypoint, toWaypoint } from './gateway.ts'
import { gatewayName, meshLabel } from './labels.ts'
import type { Resource } from './resource.ts'
import { serviceHost } from './service.ts'
import type { WaypointGateway } from './translation.ts'

const HBONE_PORT = 15008

export class WaypointUse {
  readonly waypoints: readonly WaypointGateway[]
  readonly #context: Context
  readonly #byName = new Map<string, WaypointGateway>()

  constructor(context: Context) {
    this.#context = context
    this.waypoints = context
      .of(gateway)
      .filter(isWaypoint)
      .map((one) => toWaypoint(one, context.settings.clusterDomain, (wanted) => context.selectNamespaces(wanted)))
    for (const one of this.waypoints) this.#byName.set(`${one.namespace}/${one.name}`, one)
  }

  /** True for the pods and the Service of a waypoint: they have none themselves. */
  isPartOfWaypoint(resource: Resource): boolean {
    const { labels, namespace, name } = resource.metadata
    const made = gatewayName(labels)
    if (made !== undefined && this.#byName.has(`${namespace}/${made}`)) return true
    const className = labels['gateway.networking.k8s.io/gateway-class-name']
    if (className === 'ambit-waypoint' || className === 'istio-waypoint') return true
    return resource.kind === 'Service' && this.#byName.has(`${namespace}/${name}`)
  }

  /** The waypoint for traffic to a service, or to a pod's own address. */
  of(resource: Resource, purpose: 'service' | 'workload'): GatewayRef | undefined {
    if (this.isPartOfWaypoint(resource)) return undefined
    const { namespace, labels } = resource.metadata
    const own = meshLabel(labels, 'use-waypoint')
    const from = own ? { label: own, labels, holder: resource } : this.#ofNamespace(namespace)
    if (!from || from.label.value === 'none') return undefined
    const home = meshLabel(from.labels, 'use-waypoint-namespace')?.value ?? namespace
    const found = this.#byName.get(`${home}/${from.label.value}`)
    const { clusterDomain } = this.#context.settings
    const hostname = serviceHost(from.label.value, home, clusterDomain)
    if (!found) {
      this.#tell(
        from.holder,
        from.label.key,
        `${from.label.value} in namespace ${home} is no waypoint: there is no such Gateway of class ambit-waypoint. Traffic to what is labelled so is refused.`,
        'CONFIG_UNKNOWN_GATEWAY',
      )
      return { hostname: `${home}/${hostname}`, port: HBONE_PORT }
    }
    if (home !== namespace && !found.allowedNamespaces.includes('*') && !found.allowedNamespaces.includes(namespace)) {
      this.#tell(
        from.holder,
        from.label.key,
        `The Gateway ${home}/${found.name} does not allow namespace ${namespace} to use it. Traffic to what is labelled so is refused.`,
        'CONFIG_NOT_PERMITTED',
      )
      // A service of that name in this namespace there is not, so the reference leads nowhere.
      return { hostname: `${namespace}/${hostname}`, port: HBONE_PORT }
    }
    if (found.waypointFor === 'none' || (found.waypointFor !== 'all' && found.waypointFor !== purpose)) return undefined
    return { hostname: found.service, port: HBONE_PORT }
  }

  #ofNamespace(name: string) {
    const labels = this.#context.namespaceLabels(name)
    const label = meshLabel(labels, 'use-waypoint')
    const holder = this.#context.namespaceResource(name)
    return label && holder ? { label, labels, holder } : undefined
  }

  #tell(holder: Resource, key: string, message: string, code: 'CONFIG_UNKNOWN_GATEWAY' | 'CONFIG_NOT_PERMITTED'): void {
    const hint =
      code === 'CONFIG_UNKNOWN_GATEWAY'
        ? 'Add the Gateway, or remove the label.'
        : 'Set allowedRoutes.namespaces of its HBONE listener.'
    this.#context.reportOnce(holder, { severity: 'error', code, path: ['metadata', 'labels', key], message, hint })
  }
}
