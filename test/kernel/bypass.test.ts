// Ways round the mesh, tried from inside a captured pod: packets written by hand. The same attempt from a pod that is not
// captured arrives, so that each could fail.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'
import { Watch, countingGuard, mac } from './watch.ts'

const PORT = 8080

let node: TestNode
/** Captured; everything is tried from here. */
let pod: Pod
/** Captured; everything is aimed at it. */
let target: Pod
/** Not captured: what is tried from here arrives. */
let control: Pod
let atTarget: Captured

beforeAll(async () => {
  node = await TestNode.open()
  pod = node.world.pod()
  target = node.world.pod()
  control = node.world.pod()
  await node.capture(pod)
  atTarget = await node.capture(target)
  const app = node.world.sockets(target)
  await app.must('listen', { family: 6, bind: '::', source: PORT })
})
afterAll(() => node.close())

describe('TCP written by hand in a captured pod does not leave it', () => {
  let fromPod: Watch
  let fromControl: Watch
  let hand: Sockets
  let controlHand: Sockets

  beforeAll(async () => {
    fromPod = await Watch.on(node, pod, target)
    fromControl = await Watch.on(node, control, target)
    hand = node.world.packets(pod)
    controlHand = node.world.packets(control)
  })

  const raw = { op: 'raw' }
  const frame = { op: 'frame' }
  const own = { op: 'raw', own: true }
  const data = { flags: 'PA', data: 'secret', seq: 1001, ack: 2001 }
  it.each([
    { what: 'a SYN of a raw socket', ask: raw },
    { what: 'data of a raw socket', ask: { ...raw, ...data } },
    { what: 'a FIN of a raw socket', ask: { ...raw, flags: 'FA' } },
    { what: 'a RST of a raw socket', ask: { ...raw, flags: 'R' } },
    { what: 'a SYN-ACK of a raw socket', ask: { ...raw, flags: 'SA' } },
    { what: 'a SYN of a raw socket bound to the device', ask: { ...raw, device: 'eth0' } },
    { what: 'a SYN with an IP header of its own', ask: own },
    { what: 'data with an IP header of its own', ask: { ...own, ...data } },
    { what: 'a SYN with IP options', ask: { ...own, options: '94040000' }, only: 4 },
    { what: 'a SYN cut in fragments', ask: { ...own, cut: 8 }, only: 4 },
    { what: 'data cut in fragments', ask: { ...own, ...data, data: 'x'.repeat(64), cut: 24 }, only: 4 },
    { what: 'a SYN of a packet socket', ask: frame },
    { what: 'data of a packet socket', ask: { ...frame, ...data } },
    { what: 'a bare ACK of a packet socket', ask: { ...frame, flags: 'A' } },
    { what: 'a RST of a packet socket', ask: { ...frame, flags: 'R' } },
    { what: 'a frame that the kernel is told is ARP', ask: { ...frame, says: 'arp' } },
    { what: 'a frame with a tag of priority', ask: { ...frame, tags: [0] } },
    { what: 'a frame with two tags of priority, said to be ARP', ask: { ...frame, says: 'arp', tags: [0, 0] } },
    {
      what: 'a frame with nine tags of priority',
      ask: { ...frame, tags: [0, 0, 0, 0, 0, 0, 0, 0, 0] },
      reason: 'unreadable',
    },
    {
      what: 'a frame of segments to be cut by the device',
      ask: { ...frame, ...data, data: 'x'.repeat(300), gso: true },
    },
    { what: 'a frame of fragments', ask: { ...frame, cut: 8, extensions: [44] } },
    { what: 'a SYN behind options', ask: { ...frame, extensions: [0, 60, 43, 60] }, only: 6 },
    {
      what: 'a SYN behind nine headers of options',
      ask: { ...frame, extensions: Array<number>(9).fill(60) },
      only: 6,
      reason: 'unreadable',
    },
    { what: 'a SYN cut in fragments behind options', ask: { ...frame, extensions: [0, 44, 60], cut: 8 }, only: 6 },
  ] as { what: string; ask: Record<string, unknown>; only?: 4 | 6; reason?: string }[])(
    '$what',
    async ({ ask, only, reason }) => {
      for (const family of only === undefined ? ([4, 6] as const) : [only]) {
        // A raw socket of IPv6 writes no header of its own that would do.
        if (family === 6 && ask['own'] === true) continue
        const [to, mine, theirs] = family === 4 ? [target.v4, pod.v4, control.v4] : [target.v6, pod.v6, control.v6]
        const [op, options] = [ask['op'] as string, { ...ask, to, port: PORT, mac: mac(target) }]
        await controlHand.must(op, { ...options, from: theirs })
        expect((await fromControl.tcp()).map((packet) => packet.to)).toContain(to)
        const counted = countingGuard(node)
        await hand.must(op, { ...options, from: mine })
        expect(await fromPod.tcp()).toEqual([])
        // The first fragment may be too short to show its flags.
        const split = ask['cut'] !== undefined
        const reasons = split ? ['handmade', 'unreadable'] : [reason ?? 'handmade']
        for (const name of Object.keys(counted())) expect(reasons).toContain(name)
        expect(Object.values(counted()).reduce((sum, count) => sum + count, 0)).toBe(split ? 2 : 1)
      }
      expect(atTarget.plaintext.length + atTarget.hbone.length).toBe(0)
    },
  )

  it('a SYN with the address of another pod', async () => {
    const options = { to: target.v4, port: PORT, from: node.world.outside.v4, mac: mac(target) }
    await hand.must('raw', { ...options, own: true })
    await hand.must('frame', options)
    expect(await fromPod.tcp()).toEqual([])
  })

  it('a socket that would send past the guard is refused, and large options of others are not', async () => {
    const refused = () => node.redirect.counters()['dropped.direct_sender']!
    const before = refused()
    const options = { to: target.v4, port: PORT, from: pod.v4, mac: mac(target), bypass: true }
    expect(await hand.call('frame', options)).toEqual({ error: 'EPERM' })
    expect(await hand.call('xdp')).toEqual({ error: 'EPERM' })
    expect(refused() - before).toBe(2)
    expect(await fromPod.tcp()).toEqual([])
    await controlHand.must('frame', { ...options, from: control.v4 })
    expect((await fromControl.tcp()).map(({ flags }) => flags)).toContain('S')
    expect(await hand.must('large')).toEqual({ value: 7 })
  })
})
