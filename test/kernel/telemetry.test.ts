// What the kernel counts of connections it handles alone, held against what the apps did: connections, bytes, refusals.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Connection, ConnectionHandler } from '../../agent/io/connection.ts'
import { transport } from '../../agent/io/index.ts'
import type { EdgeTotals, KernelEdge, KernelFlow, PolicyTable } from '../../agent/node/redirect/contract.ts'
import { edgeKeyText, Edges, EdgeValues, rttBoundsUs } from '../../agent/node/redirect/edges.ts'
import { liveObject } from '../../agent/node/redirect/live.ts'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import { closeFd, dupFd, netnsCookie, openPinnedMap } from '../../native/bpf/index.ts'
import { ip, type Pod, type Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

const VIP = '10.96.0.7'
const ALLOW: PolicyTable = { head: 'allow', rows: [], udpRefused: [] }

/** The numbers of an edge that tests look at. */
type Counted = Record<'opened' | 'closed' | 'failed' | 'policy' | 'sent' | 'received' | 'rtts', number>

function counted({ opened, closed, failed, sent, received, refused, rtt }: EdgeTotals): Counted {
  const rtts = rtt.reduce((sum, count) => sum + count, 0)
  return { opened, closed, failed, sent, received, policy: refused.policy, rtts }
}

const NONE: Counted = { opened: 0, closed: 0, failed: 0, sent: 0, received: 0, policy: 0, rtts: 0 }

describe('the kernel’s counts', () => {
  let node: TestNode
  let client: Pod
  let server: Pod
  let outside: Pod
  let app: Sockets
  let served: Sockets
  let stranger: Sockets
  let captured: Captured
  const listeners = new Map<number, number>()
  let nextPort = 9000
  const flows: KernelFlow[] = []

  beforeAll(async () => {
    node = await TestNode.open()
    client = node.world.pod()
    server = node.world.pod()
    outside = node.world.outside
    app = node.world.sockets(client)
    served = node.world.sockets(server)
    stranger = node.world.sockets(outside, outside.cgroup)
    captured = await node.capture(client)
    await node.capture(server)
    const { tables, telemetry } = node.redirect
    tables.setSettings({ synced: true, passUnknown: true })
    const row = (pod: Pod, address: string) => ({ address, class: 'direct' as const, pod: pod.name })
    await tables.setAddresses([client, server].flatMap((pod) => [row(pod, pod.v4), row(pod, pod.v6)]))
    for (const pod of [client, server]) tables.setDirect(pod.name, true)
    await tables.replacePolicies([[server.name, ALLOW]])
    telemetry.onFlows((more) => flows.push(...more))
  })
  afterAll(() => node.close())

  /** A port of the server's that no other test uses, listened on. */
  async function port(family = 4): Promise<number> {
    const number = nextPort++
    listeners.set(number, (await served.must('listen', { family, source: number })).socket!)
    return number
  }

  /** A direct connection, by both of its sockets. */
  async function open(to: number, address = server.v4, dialled = to): Promise<{ from: number; at: number }> {
    const family = address.includes(':') ? 6 : 4
    const { socket } = await app.must('connect', { to: address, port: dialled, family })
    const at = (await served.must('accept', { socket: listeners.get(to)! })).socket!
    return { from: socket!, at }
  }

  /** Bytes one way, then the other. */
  async function exchange(from: number, at: number, out: number, back: number): Promise<void> {
    await Promise.all([
      app.must('write', { socket: from, bytes: out }),
      served.must('read', { socket: at, bytes: out }),
    ])
    await Promise.all([
      served.must('write', { socket: at, bytes: back }),
      app.must('read', { socket: from, bytes: back }),
    ])
  }

  /** Those that dialled first. */
  const edges = (test: (edge: KernelEdge) => boolean): KernelEdge[] =>
    [...node.redirect.telemetry.edges()]
      .filter((edge) => !edge.overflow && test(edge))
      .sort((a, b) => (a.direction > b.direction ? -1 : 1))

  /** What is counted for connections to a port, by the side that dialled and by the one that answered. */
  function sides(to: number): { out: Counted; in: Counted } {
    const sum = (direction: string): Counted =>
      edges((edge) => edge.port === to && edge.direction === direction)
        .map(({ totals }) => counted(totals))
        .reduce(
          (all, one) => {
            for (const name of Object.keys(all) as (keyof Counted)[]) all[name] += one[name]
            return all
          },
          { ...NONE },
        )
    return { out: sum('outbound'), in: sum('inbound') }
  }

  /** The same once it is what is expected, which is when both kernels have seen the end. */
  const expectSides = (to: number, out: Partial<Counted>, inwards: Partial<Counted>): Promise<void> =>
    expect.poll(() => sides(to)).toEqual({ out: { ...NONE, ...out }, in: { ...NONE, ...inwards } })

  it.each([
    { what: 'nothing', out: 0, back: 0 },
    { what: 'one byte', out: 1, back: 0 },
    { what: 'one byte back', out: 0, back: 1 },
    { what: 'some bytes both ways', out: 1234, back: 567 },
    { what: 'some megabytes', out: 5_000_000, back: 3_000_001 },
  ])('are exact for $what, while it runs and after', async ({ out, back }) => {
    const to = await port()
    const { from, at } = await open(to)
    await exchange(from, at, out, back)
    await expectSides(to, { opened: 1, sent: out, received: back }, { opened: 1, sent: back, received: out })
    await app.must('close', { socket: from })
    expect((await served.must('read', { socket: at })).bytes).toBe(0)
    await served.must('close', { socket: at })
    await expectSides(
      to,
      { opened: 1, closed: 1, sent: out, received: back, rtts: 1 },
      { opened: 1, closed: 1, sent: back, received: out, rtts: 1 },
    )
  })

  it.each([
    { what: 'IPv6', address: () => server.v6 },
    { what: 'a v4-mapped address', address: () => `::ffff:${server.v4}` },
  ])('are exact over $what', async ({ address }) => {
    const to = await port(6)
    const { from, at } = await open(to, address())
    await exchange(from, at, 1000, 2000)
    await served.must('close', { socket: at })
    await app.must('read', { socket: from })
    await app.must('close', { socket: from })
    await expectSides(
      to,
      { opened: 1, closed: 1, sent: 1000, received: 2000, rtts: 1 },
      { opened: 1, closed: 1, sent: 2000, received: 1000, rtts: 1 },
    )
  })

  it('tell the service that was dialled, on both sides', async () => {
    const to = await port()
    await node.redirect.tables.setServices([
      { address: VIP, port: 80, kind: 'balanced', backends: [{ address: server.v4, port: to }], affinitySeconds: 0 },
    ])
    const { from, at } = await open(to, VIP, 80)
    await exchange(from, at, 10, 20)
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
    await expect.poll(() => sides(to).in.closed).toBe(1)
    const service = { address: VIP, port: 80 }
    expect(edges((edge) => edge.port === to)).toMatchObject([
      { direction: 'outbound', security: 'same_node', pod: client.name, remote: server.v4, peer: undefined, service },
      { direction: 'inbound', security: 'same_node', pod: server.name, remote: undefined, peer: client.name, service },
    ])
  })

  it('are exact when one side ends first and the other goes on', async () => {
    const to = await port()
    const { from, at } = await open(to)
    await app.must('write', { socket: from, bytes: 100 })
    await app.must('shutdown', { socket: from })
    expect((await served.must('read', { socket: at })).bytes).toBe(100)
    await expectSides(to, { opened: 1, sent: 100 }, { opened: 1, received: 100 })
    await Promise.all([
      served.must('write', { socket: at, bytes: 300_000 }),
      app.must('read', { socket: from, bytes: 300_000 }),
    ])
    await expectSides(to, { opened: 1, sent: 100, received: 300_000 }, { opened: 1, sent: 300_000, received: 100 })
    await served.must('close', { socket: at })
    expect((await app.must('read', { socket: from })).bytes).toBe(0)
    await app.must('close', { socket: from })
    await expectSides(
      to,
      { opened: 1, closed: 1, sent: 100, received: 300_000, rtts: 1 },
      { opened: 1, closed: 1, sent: 300_000, received: 100, rtts: 1 },
    )
  })

  it.each([
    { what: 'the client resets it', reset: 'client' },
    { what: 'the server resets it', reset: 'server' },
    { what: 'the server closes it with bytes unread', reset: 'unread' },
  ])('are exact when $what', async ({ reset }) => {
    const to = await port()
    const { from, at } = await open(to)
    await exchange(from, at, 1000, 2000)
    if (reset === 'client') await app.must('reset', { socket: from })
    else {
      await app.must('write', { socket: from, bytes: 50 })
      await expect.poll(() => sides(to).in.received).toBe(1050)
      await served.must(reset === 'server' ? 'reset' : 'close', { socket: at })
    }
    const out = reset === 'client' ? 1000 : 1050
    await expectSides(
      to,
      { opened: 1, closed: 1, sent: out, received: 2000, rtts: 1 },
      { opened: 1, closed: 1, sent: 2000, received: out, rtts: 1 },
    )
    await (reset === 'client' ? served.must('close', { socket: at }) : app.must('close', { socket: from }))
  })

  it('count a connection that nobody answered as failed', async () => {
    const { failed } = sides(0).out
    expect((await app.call('connect', { to: server.v4, port: 9999 })).error).toBe('ECONNREFUSED')
    await expect.poll(() => sides(0).out.failed - failed).toBe(1)
    expect(edges((edge) => edge.port === 9999)).toEqual([])
  })

  it('count a refusal by policy on both sides, and say so in the flow log', async () => {
    const to = await port()
    const backends = [{ address: server.v4, port: to }]
    await node.redirect.tables.setServices([{ address: VIP, port: 81, kind: 'balanced', backends, affinitySeconds: 0 }])
    const table: PolicyTable = { head: 'by_port', rows: [], udpRefused: [] }
    const rows = [
      { client: undefined, port: undefined, verdict: 'allow' as const },
      { client: undefined, port: to, verdict: 'deny' as const },
    ]
    await node.redirect.tables.replacePolicies([[server.name, { ...table, rows }]])
    expect((await app.call('connect', { to: VIP, port: 81 })).error).toBe('ECONNREFUSED')
    await expectSides(to, { policy: 1 }, { policy: 1 })
    await expect
      .poll(() => flows.find(({ destination }) => destination.port === to))
      .toMatchObject({
        pod: client.name,
        failed: true,
        refusal: 'policy',
        error: 'ECONNREFUSED',
        dialled: { address: VIP, port: 81 },
        destination: { address: server.v4, port: to },
      })
    await node.redirect.tables.replacePolicies([[server.name, ALLOW]])
  })

  it('count plaintext that is refused, without naming strangers', async () => {
    const [before = 0] = edges(({ totals }) => totals.refused.plaintext > 0).map(
      ({ totals }) => totals.refused.plaintext,
    )
    node.redirect.setPlaintext(server.name, 'refuse')
    expect((await stranger.call('connect', { to: server.v4, port: 9000 })).error).toBe('ECONNREFUSED')
    node.redirect.setPlaintext(server.name, 'judge')
    expect(edges(({ totals }) => totals.refused.plaintext > 0)).toMatchObject([
      { pod: server.name, direction: 'inbound', remote: undefined, peer: undefined, port: 0 },
    ])
    const [after = 0] = edges(({ totals }) => totals.refused.plaintext > 0).map(
      ({ totals }) => totals.refused.plaintext,
    )
    expect(after - before).toBe(1)
  })

  it('put all that is outside the mesh and in no table on one edge', async () => {
    const server = await stranger.must('listen', { source: 7100 })
    const dial = { to: outside.v4, port: 7100 }
    for (let i = 0; i < 2; i++) {
      const { socket } = await app.must('connect', dial)
      const at = (await stranger.must('accept', { socket: server.socket })).socket
      await app.must('write', { socket, bytes: 11 })
      await stranger.must('read', { socket: at, bytes: 11 })
      await app.must('close', { socket })
      await stranger.must('close', { socket: at })
    }
    const there = (): KernelEdge[] => edges((edge) => edge.direction === 'outbound' && edge.security === 'none')
    await expect.poll(() => there().map(({ totals }) => totals.closed)).toEqual([2])
    expect(there()).toMatchObject([{ remote: undefined, service: undefined, port: 0, totals: { sent: 22 } }])
    // In a table it has an edge of its own.
    await node.redirect.tables.setAddresses([{ address: outside.v4, class: 'plain' }])
    const { socket } = await app.must('connect', dial)
    await app.must('close', { socket })
    await expect.poll(() => edges((edge) => edge.port === 7100).map(({ totals }) => totals.closed)).toEqual([1])
    expect(edges((edge) => edge.port === 7100)).toMatchObject([{ remote: outside.v4, security: 'none' }])
    await node.redirect.tables.deleteAddresses([outside.v4])
  })

  it('count a socket that is used again anew', async () => {
    const [one, two] = [await port(), await port()]
    const { from, at } = await open(one)
    await exchange(from, at, 7, 8)
    await app.must('disconnect', { socket: from })
    await served.must('close', { socket: at })
    await app.must('connect', { socket: from, to: server.v4, port: two })
    const again = (await served.must('accept', { socket: listeners.get(two)! })).socket!
    await exchange(from, again, 5, 6)
    await app.must('close', { socket: from })
    await served.must('close', { socket: again })
    await expectSides(
      one,
      { opened: 1, closed: 1, sent: 7, received: 8, rtts: 1 },
      { opened: 1, closed: 1, sent: 8, received: 7, rtts: 1 },
    )
    await expectSides(
      two,
      { opened: 1, closed: 1, sent: 5, received: 6, rtts: 1 },
      { opened: 1, closed: 1, sent: 6, received: 5, rtts: 1 },
    )
  })

  it('show a long transfer on both sides while it runs', async () => {
    const to = await port()
    const { from, at } = await open(to)
    const moved = Promise.all([
      app.must('write', { socket: from, bytes: 400_000_000 }),
      served.must('read', { socket: at, bytes: 400_000_000 }),
    ])
    const seen = new Set<number>()
    const done = moved.then(() => true)
    while (!(await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 10, false))]))) {
      const { out, in: inwards } = sides(to)
      expect(inwards.received).toBeLessThanOrEqual(sides(to).out.sent)
      if (out.sent > 0 && inwards.received > 0) seen.add(inwards.received)
    }
    expect(seen.size).toBeGreaterThan(2)
    await expectSides(to, { opened: 1, sent: 400_000_000 }, { opened: 1, received: 400_000_000 })
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
  })

  it('have the retransmits that the sockets had', async () => {
    const to = await port()
    const { from, at } = await open(to)
    const nft = (...words: string[]): string => ip('netns', 'exec', server.name, 'nft', ...words)
    nft('add table inet loss; add chain inet loss in { type filter hook input priority 0; }')
    nft(`add rule inet loss in tcp dport ${to} meta length > 500 numgen inc mod 40 1 counter drop`)
    await Promise.all([
      app.must('write', { socket: from, bytes: 8_000_000 }),
      served.must('read', { socket: at, bytes: 8_000_000 }),
    ])
    nft('delete table inet loss')
    await expect.poll(() => sides(to).in.received).toBe(8_000_000)
    const { retransmits } = await app.must('info', { socket: from })
    const sum = (): number => edges((edge) => edge.port === to).reduce((all, { totals }) => all + totals.retransmits, 0)
    expect(retransmits).toBeGreaterThan(0)
    expect(sum()).toBe(retransmits)
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
    await expect.poll(() => sides(to).out.closed).toBe(1)
    expect(sum()).toBe(retransmits)
    // Bytes are counted once, however often they were sent.
    expect(sides(to).out.sent).toBe(8_000_000)
  })

  it('take a running connection’s round-trip time now and then', async () => {
    const to = await port()
    const { from, at } = await open(to)
    for (let i = 0; i < 5; i++) await exchange(from, at, 100, 100)
    const { rtt_us: rtt = 0 } = await app.must('info', { socket: from })
    expect(sides(to).out.rtts).toBe(0)
    const { load, walk } = liveObject(0n)
    using live = await load(node.world.pinRoot)
    // The look before has only started the time.
    walk!(live)
    expect(sides(to)).toMatchObject({ out: { rtts: 1 }, in: { rtts: 1 } })
    const [{ totals }] = edges((edge) => edge.port === to && edge.direction === 'outbound') as [KernelEdge]
    expect(totals.rttSumUs).toBe(rtt)
    const bucket = totals.rtt.findIndex((count) => count > 0)
    expect(rtt).toBeLessThanOrEqual(rttBoundsUs[bucket] ?? Infinity)
    expect(rtt).toBeGreaterThan(rttBoundsUs[bucket - 1] ?? 0)
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
    await expect.poll(() => sides(to).out.rtts).toBe(2)
  })

  it('count the agent’s tunnels for the pod they are for', async () => {
    const listening = await stranger.must('listen', { source: 15_008 })
    const tunnel = { address: outside.v4, port: 15_008 }
    const fd = node.redirect.socket(client.name, { family: 4, tunnel })
    // Held twice, as by processes that share it.
    const again = dupFd(fd)
    const onOpen = (opened: Connection): void => opened.write(Buffer.alloc(5000))
    const handler: ConnectionHandler = { onOpen, onRead() {}, onDrain() {}, onEnd() {}, onClose() {} }
    const connection = transport.connect({ handler, fd, host: tunnel.address, port: tunnel.port })
    const at = (await stranger.must('accept', { socket: listening.socket })).socket
    await stranger.must('read', { socket: at, bytes: 5000 })
    const there = (): KernelEdge[] => edges(({ security }) => security === 'tunnel')
    await expect.poll(() => there().map(({ totals }) => totals.sent)).toEqual([5000])
    expect(there()).toMatchObject([{ pod: client.name, remote: outside.v4, port: 15_008, direction: 'outbound' }])
    expect(there()).toMatchObject([{ totals: { opened: 1 } }])
    closeFd(again)
    connection.end()
    await stranger.must('close', { socket: at })
    await expect.poll(() => there().map(({ totals }) => counted(totals).rtts)).toEqual([1])
    expect(flows.some(({ destination }) => destination.port === 15_008)).toBe(false)
  })

  it('leave captured connections to the agent', async () => {
    await node.redirect.tables.setAddresses([{ address: '10.96.0.99', class: 'agent' }])
    const { socket } = await app.must('connect', { to: '10.96.0.99', port: 4321 })
    await captured.outbound.next()
    await app.must('close', { socket })
    expect(edges((edge) => edge.port === 4321 || edge.service?.port === 4321)).toEqual([])
  })

  it('are told connection by connection in the flow log', async () => {
    const to = await port()
    const { from, at } = await open(to)
    await exchange(from, at, 12, 34)
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
    const of = (): KernelFlow[] => flows.filter(({ destination }) => destination.port === to)
    await expect.poll(() => of().length).toBe(1)
    const [flow] = of() as [KernelFlow]
    expect(flow).toMatchObject({
      pod: client.name,
      security: 'same_node',
      source: { address: client.v4 },
      destination: { address: server.v4, port: to },
      dialled: { address: server.v4, port: to },
      sent: 12,
      received: 34,
      failed: false,
      error: '',
      refusal: undefined,
    })
    expect(flow.durationMs).toBeGreaterThan(0)
    expect(flow.durationMs).toBeLessThan(3000)
  })

  it('go on through a new agent, with what happened while there was none', async () => {
    const [to, during] = [await port(), await port()]
    const running = await open(to)
    await exchange(running.from, running.at, 100, 200)
    const before = sides(to)
    expect(before.out).toMatchObject({ opened: 1, sent: 100 })
    await node.die()
    const { from, at } = await open(during)
    await exchange(from, at, 3, 4)
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
    await node.restart()
    expect(sides(to)).toEqual(before)
    await expectSides(
      during,
      { opened: 1, closed: 1, sent: 3, received: 4, rtts: 1 },
      { opened: 1, closed: 1, sent: 4, received: 3, rtts: 1 },
    )
    await exchange(running.from, running.at, 1, 1)
    await expect.poll(() => sides(to).out.sent).toBe(101)
    await node.capture(client)
    await node.capture(server)
    expect(edges((edge) => edge.port === to)).toMatchObject([
      { pod: client.name },
      { pod: server.name, peer: client.name },
    ])
  })

  it('are taken out of the kernel when they are idle for long', async () => {
    const gone = node.world.pod()
    const goer = node.world.sockets(gone)
    await node.capture(gone)
    node.redirect.tables.setDirect(gone.name, true)
    const to = await port()
    const { socket } = await goer.must('connect', { to: server.v4, port: to })
    const at = (await served.must('accept', { socket: listeners.get(to)! })).socket!
    await goer.must('close', { socket })
    await served.must('close', { socket: at })
    await expect.poll(() => sides(to).in.closed).toBe(1)
    await node.redirect.unenroll(gone.name)
    let now = 0
    const values = new EdgeValues()
    const edgesOf = openPinnedMap(`${node.world.pinRoot}/ambit_edges`, edgeKeyText, values)
    const watched = new Edges(
      { edges: edgesOf, values, live: undefined },
      (cookie) => names.get(cookie),
      () => now,
    )
    const names = new Map([[netnsCookie(gone.netns), gone.name]])
    const held = (uid: string): boolean => uid !== gone.name
    const mine = (edge: KernelEdge): boolean => edge.port === to && edge.direction === 'outbound'
    expect([...watched.read()].filter(mine)).toMatchObject([{ pod: gone.name, totals: { closed: 1 } }])
    expect(watched.sweep(held)).toEqual([])
    now += 300_000
    expect(watched.sweep(held).filter(mine)).toMatchObject([{ pod: gone.name }])
    expect([...watched.read()].filter(mine)).toEqual([])
    edgesOf.close()
  })

  it('go to one edge for all when there is no room', async () => {
    const map = openPinnedMap(`${node.world.pinRoot}/ambit_edges`, edgeKeyText, new EdgeValues())
    const filler = function* (): Generator<[string, number]> {
      for (let i = 0; i < map.shape.maxEntries; i++) {
        const key = Buffer.alloc(edgeKeyText.size, 0xff)
        key.writeUInt32LE(i)
        yield [key.toString('latin1'), 0]
      }
    }
    expect(() => map.setMany(filler())).toThrow('E2BIG')
    const others = (): Counted => {
      const edge = [...node.redirect.telemetry.edges()].find(({ overflow }) => overflow)!
      return counted(edge.totals)
    }
    const before = { ...others(), full: node.redirect.counters()['edges_full']! }
    const to = await port()
    const { from, at } = await open(to)
    await exchange(from, at, 40, 2)
    await expect.poll(() => others().sent - before.sent).toBe(42)
    await app.must('close', { socket: from })
    await served.must('close', { socket: at })
    // Both sides of it.
    await expect.poll(() => others().closed - before.closed).toBe(2)
    expect(others().sent - before.sent).toBe(42)
    expect(sides(to)).toEqual({ out: NONE, in: NONE })
    expect(node.redirect.counters()['edges_full']).toBeGreaterThan(before.full)
    for (const [key] of filler()) map.delete(key)
    map.close()
  })

  it('are logged within a budget, and the rest is counted', async () => {
    await node.die()
    node.redirect = await openRedirect({ ...node.options, flowLogPerSecond: 5 })
    const told: KernelFlow[] = []
    node.redirect.telemetry.onFlows((more) => told.push(...more))
    const before = node.redirect.counters()['flows_not_logged']!
    const to = await port()
    const seconds = new Set<number>()
    for (let i = 0; i < 30; i++) {
      seconds.add(Math.floor(performance.now() / 1000))
      const { from, at } = await open(to)
      await app.must('close', { socket: from })
      await served.must('close', { socket: at })
    }
    await expect.poll(() => sides(to).out.closed).toBe(30)
    const dropped = node.redirect.counters()['flows_not_logged']! - before
    await expect.poll(() => told.length + dropped).toBe(30)
    // A second more, since the kernel's do not begin when ours do.
    expect(told.length).toBeLessThanOrEqual(5 * (seconds.size + 1))
    expect(dropped).toBeGreaterThan(0)
  })
})
