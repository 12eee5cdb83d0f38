// Outbound capture in a real kernel: what a pod dials reaches its agent with the original destination, and nothing else does.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

/** Nobody has this address: only capture can make a connection to it succeed. */
const VIP4 = '10.96.0.7'
const VIP6 = 'fd00:96::7'

describe('outbound capture', () => {
  let node: TestNode
  let pod: Pod
  let other: Pod
  let stranger: Pod
  let app: Sockets
  let captured: Captured
  let alsoCaptured: Captured

  beforeAll(async () => {
    node = await TestNode.open()
    pod = node.world.pod()
    other = node.world.pod()
    stranger = node.world.pod()
    app = node.world.sockets(pod)
    captured = await node.capture(pod)
    alsoCaptured = await node.capture(other)
  })

  afterAll(() => node.close())

  it.each([
    { what: 'IPv4', dial: { to: VIP4, family: 4 }, original: VIP4 },
    { what: 'IPv6', dial: { to: VIP6, family: 6 }, original: VIP6 },
    { what: 'v4-mapped IPv6', dial: { to: `::ffff:${VIP4}`, family: 6 }, original: VIP4 },
    { what: 'an IPv6-only socket', dial: { to: VIP6, family: 6, only: true }, original: VIP6 },
  ])('hands a connection over $what to the agent with its destination', async ({ dial, original }) => {
    const before = node.redirect.counters()
    const client = await app.must('connect', { ...dial, port: 80 })
    const accepted = await captured.outbound.next()
    expect(accepted.original).toEqual({ address: original, port: 80 })
    // The app sees the peer it asked for.
    expect(await app.must('peer', { socket: client.socket })).toEqual({ address: dial.to, port: 80 })
    const after = node.redirect.counters()
    expect(after['redirected']! - before['redirected']!).toBe(1)
    expect(after['captured']! - before['captured']!).toBe(1)
    accepted.connection.abort('cancel')
  })

  it('carries bytes both ways', async () => {
    const client = await app.must('connect', { to: VIP4, port: 80 })
    const { connection } = await captured.outbound.next()
    connection.write(Buffer.from('hello'))
    expect((await app.must('receive', { socket: client.socket })).data).toBe('hello')
    await app.must('send', { socket: client.socket, data: 'good day' })
    await expect.poll(() => captured.outbound.received).toContain('good day')
    connection.abort('cancel')
  })

  it('captures non-blocking connects', async () => {
    const early = await app.must('connect_async', { to: VIP4, port: 81 })
    await app.must('finish', { socket: early.socket })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 81 })
  })

  it('captures TCP Fast Open', async () => {
    await app.must('connect', { to: VIP4, port: 82, fastopen: 'first bytes' })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 82 })
    await expect.poll(() => captured.outbound.received).toContain('first bytes')
  })

  it('captures multipath TCP', async () => {
    const answer = await app.call('connect', { to: VIP4, port: 83, mptcp: true })
    // Without CONFIG_MPTCP there is no such socket to get round with.
    if (answer.error === 'EPROTONOSUPPORT' || answer.error === 'ENOPROTOOPT') return
    expect(answer.error).toBeUndefined()
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 83 })
  })

  it('captures a socket that was bound to the pod’s address', async () => {
    await app.must('connect', { to: VIP4, port: 84, bind: pod.v4, source: 40404 })
    const accepted = await captured.outbound.next()
    expect(accepted.original).toEqual({ address: VIP4, port: 84 })
    expect(accepted.info.peer).toEqual({ address: pod.v4, port: 40404 })
  })

  it('captures a socket that was bound to a device', async () => {
    await app.must('connect', { to: VIP4, port: 88, device: 'eth0' })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 88 })
    await app.must('connect', { family: 6, to: VIP6, port: 88, device: 'eth0' })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP6, port: 88 })
  })

  it('refuses a socket bound to a device where the program may not unbind it', async () => {
    const before = node.redirect.counters()
    const humble = node.world.sockets(pod)
    const answer = await humble.call('connect', { to: VIP4, port: 89, device: 'eth0', unprivileged: true })
    expect(answer).toEqual({ error: 'EPERM' })
    expect(node.redirect.counters()['dropped.bound_to_device']! - before['dropped.bound_to_device']!).toBe(1)
    await humble.must('connect', { to: VIP4, port: 89 })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 89 })
  })

  it.each([
    { family: 4, first: VIP4, second: '10.96.0.8' },
    { family: 6, first: VIP6, second: 'fd00:96::8' },
  ])('keeps two pods with the same source port apart over IPv$family', async ({ family, first, second }) => {
    const neighbour = node.world.sockets(other)
    // Interleaved handshakes with the very same loopback tuple in both namespaces.
    for (let round = 0; round < 10; round++) {
      const source = 42_000 + round
      const one = app.must('connect', { family, to: first, port: 90, source })
      const two = neighbour.must('connect', { family, to: second, port: 91, source })
      const [mine, yours] = await Promise.all([captured.outbound.next(), alsoCaptured.outbound.next()])
      expect(mine.original).toEqual({ address: first, port: 90 })
      expect(yours.original).toEqual({ address: second, port: 91 })
      expect(mine.info.peer.port).toBe(source)
      expect(yours.info.peer.port).toBe(source)
      const [a, b] = await Promise.all([one, two])
      expect(await app.must('peer', { socket: a.socket })).toEqual({ address: first, port: 90 })
      expect(await neighbour.must('peer', { socket: b.socket })).toEqual({ address: second, port: 91 })
      mine.connection.abort('cancel')
      yours.connection.abort('cancel')
      await app.must('close', { socket: a.socket })
      await neighbour.must('close', { socket: b.socket })
    }
    expect(captured.outbound.length + alsoCaptured.outbound.length).toBe(0)
  })

  it('tells five hundred handshakes at once in each of two pods apart', async () => {
    const neighbour = node.world.sockets(other)
    const COUNT = 500
    const opened: { who: Sockets; socket: number }[] = []
    for (let i = 0; i < COUNT; i++) {
      const dial = { source: 20_000 + i, port: 10_000 + i }
      const [mine, yours] = await Promise.all([
        app.must('connect_async', { ...dial, to: VIP4 }),
        neighbour.must('connect_async', { ...dial, to: '10.96.0.8' }),
      ])
      opened.push({ who: app, socket: mine.socket! }, { who: neighbour, socket: yours.socket! })
    }
    for (const [queue, address] of [
      [captured.outbound, VIP4],
      [alsoCaptured.outbound, '10.96.0.8'],
    ] as const) {
      const seen = new Set<number>()
      for (let i = 0; i < COUNT; i++) {
        const { original, info, connection } = await queue.next()
        expect(original).toEqual({ address, port: info.peer.port - 10_000 })
        seen.add(info.peer.port)
        connection.abort('cancel')
      }
      expect(seen.size).toBe(COUNT)
    }
    for (const { who, socket } of opened) await who.must('close', { socket })
  })

  it.each([
    { family: 4, bind: '127.0.0.1' },
    { family: 6, bind: '::1' },
  ])('leaves the pod’s own loopback alone over IPv$family', async ({ family, bind }) => {
    const server = await app.must('listen', { family, bind, source: 7001 })
    const client = await app.must('connect', { family, to: bind, port: 7001 })
    const accepted = await app.must('accept', { socket: server.socket })
    expect(accepted.address).toBe(bind)
    expect(await app.must('peer', { socket: client.socket })).toEqual({ address: bind, port: 7001 })
    await app.must('close', { socket: server.socket })
  })

  it('leaves a call to the pod’s own address alone', async () => {
    const server = await app.must('listen', { bind: pod.v4, source: 7002 })
    await app.must('connect', { to: pod.v4, port: 7002 })
    expect((await app.must('accept', { socket: server.socket })).address).toBe(pod.v4)
    await app.must('close', { socket: server.socket })
  })

  it('passes UDP', async () => {
    const peer = node.world.sockets(stranger)
    const server = await peer.must('socket', { udp: true, bind: stranger.v4, source: 5353 })
    const client = await app.must('connect', { udp: true, to: stranger.v4, port: 5353 })
    await app.must('send', { socket: client.socket, data: 'datagram' })
    expect(await peer.must('receive', { socket: server.socket, udp: true })).toMatchObject({
      data: 'datagram',
      address: pod.v4,
    })
  })

  it('leaves pods that are not enrolled alone', async () => {
    const peer = node.world.sockets(stranger)
    const outside = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    const server = await outside.must('listen', { source: 7003 })
    await peer.must('connect', { to: node.world.outside.v4, port: 7003 })
    expect((await outside.must('accept', { socket: server.socket })).address).toBe(stranger.v4)
  })

  it('exempts the agent’s own sockets in the pod’s namespace', async () => {
    const outside = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    const server = await outside.must('listen', { source: 7004 })
    const before = node.redirect.counters()
    node.deliver(pod, { address: node.world.outside.v4, port: 7004 }, undefined)
    expect((await outside.must('accept', { socket: server.socket })).address).toBe(pod.v4)
    expect(node.redirect.counters()['passed.agent']! - before['passed.agent']!).toBe(1)
  })

  it('captures a program that joined the pod’s namespace from another cgroup of the node', async () => {
    const joined = node.world.sockets(pod, other.cgroup)
    await joined.must('connect', { to: VIP4, port: 85 })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 85 })
  })

  it('refuses a pod that dials the agent’s listener', async () => {
    const { socketName } = await import('../../native/bpf/index.ts')
    const before = node.redirect.counters()
    for (const fd of Object.values(captured.listeners) as number[]) {
      const { port } = socketName(fd)
      expect(await app.call('connect', { to: '127.0.0.1', port })).toEqual({ error: 'ECONNREFUSED' })
      expect(await app.call('connect', { to: pod.v4, port })).toEqual({ error: 'ECONNREFUSED' })
    }
    expect(node.redirect.counters()['dropped.listener_dialled']! - before['dropped.listener_dialled']!).toBe(3)
    expect(captured.outbound.length).toBe(0)
  })

  it('gives a connection to the capture address itself the refusal it would get without us', async () => {
    expect(await app.call('connect', { to: '127.0.0.1', port: 1 })).toEqual({ error: 'ECONNREFUSED' })
    expect(await app.call('connect', { family: 6, to: '::1', port: 1 })).toEqual({ error: 'ECONNREFUSED' })
  })

  it('forgets the destination of a socket that disconnects and connects elsewhere', async () => {
    const server = await app.must('listen', { bind: '127.0.0.1', source: 7005 })
    const { socket } = await app.must('connect', { to: VIP4, port: 86 })
    await captured.outbound.next()
    await app.must('disconnect', { socket })
    expect(await app.call('connect', { socket, to: '127.0.0.1', port: 1 })).toEqual({ error: 'ECONNREFUSED' })
    await app.must('disconnect', { socket })
    await app.must('connect', { socket, to: '127.0.0.1', port: 7005 })
    expect(await app.must('peer', { socket })).toEqual({ address: '127.0.0.1', port: 7005 })
    await app.must('accept', { socket: server.socket })
    await app.must('disconnect', { socket })
    await app.must('connect', { socket, to: VIP4, port: 87 })
    expect((await captured.outbound.next()).original).toEqual({ address: VIP4, port: 87 })
    expect(await app.must('peer', { socket })).toEqual({ address: VIP4, port: 87 })
  })

  it('leaves no flow behind', async () => {
    const { openPinnedMap, codec } = await import('../../native/bpf/index.ts')
    const flows = openPinnedMap(`${node.world.pinRoot}/ambit_flows`, codec.bytes(48), codec.bytes(48))
    await expect.poll(() => [...flows.keys()].length).toBe(0)
    flows.close()
  })
})
