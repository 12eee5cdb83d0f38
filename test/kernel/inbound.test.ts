// Inbound capture and delivery in a real kernel: who gets a connection that reaches a pod, and whom the app sees.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

const CLIENT4 = { address: '10.1.2.3', port: 45_678 }
const CLIENT6 = { address: 'fd01:2::3', port: 45_678 }

describe('inbound capture', () => {
  let node: TestNode
  let pod: Pod
  let other: Pod
  let app: Sockets
  let caller: Sockets
  let captured: Captured

  beforeAll(async () => {
    node = await TestNode.open()
    pod = node.world.pod()
    other = node.world.pod()
    app = node.world.sockets(pod)
    caller = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    captured = await node.capture(pod)
    await app.must('listen', { family: 6, bind: '::', source: 8080 })
  })

  afterAll(() => node.close())

  it.each([
    { family: 4, to: () => pod.v4, from: () => node.world.outside.v4 },
    { family: 6, to: () => pod.v6, from: () => node.world.outside.v6 },
  ])('hands plaintext over IPv$family to the judge, whatever the port', async ({ family, to, from }) => {
    for (const port of [8080, 9, 15_009]) {
      await caller.must('connect', { family, to: to(), port })
      const { info } = await captured.plaintext.next()
      expect(info.local).toEqual({ address: to(), port })
      expect(info.peer.address).toBe(from())
    }
  })

  it.each([
    { family: 4, to: () => pod.v4 },
    { family: 6, to: () => pod.v6 },
  ])('hands port 15008 over IPv$family to the tunnel', async ({ family, to }) => {
    await caller.must('connect', { family, to: to(), port: 15_008 })
    const { info, original } = await captured.hbone.next()
    expect(info.local).toEqual({ address: to(), port: 15_008 })
    expect(original).toBeUndefined()
  })

  it('refuses plaintext at once where it is told to, and only there', async () => {
    const second = await node.capture(other)
    node.redirect.setPlaintext(pod.name, 'refuse')
    const before = node.redirect.counters()
    const start = performance.now()
    expect(await caller.call('connect', { to: pod.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    expect(await caller.call('connect', { family: 6, to: pod.v6, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    expect(performance.now() - start).toBeLessThan(1000)
    expect(node.redirect.counters()['dropped.plaintext_refused']! - before['dropped.plaintext_refused']!).toBe(2)
    await caller.must('connect', { to: pod.v4, port: 15_008 })
    await captured.hbone.next()
    await caller.must('connect', { to: other.v4, port: 8080 })
    await second.plaintext.next()
    node.redirect.setPlaintext(pod.name, 'judge')
    await caller.must('connect', { to: pod.v4, port: 8080 })
    await captured.plaintext.next()
  })

  describe.each([
    {
      what: 'an IPv4 app',
      family: 4,
      bind: '0.0.0.0',
      port: 8101,
      to: () => pod.v4,
      client: CLIENT4,
      seen: '10.1.2.3',
    },
    { what: 'an IPv6 app', family: 6, bind: '::', port: 8102, to: () => pod.v6, client: CLIENT6, seen: 'fd01:2::3' },
    {
      what: 'a dual-stack app',
      family: 6,
      bind: '::',
      port: 8103,
      to: () => pod.v4,
      client: CLIENT4,
      seen: '::ffff:10.1.2.3',
    },
    {
      what: 'an app on its own address',
      family: 4,
      bind: undefined,
      port: 8104,
      to: () => pod.v4,
      client: CLIENT4,
      seen: '10.1.2.3',
    },
  ])('delivery to $what', ({ family, bind, port, to, client, seen }) => {
    it('shows the real client in accept and getpeername', async () => {
      const before = node.redirect.counters()
      const server = await app.must('listen', { family, bind: bind ?? pod.v4, source: port })
      const { connection, queue } = node.deliver(pod, { address: to(), port }, client)
      const accepted = await app.must('accept', { socket: server.socket })
      expect(accepted).toMatchObject({ address: seen, port: client.port })
      expect(await app.must('peer', { socket: accepted.socket })).toEqual({ address: seen, port: client.port })
      // The agent's side keeps the true peer, and bytes flow.
      const { info } = await queue.next()
      expect(info.peer).toEqual({ address: to(), port })
      connection.write(Buffer.from('request'))
      expect((await app.must('receive', { socket: accepted.socket })).data).toBe('request')
      await app.must('send', { socket: accepted.socket, data: 'response' })
      await expect.poll(() => queue.received).toBe('response')
      const after = node.redirect.counters()
      expect(after['delivered']! - before['delivered']!).toBe(1)
      expect(after['judged']).toBe(before['judged'])
      await app.must('close', { socket: server.socket })
    })
  })

  it('never shows one client’s address to another’s connection', async () => {
    const server = await app.must('listen', { source: 8105 })
    for (let i = 1; i <= 50; i++) {
      const client = { address: `10.9.8.${i}`, port: 1000 + i }
      const { connection } = node.deliver(pod, { address: pod.v4, port: 8105 }, client)
      expect(await app.must('accept', { socket: server.socket })).toMatchObject(client)
      connection.abort('cancel')
    }
    await app.must('close', { socket: server.socket })
  })

  it('delivers where the app refuses as a refusal, and leaves no flow behind', async () => {
    const { queue } = node.deliver(pod, { address: pod.v4, port: 8999 }, CLIENT4)
    let closed: Error | undefined
    queue.onClose = (...args: unknown[]) => void (closed = args[1] as Error)
    await expect.poll(() => closed?.message).toMatch(/refused/i)
    const { openPinnedMap, codec } = await import('../../native/bpf/index.ts')
    const flows = openPinnedMap(`${node.world.pinRoot}/ambit_flows`, codec.bytes(48), codec.bytes(48))
    await expect.poll(() => [...flows.keys()].length).toBe(0)
    flows.close()
  })

  it('delivers past a refusal of plaintext', async () => {
    node.redirect.setPlaintext(pod.name, 'refuse')
    const server = await app.must('listen', { source: 8106 })
    node.deliver(pod, { address: pod.v4, port: 8106 }, CLIENT4)
    expect(await app.must('accept', { socket: server.socket })).toMatchObject(CLIENT4)
    node.redirect.setPlaintext(pod.name, 'judge')
  })

  it('passes a tunnel from the pod’s own namespace to its own tunnel port', async () => {
    node.deliver(pod, { address: pod.v4, port: 15_008 }, undefined)
    expect((await captured.hbone.next()).info.local).toEqual({ address: pod.v4, port: 15_008 })
  })
})
