import { describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { LOOK_MS, Overload } from './overload.ts'

function make(limits = { maxRequests: 2, maxMemory: 1_000 }) {
  const clock = new ManualClock()
  const metrics = new Metrics('waypoint', 'test')
  const memory = { resident: 500, heapUsed: 10, heapLimit: 1_000 }
  const told: boolean[] = []
  let collections = 0
  const overload = new Overload({
    limits,
    clock,
    log: silentLog,
    metrics,
    memory: () => memory,
    onMemory: (overloaded) => void told.push(overloaded),
    collect: () => void collections++,
  })
  overload.start()
  return { clock, metrics, memory, told, overload, collections: () => collections }
}

describe('overload', () => {
  it('sheds the requests beyond the limit, and counts them', async () => {
    const { overload, metrics } = make()
    expect([overload.refuses(1), overload.refuses(2), overload.refuses(3)]).toEqual([false, false, true])
    expect(await metrics.text()).toContain('ambit_waypoint_requests_shed_total{reason="requests"} 1')
  })

  it('sheds everything above the memory mark, until it is below the low one', async () => {
    const { overload, memory, told, clock, metrics } = make()
    memory.resident = 1_001
    clock.advance(LOOK_MS)
    expect([overload.refuses(1), told]).toEqual([true, [true]])
    expect(await metrics.text()).toContain('ambit_waypoint_overloaded 1')
    memory.resident = 950
    clock.advance(LOOK_MS)
    expect(overload.refuses(1)).toBe(true)
    memory.resident = 890
    clock.advance(LOOK_MS)
    expect([overload.refuses(1), told]).toEqual([false, [true, false]])
  })

  it('knows that V8 dies at its own limit', () => {
    const { overload, memory, clock } = make({ maxRequests: 2, maxMemory: 0 })
    memory.resident = 1e12
    clock.advance(LOOK_MS)
    expect(overload.shedding).toBe(false)
    memory.heapUsed = 900
    clock.advance(LOOK_MS)
    expect(overload.shedding).toBe(true)
  })

  it('collects before it refuses anybody, and not all the time', () => {
    const { overload, memory, clock, collections } = make()
    memory.resident = 2_000
    for (let i = 0; i < 9; i++) clock.advance(LOOK_MS)
    expect([overload.shedding, collections()]).toEqual([true, 1])
    for (let i = 0; i < 9; i++) clock.advance(LOOK_MS)
    expect(collections()).toBe(2)
  })
})
