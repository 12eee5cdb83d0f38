// The text of `ambit status`. Must not live here: what it says (mesh/report.ts).
import {
  agentSync,
  ageText,
  certificatesText,
  isWell,
  waypointSync,
  type AgentReport,
  type Answer,
  type PodReport,
  type Reports,
  type Sync,
} from '../mesh/report.ts'
import { paint, plural, table, type Colour } from '../print.ts'

/** `now`: milliseconds since the epoch, by which ages are told. */
export function statusText(reports: Reports, where: string, colour: boolean, now: number): string {
  const { agents, control, waypoints } = reports
  if (agents.length + control.length + waypoints.length === 0) return `Ambit is not installed on ${where}.\n`
  const parts = agents.map((answer) => agentText(answer, control, colour, now))
  if (control.length > 0) parts.unshift(controlText(control, colour))
  if (waypoints.length > 0) parts.push(waypointsText(reports, colour, now))
  return parts.join('\n')
}

function controlText(control: Reports['control'], colour: boolean): string {
  const rows = control.map(({ program, status }) =>
    status
      ? [
          program.name,
          paint('ready', 'green', colour),
          status.version,
          status.leads === undefined ? '-' : status.leads ? 'yes' : 'no',
          String(status.clients.length),
          String(status.clients.filter(({ settled }) => !settled).length),
          `${plural(status.problems.error, 'error')}, ${plural(status.problems.warning, 'warning')}`,
        ]
      : [program.name, paint('unreachable', 'red', colour)],
  )
  const headings = ['control', 'state', 'version', 'leads', 'clients', 'behind', 'resources']
  return table(headings, rows) + failures(control)
}

function waypointsText({ waypoints, control }: Reports, colour: boolean, now: number): string {
  const rows = waypoints.map(({ program, status }) => {
    if (!status) return [program.name, program.also[0] ?? '', paint('unreachable', 'red', colour)]
    const certificates = certificatesText(status.certificates ?? [], now)
    const sync = waypointSync(status, control)
    return [
      program.name,
      status.pod,
      status.ready ? paint('ready', 'green', colour) : paint(`waits for ${status.pending.join(', ')}`, 'red', colour),
      status.version,
      status.node,
      paint(sync, tintOf(sync), colour),
      certificates.text,
    ]
  })
  return (
    table(['waypoint', 'pod', 'state', 'version', 'node', 'configuration', 'certificates'], rows) + failures(waypoints)
  )
}

function failures(answers: readonly Answer<unknown>[]): string {
  const lines = answers.flatMap(({ program, error }) => (error === undefined ? [] : [`  ${program.name}: ${error}\n`]))
  return lines.length > 0 ? `\n${lines.join('')}` : ''
}

/** One node: its heading, what is to be known of it, the table of its pods, and what is wrong with some. */
function agentText(answer: Answer<AgentReport>, control: Reports['control'], colour: boolean, now: number): string {
  const { status: report, program } = answer
  if (!report) {
    const name = program.name === program.address ? program.address : `${program.name}  ${program.address}`
    return `${paint(name, 'bold', colour)}\n  ${paint('unreachable', 'red', colour)}  ${answer.error}\n`
  }
  const lines = [`${paint(report.node, 'bold', colour)}  ${paint(`ambit ${report.version}`, 'dim', colour)}`]
  for (const { what, text, tint } of facts(report, control, now)) {
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

function facts(report: AgentReport, answers: Reports['control'], now: number): Fact[] {
  const { leads, control, kernel, kubelet, pods } = report
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
    ...configFact(report, answers),
    ...(report.certificates === undefined ? [] : [certificateFact(report.certificates, now)]),
    { what: 'kubelet', text: whose, tint: kubelet.state === 'shared' ? 'yellow' : undefined },
  ]
}

function configFact(report: AgentReport, answers: Reports['control']): Fact[] {
  const rejected = report.control.rejected ?? []
  if (answers.length === 0 && rejected.length === 0) return []
  const sync = agentSync(report, answers)
  const names = rejected.map(({ name, reason }) => `${name}: ${reason}`).slice(0, 3)
  const refused = rejected.length > 0 ? `; refused ${plural(rejected.length, 'resource')}: ${names.join('; ')}` : ''
  return [{ what: 'config', text: `${sync}${refused}`, tint: refused ? 'red' : tintOf(sync) }]
}

function certificateFact(certificates: NonNullable<AgentReport['certificates']>, now: number): Fact {
  const { text, well } = certificatesText(certificates, now)
  return { what: 'certs', text, tint: well ? undefined : 'red' }
}

function tintOf(sync: Sync): Colour {
  return sync === 'in sync' ? 'green' : 'yellow'
}

function row(pod: PodReport, colour: boolean): string[] {
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
  return seconds === null ? 'never' : `${ageText(seconds)} ago`
}

function trouble(pod: PodReport): string[] {
  if (isWell(pod)) return []
  return [`${pod.namespace}/${pod.name}: ${pod.phase === 'captured' ? (pod.problem ?? '') : pod.reason}`]
}
