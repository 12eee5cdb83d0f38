// Statistics of programs on a real kernel: what is counted, for how long, and through which handles.
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { World, type Sockets } from '../../test/world/netns.ts'
import { enableStats, openObject, openPinnedLink, openProgramById, type BpfModule } from './index.ts'
import { libbpfSampleSchema } from './gen/test/libbpf_sample.ts'

const sample = join(import.meta.dirname, '../../bpf/build/libbpf_sample.bpf.o')
const DIALS = 25

let world: World
let app: Sockets
let module: BpfModule<typeof libbpfSampleSchema>
beforeAll(async () => {
  world = new World()
  app = world.sockets(world.pod())
  module = await openObject(sample, libbpfSampleSchema).load()
})
afterAll(async () => {
  module.close()
  await world.close()
})

async function dial(times: number): Promise<void> {
  for (let i = 0; i < times; i++) await app.call('connect', { to: '127.0.0.1', port: 1 })
}

describe('statistics of a program', () => {
  it('count its runs and their time, each run once', async () => {
    using _link = module.programs.order_one.attachCgroup(world.cgroup)
    using _statistics = enableStats()
    const before = module.programs.order_one.statistics
    await dial(DIALS)
    const after = module.programs.order_one.statistics
    expect(after.runs - before.runs).toBe(BigInt(DIALS))
    const each = Number(after.nanoseconds - before.nanoseconds) / DIALS
    expect(each).toBeGreaterThan(0)
    // A few instructions: even on a busy machine far from a tenth of a second.
    expect(each).toBeLessThan(1e8)
    expect(module.programs.order_two.statistics.runs).toBe(0n)
  })

  it('are read of a program of others, by what its pinned link joins', async () => {
    mkdirSync(world.pinRoot, { recursive: true })
    const path = join(world.pinRoot, 'counted')
    using link = module.programs.order_two.attachCgroup(world.cgroup)
    link.pin(path)
    using adopted = openPinnedLink(path)
    const program = openProgramById(adopted.info().programId)
    expect([program.name, program.id, program.tag]).toEqual([
      'order_two',
      module.programs.order_two.id,
      module.programs.order_two.tag,
    ])
    using _statistics = enableStats()
    await dial(DIALS)
    expect(program.statistics.runs).toBe(BigInt(DIALS))
    expect(program.statistics).toEqual(module.programs.order_two.statistics)
    program.close()
    expect(() => program.statistics).toThrow('is closed')
    rmSync(path)
  })

  it('hold for as long as somebody wants them: two handles are two wishes', async () => {
    using _link = module.programs.order_one.attachCgroup(world.cgroup)
    const first = enableStats()
    const second = enableStats()
    first.close()
    first.close()
    const before = module.programs.order_one.statistics.runs
    await dial(1)
    expect(module.programs.order_one.statistics.runs).toBe(before + 1n)
    second.close()
  })

  it('of a program that is gone cannot be had', () => {
    expect(() => openProgramById(0x7fff_ffff)).toThrow('BPF_PROG_GET_FD_BY_ID answered ENOENT')
  })
})
