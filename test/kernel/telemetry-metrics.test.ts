// From real connections between pods to the agent's metrics and access lines: what the kernel carries is told by the kernel,
// what the agent carries by the agent, nothing by both. And what a scrape costs with many edges.
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../agent/base/clock.ts'
import { sampleService, sampleWorkload } from '../../agent/mesh/samples.ts'
import { MeshState } from '../../agent/mesh/state.ts'
import { KernelEdges } from '../../agent/node/observe/edges.ts'
import { Ends } from '../../agent/node/observe/ends.ts'
import { Flows } from '../../agent/node/observe/flow.ts'
import { Refusals } from '../../agent/node/observe/refusals.ts'
import { AccessLog } from '../../agent/telemetry/access-log.ts'
import { Metrics } from '../../agent/telemetry/exposition.ts'
import { TcpMetrics } from '../../agent/telemetry/istio.ts'
import { parseExposition, type Sample } from '../../agent/telemetry/samples.ts'
import { measureScrape } from '../bench/kernel/scrape.ts'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

const VIP = '10.96.0.7'

describe('the agent tells of the kernel’s connections', () => {
  let node: TestNode
  let client: Pod
  let server: Pod
  let app: Sockets
  let served: Sockets
  let captured: Captured
  let listener: number
  const folder = mkdtempSync(join(tmpdir(), 'ambit-telemetry-'))
  const logFile = join(folder, 'access.log')
  const log = new AccessLog({ fd: openSync(logFile, 'w') })
  const metrics = new Metrics('agent', 'test')
  const state = new MeshState()

  beforeAll(async () => {
    node = await TestNode.open()
    client = node.world.pod()
    server = node.world.pod()
    app = node.world.sockets(client)
    served = node.world.sockets(server)
    captured = await node.capture(client)
    await node.capture(server)
    const { tables, telemetry } = node.redirect
    const pods = [client, server].map((pod) => ({
      uid: pod.name,
      netns: pod.netns,
      namespace: 'shop',
      name: pod.name,
      addresses: [pod.v4, pod.v6],
    }))
    for (const [i, workloadName] of ['front', 'back'].entries())
      state.setWorkload(sampleWorkload({ ...pods[i]!, uid: workloadName, serviceAccount: workloadName, workloadName }))
    state.setService(sampleService({ name: 'back', namespace: 'shop', addresses: [VIP] }))
    await tables.setAddresses([
      { address: server.v4, class: 'direct', pod: server.name },
      { address: VIP, class: 'agent' },
      { address: '10.96.0.99', class: 'agent' },
    ])
    await tables.setServices([
      { address: VIP, port: 80, kind: 'balanced', backends: [{ address: server.v4, port: 8080 }], affinitySeconds: 0 },
    ])
    await tables.replacePolicies([[server.name, { head: 'allow', rows: [], udpRefused: [] }]])
    tables.setDirect(client.name, true)
    tables.setSettings({ synced: true, passUnknown: true })
    listener = (await served.must('listen', { source: 8080 })).socket!

    const tcp = new TcpMetrics(metrics)
    const ends = new Ends({ node: 'node1', view: () => state, pods: () => pods })
    const flows = new Flows(tcp, new Refusals(metrics), log, systemClock)
    const kernel = new KernelEdges({ telemetry, ends, tcp, metrics, clock: systemClock })
    metrics.beforeScrape(() => kernel.refresh())
    telemetry.onFlows((list) => {
      for (const flow of list) flows.kernel(flow, ends.flow(flow))
    })
  })
  afterAll(async () => {
    await log.close()
    rmSync(folder, { recursive: true })
    await node.close()
  })

  async function scrape(): Promise<Sample[]> {
    const { samples } = parseExposition(await metrics.text())
    return samples.filter(({ name }) => name.startsWith('istio_tcp') || name.startsWith('ambit_tcp'))
  }
  /** Access lines, once there are so many. */
  async function lines(count: number): Promise<Record<string, unknown>[]> {
    const read = async (): Promise<string[]> => {
      await log.flush()
      return readFileSync(logFile, 'utf8').split('\n').slice(0, -1)
    }
    await expect.poll(async () => (await read()).length).toBe(count)
    return (await read()).map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  it('with Istio’s names on both sides, and a line with ztunnel’s fields', async () => {
    const { socket } = await app.must('connect', { to: VIP, port: 80 })
    const at = (await served.must('accept', { socket: listener })).socket
    await app.must('write', { socket, bytes: 1000 })
    await served.must('read', { socket: at, bytes: 1000 })
    await served.must('write', { socket: at, bytes: 250 })
    await app.must('read', { socket, bytes: 250 })
    const running = await scrape()
    const of = (name: string, samples: Sample[]): unknown[] =>
      samples.filter((sample) => sample.name === name).map(({ labels, value }) => [labels['reporter'], value])
    expect(new Map(of('istio_tcp_received_bytes_total', running) as [string, number][])).toEqual(
      new Map([
        ['source', 1000],
        ['destination', 1000],
      ]),
    )
    await app.must('close', { socket })
    await served.must('close', { socket: at })
    await expect
      .poll(async () => of('istio_tcp_connections_closed_total', await scrape()))
      .toEqual(of('istio_tcp_connections_opened_total', running))
    const samples = await scrape()
    expect(of('ambit_tcp_rtt_seconds_count', samples)).toEqual([['source', 1]])
    for (const { labels } of samples) {
      expect(labels).toMatchObject({
        source_workload: 'front',
        destination_workload: 'back',
        connection_security_policy: 'same_node',
      })
    }
    const [line] = await lines(1)
    expect(line).toMatchObject({
      level: 'info',
      scope: 'access',
      message: 'connection complete',
      'src.workload': client.name,
      'src.namespace': 'shop',
      'src.identity': 'spiffe://cluster.local/ns/shop/sa/front',
      'dst.addr': `${server.v4}:8080`,
      'dst.service': 'back.shop.svc.cluster.local',
      'dst.workload': server.name,
      'dst.identity': 'spiffe://cluster.local/ns/shop/sa/back',
      direction: 'outbound',
      bytes_sent: 1000,
      bytes_recv: 250,
    })
    expect(line!['src.addr']).toMatch(new RegExp(`^${client.v4}:[0-9]+$`))
    expect(line).not.toHaveProperty('error')
  })

  it('of a refused one at both ends, with the reason in its line', async () => {
    await node.redirect.tables.replacePolicies([[server.name, { head: 'deny', rows: [], udpRefused: [] }]])
    expect((await app.call('connect', { to: VIP, port: 80 })).error).toBe('ECONNREFUSED')
    const refused = async (): Promise<unknown[]> =>
      (await scrape())
        .filter(({ name }) => name === 'ambit_tcp_connections_refused_total')
        .map(({ labels, value }) => `${labels['reporter']} ${labels['reason']} ${value}`)
        .sort()
    await expect.poll(refused).toEqual(['destination policy 1', 'source policy 1'])
    const failed = (await scrape()).filter(({ name }) => name === 'istio_tcp_connections_failed_total')
    expect(failed.map(({ labels, value }) => [labels['response_flags'], value])).toEqual([
      ['DENY', 1],
      ['DENY', 1],
    ])
    const [, line] = await lines(2)
    expect(line).toMatchObject({ level: 'warn', message: 'connection failed', 'dst.workload': server.name })
    expect(line!['error']).toContain('denied by policy')
    await node.redirect.tables.replacePolicies([[server.name, { head: 'allow', rows: [], udpRefused: [] }]])
  })

  it('and nothing of what goes through the agent', async () => {
    const before = await scrape()
    const { socket } = await app.must('connect', { to: '10.96.0.99', port: 80 })
    const { connection } = await captured.outbound.next()
    await app.must('write', { socket, bytes: 5000 })
    await expect.poll(() => captured.outbound.received.length).toBe(5000)
    // Nor of what the agent brings to an app.
    const delivered = node.deliver(server, { address: server.v4, port: 8080 }, { address: client.v4, port: 1234 })
    const at = (await served.must('accept', { socket: listener })).socket
    await served.must('write', { socket: at, bytes: 100 })
    await expect.poll(() => delivered.queue.received.length).toBe(100)
    connection.abort('cancel')
    delivered.connection.abort('cancel')
    await app.must('close', { socket })
    await served.must('close', { socket: at })
    expect(await scrape()).toEqual(before)
    await lines(2)
  })

  it('of five thousand edges in a text that is whole', { timeout: 60_000 }, async () => {
    const cost = await measureScrape(node.world.pinRoot, 5000, 10_000, 5, 3)
    expect(cost).toMatchObject({ edges: 5000, counted: 5000 })
  })
})
