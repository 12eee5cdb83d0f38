import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { silentLog } from '../../base/log.ts'
import type { NodePod } from '../../mesh/pod.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { Enrollment, RegisteredPod } from './contract.ts'
import type { FoundPod } from './discover.ts'
import { startEnrollment } from './enrollment.ts'
import { Books, Folder, nodePodFor, shopMesh, workloadFor } from './testing.ts'

describe('enrolment', () => {
  let folder: Folder
  let books: Books
  let clock: ManualClock
  let mesh: MeshState | undefined
  let told: string[]
  /** onEnrolled fails so often. */
  let handoverFailures: number
  let running: Enrollment[]
  let leads: boolean
  let hears: boolean
  /** What a look at the node's processes finds, by uid. */
  let processes: Map<string, FoundPod>
  let looks: string[][]

  async function start(): Promise<Enrollment> {
    const enrollment = await startEnrollment({
      node: 'one',
      redirect: books,
      view: () => mesh,
      socketPath: join(folder.path, 'agent.sock'),
      stateDir: join(folder.path, 'state'),
      log: silentLog,
      clock,
      leads: () => leads,
      hearsOfPods: () => hears,
      discover: async (sought) => {
        looks.push(sought.map(({ uid }) => uid))
        return { found: new Map(processes), unclear: new Map() }
      },
      onEnrolled: (pod, listeners) => {
        told.push(`+${pod.name} ${listeners.outbound}`)
        if (handoverFailures-- > 0) throw new Error('no listener')
      },
      onUnenrolled: (pod) => void told.push(`-${pod.name}`),
    })
    running.push(enrollment)
    return enrollment
  }

  beforeEach(() => {
    folder = new Folder()
    books = new Books()
    clock = new ManualClock()
    mesh = shopMesh()
    told = []
    handoverFailures = 0
    running = []
    leads = true
    hears = false
    processes = new Map()
    looks = []
  })
  afterEach(async () => {
    for (const enrollment of running) await enrollment.close()
    folder.remove()
  })

  it('leaves all to the agent that has taken over', async () => {
    const enrollment = await start()
    const [pod, other] = [folder.pod('web'), folder.pod('other')]
    await enrollment.add(pod)
    leads = false
    const superseded = { code: 'ENROLL_SUPERSEDED' }
    await expect(enrollment.add(other)).rejects.toMatchObject(superseded)
    await expect(enrollment.del(pod.uid)).rejects.toMatchObject(superseded)
    // Neither what changes in the mesh nor what becomes of pods is its business any more.
    mesh = undefined
    rmSync(pod.netns)
    enrollment.changed()
    clock.advance(60_000)
    await enrollment.settled()
    expect(books.log).toEqual(['enroll uid-web'])
    // The registry on disk is the other's: nothing was written there.
    leads = true
    mesh = shopMesh()
    const next = await start()
    expect(next.list().map((status) => status.pod.name)).toEqual(['web'])
  })

  it('answers once the pod is captured and its owner has the listeners', async () => {
    const enrollment = await start()
    const pod = folder.pod('web')
    expect(await enrollment.add(pod)).toMatchObject({ pod, phase: 'captured' })
    expect(told).toEqual(['+web 1001'])
    expect(await enrollment.add(pod)).toMatchObject({ phase: 'captured' })
    expect(books.log).toEqual(['enroll uid-web'])
  })

  it('leaves a pod as it is when told of it again by another path to its namespace', async () => {
    const enrollment = await start()
    const pod = { ...folder.pod('web'), sandbox: 'c1' }
    await enrollment.add(pod)
    const other = join(folder.path, 'elsewhere')
    linkSync(pod.netns, other)
    const { sandbox: _, ...told } = { ...pod, netns: other }
    expect(await enrollment.add(told)).toMatchObject({ phase: 'captured', pod })
    expect(books.log).toEqual(['enroll uid-web'])
    // Also for the agent after this one.
    expect(JSON.parse(readFileSync(join(folder.path, 'state/pods.json'), 'utf8'))).toMatchObject({ pods: [pod] })
  })

  it('keeps the capture of a new sandbox when the former is cleaned up', async () => {
    const enrollment = await start()
    const [first, second] = [folder.pod('web'), { ...folder.pod('web-2'), uid: 'uid-web', name: 'web' }]
    await enrollment.add({ ...first, sandbox: 'c1' })
    await enrollment.add({ ...second, sandbox: 'c2' })
    expect(await enrollment.del('uid-web', 'c1')).toBe(false)
    expect(enrollment.status('uid-web')).toMatchObject({ phase: 'captured', pod: { netns: second.netns } })
    expect(books.inKernel.get('uid-web')).toMatchObject({ netns: second.netns })
    // What an earlier agent left in the kernel is not this sandbox's to release either.
    books.inKernel.set('uid-left', first)
    expect(await enrollment.del('uid-left', 'c1')).toBe(false)
    expect(books.inKernel.has('uid-left')).toBe(true)
  })

  it('answers for a pod that stays out without touching the kernel', async () => {
    const enrollment = await start()
    expect(await enrollment.add(folder.pod('web', { namespace: 'plain' }))).toMatchObject({ phase: 'out' })
    expect(books.log).toEqual([])
  })

  it('follows labels both ways without being told of pods again', async () => {
    const enrollment = await start()
    const pod = folder.pod('web')
    mesh!.setWorkload(workloadFor(pod, { tunnelProtocol: 'NONE' }))
    expect(await enrollment.add(pod)).toMatchObject({ phase: 'out' })
    for (const [tunnelProtocol, phase] of [
      ['HBONE', 'captured'],
      ['NONE', 'out'],
      ['HBONE', 'captured'],
    ] as const) {
      mesh!.setWorkload(workloadFor(pod, { tunnelProtocol }))
      enrollment.changed()
      await enrollment.settled()
      expect(enrollment.status(pod.uid)).toMatchObject({ phase })
    }
    expect(told).toEqual(['+web 1001', '-web', '+web 1001'])
  })

  it('refuses a pod while there is no state, and changes nothing', async () => {
    mesh = undefined
    const enrollment = await start()
    const pod = folder.pod('web')
    await expect(enrollment.add(pod)).rejects.toMatchObject({ code: 'ENROLL_NO_STATE' })
    expect(enrollment.list()).toEqual([])
    expect(await enrollment.add({ ...pod, namespace: 'kube-system' })).toMatchObject({ phase: 'out' })
  })

  it('brings registered pods back by itself after a restart', async () => {
    const first = await start()
    const pod = folder.pod('web')
    await first.add(pod)
    await first.close()
    told = []
    const second = await start()
    await second.settled()
    expect(told).toEqual(['+web 1001'])
    expect(second.list()).toMatchObject([{ pod, phase: 'captured' }])
  })

  it('forgets after a restart what is gone, and leaves closed what it was never told of', async () => {
    const first = await start()
    const pod = folder.pod('web')
    await first.add(pod)
    await first.close()
    rmSync(pod.netns)
    books.inKernel.set('stranger', { uid: 'stranger', netns: '/x', addresses: [] })
    const second = await start()
    await second.settled()
    expect(second.list()).toEqual([])
    expect(books.enrolled()).toEqual(['stranger'])
    expect(await second.del('stranger')).toBe(true)
    expect(books.enrolled()).toEqual([])
    expect(await second.del('stranger')).toBe(false)
  })

  it('says why a pod is not captured, and goes on trying with growing pauses', async () => {
    const enrollment = await start()
    books.failures = 3
    const pod = folder.pod('web')
    await expect(enrollment.add(pod)).rejects.toMatchObject({
      code: 'ENROLL_FAILED',
      message: expect.stringContaining('the kernel said no') as string,
    })
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'pending', reason: 'the kernel said no' })
    enrollment.changed()
    await enrollment.settled()
    // Somebody else's change does not hurry it.
    expect(books.log).toHaveLength(1)
    clock.advance(250)
    await enrollment.settled()
    expect(books.log).toHaveLength(2)
    clock.advance(200)
    await enrollment.settled()
    expect(books.log).toHaveLength(2)
    clock.advance(300)
    await enrollment.settled()
    clock.advance(1000)
    await enrollment.settled()
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'captured' })
  })

  it('hands over anew when the owner of the listeners failed', async () => {
    const enrollment = await start()
    handoverFailures = 1
    const pod = folder.pod('web')
    await expect(enrollment.add(pod)).rejects.toMatchObject({ code: 'ENROLL_FAILED' })
    clock.advance(250)
    await enrollment.settled()
    expect(told).toEqual(['+web 1001', '-web', '+web 1001'])
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'captured' })
  })

  it('one pod’s failure does not hold up another', async () => {
    const enrollment = await start()
    books.failures = 1
    const failing = enrollment.add(folder.pod('bad'))
    const fine = enrollment.add(folder.pod('good'))
    await expect(failing).rejects.toMatchObject({ code: 'ENROLL_FAILED' })
    expect(await fine).toMatchObject({ phase: 'captured' })
  })

  it('releases a removed pod, telling its owner first', async () => {
    const enrollment = await start()
    const pod = folder.pod('web')
    await enrollment.add(pod)
    expect(await enrollment.del(pod.uid)).toBe(true)
    expect(told).toEqual(['+web 1001', '-web'])
    expect(books.log).toEqual(['enroll uid-web', 'unenroll uid-web'])
    expect(enrollment.status(pod.uid)).toBeUndefined()
    expect(await enrollment.del(pod.uid)).toBe(false)
  })

  it('waits for the word of control about a new pod, which may say another thing than its namespace', async () => {
    hears = true
    const enrollment = await start()
    const [out, into] = [folder.pod('opts-out'), folder.pod('opts-in', { namespace: 'plain' })]
    const answers = Promise.all([enrollment.add(out), enrollment.add(into)])
    await enrollment.settled()
    expect(enrollment.list()).toEqual([])
    mesh?.setPod(nodePodFor(out, { enrolment: 'not_enrolled', addresses: [] }))
    mesh?.setPod(nodePodFor(into, { addresses: [] }))
    enrollment.changed()
    expect(await answers).toMatchObject([{ phase: 'out' }, { phase: 'captured' }])
    expect(books.log).toEqual(['enroll uid-opts-in'])
  })

  it('lets the namespace decide of a pod when no word comes in time, or control is away', async () => {
    hears = true
    const enrollment = await start()
    const answer = enrollment.add(folder.pod('web'))
    await enrollment.settled()
    expect(books.log).toEqual([])
    clock.advance(2_000)
    expect(await answer).toMatchObject({ phase: 'captured' })
    hears = false
    expect(await enrollment.add(folder.pod('other', { namespace: 'plain' }))).toMatchObject({ phase: 'out' })
  })

  it('captures and releases a running pod as its labels change', async () => {
    const enrollment = await start()
    const pod = folder.pod('web')
    const label = async (enrolment: NodePod['enrolment']): Promise<void> => {
      mesh?.setPod(nodePodFor(pod, { enrolment }))
      enrollment.changed()
      await enrollment.settled()
    }
    mesh?.setPod(nodePodFor(pod))
    await enrollment.add(pod)
    await label('not_enrolled')
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'out' })
    expect(books.enrolled()).toEqual([])
    await label('enrolled')
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'captured' })
    expect(told).toEqual(['+web 1001', '-web', '+web 1001'])
  })

  const foundAt = (pod: RegisteredPod): [string, FoundPod] => [
    pod.uid,
    { netns: pod.netns, netnsId: '', pid: 1, processes: 1 },
  ]

  it('finds pods that were there before it, and only looks for those that are to be captured', async () => {
    const pods = ['web', 'none', 'starting', 'known'].map((name) => folder.pod(name))
    const [web, none, starting, known] = pods as [RegisteredPod, RegisteredPod, RegisteredPod, RegisteredPod]
    processes = new Map(pods.map(foundAt))
    mesh?.setPod(nodePodFor(web))
    mesh?.setPod(nodePodFor(none, { enrolment: 'not_enrolled' }))
    mesh?.setPod(nodePodFor(starting, { addresses: [] }))
    const enrollment = await start()
    await enrollment.add(known)
    await enrollment.settled()
    expect(looks).toEqual([['uid-web']])
    expect(
      enrollment
        .list()
        .map(({ pod, phase }) => `${pod.name} ${phase}`)
        .toSorted(),
    ).toEqual(['known captured', 'web captured'])
    expect(enrollment.missing()).toEqual([])
    // Labelled later, as a whole namespace would be.
    mesh?.setPod(nodePodFor(none))
    enrollment.changed()
    await enrollment.settled()
    expect(enrollment.status(none.uid)).toMatchObject({ phase: 'captured' })
    expect(looks).toEqual([['uid-web'], ['uid-none']])
  })

  it('says which pods it cannot find, and looks for them with growing pauses', async () => {
    const pod = folder.pod('web')
    mesh?.setPod(nodePodFor(pod))
    const enrollment = await start()
    await enrollment.settled()
    enrollment.changed()
    await enrollment.settled()
    expect(looks).toHaveLength(1)
    expect(enrollment.missing()).toEqual([])
    clock.advance(10_000)
    await enrollment.settled()
    expect(looks).toHaveLength(2)
    expect(enrollment.missing()).toMatchObject([
      { name: 'web', reason: 'No process of it is to be seen on this node.' },
    ])
    processes = new Map([foundAt(pod)])
    clock.advance(10_000)
    await enrollment.settled()
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'captured' })
    expect(enrollment.missing()).toEqual([])
  })

  it('does not look for a pod that has just ended, until it is told of again', async () => {
    const enrollment = await start()
    const pods = [folder.pod('removed'), folder.pod('gone')] as const
    for (const pod of pods) {
      mesh?.setPod(nodePodFor(pod))
      await enrollment.add(pod)
    }
    await enrollment.del(pods[0].uid)
    rmSync(pods[1].netns)
    clock.advance(10_000)
    await enrollment.settled()
    expect(enrollment.list()).toEqual([])
    expect(looks).toEqual([])
    for (const pod of pods) mesh?.setPod(nodePodFor(pod))
    enrollment.changed()
    await enrollment.settled()
    expect(looks).toEqual([['uid-removed', 'uid-gone']])
  })

  it('keeps a pod captured that was deleted by force and still runs', async () => {
    const enrollment = await start()
    const pod = folder.pod('web', { namespace: 'plain' })
    mesh?.setPod(nodePodFor(pod))
    await enrollment.add(pod)
    mesh?.removePod(`one/${pod.uid}`)
    enrollment.changed()
    await enrollment.settled()
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'captured' })
    rmSync(pod.netns)
    clock.advance(10_000)
    await enrollment.settled()
    expect(books.enrolled()).toEqual([])
  })

  it('notices by itself that a namespace is gone', async () => {
    const enrollment = await start()
    const pod = folder.pod('web')
    await enrollment.add(pod)
    rmSync(pod.netns)
    clock.advance(10_000)
    await enrollment.settled()
    expect(enrollment.list()).toEqual([])
    expect(told).toEqual(['+web 1001', '-web'])
  })

  it('takes a pod that comes back in another namespace under the same path for what it is', async () => {
    const enrollment = await start()
    const pod = folder.pod('web')
    await enrollment.add(pod)
    rmSync(pod.netns)
    // Keeps the old inode from being given out again.
    writeFileSync(join(folder.path, 'filler'), '')
    writeFileSync(pod.netns, '')
    expect(await enrollment.add(pod)).toMatchObject({ phase: 'captured' })
    expect(told).toEqual(['+web 1001', '-web', '+web 1001'])
    expect(books.log).toEqual(['enroll uid-web', 'unenroll uid-web', 'enroll uid-web'])
  })

  it('gives up waiting after a while and stays registered', async () => {
    const enrollment = await start()
    // The kernel half hangs.
    books.enroll = () => new Promise(() => undefined)
    const pod = folder.pod('web')
    const added = enrollment.add(pod)
    const refused = expect(added).rejects.toMatchObject({ code: 'ENROLL_TIMEOUT' })
    await Promise.resolve()
    clock.advance(25_000)
    await refused
    expect(enrollment.status(pod.uid)).toMatchObject({ phase: 'pending' })
    running = []
  })
})
