import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { ObjectStore } from '../../config/object-store.ts'
import { parseObject } from '../../config/load.ts'
import { describeProblem } from '../../config/problem.ts'
import type { Resource } from '../../config/resource.ts'
import { References } from './references.ts'

function references(objects: readonly object[], clock: Pick<ManualClock, 'monotonic'> = new ManualClock()): References {
  const store = new ObjectStore()
  objects.forEach((object, at) => store.set(`${at}`, object))
  return new References({ inForce: (definitions) => store.some(definitions), systemNamespace: 'ambit-system', clock })
}

const object = (apiVersion: string, kind: string, name: string, spec: object, namespace = 'shop'): object => ({
  apiVersion,
  kind,
  metadata: { namespace, name },
  spec,
})
const service = (name: string, namespace = 'shop'): object =>
  object('v1', 'Service', name, { ports: [{ name: 'http', port: 80 }] }, namespace)
const rule = object('networking.istio.io/v1', 'DestinationRule', 'reviews', {
  host: 'reviews',
  subsets: [{ name: 'v1', labels: { version: 'v1' } }],
})
const virtualService = (destination: object, more: object = {}): object =>
  object('networking.istio.io/v1', 'VirtualService', 'reviews', {
    hosts: ['reviews'],
    http: [{ route: [{ destination }] }],
    ...more,
  })
const ROUTE = ['gateway.networking.k8s.io/v1', 'HTTPRoute', 'r'] as const
const parentRefs = [{ group: '', kind: 'Service', name: 'reviews' }]
const POLICY = ['security.istio.io/v1', 'AuthorizationPolicy', 'p'] as const

const told = (of: References, given: object): string[] =>
  of.of(parseObject(given).resources[0] as Resource).map((one) => `${one.field} ${one.code}`)

describe('what a resource refers to', () => {
  const there = references([service('reviews'), service('other', 'else'), rule])

  it.each<[string, object, string[]]>([
    ['is there', virtualService({ host: 'reviews', subset: 'v1' }), []],
    [
      'is a host that is not',
      virtualService({ host: 'revews' }),
      ['spec.http[0].route[0].destination.host CONFIG_UNKNOWN_HOST'],
    ],
    [
      'is a port that is not',
      virtualService({ host: 'reviews', port: { number: 81 } }),
      ['spec.http[0].route[0].destination.port.number CONFIG_UNKNOWN_PORT'],
    ],
    [
      'is a subset that is not',
      virtualService({ host: 'reviews', subset: 'v2' }),
      ['spec.http[0].route[0].destination.subset CONFIG_UNKNOWN_SUBSET'],
    ],
    ['is a backend', object(...ROUTE, { parentRefs, rules: [{ backendRefs: [{ name: 'reviews', port: 80 }] }] }), []],
    [
      'is a backend that is not',
      object(...ROUTE, { parentRefs, rules: [{ backendRefs: [{ name: 'x', port: 80 }] }] }),
      ['spec.rules[0].backendRefs[0] CONFIG_UNKNOWN_HOST'],
    ],
    [
      'is a backend that may not be used from there',
      object(...ROUTE, { parentRefs, rules: [{ backendRefs: [{ name: 'other', namespace: 'else', port: 80 }] }] }),
      ['spec.rules[0].backendRefs[0] CONFIG_NOT_PERMITTED'],
    ],
    [
      'is a target that is not',
      object(...POLICY, { targetRefs: [{ group: '', kind: 'Service', name: 'x' }] }),
      ['spec.targetRefs[0].name CONFIG_UNKNOWN_TARGET'],
    ],
    // Pods are not looked at: whether there are any is for the status.
    ['are workloads', object(...POLICY, { selector: { matchLabels: { app: 'x' } } }), []],
  ])('%s', (_, given, wanted) => {
    expect(told(there, given)).toEqual(wanted)
  })

  it('is looked up in what is written, not in what it replaces', () => {
    const before = references([service('reviews'), virtualService({ host: 'gone' })])
    expect(told(before, virtualService({ host: 'reviews' }))).toEqual([])
  })

  it('has the fix beside it', () => {
    const [problem] = there.of(parseObject(virtualService({ host: 'revews' })).resources[0] as Resource)
    expect(problem && describeProblem(problem)).toMatch(/Did you mean reviews|Services of namespace shop: reviews/)
  })

  it('is not looked at beyond its share of the time', () => {
    let now = 0
    // A look that takes 150 ms.
    const slow = references([service('reviews')], { monotonic: () => (now += 150) - 150 })
    const bad = virtualService({ host: 'x' })
    const found = Array.from({ length: 20 }, () => told(slow, bad).length)
    expect(found[0]).toBe(1)
    expect(found.filter((one) => one === 0).length).toBeGreaterThan(8)
    expect(slow.skipped).toBe(found.filter((one) => one === 0).length)
    now += 10_000
    expect(told(slow, bad)).toHaveLength(1)
  })
})
