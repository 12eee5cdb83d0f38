// Direct connections in a real kernel: between pods of one node no byte passes the agent, and whom the tables do not allow
// is refused by the server's own namespace.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { PolicyTable } from '../../agent/node/redirect/contract.ts'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

/** Nobody has these addresses: only the kernel's choice of an endpoint can make a connection to them succeed. */
const VIP4 = '10.96.0.7'
const VIP6 = 'fd00:96::7'
const ALLOW: PolicyTable = { head: 'allow', rows: [], udpRefused: [] }
const DENY: PolicyTable = { head: 'deny', rows: [], udpRefused: [] }

describe('a direct connection', () => {
  let node: TestNode
  let client: Pod
  let other: Pod
  let server: Pod
  let outside: Pod
  let app: Sockets
  let served: Sockets
  let captured: Captured
  let counters: Record<string, number>
  let listener: number
  const grown = (name: string): number => node.redirect.counters()[name]! - counters[name]!

  beforeAll(async () => {
    node = await TestNode.open()
    client = node.world.pod()
    other = node.world.pod()
    server = node.world.pod()
    outside = node.world.outside
    app = node.world.sockets(client)
    served = node.world.sockets(server)
    captured = await node.capture(client)
    await node.capture(other)
    await node.capture(server)
    listener = (await served.must('listen', { family: 6, port: 8080, source: 8080 })).socket!
  })
  afterAll(() => node.close())

  beforeEach(async () => {
    const { tables } = node.redirect
    tables.setSettings({ synced: true, passUnknown: true })
    for (const pod of [client, other, server]) tables.setDirect(pod.name, true)
    const row = (pod: Pod, address: string) => ({ address, class: 'direct' as const, pod: pod.name })
    await tables.setAddresses([
      ...[client, other, server].flatMap((pod) => [row(pod, pod.v4), row(pod, pod.v6)]),
      { address: VIP4, class: 'agent' },
      { address: VIP6, class: 'agent' },
    ])
    await tables.replacePolicies([[server.name, ALLOW]])
    const to = (address: string) => [{ address, port: 8080 }]
    await tables.setServices([
      { address: VIP4, port: 80, kind: 'balanced', backends: to(server.v4), affinitySeconds: 0 },
      { address: VIP6, port: 80, kind: 'balanced', backends: to(server.v6), affinitySeconds: 0 },
    ])
    await tables.sweep()
    node.redirect.setPlaintext(server.name, 'refuse')
    counters = node.redirect.counters()
  })

  it.each([
    { what: 'a pod', to: () => server.v4, port: 8080, from: () => `::ffff:${client.v4}` },
    { what: 'a pod over IPv6', to: () => server.v6, family: 6, port: 8080, from: () => client.v6 },
    { what: 'a service', to: () => VIP4, port: 80, from: () => `::ffff:${client.v4}` },
    { what: 'a service over IPv6', to: () => VIP6, family: 6, port: 80, from: () => client.v6 },
    {
      what: 'a service by its v4-mapped address',
      to: () => `::ffff:${VIP4}`,
      family: 6,
      port: 80,
      from: () => `::ffff:${client.v4}`,
    },
  ])('to $what passes no agent and shows both ends who the other is', async ({ to, family = 4, port, from }) => {
    const { socket } = await app.must('connect', { to: to(), port, family })
    const accepted = await served.must('accept', { socket: listener })
    expect(accepted.address).toBe(from())
    expect(await app.must('peer', { socket })).toEqual({ address: to(), port })
    await app.must('send', { socket, data: 'good day' })
    expect((await served.must('receive', { socket: accepted.socket })).data).toBe('good day')
    expect([grown('direct'), grown('attested'), grown('redirected'), grown('captured')]).toEqual([1, 1, 0, 0])
    await app.must('close', { socket })
    await served.must('close', { socket: accepted.socket })
  })

  it('is refused at once by the server’s namespace where policy denies it', async () => {
    await node.redirect.tables.replacePolicies([[server.name, DENY]])
    expect(await app.call('connect', { to: VIP4, port: 80 })).toEqual({ error: 'ECONNREFUSED' })
    expect([grown('direct'), grown('attested'), grown('dropped.policy_denied')]).toEqual([1, 0, 1])
  })

  it('is judged by client and port where the table says so', async () => {
    const table: PolicyTable = {
      head: 'by_client',
      rows: [
        { client: client.name, port: 8080, verdict: 'allow' },
        { client: client.name, port: undefined, verdict: 'deny' },
        { client: other.name, port: undefined, verdict: 'deny' },
      ],
      udpRefused: [],
    }
    await node.redirect.tables.replacePolicies([[server.name, table]])
    const { socket } = await served.must('listen', { family: 6, source: 8081 })
    await app.must('connect', { to: server.v4, port: 8080 })
    await served.must('accept', { socket: listener })
    expect(await app.call('connect', { to: server.v4, port: 8081 })).toEqual({ error: 'ECONNREFUSED' })
    const neighbour = node.world.sockets(other)
    expect(await neighbour.call('connect', { to: server.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    expect([grown('attested'), grown('dropped.policy_denied')]).toEqual([1, 2])
    await served.must('close', { socket })
  })

  it('is judged by port alone where the client does not matter', async () => {
    const table: PolicyTable = {
      head: 'by_port',
      rows: [
        { client: undefined, port: 8080, verdict: 'deny' },
        { client: undefined, port: undefined, verdict: 'allow' },
      ],
      udpRefused: [],
    }
    await node.redirect.tables.replacePolicies([[server.name, table]])
    const { socket } = await served.must('listen', { family: 6, source: 8081 })
    expect(await app.call('connect', { to: server.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    await app.must('connect', { to: server.v4, port: 8081 })
    await served.must('accept', { socket })
    await served.must('close', { socket })
  })

  describe('goes to the agent instead', () => {
    const agentGets = async (to: string, port: number, chosen?: { address: string; port: number }): Promise<void> => {
      await app.must('connect', { to, port })
      const accepted = await captured.outbound.next()
      expect(accepted.original).toEqual(chosen ? { address: to, port, chosen } : { address: to, port })
      accepted.connection.abort('cancel')
      expect(grown('direct')).toBe(0)
    }

    it('while the tables are not whole', async () => {
      node.redirect.tables.setSettings({ synced: false, passUnknown: true })
      await agentGets(VIP4, 80)
      await agentGets('192.0.2.1', 80)
    })

    it('while nothing is known of the client', async () => {
      node.redirect.tables.setDirect(client.name, false)
      await agentGets(VIP4, 80)
    })

    it('where the server has no table, an empty one, or none for this client', async () => {
      const chosen = { address: server.v4, port: 8080 }
      await node.redirect.tables.replacePolicies([[server.name, undefined]])
      await agentGets(VIP4, 80, chosen)
      await node.redirect.tables.replacePolicies([[server.name, { head: 'agent', rows: [], udpRefused: [] }]])
      await agentGets(VIP4, 80, chosen)
      const rows = [{ client: other.name, port: undefined, verdict: 'allow' as const }]
      await node.redirect.tables.replacePolicies([[server.name, { head: 'by_client', rows, udpRefused: [] }]])
      await agentGets(VIP4, 80, chosen)
      await agentGets(other.v4, 8080)
    })

    it('to a workload of another node, with the endpoint chosen', async () => {
      await node.redirect.tables.setAddresses([{ address: '10.77.0.9', class: 'agent' }])
      const backends = [{ address: '10.77.0.9', port: 9090 }]
      await node.redirect.tables.setServices([
        { address: VIP4, port: 80, kind: 'balanced', backends, affinitySeconds: 0 },
      ])
      await agentGets(VIP4, 80, backends[0])
      await agentGets('10.77.0.9', 9090)
    })

    it('to a service with a waypoint, to a port the service does not have, to the tunnel port', async () => {
      await node.redirect.tables.setServices([
        { address: VIP4, port: 80, kind: 'agent', backends: [], affinitySeconds: 0 },
      ])
      await agentGets(VIP4, 80)
      await agentGets(VIP4, 81)
      await agentGets(server.v4, 15_008)
    })

    it('to an endpoint nobody knows, and to what is unknown under REGISTRY_ONLY', async () => {
      const backends = [{ address: '10.77.0.10', port: 9090 }]
      await node.redirect.tables.setServices([
        { address: VIP4, port: 80, kind: 'balanced', backends, affinitySeconds: 0 },
      ])
      await agentGets(VIP4, 80, backends[0])
      node.redirect.tables.setSettings({ synced: true, passUnknown: false })
      await agentGets('192.0.2.1', 80)
    })
  })

  it('to something outside the mesh passes the agent by too, also as the endpoint of a service', async () => {
    const stranger = node.world.sockets(outside, outside.cgroup)
    const { socket } = await stranger.must('listen', { source: 9000, timeout: 3 })
    await app.must('connect', { to: outside.v4, port: 9000 })
    expect((await stranger.must('accept', { socket })).address).toBe(client.v4)
    const backends = [{ address: outside.v4, port: 9000 }]
    await node.redirect.tables.setServices([
      { address: VIP4, port: 80, kind: 'balanced', backends, affinitySeconds: 0 },
    ])
    await node.redirect.tables.setAddresses([{ address: outside.v4, class: 'plain' }])
    const dialled = await app.must('connect', { to: VIP4, port: 80 })
    await stranger.must('accept', { socket })
    expect(await app.must('peer', { socket: dialled.socket })).toEqual({ address: VIP4, port: 80 })
    expect([grown('passed.outside'), grown('redirected')]).toEqual([2, 0])
  })

  it('reaches its own pod through a service', async () => {
    await node.redirect.tables.replacePolicies([[client.name, ALLOW]])
    const backends = [{ address: client.v4, port: 8090 }]
    await node.redirect.tables.setServices([
      { address: VIP4, port: 80, kind: 'balanced', backends, affinitySeconds: 0 },
    ])
    const own = await app.must('listen', { source: 8090 })
    await app.must('connect', { to: VIP4, port: 80 })
    await app.must('accept', { socket: own.socket })
    expect([grown('direct'), grown('attested')]).toEqual([1, 1])
    await app.must('close', { socket: own.socket })
  })

  it('is spread over the endpoints, and kept to one under session affinity until that one is gone', async () => {
    const ports = [8101, 8102, 8103]
    const listeners = await Promise.all(ports.map((source) => served.must('listen', { family: 6, source })))
    const backends = ports.map((port) => ({ address: server.v4, port }))
    const dial = async (): Promise<number> => {
      const { socket } = await app.must('connect', { to: VIP4, port: 80 })
      // The kernel's choice is told by the socket itself only at the other end: who accepts.
      const { port } = await app.must('true_peer', { socket })
      await app.must('close', { socket })
      return port!
    }
    const services = (affinitySeconds: number, some = backends) =>
      node.redirect.tables.setServices([{ address: VIP4, port: 80, kind: 'balanced', backends: some, affinitySeconds }])
    await services(0)
    const spread = new Map<number, number>()
    for (let i = 0; i < 60; i++) {
      const port = await dial()
      spread.set(port, (spread.get(port) ?? 0) + 1)
    }
    // Each of three has a share of 20 ± 4 of 60; none is left out but once in 10^10 runs.
    expect([...spread.keys()].toSorted((a, b) => a - b)).toEqual(ports)
    await services(3600)
    const kept = await dial()
    for (let i = 0; i < 10; i++) expect(await dial()).toBe(kept)
    // Another list with the same endpoint in it keeps it; one without it does not.
    await services(3600, backends.toReversed())
    for (let i = 0; i < 10; i++) expect(await dial()).toBe(kept)
    await services(
      3600,
      backends.filter(({ port }) => port !== kept),
    )
    const next = await dial()
    expect(next).not.toBe(kept)
    for (let i = 0; i < 10; i++) expect(await dial()).toBe(next)
    // Also where the list is longer than what is searched: what is not found in it is not kept.
    const [last] = backends.filter(({ port }) => port !== next)
    await services(
      3600,
      Array.from({ length: 70 }, () => last!),
    )
    expect(await dial()).toBe(last!.port)
    for (const { socket } of listeners) await served.must('close', { socket })
  })

  it('is not attested under the address of another pod', async () => {
    const lie = { bind: other.v4, transparent: true, timeout: 1 }
    expect(await app.call('connect', { to: server.v4, port: 8080, ...lie })).toEqual({ error: 'ETIMEDOUT' })
    expect([grown('unattested'), grown('attested')]).toEqual([1, 0])
    // The guard does not let it out. Without one it is plaintext from nobody, and the reset goes to whose address it is.
    expect(grown('dropped.guard_peer')).toBeGreaterThan(0)
    expect(grown('dropped.plaintext_refused')).toBe(0)
  })

  it('shows the address dialled last on a socket that is used again', async () => {
    const { socket } = await app.must('connect', { to: VIP4, port: 80 })
    await served.must('accept', { socket: listener })
    await app.must('disconnect', { socket })
    await app.must('connect', { socket, to: server.v4, port: 8080 })
    await served.must('accept', { socket: listener })
    expect(await app.must('peer', { socket })).toEqual({ address: server.v4, port: 8080 })
  })

  it('leaves no flow behind, whether accepted, refused or given up', async () => {
    const { openPinnedMap, codec } = await import('../../native/bpf/index.ts')
    await app.call('connect', { to: server.v4, port: 1234 })
    const flows = openPinnedMap(`${node.world.pinRoot}/ambit_flows`, codec.bytes(48), codec.bytes(48))
    await expect.poll(() => [...flows.keys()].length).toBe(0)
    flows.close()
  })
})
