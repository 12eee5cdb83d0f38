// How a service's endpoints are used: a DestinationRule, merged per host, normalised. Absent fields mean Istio's
// defaults (LEAST_REQUEST, no limits, no ejection). All durations are milliseconds.
import type { Source } from './source.ts'

export interface Upstream {
  readonly namespace: string
  readonly hostname: string
  /** '*' or the namespace whose clients it applies to. */
  readonly consumerNamespace: string
  readonly policy: TrafficPolicy
  readonly portPolicies: Readonly<Record<number, TrafficPolicy>>
  readonly subsets: readonly Subset[]
  /** Oldest first: every DestinationRule merged into this. */
  readonly sources: readonly Source[]
}

export interface Subset {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  /** Over the service's policy, field by field as Istio merges (section by section). */
  readonly policy?: TrafficPolicy
  readonly source: Source
}

export interface TrafficPolicy {
  readonly loadBalancer?: 'ROUND_ROBIN' | 'LEAST_REQUEST' | 'RANDOM' | 'PASSTHROUGH'
  readonly connectionPool?: ConnectionPool
  readonly outlierDetection?: OutlierDetection
}

/** Absent limit = none (2^32−1). */
export interface ConnectionPool {
  readonly maxConnections?: number
  /** Default 10 000. */
  readonly connectTimeoutMs?: number
  readonly http1MaxPendingRequests?: number
  /** Active requests of both versions. */
  readonly http2MaxRequests?: number
  /** 0 or absent: unlimited. */
  readonly maxRequestsPerConnection?: number
  readonly maxRetries?: number
  /** Default 3 600 000. */
  readonly idleTimeoutMs?: number
  readonly tcpIdleTimeoutMs?: number
  /** Age at which a connection takes no more requests. 0 or absent: none. */
  readonly maxConnectionDurationMs?: number
  readonly maxConcurrentStreams?: number
  readonly h2Upgrade?: 'DEFAULT' | 'DO_NOT_UPGRADE' | 'UPGRADE'
  readonly useClientProtocol?: boolean
}

export interface OutlierDetection {
  /** 0: off. */
  readonly consecutive5xxErrors: number
  readonly consecutiveGatewayErrors: number
  readonly splitExternalLocalOriginErrors: boolean
  readonly consecutiveLocalOriginFailures: number
  readonly intervalMs: number
  readonly baseEjectionTimeMs: number
  readonly maxEjectionPercent: number
  readonly minHealthPercent: number
}
