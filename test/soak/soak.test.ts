import { describe, expect, it } from 'vitest'
import { growth, soak } from './soak.ts'

const MIB = 1 << 20

describe('a waypoint that runs for long', () => {
  it('keeps nothing of the requests and tunnels it served', async () => {
    const result = await soak({ requests: 1e9, tunnels: 1e9, seconds: 25, workers: 1 })
    expect(result.lost).toEqual([])
    expect(result.requests).toBeGreaterThan(5_000)
    expect(result.tunnels).toBeGreaterThan(1_000)
    expect(result.left).toEqual({
      ambit_waypoint_requests_active: 0,
      ambit_waypoint_connections: 0,
      ambit_waypoint_opaque_active: 0,
    })
    expect(growth(result.samples, (sample) => sample.heap)).toBeLessThan(8 * MIB)
    expect(growth(result.samples, (sample) => sample.resident)).toBeLessThan(24 * MIB)
  })
})
