// What one program knows of the mesh: an index over workloads, services, policies, routes, upstreams. Fed by the wire
// (agent, waypoint) or by a folder of YAML (cli); read by the decisions of this room. Updates are one resource at a time,
// in any order: an address belongs to the workload that claimed it last, references are resolved when read.
// Must not live here: decisions, I/O, time.
import { nodePodKey, type NodePod } from './pod.ts'
import type { Policy } from './policy.ts'
import type { Route } from './route.ts'
import { serviceKey, type Service } from './service.ts'
import { defaultSettings, type MeshSettings } from './settings.ts'
import type { Upstream } from './upstream.ts'
import type { GatewayRef, Workload } from './workload.ts'

/** The part of the state that decisions read. */
export interface MeshView {
  readonly settings: MeshSettings
  workload(uid: string): Workload | undefined
  workloadByAddress(address: string): Workload | undefined
  /** A pod of this agent's own node, by what the kubelet calls it or by its metadata.uid. */
  pod(uid: string): NodePod | undefined
  /** The pods of this agent's own node. */
  pods(): Iterable<NodePod>
  service(key: string): Service | undefined
  servicesByAddress(address: string): readonly Service[]
  /** Workloads that list the service, healthy or not, in a stable order. */
  endpoints(serviceKey: string): readonly Workload[]
  /** Key `namespace/name`. */
  policy(key: string): Policy | undefined
  policies(): Iterable<Policy>
  /** Policies of the whole mesh that select by no label and no target. */
  globalPolicies(): readonly Policy[]
  /** Policies of one namespace that select by no label and no target. */
  namespacePolicies(namespace: string): readonly Policy[]
  /** Grows with every change, so that what was compiled from the state knows when it is stale. */
  readonly version: number
  /** The consumer's own route, else the one for everyone; HTTPRoute before VirtualService. */
  route(serviceKey: string, consumerNamespace: string): Route | undefined
  upstream(serviceKey: string, consumerNamespace: string): Upstream | undefined
  /** Workloads behind a waypoint reference; empty when it is missing. */
  gatewayWorkloads(ref: GatewayRef): readonly Workload[]
}

/** One change of the state: what was there before, what is there now. Routes and upstreams are not told of. */
export type MeshChange =
  | {
      readonly kind: 'workload'
      readonly before: Workload | undefined
      readonly after: Workload | undefined
      /** Those who lose an address to it. */
      readonly displaced: readonly Workload[]
    }
  | { readonly kind: 'service'; readonly before: Service | undefined; readonly after: Service | undefined }
  | { readonly kind: 'policy'; readonly before: Policy | undefined; readonly after: Policy | undefined }
  | { readonly kind: 'settings'; readonly before: MeshSettings; readonly after: MeshSettings }

const NONE: readonly never[] = []

export class MeshState implements MeshView {
  #settings: MeshSettings = defaultSettings
  version = 0
  readonly #workloads = new Map<string, Workload>()
  readonly #byAddress = new Map<string, Workload>()
  /** By name on the wire. */
  readonly #pods = new Map<string, NodePod>()
  readonly #podsByUid = new Map<string, NodePod>()
  readonly #services = new Map<string, Service>()
  readonly #servicesByAddress = new Map<string, Service[]>()
  readonly #endpoints = new Map<string, Map<string, Workload>>()
  readonly #endpointLists = new Map<string, readonly Workload[]>()
  readonly #policies = new Map<string, Policy>()
  /** By namespace for `namespace` scope, '' for `global`. */
  readonly #policiesByScope = new Map<string, readonly Policy[]>()
  readonly #routes = new Map<string, Route>()
  readonly #upstreams = new Map<string, Upstream>()
  readonly #watchers = new Set<(change: MeshChange) => void>()

  /** Told of each change right after it, in the call that makes it. Returns how to stop. */
  watch(watcher: (change: MeshChange) => void): () => void {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  #tell(change: MeshChange): void {
    for (const watcher of this.#watchers) watcher(change)
  }

  get settings(): MeshSettings {
    return this.#settings
  }

  set settings(settings: MeshSettings) {
    const before = this.#settings
    this.#settings = settings
    this.version++
    this.#tell({ kind: 'settings', before, after: settings })
  }

  workload(uid: string): Workload | undefined {
    return this.#workloads.get(uid)
  }

  workloads(): Iterable<Workload> {
    return this.#workloads.values()
  }

  workloadByAddress(address: string): Workload | undefined {
    return this.#byAddress.get(address)
  }

  pod(uid: string): NodePod | undefined {
    return this.#podsByUid.get(uid)
  }

  pods(): Iterable<NodePod> {
    return this.#pods.values()
  }

  /** Not told to watchers, nor counted in `version`: nothing is compiled from pods. */
  setPod(pod: NodePod): void {
    const key = nodePodKey(pod)
    this.removePod(key)
    this.#pods.set(key, pod)
    this.#podsByUid.set(pod.uid, pod)
    this.#podsByUid.set(pod.kubeletUid, pod)
  }

  removePod(key: string): void {
    const old = this.#pods.get(key)
    if (!old) return
    this.#pods.delete(key)
    // A static pod's file that is written anew can keep the hash: its later mirror may have come already.
    for (const uid of [old.uid, old.kubeletUid]) if (this.#podsByUid.get(uid) === old) this.#podsByUid.delete(uid)
  }

  service(key: string): Service | undefined {
    return this.#services.get(key)
  }

  services(): Iterable<Service> {
    return this.#services.values()
  }

  servicesByAddress(address: string): readonly Service[] {
    return this.#servicesByAddress.get(address) ?? NONE
  }

  endpoints(key: string): readonly Workload[] {
    let list = this.#endpointLists.get(key)
    if (!list) {
      list = [...(this.#endpoints.get(key)?.values() ?? [])].sort((a, b) => (a.uid < b.uid ? -1 : 1))
      this.#endpointLists.set(key, list)
    }
    return list
  }

  policy(key: string): Policy | undefined {
    return this.#policies.get(key)
  }

  policies(): Iterable<Policy> {
    return this.#policies.values()
  }

  globalPolicies(): readonly Policy[] {
    return this.#policiesByScope.get('') ?? NONE
  }

  namespacePolicies(namespace: string): readonly Policy[] {
    return this.#policiesByScope.get(namespace) ?? NONE
  }

  routes(): Iterable<Route> {
    return this.#routes.values()
  }

  upstreams(): Iterable<Upstream> {
    return this.#upstreams.values()
  }

  route(key: string, consumerNamespace: string): Route | undefined {
    return (
      this.#routes.get(`HTTPRoute/${key}/${consumerNamespace}`) ??
      this.#routes.get(`HTTPRoute/${key}/*`) ??
      this.#routes.get(`VirtualService/${key}/${consumerNamespace}`) ??
      this.#routes.get(`VirtualService/${key}/*`)
    )
  }

  upstream(key: string, consumerNamespace: string): Upstream | undefined {
    return this.#upstreams.get(`${key}/${consumerNamespace}`) ?? this.#upstreams.get(`${key}/*`)
  }

  gatewayWorkloads(ref: GatewayRef): readonly Workload[] {
    if (ref.hostname) return this.endpoints(ref.hostname)
    if (!ref.address) return NONE
    const workload = this.workloadByAddress(ref.address)
    if (workload) return [workload]
    const service = this.servicesByAddress(ref.address)[0]
    return service ? this.endpoints(serviceKey(service)) : NONE
  }

  setWorkload(workload: Workload): void {
    const before = this.#dropWorkload(workload.uid)
    this.version++
    this.#workloads.set(workload.uid, workload)
    // Host-network pods share their node's address, which is nobody's.
    const displaced: Workload[] = []
    if (!workload.hostNetwork) {
      for (const address of workload.addresses) {
        const owner = this.#byAddress.get(address)
        if (owner) displaced.push(owner)
        this.#byAddress.set(address, workload)
      }
    }
    for (const key of Object.keys(workload.services)) {
      let set = this.#endpoints.get(key)
      if (!set) this.#endpoints.set(key, (set = new Map()))
      set.set(workload.uid, workload)
      this.#endpointLists.delete(key)
    }
    this.#tell({ kind: 'workload', before, after: workload, displaced })
  }

  removeWorkload(uid: string): void {
    const before = this.#dropWorkload(uid)
    if (before) this.#tell({ kind: 'workload', before, after: undefined, displaced: NONE })
  }

  #dropWorkload(uid: string): Workload | undefined {
    const old = this.#workloads.get(uid)
    if (!old) return undefined
    this.version++
    this.#workloads.delete(uid)
    // Only if it still owns the address: a new pod may have taken it before this removal arrived.
    for (const address of old.addresses) if (this.#byAddress.get(address)?.uid === uid) this.#byAddress.delete(address)
    for (const key of Object.keys(old.services)) {
      const set = this.#endpoints.get(key)
      set?.delete(uid)
      if (set?.size === 0) this.#endpoints.delete(key)
      this.#endpointLists.delete(key)
    }
    return old
  }

  setService(service: Service): void {
    const key = serviceKey(service)
    const before = this.#dropService(key)
    this.version++
    this.#services.set(key, service)
    for (const address of service.addresses) {
      const list = this.#servicesByAddress.get(address)
      if (list) list.push(service)
      else this.#servicesByAddress.set(address, [service])
    }
    this.#tell({ kind: 'service', before, after: service })
  }

  removeService(key: string): void {
    const before = this.#dropService(key)
    if (before) this.#tell({ kind: 'service', before, after: undefined })
  }

  #dropService(key: string): Service | undefined {
    const old = this.#services.get(key)
    if (!old) return undefined
    this.version++
    this.#services.delete(key)
    for (const address of old.addresses) {
      const left = (this.#servicesByAddress.get(address) ?? []).filter((other) => other !== old)
      if (left.length > 0) this.#servicesByAddress.set(address, left)
      else this.#servicesByAddress.delete(address)
    }
    return old
  }

  setPolicy(policy: Policy): void {
    const key = `${policy.namespace}/${policy.name}`
    const before = this.#dropPolicy(key)
    this.version++
    this.#policies.set(key, policy)
    const scope = scopeKey(policy)
    if (scope !== undefined) {
      // In a stable order, so that the policy named as the decider does not depend on the order of arrival.
      const list = [...(this.#policiesByScope.get(scope) ?? []), policy].sort((a, b) => (a.name < b.name ? -1 : 1))
      this.#policiesByScope.set(scope, list)
    }
    this.#tell({ kind: 'policy', before, after: policy })
  }

  removePolicy(key: string): void {
    const before = this.#dropPolicy(key)
    if (before) this.#tell({ kind: 'policy', before, after: undefined })
  }

  #dropPolicy(key: string): Policy | undefined {
    const old = this.#policies.get(key)
    if (!old) return undefined
    this.version++
    this.#policies.delete(key)
    const scope = scopeKey(old)
    if (scope === undefined) return old
    const left = (this.#policiesByScope.get(scope) ?? []).filter((other) => other !== old)
    if (left.length > 0) this.#policiesByScope.set(scope, left)
    else this.#policiesByScope.delete(scope)
    return old
  }

  setRoute(route: Route): void {
    this.version++
    this.#routes.set(routeKey(route), route)
  }

  removeRoute(key: string): void {
    if (this.#routes.delete(key)) this.version++
  }

  setUpstream(upstream: Upstream): void {
    this.version++
    this.#upstreams.set(upstreamKey(upstream), upstream)
  }

  removeUpstream(key: string): void {
    if (this.#upstreams.delete(key)) this.version++
  }
}

function scopeKey(policy: Policy): string | undefined {
  return policy.scope === 'global' ? '' : policy.scope === 'namespace' ? policy.namespace : undefined
}

/** `dialect/namespace/hostname/consumer`: the name of a route on the wire. */
export function routeKey(route: Route): string {
  return `${route.dialect}/${route.namespace}/${route.hostname}/${route.consumerNamespace}`
}

/** `namespace/hostname/consumer`: the name of an upstream on the wire. */
export function upstreamKey(upstream: Upstream): string {
  return `${upstream.namespace}/${upstream.hostname}/${upstream.consumerNamespace}`
}
