// A workload: one pod (or VM) with its addresses, identity and place. Field meaning follows istio.workload.Workload;
// `labels`, `app`, `version` travel in its extension `ambit.v1.WorkloadExtension`.
import type { Identity } from './identity.ts'

export interface GatewayRef {
  /** By hostname: `namespace/hostname` of the waypoint's Service. */
  readonly hostname?: string
  /** By address, canonical text form. */
  readonly address?: string
  /** HBONE port, 15008. */
  readonly port: number
}

export interface Locality {
  readonly region: string
  readonly zone: string
  readonly subzone: string
}

export interface Workload {
  /** `cluster//Pod/namespace/name`. */
  readonly uid: string
  readonly name: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly trustDomain: string
  /** Canonical text form. */
  readonly addresses: readonly string[]
  readonly network: string
  readonly node: string
  readonly clusterId: string
  /** HBONE: enrolled in the mesh; NONE: plain TCP. */
  readonly tunnelProtocol: 'NONE' | 'HBONE'
  /** True for waypoints and gateways: they end HBONE themselves and are never captured. */
  readonly nativeTunnel: boolean
  readonly hostNetwork: boolean
  /** Traffic to this workload is taken from this waypoint only. */
  readonly waypoint?: GatewayRef
  /** `namespace/hostname` → service port → the port this workload listens on. */
  readonly services: Readonly<Record<string, Readonly<Record<number, number>>>>
  /** `namespace/name` of policies that select this workload by label (also the synthetic STRICT ones). */
  readonly authorizationPolicies: readonly string[]
  readonly healthy: boolean
  readonly canonicalName: string
  readonly canonicalRevision: string
  readonly workloadType: string
  readonly workloadName: string
  readonly locality: Locality
  /** Load-balancing weight, default 1. */
  readonly capacity: number
  readonly labels: Readonly<Record<string, string>>
  /** Connections with pods of its own node: by the kernel, which attests the client, or through tunnels like all others. */
  readonly sameNode: 'direct' | 'tunnel'
}

export function identityOf(workload: Workload): Identity {
  return {
    trustDomain: workload.trustDomain,
    namespace: workload.namespace,
    serviceAccount: workload.serviceAccount,
  }
}
