import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { KubeError } from '../../kube/errors.ts'
import { WriteQueue, type WriteQueueOptions } from './queue.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function queue(more: Partial<WriteQueueOptions> = {}) {
  const clock = new ManualClock()
  const asked: string[] = []
  const failures: string[] = []
  const made = new WriteQueue({
    clock,
    random: () => 1,
    perSecond: 10,
    burst: 3,
    atOnce: 2,
    write: (key) => {
      asked.push(key)
      return Promise.resolve(true)
    },
    onFailure: (key) => failures.push(key),
    ...more,
  })
  return { queue: made, clock, asked, failures }
}

const fails = (status: number) => new KubeError('KUBE_TEST', 'no', { status })

describe('a queue of writes', () => {
  it('writes a burst at once and the rest at its rate, each key once however often it was asked for', async () => {
    const { queue: made, clock, asked } = queue()
    for (const key of ['a', 'b', 'c', 'd', 'e', 'd', 'e']) made.add(key)
    await turn()
    expect(asked).toEqual(['a', 'b', 'c'])
    clock.advance(100)
    await turn()
    expect(asked).toEqual(['a', 'b', 'c', 'd'])
    clock.advance(100)
    await turn()
    expect(asked).toEqual(['a', 'b', 'c', 'd', 'e'])
    expect(made.size).toBe(0)
  })

  it('has no more on their way than it may', async () => {
    let open = 0
    let most = 0
    const ends: (() => void)[] = []
    const { queue: made } = queue({
      burst: 100,
      write: async () => {
        most = Math.max(most, ++open)
        await new Promise<void>((resolve) => ends.push(resolve))
        open--
        return true
      },
    })
    for (const key of 'abcdefgh') made.add(key)
    for (let round = 0; round < 8; round++) {
      ends.shift()?.()
      await turn()
    }
    expect(most).toBe(2)
    expect(made.counts.written).toBe(8)
  })

  it('writes again what was asked for while it was being written', async () => {
    const ends: (() => void)[] = []
    let writes = 0
    const { queue: made } = queue({
      write: async () => {
        writes++
        await new Promise<void>((resolve) => ends.push(resolve))
        return true
      },
    })
    made.add('a')
    made.add('a')
    made.add('a')
    ends.shift()?.()
    await turn()
    ends.shift()?.()
    await turn()
    expect(writes).toBe(2)
  })

  it('tries what was refused again, ever less often, and lets the others pass', async () => {
    const asked: number[] = []
    const clock = new ManualClock()
    const made = new WriteQueue({
      clock,
      random: () => 1,
      perSecond: 100,
      burst: 100,
      atOnce: 2,
      write: (key) => {
        if (key !== 'bad') return Promise.resolve(true)
        asked.push(clock.monotonic())
        return Promise.reject(fails(422))
      },
      onFailure: () => undefined,
    })
    made.add('bad')
    made.add('good')
    await turn()
    expect(made.counts).toMatchObject({ written: 1, failed: 1 })
    for (let ms = 0; ms < 8_000; ms += 100) {
      clock.advance(100)
      await turn()
    }
    expect(asked).toEqual([0, 500, 1_500, 3_500, 7_500])
  })

  it.each([
    ['is too busy', 429],
    ['is away', 0],
    ['is broken', 500],
  ])('leaves a server alone that %s', async (_, status) => {
    let down = true
    const asked: string[] = []
    const { queue: made, clock } = queue({
      atOnce: 1,
      burst: 10,
      write: (key) => {
        asked.push(key)
        return down ? Promise.reject(fails(status)) : Promise.resolve(true)
      },
    })
    for (const key of ['a', 'b', 'c']) made.add(key)
    await turn()
    expect(asked).toEqual(['a'])
    clock.advance(400)
    await turn()
    expect(asked).toEqual(['a'])
    down = false
    clock.advance(100)
    await turn()
    expect([...asked].sort()).toEqual(['a', 'a', 'b', 'c'])
  })

  it('drops what is over its bound, and what failed too often, and counts them', async () => {
    const { queue: made, clock, failures } = queue({ max: 2, attempts: 3, write: () => Promise.reject(fails(403)) })
    made.add('a', 1)
    made.add('b', 1)
    made.add('c', 1)
    expect(made.counts.dropped).toBe(1)
    for (let ms = 0; ms < 5_000; ms += 100) {
      clock.advance(100)
      await turn()
    }
    expect(failures.filter((key) => key === 'a')).toHaveLength(3)
    expect(made.counts.dropped).toBe(3)
    expect(made.size).toBe(0)
  })

  it('has nothing more to do about what is gone, and what was not wanted any more', async () => {
    const { queue: made, clock, asked, failures } = queue({ write: () => Promise.reject(fails(404)) })
    made.add('gone')
    made.add('later', 1_000)
    await turn()
    made.delete('later')
    clock.advance(10_000)
    await turn()
    expect({ asked, failures, size: made.size }).toEqual({ asked: [], failures: [], size: 0 })
  })
})
