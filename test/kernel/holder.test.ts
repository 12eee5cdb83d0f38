// Agents that come and go on one node, with a real holder between them: who keeps the listeners, who may change the kernel's
// tables, what is left when all is uninstalled.
import { existsSync, readdirSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Stage } from '../../native/holder/test/holder.ts'
import { openRedirect, type RedirectOptions } from '../../agent/node/redirect/redirect.ts'
import { ip, type Pod, type Sockets } from '../world/netns.ts'
import { run } from '../world/sandbox.ts'
import { TestNode } from './node.ts'

let node: TestNode
let stage: Stage
let problems: string[]
let options: RedirectOptions
let pod: Pod
let app: Sockets
let caller: Sockets
/** The app's listening socket. */
let served: number

beforeEach(async () => {
  stage = new Stage('release')
  await stage.holder()
  node = await TestNode.open()
  await node.die()
  problems = []
  options = { ...node.options, holder: stage.path, onProblem: (problem) => problems.push(problem.message) }
  node.redirect = await openRedirect(options)
  pod = node.world.pod()
  app = node.world.sockets(pod)
  caller = node.world.sockets(node.world.outside, node.world.outside.cgroup)
  served = (await app.must('listen', { family: 6, bind: '::', source: 8080 })).socket!
})
afterEach(async () => {
  await node.close()
  stage.close()
})

const handle = () => ({ uid: pod.name, netns: pod.netns, addresses: [pod.v4, pod.v6] })
const kept = async () => (await stage.ask('list')).names

describe('listeners in a holder', () => {
  it('go on while there is no agent: who connects waits, and is served by the next', async () => {
    await node.capture(pod)
    await node.die()
    const there = node.world.outside
    const out4 = await app.must('connect', { to: '10.96.0.7', port: 80 })
    const out6 = await app.must('connect', { family: 6, to: 'fd00::7', port: 81 })
    const hbone = await caller.must('connect', { to: pod.v4, port: 15_008 })
    const plain = await caller.must('connect', { family: 6, to: pod.v6, port: 8080 })
    expect(await app.must('peer', { socket: out4.socket })).toEqual({ address: '10.96.0.7', port: 80 })

    node.redirect = await openRedirect(options)
    expect(node.redirect.enrolled()).toEqual([pod.name])
    const captured = await node.capture(pod)
    const originals = [(await captured.outbound.next()).original, (await captured.outbound.next()).original]
    expect(originals).toEqual([
      { address: '10.96.0.7', port: 80 },
      { address: 'fd00::7', port: 81 },
    ])
    const tunnel = await captured.hbone.next()
    expect(tunnel.info.peer.address).toBe(there.v4)
    const judged = await captured.plaintext.next()
    expect(judged.info.local).toEqual({ address: pod.v6, port: 8080 })
    judged.connection.write(Buffer.from('late'))
    expect((await caller.must('receive', { socket: plain.socket })).data).toBe('late')
    tunnel.connection.write(Buffer.from('late'))
    expect((await caller.must('receive', { socket: hbone.socket })).data).toBe('late')
    expect(out6.socket).toBeDefined()
    expect(problems).toEqual([])
  })

  it('are the same sockets for agent after agent', async () => {
    const names = async () => {
      await node.capture(pod)
      await node.die()
      node.redirect = await openRedirect(options)
    }
    await names()
    const [first] = (await kept())!
    await names()
    expect(await kept()).toEqual([first])
    expect(first).toMatch(/^v2\/\d+$/)
  })

  it('go with their pod', async () => {
    await node.capture(pod)
    expect(await kept()).toHaveLength(1)
    await node.redirect.unenroll(pod.name)
    expect(await kept()).toEqual([])
    await caller.must('connect', { to: pod.v4, port: 8080 })
  })

  it('go with their pod also when that ended while no agent was there', async () => {
    const other = node.world.pod()
    await node.capture(pod)
    await node.redirect.enroll({ uid: other.name, netns: other.netns, addresses: [other.v4] })
    await node.die()
    ip('netns', 'del', other.name)
    node.redirect = await openRedirect(options)
    await node.capture(pod)
    // As the driver does for a registered pod whose namespace is gone.
    expect(node.redirect.enrolled()).toContain(other.name)
    await node.redirect.unenroll(other.name)
    expect(await kept()).toHaveLength(1)
    expect(node.redirect.enrolled()).toEqual([pod.name])
  })

  it('are put there again when the holder has lost them', async () => {
    await node.capture(pod)
    const [before] = (await kept())!
    stage.killHolders()
    await stage.holder()
    expect(await kept()).toEqual([])
    await expect.poll(kept, { timeout: 15_000 }).toEqual([before])
  })

  it('are not taken from a holder that gives others: those of another namespace, or too few', async () => {
    await node.capture(pod)
    const [name] = (await kept())!
    await node.die()
    await stage.put(name!, 3)
    node.redirect = await openRedirect(options)
    const captured = await node.capture(pod)
    await app.must('connect', { to: '10.96.0.7', port: 80 })
    expect((await captured.outbound.next()).original?.port).toBe(80)
    await node.die()
    await stage.put(name!, 2)
    node.redirect = await openRedirect(options)
    const again = await node.capture(pod)
    await app.must('connect', { to: '10.96.0.7', port: 81 })
    expect((await again.outbound.next()).original?.port).toBe(81)
  })

  it('are not needed: without a holder pods are captured all the same, and it is said once', async () => {
    await node.die()
    stage.killHolders()
    const other = node.world.pod()
    node.redirect = await openRedirect(options)
    const captured = await node.capture(pod)
    await node.redirect.enroll({ uid: other.name, netns: other.netns, addresses: [other.v4] })
    await app.must('connect', { to: '10.96.0.7', port: 80 })
    expect((await captured.outbound.next()).original?.port).toBe(80)
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(stage.path)
  })
})

describe('two agents beside each other', () => {
  it('serve the same listeners; the newer alone changes the kernel, and the end of the older changes nothing', async () => {
    const first = node.redirect
    const before = await node.capture(pod)
    const second = await openRedirect(options)
    expect([first.leads(), second.leads()]).toEqual([false, true])
    node.redirect = second
    const after = await node.capture(pod)

    // The older one goes on with what it has …
    await app.must('connect', { to: '10.96.0.7', port: 80 })
    await expect.poll(() => before.outbound.length + after.outbound.length).toBe(1)
    const [accepted] = [before, after].filter(({ outbound }) => outbound.length > 0)
    expect((await accepted!.outbound.next()).original).toEqual({ address: '10.96.0.7', port: 80 })
    // … but changes nothing.
    await expect(first.enroll(handle())).rejects.toMatchObject({ code: 'REDIRECT_SUPERSEDED' })
    await expect(first.unenroll(pod.name)).rejects.toMatchObject({ code: 'REDIRECT_SUPERSEDED' })
    first.setPlaintext(pod.name, 'refuse')
    await caller.must('connect', { to: pod.v4, port: 8080 })
    await expect.poll(() => before.plaintext.length + after.plaintext.length).toBe(1)
    first.tables.setSettings({ synced: true, passUnknown: true })
    expect(await first.judgeOpen(pod.name, () => false)).toBeUndefined()
    await first.tables.setAddresses([{ address: '192.0.2.1', class: 'plain' }])
    expect(second.tables.sizes()['addresses']).toBe(0)

    await node.stopListening(before)
    first.close()
    expect(await kept()).toHaveLength(1)
    await app.must('connect', { to: '10.96.0.7', port: 81 })
    expect((await after.outbound.next()).original?.port).toBe(81)
    expect(second.leads()).toBe(true)
    second.setPlaintext(pod.name, 'refuse')
    expect(await caller.call('connect', { to: pod.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
  })
})

describe('uninstalling', () => {
  /** Runs `ambit agent --uninstall`; what it logged last. */
  async function command(...args: string[]): Promise<{ code: number; last: Record<string, unknown> }> {
    const ambit = new URL('../../agent/bin/ambit', import.meta.url).pathname
    const { code, out } = await run([ambit, 'agent', '--uninstall', ...args])
    return { code, last: JSON.parse(out.trim().split('\n').at(-1)!) as Record<string, unknown> }
  }

  /** Nothing of this world is attached or pinned, and its pods reach each other and are reached as if there were no mesh. */
  async function isPlain(): Promise<void> {
    expect(readdirSync('/sys/fs/bpf').filter((name) => name.startsWith(node.world.id))).toEqual([])
    expect((await kept())!).toEqual([])
    const { socket } = await caller.must('listen', { source: 0 })
    const { port } = await caller.must('name', { socket })
    await app.must('connect', { to: node.world.outside.v4, port })
    expect((await caller.must('accept', { socket })).address).toBe(pod.v4)
    await caller.must('connect', { to: pod.v4, port: 8080 })
    expect((await app.must('accept', { socket: served })).address).toBe(`::ffff:${node.world.outside.v4}`)
  }

  it('removes pins, links and kept listeners by the agent itself', async () => {
    await node.capture(pod)
    expect(existsSync(node.world.bpffs)).toBe(true)
    await node.redirect.uninstall()
    await isPlain()
  })

  it('removes them by a command, when the agent is dead', async () => {
    await node.capture(pod)
    node.redirect.setPlaintext(pod.name, 'refuse')
    await node.die()
    expect(await caller.call('connect', { to: pod.v4, port: 8080 })).toEqual({ error: 'ECONNREFUSED' })
    const { code, last } = await command('--pin-root', node.world.bpffs, '--holder', stage.path)
    expect({ code, last }).toMatchObject({ code: 0, last: { schemas: [2], pods: 1, kept: 1 } })
    await isPlain()
    // Again, where nothing is left.
    expect(await command('--pin-root', node.world.bpffs, '--holder', stage.path)).toMatchObject({ code: 0 })
  })

  it('is not undone by an agent that still runs, and refuses nobody meanwhile', async () => {
    await node.capture(pod)
    // A server that takes who comes: after the uninstalling it is reached.
    const server = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    const { socket } = await server.must('listen', { source: 0 })
    const { port } = await server.must('name', { socket })
    const other = node.world.sockets(pod)
    let going = true
    const failed: (string | undefined)[] = []
    let reached = 0
    const serving = (async () => {
      while (going) {
        const taken = await server.call('accept', { socket })
        if (taken.error !== undefined) continue
        reached++
        await server.must('close', { socket: taken.socket })
      }
    })()
    const traffic = (async () => {
      while (going) {
        const { error, socket: made } = await other.call('connect', { to: node.world.outside.v4, port })
        if (error === undefined) await other.must('close', { socket: made })
        else failed.push(error)
      }
    })()
    expect(await command('--pin-root', node.world.bpffs, '--holder', stage.path)).toMatchObject({ code: 0 })
    expect(node.redirect.leads()).toBe(false)
    await expect(node.redirect.enroll(handle())).rejects.toMatchObject({ code: 'REDIRECT_SUPERSEDED' })
    expect(node.redirect.checkNode()).toBe('succeeded')
    await expect.poll(() => reached, { timeout: 10_000 }).toBeGreaterThan(10)
    going = false
    await traffic
    expect(failed).toEqual([])
    await serving
    await node.die()
    await isPlain()
  })

  it('removes nothing that is no pin folder', async () => {
    expect(await command('--pin-root', stage.folder)).toMatchObject({ code: 1, last: { code: 'REDIRECT_NO_BPFFS' } })
    expect(existsSync(stage.path)).toBe(true)
  })
})

describe('secrets in a holder', () => {
  it('are found by the next agent, replaced and dropped, and are no part of any file system', async () => {
    const { vault } = node.redirect
    expect(await vault.load()).toBeUndefined()
    await vault.save(Buffer.from('first'))
    await vault.save(Buffer.from('second'))
    expect(await kept()).toEqual(['keys'])
    await node.die()
    node.redirect = await openRedirect(options)
    expect((await node.redirect.vault.load())?.toString()).toBe('second')
    const big = Buffer.alloc(16 * 1024 * 1024, 'x')
    await node.redirect.vault.save(big)
    expect((await node.redirect.vault.load())?.equals(big)).toBe(true)
    await node.redirect.vault.save(undefined)
    expect(await node.redirect.vault.load()).toBeUndefined()
    expect(await kept()).toEqual([])
    expect(problems).toEqual([])
  })

  it('are put again when the holder was started anew, and left alone by an agent that does not lead any more', async () => {
    await node.redirect.vault.save(Buffer.from('mine'))
    stage.killHolders()
    await stage.holder()
    expect(await kept()).toEqual([])
    await expect.poll(kept, { timeout: 10_000 }).toEqual(['keys'])
    const old = node.redirect
    const next = await openRedirect(options)
    await next.vault.save(Buffer.from('of the next'))
    await old.vault.save(Buffer.from('late'))
    old.close()
    node.redirect = next
    expect((await next.vault.load())?.toString()).toBe('of the next')
  })

  it('go with everything else when it is uninstalled', async () => {
    await node.redirect.vault.save(Buffer.from('mine'))
    await node.redirect.uninstall()
    expect(await kept()).toEqual([])
  })

  it('are not read from what is no sealed memory', async () => {
    await stage.put('keys')
    expect(await node.redirect.vault.load()).toBeUndefined()
  })
})
