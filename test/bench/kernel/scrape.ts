// What a scrape costs an agent whose kernel counts on many edges: reading them, making metrics of them, writing the text. Edges are written into the
// kernel's own map, of pods and workloads that only the state knows. Must not live here: connections (suite.ts).
import { KernelEdges } from '../../../agent/node/observe/edges.ts'
import { Ends } from '../../../agent/node/observe/ends.ts'
import type { RegisteredPod } from '../../../agent/node/enroll/contract.ts'
import { edgeKeyText, Edges, EdgeValues } from '../../../agent/node/redirect/edges.ts'
import { liveObject } from '../../../agent/node/redirect/live.ts'
import { kernelAddress } from '../../../agent/node/redirect/notes.ts'
import { systemClock } from '../../../agent/base/clock.ts'
import { sampleService, sampleWorkload } from '../../../agent/mesh/samples.ts'
import { MeshState } from '../../../agent/mesh/state.ts'
import { Metrics } from '../../../agent/telemetry/exposition.ts'
import { TcpMetrics } from '../../../agent/telemetry/istio.ts'
import { EdgeKey, liveSchema } from '../../../native/bpf/gen/live.ts'
import type { Codec } from '../../../native/bpf/index.ts'
import { Samples, type Row } from '../table.ts'
import type { TargetSpec } from '../targets.ts'

const NODE = 'node1'
/** Pods of this node that have edges. */
const PODS = 100
/** Beyond any namespace's cookie. */
const COOKIES = 1_000_000_000_000n

const numbersOfEdge: Codec<Float64Array> = {
  size: liveSchema.layout.edge.size,
  read: () => new Float64Array(0),
  write: (view, offset, value) => value.forEach((number, i) => view.setUint32(offset + i * 8, number, true)),
}

export interface ScrapeCost {
  /** Milliseconds that the event loop is held, and in which the text is there. Medians. */
  readonly readMs: number
  readonly totalMs: number
  readonly edges: number
  /** Those whose counts are in the text. */
  readonly counted: number
  readonly bytes: number
}

/** Milliseconds of CPU time of this thread: what the event loop is held, whatever else the machine does. */
function now(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

const wordOf = (text: string): string => `10.${text}`

/**
 * Half of the edges out of the node's pods, half into them. `replicas`: pods of a Deployment, whose edges share series; with 1 every edge has series of
 * its own.
 */
export async function measureScrape(
  pinRoot: string,
  edges: number,
  workloads: number,
  replicas: number,
  turns = 15,
): Promise<ScrapeCost> {
  const state = new MeshState()
  const pods: RegisteredPod[] = []
  const address = (i: number): string => wordOf(`${128 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`)
  const services = Math.max(1, workloads / 10)
  for (let i = 0; i < services; i++)
    state.setService(
      sampleService({ name: `service-${i}`, namespace: 'shop', addresses: [wordOf(`96.${i >> 8}.${i & 255}`)] }),
    )
  for (let i = 0; i < workloads; i++) {
    const owner = `deployment-${Math.floor(i / replicas)}`
    const name = `${owner}-5d4f8c7b9-${i}`
    const pod = { name, namespace: 'shop', serviceAccount: owner, addresses: [address(i)] }
    const labels = { app: owner, version: 'v1' }
    state.setWorkload(
      sampleWorkload({ ...pod, node: i < PODS ? NODE : 'node2', workloadName: owner, canonicalName: owner, labels }),
    )
    if (i < PODS) pods.push({ ...pod, uid: `pod-${i}`, netns: '' })
  }
  const { load, walk } = liveObject()
  using module = await load(pinRoot)
  const { name } = module.maps.ambit_edges.shape
  const map = module.map(name, edgeKeyText, numbersOfEdge)
  const values = new EdgeValues()
  const none = kernelAddress('::')
  const { failed, refused, sent, retransmits } = liveSchema.layout.edge.members
  /** Every fiftieth has had failures, refusals and retransmits. */
  const entries = (turn: number): [string, Float64Array][] =>
    keys.map((key, i) => {
      const numbers = new Float64Array(numbersOfEdge.size / 8).fill(turn)
      if (i % 50 !== 0) numbers.fill(0, failed / 8, sent / 8)
      if (i % 50 !== 0) numbers[retransmits / 8] = 0
      numbers.fill(0, refused / 8, refused / 8 + 1)
      return [key, numbers]
    })
  const keys: string[] = []
  for (let i = 0; i < edges; i++) {
    const inbound = i % 2
    // The pods of a Deployment have the same peers.
    const peer = PODS + Math.floor((i % PODS) / replicas) * 50 + Math.floor(i / PODS)
    const service = Math.floor(peer / replicas) % services
    const key = Buffer.alloc(EdgeKey.size)
    EdgeKey.write(new DataView(key.buffer, key.byteOffset), 0, {
      cookie: COOKIES + BigInt(i % PODS),
      peer: 0n,
      remote: kernelAddress(address(peer)),
      service: inbound ? none : kernelAddress(wordOf(`96.${service >> 8}.${service & 255}`)),
      port: 8080,
      service_port: inbound ? 0 : 80,
      direction: inbound,
      security: 1,
    })
    keys.push(key.toString('latin1'))
  }
  map.setMany(entries(1))
  const names = new Map(pods.map(({ uid }, i) => [COOKIES + BigInt(i), uid]))
  const edgesMap = module.map(name, edgeKeyText, values)
  const sources = { edges: edgesMap, values, live: walk && (() => walk(module)) }
  const kernel = new Edges(sources, (cookie) => names.get(cookie), now)
  const metrics = new Metrics('agent', 'bench')
  const observed = new KernelEdges({
    telemetry: { edges: () => kernel.read(), sweep: () => [], onFlows: () => undefined },
    ends: new Ends({ node: NODE, view: () => state, pods: () => pods }),
    tcp: new TcpMetrics(metrics),
    metrics,
    clock: systemClock,
  })
  let readMs = 0
  metrics.beforeScrape(() => {
    const started = now()
    observed.refresh()
    readMs = now() - started
  })
  try {
    const times: { read: number; total: number; bytes: number }[] = []
    let counted = 0
    for (let turn = 0; turn < turns; turn++) {
      map.setMany(entries(turn + 2))
      const started = now()
      const text = await metrics.text()
      const total = now() - started
      counted = 0
      for (const [, value] of text.matchAll(/^istio_tcp_connections_closed_total\{.* (\d+)$/gm)) {
        counted += Number(value) / (turn + 2)
      }
      times.push({ read: readMs, total, bytes: text.length })
    }
    const median = (of: (time: { read: number; total: number }) => number): number =>
      times.map(of).sort((a, b) => a - b)[Math.floor(turns / 2)] as number
    return {
      readMs: median(({ read }) => read),
      totalMs: median(({ total }) => total),
      edges,
      counted,
      bytes: times.at(-1)?.bytes ?? 0,
    }
  } finally {
    map.deleteMany(keys)
  }
}

const EDGES = 5_000
const WORKLOADS = 10_000
/** Pods of a Deployment. */
const SHARED = 'scrape, 5 000 edges of Deployments of 5'
const OWN = 'scrape, 5 000 edges with series of their own'

export const scrapeTargets: readonly TargetSpec[] = [SHARED, OWN].map((name) => ({
  row: `${name}: CPU`,
  baseline: '',
  limit: 50,
  atMost: true,
}))

/** Each case so often as there are rounds. */
export async function scrapeRows(pinRoot: string, rounds: number): Promise<Row[]> {
  const samples = new Samples()
  for (let round = 0; round < rounds; round++) {
    for (const [name, replicas] of [
      [SHARED, 5],
      [OWN, 1],
    ] as const) {
      const { readMs, totalMs, bytes } = await measureScrape(pinRoot, EDGES, WORKLOADS, replicas)
      samples.add(`${name}: CPU`, totalMs, 'ms', '')
      samples.add(`${name}: reading`, readMs, 'ms', '')
      samples.add(`${name}: text`, bytes / 1e6, 'MB', '')
    }
  }
  return samples.rows()
}
