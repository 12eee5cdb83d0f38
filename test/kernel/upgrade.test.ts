// One schema of the kernel tables after another, on pods that are in use: the next version, the way back, and the first version
// as it really was. Nobody is refused, nothing passes round the agent, and nothing of the older schema stays.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Stage } from '../../native/holder/test/holder.ts'
import { openRedirect, type RedirectOptions } from '../../agent/node/redirect/redirect.ts'
import { SCHEMA } from '../../agent/node/redirect/schema.ts'
import type { Pod, Sockets } from '../world/netns.ts'
import { SCHEMA_1, olderVersion } from '../world/older.ts'
import { TestNode, type Captured } from './node.ts'

const NEXT = SCHEMA + 1

let node: TestNode
let stage: Stage
let options: RedirectOptions
let pod: Pod
let app: Sockets
let caller: Sockets
/** The app's listening socket. */
let served: number
let stopTraffic: (() => Promise<unknown>) | undefined

beforeEach(async () => {
  stage = new Stage('release')
  await stage.holder()
  node = await TestNode.open()
  await node.redirect.uninstall()
  options = { ...node.options, holder: stage.path, lingerMs: 200 }
  node.redirect = await openRedirect(options)
  pod = node.world.pod()
  app = node.world.sockets(pod)
  caller = node.world.sockets(node.world.outside, node.world.outside.cgroup)
  served = (await app.must('listen', { family: 6, bind: '::', source: 8080 })).socket!
})
afterEach(async () => {
  await stopTraffic?.()
  await node.close()
  stage.close()
})

/** Connects again and again, out of the pod and into it, until stopped: what came of it. */
function traffic() {
  const out = node.world.sockets(pod)
  const into = node.world.sockets(node.world.outside, node.world.outside.cgroup)
  const sum = { out: 0, into: 0, failed: [] as string[] }
  let going = true
  const loop = async (sockets: Sockets, way: 'out' | 'into', to: string, port: number): Promise<void> => {
    while (going) {
      const { socket, error } = await sockets.call('connect', { to, port })
      if (error === undefined) {
        sum[way]++
        await sockets.call('close', { socket })
      } else sum.failed.push(`${way}: ${error}`)
    }
  }
  const loops = [loop(out, 'out', '10.96.0.7', 80), loop(into, 'into', pod.v4, 8080)]
  const stop = async () => {
    going = false
    await Promise.all(loops)
    return sum
  }
  stopTraffic = stop
  return { sum, stop }
}

/** Takes what the agents accepted; every one of the pod's own must say where it went. */
async function accepted(...agents: readonly Captured[]): Promise<{ out: number; into: number }> {
  let [out, into] = [0, 0]
  for (const { outbound, plaintext } of agents) {
    for (; outbound.length > 0; out++)
      expect(['10.96.0.7:80', '10.96.1.1:1234']).toContain(textOf((await outbound.next()).original))
    for (; plaintext.length > 0; into++) await plaintext.next()
  }
  return { out, into }
}

const textOf = (end: { address: string; port: number } | undefined): string => `${end?.address}:${end?.port}`
const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const folders = (): string[] => readdirSync(node.world.bpffs).sort()

describe.each([
  ['the next schema', SCHEMA, NEXT],
  ['the schema before', NEXT, SCHEMA],
])('an agent of %s', (_, from, to) => {
  beforeEach(async () => {
    if (from === SCHEMA) return
    await node.redirect.uninstall()
    node.redirect = await openRedirect({ ...options, schema: from })
  })

  it('takes over from one that runs, under traffic, and both carry what is theirs', async () => {
    const first = node.redirect
    const before = await node.capture(pod)
    const running = traffic()
    await expect.poll(() => running.sum.out, { timeout: 10_000 }).toBeGreaterThan(20)
    // A connection of before, and one that was served: long after, both ends are to see the same peers.
    const dialled = await app.must('connect', { to: '10.96.1.1', port: 1234 })
    const served1 = node.deliver(pod, { address: pod.v4, port: 8080 }, { address: '192.0.2.1', port: 111 })
    const client = await app.must('accept', { socket: served })
    const second = await openRedirect({ ...options, schema: to, lingerMs: 3_000 })
    // Until the pod is enrolled by the newer one the other's programs are on it.
    await later(50)
    expect(second.enrolled()).toEqual([pod.name])
    node.redirect = second
    const after = await node.capture(pod)
    node.redirect = first
    // The older one drains: what it still delivers has the real client's address.
    const { connection } = node.deliver(pod, { address: pod.v4, port: 8080 }, { address: '192.0.2.9', port: 999 })
    expect(await app.must('accept', { socket: served })).toMatchObject({ address: '::ffff:192.0.2.9', port: 999 })
    connection.abort('cancel')
    node.redirect = second

    const soFar = running.sum.out
    await expect.poll(() => running.sum.out, { timeout: 10_000 }).toBeGreaterThan(soFar + 20)
    await node.stopListening(before)
    const sum = await running.stop()
    expect(sum.failed).toEqual([])
    await later(50)
    const old = await accepted(before)
    expect(old.out).toBeGreaterThan(20)
    const all = await accepted(after)
    expect([old.out + all.out, old.into + all.into]).toEqual([sum.out + 1, sum.into])
    // Nothing went round the agents.
    expect(await app.call('accept', { socket: served, timeout: 0.1 })).toEqual({ error: 'ETIMEDOUT' })

    first.close()

    await expect.poll(folders, { timeout: 5_000 }).toEqual(['lease', `v${to}`])
    expect((await stage.ask('list')).names).toEqual([expect.stringMatching(new RegExp(`^v${to}/`)) as string])
    expect(await app.must('peer', { socket: dialled.socket })).toEqual({ address: '10.96.1.1', port: 1234 })
    expect(await app.must('peer', { socket: client.socket })).toEqual({ address: '::ffff:192.0.2.1', port: 111 })
    served1.connection.abort('cancel')
    await app.must('connect', { to: '10.96.0.8', port: 81 })
    expect((await after.outbound.next()).original).toEqual({ address: '10.96.0.8', port: 81 })
  })

  it('takes over from one that died, and serves who waits in its listeners', async () => {
    await node.capture(pod)
    await node.die()
    await app.must('connect', { to: '10.96.0.7', port: 80 })
    const waiting = await caller.must('connect', { to: pod.v4, port: 8080 })
    node.redirect = await openRedirect({ ...options, schema: to })
    await app.must('connect', { to: '10.96.0.8', port: 81 })
    const after = await node.capture(pod)
    await app.must('connect', { to: '10.96.0.9', port: 82 })
    await expect.poll(() => after.outbound.length).toBe(to > from ? 3 : 1)
    const ports: (number | undefined)[] = []
    while (after.outbound.length > 0) ports.push((await after.outbound.next()).original?.port)
    // What a newer version noted an older one cannot read: those are refused rather than guessed.
    expect(ports.toSorted((a, b) => Number(a) - Number(b))).toEqual(to > from ? [80, 81, 82] : [82])
    if (to > from) {
      const judged = await after.plaintext.next()
      judged.connection.write(Buffer.from('late'))
      expect((await caller.must('receive', { socket: waiting.socket })).data).toBe('late')
    }
    await expect.poll(folders, { timeout: 5_000 }).toEqual(['lease', `v${to}`])
  })

  it('keeps a pod closed that nobody enrols, and can release it', async () => {
    await node.capture(pod)
    await node.redirect.uninstall()
    node.redirect = await openRedirect({ ...node.options, schema: from })
    await node.capture(pod)
    await node.die()
    node.redirect = await openRedirect({ ...node.options, schema: to })
    await later(300)
    // No holder here: refused, not open.
    expect(await app.call('connect', { to: node.world.outside.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    expect(await caller.call('connect', { to: pod.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    expect(folders()).toContain(`v${from}`)
    expect(node.redirect.enrolled()).toEqual([pod.name])
    await node.redirect.unenroll(pod.name)
    expect(node.redirect.enrolled()).toEqual([])
    await caller.must('connect', { to: pod.v4, port: 8080 })
  })

  it('uninstalls both', async () => {
    await node.capture(pod)
    await node.die()
    node.redirect = await openRedirect({ ...options, schema: to })
    await node.redirect.uninstall()
    expect(existsSync(node.world.bpffs)).toBe(false)
    expect((await stage.ask('list')).names).toEqual([])
    await caller.must('connect', { to: pod.v4, port: 8080 })
    await caller.must('listen', { source: 8081 })
    await app.must('connect', { to: node.world.outside.v4, port: 8081 })
  })
})

const first = olderVersion(SCHEMA_1)

describe.skipIf(first === undefined && !process.env['CI'])('an agent of the first schema, as it was released', () => {
  /** A process of that version that has enrolled the pod. */
  async function olderAgent(): Promise<ChildProcess> {
    const { world } = node
    const orders = JSON.stringify({
      cgroup: world.cgroup,
      agentCgroup: world.agentCgroup,
      pinRoot: `${world.bpffs}/v1`,
      pods: [{ uid: pod.name, netns: pod.netns, addresses: [pod.v4, pod.v6] }],
    })
    const program = [`${first!}/agent/bin/node`, `${first!}/test/kernel/agent-process.ts`, orders]
    const join = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
    const agent = spawn('sh', ['-c', join, 'sh', world.agentCgroup, ...program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    world.onClose(() => agent.kill('SIGKILL'))
    const lines = createInterface({ input: agent.stdout })
    await new Promise<void>((resolve) => lines.on('line', (line) => line.includes('"ready":true') && resolve()))
    return agent
  }

  beforeEach(async () => {
    await node.redirect.uninstall()
    await caller.must('listen', { source: 8090 })
  })

  it('gives way to this one under traffic, beside each other: nobody is refused, nothing of it stays', async () => {
    const old = await olderAgent()
    expect(folders()).toEqual(['v1'])
    const running = traffic()
    await expect.poll(() => running.sum.out, { timeout: 10_000 }).toBeGreaterThan(20)
    // What the older one carries goes on.
    const carried = await app.must('connect', { to: '10.96.0.9', port: 90 })
    expect((await app.must('receive', { socket: carried.socket })).data).toBe(`agent ${old.pid}`)
    node.redirect = await openRedirect(options)
    expect(node.redirect.enrolled()).toEqual([pod.name])
    const after = await node.capture(pod)
    await expect.poll(() => after.outbound.length, { timeout: 10_000 }).toBeGreaterThan(20)
    expect(await running.stop()).toMatchObject({ failed: [] })
    await accepted(after)
    old.kill('SIGKILL')
    await app.must('connect', { to: '10.96.0.8', port: 81 })
    expect((await after.outbound.next()).original).toEqual({ address: '10.96.0.8', port: 81 })
    await expect.poll(folders, { timeout: 5_000 }).toEqual(['lease', `v${SCHEMA}`])
  })

  it('left pods closed when it died; this one opens them again', async () => {
    const old = await olderAgent()
    const ended = once(old, 'exit')
    old.kill('SIGKILL')
    await ended
    const closed = async () => {
      expect(await app.call('connect', { to: node.world.outside.v4, port: 8090 })).toEqual({ error: 'ECONNREFUSED' })
      expect(await caller.call('connect', { to: pod.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    }
    await closed()
    node.redirect = await openRedirect(options)
    await closed()
    const after = await node.capture(pod)
    await app.must('connect', { to: node.world.outside.v4, port: 8090 })
    expect((await after.outbound.next()).original).toEqual({ address: node.world.outside.v4, port: 8090 })
    await expect.poll(folders, { timeout: 5_000 }).toEqual(['lease', `v${SCHEMA}`])
  })
})

describe('a pin folder', () => {
  it('is named without the schema', async () => {
    await expect(openRedirect({ ...node.options, pinRoot: `${node.world.bpffs}/v1` })).rejects.toMatchObject({
      code: 'REDIRECT_PIN_ROOT',
      hint: `Leave the last part off: --pin-root ${node.world.bpffs}`,
    })
  })
})
