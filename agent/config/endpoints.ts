// Which workloads stand behind a service and on which ports: from EndpointSlices where a service has some, else from its
// selector over the pods. Must not live here: whether they are healthy (workloads.ts, mesh/pick-endpoint.ts).
import { canonicalIp } from '../base/ip.ts'
import type { Context } from './context.ts'
import { endpointSlice, type EndpointSliceBody } from './core-kinds.ts'
import { LabelIndex } from './label-index.ts'
import { hasEnded, namedPort, pod, podAddresses, type PodBody } from './pod.ts'
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

export interface Endpoints {
  /** By `namespace/name` of the pod: `namespace/hostname` of the service → its ports. */
  readonly ofPods: ReadonlyMap<string, Readonly<Record<string, PortMap>>>
  readonly bare: readonly BareEndpoint[]
}

export function findEndpoints(context: Context): Endpoints {
  const ofPods = new Map<string, Record<string, PortMap>>()
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
  const pods = new LabelIndex<Resource<PodBody>>()
  for (const one of context.of(pod)) if (!hasEnded(one)) pods.add(one.metadata.namespace, one.metadata.labels, one)
  const known = new Map<string, KnownPods>()
  const podsIn = (namespace: string): KnownPods => {
    let found = known.get(namespace)
    if (!found) known.set(namespace, (found = knownPods(pods.find(namespace, {}))))
    return found
  }
  for (const one of context.of(service)) {
    const { namespace, name } = one.metadata
    if (one.body.spec.type === 'ExternalName') continue
    const key = `${namespace}/${serviceHost(name, namespace, context.settings.clusterDomain)}`
    const own = slices.get(`${namespace}/${name}`)
    if (own) fromSlices(one, key, own, podsIn(namespace), ofPods, bare)
    else {
      const wanted = one.body.spec.selector
      if (!wanted || Object.keys(wanted).length === 0) continue
      for (const candidate of pods.find(namespace, wanted)) {
        add(ofPods, `${namespace}/${candidate.metadata.name}`, key, portsOf(one, candidate))
      }
    }
  }
  return { ofPods, bare: [...bare.values()] }
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

/** Of one namespace. */
interface KnownPods {
  readonly names: ReadonlySet<string>
  readonly byAddress: ReadonlyMap<string, string>
}

function knownPods(pods: readonly Resource<PodBody>[]): KnownPods {
  return {
    names: new Set(pods.map((candidate) => candidate.metadata.name)),
    byAddress: new Map(
      pods.flatMap((candidate) => podAddresses(candidate).map((ip) => [ip, candidate.metadata.name] as const)),
    ),
  }
}

function fromSlices(
  one: Resource<ServiceBody>,
  key: string,
  slices: readonly Resource<EndpointSliceBody>[],
  { names, byAddress }: KnownPods,
  ofPods: Map<string, Record<string, PortMap>>,
  bare: Map<string, BareEndpoint>,
): void {
  for (const slice of slices) {
    // Slices name their ports as the service does; an unnamed one belongs to its only port.
    const ports: PortMap = {}
    for (const spec of one.body.spec.ports ?? []) {
      const found = slice.body.ports?.find(
        (each) => (each.name ?? '') === (spec.name ?? '') && (each.protocol ?? 'TCP') === 'TCP',
      )
      if (found?.port !== undefined) ports[spec.port] = found.port
    }
    for (const endpoint of slice.body.endpoints ?? []) {
      if (endpoint.conditions?.terminating && !endpoint.conditions.serving) continue
      const byReference = endpoint.targetRef?.kind === 'Pod' ? endpoint.targetRef.name : undefined
      for (const text of endpoint.addresses ?? []) {
        const address = canonicalIp(text)
        if (!address) continue
        const name = byReference !== undefined && names.has(byReference) ? byReference : byAddress.get(address)
        if (name !== undefined) {
          add(ofPods, `${one.metadata.namespace}/${name}`, key, ports)
          continue
        }
        // Refers to a pod that is not known yet (or any more): it will come with its pod.
        if (byReference !== undefined) continue
        const uid = `Kubernetes/discovery.k8s.io/EndpointSlice/${slice.metadata.namespace}/${slice.metadata.name}/${address}`
        const known = bare.get(uid)
        bare.set(uid, {
          uid,
          namespace: slice.metadata.namespace,
          name: slice.metadata.name,
          address,
          ready: endpoint.conditions?.ready ?? true,
          node: endpoint.nodeName ?? '',
          zone: endpoint.zone ?? '',
          services: { ...known?.services, [key]: ports },
        })
      }
    }
  }
}

function add(map: Map<string, Record<string, PortMap>>, who: string, key: string, ports: PortMap): void {
  const services = map.get(who)
  if (!services) map.set(who, { [key]: ports })
  else services[key] = { ...services[key], ...ports }
}
