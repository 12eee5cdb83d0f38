// `ambit check`: before an install whether the cluster can take it, afterwards also how every part of it stands. Must not live here: any
// one check (check/).
import { AmbitError } from '../../base/errors.ts'
import { NAMESPACES } from '../../kube/mesh-kinds.ts'
import { read } from '../../kube/apply.ts'
import {
  kindFindings,
  linuxNodes,
  neighbourFindings,
  nodeFindings,
  rightFindings,
  step,
  versionFindings,
} from '../check/cluster.ts'
import { error, type Finding, type Severity } from '../check/finding.ts'
import {
  agentDaemonSet,
  enrolmentFindings,
  leaderFindings,
  programFindings,
  waypointFindings,
  workloadFindings,
  type AgentDaemonSet,
} from '../check/health.ts'
import { probeFindings } from '../check/nodes.ts'
import { bundleFindings, webhookFindings } from '../check/trust.ts'
import { openCluster, type ClusterSource } from '../mesh/cluster.ts'
import { pathsOf } from '../mesh/host-paths.ts'
import type { MeshFlags } from '../mesh/flags.ts'
import { askAll } from '../mesh/report.ts'
import { requireCluster, type Place } from '../mesh/source.ts'
import { paint, parseFormat, plural, structured, type Colour } from '../print.ts'
import { interruptible } from '../signals.ts'
import type { Terminal } from '../terminal.ts'
import { version } from './version.ts'

export interface CheckOptions extends MeshFlags {
  readonly image?: string
  /** False: no Jobs on the nodes. */
  readonly probe: boolean
  readonly timeout: number
  readonly output: string
}

export interface Check {
  readonly installed: boolean
  readonly findings: readonly Finding[]
}

/** Runs the command; 1 if there is an error among the findings. Throws KUBE_UNREACHABLE and the like, CLI_INTERRUPTED. */
export async function check(options: CheckOptions, terminal: Terminal, place: Place = {}): Promise<number> {
  const format = parseFormat(options.output)
  const source = await openCluster(requireCluster(options, place))
  try {
    const found = await interruptible((signal) => examine(source, options, signal))
    if (format === 'text') terminal.out(checkText(found, terminal.colour))
    else terminal.out(structured(found, format))
    return found.findings.some(({ severity }) => severity === 'error') ? 1 : 0
  } finally {
    source.close()
  }
}

async function examine(source: ClusterSource, options: CheckOptions, signal: AbortSignal): Promise<Check> {
  const { client, systemNamespace } = source
  const agents = await agentDaemonSet(client, systemNamespace).catch(() => undefined)
  const installed = agents !== undefined
  const findings: Finding[] = []
  const add = async (about: string, task: () => Promise<Finding[]>): Promise<void> => {
    if (signal.aborted) throw new AmbitError('CLI_INTERRUPTED', 'It was interrupted.')
    findings.push(...(await step(about, task)))
  }
  await add('cluster', () => versionFindings(client))
  if (!installed) await add('cluster', () => rightFindings(client, systemNamespace))
  await add('cluster', () => kindFindings(client, installed))
  await add('cluster', () => neighbourFindings(client))
  let ready: string[] = []
  await add('nodes', async () => {
    const nodes = await linuxNodes(client)
    const bad = nodeFindings(nodes)
    const silent = new Set(bad.filter(({ code }) => code === 'CHECK_NODE_NOT_READY').map(({ about }) => about))
    ready = nodes.map(({ metadata }) => metadata.name).filter((name) => !silent.has(`node/${name}`))
    return bad
  })
  if (options.probe) await add('nodes', () => probeNodes(source, options, agents, ready, signal))
  if (agents) await addHealth(source, agents, add)
  return { installed, findings }
}

async function probeNodes(
  source: ClusterSource,
  options: CheckOptions,
  agents: AgentDaemonSet | undefined,
  nodes: readonly string[],
  signal: AbortSignal,
): Promise<Finding[]> {
  const { client, systemNamespace } = source
  const pod = agents?.spec.template.spec
  const image = options.image ?? pod?.containers[0]?.image ?? `ambit/ambit:${version()}`
  // Pods of the cluster's own namespace pass, like those of Ambit's, without an agent and before there is one.
  const namespace = (await read(client, NAMESPACES, { name: systemNamespace })) ? systemNamespace : 'kube-system'
  return probeFindings(
    client,
    nodes,
    {
      namespace,
      image,
      paths: pathsOf(pod?.containers[0]?.args),
      ...(pod?.imagePullSecrets ? { pullSecrets: pod.imagePullSecrets } : {}),
      installed: agents !== undefined,
      timeoutMs: options.timeout * 1000,
    },
    signal,
  )
}

type Add = (about: string, task: () => Promise<Finding[]>) => Promise<void>

async function addHealth(source: ClusterSource, agents: AgentDaemonSet, add: Add): Promise<void> {
  const { client, systemNamespace } = source
  const now = Date.now()
  await add('workloads', () => workloadFindings(client, systemNamespace, agents))
  await add('control', () => leaderFindings(client, systemNamespace, now))
  await add('webhook', () => webhookFindings(client, systemNamespace, now))
  await add('configmap/ambit-root-cert', () => bundleFindings(client, systemNamespace, now))
  await add('programs', async () => {
    const reports = await askAll(await source.programs())
    const { findings, translation } = await enrolmentFindings(client, systemNamespace, reports)
    const none = reports.agents.length === 0
    return [
      ...(none ? [error('CHECK_UNREACHABLE', 'daemonset/ambit-agent', 'There is no pod of an agent.', '')] : []),
      ...programFindings(reports, version(), now),
      ...findings,
      ...waypointFindings(translation),
    ]
  })
}

const MARKS: Readonly<Record<Severity, readonly [mark: string, colour: Colour]>> = {
  ok: ['ok     ', 'green'],
  warning: ['warning', 'yellow'],
  error: ['error  ', 'red'],
}

function checkText({ installed, findings }: Check, colour: boolean): string {
  const count = (severity: Severity): number => findings.filter((one) => one.severity === severity).length
  const lines = findings.map(({ severity, code, about, message, hint }) => {
    const [mark, tint] = MARKS[severity]
    const tail = severity === 'ok' ? '' : ` ${paint(`[${code}]`, 'dim', colour)}${hint ? `\n           ${hint}` : ''}`
    return `${paint(mark, tint, colour)}  ${about}: ${message}${tail}\n`
  })
  const errors = count('error')
  const verdict = installed
    ? errors > 0
      ? 'Ambit is installed and something is wrong'
      : 'Ambit is installed and well'
    : errors > 0
      ? 'Ambit cannot be installed like this'
      : 'Ambit can be installed'
  return `${lines.join('')}\n${verdict}: ${plural(errors, 'error')}, ${plural(count('warning'), 'warning')}, ${count('ok')} ok.\n`
}
