// Who is talking to the waypoint and what they dialled: made once per inner connection (listen/), read by every request
// on it. Must not live here: how it was learnt (listen/), what follows from it (filter/, route/).
import type { Endpoint } from '../io/connection.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Service } from '../mesh/service.ts'
import type { Workload } from '../mesh/workload.ts'

export interface Downstream {
  /** The original client: the TCP peer of the tunnel. */
  readonly client: Endpoint
  /** From its verified certificate; undefined in plaintext. */
  readonly identity: Identity | undefined
  /** The client's workload, if its address is known and its identity agrees. */
  readonly source: Workload | undefined
  /** What the client dialled: a service address or a pod's. */
  readonly address: string
  readonly port: number
  /** Dialled through a service … */
  readonly service: Service | undefined
  /** … or a pod directly: policies apply, service routes do not. Neither: a listener's service is not known (yet). */
  readonly workload: Workload | undefined
}

/** Namespace of the client: its workload's, else its identity's, else ''. */
export function clientNamespace(downstream: Downstream): string {
  return downstream.source?.namespace ?? downstream.identity?.namespace ?? ''
}
