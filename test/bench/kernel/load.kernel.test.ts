// The load program and the reading of costs, on real sockets and programs: what they count is what happened.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { enableStats } from '../../../native/bpf/index.ts'
import { AttachedPrograms, grown } from './costs.ts'
import { buildLoad, runLoad } from './load.ts'
import { SERVICE } from './mesh.ts'
import { KernelWorld } from './world.ts'

const SECONDS = 0.1

describe('the load of the bench', () => {
  let world: KernelWorld
  let end: () => void
  let ended: Promise<void>
  beforeAll(async () => {
    buildLoad()
    await new Promise<void>((resolve, reject) => {
      ended = KernelWorld.with(async (made) => {
        world = made
        resolve()
        await new Promise<void>((done) => (end = done))
      })
      ended.catch(reject)
    })
  })
  afterAll(async () => {
    end()
    await ended
  })

  const counted = async <T>(task: () => Promise<T>): Promise<{ result: T; came: Record<string, number> }> => {
    const before = world.redirect.counters()
    const result = await task()
    const after = world.redirect.counters()
    return { result, came: Object.fromEntries(Object.entries(after).map(([name, n]) => [name, n - before[name]!])) }
  }

  it('makes as many connections as it says, and all of them are direct between enrolled pods', async () => {
    const { client, server, v4 } = world.mesh
    for (const address of [v4, SERVICE]) {
      const { result, came } = await counted(() => runLoad({ kind: 'connections' }, client, server, address, SECONDS))
      expect(result.count).toBeGreaterThan(10)
      expect([came['direct'], came['attested'], came['redirected']]).toEqual([result.count, result.count, 0])
      expect(result.p50Us).toBeGreaterThan(0)
      expect(result.p99Us).toBeGreaterThanOrEqual(result.p50Us)
    }
  })

  it('sends bytes and requests over the connections it was told, and takes CPU time for it', async () => {
    const { client, server, v6 } = world.mesh
    const stream = await counted(() => runLoad({ kind: 'throughput', size: 1000 }, client, server, v6, SECONDS))
    expect(stream.result.count % 1000).toBe(0)
    expect(stream.came['direct']).toBe(1)
    const requests = await counted(() => runLoad({ kind: 'requests', connections: 5 }, client, server, v6, SECONDS))
    expect(requests.came['direct']).toBe(5)
    for (const { result } of [stream, requests]) {
      expect(result.count).toBeGreaterThan(100)
      expect(result.cpuSeconds).toBeGreaterThan(0)
      // Both ends on one core: no more than it has.
      expect(result.cpuSeconds).toBeLessThan(result.seconds + 0.1)
    }
  })

  it('runs outside the mesh without any program deciding about it', async () => {
    for (const { client, server, v4 } of [world.bare, world.outside]) {
      const { came } = await counted(() => runLoad({ kind: 'connections' }, client, server, v4, SECONDS))
      expect(Object.values(came).every((n) => n === 0)).toBe(true)
    }
  })

  it('is told the costs of the programs it ran, once for each event', async () => {
    const programs = new AttachedPrograms(world.pinRoot)
    using _counting = enableStats()
    const { client, server, v4 } = world.mesh
    const before = programs.costs()
    const { count } = await runLoad({ kind: 'connections' }, client, server, v4, SECONDS)
    const costs = grown(before, programs.costs())
    programs.close()
    expect(costs.get('ambit_connect4')?.runs).toBe(count)
    expect(costs.get('ambit_lookup')?.runs).toBe(count)
    expect(costs.has('ambit_connect6')).toBe(false)
  })

  it('says which end failed, and how', async () => {
    const { client, server } = world.bare
    await expect(runLoad({ kind: 'connections' }, client, server, '10.77.0.200', SECONDS)).rejects.toThrow(
      /load connect 10\.77\.0\.200 7002 100 failed \(1\): load: connect: /,
    )
  })
})
