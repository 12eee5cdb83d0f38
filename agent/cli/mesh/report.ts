// What the programs answer to /status, as far as the command line reads it (of a newer one there may be more), and what follows
// when several are put beside each other. Must not live here: asking (source.ts), showing (commands/).
import { messageOf, AmbitError } from '../../base/errors.ts'
import type { Program } from './source.ts'

export interface Certificate {
  readonly identity: string
  /** requested, valid, renewing, expired */
  readonly state: string
  /** Milliseconds since the epoch; 0: there is none yet. */
  readonly notBefore: number
  readonly notAfter: number
  readonly error: string
}

interface FromControl {
  readonly connected: boolean
  readonly lastResponse?: number
  readonly rejected?: readonly { readonly name: string; readonly reason: string }[]
}

export interface AgentReport {
  readonly version: string
  readonly node: string
  readonly leads: boolean
  readonly control: FromControl
  readonly kernel: {
    readonly name: string
    readonly lacks: readonly { readonly feature: string; readonly lacking: string }[]
    readonly tablesSynced: boolean
  }
  readonly kubelet: { readonly state: string; readonly cgroup: string; readonly detail: string }
  readonly certificates?: readonly Certificate[]
  readonly pods: readonly PodReport[]
}

export interface PodReport {
  readonly namespace: string
  readonly name: string
  readonly uid?: string
  readonly phase: string
  readonly reason: string
  readonly protected?: boolean
  readonly provedSeconds?: number | null
  readonly problem?: string
  readonly repairs?: number
  readonly plaintext?: string
  readonly identity?: string
  readonly connections?: number
}

export interface WaypointReport {
  readonly version: string
  readonly namespace: string
  readonly gateway: string
  readonly pod: string
  readonly node: string
  readonly ready: boolean
  readonly pending: readonly string[]
  readonly control: FromControl
  readonly certificates?: readonly Certificate[]
}

export interface ControlClient {
  readonly id: string
  readonly type: string
  readonly name: string
  readonly namespace: string
  readonly node: string
  readonly gateway?: string
  readonly settled: boolean
}

export interface ControlReport {
  readonly version: string
  readonly replica: string
  readonly leads?: boolean
  readonly revision: number
  readonly problems: { readonly error: number; readonly warning: number; readonly info: number }
  readonly clients: readonly ControlClient[]
}

export type Answer<Report> = { readonly program: Program } & (
  { readonly status: Report; readonly error?: undefined } | { readonly status?: undefined; readonly error: string }
)

export interface Reports {
  readonly agents: readonly Answer<AgentReport>[]
  readonly control: readonly Answer<ControlReport>[]
  readonly waypoints: readonly Answer<WaypointReport>[]
}

/** Questions at once: a cluster may have a thousand nodes, and each answer comes through its API server. */
const AT_ONCE = 16

/** Asks every program how it stands. Throws CLI_AGENT_ADDRESS only. */
export async function askAll(programs: readonly Program[]): Promise<Reports> {
  const answers: Answer<unknown>[] = []
  let next = 0
  const work = async (): Promise<void> => {
    for (let at = next++; at < programs.length; at = next++) answers[at] = await askOne(programs[at]!)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  const of = (kind: Program['kind']): Answer<unknown>[] => answers.filter((answer) => answer.program.kind === kind)
  return {
    agents: of('agent') as Answer<AgentReport>[],
    control: of('control') as Answer<ControlReport>[],
    waypoints: of('waypoint') as Answer<WaypointReport>[],
  }
}

async function askOne(program: Program): Promise<Answer<unknown>> {
  if (program.problem !== undefined) return { program, error: program.problem }
  try {
    return { program, status: await program.ask('/status') }
  } catch (error) {
    if (error instanceof AmbitError && error.code === 'CLI_AGENT_ADDRESS') throw error
    return { program, error: messageOf(error) }
  }
}

/** Protected, or none of the mesh's business. */
export function isWell({ phase, protected: held }: PodReport): boolean {
  return phase === 'out' || (phase === 'captured' && held === true)
}

/** in sync; behind (something is on its way to it); away (not connected); unknown (no control could be asked). */
export type Sync = 'in sync' | 'behind' | 'away' | 'unknown'

/** How far a program is with what control has for it, by control's own books: everything was acknowledged, or not. */
export function syncOf(
  connected: boolean,
  control: Reports['control'],
  isIt: (client: ControlClient) => boolean,
): Sync {
  if (!connected) return 'away'
  const clients = control.flatMap(({ status }) => status?.clients ?? []).filter(isIt)
  if (clients.length === 0) return 'unknown'
  return clients.every(({ settled }) => settled) ? 'in sync' : 'behind'
}

export function agentSync(report: AgentReport, control: Reports['control']): Sync {
  return syncOf(report.control.connected, control, (client) => client.type === 'agent' && client.node === report.node)
}

export function waypointSync(report: WaypointReport, control: Reports['control']): Sync {
  return syncOf(
    report.control.connected,
    control,
    (client) => client.type === 'waypoint' && client.namespace === report.namespace && client.name === report.pod,
  )
}

/** `2s`, `5m`, `7h`, `3d`, as kubectl writes ages. */
export function ageText(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)}s`
  if (seconds < 7_200) return `${Math.round(seconds / 60)}m`
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)}h` : `${Math.round(seconds / 86_400)}d`
}

/** `3 valid, the oldest 5h, the next ends in 19h`; what is wrong with some. */
export function certificatesText(certificates: readonly Certificate[], now: number): { text: string; well: boolean } {
  const held = certificates.filter(({ notAfter }) => notAfter > now)
  const wrong = certificates.filter(({ notAfter, error }) => notAfter <= now || error !== '')
  if (certificates.length === 0) return { text: 'none needed yet', well: true }
  const parts = [`${held.length} valid`]
  if (held.length > 0) {
    const oldest = Math.max(...held.map(({ notBefore }) => now - notBefore)) / 1000
    const next = Math.min(...held.map(({ notAfter }) => notAfter - now)) / 1000
    parts.push(`the oldest ${ageText(Math.max(0, oldest))}`, `the next ends in ${ageText(next)}`)
  }
  for (const { identity, state, error } of wrong.slice(0, 3)) parts.push(`${identity}: ${error || state}`)
  if (wrong.length > 3) parts.push(`${wrong.length - 3} more like these`)
  return { text: parts.join(', '), well: wrong.length === 0 }
}
