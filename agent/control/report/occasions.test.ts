import { describe, expect, it } from 'vitest'
import type { Problem } from '../../config/problem.ts'
import { occasionsOf } from './occasions.ts'

const problem = (kind: string, more: Partial<Problem> = {}, name = 'x'): Problem => ({
  severity: 'warning',
  code: 'CONFIG_NEEDS_WAYPOINT',
  file: '',
  line: 0,
  field: 'spec',
  message: 'It is so.',
  hint: '',
  resource: { group: 'networking.istio.io', kind, namespace: 'shop', name },
  ...more,
})

describe('occasions for Events', () => {
  it.each([
    ['a resource that is rejected', problem('VirtualService', { severity: 'error', code: 'CONFIG_UNKNOWN_FIELD' }), 1],
    ['one that is not in force', problem('AuthorizationPolicy'), 1],
    ['one without a status', problem('ServiceProfile'), 1],
    [
      'a namespace with a label that says nothing',
      problem('Namespace', { field: 'metadata.labels["istio.io/dataplane-mode"]' }),
      1,
    ],
    ['the mesh’s own settings', problem('ConfigMap', { severity: 'error' }), 1],
    [
      'a Service whose label leads nowhere',
      problem('Service', { field: 'metadata.labels["istio.io/use-waypoint"]' }),
      1,
    ],
    ['not: what is only worth knowing', problem('VirtualService', { severity: 'info' }), 0],
    ['not: a Service that has no endpoint', problem('Service', { field: 'spec.selector' }), 0],
    [
      'not: what has no name',
      problem('VirtualService', { resource: { kind: 'X', namespace: '', name: '(unnamed)' } }),
      0,
    ],
  ])('%s', (_, one, count) => {
    expect(occasionsOf([one]).size).toBe(count)
  })

  it('are none about what is another controller’s', () => {
    expect(occasionsOf([problem('Gateway')], (ref) => ref.kind !== 'Gateway').size).toBe(0)
  })

  it('are one for each code of an object', () => {
    const found = occasionsOf([
      problem('VirtualService', { field: 'spec.a' }),
      problem('VirtualService', { field: 'spec.b' }),
      problem('VirtualService', { code: 'CONFIG_CONFLICT' }),
      problem('VirtualService', {}, 'y'),
    ])
    expect([...found.values()].map((one) => [one.ref.name, one.reason, one.message])).toEqual([
      [
        'x',
        'ConfigNeedsWaypoint',
        'spec.a: It is so. [CONFIG_NEEDS_WAYPOINT]\nspec.b: It is so. [CONFIG_NEEDS_WAYPOINT]',
      ],
      ['x', 'ConfigConflict', 'spec: It is so. [CONFIG_CONFLICT]'],
      ['y', 'ConfigNeedsWaypoint', 'spec: It is so. [CONFIG_NEEDS_WAYPOINT]'],
    ])
  })

  it('are bounded where a template makes the same mistake in each of its pods', () => {
    const pods = Array.from({ length: 1_000 }, (_, at) => problem('Pod', { severity: 'error' }, `pod-${at}`))
    expect(occasionsOf(pods).size).toBe(10)
    const routes = Array.from({ length: 50 }, (_, at) => problem('VirtualService', {}, `route-${at}`))
    expect(occasionsOf(routes).size).toBe(50)
  })

  it('have a text that an Event can hold', () => {
    const long = Array.from({ length: 9 }, () => problem('VirtualService', { message: 'x'.repeat(500) }))
    const [one] = occasionsOf(long).values()
    expect(one?.message.length).toBeLessThanOrEqual(1_024)
  })
})
