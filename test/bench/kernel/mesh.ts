// The mesh of the suite `kernel`: a state of 10 000 workloads and 1 000 services with the two pods of this node among them, and its way into the kernel, by
// the agent's own code. Must not live here: pods and sockets (world.ts).
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { systemClock } from '../../../agent/base/clock.ts'
import { openLog } from '../../../agent/base/log.ts'
import { samplePolicy, sampleService, sampleWorkload } from '../../../agent/mesh/samples.ts'
import { MeshState } from '../../../agent/mesh/state.ts'
import type { Workload } from '../../../agent/mesh/workload.ts'
import type { TableWriter } from '../../../agent/node/redirect/contract.ts'
import { TableSync } from '../../../agent/node/tables/sync.ts'
import { PORT } from './load.ts'

/** The service in front of the server, on the same ports. */
export const SERVICE = '10.96.0.7'
const WORKLOADS = 10_000
const SERVICES = 1_000
const NAMESPACE = 'shop'
const NODE = 'here'
const HOST = `server.${NAMESPACE}.svc.cluster.local`
/** What a server listens on. */
const PORTS = [PORT, PORT + 1, PORT + 2]

export interface BenchPod {
  readonly name: string
  readonly netns: string
  readonly v4: string
  readonly v6: string
}

/** Milliseconds. */
export interface SyncTimes {
  readonly full: number
  /** The longest time that the event loop got no turn meanwhile. */
  readonly held: number
}

export class BenchMesh {
  readonly #state = new MeshState()
  readonly #pods: readonly BenchPod[]
  #tables: TableSync | undefined
  #writer: TableWriter | undefined

  /** Policy: of all clients only `client` may call `server`, and only on its ports. */
  constructor(client: BenchPod, server: BenchPod) {
    this.#pods = [client, server]
    const state = this.#state
    const ports = PORTS.map((port) => ({ port, targetPort: port, name: `tcp-${port}`, protocol: 'tcp' as const }))
    state.setService(sampleService({ name: 'server', namespace: NAMESPACE, addresses: [SERVICE], ports }))
    for (const pod of this.#pods) {
      const services = pod === server ? { [`${NAMESPACE}/${HOST}`]: Object.fromEntries(PORTS.map((p) => [p, p])) } : {}
      const addresses = [pod.v4, pod.v6]
      state.setWorkload(sampleWorkload({ name: pod.name, namespace: NAMESPACE, node: NODE, addresses, services }))
    }
    const principals = [{ type: 'exact' as const, value: `cluster.local/ns/${NAMESPACE}/sa/${client.name}` }]
    state.setPolicy(
      samplePolicy('ALLOW', { principals, destinationPorts: PORTS }, { namespace: NAMESPACE, scope: 'namespace' }),
    )
    for (let i = 0; i < SERVICES; i++) {
      const addresses = [`10.97.${i >> 8}.${i & 255}`]
      state.setService(sampleService({ name: `service-${i}`, namespace: NAMESPACE, addresses }))
    }
    for (let i = 0; i < WORKLOADS; i++) state.setWorkload(elsewhere(i, true))
  }

  /** Writes the whole mesh, as an agent does that has just started. */
  async sync(writer: TableWriter): Promise<SyncTimes> {
    await this.#tables?.close()
    this.#writer = writer
    const log = openLog({ program: 'bench', level: 'error' })
    const tables = new TableSync({ node: NODE, writer, view: () => this.#state, clock: systemClock, log })
    this.#tables = tables
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const started = performance.now()
    for (const { name, netns, v4, v6 } of this.#pods)
      tables.addPod({ uid: name, name, namespace: NAMESPACE, netns, addresses: [v4, v6] })
    tables.changed()
    await tables.settled()
    const full = performance.now() - started
    // The monitor sees a pause only when the next turn comes.
    await new Promise((resolve) => setTimeout(resolve, 5))
    delay.disable()
    if (!tables.status().synced) throw new Error('the tables were not written')
    return { full, held: delay.max / 1e6 }
  }

  /** An endpoint becomes unready, then ready again: milliseconds until the kernel chooses accordingly, each. */
  async changeEndpoint(index: number): Promise<[gone: number, back: number]> {
    const all = this.#backends()
    const gone = await this.#change(elsewhere(index % WORKLOADS, false))
    if (this.#backends() !== all - 1) throw new Error('an unready endpoint is still in the kernel')
    const back = await this.#change(elsewhere(index % WORKLOADS, true))
    if (this.#backends() !== all) throw new Error('a ready endpoint is not in the kernel')
    return [gone, back]
  }

  async #change(workload: Workload): Promise<number> {
    const started = performance.now()
    this.#state.setWorkload(workload)
    await this.#tables?.settled()
    return performance.now() - started
  }

  #backends(): number {
    return this.#writer?.sizes().backends ?? Number.NaN
  }
}

/** A workload of another node, endpoint of one of the services. */
function elsewhere(index: number, healthy: boolean): Workload {
  const host = `service-${index % SERVICES}.${NAMESPACE}.svc.cluster.local`
  return sampleWorkload({
    name: `workload-${index}`,
    namespace: NAMESPACE,
    node: `node-${index % 100}`,
    addresses: [`10.128.${index >> 8}.${index & 255}`],
    services: { [`${NAMESPACE}/${host}`]: { 80: 8080 } },
    healthy,
  })
}
