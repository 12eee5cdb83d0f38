// `ambit config dump` and `ambit config diff`: all that a program goes by, and where that differs from what control has for it. Must
// not live here: finding and asking programs (mesh/), what is in a resource (wire/).
import { messageOf } from '../../base/errors.ts'
import { changesOf, show, type Change } from '../mesh/differences.ts'
import type { MeshFlags } from '../mesh/flags.ts'
import type { AgentReport, ControlReport, WaypointReport } from '../mesh/report.ts'
import { findProgram, openSource, type Place, type Program } from '../mesh/source.ts'
import { paint, parseFormat, plural, structured } from '../print.ts'
import type { Terminal } from '../terminal.ts'
import { AmbitError } from '../../base/errors.ts'

export interface ConfigOptions extends MeshFlags {
  readonly output: string
}

/** Prints /config_dump of a node's agent, a waypoint or control; always 0. Throws CLI_NOT_THE_ONE, CLI_AGENT_UNREACHABLE, KUBE_*. */
export async function dump(
  words: string,
  options: ConfigOptions,
  terminal: Terminal,
  place: Place = {},
): Promise<number> {
  const format = parseFormat(options.output)
  const source = await openSource(options, [], place)
  try {
    const program = findProgram(await source.programs(), words, options.namespace)
    terminal.out(structured(await program.ask('/config_dump'), format === 'text' ? 'json' : format))
    return 0
  } finally {
    source.close()
  }
}

type Inventory = Readonly<Record<string, Readonly<Record<string, string>>>>

/** A resource that control and the program do not have alike. */
export interface Difference {
  readonly kind: string
  readonly name: string
  /** missing: the program lacks it; extra: control does not have it (any more); changed: both have it, not the same. */
  readonly what: 'missing' | 'extra' | 'changed'
  /** Of `changed`: `from` is control's, `to` the program's. */
  readonly changes?: readonly Change[]
  /** Why the program refused control's. */
  readonly refused?: string
}

export interface ConfigDiff {
  readonly program: string
  readonly control: string
  readonly connected: boolean
  /** Of each kind, alike on both sides. */
  readonly same: Readonly<Record<string, number>>
  readonly differences: readonly Difference[]
}

/** Resources that are looked into; of more only the names are told. */
const LOOKED_INTO = 50

/** Compares; 1 if there are differences, as diff. Throws as dump, and CLI_NO_CONTROL. */
export async function diff(
  words: string,
  options: ConfigOptions,
  terminal: Terminal,
  place: Place = {},
): Promise<number> {
  const format = parseFormat(options.output)
  const source = await openSource(options, [], place)
  try {
    const programs = await source.programs()
    const program = findProgram(programs, words, options.namespace)
    const found = await compare(program, programs)
    if (format === 'text') terminal.out(diffText(found, terminal.colour))
    else terminal.out(structured(found, format))
    return found.differences.length > 0 ? 1 : 0
  } finally {
    source.close()
  }
}

async function compare(program: Program, programs: readonly Program[]): Promise<ConfigDiff> {
  if (program.kind === 'control')
    throw new AmbitError('CLI_NOT_THE_ONE', 'Control has the configuration from the cluster itself.', {
      hint: 'Name a node or a waypoint; `ambit config dump control` shows what control has.',
    })
  const report = (await program.ask('/status')) as AgentReport | WaypointReport
  const control = await controlOf(program, report, programs)
  const client = program.kind === 'agent' ? `agent=${of(nodeOf(report))}` : `waypoint=${of(program.name)}`
  const wanted = (await control.ask(`/config/wanted?${client}`)) as Inventory
  const held = (await program.ask('/config/held')) as Inventory
  const same: Record<string, number> = {}
  const differences: Difference[] = []
  const refused = new Map(report.control.rejected?.map(({ name, reason }) => [name, reason]))
  for (const kind of new Set([...Object.keys(wanted), ...Object.keys(held)])) {
    const [theirs, own] = [wanted[kind] ?? {}, held[kind] ?? {}]
    same[kind] = 0
    for (const name of [...new Set([...Object.keys(theirs), ...Object.keys(own)])].toSorted()) {
      if (theirs[name] === own[name]) {
        same[kind]++
        continue
      }
      const what = own[name] === undefined ? 'missing' : theirs[name] === undefined ? 'extra' : 'changed'
      const query = `kind=${of(kind)}&name=${of(name)}`
      const reason = refused.get(name)
      differences.push({
        kind,
        name,
        what,
        ...(what === 'changed' && differences.length < LOOKED_INTO
          ? {
              changes: changesOf(
                await resource(control, `/config/wanted?${client}&${query}`),
                await resource(program, `/config/held?${query}`),
              ),
            }
          : {}),
        ...(reason === undefined ? {} : { refused: reason }),
      })
    }
  }
  const { connected } = report.control
  return { program: `${program.kind} ${program.name}`, control: control.name, connected, same, differences }
}

const of = encodeURIComponent

function nodeOf(report: AgentReport | WaypointReport): string {
  return report.node
}

async function resource(program: Program, path: string): Promise<unknown> {
  // It may be gone by now: then it differs no more in this way.
  return ((await program.ask(path).catch(() => undefined)) as { resource?: unknown } | undefined)?.resource
}

/** The replica the program is connected to, else the one that leads, else any that answers. */
async function controlOf(
  program: Program,
  report: AgentReport | WaypointReport,
  programs: readonly Program[],
): Promise<Program> {
  let best: { readonly program: Program; readonly rank: number } | undefined
  let problem = ''
  for (const one of programs.filter(({ kind }) => kind === 'control')) {
    try {
      const { clients, leads } = (await one.ask('/status')) as ControlReport
      const serves = clients.some(({ type, node, namespace, name }) =>
        program.kind === 'agent'
          ? type === 'agent' && node === report.node
          : type === 'waypoint' && 'pod' in report && namespace === report.namespace && name === report.pod,
      )
      const rank = serves ? 2 : leads === true ? 1 : 0
      if (!best || rank > best.rank) best = { program: one, rank }
    } catch (error) {
      problem = messageOf(error)
    }
  }
  if (best) return best.program
  throw new AmbitError('CLI_NO_CONTROL', `No control is there to compare with${problem ? `: ${problem}` : '.'}`, {
    hint: '`ambit config dump` shows what the program goes by.',
  })
}

const SIGNS = { missing: '+', extra: '-', changed: '~' } as const

function diffText({ program, control, connected, same, differences }: ConfigDiff, colour: boolean): string {
  const counts = Object.entries(same).map(([kind, count]) => `${count} ${kind}`)
  const cut = connected ? '' : `${program} is not connected to control.\n`
  if (differences.length === 0)
    return `${cut}${program} has all that control (${control}) has for it: ${counts.join(', ')}.\n`
  const lines = differences.flatMap((one) => {
    const tail = {
      missing: `control has it, ${program} does not`,
      extra: `${program} has it, control does not`,
      changed: one.changes ? plural(one.changes.length, 'difference') : 'differs',
    }[one.what]
    const tint = one.what === 'missing' ? 'green' : one.what === 'extra' ? 'red' : 'yellow'
    return [
      `${paint(`${SIGNS[one.what]} ${one.kind} ${one.name}`, tint, colour)}  (${tail})`,
      ...(one.refused === undefined ? [] : [`    refused: ${one.refused}`]),
      ...(one.changes ?? []).map(({ path, from, to }) => `    ${path}: control ${show(from)}, ${program} ${show(to)}`),
    ]
  })
  return `${cut}${lines.join('\n')}\n\n${plural(differences.length, 'resource')} not as control (${control}) has it; alike: ${counts.join(', ')}.\n`
}
