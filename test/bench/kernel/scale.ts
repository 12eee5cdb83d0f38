// Rows of scale: how long the kernel's tables take for a large mesh and for one change in it, and what an agent weighs that knows it. Must not live here: the
// mesh (mesh.ts, crowd.ts).
import { Samples, type Row } from '../table.ts'
import type { TargetSpec } from '../targets.ts'
import { measureAgent } from './crowd.ts'
import type { KernelWorld } from './world.ts'

/** What `--only` calls them by. */
export const SCALE = 'scale'
const CHANGES = 20

const FULL = `${SCALE}: full sync of 10 000 workloads and 1 000 services`
const CHANGE = `${SCALE}: endpoint change to kernel`
const RSS = `${SCALE}: RSS of an agent that knows them`

export const SCALE_TARGETS: readonly TargetSpec[] = [
  { row: FULL, baseline: '', limit: 1_000, atMost: true },
  { row: CHANGE, baseline: '', limit: 20, atMost: true },
  { row: RSS, baseline: '', limit: 120, atMost: true },
]

export async function measureScale({ large, redirect }: KernelWorld, rounds: number): Promise<Row[]> {
  const samples = new Samples()
  for (let turn = 0; turn < rounds; turn++) {
    const { full, held } = await large.sync(redirect.tables)
    samples.add(FULL, full, 'ms', '')
    samples.add(`${SCALE}: longest turn of the event loop meanwhile`, held, 'ms', '')
    for (let i = 0; i < CHANGES; i++)
      for (const ms of await large.changeEndpoint(turn * CHANGES + i)) samples.add(CHANGE, ms, 'ms', '')
  }
  return samples.rows()
}

/** A sandbox of its own, since this process is the agent of the other world. */
export async function measureWeight(say: (text: string) => void): Promise<Row[]> {
  const samples = new Samples()
  const { aloneMb, rssMb, peakMb } = await measureAgent(say)
  samples.add(`${SCALE}: RSS of an agent that knows two pods`, aloneMb, 'MiB', '')
  samples.add(RSS, rssMb, 'MiB', '')
  samples.add(`${SCALE}: its highest RSS`, peakMb, 'MiB', '')
  return samples.rows()
}
