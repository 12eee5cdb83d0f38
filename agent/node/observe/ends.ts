// Who the ends of a connection are that the kernel handled alone: pods and addresses in, the mesh's workloads and services
// out. Must not live here: numbers (edges.ts), lines (flow.ts).
import type { MeshView } from '../../mesh/state.ts'
import type { Service } from '../../mesh/service.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { Edge } from '../../telemetry/istio.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { workloadOf } from '../enroll/wanted.ts'
import type { KernelEdge, KernelFlow } from '../redirect/contract.ts'

export interface EndsOptions {
  /** Name of this node, as in Workload.node. */
  readonly node: string
  /** Undefined while this agent never had a state: nobody is known then. */
  readonly view: () => MeshView | undefined
  /** Pods of this node. */
  readonly pods: () => Iterable<RegisteredPod>
}

/** What an edge of the kernel's says of its ends. */
export type EdgeEnds = Pick<KernelEdge, 'direction' | 'security' | 'pod' | 'peer' | 'remote' | 'service'>

export class Ends {
  readonly #options: EndsOptions
  #view: MeshView | undefined
  #version = -1
  /** Grows when `edge` may give another answer. */
  generation = 0
  /** Of the pods of this node, by uid. */
  #workloads = new Map<string, Workload>()

  constructor(options: EndsOptions) {
    this.#options = options
  }

  /** Looks at pods and state anew; before a round of `edge`. Cheap next to it. */
  refresh(): void {
    const { node, pods } = this.#options
    const view = this.#options.view()
    const workloads = new Map<string, Workload>()
    let same = view === this.#view && view?.version === this.#version
    if (view) {
      for (const pod of pods()) {
        const workload = workloadOf(view, node, pod)
        if (!workload) continue
        workloads.set(pod.uid, workload)
        same &&= this.#workloads.get(pod.uid) === workload
      }
    }
    if (same && workloads.size === this.#workloads.size) return
    this.#view = view
    this.#version = view?.version ?? -1
    this.#workloads = workloads
    this.generation++
  }

  /** The edge in the mesh's terms; undefined while its own pod is not known. */
  edge(ends: EdgeEnds): Edge | undefined {
    const view = this.#view
    const own = ends.pod === undefined ? undefined : this.#workloads.get(ends.pod)
    if (!view || !own) return undefined
    const outbound = ends.direction === 'outbound'
    const peer = ends.peer === undefined ? undefined : this.#workloads.get(ends.peer)
    const other = peer ?? (ends.remote === undefined ? undefined : view.workloadByAddress(ends.remote))
    const [source, destination] = outbound ? [own, other] : [other, own]
    const verified = ends.security !== 'none'
    return {
      reporter: outbound ? 'source' : 'destination',
      source,
      // Attested by the kernel, or by a certificate.
      sourceIdentity: verified && source ? identityOf(source) : undefined,
      destination,
      destinationIdentity: verified && destination ? identityOf(destination) : undefined,
      service: ends.service && serviceAt(view, source, ends.service),
      security: ends.security === 'tunnel' ? 'mutual_tls' : ends.security,
    }
  }

  /** The edge of one connection; looks anew by itself. */
  flow({ pod, security, destination, dialled }: KernelFlow): Edge {
    const stale = this.#options.view()?.version !== this.#version
    if (stale || pod === undefined || !this.#workloads.has(pod)) this.refresh()
    const own = destination.address === dialled.address && destination.port === dialled.port
    const service = own ? undefined : dialled
    const ends: EdgeEnds = {
      direction: 'outbound',
      security,
      pod,
      peer: undefined,
      remote: destination.address,
      service,
    }
    return this.edge(ends) ?? UNKNOWN
  }
}

/** Nothing is known of the pod any more. */
const UNKNOWN: Edge = {
  reporter: 'source',
  source: undefined,
  sourceIdentity: undefined,
  destination: undefined,
  destinationIdentity: undefined,
  service: undefined,
  security: 'unknown',
}

/** As resolveOutbound chooses among services that share an address. */
function serviceAt(view: MeshView, source: Workload | undefined, dialled: Endpoint): Service | undefined {
  const services = view.servicesByAddress(dialled.address)
  return (
    services.find((service) => service.namespace === source?.namespace) ??
    services.find((service) => service.ports.some(({ port }) => port === dialled.port)) ??
    services[0]
  )
}
