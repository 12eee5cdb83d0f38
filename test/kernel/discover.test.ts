// Pods found by real processes in real cgroups and network namespaces.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { discoverPods, type SoughtPod } from '../../agent/node/enroll/discover.ts'
import { netnsIdOf } from '../../agent/node/enroll/registry.ts'
import { World, type Pod } from '../world/netns.ts'

const uids = ['2a3b4c5d-0001-4abc-8def-0123456789ab', '2a3b4c5d-0002-4abc-8def-0123456789ab'] as const
const container = 'c0ffee00'.repeat(8)

describe('pods that ran before the agent', () => {
  let world: World
  let pod: Pod
  const processes: ChildProcess[] = []
  beforeEach(() => {
    world = new World()
    pod = world.pod()
  })
  afterEach(async () => {
    for (const child of processes.splice(0)) child.kill('SIGKILL')
    await world.close()
  })

  /** A folder below the node's cgroup. */
  function cgroup(path: string): string {
    const folder = `${world.cgroup}/${path}`
    mkdirSync(folder, { recursive: true })
    return folder
  }
  /** A process in a cgroup, begun after all before; `within` a command that puts it into a namespace. */
  async function run(folder: string, ...within: string[]): Promise<number> {
    const script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
    const child = spawn('sh', ['-c', script, 'sh', folder, ...within, 'sleep', '600'], { stdio: 'ignore' })
    processes.push(child)
    const end = performance.now() + 10_000
    while (readFileSync(`/proc/${child.pid}/comm`, 'utf8') !== 'sleep\n') {
      if (performance.now() > end) throw new Error('the process never began')
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    // Starts are told apart by ticks of ten milliseconds.
    await new Promise((resolve) => setTimeout(resolve, 25))
    return child.pid!
  }
  const enter = (of: Pod): string[] => ['nsenter', `--net=${of.netns}`]
  const sought = (change: Partial<SoughtPod> = {}): SoughtPod => ({ uid: uids[0], addresses: [pod.v4], ...change })
  const systemd = (uid: string): string =>
    `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll('-', '_')}.slice/cri-containerd-${container}.scope`

  it.each([
    ['cgroupfs', `kubepods/burstable/pod${uids[0]}/${container}`],
    ['systemd', systemd(uids[0])],
  ])('are found by their uid (%s driver)', async (_, path) => {
    const folder = cgroup(path)
    const pid = await run(folder, ...enter(pod))
    await run(folder, ...enter(pod))
    const { found, unclear } = await discoverPods([sought(), sought({ uid: uids[1] })])
    expect([...found]).toEqual([[uids[0], { netns: pod.netns, netnsId: netnsIdOf(pod.netns), pid, processes: 2 }]])
    expect(unclear.size).toBe(0)
  })

  it('are found by a container where cgroups have no uid', async () => {
    const pid = await run(cgroup(`k8s.io/${container}`), ...enter(pod))
    expect((await discoverPods([sought()])).found.size).toBe(0)
    const { found } = await discoverPods([sought({ containers: [container] })])
    expect(found.get(uids[0])).toMatchObject({ pid, processes: 1 })
  })

  it('have the path of their oldest process where the runtime keeps none', async () => {
    const folder = cgroup(`kubepods/pod${uids[0]}/${container}`)
    const pid = await run(folder, ...enter(pod))
    const { found } = await discoverPods([sought()], { netnsFolders: ['/nowhere'] })
    expect(found.get(uids[0])?.netns).toBe(`/proc/${pid}/ns/net`)
    expect(netnsIdOf(`/proc/${pid}/ns/net`)).toBe(netnsIdOf(pod.netns))
  })

  it('are not where something serves them from outside', async () => {
    const folder = cgroup(`kubepods/pod${uids[0]}/${container}`)
    await run(folder)
    expect(await discoverPods([sought()])).toEqual({ found: new Map(), unclear: new Map() })
    const pid = await run(folder, ...enter(pod))
    expect((await discoverPods([sought()])).found.get(uids[0])).toMatchObject({ pid, processes: 1 })
  })

  it('are not the namespaces nested in them', async () => {
    const folder = cgroup(`kubepods/pod${uids[0]}/${container}`)
    const pid = await run(folder, ...enter(pod))
    const nested = await run(folder, 'unshare', '--net')
    const { found } = await discoverPods([sought()])
    expect(found.get(uids[0])).toMatchObject({ pid, processes: 1 })
    // With the pod's own address in it, it is still the younger.
    execFileSync('nsenter', [`--net=/proc/${nested}/ns/net`, 'ip', 'addr', 'add', `${pod.v4}/32`, 'dev', 'lo'])
    execFileSync('nsenter', [`--net=/proc/${nested}/ns/net`, 'ip', 'link', 'set', 'lo', 'up'])
    expect((await discoverPods([sought()])).found.get(uids[0])).toMatchObject({ pid })
    // Without an address nobody can tell.
    const { unclear } = await discoverPods([sought({ addresses: [] })])
    expect(unclear.get(uids[0])).toContain('2 network namespaces')
  })

  it('are not where their address is not, of either family', async () => {
    await run(cgroup(`kubepods/pod${uids[0]}/${container}`), ...enter(pod))
    expect((await discoverPods([sought({ addresses: ['10.9.9.9'] })])).unclear.get(uids[0])).toContain('10.9.9.9')
    for (const addresses of [[pod.v6], ['10.9.9.9', pod.v4], []]) {
      expect((await discoverPods([sought({ addresses })])).found.size).toBe(1)
    }
  })

  it('are not who only says so, from within another pod', async () => {
    const impostor = world.pod()
    // A container that may write cgroups makes one below its own, with the other's name.
    await run(cgroup(`kubepods/pod${uids[1]}/${container}/kubepods/pod${uids[0]}/x`), ...enter(impostor))
    const { found, unclear } = await discoverPods([sought({ addresses: [impostor.v4] })])
    expect([found.size, unclear.size]).toEqual([0, 0])
  })
})
