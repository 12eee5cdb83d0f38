import { describe, expect, it } from 'vitest'
import { MAX_WORKERS, thisMachine, waypointCommand, waypointLimits, type WaypointOptions } from './options.ts'

const MACHINE = { cores: 4, memory: 1_000_000_000 }

async function options(...args: string[]): Promise<WaypointOptions> {
  let got: WaypointOptions | undefined
  const required = ['--name', 'w', '--namespace', 'n', '--service-account', 's', '--control', 'c:1']
  await waypointCommand((given) => {
    got = given
    return Promise.resolve()
  }).parseAsync([...required, '--root-cert', 'r', '--token-file', 't', ...args], { from: 'user' })
  return got as WaypointOptions
}

describe('the numbers of a waypoint', () => {
  it('are one worker and a share of the memory unless told otherwise', async () => {
    expect(waypointLimits(await options(), MACHINE)).toEqual({
      workers: 1,
      drainMs: 20_000,
      drainDelayMs: 0,
      maxConnections: 16_384,
      maxRequests: 20_000,
      maxMemory: 850_000_000,
      headTimeoutMs: 60_000,
      bodyIdleTimeoutMs: 300_000,
    })
  })

  it('follow the cores that the cgroup gives, and are divided among the workers', async () => {
    const limits = waypointLimits(await options('--workers', 'auto', '--max-memory', '2Gi'), MACHINE)
    expect(limits).toMatchObject({ workers: 4, maxConnections: 4_096, maxRequests: 5_000, maxMemory: 2 ** 29 })
    expect(waypointLimits(await options('--workers', 'auto'), { cores: 512, memory: 0 })).toMatchObject({
      workers: MAX_WORKERS,
      maxMemory: 0,
    })
    // A big node, a small limit of memory.
    expect(waypointLimits(await options('--workers', 'auto'), { cores: 64, memory: 2 ** 30 }).workers).toBe(8)
    expect(waypointLimits(await options('--workers', 'auto'), { cores: 64, memory: 1_000_000 }).workers).toBe(1)
  })

  it('are refused by name', async () => {
    for (const [flag, value] of [
      ['--workers', '0'],
      ['--workers', 'many'],
      ['--max-requests', '-1'],
      ['--max-memory', '5 apples'],
      ['--drain-seconds', '1e3'],
      ['--drain-delay-seconds', '-5'],
    ] as const) {
      const given = await options(`${flag}=${value}`)
      expect(() => waypointLimits(given, MACHINE)).toThrow(`${flag} cannot be '${value}'.`)
    }
  })

  it('come from a machine that has at least a core', () => {
    expect(thisMachine().cores).toBeGreaterThan(0)
    expect(thisMachine({ AMBIT_CPU_LIMIT: '1' }).cores).toBe(1)
    expect(thisMachine({ AMBIT_CPU_LIMIT: '512' }).cores).toBe(thisMachine().cores)
    expect(() => thisMachine({ AMBIT_CPU_LIMIT: '500m' })).toThrow("AMBIT_CPU_LIMIT='500m'")
  })
})
