// The resources of the API in force: what an object may become, and what of it stays.
import { describe, expect, it } from 'vitest'
import { ObjectStore } from './object-store.ts'
import { describeProblem } from './problem.ts'

const policy = (name: string, spec: unknown, createdAt = '2026-01-01T00:00:00Z') => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { namespace: 'shop', name, creationTimestamp: createdAt },
  spec,
})
const GOOD = { action: 'DENY', rules: [{}] }
const BAD = { action: 'MAYBE' }
const service = (port: unknown) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { namespace: 'shop', name: 'web' },
  spec: { ports: [{ port }] },
})

describe('the resources of the API in force', () => {
  it('are each in its last good version, whatever came after', () => {
    const store = new ObjectStore()
    store.set('a', policy('a', GOOD))
    const [first] = store.state().resources
    store.set('a', policy('a', BAD))
    const { resources, denials, problems } = store.state()
    expect(resources).toEqual([first])
    expect(denials).toEqual([])
    expect(problems.map((one) => one.code)).toEqual(['CONFIG_INVALID_VALUE', 'CONFIG_LAST_GOOD_KEPT'])
    store.set('a', policy('a', GOOD))
    expect(store.state().problems).toEqual([])
  })

  it('keep a last good version through many bad ones, and until the object is gone', () => {
    const store = new ObjectStore()
    store.set('s', service(80))
    store.set('s', service('x'))
    store.set('s', service('y'))
    expect(store.state().resources).toHaveLength(1)
    store.delete('s')
    expect(store.state()).toMatchObject({ resources: [], problems: [] })
    store.set('s', service('x'))
    expect(store.state().resources).toEqual([])
  })

  it('deny what a rejected security resource selects while no good version is held', () => {
    const store = new ObjectStore()
    store.set('b', policy('b', BAD))
    store.set('a', policy('a', BAD))
    expect(store.state().denials.map((one) => one.ref.name)).toEqual(['a', 'b'])
    expect(store.state().problems.map(describeProblem)).toContainEqual(
      expect.stringContaining('traffic to everything it selects is denied'),
    )
    store.set('b', policy('b', GOOD))
    store.delete('a')
    expect(store.state().denials).toEqual([])
  })

  it('are the same objects as before, in order of age, then name, however they came', () => {
    const store = new ObjectStore()
    const later = '2026-01-02T00:00:00Z'
    store.set('c', policy('c', GOOD, later))
    store.set('b', policy('b', GOOD))
    const before = new Map(store.state().resources.map((one) => [one.metadata.name, one]))
    store.set('d', policy('d', GOOD))
    store.set('a', policy('a', GOOD, later))
    store.set('b', policy('b', GOOD, later))
    const after = store.state().resources
    expect(after.map((one) => one.metadata.name)).toEqual(['d', 'a', 'b', 'c'])
    expect(after.at(-1)).toBe(before.get('c'))
  })

  it('hold the MeshConfig of the system namespace, apart from the ConfigMap it is in', () => {
    const store = new ObjectStore('mesh')
    const map = (name: string, text: string) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { namespace: 'mesh', name },
      data: { mesh: text },
    })
    const kinds = () => store.state().resources.map((one) => one.kind)
    store.set('istio', map('istio', 'trustDomain: one.example'))
    store.set('ambit', map('ambit', 'trustDomain: two.example'))
    store.set('other', map('other', 'trustDomain: three.example'))
    expect(kinds().filter((kind) => kind === 'MeshConfig')).toHaveLength(2)
    store.set('istio', map('istio', 'trustDomain: {}'))
    expect(kinds().filter((kind) => kind === 'MeshConfig')).toHaveLength(2)
    expect(store.state().problems[0]).toMatchObject({
      field: 'trustDomain',
      resource: { kind: 'ConfigMap', namespace: 'mesh', name: 'istio' },
    })
  })
})
