// A dead agent never means open traffic, and the next one takes over what it left: agents as real processes, killed.
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { codec, createMap, openPinnedLink } from '../../native/bpf/index.ts'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import { World, type Pod, type Sockets } from '../world/netns.ts'
import { TestNode } from './node.ts'

const root = new URL('../..', import.meta.url).pathname

interface Line {
  readonly ready?: boolean
  readonly enrolled?: readonly string[]
  readonly accepted?: string
  readonly original?: { address: string; port: number }
}

/** A running agent-process.ts and what it said. */
class Agent {
  readonly process: ChildProcess
  readonly lines: Line[] = []

  constructor(world: World, pods: readonly Pod[]) {
    const orders = JSON.stringify({
      cgroup: world.cgroup,
      agentCgroup: world.agentCgroup,
      pinRoot: world.bpffs,
      pods: pods.map((pod) => ({ uid: pod.name, netns: pod.netns, addresses: [pod.v4, pod.v6] })),
    })
    const script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
    const command = [`${root}/agent/bin/node`, `${root}/test/kernel/agent-process.ts`, orders]
    this.process = spawn('sh', ['-c', script, 'sh', world.agentCgroup, ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    createInterface({ input: this.process.stdout! }).on('line', (line) => this.lines.push(JSON.parse(line) as Line))
    world.onClose(() => this.process.kill('SIGKILL'))
  }

  async ready(): Promise<Line> {
    await expect.poll(() => this.lines.some((line) => line.ready), { timeout: 10_000 }).toBe(true)
    return this.lines.find((line) => line.ready)!
  }

  async kill(): Promise<void> {
    const gone = new Promise((resolve) => this.process.once('exit', resolve))
    this.process.kill('SIGKILL')
    await gone
  }
}

describe('an agent that dies', () => {
  let world: World
  let pod: Pod
  let app: Sockets
  let caller: Sockets
  let server: number

  beforeEach(async () => {
    world = new World()
    pod = world.pod()
    app = world.sockets(pod)
    caller = world.sockets(world.outside, world.outside.cgroup)
    // Real servers on both sides: what is refused below would be served if anything passed.
    await app.must('listen', { family: 6, bind: '::', source: 8080 })
    server = (await caller.must('listen', { family: 6, bind: '::', source: 8080 })).socket!
  })

  afterEach(() => world.close())

  it('leaves its pods closed, and the next agent opens them again', async () => {
    const first = new Agent(world, [pod])
    await first.ready()
    const served = await app.must('connect', { to: world.outside.v4, port: 8080 })
    expect((await app.must('receive', { socket: served.socket })).data).toBe(`agent ${first.process.pid}`)
    const links = pinnedLinks(world)
    await first.kill()

    for (let round = 0; round < 3; round++) {
      for (const [family, there, here] of [
        [4, world.outside.v4, pod.v4],
        [6, world.outside.v6, pod.v6],
      ]) {
        expect(await app.call('connect', { family, to: there, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
        expect(await caller.call('connect', { family, to: here, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
        expect(await caller.call('connect', { family, to: here, port: 15_008 })).toEqual({ error: 'ECONNREFUSED' })
      }
    }
    expect(await caller.call('accept', { socket: server, timeout: 0.1 })).toEqual({ error: 'ETIMEDOUT' })

    const second = new Agent(world, [pod])
    await second.ready()
    // The same attachments with new programs in them: there was no moment without one.
    const adopted = pinnedLinks(world)
    expect(adopted.map(({ id, name }) => ({ id, name }))).toEqual(links.map(({ id, name }) => ({ id, name })))
    for (const { name, programId } of adopted) {
      expect(programId, name).not.toBe(links.find((link) => link.name === name)!.programId)
    }
    const again = await app.must('connect', { to: world.outside.v4, port: 8080 })
    expect((await app.must('receive', { socket: again.socket })).data).toBe(`agent ${second.process.pid}`)
    await expect
      .poll(() => second.lines.find((line) => line.accepted)?.original)
      .toEqual({ address: world.outside.v4, port: 8080 })
    await caller.must('connect', { to: pod.v4, port: 8080 })
    await expect.poll(() => second.lines.some((line) => line.accepted === 'plaintext')).toBe(true)
  })

  it('is succeeded by one that knows which pods it left, keeps their refusal and can release them', async () => {
    const node = await TestNode.open()
    const left = node.world.pod()
    const outside = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    const inside = node.world.sockets(left)
    await inside.must('listen', { source: 8081 })
    await node.capture(left)
    node.redirect.setPlaintext(left.name, 'refuse')
    await node.die()
    await node.restart()
    expect(node.redirect.enrolled()).toEqual([left.name])
    expect(await outside.call('connect', { to: left.v4, port: 8081 })).toEqual({ error: 'ECONNREFUSED' })
    const captured = await node.capture(left)
    const before = node.redirect.counters()['dropped.plaintext_refused']!
    expect(await outside.call('connect', { to: left.v4, port: 8081 })).toEqual({ error: 'ECONNREFUSED' })
    expect(node.redirect.counters()['dropped.plaintext_refused']! - before).toBe(1)
    node.redirect.setPlaintext(left.name, 'judge')
    await outside.must('connect', { to: left.v4, port: 8081 })
    await captured.plaintext.next()
    await node.die()
    await node.restart()
    // Never enrolled by this agent, released all the same.
    await node.redirect.unenroll(left.name)
    expect(node.redirect.enrolled()).toEqual([])
    await outside.must('connect', { to: left.v4, port: 8081 })
    await node.close()
  })

  it('is succeeded on another cgroup, as after the container runtime made the node’s anew', async () => {
    const node = await TestNode.open()
    const left = node.world.pod()
    const parent = node.world.cgroup.replace(/\/node$/, '')
    await node.capture(left)
    await node.die()
    node.redirect = await openRedirect({ ...node.options, cgroup: parent })
    const captured = await node.capture(left)
    const inside = node.world.sockets(left, node.world.outside.cgroup)
    // This cgroup is below the new one only.
    await inside.must('connect', { to: '10.96.0.7', port: 80 })
    expect((await captured.outbound.next()).original).toEqual({ address: '10.96.0.7', port: 80 })
    await node.close()
  })

  it('is not succeeded by one whose tables have another shape', async () => {
    const node = await TestNode.open()
    const left = node.world.pod()
    await node.capture(left)
    await node.die()
    rmSync(`${node.world.pinRoot}/ambit_pods`)
    const other = createMap('hash', { name: 'ambit_pods', key: codec.u32, value: codec.u32, maxEntries: 8 })
    other.pin(`${node.world.pinRoot}/ambit_pods`)
    other.close()
    await expect(node.restart()).rejects.toMatchObject({
      code: 'REDIRECT_PIN_MISMATCH',
      hint: expect.stringContaining(node.world.pinRoot) as string,
    })
    // What was there still is, and closed.
    const inside = node.world.sockets(left)
    expect(await inside.call('connect', { to: node.world.outside.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    await node.world.close()
  })

  it('may be uninstalled: every pin goes and traffic is plain', async () => {
    const node = await TestNode.open()
    const left = node.world.pod()
    await node.capture(left)
    const outside = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    const inside = node.world.sockets(left)
    await outside.must('listen', { source: 8082 })
    expect(existsSync(node.world.pinRoot)).toBe(true)
    await node.redirect.uninstall()
    expect(existsSync(node.world.pinRoot)).toBe(false)
    await inside.must('connect', { to: node.world.outside.v4, port: 8082 })
    await node.close()
  })
})

describe('enrolment in the kernel', () => {
  let node: TestNode

  beforeEach(async () => {
    node = await TestNode.open()
  })
  afterEach(() => node.close())

  it('is idempotent for a uid and its namespace', async () => {
    const pod = node.world.pod()
    const handle = { uid: pod.name, netns: pod.netns, addresses: [pod.v4] }
    const first = await node.redirect.enroll(handle)
    expect(await node.redirect.enroll({ ...handle, addresses: [pod.v4, pod.v6] })).toEqual(first)
  })

  it('follows a pod to a new namespace', async () => {
    const old = node.world.pod()
    const renewed = node.world.pod()
    await node.redirect.enroll({ uid: 'one', netns: old.netns, addresses: [old.v4] })
    const listeners = await node.redirect.enroll({ uid: 'one', netns: renewed.netns, addresses: [renewed.v4] })
    expect(node.redirect.enrolled()).toEqual(['one'])
    expect(listeners.outbound).toBeGreaterThan(0)
    const caller = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    const app = node.world.sockets(old)
    await app.must('listen', { source: 8083 })
    await caller.must('connect', { to: old.v4, port: 8083 })
  })

  it('refuses the node’s own namespace, a namespace twice, what is no namespace and an impossible uid', async () => {
    const pod = node.world.pod()
    await node.redirect.enroll({ uid: 'one', netns: pod.netns, addresses: [pod.v4] })
    const refused = (uid: string, netns: string, addresses: string[] = []) =>
      node.redirect.enroll({ uid, netns, addresses })
    await expect(refused('host', '/proc/self/ns/net')).rejects.toMatchObject({ code: 'REDIRECT_HOST_NAMESPACE' })
    await expect(refused('two', pod.netns)).rejects.toMatchObject({ code: 'REDIRECT_NAMESPACE_TAKEN' })
    await expect(refused('gone', '/run/netns/no-such')).rejects.toMatchObject({ code: 'REDIRECT_NO_NAMESPACE' })
    await expect(refused('file', '/etc/hostname')).rejects.toMatchObject({ code: 'REDIRECT_ENROLL_FAILED' })
    await expect(refused('a/b', pod.netns)).rejects.toMatchObject({ code: 'REDIRECT_BAD_UID' })
    await expect(refused('odd', node.world.pod().netns, ['pod.local'])).rejects.toMatchObject({
      code: 'REDIRECT_BAD_ADDRESS',
    })
    expect(node.redirect.enrolled()).toEqual(['one'])
    expect(() => node.redirect.socket('two', { family: 4 })).toThrow(/not enrolled/)
  })

  it('survives pods whose namespace is gone', async () => {
    const pod = node.world.pod()
    await node.redirect.enroll({ uid: 'short', netns: pod.netns, addresses: [pod.v4] })
    await node.die()
    const { ip } = await import('../world/netns.ts')
    ip('netns', 'del', pod.name)
    // What holds the namespace are the listeners; the kernel takes them down a moment after the last descriptor.
    await expect
      .poll(async () => {
        await node.die()
        await node.restart()
        return node.redirect.enrolled()
      })
      .toEqual([])
  })

  it('releases a pod whose namespace vanished under it', async () => {
    const pod = node.world.pod()
    await node.redirect.enroll({ uid: 'gone', netns: pod.netns, addresses: [pod.v4] })
    const { ip } = await import('../world/netns.ts')
    ip('netns', 'del', pod.name)
    await node.redirect.unenroll('gone')
    expect(node.redirect.enrolled()).toEqual([])
  })

  it('names a missing feature and the fix', async () => {
    const features = { 'program:sk_lookup': false }
    await expect(openRedirect({ ...node.options, features })).rejects.toMatchObject({
      code: 'REDIRECT_FEATURE_MISSING',
      message: expect.stringContaining('program:sk_lookup') as string,
      hint: expect.stringContaining('Linux 5.15') as string,
    })
  })

  it('says so when the kernel lets it load nothing at all', async () => {
    const features = Object.fromEntries(Object.keys(node.redirect.features).map((name) => [name, false]))
    await expect(openRedirect({ ...node.options, features })).rejects.toMatchObject({
      code: 'REDIRECT_NOT_PERMITTED',
      hint: expect.stringContaining('CAP_BPF') as string,
    })
  })

  it('refuses an agent whose own cgroup is not below the node’s', async () => {
    const elsewhere = node.world.pod().cgroup
    await expect(openRedirect({ ...node.options, cgroup: elsewhere })).rejects.toMatchObject({
      code: 'REDIRECT_AGENT_OUTSIDE',
    })
  })

  it('refuses a folder that is no cgroup and pins off the bpffs', async () => {
    await expect(openRedirect({ ...node.options, cgroup: '/tmp' })).rejects.toMatchObject({
      code: 'REDIRECT_NO_CGROUP',
    })
    await expect(openRedirect({ ...node.options, pinRoot: '/tmp/ambit-no-bpffs' })).rejects.toMatchObject({
      code: 'REDIRECT_NO_BPFFS',
    })
  })
})

function pinnedLinks(world: World): { name: string; id: number; programId: number }[] {
  const links: { name: string; id: number; programId: number }[] = []
  for (const folder of ['links', 'pods']) {
    for (const name of readdirSync(`${world.pinRoot}/${folder}`).sort()) {
      using link = openPinnedLink(`${world.pinRoot}/${folder}/${name}`)
      const { id, programId } = link.info()
      links.push({ name, id, programId })
    }
  }
  return links
}
