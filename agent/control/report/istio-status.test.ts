import { describe, expect, it } from 'vitest'
import type { Problem, ProblemCode, Severity } from '../../config/problem.ts'
import { istioStatus, verdictOf } from './istio-status.ts'

const problem = (severity: Severity, code: ProblemCode): Problem => ({
  severity,
  code,
  file: '',
  line: 0,
  field: 'spec',
  message: `${code}.`,
  hint: '',
})

describe('Reconciled', () => {
  it.each<[string, readonly (readonly [Severity, ProblemCode])[], string, string]>([
    ['nothing is wrong', [], 'True', 'Reconciled'],
    ['something deserves a look', [['warning', 'CONFIG_SELECTS_NOTHING']], 'True', 'Reconciled'],
    ['something has no effect', [['info', 'CONFIG_NO_EFFECT']], 'True', 'Reconciled'],
    ['it is wrong, and nothing holds in its place', [['error', 'CONFIG_UNKNOWN_FIELD']], 'False', 'Invalid'],
    [
      'it is wrong, and its last good version holds',
      [
        ['error', 'CONFIG_UNKNOWN_FIELD'],
        ['warning', 'CONFIG_LAST_GOOD_KEPT'],
      ],
      'False',
      'LastGoodKept',
    ],
    [
      'it is wrong, and denies what it selects',
      [
        ['error', 'CONFIG_INVALID_VALUE'],
        ['warning', 'CONFIG_DENIES_TARGETS'],
      ],
      'False',
      'DeniesTargets',
    ],
    ['it refers to nothing', [['error', 'CONFIG_UNKNOWN_HOST']], 'False', 'Invalid'],
    ['it needs a waypoint', [['warning', 'CONFIG_NEEDS_WAYPOINT']], 'False', 'NeedsWaypoint'],
    ['nobody can enforce it', [['warning', 'CONFIG_NOT_ENFORCED']], 'False', 'NotEnforced'],
    ['Ambit does not have it', [['warning', 'CONFIG_NOT_YET']], 'False', 'NotSupported'],
    [
      'the worst of several counts',
      [
        ['warning', 'CONFIG_NEEDS_WAYPOINT'],
        ['error', 'CONFIG_UNKNOWN_HOST'],
      ],
      'False',
      'Invalid',
    ],
  ])('when %s', (_, problems, status, reason) => {
    expect(verdictOf(problems.map(([severity, code]) => problem(severity, code)))).toMatchObject({
      type: 'Reconciled',
      status,
      reason,
    })
  })

  it('comes with each problem as a validation message, up to a bound', () => {
    const status = istioStatus([problem('error', 'CONFIG_UNKNOWN_HOST')], undefined, 3, 'T')
    expect(status.observedGeneration).toBe(3)
    expect(status.validationMessages).toEqual([
      {
        type: { name: 'ConfigUnknownHost', code: 'CONFIG_UNKNOWN_HOST' },
        level: 'ERROR',
        message: 'spec: CONFIG_UNKNOWN_HOST. [CONFIG_UNKNOWN_HOST]',
      },
    ])
    const many = istioStatus(Array(100).fill(problem('warning', 'CONFIG_CONFLICT')), undefined, 3, 'T')
    expect(many.validationMessages).toHaveLength(32)
  })
})
