// What the tunnel half of the agent works with. Types only. Must not live here: anything that runs.
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import type { TunnelTarget } from '../../http/hbone/pool.ts'
import type { Transport } from '../../io/connection.ts'
import type { Identity } from '../../mesh/identity.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { Certificates } from '../../pki/contract.ts'
import type { Flows } from '../observe/flow.ts'
import type { Canaries } from '../prove/canaries.ts'
import type { Redirect } from '../redirect/contract.ts'

export interface TunnelOptions {
  /** Name of this node, as in Workload.node. */
  readonly node: string
  readonly transport: Transport
  readonly redirect: Redirect
  readonly certificates: Certificates
  /** The mesh as known now; undefined while this agent never had a state: everything is refused then. */
  readonly view: () => MeshView | undefined
  readonly flows: Flows
  readonly clock: Clock
  readonly log: Logger
  /** Those in flight, recognised where they land. Default: none. */
  readonly canaries?: Canaries
  /** [0, 1): chooses among equal endpoints. Default Math.random. */
  readonly random?: () => number
  /** A connection waits this long for its pod's workload or certificate. Default 5 000 ms, as ztunnel. */
  readonly waitMs?: number
  /** A connection to the app, or a tunnel, must be open in this time. Default 10 000 ms. */
  readonly connectMs?: number
}

/** Resolved, as the parts of this folder share it. */
export interface TunnelContext extends Required<TunnelOptions> {
  /** Resolves true once `test` holds after some change of the state, false after `waitMs`. */
  readonly until: (test: () => boolean) => Promise<boolean>
}

/** Who may share a tunnel: the same source pod, to the same workload, expected to be the same identities. */
export interface AgentTarget extends TunnelTarget {
  readonly podUid: string
  /** The source pod's workload and its identity. */
  readonly from: Workload
  readonly source: Identity
  readonly accepted: readonly string[]
  /** Uid of the workload at the other end: the destination, or its waypoint. */
  readonly destination: string
  readonly address: string
  readonly port: number
}
