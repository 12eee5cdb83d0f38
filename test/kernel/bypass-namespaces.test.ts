// Ways round the mesh by interfaces and namespaces that a captured pod makes behind itself, and what the guard must leave alone:
// connections from before, and the kernel's own answers.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import { ip, type Pod } from '../world/netns.ts'
import { TestNode } from './node.ts'
import { Watch, countingGuard, mac } from './watch.ts'

const PORT = 8080

let node: TestNode
/** Captured; everything is tried from here. */
let pod: Pod
/** Not captured, with a server. */
let target: Pod

beforeEach(async () => {
  node = await TestNode.open()
  pod = node.world.pod()
  target = node.world.pod()
  await node.world.sockets(target).must('listen', { family: 6, bind: '::', source: PORT })
})
afterEach(() => node.close())

const inside = (of: Pod, ...command: string[]): void => {
  execFileSync('nsenter', [`--net=${of.netns}`, ...command], { stdio: ['ignore', 'ignore', 'inherit'] })
}
const set = (of: Pod, ...settings: string[]): void => inside(of, 'sysctl', '-qw', ...settings)

/** Names of the guards' pins. */
function guards(): string[] {
  const folder = `${node.world.pinRoot}/guards`
  return existsSync(folder) ? readdirSync(folder) : []
}

describe('a namespace behind a captured pod', () => {
  const n4 = '192.168.77.2'
  const n6 = 'fd77::2'

  /** A namespace with a leg in the pod. */
  function nest(): Pod {
    const name = `${node.world.id}-nested`
    ip('netns', 'add', name)
    ip('-n', name, 'link', 'set', 'lo', 'up')
    return { ...pod, name, netns: `/run/netns/${name}`, v4: n4, v6: n6 }
  }

  it('does not get out through it', async () => {
    const nested = nest()
    ip('-n', pod.name, 'link', 'add', 'down0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', nested.name)
    for (const [of, device, v4, v6] of [
      [pod, 'down0', '192.168.77.1', 'fd77::1'],
      [nested, 'eth0', n4, n6],
    ] as const) {
      ip('-n', of.name, 'link', 'set', device, 'up')
      ip('-n', of.name, 'addr', 'add', `${v4}/24`, 'dev', device)
      ip('-n', of.name, 'addr', 'add', `${v6}/64`, 'dev', device, 'nodad')
    }
    ip('-n', nested.name, 'route', 'add', 'default', 'via', '192.168.77.1')
    ip('-n', nested.name, '-6', 'route', 'add', 'default', 'via', 'fd77::1')
    ip('-n', target.name, 'route', 'add', '192.168.77.0/24', 'via', pod.v4)
    ip('-n', target.name, '-6', 'route', 'add', 'fd77::/64', 'via', pod.v6)
    set(pod, 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
    const app = node.world.sockets(nested)
    const dials = [
      { family: 4, to: target.v4, port: PORT, timeout: 0.3 },
      { family: 6, to: target.v6, port: PORT, timeout: 0.3 },
    ]
    // As long as nobody captures the pod, it is a router.
    for (const dial of dials) await app.must('connect', { ...dial, timeout: 3 })
    const server = await app.must('listen', { family: 6, bind: '::', source: 9090 })
    const caller = node.world.sockets(target)
    await caller.must('connect', { to: n4, port: 9090 })

    await node.capture(pod)
    const watch = await Watch.on(node, pod, target)
    const counted = countingGuard(node)
    for (const dial of dials) expect(await app.call('connect', dial)).toEqual({ error: 'ETIMEDOUT' })
    // Nor does anything behind it answer.
    expect(await caller.call('connect', { to: n4, port: 9090, timeout: 0.3 })).toEqual({ error: 'ETIMEDOUT' })
    expect(await watch.tcp()).toEqual([])
    expect(Object.keys(counted())).toEqual(['forwarded'])
    expect(counted()['forwarded']).toBeGreaterThanOrEqual(3)
    await app.must('close', { socket: server.socket })
  })

  it('does not get out through a bridge in it', async () => {
    const nested = nest()
    ip('-n', pod.name, 'link', 'add', 'down0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', nested.name)
    await node.capture(pod)
    ip('-n', pod.name, 'link', 'add', 'br9', 'type', 'bridge')
    ip('-n', pod.name, 'addr', 'flush', 'dev', 'eth0')
    for (const device of ['eth0', 'down0']) ip('-n', pod.name, 'link', 'set', device, 'master', 'br9', 'up')
    ip('-n', pod.name, 'link', 'set', 'br9', 'up')
    ip('-n', pod.name, 'addr', 'add', `${pod.v4}/24`, 'dev', 'br9')
    ip('-n', pod.name, 'addr', 'add', `${pod.v6}/64`, 'dev', 'br9', 'nodad')
    const [v4, v6] = [pod.v4.replace(/\d+$/, '99'), `${pod.v6.replace(/[^:]+$/, '')}99`]
    ip('-n', nested.name, 'link', 'set', 'eth0', 'up')
    ip('-n', nested.name, 'addr', 'add', `${v4}/24`, 'dev', 'eth0')
    ip('-n', nested.name, 'addr', 'add', `${v6}/64`, 'dev', 'eth0', 'nodad')
    const watch = await Watch.on(node, pod, target)
    const hand = node.world.packets(nested)
    // It reaches the target, only not by TCP.
    expect((await hand.must('ping', { to: target.v4 })).address).toBe(target.v4)
    const app = node.world.sockets(nested)
    for (const [family, to] of [
      [4, target.v4],
      [6, target.v6],
    ]) {
      expect(await app.call('connect', { family, to, port: PORT, timeout: 0.3 })).toEqual({ error: 'ETIMEDOUT' })
    }
    await hand.must('frame', { to: target.v4, port: PORT, from: v4, mac: mac(target), flags: 'PA', data: 'secret' })
    expect(await watch.tcp()).toEqual([])
  })

  it('does not get out by the pod’s own leg when it is moved there', async () => {
    await node.capture(pod)
    const nested = nest()
    ip('-n', pod.name, 'link', 'set', 'eth0', 'netns', nested.name)
    ip('-n', nested.name, 'link', 'set', 'eth0', 'up')
    ip('-n', nested.name, 'addr', 'add', `${pod.v4}/24`, 'dev', 'eth0')
    ip('-n', nested.name, 'addr', 'add', `${pod.v6}/64`, 'dev', 'eth0', 'nodad')
    const watch = await Watch.on(node, { ...nested, v4: pod.v4, v6: pod.v6 }, target)
    const app = node.world.sockets(nested)
    const counted = countingGuard(node)
    // The namespace is none that is captured: connect lets it go. The guard has come along with the leg.
    expect(await app.call('connect', { to: target.v4, port: PORT, timeout: 0.3 })).toEqual({ error: 'ETIMEDOUT' })
    expect(await watch.tcp()).toEqual([])
    expect(counted()).toEqual({ syn: 1 })
  })

  it('does not get out by an interface on top of the pod’s leg', async () => {
    await node.capture(pod)
    ip('-n', pod.name, 'link', 'add', 'link', 'eth0', 'name', 'top0', 'type', 'macvlan', 'mode', 'bridge')
    ip('-n', pod.name, 'link', 'set', 'top0', 'up')
    const v4 = pod.v4.replace(/\d+$/, '98')
    ip('-n', pod.name, 'addr', 'add', `${v4}/24`, 'dev', 'top0')
    const watch = await Watch.on(node, pod, target)
    const foreign = node.world.sockets(pod, node.world.outside.cgroup)
    const dial = { to: target.v4, port: PORT, timeout: 0.3, bind: v4, device: 'top0' }
    expect(await foreign.call('connect', dial)).toEqual({ error: 'ETIMEDOUT' })
    const hand = node.world.packets(pod)
    await hand.must('frame', { to: target.v4, port: PORT, from: v4, mac: mac(target), device: 'top0' })
    expect(await watch.tcp()).toEqual([])
  })
})

describe('an interface that comes later', () => {
  it('is guarded when the guards are brought up to date, and its pin goes with it', async () => {
    await node.capture(pod)
    expect(guards()).toHaveLength(1)
    expect(await node.redirect.guard(pod.name)).toEqual({ guarded: ['eth0'], added: [] })
    const outside = node.world.outside
    ip('-n', outside.name, 'link', 'add', 'extra', 'type', 'veth', 'peer', 'name', 'eth1', 'netns', pod.name)
    ip('-n', outside.name, 'link', 'set', 'extra', 'up')
    ip('-n', pod.name, 'link', 'set', 'eth1', 'up')
    const watcher = node.world.packets(outside)
    const { socket } = await watcher.must('watch', { device: 'extra' })
    const hand = node.world.packets(pod)
    const frame = { to: target.v4, port: PORT, from: pod.v4, mac: mac(target), device: 'eth1' }
    const seen = async (): Promise<number> =>
      (await watcher.must('seen', { socket })).packets!.filter(({ protocol }) => protocol === 'tcp').length
    await hand.must('frame', frame)
    expect(await seen()).toBe(1)
    expect(await node.redirect.guard(pod.name)).toEqual({ guarded: ['eth0', 'eth1'], added: ['eth1'] })
    expect(guards()).toHaveLength(2)
    await hand.must('frame', frame)
    expect(await seen()).toBe(0)
    // Where UDP is refused, there is one at each entry too.
    await node.redirect.tables.replacePolicies([[pod.name, { head: 'agent', rows: [], udpRefused: [53] }]])
    expect(guards()).toHaveLength(4)
    expect(await node.redirect.guard(pod.name)).toEqual({ guarded: ['eth0', 'eth1'], added: [] })
    ip('-n', pod.name, 'link', 'del', 'eth1')
    expect(await node.redirect.guard(pod.name)).toEqual({ guarded: ['eth0'], added: [] })
    expect(guards()).toHaveLength(2)
  })

  it('without an Ethernet header is guarded as well', async () => {
    ip('-n', pod.name, 'tuntap', 'add', 'dev', 'tun7', 'mode', 'tun')
    await node.capture(pod)
    expect((await node.redirect.guard(pod.name)).guarded).toEqual(expect.arrayContaining(['eth0', 'tun7']))
  })
})

describe('the guard leaves alone', () => {
  it('connections from before the pod was captured, of whatever cgroup, both ways', async () => {
    const peer = node.world.sockets(target)
    const listener = (await peer.must('listen', { source: 9091 })).socket
    const open: { mine: () => ReturnType<typeof peer.must>; yours: () => ReturnType<typeof peer.must> }[] = []
    for (const cgroup of [pod.cgroup, node.world.outside.cgroup]) {
      const app = node.world.sockets(pod, cgroup)
      const dialled = await app.must('connect', { to: target.v4, port: 9091 })
      const accepted = await peer.must('accept', { socket: listener })
      const source = cgroup === pod.cgroup ? 9092 : 9093
      const server = await app.must('listen', { source })
      const caller = await peer.must('connect', { to: pod.v4, port: source })
      const served = await app.must('accept', { socket: server.socket })
      for (const [one, other] of [
        [dialled, accepted],
        [served, caller],
      ]) {
        open.push({
          mine: async () => {
            await app.must('send', { socket: one!.socket, data: 'out' })
            return peer.must('receive', { socket: other!.socket })
          },
          yours: async () => {
            await peer.must('send', { socket: other!.socket, data: 'in' })
            return app.must('receive', { socket: one!.socket })
          },
        })
      }
    }
    await node.capture(pod)
    const counted = countingGuard(node)
    for (const { mine, yours } of open) {
      expect((await mine()).data).toBe('out')
      expect((await yours()).data).toBe('in')
    }
    expect(counted()).toEqual({})
  })

  it('the answers of the kernel where there is no whole socket', async () => {
    const { plaintext } = await node.capture(pod)
    const counted = countingGuard(node)
    const caller = node.world.sockets(target)
    const watch = await Watch.on(node, pod, target)
    for (const [family, to] of [
      [4, pod.v4],
      [6, pod.v6],
    ] as const) {
      // SYN cookies: the SYN-ACK belongs to nothing.
      set(pod, 'net.ipv4.tcp_syncookies=2')
      await caller.must('connect', { family, to, port: 9094 })
      const cookie = await plaintext.next()
      set(pod, 'net.ipv4.tcp_syncookies=1')
      await caller.must('connect', { family, to, port: 9094 })
      const whole = await plaintext.next()
      // The pod closes first, so that its end waits; an old segment is answered.
      const { peer } = whole.info
      whole.connection.end()
      await watch.tcp()
      cookie.connection.abort('cancel')
      expect((await watch.tcp()).map(({ flags }) => flags)).toContain('RA')
      const hand = node.world.packets(target)
      const stray = { to, from: peer.address, source: peer.port, mac: mac(pod), flags: 'A', seq: 1, ack: 1 }
      await hand.must('frame', { ...stray, port: 9094 })
      // … and one that belongs to nothing is refused.
      await hand.must('frame', { ...stray, port: 9095, source: 1234 })
      const answers = await watch.tcp()
      expect(answers.map(({ flags }) => flags)).toEqual(expect.arrayContaining(['A', 'R']))
    }
    // Refused by the kernel: a RST.
    node.redirect.setPlaintext(pod.name, 'refuse')
    for (const [family, to] of [
      [4, pod.v4],
      [6, pod.v6],
    ]) {
      expect(await caller.call('connect', { family, to, port: 9094 })).toEqual({ error: 'ECONNREFUSED' })
    }
    expect(counted()).toEqual({})
  })
})

describe('the guard', () => {
  it('stays when the agent dies, is its successor’s, and goes with the pod’s capture', async () => {
    await node.capture(pod)
    const watch = await Watch.on(node, pod, target)
    const hand = node.world.packets(pod)
    const attempt = async (): Promise<number> => {
      await hand.must('raw', { to: target.v4, port: PORT, from: pod.v4 })
      return (await watch.tcp()).length
    }
    expect(await attempt()).toBe(0)
    await node.die()
    expect(await attempt()).toBe(0)
    await node.restart()
    expect(await attempt()).toBe(0)
    await node.capture(pod)
    expect(guards()).toHaveLength(1)
    expect(await attempt()).toBe(0)
    await node.redirect.unenroll(pod.name)
    expect(guards()).toEqual([])
    expect(await attempt()).toBeGreaterThan(0)
  })

  it('is absent, and visibly so, on a kernel without tcx', async () => {
    await node.die()
    node.redirect = await openRedirect({ ...node.options, features: { 'link:tcx': false } })
    await node.capture(pod)
    expect(node.redirect.features['link:tcx']).toBe(false)
    expect(await node.redirect.guard(pod.name)).toEqual({ guarded: [], added: [] })
    expect(guards()).toEqual([])
  })
})
