// When Events are told and when not; that people see them is tried in test/kube/control-plane/status.test.ts.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../../base/log.ts'
import type { Problem } from '../../config/problem.ts'
import { CONFIG_KINDS, NAMESPACES } from '../../kube/mesh-kinds.ts'
import type { KubeObject } from '../../kube/resource.ts'
import { Player, refuse, reply } from '../../kube/testing.ts'
import { Events } from './events.ts'
import { GivenLeadership, HeldObjects, snapshot } from './testing.ts'

const SERVICES = CONFIG_KINDS.find((one) => one.kind === 'VirtualService')!
const CLASSES = CONFIG_KINDS.find((one) => one.kind === 'GatewayClass')!
const REF = { group: 'networking.istio.io', kind: 'VirtualService', namespace: 'shop', name: 'a' }

const problem = (message = 'no.', resource = REF): Problem => ({
  severity: 'error',
  code: 'CONFIG_UNKNOWN_HOST',
  file: '',
  line: 0,
  field: 'spec.hosts[0]',
  message,
  hint: 'Do.',
  resource,
})

const MINUTE = 60_000

let player: Player
let objects: HeldObjects
let leadership: GivenLeadership
let events: Events
beforeEach(async () => {
  player = await Player.start()
  player.answer = (asked, to) => reply(to, JSON.parse(asked.body), asked.method === 'POST' ? 201 : 200)
  objects = new HeldObjects()
  leadership = new GivenLeadership()
  objects.set(SERVICES, { metadata: { namespace: 'shop', name: 'a', uid: 'uid-a' } })
  const { clock } = player
  events = new Events({ client: player.client(), objects, leadership, replica: 'control-1', clock, log: silentLog })
})
afterEach(async () => {
  events.stop()
  await player.stop()
})

/** Lets so much time go by, with what happens in it. */
async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= Math.max(200, ms / 20)) {
    player.clock.advance(Math.min(left, Math.max(200, ms / 20)))
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await new Promise((resolve) => setTimeout(resolve, 30))
}

const bodies = (): Record<string, unknown>[] =>
  player.asked.map((one) => ({ method: one.method, ...(JSON.parse(one.body) as object) }))

describe('Events', () => {
  it('are told on the object, as kubectl shows them', async () => {
    events.start()
    events.take(snapshot(problem()))
    await pass(3_000)
    expect(player.asked[0]?.path).toBe('/api/v1/namespaces/shop/events')
    expect(bodies()).toMatchObject([
      {
        method: 'POST',
        kind: 'Event',
        metadata: { namespace: 'shop', name: expect.stringMatching(/^a\.[0-9a-f]{16}$/) as string },
        involvedObject: {
          apiVersion: 'networking.istio.io/v1',
          kind: 'VirtualService',
          namespace: 'shop',
          name: 'a',
          uid: 'uid-a',
        },
        type: 'Warning',
        reason: 'ConfigUnknownHost',
        message: 'spec.hosts[0]: no. [CONFIG_UNKNOWN_HOST] Do.',
        source: { component: 'ambit-control' },
        reportingInstance: 'control-1',
        count: 1,
      },
    ])
  })

  it('are not told of what is put right at once', async () => {
    events.start()
    events.take(snapshot(problem()))
    await pass(500)
    events.take(snapshot())
    await pass(10_000)
    expect(player.asked).toEqual([])
  })

  it('are told once while nothing changes, and again before the cluster forgets them', async () => {
    events.start()
    for (let at = 0; at < 40; at++) {
      events.take(snapshot(problem()))
      await pass(MINUTE)
    }
    expect(player.asked).toHaveLength(1)
    await pass(15 * MINUTE)
    expect(bodies()).toMatchObject([{ method: 'POST' }, { method: 'PATCH', count: 2 }])
  })

  it('are made anew where the cluster did forget', async () => {
    events.start()
    events.take(snapshot(problem()))
    await pass(3_000)
    player.answer = (asked, to) =>
      asked.method === 'PATCH' ? refuse(to, 404, 'gone') : reply(to, JSON.parse(asked.body), 201)
    await pass(60 * MINUTE)
    expect(player.asked.slice(0, 3).map((one) => one.method)).toEqual(['POST', 'PATCH', 'POST'])
  })

  it('change with their text, but not with each count in it', async () => {
    events.start()
    for (let pods = 0; pods < 20; pods++) {
      events.take(snapshot(problem(`${pods} pods.`)))
      await pass(1_500)
    }
    await pass(60_000)
    expect(player.asked.length).toBeLessThanOrEqual(3)
    expect(bodies().at(-1)).toMatchObject({ method: 'PATCH', message: expect.stringContaining('19 pods.') as string })
  })

  it('that another leader told are not told anew, only dated', async () => {
    player.answer = (asked, to) =>
      asked.method === 'POST' ? refuse(to, 409, 'there already') : reply(to, { ...JSON.parse(asked.body), count: 7 })
    events.start()
    events.take(snapshot(problem()))
    await pass(3_000)
    expect(bodies()).toMatchObject([{ method: 'POST' }, { method: 'PATCH', message: expect.any(String) as string }])
    await pass(55 * MINUTE)
    expect(bodies().at(-1)).toMatchObject({ method: 'PATCH', count: 8 })
  })

  it('are the leader’s to tell', async () => {
    leadership.leads = false
    events.start()
    events.take(snapshot(problem()))
    await pass(3_000)
    expect(player.asked).toEqual([])
    leadership.leads = true
    await pass(3_000)
    expect(player.asked).toHaveLength(1)
  })

  it('lie in the namespace they are about; those of what has none, in default', async () => {
    objects.set(NAMESPACES, { metadata: { name: 'shop', uid: 'uid-ns' } })
    objects.set(CLASSES, {
      metadata: { name: 'c', uid: 'uid-c' },
      spec: { controllerName: 'ambit.io/gateway-controller' },
    } as KubeObject)
    events.start()
    events.take(
      snapshot(
        problem('no.', { group: '', kind: 'Namespace', namespace: '', name: 'shop' }),
        problem('no.', { group: 'gateway.networking.k8s.io', kind: 'GatewayClass', namespace: '', name: 'c' }),
      ),
    )
    await pass(3_000)
    expect(bodies()).toMatchObject([
      { metadata: { namespace: 'shop' }, involvedObject: { kind: 'Namespace', namespace: 'shop', name: 'shop' } },
      { metadata: { namespace: 'default' }, involvedObject: { kind: 'GatewayClass', name: 'c' } },
    ])
  })

  it('have no end of time and number: a burst, then two a second, a thousand waiting', async () => {
    const problems = Array.from({ length: 2_000 }, (_, at) => {
      const name = `v${at}`
      objects.set(SERVICES, { metadata: { namespace: 'shop', name, uid: name } } as KubeObject)
      return problem('no.', { ...REF, name })
    })
    events.start()
    events.take(snapshot(...problems))
    await pass(12_000)
    await expect.poll(() => player.asked.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(50)
    expect(player.asked.length).toBeLessThanOrEqual(50 + 2 * 11)
    expect(events.counts.dropped).toBeGreaterThan(0)
  })
})
