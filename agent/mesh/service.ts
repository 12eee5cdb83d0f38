// A service: a name, virtual addresses and ports. Field meaning follows istio.workload.Service.
import type { GatewayRef } from './workload.ts'

export type AppProtocol = 'http' | 'http2' | 'grpc' | 'tcp' | 'tls' | 'unknown'

export interface ServicePort {
  readonly port: number
  /** 0: named port, resolved per workload. */
  readonly targetPort: number
  readonly name: string
  /** By port name prefix or appProtocol as Istio selects (l7 defaults: protocol selection). `unknown` = to be detected. */
  readonly protocol: AppProtocol
}

export interface Service {
  readonly name: string
  readonly namespace: string
  readonly hostname: string
  /** Virtual addresses, canonical text form; empty for a headless service. */
  readonly addresses: readonly string[]
  readonly ports: readonly ServicePort[]
  readonly subjectAltNames: readonly string[]
  readonly waypoint?: GatewayRef
  /** Locality preference, most important first, as routing_preference; empty = none. */
  readonly routingPreference: readonly ('REGION' | 'ZONE' | 'SUBZONE' | 'NODE' | 'CLUSTER' | 'NETWORK')[]
  readonly loadBalancing: 'UNSPECIFIED' | 'STRICT' | 'FAILOVER' | 'PASSTHROUGH'
  /** publishNotReadyAddresses. */
  readonly allowUnhealthy: boolean
  /** sessionAffinity ClientIP: a client keeps its endpoint until it was away for so long. 0: none. */
  readonly sessionAffinitySeconds: number
}

/** `namespace/hostname`, the key of a service everywhere. */
export function serviceKey(service: { namespace: string; hostname: string }): string {
  return `${service.namespace}/${service.hostname}`
}
