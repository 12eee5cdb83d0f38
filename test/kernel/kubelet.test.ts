// Probes of the kubelet into a pod that refuses plaintext: exactly its connections pass, whoever else is on the node. The
// kubelet is a process of that name in a cgroup of its own, in the namespace that stands for the node.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openPinnedLink } from '../../native/bpf/index.ts'
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import type { KubeletOptions } from '../../agent/node/redirect/kubelet.ts'
import { Sockets, type Pod } from '../world/netns.ts'
import { TestNode, type Captured } from './node.ts'

const driver = new URL('../world/sockets.py', import.meta.url).pathname

describe('the kubelet of a node', () => {
  let node: TestNode
  let pod: Pod
  let app: Sockets
  let captured: Captured
  let server: number
  let others: Sockets
  let cgroup: string
  let program: string

  /** A socket driver under the name and in the cgroup of a kubelet, on the node. */
  function startKubelet(at = cgroup): Sockets {
    mkdirSync(at, { recursive: true })
    const script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
    const inside = ['nsenter', `--net=${node.world.outside.netns}`, program, driver]
    const kubelet = new Sockets('sh', ['-c', script, 'sh', at, ...inside])
    node.world.onClose(() => kubelet.kill())
    return kubelet
  }

  /** The agent starts anew, told of the kubelet like this. */
  async function restart(kubelet: KubeletOptions | false): Promise<void> {
    await node.die()
    node.redirect = await openRedirect({ ...node.options, kubelet })
    captured = await node.capture(pod)
    node.redirect.setPlaintext(pod.name, 'refuse')
  }

  const byName = (): KubeletOptions => ({ netns: node.world.outside.netns })
  const probe = async (who: Sockets, family: 4 | 6 = 4): Promise<string> => {
    const made = await who.call('connect', { family, to: family === 4 ? pod.v4 : pod.v6, port: 8080 })
    if (made.error !== undefined) return made.error
    const { address } = await app.must('accept', { socket: server })
    await who.must('close', { socket: made.socket })
    return address ?? ''
  }
  const mapped = (pod: Pod): string => `::ffff:${pod.v4}`

  beforeEach(async () => {
    node = await TestNode.open()
    pod = node.world.pod()
    app = node.world.sockets(pod)
    server = (await app.must('listen', { family: 6, bind: '::', source: 8080 })).socket!
    others = node.world.sockets(node.world.outside, node.world.outside.cgroup)
    cgroup = node.world.outside.cgroup.replace(/outside$/, 'kubelet.service')
    // The name of a process is that of the file it was started from.
    const folder = `/tmp/${node.world.id}`
    mkdirSync(folder, { recursive: true })
    program = `${folder}/kubelet`
    const python = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' })
    symlinkSync(python.trim(), program)
    node.world.onClose(() => execFileSync('rm', ['-r', folder]))
  })
  afterEach(() => node.close())

  it('may probe a pod that refuses plaintext, over both families, and no other process of the node may', async () => {
    const kubelet = startKubelet()
    await kubelet.must('listen', { source: 1 })
    await restart(byName())
    expect(node.redirect.kubelet).toMatchObject({ state: 'exempt', cgroup })
    const before = node.redirect.counters()
    expect(await probe(kubelet)).toBe(mapped(node.world.outside))
    expect(await probe(kubelet, 6)).toBe(node.world.outside.v6)
    expect(await probe(others)).toBe('ECONNREFUSED')
    expect(await probe(others, 6)).toBe('ECONNREFUSED')
    const after = node.redirect.counters()
    expect(after['passed.probe']! - before['passed.probe']!).toBe(2)
    expect(after['dropped.plaintext_refused']! - before['dropped.plaintext_refused']!).toBe(2)
    expect(captured.plaintext.length).toBe(0)
  })

  it('leaves no flow behind, also where nobody listens', async () => {
    const kubelet = startKubelet()
    await restart({ cgroup })
    expect(await kubelet.call('connect', { to: pod.v4, port: 8081 })).toEqual({ error: 'ECONNREFUSED' })
    const { socket } = await kubelet.must('connect', { to: pod.v4, port: 8080 })
    await app.must('accept', { socket: server })
    await kubelet.must('close', { socket })
    const { codec, openPinnedMap } = await import('../../native/bpf/index.ts')
    const flows = openPinnedMap(`${node.world.pinRoot}/ambit_flows`, codec.bytes(48), codec.bytes(48))
    await expect.poll(() => [...flows.keys()].length).toBe(0)
    flows.close()
  })

  it('reaches the app where the pod judges plaintext, and others reach the agent', async () => {
    const kubelet = startKubelet()
    await kubelet.must('listen', { source: 1 })
    await restart(byName())
    node.redirect.setPlaintext(pod.name, 'judge')
    expect(await probe(kubelet)).toBe(mapped(node.world.outside))
    await others.must('connect', { to: pod.v4, port: 8080 })
    expect((await captured.plaintext.next()).info.peer.address).toBe(node.world.outside.v4)
  })

  it('is followed when it is started again, also in another cgroup', async () => {
    const first = startKubelet()
    await first.must('listen', { source: 1 })
    await restart(byName())
    expect(await probe(first)).not.toBe('ECONNREFUSED')
    first.kill()
    await new Promise((resolve) => first.process.once('exit', resolve))
    expect(node.redirect.checkNode()).toEqual([])
    expect(node.redirect.kubelet).toMatchObject({ state: 'missing' })
    const again = startKubelet(`${cgroup}-2`)
    await again.must('listen', { source: 1 })
    expect(await probe(again)).toBe('ECONNREFUSED')
    expect(node.redirect.checkNode()).toEqual([])
    expect(node.redirect.kubelet).toMatchObject({ state: 'exempt', cgroup: `${cgroup}-2` })
    expect(await probe(again)).not.toBe('ECONNREFUSED')
  })

  it('gets its program back when somebody detaches it', async () => {
    const kubelet = startKubelet()
    await kubelet.must('listen', { source: 1 })
    await restart(byName())
    const link = openPinnedLink(`${node.world.pinRoot}/links/ambit_kubelet`)
    link.detach()
    link.close()
    expect(await probe(kubelet)).toBe('ECONNREFUSED')
    expect(node.redirect.checkNode()).toEqual(['kubelet_link'])
    expect(await probe(kubelet)).not.toBe('ECONNREFUSED')
  })

  it('keeps its way while the agent is away, and the next agent adopts it', async () => {
    const kubelet = startKubelet()
    await kubelet.must('listen', { source: 1 })
    await restart(byName())
    const link = openPinnedLink(`${node.world.pinRoot}/links/ambit_kubelet`)
    const { id } = link.info()
    await node.die()
    expect(await probe(kubelet)).not.toBe('ECONNREFUSED')
    await restart(byName())
    expect(openPinnedLink(`${node.world.pinRoot}/links/ambit_kubelet`).info().id).toBe(id)
    expect(await probe(kubelet)).not.toBe('ECONNREFUSED')
    link.close()
  })

  it('is nobody where it shares its cgroup: all are judged, and who shares it is said', async () => {
    const kubelet = startKubelet(node.world.outside.cgroup)
    await kubelet.must('listen', { source: 1 })
    await restart({ pid: kubelet.process.pid! })
    expect(node.redirect.kubelet).toMatchObject({
      state: 'shared',
      detail: expect.stringMatching(/^Process \d+ shares it with python3[^ ]* \(\d+\)\.$/) as string,
    })
    expect(await probe(kubelet)).toBe('ECONNREFUSED')
    // Once the stranger is elsewhere it is alone.
    const { pid } = others.process
    writeFileSync(`${cgroup.replace(/kubelet.service$/, '')}/cgroup.procs`, String(pid))
    expect(node.redirect.checkNode()).toEqual([])
    expect(node.redirect.kubelet.state).toBe('exempt')
    expect(await probe(kubelet)).not.toBe('ECONNREFUSED')
  })

  it('is no process of a pod, whatever its name, and none of two', async () => {
    const pretender = startKubelet(pod.cgroup)
    await pretender.must('listen', { source: 1 })
    await restart(byName())
    expect(node.redirect.kubelet.state).toBe('missing')
    expect(await probe(pretender)).toBe('ECONNREFUSED')
    const [one, two] = [startKubelet(), startKubelet(`${cgroup}-2`)]
    for (const each of [one, two]) await each.must('listen', {})
    await restart(byName())
    expect(node.redirect.kubelet).toMatchObject({
      state: 'shared',
      detail: expect.stringContaining('--kubelet-pid') as string,
    })
    expect(await probe(one)).toBe('ECONNREFUSED')
    await restart({ pid: two.process.pid! })
    expect(await probe(two)).not.toBe('ECONNREFUSED')
    expect(await probe(one)).toBe('ECONNREFUSED')
  })

  it('is never the whole node: a cgroup that holds the pods is refused, and one that is none is heard of', async () => {
    await restart({ cgroup: node.world.cgroup.replace(/\/node$/, '') })
    expect(node.redirect.kubelet.state).toBe('shared')
    expect(await probe(others)).toBe('ECONNREFUSED')
    await node.die()
    const wrong = openRedirect({ ...node.options, kubelet: { cgroup: '/nonexistent' } })
    await expect(wrong).rejects.toMatchObject({ code: 'REDIRECT_NO_KUBELET' })
    await node.restart()
  })
})
