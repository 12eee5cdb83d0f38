// Where an agent sends a captured outbound connection: through the destination's waypoint, to the destination's agent,
// plainly, or nowhere (reference: ambient, outbound routing). Fails closed: a waypoint that is named but missing or
// unready, a service without usable endpoints, an unknown destination under REGISTRY_ONLY are refusals, never detours.
// Must not live here: connections, pooling (node/tunnel), the destination's own verdict (inbound.ts).
import { joinHostPort } from '../base/ip.ts'
import { formatIdentity } from './identity.ts'
import { addressLike, nearness, pickNearest, targetPortOf, WAYPOINT_PREFERENCE, type Place } from './localize.ts'
import type { Service } from './service.ts'
import type { MeshView } from './state.ts'
import { identityOf, type GatewayRef, type Workload } from './workload.ts'

/** The port HBONE is spoken on. */
export const HBONE_PORT = 15008

export type RefuseReason =
  | 'waypoint_missing' // named, but no workload of it is known
  | 'waypoint_unready' // known, but none is healthy
  | 'no_healthy_upstream'
  | 'port_unknown' // the service has no such port, or no endpoint serves it
  | 'registry_only'
  | 'tunnel_port' // the mesh's own port of a pod was dialled
  | 'other_network'

export type Outbound =
  | {
      /** Mutual TLS to the destination's own agent. */
      readonly kind: 'hbone'
      /** Address and port of the tunnel. */
      readonly address: string
      readonly port: number
      /** `:authority` of the CONNECT: pod address and the port the app listens on. */
      readonly authority: string
      /** SPIFFE ids, one of which the server must present. */
      readonly identities: readonly string[]
      readonly workload: Workload
      /** The service dialled, for `forwarded` and metrics. */
      readonly service: Service | undefined
      readonly reason: string
    }
  | {
      /** Mutual TLS to a waypoint of the destination. */
      readonly kind: 'waypoint'
      readonly address: string
      readonly port: number
      /** As dialled, or the pod chosen when only the pod has a waypoint. */
      readonly authority: string
      readonly identities: readonly string[]
      /** The waypoint's workload. */
      readonly workload: Workload
      readonly service: Service | undefined
      /** The workload behind the waypoint when a pod address was dialled or chosen. */
      readonly destination: Workload | undefined
      readonly reason: string
    }
  | {
      readonly kind: 'plain'
      readonly address: string
      readonly port: number
      readonly workload: Workload | undefined
      readonly service: Service | undefined
      readonly reason: string
    }
  | {
      readonly kind: 'refuse'
      readonly code: RefuseReason
      /** A sentence for the access log and `explain`. */
      readonly reason: string
      readonly service: Service | undefined
      readonly workload: Workload | undefined
    }

/** An endpoint by the address and port it is dialled at. */
export interface Choice {
  readonly address: string
  readonly port: number
}

/**
 * Decides for a connection of `source` to `address` (canonical text) and `port`. `random` in [0,1) chooses among equals.
 * `chosen`: the endpoint somebody chose before (the kernel); it is taken while it is a usable endpoint of the service dialled,
 * and means nothing otherwise.
 */
export function resolveOutbound(
  view: MeshView,
  source: Workload,
  address: string,
  port: number,
  random: () => number,
  chosen?: Choice,
): Outbound {
  const services = view.servicesByAddress(address)
  if (services.length > 0) {
    // Several services may share an address: the client's own namespace wins, then the first that has the port.
    const service =
      services.find((candidate) => candidate.namespace === source.namespace) ??
      services.find((candidate) => hasPort(candidate, port)) ??
      (services[0] as Service)
    return toService(view, source, service, address, port, random, chosen)
  }
  const workload = view.workloadByAddress(address)
  if (workload) return toWorkload(view, source, workload, undefined, address, port, random)
  if (view.settings.outboundTrafficPolicy === 'REGISTRY_ONLY') {
    return refuse(
      'registry_only',
      `${joinHostPort(address, port)} is no service or workload of the mesh, and outboundTrafficPolicy is REGISTRY_ONLY`,
    )
  }
  return {
    kind: 'plain',
    address,
    port,
    workload: undefined,
    service: undefined,
    reason: 'outside the mesh, outboundTrafficPolicy is ALLOW_ANY',
  }
}

function hasPort(service: Service, port: number): boolean {
  return service.ports.some((candidate) => candidate.port === port)
}

function toService(
  view: MeshView,
  source: Workload,
  service: Service,
  address: string,
  port: number,
  random: () => number,
  chosen: Choice | undefined,
): Outbound {
  const name = `${service.namespace}/${service.name}`
  if (service.waypoint && !isMember(view, source, service.waypoint)) {
    return toWaypoint(view, source, service.waypoint, joinHostPort(address, port), {
      service,
      destination: undefined,
      why: `service ${name} has a waypoint`,
      like: address,
      random,
    })
  }
  if (service.loadBalancing === 'PASSTHROUGH') {
    const workload = view.workloadByAddress(address)
    if (workload) return toWorkload(view, source, workload, service, address, port, random)
    return { kind: 'plain', address, port, workload, service, reason: `service ${name} keeps the dialled address` }
  }
  if (!hasPort(service, port)) return refuse('port_unknown', `service ${name} has no port ${port}`, service)
  const usable = usableEndpoints(view, service, port, source)
  const taken = chosen && usable.workloads.find((candidate) => isAt(candidate, service, port, chosen))
  if (taken && chosen) return toWorkload(view, source, taken, service, chosen.address, chosen.port, random)
  const workload = pickNearest(
    usable.workloads,
    (candidate) => nearness(service.routingPreference, source, candidate),
    random,
  )
  if (!workload) {
    const code = usable.healthy ? 'port_unknown' : 'no_healthy_upstream'
    const why = usable.healthy
      ? `no endpoint of service ${name} serves port ${port}`
      : `service ${name} has no healthy endpoint`
    return refuse(code, why, service)
  }
  const target = addressLike(workload, address)
  if (target === undefined) return refuse('no_healthy_upstream', `${workload.name} has no address`, service, workload)
  return toWorkload(view, source, workload, service, target, targetPortOf(workload, service, port), random)
}

/** True if the choice is this endpoint: one of its addresses, and the port it serves the service's port on. */
function isAt(candidate: Workload, service: Service, port: number, chosen: Choice): boolean {
  return candidate.addresses.includes(chosen.address) && targetPortOf(candidate, service, port) === chosen.port
}

/** Healthy endpoints (all with publishNotReadyAddresses) that serve the port; under STRICT only those that meet every preference. */
export function usableEndpoints(
  view: MeshView,
  service: Service,
  port: number,
  client: Place,
): { readonly workloads: readonly Workload[]; readonly healthy: boolean } {
  const strict = service.loadBalancing === 'STRICT'
  let healthy = false
  const workloads = view.endpoints(`${service.namespace}/${service.hostname}`).filter((workload) => {
    if (!workload.healthy && !service.allowUnhealthy) return false
    if (strict && nearness(service.routingPreference, client, workload) < service.routingPreference.length) return false
    healthy = true
    return targetPortOf(workload, service, port) > 0
  })
  return { workloads, healthy }
}

function toWorkload(
  view: MeshView,
  source: Workload,
  workload: Workload,
  service: Service | undefined,
  address: string,
  port: number,
  random: () => number,
): Outbound {
  const name = `${workload.namespace}/${workload.name}`
  const meshed = workload.tunnelProtocol === 'HBONE'
  if (meshed && port === HBONE_PORT) {
    return refuse('tunnel_port', `port ${HBONE_PORT} of ${name} is the mesh's own`, service, workload)
  }
  if (workload.network !== source.network) {
    return refuse(
      'other_network',
      `${name} is on network '${workload.network}', which has no gateway`,
      service,
      workload,
    )
  }
  if (workload.waypoint && !isMember(view, source, workload.waypoint)) {
    return toWaypoint(view, source, workload.waypoint, joinHostPort(address, port), {
      service,
      destination: workload,
      why: `workload ${name} has a waypoint`,
      like: address,
      random,
    })
  }
  if (!meshed) {
    return { kind: 'plain', address, port, workload, service, reason: `${name} is not in the mesh` }
  }
  return {
    kind: 'hbone',
    address,
    port: HBONE_PORT,
    authority: joinHostPort(address, port),
    identities: [formatIdentity(identityOf(workload)), ...(service?.subjectAltNames ?? [])],
    workload,
    service,
    reason: service ? `endpoint ${name} of service ${service.namespace}/${service.name}` : `workload ${name}`,
  }
}

interface Through {
  readonly service: Service | undefined
  readonly destination: Workload | undefined
  readonly why: string
  readonly like: string
  readonly random: () => number
}

function toWaypoint(view: MeshView, source: Workload, ref: GatewayRef, authority: string, through: Through): Outbound {
  const { service, destination, why } = through
  const name = ref.hostname ?? ref.address ?? ''
  const members = view.gatewayWorkloads(ref)
  if (members.length === 0) {
    return refuse('waypoint_missing', `${why}, ${name}, which is not known`, service, destination)
  }
  const ready = members.filter((member) => member.healthy && member.tunnelProtocol === 'HBONE')
  const waypoint = pickNearest(ready, (member) => nearness(WAYPOINT_PREFERENCE, source, member), through.random)
  const address = waypoint && addressLike(waypoint, through.like)
  if (!waypoint || address === undefined) {
    return refuse('waypoint_unready', `${why}, ${name}, of which no replica is ready`, service, destination)
  }
  return {
    kind: 'waypoint',
    address,
    port: ref.port || HBONE_PORT,
    authority,
    identities: [formatIdentity(identityOf(waypoint))],
    workload: waypoint,
    service,
    destination,
    reason: `${why}, ${name}`,
  }
}

/** True if the workload is itself a replica of this waypoint: it does not go through itself. */
export function isMember(view: MeshView, workload: Workload, ref: GatewayRef): boolean {
  for (const member of view.gatewayWorkloads(ref)) if (member.uid === workload.uid) return true
  return false
}

function refuse(code: RefuseReason, reason: string, service?: Service, workload?: Workload): Outbound {
  return { kind: 'refuse', code, reason, service, workload }
}
