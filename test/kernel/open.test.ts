// Connections that are open when a pod is captured, or when its policy changes: what policy refuses is ended on both sides, all
// else is left alone.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import type { OlderConnection, PolicyTable } from '../../agent/node/redirect/contract.ts'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode } from './node.ts'

const ALLOW: PolicyTable = { head: 'allow', rows: [], udpRefused: [] }
const DENY: PolicyTable = { head: 'deny', rows: [], udpRefused: [] }

/** Both ends of a connection. */
interface Ends {
  readonly near: { who: Sockets; socket: number }
  readonly far: { who: Sockets; socket: number }
}

describe('an open connection', () => {
  let node: TestNode
  let pod: Pod
  let app: Sockets
  let outside: Sockets
  let listener: number

  beforeEach(async () => {
    node = await TestNode.open()
    pod = node.world.pod()
    app = node.world.sockets(pod)
    outside = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    listener = (await app.must('listen', { family: 6, bind: '::', source: 8080 })).socket!
  })
  afterEach(() => node.close())

  async function dial(from: Sockets, to: string, at: Sockets, accepting: number, port = 8080): Promise<Ends> {
    const family = to.includes(':') ? 6 : 4
    const near = (await from.must('connect', { family, to, port })).socket!
    const far = (await at.must('accept', { socket: accepting })).socket!
    return { near: { who: from, socket: near }, far: { who: at, socket: far } }
  }

  /** How it goes on: a word each way, or what each end meets. */
  async function state({ near, far }: Ends): Promise<string> {
    const word = async (from: Ends['near'], to: Ends['near']): Promise<string> => {
      const sent = await from.who.call('send', { socket: from.socket, data: 'word' })
      if (sent.error !== undefined) return sent.error
      const got = await to.who.call('receive', { socket: to.socket })
      return got.error ?? got.data ?? ''
    }
    return `${await word(near, far)} ${await word(far, near)}`
  }
  const alive = 'word word'

  /** As the agent asks; what it was asked about. */
  async function judge(uid: string, allowed: (older: OlderConnection) => boolean) {
    const asked: OlderConnection[] = []
    const outcome = await node.redirect.judgeOpen(uid, (older) => {
      asked.push(older)
      return allowed(older)
    })
    return { outcome, asked }
  }

  describe('from before its pod was captured', () => {
    it('is ended where it is plaintext from outside that policy refuses, and only there', async () => {
      const server = (await outside.must('listen', { family: 6, bind: '::', source: 9090 })).socket!
      const local = (await app.must('listen', { bind: '127.0.0.1', source: 7000 })).socket!
      const inbound = await dial(outside, pod.v4, app, listener)
      const inbound6 = await dial(outside, pod.v6, app, listener)
      const outbound = await dial(app, node.world.outside.v4, outside, server, 9090)
      const loopback = await dial(app, '127.0.0.1', app, local, 7000)
      const self = await dial(app, pod.v4, app, listener)
      await node.capture(pod)
      const before = node.redirect.counters()
      const { outcome, asked } = await judge(pod.name, () => false)
      expect(outcome).toEqual({ left: 0, ended: 2 })
      const told = asked.map(({ client, local: at }) => `${client.address} ${at.address} ${at.port}`)
      const { v4, v6 } = node.world.outside
      expect(new Set(told)).toEqual(new Set([`${v4} ${pod.v4} 8080`, `${v6} ${pod.v6} 8080`]))
      // The one outside is reset, and the app's own socket is ended.
      for (const ended of [inbound, inbound6]) expect(await state(ended)).toMatch(/^ECONN\w+ \w+$/)
      for (const left of [outbound, loopback, self]) expect(await state(left)).toBe(alive)
      expect(node.redirect.counters()['dropped.older']! - before['dropped.older']!).toBe(2)
    })

    it('is left alone where policy allows it, and asked about again', async () => {
      const one = await dial(outside, pod.v4, app, listener)
      const second = (await app.must('listen', { family: 6, bind: '::', source: 8081 })).socket!
      const two = await dial(outside, pod.v4, app, second, 8081)
      await node.capture(pod)
      expect((await judge(pod.name, () => true)).outcome).toEqual({ left: 2, ended: 0 })
      expect([await state(one), await state(two)]).toEqual([alive, alive])
      // Policy changes for one port.
      const changed = await judge(pod.name, ({ local }) => local.port !== 8081)
      expect(changed.outcome).toEqual({ left: 1, ended: 1 })
      expect(await state(one)).toBe(alive)
      expect(await state(two)).toMatch(/^ECONN/)
      expect((await judge(pod.name, () => true)).outcome).toEqual({ left: 1, ended: 0 })
    })

    it('is none that the agent, or the pod’s own namespace, carries since', async () => {
      const captured = await node.capture(pod)
      await app.must('connect', { to: '10.96.0.7', port: 80 })
      await captured.outbound.next()
      await outside.must('connect', { to: pod.v4, port: 15_008 })
      await captured.hbone.next()
      const { connection } = node.deliver(pod, { address: pod.v4, port: 8080 }, { address: '10.9.9.9', port: 4000 })
      await app.must('accept', { socket: listener })
      expect((await judge(pod.name, () => false)).asked).toEqual([])
      connection.abort('cancel')
    })

    it('is left alone by a kernel that cannot end it', async () => {
      const inbound = await dial(outside, pod.v4, app, listener)
      await node.die()
      node.redirect = await openRedirect({ ...node.options, features: { 'kfunc:bpf_sock_destroy': false } })
      await node.capture(pod)
      expect(await node.redirect.judgeOpen(pod.name, () => false)).toBeUndefined()
      expect(await state(inbound)).toBe(alive)
    })

    it('is one of many, which are judged and ended without keeping the event loop', async () => {
      const many: Ends[] = []
      for (let i = 0; i < 60; i++) many.push(await dial(outside, pod.v4, app, listener))
      await node.capture(pod)
      let turns = 0
      let over = false
      const turn = (): void => {
        turns++
        if (!over) setImmediate(turn)
      }
      setImmediate(turn)
      const { outcome } = await judge(pod.name, ({ client }) => client.port % 2 === 0)
      over = true
      expect(outcome!.left + outcome!.ended).toBe(60)
      expect(turns).toBeGreaterThan(0)
      let ended = 0
      for (const one of many) if ((await state(one)) !== alive) ended++
      expect(ended).toBe(outcome!.ended)
    })
  })

  describe('between pods of the node', () => {
    let client: Pod
    let other: Pod
    let dialler: Sockets
    let neighbour: Sockets

    beforeEach(async () => {
      client = node.world.pod()
      other = node.world.pod()
      dialler = node.world.sockets(client)
      neighbour = node.world.sockets(other)
      for (const each of [pod, client, other]) await node.capture(each)
      const { tables } = node.redirect
      await tables.replacePolicies([[pod.name, ALLOW]])
      await tables.setAddresses(
        [pod.v4, pod.v6].map((address) => ({ address, class: 'direct' as const, pod: pod.name })),
      )
      for (const each of [client, other]) tables.setDirect(each.name, true)
      tables.setSettings({ synced: true, passUnknown: false })
    })

    it('goes on while its table allows it, however often that is replaced', async () => {
      const direct = await dial(dialler, pod.v4, app, listener)
      await node.redirect.tables.replacePolicies([[pod.name, { ...ALLOW }]])
      const { asked } = await judge(pod.name, () => false)
      expect(asked).toEqual([])
      expect(await state(direct)).toBe(alive)
    })

    it.each([
      { what: 'denies it', table: DENY },
      { what: 'no longer says anything', table: undefined },
    ])('is ended once its table $what', async ({ table }) => {
      const direct = await dial(dialler, pod.v4, app, listener)
      const direct6 = await dial(neighbour, pod.v6, app, listener)
      const before = node.redirect.counters()
      await node.redirect.tables.replacePolicies([[pod.name, table]])
      await judge(pod.name, () => true)
      for (const one of [direct, direct6]) expect(await state(one)).toMatch(/^ECONN\w+ \w+$/)
      expect(node.redirect.counters()['dropped.revoked']! - before['dropped.revoked']!).toBe(2)
    })

    it('is ended for one client and goes on for another, as the table says', async () => {
      const direct = await dial(dialler, pod.v4, app, listener)
      const allowed = await dial(neighbour, pod.v4, app, listener)
      const table: PolicyTable = {
        head: 'by_client',
        rows: [
          { client: client.name, port: undefined, verdict: 'deny' },
          { client: other.name, port: 8080, verdict: 'allow' },
          { client: other.name, port: undefined, verdict: 'deny' },
        ],
        udpRefused: [],
      }
      await node.redirect.tables.replacePolicies([[pod.name, table]])
      await judge(pod.name, () => true)
      expect(await state(direct)).toMatch(/^ECONN/)
      expect(await state(allowed)).toBe(alive)
    })
  })
})
