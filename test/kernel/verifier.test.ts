// What the kernel's verifier has to go through for each program stays near what bpf/verifier.json records: a program that
// grows past its bound is seen here before an older kernel refuses it.
import { expect, it } from 'vitest'
import { GROWTH, OTHER_KERNEL_SLACK, complaints, measure, recordCommand, recorded } from '../../native/bpf/verifier.ts'

it('no program costs the verifier over a fifth more than recorded', { retry: 0 }, async () => {
  const found = complaints(recorded(), await measure())
  expect(found, `If the growth is meant, record anew: ${recordCommand}\n${found.join('\n')}`).toEqual([])
})

it('every program is recorded with a number that the kernel told', async () => {
  const { instructions } = await measure()
  const counts = Object.values(instructions).flatMap((programs) => Object.values(programs))
  expect(counts.length).toBeGreaterThanOrEqual(Object.keys(instructions).length)
  for (const count of counts) expect(count).toBeGreaterThan(2)
})

it('growth past the bound, an unrecorded and a lost program are each told', () => {
  const record = { command: '', kernel: '6.18', instructions: { connect: { a: 100, gone: 5 } } }
  const now = (kernel: string, a: number) => ({ command: '', kernel, instructions: { connect: { a, fresh: 1 } } })
  expect(complaints(record, now('6.18', 100 * GROWTH + 1))).toEqual([
    'connect/a: 121 instructions processed, recorded 100 on 6.18, at most 120 here',
    'connect/fresh is not recorded (1 instructions)',
    'connect/gone is recorded but no longer there',
  ])
  expect(complaints(record, now('6.18', 100 * GROWTH)).some((line) => line.includes('connect/a'))).toBe(false)
  const elsewhere = 100 * GROWTH * OTHER_KERNEL_SLACK
  expect(complaints(record, now('6.6', elsewhere)).some((line) => line.includes('connect/a'))).toBe(false)
  expect(complaints(record, now('6.6', elsewhere + 1)).some((line) => line.includes('connect/a'))).toBe(true)
})
