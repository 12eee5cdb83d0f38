import { describe, expect, it } from 'vitest'
import type { Problem } from '../../config/problem.ts'
import { linesOf, withTimes, type Verdict } from './conditions.ts'

const good: Verdict = { type: 'Accepted', status: 'True', reason: 'Accepted', message: '' }
const bad: Verdict = { type: 'Accepted', status: 'False', reason: 'Invalid', message: 'no' }

describe('conditions', () => {
  it.each([
    ['are new where there were none', [good], undefined, 'T2'],
    ['keep their time while their status stays', [good], [{ ...good, lastTransitionTime: 'T1' }], 'T1'],
    [
      'keep it too when only the reason changes',
      [bad],
      [{ ...bad, reason: 'Other', message: 'x', lastTransitionTime: 'T1' }],
      'T1',
    ],
    ['have another time when the status changes', [bad], [{ ...good, lastTransitionTime: 'T1' }], 'T2'],
    ['take no notice of what is no condition', [good], ['x', null, 3, { type: 3 }], 'T2'],
    ['take no notice of what is no list', [good], { type: 'Accepted' }, 'T2'],
  ])('%s', (_, wanted, before, time) => {
    expect(withTimes(wanted, before, 7, 'T2')).toEqual([
      { ...wanted[0], observedGeneration: 7, lastTransitionTime: time },
    ])
  })

  it('tell field, fault and fix, one problem a line, without the object', () => {
    const problem: Problem = {
      severity: 'error',
      code: 'CONFIG_UNKNOWN_FIELD',
      file: 'VirtualService shop/reviews',
      line: 0,
      field: 'spec.hots',
      message: 'spec has no field "hots".',
      hint: 'Did you mean hosts?',
      resource: { kind: 'VirtualService', namespace: 'shop', name: 'reviews' },
    }
    const line = 'spec.hots: spec has no field "hots". [CONFIG_UNKNOWN_FIELD] Did you mean hosts?'
    expect(linesOf([problem], 2, 1_000)).toBe(line)
    expect(linesOf([problem, problem, problem, problem], 2, 1_000)).toBe(`${line}\n${line}\n2 more.`)
    expect(linesOf([problem], 2, 20)).toHaveLength(20)
  })
})
