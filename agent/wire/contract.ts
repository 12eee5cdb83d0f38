// What agents and waypoints know of the control plane: one connection that keeps a MeshState current and signs
// certificates. Types only; the implementation is connect-control.ts. Must not live here: gRPC, protobuf, decisions.
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import type { Identity } from '../mesh/identity.ts'
import type { MeshState } from '../mesh/state.ts'

/** The kinds on the wire. Agents take Address, Authorization, MeshSettings and the Pods of their node; waypoints Address, Route, Policy, Upstream, MeshSettings. */
export type ResourceKind = 'Address' | 'Authorization' | 'Route' | 'Policy' | 'Upstream' | 'MeshSettings' | 'Pod'

export const agentKinds: readonly ResourceKind[] = ['MeshSettings', 'Authorization', 'Address', 'Pod']
/** Of these, what every control plane that speaks workload xDS has: without them there is nothing to decide by. */
export const agentEssentials: readonly ResourceKind[] = ['MeshSettings', 'Authorization', 'Address']
export const waypointKinds: readonly ResourceKind[] = ['MeshSettings', 'Policy', 'Route', 'Upstream', 'Address']

/** One resource that came or went. `key` is its name on the wire (a workload's uid, `namespace/hostname`, `namespace/name` …). */
export interface ResourceChange {
  readonly kind: ResourceKind
  readonly key: string
  readonly removed: boolean
}

/** Who this program is, as control sees it before it looks at the token. */
export interface ClientNode {
  readonly type: 'agent' | 'waypoint'
  /** Own address, or '' where it has none worth telling. */
  readonly address: string
  /** Pod name. */
  readonly name: string
  readonly namespace: string
  /** Kubernetes node name. */
  readonly node: string
  /** Waypoints: name of the Gateway. */
  readonly gateway?: string
}

export interface ConnectControlOptions {
  /** `HOST:PORT`, `[IPv6]:PORT`. */
  readonly address: string
  /** PEM file with the mesh roots; read again at every connect. */
  readonly rootCertFile: string
  /** File with the bearer token; read again for every stream and every certificate. */
  readonly tokenFile: string
  readonly kinds: readonly ResourceKind[]
  readonly node: ClientNode
  readonly state: MeshState
  readonly clock: Clock
  readonly log: Logger
  /** Metadata `clusterid`; default 'Kubernetes'. */
  readonly clusterId?: string
  /** DNS name the server's certificate must carry; default `control.ambit-system.svc`. */
  readonly serverName?: string
  /** Where the last good resources are kept over a restart; absent: they are not. */
  readonly lastGoodFile?: string
  /** [0, 1), for jitter; default Math.random. */
  readonly random?: () => number
  /** Called for each resource after it was put into `state`. */
  readonly onChange?: (change: ResourceChange) => void
  /** Called once per response, after all its changes. */
  readonly onApplied?: (kind: ResourceKind) => void
}

export interface KindStatus {
  readonly kind: ResourceKind
  readonly resources: number
  /** True once this process got a full answer from control (last good state does not count). */
  readonly synced: boolean
  /** Resources refused since the start, by name, with the reason; the newest 100. */
  readonly rejected: readonly { readonly name: string; readonly reason: string }[]
  readonly responses: number
}

export interface ControlStatus {
  readonly address: string
  readonly connected: boolean
  /** Milliseconds since the epoch, of the last response; 0: none yet. */
  readonly lastResponse: number
  /** Why there is no connection, '' while there is one. */
  readonly error: string
  readonly reconnects: number
  readonly kinds: readonly KindStatus[]
}

/** A resource as it came. */
export interface HeldResource {
  readonly version: string
  readonly bytes: Uint8Array
}

export interface SignRequest {
  /** PEM. */
  readonly csr: string
  readonly identity: Identity
  readonly validitySeconds: number
}

export interface ControlConnection {
  /** True if a last good state was loaded from disk at the start: the state is usable although control may be away. */
  readonly restored: boolean
  /** Resolves once control has answered for that kind (every kind when absent) in this process. */
  synced(kind?: ResourceKind): Promise<void>
  status(): ControlStatus
  /** What is in force of a kind, by name. */
  held(kind: ResourceKind): ReadonlyMap<string, HeldResource>
  /**
   * Asks control's CA for a certificate; PEM leaf, intermediates, trust bundle last. Agents impersonate `identity`,
   * waypoints may ask for their own only. Rejects with AmbitError: CONTROL_UNAVAILABLE (worth a retry),
   * CONTROL_UNAUTHENTICATED, CONTROL_DENIED, CONTROL_BAD_REQUEST.
   */
  sign(request: SignRequest): Promise<readonly string[]>
  /** Ends the stream, writes the last good state, frees the channel. */
  close(): Promise<void>
}
