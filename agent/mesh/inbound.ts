// The verdict of a destination's agent on an inbound connection, tunnelled or plain: may this peer, and who is the client.
// A workload behind a waypoint takes traffic from that waypoint only; `forwarded` is believed from it only.
// Must not live here: TLS and its checks (node/tunnel), rules (authorize.ts).
import { canonicalIp } from '../base/ip.ts'
import { authorizeConnection, type VerdictReason } from './authorize.ts'
import { sameIdentity, type Identity } from './identity.ts'
import type { Policy } from './policy.ts'
import { connectionAttributes } from './request.ts'
import { HBONE_PORT } from './resolve.ts'
import type { Service } from './service.ts'
import type { MeshView } from './state.ts'
import { identityOf, type GatewayRef, type Workload } from './workload.ts'

export interface InboundConnection {
  /** The TCP peer, canonical text. */
  readonly peerAddress: string
  /** From its verified certificate; undefined for plaintext. */
  readonly identity: Identity | undefined
  /** The pod's address and the port of the app the peer asks for. */
  readonly address: string
  readonly port: number
  /** Address in the CONNECT's `forwarded: for=`, if it had one. */
  readonly forwardedFor?: string | undefined
}

export interface InboundVerdict {
  readonly allowed: boolean
  readonly reason: VerdictReason | 'waypoint' | 'waypoint_required' | 'trust_domain_mismatch' | 'tunnel_port'
  readonly policy: Policy | undefined
  readonly rule: number
  /** As Verdict.details; names the waypoint for waypoint_required. */
  readonly details: string
  /** Whom the app sees and `source.ip` is compared with: the original client if believed, else the TCP peer. */
  readonly client: string
  /** True if `forwarded` was believed. */
  readonly forwarded: boolean
}

/** Judges an inbound connection to a workload of this node. */
export function authorizeInbound(view: MeshView, workload: Workload, connection: InboundConnection): InboundVerdict {
  const { identity, peerAddress } = connection
  const { settings } = view
  if (connection.port === HBONE_PORT) {
    return verdict(false, 'tunnel_port', `port ${HBONE_PORT} is the mesh's own`, peerAddress, false)
  }
  // Servers take peers of their own trust domain and its aliases only (reference: ambient, TLS and identity).
  if (
    identity &&
    identity.trustDomain !== settings.trustDomain &&
    !settings.trustDomainAliases.includes(identity.trustDomain)
  ) {
    return verdict(false, 'trust_domain_mismatch', `trust_domain[${identity.trustDomain}]`, peerAddress, false)
  }
  let client = peerAddress
  let forwarded = false
  if (workload.waypoint) {
    if (!identity || !isWaypointIdentity(view, workload.waypoint, identity)) {
      const name = workload.waypoint.hostname ?? workload.waypoint.address ?? ''
      return verdict(false, 'waypoint_required', `waypoint_required[${name}]`, peerAddress, false)
    }
    const original = connection.forwardedFor === undefined ? undefined : canonicalIp(connection.forwardedFor)
    if (original !== undefined) {
      client = original
      forwarded = true
    }
    // The waypoint has judged the original client by every policy of this workload.
    if (settings.l7Selector === 'ambit') return verdict(true, 'waypoint', '', client, forwarded)
  }
  const attributes = connectionAttributes(client, identity, connection.address, connection.port)
  const decision = authorizeConnection(view, workload, attributes)
  return { ...decision, client, forwarded }
}

function verdict(
  allowed: boolean,
  reason: InboundVerdict['reason'],
  details: string,
  client: string,
  forwarded: boolean,
): InboundVerdict {
  return { allowed, reason, policy: undefined, rule: -1, details, client, forwarded }
}

/** True if some replica of the waypoint, ready or not, has this identity. */
export function isWaypointIdentity(view: MeshView, ref: GatewayRef, identity: Identity): boolean {
  for (const member of view.gatewayWorkloads(ref)) if (sameIdentity(identityOf(member), identity)) return true
  return false
}

export type WaypointTarget =
  | { readonly kind: 'service'; readonly service: Service; readonly port: number }
  | { readonly kind: 'workload'; readonly workload: Workload; readonly port: number }
  | { readonly kind: 'refuse'; readonly reason: string }

/**
 * What a CONNECT to a waypoint asks for. Only what names this waypoint is served: a service address with one of its
 * ports, or a workload address; `waypoint` is the hostname key (`namespace/hostname`) of the waypoint's own Service.
 */
export function waypointTarget(view: MeshView, waypoint: string, address: string, port: number): WaypointTarget {
  let reason = `no service or workload has the address ${address}`
  for (const service of view.servicesByAddress(address)) {
    if (!servedBy(view, service.waypoint, waypoint)) {
      reason = `service ${service.namespace}/${service.name} does not use this waypoint`
    } else if (!service.ports.some((candidate) => candidate.port === port)) {
      reason = `service ${service.namespace}/${service.name} has no port ${port}`
    } else return { kind: 'service', service, port }
  }
  const workload = view.workloadByAddress(address)
  if (!workload) return { kind: 'refuse', reason }
  if (port === HBONE_PORT) return { kind: 'refuse', reason: `port ${HBONE_PORT} is the mesh's own` }
  if (servedBy(view, workload.waypoint, waypoint)) return { kind: 'workload', workload, port }
  return { kind: 'refuse', reason: `workload ${workload.namespace}/${workload.name} does not use this waypoint` }
}

function servedBy(view: MeshView, ref: GatewayRef | undefined, waypoint: string): boolean {
  if (!ref) return false
  if (ref.hostname !== undefined) return ref.hostname === waypoint
  return (
    ref.address !== undefined &&
    view.servicesByAddress(ref.address).some((service) => `${service.namespace}/${service.hostname}` === waypoint)
  )
}
