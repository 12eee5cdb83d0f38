// Ways round the mesh by the socket API, tried from inside a captured pod: programs of other cgroups, fast open, multipath, sockets
// used again, bound to devices and to the addresses of others. Each is carried by the mesh or does not leave the pod.
import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Pod, Sockets } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'
import { Watch, countingGuard } from './watch.ts'

const PORT = 8080
/** Seconds after which a connection is taken for refused; the kernel would send its first SYN again after one. */
const PATIENCE = 0.3

let node: TestNode
/** Captured; everything is tried from here. */
let pod: Pod
/** Captured; everything is aimed at it. */
let target: Pod
/** Not captured. */
let stranger: Pod
let inPod: Captured
let atTarget: Captured
let watch: Watch

beforeAll(async () => {
  node = await TestNode.open()
  pod = node.world.pod()
  target = node.world.pod()
  stranger = node.world.pod()
  inPod = await node.capture(pod)
  atTarget = await node.capture(target)
  watch = await Watch.on(node, pod, target)
  for (const one of [target, stranger]) {
    await node.world.sockets(one).must('listen', { family: 6, bind: '::', source: PORT })
    // Fast open that needs no cookie, so that the SYN carries data; and multipath.
    for (const setting of ['net.ipv4.tcp_fastopen=1027']) {
      execFileSync('nsenter', [`--net=${one.netns}`, 'sysctl', '-qw', setting])
    }
  }
  execFileSync('nsenter', [`--net=${pod.netns}`, 'sysctl', '-qw', 'net.ipv4.tcp_fastopen=1029'])
})
afterAll(() => node.close())

/** Ways to connect. */
const ways: { what: string; ask: Record<string, unknown>; family?: 4 | 6 }[] = [
  { what: 'a plain socket', ask: {} },
  { what: 'a dual-stack socket to a v4-mapped address', ask: { mapped: true, family: 6 }, family: 4 },
  { what: 'multipath TCP', ask: { mptcp: true } },
  { what: 'fast open', ask: { fastopen: 'secret' } },
  { what: 'fast open with the first bytes', ask: { deferred: true, data: 'secret' } },
  { what: 'a socket bound to the device', ask: { device: 'eth0' } },
  { what: 'a socket bound to the pod’s address', ask: { own: true } },
  { what: 'a socket bound to the address of another', ask: { foreign: true, freebind: true } },
  { what: 'a transparent socket with the address of another', ask: { foreign: true, transparent: true } },
]

/** Tries one way and says what became of it. */
async function attempt(sockets: Sockets, ask: Record<string, unknown>, family: 4 | 6, to: Pod): Promise<string> {
  const { mapped, own, foreign, data, ...rest } = ask
  const at = (of: Pod): string => (family === 4 ? of.v4 : of.v6)
  const options: Record<string, unknown> = { family, port: PORT, timeout: PATIENCE, impatient: true, ...rest }
  options['to'] = mapped === true ? `::ffff:${to.v4}` : at(to)
  if (own === true) options['bind'] = at(pod)
  if (foreign === true) options['bind'] = at(stranger)
  const answer = await sockets.call('connect', options)
  if (answer.error !== undefined) return answer.error
  if (data !== undefined) {
    const sent = await sockets.call('send', { socket: answer.socket, data })
    if (sent.error !== undefined) throw new Error(sent.error)
  }
  // A SYN that carries data is sent before anybody has answered.
  const { error } = await sockets.call('finish', { socket: answer.socket, timeout: PATIENCE })
  if (error === undefined) return 'connected'
  await sockets.must('close', { socket: answer.socket })
  return error
}

describe('a program of another cgroup in a captured pod', () => {
  let foreign: Sockets
  beforeAll(() => {
    foreign = node.world.sockets(pod, node.world.outside.cgroup)
  })

  it.each(ways)('does not get out by $what', async ({ ask, family: only }) => {
    for (const family of only === undefined ? ([4, 6] as const) : [only]) {
      for (const to of [target, stranger]) {
        const counted = countingGuard(node)
        const outcome = await attempt(foreign, ask, family, to)
        expect(await watch.tcp()).toEqual([])
        // IPv4 itself routes nothing from an address that is only bound freely.
        if (outcome === 'ENETUNREACH' && ask['freebind'] === true) continue
        expect(outcome).toBe('ETIMEDOUT')
        expect(Object.keys(counted())).toEqual(['syn'])
      }
    }
    expect(atTarget.plaintext.length + atTarget.hbone.length).toBe(0)
  })

  it('does not get out by a socket that was disconnected', async () => {
    const server = await foreign.must('listen', { bind: '127.0.0.1', source: 7105 })
    const { socket } = await foreign.must('connect', { to: '127.0.0.1', port: 7105 })
    await foreign.must('disconnect', { socket })
    expect(await foreign.call('connect', { socket, to: target.v4, port: PORT })).toEqual({ error: 'ETIMEDOUT' })
    expect(await watch.tcp()).toEqual([])
    for (const one of [socket, server.socket]) await foreign.must('close', { socket: one })
  })

  it('still listens for and serves whom the agent lets in', async () => {
    const server = await foreign.must('listen', { source: 7106 })
    node.deliver(pod, { address: pod.v4, port: 7106 }, { address: stranger.v4, port: 40_000 })
    expect((await foreign.must('accept', { socket: server.socket })).port).toBeGreaterThan(0)
  })
})

describe('a program of a captured pod', () => {
  let app: Sockets
  beforeAll(() => {
    app = node.world.sockets(pod)
  })

  it.each(ways)('is carried by the agent or refused by $what', async ({ what, ask, family: only }) => {
    for (const family of only === undefined ? ([4, 6] as const) : [only]) {
      const outcome = await attempt(app, ask, family, target)
      // From an address of another there is no way back to it over loopback.
      if (ask['foreign'] === true) expect(['ETIMEDOUT', 'EINVAL', 'ENETUNREACH', 'connected'], what).toContain(outcome)
      else expect(outcome).toBe('connected')
      if (outcome === 'connected') {
        const { original } = await inPod.outbound.next()
        expect(original).toMatchObject({ address: family === 4 ? target.v4 : target.v6, port: PORT })
      }
      expect(await watch.tcp()).toEqual([])
    }
    expect(atTarget.plaintext.length + atTarget.hbone.length).toBe(0)
  })

  // The note is on the subflow, and the hook is asked about the socket above it.
  it('is told by getpeername of multipath TCP that it is captured, not what it dialled', async () => {
    for (const [family, to, loopback] of [
      [4, target.v4, '127.0.0.1'],
      [6, target.v6, '::1'],
    ]) {
      const { socket } = await app.must('connect', { family, to, port: PORT, mptcp: true })
      expect((await inPod.outbound.next()).original).toMatchObject({ address: to, port: PORT })
      expect(await app.must('peer', { socket })).toEqual({ address: loopback, port: 1 })
    }
  })

  it('has no SCTP to go round with, or is not kept from it: the mesh carries none', async () => {
    const answer = await app.call('socket', { protocol: 132 })
    if (answer.error === undefined) return
    expect(answer.error).toBe('EPROTONOSUPPORT')
  })

  it('is refused a link-local destination, which the mesh cannot carry', async () => {
    const { ip } = await import('../world/netns.ts')
    const local = /inet6 (fe80::\S+)\/64/.exec(ip('-n', target.name, 'addr', 'show', 'dev', 'eth0'))![1]!
    const before = node.redirect.counters()['dropped.link_local']!
    expect(await app.call('connect', { family: 6, to: `${local}%eth0`, port: PORT })).toEqual({ error: 'EPERM' })
    expect(node.redirect.counters()['dropped.link_local']! - before).toBe(1)
    expect(await watch.tcp()).toEqual([])
  })
})

describe('a socket that was let out of the mesh', () => {
  let app: Sockets
  let outside: Sockets
  let listener: number

  beforeAll(async () => {
    app = node.world.sockets(pod)
    outside = node.world.sockets(node.world.outside)
    listener = (await outside.must('listen', { family: 6, bind: '::', source: 8090 })).socket!
    const { tables } = node.redirect
    await tables.setAddresses([target.v4, target.v6].map((address) => ({ address, class: 'agent' as const })))
    tables.setSettings({ synced: true, passUnknown: true })
    tables.setDirect(pod.name, true)
  })
  beforeEach(() => watch.tcp())

  it.each([
    { family: 4, to: () => node.world.outside.v4 },
    { family: 6, to: () => node.world.outside.v6 },
  ])('gets where it was let go over IPv$family', async ({ family, to }) => {
    const client = await app.must('connect', { family, to: to(), port: 8090 })
    const { socket } = await outside.must('accept', { socket: listener })
    await app.must('send', { socket: client.socket, data: 'plain, as it should be' })
    expect((await outside.must('receive', { socket })).data).toBe('plain, as it should be')
    expect((await watch.tcp()).every((packet) => packet.to === to())).toBe(true)
  })

  it('is judged anew when it connects again', async () => {
    const { socket } = await app.must('connect', { to: node.world.outside.v4, port: 8090 })
    await outside.must('accept', { socket: listener })
    await app.must('disconnect', { socket })
    await app.must('connect', { socket, to: target.v4, port: PORT })
    expect((await inPod.outbound.next()).original).toMatchObject({ address: target.v4, port: PORT })
    await app.must('disconnect', { socket })
    await app.must('connect', { socket, to: node.world.outside.v4, port: 8090 })
    await outside.must('accept', { socket: listener })
    expect((await watch.tcp()).filter((packet) => packet.to === target.v4)).toEqual([])
  })

  it.each([
    { family: 4, how: { transparent: true }, to: () => target.v4, lie: () => stranger.v4, own: () => pod.v4 },
    { family: 6, how: { freebind: true }, to: () => target.v6, lie: () => stranger.v6, own: () => pod.v6 },
  ])(
    'may not have an address of another on its way to a pod over IPv$family',
    async ({ family, how, to, lie, own }) => {
      await node.redirect.tables.setAddresses([{ address: to(), class: 'direct', pod: target.name }])
      await node.redirect.tables.replacePolicies([[target.name, { head: 'allow', rows: [], udpRefused: [] }]])
      const dial = { family, to: to(), port: PORT, timeout: PATIENCE }
      const counted = countingGuard(node)
      expect(await app.call('connect', { ...dial, bind: lie(), ...how })).toEqual({ error: 'ETIMEDOUT' })
      // A listener on loopback may still be answering an earlier attempt.
      expect(Object.keys(counted())).toContain('peer')
      expect(await watch.tcp()).toEqual([])
      await app.must('connect', { ...dial, bind: own() })
    },
  )
})
