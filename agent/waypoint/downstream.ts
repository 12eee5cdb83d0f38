// Who is talking to the waypoint and what they dialled: one object per inner connection (listen/), read by every request on
// it. What it names in the mesh state is looked up again when the state has changed, so that a connection that lives for
// days is served by today's service, policies and routes. Must not live here: what follows from it (filter/, route/).
import type { Endpoint } from '../io/connection.ts'
import { sameIdentity, type Identity } from '../mesh/identity.ts'
import type { Service } from '../mesh/service.ts'
import type { MeshState } from '../mesh/state.ts'
import { identityOf, type Workload } from '../mesh/workload.ts'
import type { HttpEdge } from '../telemetry/istio.ts'
import type { ClientPart } from './filter/access-line.ts'
import type { Dialed } from './route/dialed.ts'

export interface DownstreamParts {
  /** The original client: the TCP peer of the tunnel. */
  readonly client: Endpoint
  /** From its verified certificate; undefined in plaintext. */
  readonly identity: Identity | undefined
  /** What the client dialled: a service address or a pod's. */
  readonly address: string
  readonly port: number
  /** Dialled through a service (its key, `namespace/hostname`) … */
  readonly service?: string
  /** … or a pod directly: policies apply, service routes do not. */
  readonly workload?: Workload
}

export class Downstream {
  readonly client: Endpoint
  readonly identity: Identity | undefined
  readonly address: string
  readonly port: number
  /** Undefined where a pod was dialled, and where the service is not known (yet, or any more). */
  service: Service | undefined
  workload: Workload | undefined
  readonly #service: string | undefined
  /** The client's workload, if its address is known and its identity agrees: an address alone proves nobody. */
  source: Workload | undefined
  /** Version of the state this was looked up in; −1: not yet. */
  version = -1
  /** Routes, policies and clusters for what was dialled (route/table.ts); undefined before the first request. */
  dialed: Dialed | undefined
  /** Counters by endpoint, found without building a key. */
  readonly edges = new Map<Workload | undefined, HttpEdge>()
  readonly grpcEdges = new Map<Workload | undefined, HttpEdge>()
  /** Its part of access lines, as of the last one. */
  line: ClientPart | undefined

  constructor(parts: DownstreamParts, state: MeshState) {
    this.client = parts.client
    this.identity = parts.identity
    this.address = parts.address
    this.port = parts.port
    this.#service = parts.service
    this.service = parts.service === undefined ? undefined : state.service(parts.service)
    this.workload = parts.workload
    this.#findSource(state)
  }

  /** Looks everything up again. */
  refresh(state: MeshState): void {
    this.version = state.version
    if (this.#service !== undefined) this.service = state.service(this.#service)
    // A pod that is gone is still what was dialled: that it cannot be reached is for its cluster to say.
    else if (this.workload) this.workload = state.workload(this.workload.uid) ?? this.workload
    this.#findSource(state)
    this.dialed = undefined
    this.edges.clear()
    this.grpcEdges.clear()
    this.line = undefined
  }

  #findSource(state: MeshState): void {
    const found = this.identity && state.workloadByAddress(this.client.address)
    this.source = found && this.identity && sameIdentity(identityOf(found), this.identity) ? found : undefined
  }
}

/** Namespace of the client: its workload's, else its identity's, else ''. */
export function clientNamespace(downstream: Downstream): string {
  return downstream.source?.namespace ?? downstream.identity?.namespace ?? ''
}
