// `ambit status`: how control, each node's agent and each of its pods, and the waypoints stand: enrolled, proved to be
// protected, as whom, with certificates of what age, with the configuration that control has. Must not live here: finding and
// asking programs (mesh/), judging any of it (they do), the text (status-text.ts).
import type { MeshFlags } from '../mesh/flags.ts'
import { agentSync, askAll, isWell, waypointSync, type Answer, type Reports } from '../mesh/report.ts'
import { openSource, type Place } from '../mesh/source.ts'
import { parseFormat, structured } from '../print.ts'
import type { Terminal } from '../terminal.ts'
import { statusText } from './status-text.ts'

export interface StatusOptions extends MeshFlags {
  readonly agent: readonly string[]
  readonly output: string
}

/** Runs the command; 1 if a program cannot be asked or a captured pod is not proved. Throws CLI_NO_AGENT, KUBE_*. */
export async function status(options: StatusOptions, terminal: Terminal, place: Place = {}): Promise<number> {
  const format = parseFormat(options.output)
  const source = await openSource(options, options.agent, place)
  try {
    const reports = ofNamespace(await askAll(await source.programs()), options.namespace)
    if (format === 'text') terminal.out(statusText(reports, source.where, terminal.colour, Date.now()))
    else terminal.out(structured(shown(reports), format))
    const all: readonly Answer<unknown>[] = [...reports.agents, ...reports.control, ...reports.waypoints]
    return all.length > 0 &&
      all.every(({ error }) => error === undefined) &&
      reports.agents.every((answer) => answer.status?.pods.every(isWell) === true)
      ? 0
      : 1
  } finally {
    source.close()
  }
}

function ofNamespace(reports: Reports, namespace: string | undefined): Reports {
  if (namespace === undefined) return reports
  return {
    control: reports.control,
    agents: reports.agents.map((answer) =>
      answer.status
        ? {
            ...answer,
            status: { ...answer.status, pods: answer.status.pods.filter((pod) => pod.namespace === namespace) },
          }
        : answer,
    ),
    waypoints: reports.waypoints.filter(({ program }) => program.name.startsWith(`${namespace}/`)),
  }
}

/** For machines: what each said, and whether it has what control has for it. */
function shown(reports: Reports): unknown {
  const entry = (answer: Answer<unknown>): object => ({
    address: answer.program.address,
    ...(answer.status === undefined ? { name: answer.program.name, error: answer.error } : { status: answer.status }),
  })
  const { agents, control, waypoints } = reports
  return {
    agents: agents.map((one) => ({
      ...entry(one),
      ...(one.status && control.length > 0 ? { config: agentSync(one.status, control) } : {}),
    })),
    ...(control.length > 0 ? { control: control.map(entry) } : {}),
    ...(waypoints.length > 0
      ? {
          waypoints: waypoints.map((one) => ({
            ...entry(one),
            ...(one.status ? { config: waypointSync(one.status, control) } : {}),
          })),
        }
      : {}),
  }
}
