// What the waypoint knows about one destination, compiled from the mesh state when it is first asked for and thrown away when
// the state changes: routes, policies, the upstream policy. A request touches no resource. Must not live here: evaluation
// (mesh/), connections (upstream/).
import type { Logger } from '../../base/log.ts'
import { messageOf } from '../../base/errors.ts'
import { policyGroups, waypointPolicies, type WaypointName } from '../../mesh/applicable.ts'
import { compilePolicies, type CompiledPolicies } from '../../mesh/authorize.ts'
import { lowerPolicy } from '../../mesh/lower.ts'
import { compileRoute, type CompiledRoute } from '../../mesh/match-route.ts'
import type { Policy } from '../../mesh/policy.ts'
import type { Route } from '../../mesh/route.ts'
import { serviceKey, type Service } from '../../mesh/service.ts'
import { defaultSettings } from '../../mesh/settings.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import { clientNamespace, type Downstream } from '../downstream.ts'
import type { Clusters } from '../upstream/clusters.ts'
import { Dialed } from './dialed.ts'

export interface ServiceTable {
  readonly service: Service | undefined
  /** Absent: no route, plain forwarding to the service. 'broken': a route that does not compile; every request is refused. */
  readonly route: CompiledRoute | 'broken' | undefined
  /** What holds for every endpoint, judged before routing; undefined when endpoints differ. */
  readonly common: CompiledPolicies | undefined
  /** The policies of a chosen endpoint. */
  forEndpoint(workload: Workload): CompiledPolicies
  /** The same for an opaque connection: what asks about requests fails closed (mesh/lower.ts). */
  forConnection(workload: Workload): CompiledPolicies
}

const denied = compilePolicies([], defaultSettings, ['the destination'])

/** Nothing is known of what was dialled: no policy can be judged, so nothing is let through. */
export const noTable: ServiceTable = {
  service: undefined,
  route: undefined,
  common: denied,
  forEndpoint: () => denied,
  forConnection: () => denied,
}

/** Bound on tables held between two changes of the state: destinations × client namespaces in use. */
const MAX_TABLES = 10_000

export class Tables {
  readonly #state: MeshState
  readonly #waypoint: WaypointName
  readonly #log: Logger
  readonly #tables = new Map<string, ServiceTable>()
  readonly #dialed = new Map<string, Dialed>()
  readonly #policies = new Map<string, CompiledPolicies>()
  /** Routes keep their compiled form across changes of other things: regular expressions are costly. */
  readonly #routes = new WeakMap<Route, CompiledRoute | 'broken'>()
  #version = -1

  constructor(state: MeshState, waypoint: WaypointName, log: Logger) {
    this.#state = state
    this.#waypoint = waypoint
    this.#log = log
  }

  /** The table of a dialled service, as clients of a namespace see it. */
  forService(service: Service, consumerNamespace: string): ServiceTable {
    this.#refresh()
    const key = serviceKey(service)
    const name = `${key} ${consumerNamespace}`
    let table = this.#tables.get(name)
    if (!table) {
      const groups = policyGroups(this.#state, this.#waypoint, service)
      const route = this.#state.route(key, consumerNamespace)
      const endpoints = new Map<Workload, CompiledPolicies>()
      table = {
        service,
        route: route && this.#compileRoute(route),
        common: groups.length === 1 && groups[0] ? this.#compile(groups[0].policies) : undefined,
        forEndpoint: (workload) => {
          let compiled = endpoints.get(workload)
          if (!compiled) {
            compiled = this.#compile(waypointPolicies(this.#state, this.#waypoint, service, workload))
            endpoints.set(workload, compiled)
          }
          return compiled
        },
        forConnection: (workload) => this.#lower(waypointPolicies(this.#state, this.#waypoint, service, workload)),
      }
      this.#keep(name, table)
    }
    return table
  }

  /** The table of a pod dialled by its own address: its policies, no routes. */
  forWorkload(workload: Workload): ServiceTable {
    this.#refresh()
    let table = this.#tables.get(workload.uid)
    if (!table) {
      const policies = waypointPolicies(this.#state, this.#waypoint, undefined, workload)
      const compiled = this.#compile(policies)
      table = {
        service: undefined,
        route: undefined,
        common: compiled,
        forEndpoint: () => compiled,
        forConnection: () => this.#lower(policies),
      }
      this.#keep(workload.uid, table)
    }
    return table
  }

  /** What a client dialled, with where it leads. */
  dial(downstream: Downstream, clusters: Clusters): Dialed {
    this.#refresh()
    const { service, workload, address, port } = downstream
    const consumerNamespace = clientNamespace(downstream)
    const what = service ? serviceKey(service) : workload ? `${workload.uid} ${address}` : ''
    const key = `${what} ${port} ${consumerNamespace}`
    let dialed = this.#dialed.get(key)
    if (!dialed) {
      const table = service
        ? this.forService(service, consumerNamespace)
        : workload
          ? this.forWorkload(workload)
          : noTable
      const state = this.#state
      dialed = new Dialed({ table, state, clusters, service, workload, address, port, consumerNamespace })
      if (this.#dialed.size >= MAX_TABLES) this.#dialed.clear()
      this.#dialed.set(key, dialed)
    }
    return dialed
  }

  #refresh(): void {
    if (this.#version === this.#state.version) return
    this.#version = this.#state.version
    this.#tables.clear()
    this.#dialed.clear()
    this.#policies.clear()
  }

  #keep(name: string, table: ServiceTable): void {
    if (this.#tables.size >= MAX_TABLES) this.#tables.clear()
    this.#tables.set(name, table)
  }

  /** One compiled object per set of policies, so that "already judged" is a comparison of references. */
  #compile(policies: readonly Policy[]): CompiledPolicies {
    const key = policies.map((policy) => `${policy.namespace}/${policy.name}`).join(' ')
    let compiled = this.#policies.get(key)
    if (!compiled) this.#policies.set(key, (compiled = compilePolicies(policies, this.#state.settings)))
    return compiled
  }

  #lower(policies: readonly Policy[]): CompiledPolicies {
    const { settings } = this.#state
    const lowered: Policy[] = []
    for (const policy of policies) {
      // lowerPolicy is written for agents, which know nothing of targets: here they have been resolved already.
      const one = lowerPolicy({ ...policy, scope: 'workload' }, settings)
      if (one) lowered.push(one)
    }
    return compilePolicies(lowered, settings)
  }

  #compileRoute(route: Route): CompiledRoute | 'broken' {
    const known = this.#routes.get(route)
    if (known) return known
    let compiled: CompiledRoute | 'broken'
    try {
      compiled = compileRoute(route)
    } catch (error) {
      // Control checks expressions before it publishes; one that comes all the same must not open the route.
      this.#log.error({ route: `${route.namespace}/${route.hostname}`, error: messageOf(error) }, 'route refused')
      compiled = 'broken'
    }
    this.#routes.set(route, compiled)
    return compiled
  }
}
