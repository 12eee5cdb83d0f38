// Which resources a waypoint needs: the services and workloads that use it, where their routes lead, the policies that
// speak about them, and whoever may call (a client's labels and place are read from its workload). Agents get all of
// their kinds, of pods those of their node. Must not live here: encoding (publisher.ts), streams (wire/).
import type { Translation, WaypointGateway } from '../../config/translation.ts'
import { WAYPOINT_CLASSES } from '../../mesh/applicable.ts'
import type { Policy } from '../../mesh/policy.ts'
import type { Route } from '../../mesh/route.ts'
import { serviceKey } from '../../mesh/service.ts'
import { routeKey, upstreamKey } from '../../mesh/state.ts'
import { agentKinds, waypointKinds, type ResourceKind } from '../../wire/contract.ts'
import type { ClientScope } from '../../wire/xds-stream.ts'

/** Everything but the pods of other nodes. `node`: as the agent's token proves it. */
export function agentScope(node: string): ClientScope {
  const own = `${node}/`
  return {
    kinds: agentKinds,
    version: () => 0,
    includes: (kind, name) => kind !== 'Pod' || name.startsWith(own),
  }
}

type Names = ReadonlyMap<ResourceKind, ReadonlySet<string>>

/** The scopes of all waypoints that are connected; recomputed per snapshot, changed only if they differ. */
export class WaypointScopes {
  readonly #scopes = new Map<string, { names: Names }>()
  #translation: Translation | undefined

  update(translation: Translation): void {
    this.#translation = translation
    const policies = new Set(translation.policies.map((policy) => `${policy.namespace}/${policy.name}`))
    for (const [key, scope] of this.#scopes) {
      // A Gateway that is gone is on its way down: taking its state from it piece by piece would open it meanwhile.
      if (!gatewayOf(translation, key)) continue
      const names = new Map(neededBy(translation, key))
      // A policy once given stays for as long as it exists: it must not leave before the service it guards.
      const kept = [...(scope.names.get('Policy') ?? [])].filter((policy) => policies.has(policy))
      names.set('Policy', new Set([...kept, ...(names.get('Policy') ?? [])]))
      if (!sameNames(scope.names, names)) scope.names = names
    }
  }

  /** The scope of `namespace/gateway`, live. It is kept for as long as the program runs: there are few waypoints. */
  of(namespace: string, gateway: string): ClientScope {
    const key = `${namespace}/${gateway}`
    let scope = this.#scopes.get(key)
    if (!scope) {
      scope = { names: this.#translation ? neededBy(this.#translation, key) : new Map() }
      this.#scopes.set(key, scope)
    }
    const held = scope
    return {
      kinds: waypointKinds,
      version: () => held.names,
      includes: (kind, name) => kind === 'MeshSettings' || (held.names.get(kind)?.has(name) ?? false),
    }
  }
}

/** Names of everything the waypoint `namespace/gateway` needs; empty when its Gateway is gone. */
export function neededBy(translation: Translation, key: string): Names {
  const gateway = gatewayOf(translation, key)
  if (!gateway) return new Map()
  const own = new Set<string>()
  const namespaces = new Set<string>([gateway.namespace])
  for (const service of translation.services) {
    if (service.waypoint?.hostname !== gateway.service) continue
    own.add(serviceKey(service))
    namespaces.add(service.namespace)
  }
  const behind = translation.workloads.filter((workload) => workload.waypoint?.hostname === gateway.service)
  for (const workload of behind) {
    namespaces.add(workload.namespace)
    // A pod can be behind the waypoint although its service is not: calls to the pod then still find their service.
    for (const service of Object.keys(workload.services)) own.add(service)
  }
  const routes = translation.routes.filter((route) => own.has(`${route.namespace}/${route.hostname}`))
  const services = new Set([...own, gateway.service, ...routes.flatMap(destinationsOf)])
  // A destination with a waypoint of its own is reached through that one.
  for (const service of translation.services) {
    if (services.has(serviceKey(service)) && service.waypoint?.hostname) services.add(service.waypoint.hostname)
  }
  for (const workload of translation.workloads) {
    if (workload.waypoint?.hostname && Object.keys(workload.services).some((service) => services.has(service))) {
      services.add(workload.waypoint.hostname)
    }
  }
  const addresses = new Set(services)
  for (const workload of translation.workloads) {
    const endpoint = Object.keys(workload.services).some((service) => services.has(service))
    if (endpoint || workload.tunnelProtocol === 'HBONE') addresses.add(workload.uid)
  }
  const { rootNamespace } = translation.settings
  const policies = translation.policies.filter((policy) =>
    speaksAbout(policy, gateway, own, namespaces, rootNamespace, translation),
  )
  return new Map<ResourceKind, ReadonlySet<string>>([
    ['Address', addresses],
    ['Route', new Set(routes.map(routeKey))],
    ['Policy', new Set(policies.map((policy) => `${policy.namespace}/${policy.name}`))],
    [
      'Upstream',
      new Set(
        translation.upstreams
          .filter((upstream) => services.has(`${upstream.namespace}/${upstream.hostname}`))
          .map(upstreamKey),
      ),
    ],
  ])
}

function gatewayOf(translation: Translation, key: string): WaypointGateway | undefined {
  return translation.waypoints.find((one) => `${one.namespace}/${one.name}` === key)
}

function destinationsOf(route: Route): string[] {
  const destinations = [
    ...route.rules.flatMap((rule) => (rule.action.type === 'forward' ? rule.action.destinations : [])),
    ...route.tcp.flatMap((rule) => rule.destinations),
  ]
  return destinations.map((destination) => destination.service).filter((service) => service !== '')
}

function speaksAbout(
  policy: Policy,
  gateway: { namespace: string; name: string },
  own: ReadonlySet<string>,
  namespaces: ReadonlySet<string>,
  rootNamespace: string,
  translation: Translation,
): boolean {
  switch (policy.scope) {
    case 'global':
      return true
    case 'namespace':
      return namespaces.has(policy.namespace)
    case 'workload':
      return namespaces.has(policy.namespace) || policy.namespace === rootNamespace
    case 'target':
      return policy.targets.some((target) => {
        if (target.kind === 'Gateway') return target.namespace === gateway.namespace && target.name === gateway.name
        if (target.kind === 'GatewayClass') return WAYPOINT_CLASSES.includes(target.name)
        return translation.services.some(
          (service) =>
            service.namespace === target.namespace && service.name === target.name && own.has(serviceKey(service)),
        )
      })
  }
}

function sameNames(a: Names, b: Names): boolean {
  if (a.size !== b.size) return false
  for (const [kind, names] of a) {
    const others = b.get(kind)
    if (!others || others.size !== names.size) return false
    for (const name of names) if (!others.has(name)) return false
  }
  return true
}
