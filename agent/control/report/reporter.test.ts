// Writing statuses to a server in trouble; how a healthy one takes them is tried in test/kube/control-plane/status.test.ts.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../../base/log.ts'
import type { Problem } from '../../config/problem.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import type { KubeObject } from '../../kube/resource.ts'
import { Player, refuse, reply, type Asked } from '../../kube/testing.ts'
import { Reporter } from './reporter.ts'
import { GivenLeadership, HeldObjects, snapshot } from './testing.ts'

const SERVICES = CONFIG_KINDS.find((one) => one.kind === 'VirtualService')!
const ROUTES = CONFIG_KINDS.find((one) => one.kind === 'HTTPRoute')!

const virtualService = (name: string, generation = 1, status?: unknown): KubeObject =>
  ({
    metadata: { namespace: 'shop', name, uid: `uid-${name}`, generation },
    spec: { hosts: [name] },
    ...(status === undefined ? {} : { status }),
  }) as KubeObject

const problem = (name: string): Problem => ({
  severity: 'error',
  code: 'CONFIG_UNKNOWN_HOST',
  file: '',
  line: 0,
  field: 'spec.hosts[0]',
  message: 'no.',
  hint: '',
  resource: { group: 'networking.istio.io', kind: 'VirtualService', namespace: 'shop', name },
})

let player: Player
let objects: HeldObjects
let leadership: GivenLeadership
let reporter: Reporter
beforeEach(async () => {
  player = await Player.start()
  // What is applied is held then, as the watch would tell.
  player.answer = (asked, to) => reply(to, take(asked))
  objects = new HeldObjects()
  leadership = new GivenLeadership()
  const waypoints = { facts: () => undefined, onChange: () => () => undefined }
  const { clock } = player
  reporter = new Reporter({ client: player.client(), objects, leadership, waypoints, clock, log: silentLog })
})
afterEach(async () => {
  reporter.stop()
  await player.stop()
})

const nameOf = ({ path }: Asked): string => path.split('/').at(-2) ?? ''

function take(asked: Asked): KubeObject {
  const { status } = JSON.parse(asked.body) as { status: unknown }
  const held = objects.get(SERVICES, 'shop', nameOf(asked)) as KubeObject
  const next = { ...held, status } as KubeObject
  objects.set(SERVICES, next)
  return next
}

const written = (count: number): Promise<void> => player.until(() => reporter.counts.written === count, 20)
const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20))

describe('writing statuses', () => {
  it('writes what changed, once, and nothing that stands there', async () => {
    objects.set(SERVICES, virtualService('a'))
    objects.set(SERVICES, virtualService('b'))
    reporter.start()
    reporter.take(snapshot(problem('b')))
    await player.until(() => player.asked.length === 2, 20)
    expect(player.asked.map(({ method, path, query }) => ({ method, path, query }))).toEqual(
      ['a', 'b'].map((name) => ({
        method: 'PATCH',
        path: `/apis/networking.istio.io/v1/namespaces/shop/virtualservices/${name}/status`,
        query: { fieldManager: 'ambit', force: 'true' },
      })),
    )
    reporter.take(snapshot(problem('b')))
    player.clock.advance(1_000)
    await pause()
    expect(player.asked).toHaveLength(2)
    reporter.take(snapshot())
    await player.until(() => player.asked.length === 3, 20)
    expect(nameOf(player.asked[2]!)).toBe('b')
  })

  it('says nothing of a generation that no snapshot was about', async () => {
    objects.set(SERVICES, virtualService('a'))
    reporter.start()
    reporter.take(snapshot())
    objects.set(SERVICES, virtualService('a', 2))
    objects.set(SERVICES, virtualService('new'))
    player.clock.advance(5_000)
    await pause()
    expect(player.asked).toEqual([])
    reporter.take(snapshot(problem('a')))
    await player.until(() => player.asked.length === 2, 20)
    expect(player.asked.map((one) => JSON.parse(one.body) as unknown)).toMatchObject([
      { status: { observedGeneration: 2, conditions: [{ status: 'False', observedGeneration: 2 }] } },
      { status: { observedGeneration: 1, conditions: [{ status: 'True' }] } },
    ])
  })

  it('writes only while it leads', async () => {
    leadership.leads = false
    objects.set(SERVICES, virtualService('a'))
    reporter.start()
    reporter.take(snapshot())
    player.clock.advance(1_000)
    await pause()
    expect(player.asked).toEqual([])
    leadership.leads = true
    await player.until(() => player.asked.length === 1, 20)
  })

  it('writes where the cluster serves the kind', async () => {
    objects.version = 'v1beta1'
    objects.set(SERVICES, virtualService('a'))
    reporter.start()
    reporter.take(snapshot())
    await player.until(() => player.asked.length === 1, 20)
    expect(player.asked[0]?.path).toMatch(/^\/apis\/networking\.istio\.io\/v1beta1\//)
    expect(JSON.parse(player.asked[0]!.body)).toMatchObject({ apiVersion: 'networking.istio.io/v1beta1' })
  })

  it('goes on with the others when one is refused, and comes back to it', async () => {
    let refused = 0
    player.answer = (asked, to) => {
      if (nameOf(asked) === 'a' && refused++ < 3) refuse(to, 422, 'not like that')
      else reply(to, take(asked))
    }
    for (const name of ['a', 'b', 'c']) objects.set(SERVICES, virtualService(name))
    reporter.start()
    reporter.take(snapshot())
    await written(3)
    expect(reporter.counts.failed).toBe(3)
    expect(player.asked.map(nameOf)).toEqual(['a', 'b', 'c', 'a', 'a', 'a'])
  })

  it('waits when the server has too much to do', async () => {
    let busy = true
    player.answer = (asked, to) => (busy ? refuse(to, 429, 'later') : reply(to, take(asked)))
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) objects.set(SERVICES, virtualService(name))
    reporter.start()
    reporter.take(snapshot())
    // The client asks five times for each of the four that are on their way; then all of them wait.
    await player.until(() => reporter.counts.failed >= 4, 100)
    busy = false
    await written(6)
  })

  it('gives way to somebody who writes against it, ever more', async () => {
    player.answer = (asked, to) => {
      reply(to, take(asked))
      // The other one is at once there.
      objects.set(SERVICES, virtualService(nameOf(asked), 1, { conditions: [] }))
    }
    objects.set(SERVICES, virtualService('a'))
    reporter.start()
    reporter.take(snapshot())
    const before = player.clock.monotonic()
    await player.until(() => player.clock.monotonic() - before > 300_000, 250)
    const writes = player.asked.filter((one) => one.method === 'PATCH').length
    expect(writes).toBeGreaterThan(5)
    expect(writes).toBeLessThan(40)
    // An edit is another matter.
    player.answer = (asked, to) => reply(to, take(asked))
    objects.set(SERVICES, virtualService('a', 2))
    reporter.take(snapshot())
    const { length } = player.asked
    player.clock.advance(20)
    await player.until(() => player.asked.length > length)
  })

  it('reads a status that others write into before it writes, and only onto what it read', async () => {
    const theirs = { type: 'Theirs', status: 'True', reason: 'R', message: '', lastTransitionTime: 'T' }
    const held = virtualService('a', 1, { conditions: [theirs] })
    let version = 1
    player.answer = (asked, to) => {
      if (asked.method === 'GET') reply(to, { ...held, metadata: { ...held.metadata, resourceVersion: `${version}` } })
      else if (version++ === 1) refuse(to, 409, 'changed')
      else reply(to, take(asked))
    }
    objects.set(SERVICES, held)
    reporter.start()
    reporter.take(snapshot())
    await written(1)
    expect(player.asked.map((one) => one.method)).toEqual(['GET', 'PUT', 'GET', 'PUT'])
    expect(JSON.parse(player.asked[3]!.body)).toMatchObject({
      metadata: { resourceVersion: '2' },
      status: { conditions: [theirs, { type: 'Reconciled', status: 'True' }] },
    })
  })

  it('has nothing to say of routes whose parents are others’', async () => {
    objects.set(ROUTES, {
      metadata: { namespace: 'shop', name: 'r', uid: 'u', generation: 1 },
      spec: { parentRefs: [{ name: 'nginx' }] },
    } as KubeObject)
    reporter.start()
    reporter.take(snapshot())
    player.clock.advance(1_000)
    await pause()
    expect(player.asked).toEqual([])
  })
})
