import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../base/log.ts'
import { projectionOf, PODS } from './mesh-kinds.ts'
import { Reflector, type Change, type ReflectorOptions } from './reflector.ts'
import type { KubeObject } from './resource.ts'
import { page, Player, pod, refuse, reply, stream, type Asked } from './testing.ts'

let player: Player
let reflector: Reflector<KubeObject>
let told: string[]
beforeEach(async () => void (player = await Player.start()))
afterEach(async () => {
  await reflector?.stop()
  await player.stop()
})

function follow(options: Partial<ReflectorOptions<KubeObject>> = {}): Reflector<KubeObject> {
  told = []
  reflector = new Reflector<KubeObject>({
    client: player.client(),
    log: silentLog,
    resource: PODS,
    project: projectionOf(PODS),
    clock: player.clock,
    random: () => 0.5,
    ...options,
  })
  const describeChange = (change: Change<KubeObject>): string => `${change.type} ${change.key}`
  reflector.start((changes) => told.push(...changes.map(describeChange)))
  return reflector
}

const names = (): string[] => [...reflector.values()].map((one) => one.metadata.name).toSorted()
const lists = (): Asked[] => player.asked.filter((one) => !one.query['watch'])
const watches = (): Asked[] => player.asked.filter((one) => one.query['watch'])

/** Plays lists and watches by their turn; the last of each is played for all that follow. */
function play(plan: {
  readonly list: readonly ((asked: Asked, to: ServerResponse) => void)[]
  readonly watch: readonly ((asked: Asked, to: ServerResponse) => void)[]
}): void {
  player.answer = (asked, to) => {
    const kind = asked.query['watch'] ? 'watch' : 'list'
    const turn = (kind === 'watch' ? watches() : lists()).length - 1
    plan[kind][Math.min(turn, plan[kind].length - 1)]!(asked, to)
  }
}
const silent = (_: Asked, to: ServerResponse): void => void stream(to)
const give =
  (items: readonly KubeObject[], version: string) =>
  (_: Asked, to: ServerResponse): void =>
    reply(to, page(items, version))

describe('following a kind', () => {
  it('asks for pages and is in sync after the last one', async () => {
    play({
      list: [
        (_, to) => reply(to, page([pod('a', '1')], '9', 'more')),
        (_, to) => reply(to, page([pod('b', '2')], '9', 'even more')),
        (_, to) => reply(to, page([pod('c', '3')], '9')),
      ],
      watch: [silent],
    })
    follow({ pageSize: 1 })
    await reflector.synced
    expect(names()).toEqual(['a', 'b', 'c'])
    await player.until(() => watches().length === 1)
    expect(lists().map(({ query }) => query)).toEqual([
      { limit: '1' },
      { limit: '1', continue: 'more' },
      { limit: '1', continue: 'even more' },
    ])
    expect(watches()[0]!.query).toEqual({
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: '9',
      timeoutSeconds: '450',
    })
  })

  it('tells what is added, changed and removed, and nothing of a change in what it does not keep', async () => {
    let send: ReturnType<typeof stream> | undefined
    play({ list: [give([pod('a', '1')], '1')], watch: [(_, to) => (send = stream(to))] })
    follow()
    await player.until(() => send !== undefined)
    send!('ADDED', pod('b', '2'))
    send!('MODIFIED', pod('a', '3', { version: 'v2' }))
    send!('MODIFIED', { ...pod('b', '4'), status: { startTime: 'now', hostIP: '10.0.0.9' } })
    send!('DELETED', pod('a', '5'))
    await player.until(() => reflector.counts.events === 4)
    expect(told).toEqual(['set shop/a', 'set shop/b', 'set shop/a', 'delete shop/a'])
    expect(names()).toEqual(['b'])
  })

  it('goes on after a cut where it was, also by a bookmark, and does not list again', async () => {
    play({
      list: [give([pod('a', '1')], '1')],
      watch: [
        (_, to) => {
          const send = stream(to)
          send('ADDED', pod('b', '7'))
          send('BOOKMARK', { metadata: { resourceVersion: '20' } })
          // In the middle of the next event.
          to.write('{"type":"ADDED","obj', () => to.destroy())
        },
        (_, to) => stream(to)('ADDED', pod('c', '21')),
      ],
    })
    follow()
    await player.until(() => watches().length === 2 && reflector.size === 3, 50)
    expect(watches().map(({ query }) => query['resourceVersion'])).toEqual(['1', '20'])
    expect(lists()).toHaveLength(1)
    expect(reflector.problem).toBeUndefined()
  })

  it('goes on at once when the server ends a watch in order', async () => {
    play({
      list: [give([], '5')],
      watch: [
        (_, to) => {
          stream(to)('ADDED', pod('a', '6'))
          player.clock.advance(400_000)
          to.end()
        },
        silent,
      ],
    })
    follow()
    await player.until(() => watches().length === 2)
    expect(reflector.counts).toMatchObject({ lists: 1, watches: 2, failures: 0 })
  })

  it.each([
    ['as an event', (to: ServerResponse) => stream(to)('ERROR', { kind: 'Status', code: 410, message: 'too old' })],
    ['as the answer', (to: ServerResponse) => refuse(to, 410, 'too old resource version')],
  ])('lists again after 410 Gone %s, tells only what differs, and holds everything meanwhile', async (_, gone) => {
    let during: string[] = []
    play({
      list: [
        give([pod('a', '1'), pod('b', '2'), pod('c', '3')], '3'),
        (__, to) => {
          during = names()
          reply(to, page([pod('a', '1'), pod('b', '8', { version: 'v2' }), pod('d', '9')], '9'))
        },
      ],
      watch: [(__, to) => gone(to), silent],
    })
    follow()
    await player.until(() => watches().length === 2)
    expect(during).toEqual(['a', 'b', 'c'])
    expect(told.slice(3)).toEqual(['set shop/b', 'set shop/d', 'delete shop/c'])
    expect(watches()[1]!.query['resourceVersion']).toBe('9')
    expect(reflector.counts.gone).toBe(1)
  })

  it('finishes a list whose place was forgotten midway, and watches from where the list began', async () => {
    play({
      list: [
        (_, to) => reply(to, page([pod('a', '1')], '5', 'old')),
        (_, to) => refuse(to, 410, 'the provided continue parameter is too old', { metadata: { continue: 'new' } }),
        (asked, to) => reply(to, page(asked.query['continue'] === 'new' ? [pod('b', '40')] : [], '50')),
      ],
      // What the list saw already is told again: older than what is held.
      watch: [
        (_, to) => {
          const send = stream(to)
          send('ADDED', pod('b', '30', { version: 'old' }))
          send('DELETED', pod('b', '31'))
          send('ADDED', pod('b', '40'))
          send('DELETED', pod('a', '41'))
        },
      ],
    })
    follow()
    await player.until(() => reflector.counts.events === 4)
    expect(watches()[0]!.query['resourceVersion']).toBe('5')
    expect(told).toEqual(['set shop/a', 'set shop/b', 'delete shop/a'])
  })

  it('waits as long as a busy server asks, before it lists and before it watches', async () => {
    play({
      list: [(_, to) => refuse(to, 429, 'slow down', { headers: { 'retry-after': '7' } }), give([pod('a', '1')], '1')],
      watch: [(_, to) => refuse(to, 429, 'slow down', { headers: { 'retry-after': '9' } }), silent],
    })
    follow()
    await player.until(() => watches().length === 2, 100)
    const [first, second] = lists()
    expect(second!.at - first!.at).toBeGreaterThanOrEqual(7_000)
    const [third, fourth] = watches()
    expect(fourth!.at - third!.at).toBeGreaterThanOrEqual(9_000)
  })

  it('backs off from a server in trouble, at most 10 s, keeps what it holds, and says why', async () => {
    play({
      list: [give([pod('a', '1')], '1'), (_, to) => refuse(to, 500, 'etcd is away')],
      watch: [(_, to) => refuse(to, 500, 'etcd is away')],
    })
    follow()
    await player.until(() => player.asked.length === 12, 100)
    expect(reflector.problem).toMatchObject({
      code: 'KUBE_SERVER_ERROR',
      message: expect.stringContaining('etcd is away'),
    })
    const pauses = player.asked.slice(2).map(({ at }, index) => at - player.asked[index + 1]!.at)
    expect(pauses[0]).toBeLessThan(500)
    expect(Math.max(...pauses)).toBeGreaterThan(5_000)
    expect(Math.max(...pauses)).toBeLessThan(11_000)
    expect(names()).toEqual(['a'])
    // Something may be wrong with the place it wants to go on from.
    expect(lists().length).toBeGreaterThan(1)
  })

  it('takes a silent connection for dead, and goes on with another', async () => {
    play({ list: [give([], '1')], watch: [silent, (_, to) => stream(to)('ADDED', pod('a', '2'))] })
    follow({ idleMs: 60 })
    await player.until(() => reflector.size === 1, 50)
    expect(watches().map(({ query }) => query['resourceVersion'])).toEqual(['1', '1'])
  })

  it('is in sync with a kind that is not served, finds it when it is, and lets go only when it is told twice', async () => {
    let served = false
    let send: ServerResponse | undefined
    player.answer = (asked, to) => {
      if (!served) return refuse(to, 404, 'page not found')
      if (!asked.query['watch']) return reply(to, page([pod('a', '1')], '1'))
      stream(to)
      send = to
    }
    follow()
    await reflector.synced
    expect(reflector.size).toBe(0)
    served = true
    await player.until(() => send !== undefined, 500)
    expect(names()).toEqual(['a'])
    served = false
    send!.destroy()
    const before = player.asked.length
    await player.until(() => player.asked.length > before, 50)
    expect(names()).toEqual(['a'])
    await player.until(() => reflector.size === 0, 500)
    expect(told).toEqual(['set shop/a', 'delete shop/a'])
  })

  it('follows a kind in the version that is served, of those that say the same', async () => {
    const versions: string[] = []
    player.answer = (asked, to) => {
      const version = asked.path.split('/')[2] as string
      if (asked.query['watch']) stream(to)
      else versions.push(version)
      if (version !== 'v1alpha1') return refuse(to, 404, 'page not found')
      if (!asked.query['watch']) reply(to, page([pod('a', '1')], '1'))
    }
    follow({ otherVersions: ['v1beta1', 'v1alpha1'] })
    await reflector.synced
    expect(versions).toEqual(['v1', 'v1beta1', 'v1alpha1'])
    expect(names()).toEqual(['a'])
    // None of it took time: nobody waits for what is there.
    expect(player.clock.now()).toBe(0)
  })

  it('believes a server that was restored to an older state', async () => {
    let send: ReturnType<typeof stream> | undefined
    play({
      list: [
        give([pod('a', '500', { version: 'new' })], '500'),
        give([pod('a', '100', { version: 'restored' })], '120'),
      ],
      watch: [(_, to) => (send = stream(to)), silent],
    })
    follow()
    await player.until(() => send !== undefined)
    send!('BOOKMARK', { metadata: { resourceVersion: '120' } })
    await player.until(() => lists().length === 2 && watches().length === 2, 50)
    expect(reflector.get('shop/a')?.metadata.labels).toEqual({ version: 'restored' })
  })

  it('survives a listener that throws, and an event that is none', async () => {
    play({
      list: [give([], '1')],
      watch: [
        (_, to) => void (stream(to)('ADDED', pod('a', '2')), to.write('nonsense\n')),
        (_, to) => stream(to)('ADDED', pod('b', '3')),
      ],
    })
    follow()
    reflector.start(() => {
      throw new Error('a listener of ours')
    })
    await player.until(() => reflector.size === 2, 50)
    expect(watches()[1]!.query['resourceVersion']).toBe('2')
  })

  it('stops in the midst of a watch and of a pause', async () => {
    play({ list: [give([], '1')], watch: [silent] })
    follow()
    await player.until(() => watches().length === 1)
    await reflector.stop()
    player.answer = (_, to) => refuse(to, 500, 'no')
    follow()
    await player.until(() => reflector.problem !== undefined)
    await reflector.stop()
    const before = player.asked.length
    player.clock.advance(60_000)
    expect(player.asked).toHaveLength(before)
  })
})
