// UDP at a captured pod's ports: refused from outside where the table says so, and only there.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode } from './node.ts'

describe('UDP to a port where plaintext is refused', () => {
  let node: TestNode
  let pod: Pod
  let peer: Pod
  let app: Sockets
  let outside: Sockets

  beforeAll(async () => {
    node = await TestNode.open()
    pod = node.world.pod()
    peer = node.world.pod()
    await node.capture(pod)
    await node.capture(peer)
    app = node.world.sockets(pod)
    outside = node.world.sockets(peer)
    await node.redirect.tables.replacePolicies([[pod.name, { head: 'agent', rows: [], udpRefused: [5300] }]])
  })
  afterAll(() => node.close())

  it.each([
    { family: 4, to: () => pod.v4 },
    { family: 6, to: () => pod.v6 },
  ])('does not arrive over IPv$family, and the sender is told', async ({ family, to }) => {
    const before = node.redirect.counters()['dropped.datagram_refused']!
    const server = await app.must('socket', { udp: true, family, source: 5300, only: true, timeout: 0.3 })
    const client = await outside.must('connect', { udp: true, family, to: to(), port: 5300 })
    await outside.must('send', { socket: client.socket, data: 'plain' })
    expect(await outside.call('receive', { socket: client.socket })).toEqual({ error: 'ECONNREFUSED' })
    expect(await app.call('receive', { socket: server.socket, udp: true })).toEqual({ error: 'ETIMEDOUT' })
    expect(node.redirect.counters()['dropped.datagram_refused']! - before).toBe(1)
    await app.must('close', { socket: server.socket })
  })

  it.each([
    { family: 4, to: () => pod.v4 },
    { family: 6, to: () => pod.v6 },
  ])('leaves other ports alone over IPv$family, and what the pod sends itself', async ({ family, to }) => {
    const other = await app.must('socket', { udp: true, family, source: 5301, only: true })
    const client = await outside.must('connect', { udp: true, family, to: to(), port: 5301 })
    await outside.must('send', { socket: client.socket, data: 'open' })
    expect((await app.must('receive', { socket: other.socket, udp: true })).data).toBe('open')
    const server = await app.must('socket', { udp: true, family, source: 5300, only: true })
    const loopback = family === 4 ? '127.0.0.1' : '::1'
    for (const [index, own] of [to(), loopback].entries()) {
      await app.must('send', { socket: other.socket, data: `own ${index}`, to: own, port: 5300 })
      expect((await app.must('receive', { socket: server.socket, udp: true })).data).toBe(`own ${index}`)
    }
    for (const { socket } of [other, server]) await app.must('close', { socket })
  })

  it.each([
    { what: 'to all of the network', family: 4, to: () => pod.v4.replace(/\d+$/, '255') },
    { what: 'to all', family: 4, to: () => '255.255.255.255' },
    { what: 'to the group of all', family: 4, to: () => '224.0.0.1' },
    { what: 'to the IPv6 group of all', family: 6, to: () => 'ff02::1%eth0' },
  ])('does not arrive by a datagram $what', async ({ family, to }) => {
    const receiving = async (port: number): Promise<string | undefined> => {
      const server = await app.must('socket', { udp: true, family, source: port, only: true, timeout: 0.3 })
      const client = await outside.must('socket', { udp: true, family, broadcast: true, device: 'eth0' })
      await outside.must('send', { socket: client.socket, data: 'plain', to: to(), port })
      const { data, error } = await app.call('receive', { socket: server.socket, udp: true })
      await app.must('close', { socket: server.socket })
      await outside.must('close', { socket: client.socket })
      return data ?? error
    }
    const before = node.redirect.counters()['dropped.datagram_refused']!
    expect(await receiving(5301)).toBe('plain')
    expect(node.redirect.counters()['dropped.datagram_refused']! - before).toBe(0)
    expect(await receiving(5300)).toBe('ETIMEDOUT')
    expect(node.redirect.counters()['dropped.datagram_refused']! - before).toBe(1)
  })

  it('leaves what the pod sends to a group of its own alone', async () => {
    const server = await app.must('socket', { udp: true, source: 5300 })
    const client = await app.must('socket', { udp: true, device: 'eth0' })
    await app.must('send', { socket: client.socket, data: 'own', to: '224.0.0.1', port: 5300 })
    expect((await app.must('receive', { socket: server.socket, udp: true })).data).toBe('own')
    for (const { socket } of [server, client]) await app.must('close', { socket })
  })

  it('lets answers to the pod’s own questions through, asked by a socket that is connected to nobody', async () => {
    const resolver = await outside.must('socket', { udp: true, source: 5353 })
    const asking = await app.must('socket', { udp: true })
    await app.must('send', { socket: asking.socket, data: 'question', to: peer.v4, port: 5353 })
    const question = await outside.must('receive', { socket: resolver.socket, udp: true })
    await outside.must('send', { socket: resolver.socket, data: 'answer', to: question.address, port: question.port })
    expect((await app.must('receive', { socket: asking.socket, udp: true })).data).toBe('answer')
  })

  it('arrives again once the table is replaced', async () => {
    await node.redirect.tables.replacePolicies([[pod.name, { head: 'agent', rows: [], udpRefused: [] }]])
    const server = await app.must('socket', { udp: true, source: 5300 })
    const client = await outside.must('connect', { udp: true, to: pod.v4, port: 5300 })
    await outside.must('send', { socket: client.socket, data: 'plain' })
    expect((await app.must('receive', { socket: server.socket, udp: true })).data).toBe('plain')
  })
})
