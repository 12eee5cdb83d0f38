// Which workloads stand behind a service and on which ports: from EndpointSlices where a service has some, else from its
// selector over the pods. Must not live here: whether they are healthy (workloads.ts, mesh/pick-endpoint.ts).
import { canonicalIp } from '../base/ip.ts'
import type { Context } from './context.ts'
import { endpointSlice, type EndpointSliceBody } from './core-kinds.ts'
import type { Memory } from './memory.ts'
import { hasEnded, namedPort, podAddresses, type PodBody } from './pod.ts'
import type { Resource } from './resource.ts'
import { service, serviceHost, type ServiceBody } from './service.ts'

/** Service port → port of the workload. */
export type PortMap = Record<number, number>

/** An endpoint that is no pod: an address in an EndpointSlice that somebody wrote by hand. */
export interface BareEndpoint {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  readonly address: string
  readonly ready: boolean
  readonly node: string
  readonly zone: string
  readonly services: Record<string, PortMap>
}

/** That a pod stands behind a service, and on which ports. The same object for all pods of a slice, while it says the same. */
export interface Link {
  /** `namespace/hostname` of the service. */
  readonly service: string
  readonly ports: PortMap
}

export interface Endpoints {
  readonly ofPods: ReadonlyMap<Resource<PodBody>, readonly Link[]>
  readonly bare: readonly BareEndpoint[]
}

export function findEndpoints(context: Context, memory: Memory): Endpoints {
  const ofPods = new Map<Resource<PodBody>, Link[]>()
  const bare = new Map<string, BareEndpoint>()
  const slices = new Map<string, Resource<EndpointSliceBody>[]>()
  for (const slice of context.of(endpointSlice)) {
    const name = slice.metadata.labels['kubernetes.io/service-name']
    if (!name || slice.body.addressType === 'FQDN') continue
    const key = `${slice.metadata.namespace}/${name}`
    const list = slices.get(key)
    if (list) list.push(slice)
    else slices.set(key, [slice])
  }
  const known = new Map<string, KnownPods>()
  const podsIn = (namespace: string): KnownPods => {
    let found = known.get(namespace)
    if (!found) known.set(namespace, (found = new KnownPods(context.pods.find(namespace, {}))))
    return found
  }
  for (const one of context.of(service)) {
    const { namespace, name } = one.metadata
    if (one.body.spec.type === 'ExternalName') continue
    const key = `${namespace}/${serviceHost(name, namespace, context.settings.clusterDomain)}`
    const own = slices.get(`${namespace}/${name}`)
    if (own) {
      for (const slice of own) {
        const link = memory.link(slice, one, key, () => portsOfSlice(one, slice))
        fromSlice(slice, link, podsIn(namespace), ofPods, bare)
      }
      continue
    }
    const wanted = one.body.spec.selector
    if (!wanted || Object.keys(wanted).length === 0) continue
    for (const candidate of context.pods.find(namespace, wanted)) {
      if (!hasEnded(candidate)) add(ofPods, candidate, { service: key, ports: portsOf(one, candidate) })
    }
  }
  return { ofPods, bare: [...bare.values()] }
}

/** Links as workloads carry them. */
export function servicesOf(links: readonly Link[]): Readonly<Record<string, PortMap>> {
  const services: Record<string, PortMap> = {}
  // A service of two families has a slice for each.
  for (const { service, ports } of links) services[service] = { ...services[service], ...ports }
  return services
}

/** A service's ports on one pod; a named target port that the pod does not have is left out. */
function portsOf(one: Resource<ServiceBody>, candidate: Resource<PodBody>): PortMap {
  const ports: PortMap = {}
  for (const spec of one.body.spec.ports ?? []) {
    if ((spec.protocol ?? 'TCP') !== 'TCP') continue
    const target =
      typeof spec.targetPort === 'string'
        ? namedPort(candidate.body.spec, spec.targetPort)
        : (spec.targetPort ?? spec.port)
    if (target !== undefined) ports[spec.port] = target
  }
  return ports
}

/** The pods of one namespace that have not ended. */
class KnownPods {
  readonly byName = new Map<string, Resource<PodBody>>()
  #byAddress: Map<string, Resource<PodBody>> | undefined

  constructor(pods: readonly Resource<PodBody>[]) {
    for (const one of pods) if (!hasEnded(one)) this.byName.set(one.metadata.name, one)
  }

  /** Only slices that somebody wrote by hand need it. */
  byAddress(address: string): Resource<PodBody> | undefined {
    if (!this.#byAddress) {
      this.#byAddress = new Map()
      for (const one of this.byName.values()) for (const ip of podAddresses(one)) this.#byAddress.set(ip, one)
    }
    return this.#byAddress.get(address)
  }
}

/** Slices name their ports as the service does; an unnamed one belongs to its only port. */
function portsOfSlice(one: Resource<ServiceBody>, slice: Resource<EndpointSliceBody>): PortMap {
  const ports: PortMap = {}
  for (const spec of one.body.spec.ports ?? []) {
    const found = slice.body.ports?.find(
      (each) => (each.name ?? '') === (spec.name ?? '') && (each.protocol ?? 'TCP') === 'TCP',
    )
    if (found?.port !== undefined) ports[spec.port] = found.port
  }
  return ports
}

function fromSlice(
  slice: Resource<EndpointSliceBody>,
  link: Link,
  pods: KnownPods,
  ofPods: Map<Resource<PodBody>, Link[]>,
  bare: Map<string, BareEndpoint>,
): void {
  const { namespace, name } = slice.metadata
  for (const endpoint of slice.body.endpoints ?? []) {
    if (endpoint.conditions?.terminating && !endpoint.conditions.serving) continue
    const reference = endpoint.targetRef?.kind === 'Pod' ? endpoint.targetRef.name : undefined
    const referred = reference === undefined ? undefined : pods.byName.get(reference)
    if (referred) {
      add(ofPods, referred, link)
      continue
    }
    for (const text of endpoint.addresses ?? []) {
      const address = canonicalIp(text)
      if (!address) continue
      const found = pods.byAddress(address)
      if (found) {
        add(ofPods, found, link)
        continue
      }
      // Refers to a pod that is not known yet (or any more): it will come with its pod.
      if (reference !== undefined) continue
      const uid = `Kubernetes/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${address}`
      const known = bare.get(uid)
      bare.set(uid, {
        uid,
        namespace,
        name,
        address,
        ready: endpoint.conditions?.ready ?? true,
        node: endpoint.nodeName ?? '',
        zone: endpoint.zone ?? '',
        services: { ...known?.services, [link.service]: link.ports },
      })
    }
  }
}

function add(ofPods: Map<Resource<PodBody>, Link[]>, one: Resource<PodBody>, link: Link): void {
  const links = ofPods.get(one)
  if (!links) ofPods.set(one, [link])
  // A pod with two addresses stands twice in a slice.
  else if (links.at(-1) !== link) links.push(link)
}
