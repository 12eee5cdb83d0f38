import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { sampleService, sampleWorkload } from '../../mesh/samples.ts'
import { MeshState } from '../../mesh/state.ts'
import { Metrics } from '../../telemetry/exposition.ts'
import { TcpMetrics } from '../../telemetry/istio.ts'
import { parseExposition, type Sample } from '../../telemetry/samples.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import type { EdgeTotals, KernelEdge } from '../redirect/contract.ts'
import { KernelEdges } from './edges.ts'
import { Ends } from './ends.ts'

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
type TestTotals = Mutable<EdgeTotals> & { refused: Record<'policy' | 'no_verdict' | 'plaintext', number> }
type TestEdge = Mutable<Omit<KernelEdge, 'totals'>> & { totals: TestTotals }

/** An agent of node1 with pods a and b of Deployments `front` and `back`, and edges as a kernel would tell them. */
class World {
  readonly state = new MeshState()
  readonly clock = new ManualClock()
  readonly edges: TestEdge[] = []
  readonly pods: RegisteredPod[] = []
  swept: TestEdge[] = []
  known = true
  readonly #metrics = new Metrics('agent', 'test')
  readonly kernel: KernelEdges

  constructor() {
    const ends = new Ends({
      node: 'node1',
      view: () => (this.known ? this.state : undefined),
      pods: () => this.pods,
    })
    this.kernel = new KernelEdges({
      telemetry: { edges: () => this.edges, sweep: () => this.swept.splice(0), onFlows: () => undefined },
      ends,
      tcp: new TcpMetrics(this.#metrics),
      metrics: this.#metrics,
      clock: this.clock,
    })
    this.#metrics.beforeScrape(() => this.kernel.refresh())
    this.pod('a', '10.1.0.1', 'front')
    this.pod('b', '10.1.0.2', 'back')
    this.state.setService(sampleService({ name: 'back', addresses: ['10.96.0.1'] }))
  }

  pod(name: string, address: string, workloadName: string, node = 'node1'): void {
    const pod = { name, namespace: 'default', addresses: [address] }
    const owner = { workloadName, serviceAccount: workloadName, canonicalName: workloadName, labels: {} }
    this.state.setWorkload(sampleWorkload({ ...pod, ...owner, node }))
    if (node === 'node1') this.pods.push({ ...pod, uid: name, netns: '' })
  }

  edge(given: Partial<TestEdge>, totals: Partial<TestTotals>): TestEdge {
    const edge: TestEdge = {
      direction: 'outbound',
      security: 'same_node',
      pod: 'a',
      peer: undefined,
      remote: '10.1.0.2',
      service: undefined,
      port: 8080,
      overflow: false,
      version: 1,
      ...given,
      totals: {
        opened: 0,
        closed: 0,
        failed: 0,
        refused: { policy: 0, no_verdict: 0, plaintext: 0 },
        sent: 0,
        received: 0,
        retransmits: 0,
        rttSumUs: 0,
        rtt: new Float64Array(17),
        ...totals,
      },
    }
    this.edges.push(edge)
    return edge
  }

  async scrape(): Promise<Sample[]> {
    const { samples } = parseExposition(await this.#metrics.text())
    return samples.filter(({ name }) => /^(istio|ambit)_tcp/.test(name))
  }

  /** Values of a metric, by reporter. */
  async values(name: string): Promise<Record<string, number>> {
    const samples = (await this.scrape()).filter((sample) => sample.name === name)
    return Object.fromEntries(samples.map(({ labels, value }) => [labels['reporter'] ?? '', value]))
  }
}

const grow = (edge: TestEdge, totals: Partial<TestTotals>): void => {
  Object.assign(edge.totals, totals)
  edge.version++
}

describe('edges of the kernel', () => {
  it('become Istio’s metrics of both reporters, named from the server’s side', async () => {
    const world = new World()
    const service = { address: '10.96.0.1', port: 80 }
    world.edge({ service }, { opened: 3, closed: 2, sent: 10, received: 20 })
    world.edge(
      { direction: 'inbound', pod: 'b', peer: 'a', remote: undefined, service },
      { opened: 3, sent: 20, received: 10 },
    )
    const samples = await world.scrape()
    const received = samples.filter(({ name }) => name === 'istio_tcp_received_bytes_total')
    expect(received.map(({ labels, value }) => [labels['reporter'], value])).toEqual([
      ['source', 10],
      ['destination', 10],
    ])
    expect(await world.values('istio_tcp_sent_bytes_total')).toEqual({ source: 20, destination: 20 })
    expect(await world.values('istio_tcp_connections_opened_total')).toEqual({ source: 3, destination: 3 })
    expect(await world.values('istio_tcp_connections_closed_total')).toEqual({ source: 2, destination: 0 })
    for (const { labels } of received) {
      expect(labels).toMatchObject({
        source_workload: 'front',
        destination_workload: 'back',
        destination_service: 'back.default.svc.cluster.local',
        source_principal: 'spiffe://cluster.local/ns/default/sa/front',
        connection_security_policy: 'same_node',
        response_flags: '-',
      })
    }
  })

  it('never call the direct path mutual TLS, and what is plain verified', async () => {
    const world = new World()
    world.edge({}, { opened: 1 })
    world.edge({ security: 'none', remote: undefined, port: 0 }, { opened: 1 })
    const opened = (await world.scrape()).filter(({ name }) => name === 'istio_tcp_connections_opened_total')
    expect(opened.map(({ labels }) => labels['connection_security_policy'])).toEqual(['same_node', 'none'])
    expect(opened[1]?.labels).toMatchObject({ source_principal: 'unknown', destination_workload: 'unknown' })
  })

  it('count on from scrape to scrape', async () => {
    const world = new World()
    const edge = world.edge({}, { opened: 1, sent: 5 })
    await world.scrape()
    grow(edge, { opened: 4, closed: 4, sent: 50 })
    expect(await world.values('istio_tcp_connections_opened_total')).toEqual({ source: 4 })
    expect(await world.values('istio_tcp_received_bytes_total')).toEqual({ source: 50 })
  })

  it('add up where pods are of one Deployment', async () => {
    const world = new World()
    world.pod('a2', '10.1.0.3', 'front')
    world.edge({}, { opened: 1 })
    world.edge({ pod: 'a2' }, { opened: 2 })
    expect(await world.values('istio_tcp_connections_opened_total')).toEqual({ source: 3 })
  })

  it('tell failures from refusals, and refusals by reason', async () => {
    const world = new World()
    world.edge({}, { failed: 2, refused: { policy: 3, no_verdict: 1, plaintext: 0 } })
    const samples = await world.scrape()
    const failed = samples.filter(({ name }) => name === 'istio_tcp_connections_failed_total')
    expect(failed.map(({ labels, value }) => [labels['response_flags'], value])).toEqual([
      ['CONNECT', 2],
      ['DENY', 4],
    ])
    const refused = samples.filter(({ name }) => name === 'ambit_tcp_connections_refused_total')
    expect(refused.map(({ labels, value }) => [labels['reason'], value])).toEqual([
      ['policy', 3],
      ['no_verdict', 1],
    ])
    // Nothing was opened, and nothing says so.
    expect(samples.filter(({ name }) => name === 'istio_tcp_connections_opened_total')).toEqual([])
  })

  it('have round-trip times in seconds, from the side that dialled', async () => {
    const world = new World()
    const rtt = new Float64Array(17)
    rtt[0] = 1 // up to 16 µs
    rtt[1] = 2 // up to 32 µs
    rtt[2] = 4 // up to 64 µs
    rtt[16] = 8
    world.edge({}, { opened: 15, rtt, rttSumUs: 3_000_000, retransmits: 2 })
    world.edge({ direction: 'inbound', pod: 'b', peer: 'a', remote: undefined }, { opened: 15, rtt, retransmits: 1 })
    const samples = await world.scrape()
    const buckets = samples.filter(({ name }) => name === 'ambit_tcp_rtt_seconds_bucket')
    expect(buckets.map(({ labels, value }) => [labels['le'], value])).toEqual([
      ['0.000016', 1],
      ['0.000064', 7],
      ['0.000256', 7],
      ['0.001024', 7],
      ['0.004096', 7],
      ['0.016384', 7],
      ['0.065536', 7],
      ['0.262144', 7],
      ['+Inf', 15],
    ])
    expect(await world.values('ambit_tcp_rtt_seconds_sum')).toEqual({ source: 3 })
    expect(await world.values('ambit_tcp_retransmits_total')).toEqual({ source: 2, destination: 1 })
  })

  it('of tunnels say only what the agent cannot count itself', async () => {
    const world = new World()
    world.edge({ security: 'tunnel', port: 15_008 }, { opened: 1, closed: 1, sent: 1, failed: 1, retransmits: 7 })
    const samples = await world.scrape()
    expect(samples.map(({ name }) => name)).toEqual(['ambit_tcp_retransmits_total'])
    expect(samples[0]?.labels['connection_security_policy']).toBe('mutual_tls')
  })

  it('wait for a state and for the pod to be known, and lose nothing', async () => {
    const world = new World()
    world.known = false
    const edge = world.edge({ pod: undefined }, { opened: 5 })
    expect(await world.scrape()).toEqual([])
    world.known = true
    expect(await world.scrape()).toEqual([])
    edge.pod = 'a'
    expect(await world.values('istio_tcp_connections_opened_total')).toEqual({ source: 5 })
  })

  it('keep the names of a peer that has gone, and give a new one at its address its own', async () => {
    const world = new World()
    const edge = world.edge({}, { opened: 1 })
    await world.scrape()
    world.state.removeWorkload('c//Pod/default/b')
    grow(edge, { opened: 2 })
    const opened = async (): Promise<unknown[]> =>
      (await world.scrape())
        .filter(({ name }) => name === 'istio_tcp_connections_opened_total')
        .map(({ labels, value }) => [labels['destination_workload'], value])
    expect(await opened()).toEqual([['back', 2]])
    world.pod('c', '10.1.0.2', 'other')
    grow(edge, { opened: 5 })
    // Nobody counts on the old series any more.
    expect(await opened()).toEqual([['other', 3]])
  })

  it('leave no series behind when the kernel has forgotten them', async () => {
    const world = new World()
    world.pod('a2', '10.1.0.3', 'front')
    const totals = { opened: 1, failed: 1, retransmits: 1, refused: { policy: 1, no_verdict: 0, plaintext: 0 } }
    const one = world.edge({}, { ...totals, rtt: new Float64Array(17).fill(1) })
    const two = world.edge({ pod: 'a2' }, { opened: 1 })
    world.kernel.start()
    await world.scrape()
    world.swept = [one]
    world.edges.splice(0, 1)
    world.clock.advance(60_000)
    // The other pod of the Deployment still counts there.
    expect((await world.scrape()).map(({ name }) => name)).toEqual([
      'istio_tcp_connections_opened_total',
      'istio_tcp_connections_closed_total',
      'istio_tcp_sent_bytes_total',
      'istio_tcp_received_bytes_total',
    ])
    world.swept = [two]
    world.edges.splice(0, 1)
    world.clock.advance(60_000)
    expect(await world.scrape()).toEqual([])
    // Should it come back, it is counted anew.
    world.edge({}, { opened: 1 })
    expect(await world.values('istio_tcp_connections_opened_total')).toEqual({ source: 1 })
    world.kernel.stop()
  })

  it('count what the kernel had no room for in the series for all others', async () => {
    const world = new World()
    world.edge({ overflow: true, pod: undefined, remote: undefined }, { opened: 9, failed: 1, sent: 4 })
    const samples = await world.scrape()
    const opened = samples.find(({ name }) => name === 'istio_tcp_connections_opened_total')
    expect(opened?.value).toBe(9)
    expect(new Set(Object.values(opened?.labels ?? {}))).toEqual(new Set(['overflow']))
  })
})
