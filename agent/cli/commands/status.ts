// `ambit status`: how each node's agent stands, and each of its pods: enrolled, proved to be protected, as whom, with how many
// connections. Must not live here: finding agents (agents.ts), judging any of it (the agent does).
import { AmbitError, messageOf } from '../../base/errors.ts'
import { askAgent, localAgents } from '../agents.ts'
import { paint, parseFormat, plural, structured, table, type Colour } from '../print.ts'
import type { Terminal } from '../terminal.ts'

export interface StatusOptions {
  readonly agent: readonly string[]
  readonly name?: string
  readonly output: string
}

/** What an agent answers (node/observe/status.ts); of a newer one there may be more. */
interface Report {
  readonly version: string
  readonly node: string
  readonly leads: boolean
  readonly control: { readonly connected: boolean }
  readonly kernel: {
    readonly name: string
    readonly lacks: readonly { readonly feature: string; readonly lacking: string }[]
    readonly tablesSynced: boolean
  }
  readonly kubelet: { readonly state: string; readonly cgroup: string; readonly detail: string }
  readonly pods: readonly Pod[]
}

interface Pod {
  readonly namespace: string
  readonly name: string
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

type Answer = { readonly address: string } & (
  { readonly status: Report; readonly error?: undefined } | { readonly status?: undefined; readonly error: string }
)

/** Runs the command; 1 if an agent cannot be asked or a captured pod is not proved. Throws CLI_NO_AGENT. */
export async function status(options: StatusOptions, terminal: Terminal): Promise<number> {
  const format = parseFormat(options.output)
  const addresses = options.agent.length > 0 ? options.agent : localAgents(options.name)
  if (addresses.length === 0) {
    throw new AmbitError(
      'CLI_NO_AGENT',
      options.name ? `No sandbox '${options.name}' is running.` : 'No agent is here.',
      {
        hint: 'Name one by its admin address, --agent unix:PATH or --agent HOST:PORT, or start a sandbox: ambit sandbox up DIR.',
      },
    )
  }
  const answers = await Promise.all(addresses.map(ask))
  if (format !== 'text') terminal.out(structured({ agents: answers }, format))
  else terminal.out(answers.map((answer) => section(answer, terminal.colour)).join('\n'))
  return answers.every((answer) => answer.status?.pods.every(isWell) === true) ? 0 : 1
}

async function ask(address: string): Promise<Answer> {
  try {
    return { address, status: (await askAgent(address, '/status')) as Report }
  } catch (error) {
    if (error instanceof AmbitError && error.code === 'CLI_AGENT_ADDRESS') throw error
    return { address, error: messageOf(error) }
  }
}

function isWell({ phase, protected: held }: Pod): boolean {
  return phase === 'out' || (phase === 'captured' && held === true)
}

/** One node: its heading, what is to be known of it, the table of its pods, and what is wrong with some. */
function section(answer: Answer, colour: boolean): string {
  const { status: report } = answer
  if (!report)
    return `${paint(answer.address, 'bold', colour)}\n  ${paint('unreachable', 'red', colour)}  ${answer.error}\n`
  const lines = [`${paint(report.node, 'bold', colour)}  ${paint(`ambit ${report.version}`, 'dim', colour)}`]
  for (const { what, text, tint } of facts(report)) {
    lines.push(`  ${what.padEnd(9)}${tint ? paint(text, tint, colour) : text}`)
  }
  if (report.pods.length === 0) return `${lines.join('\n')}\n`
  const rows = report.pods.map((pod) => row(pod, colour))
  const headings = ['namespace', 'pod', 'state', 'proved', 'plaintext', 'connections', 'repairs', 'identity']
  const wrong = report.pods.flatMap((pod) => trouble(pod).map((text) => `  ${text}\n`))
  return `${lines.join('\n')}\n\n${table(headings, rows)}${wrong.length > 0 ? `\n${wrong.join('')}` : ''}`
}

interface Fact {
  readonly what: string
  readonly text: string
  readonly tint?: Colour | undefined
}

function facts({ leads, control, kernel, kubelet, pods }: Report): Fact[] {
  const well = pods.filter(isWell).length
  const lacks = kernel.lacks.map(({ lacking, feature }) => `without ${lacking} (${feature})`).join('; ')
  const tables = kernel.tablesSynced ? '' : '; its tables are not in force, everything goes through the agent'
  const whose =
    kubelet.state === 'exempt' ? `its probes pass (${kubelet.cgroup})` : `${kubelet.state}: ${kubelet.detail}`
  const taken = {
    what: 'agent',
    text: 'a newer one has taken over; this one ends what it carries',
    tint: 'yellow',
  } as const
  return [
    ...(leads ? [] : [taken]),
    {
      what: 'pods',
      text: `${plural(pods.length, 'pod')}, ${well} as they should be`,
      tint: well === pods.length ? undefined : 'red',
    },
    {
      what: 'kernel',
      text: `${kernel.name}${lacks && `: ${lacks}`}${tables}`,
      tint: kernel.name === 'full' ? undefined : 'yellow',
    },
    {
      what: 'control',
      text: control.connected ? 'connected' : 'away: the last good state is in force',
      tint: control.connected ? undefined : 'yellow',
    },
    { what: 'kubelet', text: whose, tint: kubelet.state === 'shared' ? 'yellow' : undefined },
  ]
}

function row(pod: Pod, colour: boolean): string[] {
  const state = pod.phase !== 'captured' ? pod.phase : pod.protected ? 'protected' : 'not proved'
  const tint: Colour = isWell(pod) ? (pod.phase === 'out' ? 'dim' : 'green') : 'red'
  return [
    pod.namespace,
    pod.name,
    paint(state, tint, colour),
    proved(pod.provedSeconds),
    pod.plaintext === undefined ? '-' : pod.plaintext === 'refuse' ? 'refused' : 'judged',
    pod.connections === undefined ? '-' : String(pod.connections),
    pod.repairs === undefined ? '-' : String(pod.repairs),
    pod.identity ? pod.identity : '-',
  ]
}

/** `3s ago`, as kubectl writes ages. */
function proved(seconds: number | null | undefined): string {
  if (seconds === undefined) return '-'
  if (seconds === null) return 'never'
  if (seconds < 120) return `${Math.round(seconds)}s ago`
  return seconds < 7_200 ? `${Math.round(seconds / 60)}m ago` : `${Math.round(seconds / 3_600)}h ago`
}

function trouble(pod: Pod): string[] {
  if (isWell(pod)) return []
  return [`${pod.namespace}/${pod.name}: ${pod.phase === 'captured' ? (pod.problem ?? '') : pod.reason}`]
}
