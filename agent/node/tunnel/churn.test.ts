// Tunnels over time: who shares a session, how long it lives, and what becomes of it when pods come and go, identities change
// and certificates are renewed. Two nodes in one process over real TLS; time is a ManualClock.
import { X509Certificate } from 'node:crypto'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import type { TlsPeer } from '../../io/connection.ts'
import { identityOf } from '../../mesh/workload.ts'
import { Cluster, outcome, type TestNode, type TestPod } from './world.ts'

let clock: ManualClock
let cluster: Cluster
let one: TestNode
let two: TestNode
let client: TestPod
let server: TestPod

beforeEach(async () => {
  clock = new ManualClock(1_700_000_000_000)
  cluster = new Cluster(78, clock)
  one = cluster.node('node1')
  two = cluster.node('node2')
  client = await cluster.pod(one, 'client')
  server = await cluster.pod(two, 'server')
  await echo(server)
})

afterEach(() => cluster.close())

const echo = (pod: TestPod): Promise<void> => cluster.app(pod.address, 8080, (socket) => void socket.pipe(socket))
const at = (pod: TestPod): { address: string; port: number } => ({ address: pod.address, port: 8080 })
const serial = (peer: TlsPeer | undefined): string =>
  peer ? new X509Certificate(peer.certificates[0] as Uint8Array).serialNumber : ''

/** Real time for what real sockets do; gives up after two seconds, and the expectation that follows says what was wrong. */
async function until(test: () => boolean): Promise<void> {
  for (let i = 0; i < 1_000 && !test(); i++) await sleep(2)
}

/** Lets the clock go on in steps short enough for the keep-alive's answers to come in time. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 5_000) {
    clock.advance(Math.min(left, 5_000))
    await sleep(3)
  }
}

/** Tells the agents of a change and lets them review what runs. */
async function changed(): Promise<void> {
  cluster.changed()
  clock.advance(25)
  await turn()
}

/** A connection that is open: one exchange has gone through it. */
async function opened(from: TestPod, to: TestPod): Promise<Socket> {
  const socket = from.dial(at(to))
  await exchange(socket)
  return socket
}

async function exchange(socket: Socket): Promise<void> {
  socket.write('x')
  await new Promise((resolve, reject) => {
    socket.once('data', resolve)
    socket.once('close', () => reject(new Error('closed before an answer')))
  })
}

const tunnelsInto = (node: TestNode, name: string): number =>
  node.tunnels.status().find((pod) => pod.name === `default/${name}`)?.tunnelsIn ?? 0

describe('a session', () => {
  it('outlives its connections, answers keep-alives, and is closed when nothing used it for five minutes', async () => {
    const socket = await opened(client, server)
    socket.end()
    await outcome(socket)
    expect(one.tunnels.sessions).toBe(1)
    await pass(290_000)
    expect(one.tunnels.sessions).toBe(1)
    await pass(10_000)
    await until(() => one.tunnels.sessions === 0)
    expect(one.tunnels.sessions).toBe(0)
    await until(() => tunnelsInto(two, 'server') === 0)
    expect(tunnelsInto(two, 'server')).toBe(0)
    const again = client.dial(at(server))
    again.end('again')
    expect((await outcome(again)).text).toBe('again')
  })

  it('that is used again in time begins its five minutes anew', async () => {
    ;(await opened(client, server)).end()
    await pass(200_000)
    const socket = await opened(client, server)
    socket.end()
    await outcome(socket)
    await pass(290_000)
    expect(one.tunnels.sessions).toBe(1)
    expect(cluster.world.clients).toHaveLength(1)
  })

  it('is never closed for idleness while a quiet connection runs in it', async () => {
    const socket = await opened(client, server)
    await pass(400_000)
    expect(one.tunnels.sessions).toBe(1)
    await exchange(socket)
  })

  it('takes a hundred connections, the next ones get another', async () => {
    const sockets = await Promise.all(Array.from({ length: 130 }, () => opened(client, server)))
    expect(one.tunnels.sessions).toBe(2)
    expect(tunnelsInto(two, 'server')).toBe(2)
    for (const socket of sockets) socket.end()
    await Promise.all(sockets.map(outcome))
    await until(() => one.tunnels.connections === 0)
    await opened(client, server)
    expect(one.tunnels.sessions).toBe(2)
  })

  it('whose peer stopped answering is cut, and its connections are told', async () => {
    const socket = await opened(client, server)
    const ended = outcome(socket)
    // No turn of the loop in between: no answer can come.
    clock.advance(60_000)
    expect((await ended).ended).toBe(false)
    expect(one.tunnels.sessions).toBe(0)
  })
})

describe('a session is dropped', () => {
  it("when the source's workload goes, though its pod is still there", async () => {
    const socket = await opened(client, server)
    cluster.state.removeWorkload(client.workload.uid)
    await changed()
    expect((await outcome(socket)).ended).toBe(false)
    await until(() => one.tunnels.sessions === 0)
    expect(one.tunnels.sessions).toBe(0)
  })

  it("when the source's identity changes; connections made then show the new one", async () => {
    const socket = await opened(client, server)
    cluster.state.setWorkload({ ...client.workload, serviceAccount: 'promoted' })
    await changed()
    expect((await outcome(socket)).ended).toBe(false)
    const next = await opened(client, server)
    next.end()
    await outcome(next)
    const line = await two.lines.until(
      (entry) => entry['src.identity'] === 'spiffe://cluster.local/ns/default/sa/promoted',
    )
    expect(line['message']).toBe('connection complete')
    expect(one.tunnels.sessions).toBe(1)
  })

  it("when the destination's identity changes", async () => {
    const socket = await opened(client, server)
    cluster.state.setWorkload({ ...server.workload, serviceAccount: 'other' })
    await changed()
    expect((await outcome(socket)).ended).toBe(false)
    await opened(client, server)
    expect(one.tunnels.sessions).toBe(1)
  })

  it('also when it was draining, with the connections it still carried', async () => {
    const socket = await opened(client, server)
    one.certificates.renew(identityOf(client.workload))
    await exchange(socket)
    cluster.state.removeWorkload(server.workload.uid)
    await changed()
    expect((await outcome(socket)).ended).toBe(false)
    await until(() => one.tunnels.sessions === 0)
    expect(one.tunnels.sessions).toBe(0)
  })
})

describe('a renewed certificate', () => {
  it('of the source is what new connections show; running ones finish on the old session, which then ends', async () => {
    const old = await opened(client, server)
    one.certificates.renew(identityOf(client.workload))
    const fresh = await opened(client, server)
    expect(cluster.world.clients.map(serial)).toHaveLength(2)
    expect(serial(cluster.world.clients[0])).not.toBe(serial(cluster.world.clients[1]))
    expect(one.tunnels.sessions).toBe(2)
    await exchange(old)
    old.end()
    await outcome(old)
    await until(() => one.tunnels.sessions === 1)
    expect(one.tunnels.sessions).toBe(1)
    await until(() => tunnelsInto(two, 'server') === 1)
    expect(tunnelsInto(two, 'server')).toBe(1)
    await exchange(fresh)
  })

  it('of the destination leads its clients over as well', async () => {
    const old = await opened(client, server)
    two.certificates.renew(identityOf(server.workload))
    // GOAWAY is on its way: what is opened before it arrives may still use the old session.
    await exchange(old)
    await opened(client, server)
    expect(cluster.world.tunnelled.map(serial)).toHaveLength(2)
    expect(serial(cluster.world.tunnelled[0])).not.toBe(serial(cluster.world.tunnelled[1]))
    await exchange(old)
  })

  it('of another identity disturbs nobody', async () => {
    const other = await cluster.pod(one, 'other')
    await opened(client, server)
    one.certificates.renew(identityOf(other.workload))
    await opened(client, server)
    expect(one.tunnels.sessions).toBe(1)
    expect(cluster.world.clients).toHaveLength(1)
  })

  it('that comes while a session is being opened does not fail who waits for it, and the session is not kept', async () => {
    one.certificates.held = true
    const socket = client.dial(at(server))
    const answered = exchange(socket)
    await until(() => one.tunnels.sessions === 1)
    one.certificates.renew(identityOf(client.workload))
    one.certificates.release()
    await answered
    await until(() => one.tunnels.sessions === 1)
    expect(one.tunnels.sessions).toBe(1)
    expect(cluster.world.clients.length).toBe(2)
  })

  it('and a new trust bundle lead over all sessions of both sides', async () => {
    const other = await cluster.pod(one, 'other')
    const sockets = [await opened(client, server), await opened(other, server)]
    one.certificates.retrust()
    await opened(client, server)
    await opened(other, server)
    expect(cluster.world.clients).toHaveLength(4)
    for (const socket of sockets) await exchange(socket)
  })
})

describe('a TLS session', () => {
  /** Opens a tunnel, has it end for idleness, and opens it again. */
  async function twice(from: TestPod, to: TestPod, between: () => Promise<void> | void): Promise<void> {
    const first = await opened(from, to)
    first.end()
    await outcome(first)
    await pass(300_000)
    await until(() => one.tunnels.sessions === 0)
    await between()
    await opened(from, to)
  }
  const resumed = (): { clients: unknown[]; servers: unknown[] } => ({
    clients: cluster.world.clients.map((peer) => peer.resumed),
    servers: cluster.world.tunnelled.map((peer) => peer.resumed),
  })

  it('is resumed between the same two pods, and both sides judge each other again', async () => {
    await twice(client, server, () => undefined)
    expect(resumed()).toEqual({ clients: [false, true], servers: [false, true] })
    const line = await two.lines.until((entry) => entry['src.workload'] === 'client')
    expect(line['src.identity']).toBe('spiffe://cluster.local/ns/default/sa/client')
  })

  it('is not resumed by another pod of the same identity', async () => {
    const twin = await cluster.pod(one, 'twin', { serviceAccount: 'client' })
    await twice(client, server, async () => void (await opened(twin, server)))
    expect(resumed().clients).toEqual([false, false, true])
  })

  it('is not resumed after either certificate was renewed', async () => {
    await twice(client, server, () => one.certificates.renew(identityOf(client.workload)))
    expect(resumed().clients).toEqual([false, false])
    cluster.world.clients.length = 0
    const other = await cluster.pod(one, 'other')
    await twice(other, server, () => two.certificates.renew(identityOf(server.workload)))
    expect(resumed().clients).toEqual([false, false])
  })

  it('is not resumed with a pod that took the address of another', async () => {
    await twice(client, server, async () => {
      cluster.state.setWorkload({ ...server.workload, serviceAccount: 'heir' })
      await changed()
    })
    expect(resumed().clients).toEqual([false, false])
  })
})

describe('pods that come and go', () => {
  it('leave nothing behind: no session, no connection, and none that hangs', async () => {
    const outcomes: Promise<{ ended: boolean; error: string }>[] = []
    for (let round = 0; round < 12; round++) {
      const source = await cluster.pod(one, `source${round % 3}`)
      const target = await cluster.pod(two, `target${round % 3}`)
      await echo(target)
      await changed()
      const sockets = await Promise.all([opened(source, target), opened(source, target), opened(source, server)])
      outcomes.push(...sockets.map(outcome))
      // Some end by themselves, some with their pod, some in the middle of being opened.
      sockets[0].end()
      const late = source.dial(at(target))
      outcomes.push(outcome(late))
      if (round % 2 === 0) await turn()
      cluster.state.removeWorkload(target.workload.uid)
      await (round % 3 === 0 ? two.tunnels.removePod(target.pod.uid) : one.tunnels.removePod(source.pod.uid))
      await changed()
      await one.tunnels.removePod(source.pod.uid)
      await two.tunnels.removePod(target.pod.uid)
      cluster.state.removeWorkload(source.workload.uid)
      await changed()
      // Where a connection wanted to go that was never accepted.
      cluster.world.wanted.length = 0
    }
    expect(await Promise.all(outcomes)).toHaveLength(48)
    await until(() => one.tunnels.sessions === 0 && two.tunnels.connections === 0 && tunnelsInto(two, 'server') === 0)
    expect({
      sessions: one.tunnels.sessions,
      connections: [one.tunnels.connections, two.tunnels.connections],
      into: tunnelsInto(two, 'server'),
      pods: [one.tunnels.pods, two.tunnels.pods],
    }).toEqual({ sessions: 0, connections: [0, 0], into: 0, pods: [1, 1] })
  })
})
