// `ambit uninstall`: takes Ambit off a cluster so that nothing of it is left and every pod goes on talking, plainly. The nodes come first,
// while everything around them still is as they know it. Can be run again after it was cut off. Must not live here: what there is
// (mesh/remains.ts), what is done on a node (node/).
import { AmbitError } from '../../base/errors.ts'
import { remove } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { PODS } from '../../kube/mesh-kinds.ts'
import { pathOf } from '../../kube/resource.ts'
import { DAEMON_SETS, linuxNodes } from '../check/cluster.ts'
import { agentDaemonSet, type AgentDaemonSet } from '../check/health.ts'
import { listAll, openCluster, type ClusterPod, type ClusterSource } from '../mesh/cluster.ts'
import type { MeshFlags } from '../mesh/flags.ts'
import { pathsOf } from '../mesh/host-paths.ts'
import { runOnNodes, type NodeOutcome } from '../mesh/node-jobs.ts'
import { agentsOf, guardsOf, madeOf, remainsOf, type Remain, type Step } from '../mesh/remains.ts'
import { requireCluster, type Place } from '../mesh/source.ts'
import { plural } from '../print.ts'
import { interruptible } from '../signals.ts'
import type { Terminal } from '../terminal.ts'
import { some } from '../check/finding.ts'

export interface UninstallOptions extends MeshFlags {
  readonly yes: boolean
  readonly dryRun: boolean
  readonly crds: boolean
  /** The nodes, the agents and the webhook, and nothing else: what `helm uninstall` has done before it removes the rest. */
  readonly nodesOnly: boolean
  /** What control made and wrote, and nothing else: what `helm uninstall` has done after it removed the rest. */
  readonly madeOnly: boolean
  readonly image?: string
  readonly timeout: number
}

/** Agents pods get this label asked of their nodes, which none has: so they leave, and what is known of them stays until the nodes are done. */
const NOWHERE = 'ambit.io/uninstalling'
const POLL_MS = 500

/** Runs the command; 1 if a node could not be done, or something is left. Throws KUBE_*, CLI_NOT_CONFIRMED, CLI_INTERRUPTED. */
export async function uninstall(options: UninstallOptions, terminal: Terminal, place: Place = {}): Promise<number> {
  const source = await openCluster(requireCluster(options, place))
  try {
    return await interruptible((signal) => run(source, options, terminal, signal))
  } finally {
    source.close()
  }
}

async function run(
  source: ClusterSource,
  options: UninstallOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const { client, systemNamespace, where } = source
  if (options.madeOnly) {
    for (const step of await madeOf(client, systemNamespace)) await removeStep(client, step, systemNamespace, terminal)
    return 0
  }
  const agents = await agentDaemonSet(client, systemNamespace)
  const guards = await guardsOf(client)
  const release = agents?.metadata.labels?.['app.kubernetes.io/instance'] ?? 'ambit'
  const steps = options.nodesOnly ? [] : await remainsOf(client, { systemNamespace, release, crds: options.crds })
  const rest = steps.filter(({ remains }) => remains.length > 0)
  if (!agents && guards.length === 0 && rest.length === 0) {
    terminal.out(`Nothing of Ambit is in ${where}${options.nodesOnly ? ' but what helm removes' : ''}.\n`)
    return 0
  }
  const nodes = agents ? (await linuxNodes(client)).map(({ metadata }) => metadata.name) : []
  terminal.out(planText(where, guards, agents, nodes, rest))
  if (options.dryRun) return 0
  if (!options.yes && !(await terminal.confirm(`Take Ambit off ${where}?`))) {
    throw new AmbitError('CLI_NOT_CONFIRMED', 'Nothing was done.', { hint: 'Answer y, or give --yes.' })
  }
  terminal.out('\n')
  for (const one of guards) await removeOne(client, one, terminal)
  const left = agents ? await offNodes(source, options, agents, nodes, terminal, signal) : []
  if (left.length > 0) {
    // Without what is known of the agents it could not be tried again.
    terminal.err(
      `\n${plural(left.length, 'node')} not done; the rest stays until ${left.length === 1 ? 'it is' : 'they are'}. Run this again, or on the node: ` +
        `ambit agent --uninstall, as its DaemonSet has it (see ambit agent --help).\n`,
    )
    return 1
  }
  for (const one of await agentsOf(client, systemNamespace)) await removeOne(client, one, terminal)
  for (const step of rest) await removeStep(client, step, systemNamespace, terminal)
  if (options.nodesOnly) return 0
  const after = await remainsOf(client, { systemNamespace, release, crds: options.crds })
  const names = after.flatMap(({ remains }) => remains.map(describe))
  if (names.length > 0) {
    terminal.err(`\nStill there: ${some(names)}.\n`)
    return 1
  }
  terminal.out(`\nNothing of Ambit is left in ${where}; the namespace ${systemNamespace} is yours to delete.\n`)
  return 0
}

/** Takes the agents away and what they had in the kernels; the nodes that could not be done. */
async function offNodes(
  { client, systemNamespace }: ClusterSource,
  options: UninstallOptions,
  agents: AgentDaemonSet,
  nodes: readonly string[],
  terminal: Terminal,
  signal: AbortSignal,
): Promise<string[]> {
  const { containers, imagePullSecrets } = agents.spec.template.spec
  const [container] = containers
  const paths = pathsOf(container?.args)
  await client.ask({
    method: 'PATCH',
    path: pathOf(DAEMON_SETS, systemNamespace, agents.metadata.name),
    contentType: 'application/merge-patch+json',
    body: { spec: { template: { spec: { nodeSelector: { [NOWHERE]: 'true' } } } } },
  })
  await leaving(client, systemNamespace, options.timeout * 1000, signal)
  terminal.out('The agents are told to end.\n')
  const task = {
    name: 'uninstall',
    namespace: systemNamespace,
    image: options.image ?? container?.image ?? '',
    args: [
      'agent',
      '--uninstall',
      `--pin-root=${paths.pinRoot}`,
      `--holder=${paths.run}/holder.sock`,
      `--state-dir=${paths.state}`,
      `--cni-conf-dir=${paths.cniConf}`,
      `--cni-bin-dir=${paths.cniBin}`,
    ],
    paths,
    writes: true,
    ...(imagePullSecrets ? { pullSecrets: imagePullSecrets } : {}),
    timeoutMs: options.timeout * 1000,
  }
  const outcomes = await runOnNodes(client, task, nodes, signal)
  for (const outcome of outcomes) terminal.out(`node/${outcome.node}: ${outcomeText(outcome)}\n`)
  return outcomes.filter(({ exitCode }) => exitCode !== 0).map(({ node }) => node)
}

/** Until every agent is on its way down: from then on none puts anything back. */
async function leaving(client: KubeClient, namespace: string, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const end = performance.now() + timeoutMs
  while (performance.now() < end && !signal.aborted) {
    const pods = (await listAll<ClusterPod>(client, PODS, { namespace, labelSelector: 'app=ambit-agent' })) ?? []
    if (pods.every(({ metadata }) => metadata.deletionTimestamp !== undefined)) return
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
  if (signal.aborted)
    throw new AmbitError('CLI_INTERRUPTED', 'It was interrupted while the agents were told to end; run it again.')
  throw new AmbitError('CLI_NODE_TASK', `The agents do not end within ${timeoutMs / 1000} s.`, {
    hint: 'Does the controller manager run? Nothing was removed from the nodes yet.',
  })
}

function outcomeText({ exitCode, output, problem }: NodeOutcome): string {
  if (exitCode === 0) return 'done, its pods talk plainly'
  const last = output.trim().split('\n').at(-1) ?? ''
  return problem ?? `failed: ${last}`
}

async function removeStep(
  client: KubeClient,
  { what, remains }: Step,
  systemNamespace: string,
  terminal: Terminal,
): Promise<void> {
  for (const one of remains) await removeOne(client, one, terminal)
  if (what !== 'control') return
  // While one is there it makes again what is removed next.
  for (let waited = 0; waited < 60_000; waited += POLL_MS) {
    const pods = await listAll(client, PODS, { namespace: systemNamespace, labelSelector: 'app=ambit-control' })
    if (!pods?.length) return
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

async function removeOne(client: KubeClient, one: Remain, terminal: Terminal): Promise<void> {
  if (await remove(client, one.resource, one)) terminal.out(`${describe(one)} removed\n`)
}

function describe({ resource, namespace, name }: Remain): string {
  return `${resource.kind.toLowerCase()}/${namespace === undefined ? '' : `${namespace}/`}${name}`
}

function planText(
  where: string,
  guards: readonly Remain[],
  agents: AgentDaemonSet | undefined,
  nodes: readonly string[],
  steps: readonly Step[],
): string {
  const lines = guards.map((one) => `  ${describe(one)}`)
  if (agents)
    lines.push(`  the agents, and what they have in the kernel and the network configuration of ${some(nodes)}`)
  for (const { what, remains } of steps) lines.push(`  ${what}: ${some(remains.map(describe), 8)}`)
  return `To be removed from ${where}, in this order:\n${lines.join('\n')}\n`
}
