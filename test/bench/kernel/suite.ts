// The suite `kernel`: two pods of one node without a mesh, beside programs that leave them alone, and enrolled with policy on, where they talk directly; and
// what each program costs an event. Variants take turns many times in a round. Must not live here: the world (world.ts), the load (load.c).
import { enableStats } from '../../../native/bpf/index.ts'
import type { SuiteOptions } from '../main.ts'
import { pivot, plainTable, round, Samples, type Report, type Row } from '../table.ts'
import { judge, type TargetSpec } from '../targets.ts'
import { AttachedPrograms, grown } from './costs.ts'
import { buildLoad, runLoad, type Measured, type Work } from './load.ts'
import { SERVICE } from './mesh.ts'
import { measureScale, measureWeight, SCALE, SCALE_TARGETS } from './scale.ts'
import { scrapeRows, scrapeTargets } from './scrape.ts'
import { KernelWorld, type Pair } from './world.ts'

const PLAIN = 'no mesh'
const DIRECT = 'direct'
/** Of one variant before the next takes its turn: what else the machine does then meets all alike. */
const SLICE_SECONDS = 0.15
const COUNTED_SECONDS = 1

interface Variant {
  readonly name: string
  readonly pair: Pair
  readonly address: string
  /** Connections must go from pod to pod. */
  readonly direct: boolean
}

interface Case {
  readonly name: string
  readonly work: Work
  readonly variants: readonly Variant[]
}

const SPEED_COLUMNS = [
  { metric: 'rate', title: 'rate' },
  { metric: ratioOf('rate'), title: 'ratio' },
  { metric: 'by CPU', title: 'by CPU' },
  { metric: ratioOf('by CPU'), title: 'ratio' },
  { metric: 'CPU', title: 'CPU µs' },
  { metric: ratioOf('CPU'), title: 'ratio' },
  { metric: 'p50', title: 'p50 µs' },
  { metric: ratioOf('p50'), title: 'ratio' },
  { metric: 'p99', title: 'p99 µs' },
]
const COST_COLUMNS = [
  { metric: 'runs', title: 'runs/event' },
  { metric: 'per run', title: 'ns/run' },
  { metric: 'per event', title: 'ns/event' },
]

const SCRAPE_COLUMNS = [
  { metric: 'CPU', title: 'CPU ms' },
  { metric: 'reading', title: 'of it reading, ms' },
  { metric: 'text', title: 'MB' },
]

const NOTES = [
  'Two pods of one node on routed wires, both ends on one core (test/bench/kernel/load.c). no mesh: a cgroup without programs. not enrolled: programs attached, pods not in the mesh.',
  'direct: enrolled, judged by client and port, among 10 000 workloads and 1 000 services; to a service: its endpoint chosen by the kernel. by CPU: per second of CPU time of both ends.',
  'ratio: to no mesh, median of the ratios within each turn of a fraction of a second.',
  'requests: 64 bytes there and back. connections: connect, accept, close, one after the other; their p50 and p99 are those of connect() alone.',
  'scrape: CPU time of the event loop for an agent’s whole text, its metrics of the process included; every count has changed since the last one.',
] as const

export async function benchKernel(options: SuiteOptions): Promise<Report> {
  const { rounds, seconds, say, only, profile } = options
  if (profile !== undefined) throw new Error('There is no profile of kernel programs: see the costs this suite prints.')
  buildLoad()
  const scaled = only === undefined || SCALE.includes(only)
  const weight = scaled ? await measureWeight(say) : []
  say('bringing the world up')
  return await KernelWorld.with(async (world) => {
    const cases = allCases(world).filter(({ name }) => only === undefined || name.includes(only))
    const samples = new Samples()
    for (let turn = 1; turn <= rounds; turn++) {
      say(`round ${turn} of ${rounds}`)
      for (const one of cases) await measure(one, world, seconds, samples)
    }
    const costs = await costsOf(world, cases)
    const speed = samples.rows()
    const scale = scaled ? [...(await measureScale(world, rounds)), ...weight] : []
    const scrape = only === undefined || only.includes('scrape') ? await scrapeRows(world.pinRoot, rounds) : []
    const rows = [...speed, ...costs, ...scale, ...scrape]
    const tables = [
      [speed, SPEED_COLUMNS] as const,
      [costs, COST_COLUMNS] as const,
      [scrape, SCRAPE_COLUMNS] as const,
    ].map(([of, columns]) => (of.length === 0 ? '' : pivot(of, columns)))
    if (scale.length > 0) tables.push(plainTable(scale))
    return {
      rows,
      notes: NOTES,
      targets: judge([...speedTargets(), ...SCALE_TARGETS, ...scrapeTargets], rows),
      table: tables.filter((text) => text !== '').join('\n\n'),
    }
  })
}

function allCases(world: KernelWorld): Case[] {
  const v4: Variant[] = [
    { name: PLAIN, pair: world.bare, address: world.bare.v4, direct: false },
    { name: 'not enrolled', pair: world.outside, address: world.outside.v4, direct: false },
    { name: DIRECT, pair: world.mesh, address: world.mesh.v4, direct: true },
  ]
  const service: Variant = { name: `${DIRECT}, service`, pair: world.mesh, address: SERVICE, direct: true }
  const v6 = v4.map((one) => ({ ...one, address: one.pair.v6 }))
  return [
    ...SIZES.map(([name, size]): Case => ({ name, work: { kind: 'throughput', size }, variants: v4 })),
    ...REQUESTS.map(([name, connections]): Case => ({ name, work: { kind: 'requests', connections }, variants: v4 })),
    { name: 'connections', work: { kind: 'connections' }, variants: [...v4, service] },
    { name: 'connections, IPv6', work: { kind: 'connections' }, variants: v6 },
  ]
}

const SIZES = [
  ['throughput, 1 KiB', 1 << 10],
  ['throughput, 16 KiB', 16 << 10],
  ['throughput, 64 KiB', 64 << 10],
] as const
const REQUESTS = [
  ['requests, 1 connection', 1],
  ['requests, 16 connections', 16],
] as const

/** What a metric's ratio to no mesh is called: the median over the turns of ratios within a turn, which what else the machine does leaves alone most. */
function ratioOf(metric: string): string {
  return `${metric} ratio`
}

function speedTargets(): TargetSpec[] {
  const one = (what: string, metric: string, limit: number, atMost: boolean, variant = DIRECT): TargetSpec => ({
    row: `${what}: ${variant}: ${ratioOf(metric)}`,
    baseline: '',
    limit,
    atMost,
  })
  const names = [...SIZES, ...REQUESTS].map(([name]) => name)
  return [
    // As it was and by the CPU time it took: on a machine that does other work as well only the second means much.
    ...['rate', 'by CPU'].flatMap((metric) => names.map((name) => one(name, metric, 0.98, false))),
    ...[DIRECT, `${DIRECT}, service`].flatMap((variant) => [
      one('connections', 'p50', 1.1, true, variant),
      one('connections', 'CPU', 1.1, true, variant),
    ]),
    one('connections, IPv6', 'p50', 1.1, true),
    one('connections, IPv6', 'CPU', 1.1, true),
  ]
}

/** `seconds` of each variant, in turns; the first one's place changes, so that none is always the one after the pause. */
async function measure(one: Case, world: KernelWorld, seconds: number, samples: Samples): Promise<void> {
  const slices = Math.max(1, Math.round(seconds / SLICE_SECONDS))
  for (let slice = 0; slice < slices; slice++) {
    const turn = new Map<string, Map<string, number>>()
    for (let i = 0; i < one.variants.length; i++) {
      const variant = one.variants[(i + slice) % one.variants.length] as Variant
      const metrics = metricsOf(one.work, await run(one.work, variant, world, seconds / slices))
      turn.set(variant.name, metrics)
      for (const [metric, value] of metrics)
        samples.add(`${one.name}: ${variant.name}: ${metric}`, value, unitOf(one.work, metric), '')
    }
    for (const [name, metrics] of turn) {
      if (name === PLAIN) continue
      for (const [metric, value] of metrics) {
        const ratio = value / (turn.get(PLAIN)?.get(metric) ?? Number.NaN)
        samples.add(`${one.name}: ${name}: ${ratioOf(metric)}`, ratio, '', '')
      }
    }
  }
}

function metricsOf(work: Work, measured: Measured): Map<string, number> {
  const { count, seconds, cpuSeconds, p50Us, p99Us } = measured
  // Bits per nanosecond are Gbit/s.
  const amount = work.kind === 'throughput' ? count * 8e-9 : count
  const metrics = new Map([
    ['rate', amount / seconds],
    ['by CPU', amount / cpuSeconds],
  ])
  if (work.kind === 'throughput') return metrics
  return metrics
    .set('CPU', (cpuSeconds * 1e6) / count)
    .set('p50', p50Us)
    .set('p99', p99Us)
}

function unitOf(work: Work, metric: string): string {
  if (metric !== 'rate' && metric !== 'by CPU') return 'µs'
  return work.kind === 'throughput' ? 'Gbit/s' : '1/s'
}

/** Throws where connections did not take the way they are measured for. */
async function run(work: Work, variant: Variant, world: KernelWorld, seconds: number): Promise<Measured> {
  const before = world.redirect.counters()
  const measured = await runLoad(work, variant.pair.client, variant.pair.server, variant.address, seconds)
  const after = world.redirect.counters()
  const came = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0)
  const wanted = !variant.direct ? 0 : work.kind === 'connections' ? measured.count : (connectionsOf(work) ?? 1)
  if (came('direct') !== wanted || came('attested') !== wanted)
    throw new Error(
      `${variant.name}: ${wanted} direct connections were to be made; ${came('direct')} were, ${came('attested')} attested`,
    )
  return measured
}

function connectionsOf(work: Work): number | undefined {
  return work.kind === 'requests' ? work.connections : undefined
}

/** Cost of every program an event of the direct path, with counting on: that slows the path itself, so nothing else is measured meanwhile. */
async function costsOf(world: KernelWorld, cases: readonly Case[]): Promise<Row[]> {
  const programs = new AttachedPrograms(world.pinRoot)
  const samples = new Samples()
  try {
    using _counting = enableStats()
    for (const { name, work, variants } of cases) {
      const variant = variants.find((one) => one.name === DIRECT)
      if (!variant) continue
      const before = programs.costs()
      const { count } = await run(work, variant, world, COUNTED_SECONDS)
      // Bytes come in segments of any size: what a hook costs is told per 64 KiB.
      const events = work.kind === 'throughput' ? count / 65_536 : count
      let sum = 0
      for (const [program, { runs, nanoseconds }] of grown(before, programs.costs())) {
        const row = `costs, ${name}: ${program}`
        sum += nanoseconds
        samples.add(`${row}: runs`, runs / events, '', '')
        samples.add(`${row}: per run`, nanoseconds / runs, 'ns', '')
        samples.add(`${row}: per event`, nanoseconds / events, 'ns', '')
      }
      samples.add(`costs, ${name}: all: per event`, sum / events, 'ns', '')
    }
  } finally {
    programs.close()
  }
  return samples.rows().map((row) => ({ ...row, value: round(row.value) }))
}
