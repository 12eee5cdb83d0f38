// From changes of objects to snapshots, with time in the test's hands. The objects are what a reflector tells.
import { beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { silentLog } from '../../base/log.ts'
import { CONFIG_KINDS, NAMESPACES, PODS, SERVICES } from '../../kube/mesh-kinds.ts'
import type { Change } from '../../kube/reflector.ts'
import { keyOf, type KubeObject, type Resource } from '../../kube/resource.ts'
import type { Snapshot } from './gather.ts'
import { KubeGather } from './kube.ts'

const POLICIES = CONFIG_KINDS.find(({ kind }) => kind === 'AuthorizationPolicy')!

/** Tells what the test says. */
class GivenObjects {
  readonly #held = new Map<string, KubeObject>()
  readonly listed = Promise.withResolvers<void>()
  #listener: ((resource: Resource, changes: readonly Change<KubeObject>[]) => void) | undefined
  stopped = false

  start = (): Promise<void> => this.listed.promise
  stop = async (): Promise<void> => void (this.stopped = true)
  onChange = (listener: (resource: Resource, changes: readonly Change<KubeObject>[]) => void): (() => void) => {
    this.#listener = listener
    return () => (this.#listener = undefined)
  }

  set(resource: Resource, ...objects: KubeObject[]): void {
    const changes = objects.map((object): Change<KubeObject> => {
      const key = keyOf(object.metadata)
      const before = this.#held.get(`${resource.kind} ${key}`)
      this.#held.set(`${resource.kind} ${key}`, object)
      return { type: 'set', key, object, before }
    })
    this.#listener?.(resource, changes)
  }

  remove(resource: Resource, key: string): void {
    this.#listener?.(resource, [{ type: 'delete', key, before: this.#held.get(`${resource.kind} ${key}`)! }])
  }
}

const service = (name: string, labels: Readonly<Record<string, string>> = {}): KubeObject =>
  ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'shop', name, labels },
    spec: { clusterIP: '10.0.0.1', ports: [{ port: 80 }] },
  }) as KubeObject

const policy = (spec: unknown, status?: unknown): KubeObject =>
  ({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { namespace: 'shop', name: 'p' },
    spec,
    status,
  }) as KubeObject

describe('configuration from the API', () => {
  let clock: ManualClock
  let objects: GivenObjects
  let gather: KubeGather
  let snapshots: Snapshot[]
  const names = (): string[] => snapshots.at(-1)!.translation.services.map((one) => one.name)

  beforeEach(() => {
    clock = new ManualClock()
    objects = new GivenObjects()
    snapshots = []
    gather = new KubeGather({ objects, systemNamespace: 'ambit-system', clock, log: silentLog })
  })

  async function started(): Promise<void> {
    const start = gather.start((snapshot) => snapshots.push(snapshot))
    objects.listed.resolve()
    await start
    snapshots.length = 0
  }

  it('is told when every list is in, and not before', async () => {
    const start = gather.start((snapshot) => snapshots.push(snapshot))
    objects.set(NAMESPACES, { metadata: { name: 'shop' } } as KubeObject)
    objects.set(SERVICES, service('a'), service('b'))
    clock.advance(60_000)
    await Promise.resolve()
    expect(snapshots).toEqual([])
    objects.listed.resolve()
    await start
    expect(snapshots).toHaveLength(1)
    expect(names()).toEqual(['a', 'b'])
  })

  it('takes changes together that come together, counted from the first', async () => {
    await started()
    objects.set(SERVICES, service('a'))
    for (let at = 0; at < 4; at++) {
      clock.advance(1)
      objects.set(SERVICES, service(`b${at}`))
    }
    expect(snapshots).toEqual([])
    clock.advance(1)
    expect(snapshots).toHaveLength(1)
    expect(names()).toEqual(['a', 'b0', 'b1', 'b2', 'b3'])
    objects.remove(SERVICES, 'shop/a')
    clock.advance(5)
    expect(names()).not.toContain('a')
  })

  it('rests as long as a translation took', async () => {
    await started()
    const take = (snapshot: Snapshot): void => {
      snapshots.push(snapshot)
      // What comes of a snapshot is a part of what it costs.
      clock.advance(200)
    }
    await gather.stop()
    gather = new KubeGather({ objects, systemNamespace: 'ambit-system', clock, log: silentLog })
    await gather.start(take)
    snapshots.length = 0
    expect(gather.translateMs).toBe(200)
    objects.set(SERVICES, service('a'))
    clock.advance(199)
    expect(snapshots).toEqual([])
    clock.advance(1)
    expect(snapshots).toHaveLength(1)
  })

  it('takes the namespaces at its word that are exempt besides its own', async () => {
    const exemptNamespaces = ['shop']
    gather = new KubeGather({ objects, systemNamespace: 'ambit-system', exemptNamespaces, clock, log: silentLog })
    await started()
    objects.set(NAMESPACES, { metadata: { name: 'shop', labels: { 'ambit.io/dataplane-mode': 'ambient' } } } as never)
    const metadata = { namespace: 'shop', name: 'a', uid: 'u' }
    objects.set(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata,
      spec: { nodeName: 'n', containers: [{ name: 'c' }] },
      status: {},
    } as never)
    clock.advance(60_000)
    expect(snapshots.at(-1)!.translation.pods.map((one) => one.enrolment)).toEqual(['exempt'])
  })

  it('reads an object only when it changed, and one whose status alone did not at all', async () => {
    await started()
    objects.set(POLICIES, policy({ rules: [] }))
    objects.set(SERVICES, service('a'), service('b'))
    clock.advance(5)
    expect(gather.counts).toEqual({ read: 3, translations: 2 })
    objects.set(SERVICES, service('a', { new: 'label' }))
    clock.advance(5)
    expect(gather.counts).toEqual({ read: 4, translations: 3 })
    objects.set(POLICIES, policy({ rules: [] }, { conditions: [{ type: 'Accepted' }] }))
    clock.advance(1_000)
    expect(gather.counts).toEqual({ read: 4, translations: 3 })
  })

  it('says of a rejected resource what it is instead of a file, and keeps the last good version of it', async () => {
    await started()
    objects.set(POLICIES, policy({ action: 'DENY', rules: [{}] }))
    clock.advance(5)
    objects.set(POLICIES, policy({ action: 'NEVER' }))
    clock.advance(5)
    const { problems, translation } = snapshots.at(-1)!
    expect(translation.policies).toMatchObject([{ name: 'p', action: 'DENY' }])
    expect(problems[0]).toMatchObject({
      code: 'CONFIG_INVALID_VALUE',
      file: 'AuthorizationPolicy shop/p',
      line: 0,
      field: 'spec.action',
    })
  })

  it('can be stopped while it still waits for the API', async () => {
    const start = gather.start((snapshot) => snapshots.push(snapshot))
    await gather.stop()
    await expect(start).rejects.toMatchObject({ code: 'CONTROL_UNAVAILABLE' })
    expect(objects.stopped).toBe(true)
    objects.listed.resolve()
    expect(snapshots).toEqual([])
  })
})
