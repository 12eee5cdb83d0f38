import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Backoff } from './backoff.ts'

describe('Backoff', () => {
  it('doubles up to the cap and starts again after a success', () => {
    const backoff = new Backoff({ baseMs: 100, maxMs: 1000, jitter: 0 })
    expect([backoff.next(), backoff.next(), backoff.next(), backoff.next(), backoff.next(), backoff.next()]).toEqual([
      100, 200, 400, 800, 1000, 1000,
    ])
    backoff.reset()
    expect(backoff.next()).toBe(100)
  })

  it('stays between the unjittered share and the step, whatever the random and however long it goes on', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 0.999, noNaN: true }), fc.nat(3000), (random, attempts) => {
        const backoff = new Backoff({ baseMs: 10, maxMs: 15_000, random: () => random })
        let last = 0
        for (let i = 0; i <= attempts; i++) last = backoff.next()
        expect(last).toBeGreaterThanOrEqual(5)
        expect(last).toBeLessThanOrEqual(15_000)
      }),
    )
  })
})
