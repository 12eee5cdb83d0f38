import { describe, expect, it } from 'vitest'
import { same } from '../../kube/same.ts'
import { mergeStatus, speaksOf } from './merge-status.ts'

type Status = Readonly<Record<string, unknown>>

const condition = (type: string, status = 'True') => ({
  type,
  status,
  reason: 'R',
  message: '',
  lastTransitionTime: 'T',
})
const message = (code: string) => ({ type: { code, name: 'n' }, level: 'ERROR', message: 'm' })

const next = { observedGeneration: 2, conditions: [condition('Reconciled')] }
const told = { ...next, validationMessages: [message('CONFIG_UNKNOWN_HOST')] }

describe('a status that several write into', () => {
  it.each<[string, Status, Status, boolean]>([
    ['holds nothing', {}, next, false],
    ['holds what is wanted', next, next, true],
    [
      'holds what is wanted beside what others wrote',
      { ...next, addresses: [1], conditions: [condition('Theirs'), ...next.conditions] },
      next,
      true,
    ],
    ['is of an older generation', { ...next, observedGeneration: 1 }, next, false],
    ['says the opposite', { ...next, conditions: [condition('Reconciled', 'False')] }, next, false],
    ['lacks messages', next, told, false],
    ['has messages that are over', told, next, false],
    ['has messages of another analyser', { ...next, validationMessages: [message('IST0101')] }, next, true],
    ['has the same messages', told, told, true],
    [
      'has messages of both',
      { ...told, validationMessages: [message('IST0101'), ...told.validationMessages] },
      told,
      true,
    ],
    ['is no status at all', { conditions: 'x', validationMessages: 3 }, next, false],
  ])('needs no writing exactly where Ambit’s part stands: it %s', (_, status, wanted, settled) => {
    expect(same(speaksOf(status, wanted), wanted)).toBe(settled)
  })

  it('keeps what others wrote, and has Ambit’s part once', () => {
    const status = {
      observedGeneration: 1,
      addresses: [1],
      conditions: [condition('Theirs'), condition('Reconciled', 'False')],
      validationMessages: [message('IST0101'), message('CONFIG_REQUIRED')],
    }
    const merged = mergeStatus(status, told)
    expect(merged.others).toBe(true)
    expect(merged.status).toEqual({
      observedGeneration: 2,
      addresses: [1],
      conditions: [condition('Theirs'), condition('Reconciled')],
      validationMessages: [message('IST0101'), message('CONFIG_UNKNOWN_HOST')],
    })
    expect(same(speaksOf(merged.status, told), told)).toBe(true)
  })

  it('has messages no more when there are none', () => {
    expect(mergeStatus(told, next)).toEqual({ status: next, others: false })
  })
})
