// Memory is given back once things are quiet, after the start and after large changes, and not all the time.
import { expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { GiveBack } from './memory.ts'

it('gives memory back when it is quiet: after the start, then after a thousand changes, a minute apart', () => {
  const clock = new ManualClock()
  let changes = 0
  let given = 0
  const one = new GiveBack({ clock, changes: () => changes, giveBack: () => given++ })
  const change = (count: number): void => {
    changes += count
    one.changed()
  }
  change(3)
  clock.advance(4_999)
  change(1)
  clock.advance(4_999)
  expect(given).toBe(0)
  clock.advance(1)
  expect(given).toBe(1)
  // A few at a time are nothing, until they add up.
  for (let i = 0; i < 9; i++) change(100)
  clock.advance(120_000)
  expect(given).toBe(1)
  change(100)
  clock.advance(5_000)
  expect(given).toBe(2)
  // The next one waits for its minute.
  change(5_000)
  clock.advance(59_999)
  expect(given).toBe(2)
  clock.advance(1)
  expect(given).toBe(3)
  change(5_000)
  one.close()
  clock.advance(600_000)
  expect(given).toBe(3)
})
