// Everything about one dialled address and port for the clients of one namespace, compiled: its table of routes and policies,
// and where each destination leads. Lives until the mesh state changes. Must not live here: evaluation (mesh/), requests.
import type { CompiledDestination } from '../../mesh/match-route.ts'
import type { Service } from '../../mesh/service.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import { replies } from '../reply.ts'
import type { Clusters } from '../upstream/clusters.ts'
import { hopTo, noHop, type Hop, type NoHop } from './hop.ts'
import type { ServiceTable } from './table.ts'

export interface DialedParts {
  readonly table: ServiceTable
  readonly state: MeshState
  readonly clusters: Clusters
  /** What was dialled: a service, or a pod by its address. */
  readonly service: Service | undefined
  readonly workload: Workload | undefined
  readonly address: string
  readonly port: number
  readonly consumerNamespace: string
}

export class Dialed {
  readonly table: ServiceTable
  readonly #parts: DialedParts
  #plain: Hop | NoHop | undefined
  readonly #hops = new Map<CompiledDestination, Hop | NoHop>()

  constructor(parts: DialedParts) {
    this.#parts = parts
    this.table = parts.table
  }

  /** Without a route: the service itself, or the pod. */
  plain(): Hop | NoHop {
    const known = this.#plain
    if (known && !known.cluster?.drained) return known
    const { clusters, service, workload, address, port } = this.#parts
    if (service) return (this.#plain = this.#hop(service, port, ''))
    if (!workload) return noHop(replies.routeNotFound)
    return (this.#plain = hopTo(clusters.forWorkload(workload, address, port), undefined, port))
  }

  /** A destination of the route. */
  to(compiled: CompiledDestination): Hop | NoHop {
    let hop = this.#hops.get(compiled)
    // A cluster may have been dropped to make room for others.
    if (!hop || hop.cluster?.drained) this.#hops.set(compiled, (hop = this.#find(compiled)))
    return hop
  }

  #find({ destination }: CompiledDestination): Hop | NoHop {
    const { state, table, port: dialled } = this.#parts
    const service = state.service(destination.service)
    if (!service) {
      // HTTPRoute: an invalid backend answers 500 for its share; VirtualService: the cluster is unknown.
      const http = table.route !== 'broken' && table.route?.route.dialect === 'HTTPRoute'
      return noHop(http ? replies.invalidBackend : replies.clusterNotFound)
    }
    const only = service.ports.length === 1 ? service.ports[0]?.port : undefined
    return this.#hop(service, destination.port || only || dialled, destination.subset)
  }

  #hop(service: Service, port: number, subset: string): Hop | NoHop {
    const { clusters, consumerNamespace } = this.#parts
    const cluster = clusters.forService(service, port, subset, consumerNamespace)
    if (cluster !== 'no_subset') return hopTo(cluster, service, port)
    return noHop(replies.noHealthyUpstream, `outbound|${port}|${subset}|${service.hostname}`)
  }
}
