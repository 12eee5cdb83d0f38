// What each node says of itself: a Job on it runs `ambit agent --probe`, which tries the kernel's features with the rights of an agent.
// Must not live here: trying them (node/), Jobs (mesh/node-jobs.ts).
import { AmbitError } from '../../base/errors.ts'
import type { KubeClient } from '../../kube/client.ts'
import { runOnNodes, type HostPaths, type NodeOutcome } from '../mesh/node-jobs.ts'
import { error, ok, type Finding } from './finding.ts'

/** What the probe prints (node/probe.ts). */
interface Probe {
  readonly kernel: { readonly release: string; readonly arch: string }
  readonly rung: { readonly name: string }
  readonly cni?: { readonly file: string; readonly chained: boolean }
  readonly problems: readonly {
    readonly severity: 'error' | 'warning'
    readonly code: string
    readonly message: string
    readonly hint: string
  }[]
}

export interface ProbeNodesOptions {
  readonly namespace: string
  readonly image: string
  readonly paths: HostPaths
  readonly pullSecrets?: readonly { readonly name: string }[]
  /** The plugin must be in the network configuration by now. */
  readonly installed: boolean
  readonly timeoutMs: number
}

export async function probeFindings(
  client: KubeClient,
  nodes: readonly string[],
  options: ProbeNodesOptions,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const { namespace, image, paths, pullSecrets, timeoutMs } = options
  const args = [
    'agent',
    '--probe',
    '--node=$(NODE_NAME)',
    `--pin-root=${paths.pinRoot}`,
    `--cni-conf-dir=${paths.cniConf}`,
    `--cni-bin-dir=${paths.cniBin}`,
  ]
  let outcomes: NodeOutcome[]
  try {
    const task = { name: 'probe', namespace, image, args, paths, writes: false, timeoutMs }
    outcomes = await runOnNodes(client, { ...task, ...(pullSecrets ? { pullSecrets } : {}) }, nodes, signal)
  } catch (cause) {
    if (!(cause instanceof AmbitError) || cause.code !== 'KUBE_FORBIDDEN') throw cause
    return [
      error(
        'CHECK_PROBE_REFUSED',
        `namespace/${namespace}`,
        `The nodes could not be looked at: ${cause.message}.`,
        'Agents need the same: label the namespace pod-security.kubernetes.io/enforce=privileged, or ask for the right to create Jobs and Pods there.',
      ),
    ]
  }
  return outcomes.flatMap((outcome) => ofNode(outcome, options))
}

function ofNode({ node, exitCode, output, problem }: NodeOutcome, { image, installed }: ProbeNodesOptions): Finding[] {
  const about = `node/${node}`
  const probe = parse(output)
  if (!probe) {
    const pull = problem !== undefined && /Image/.test(problem)
    return [
      error(
        pull ? 'CHECK_IMAGE' : 'CHECK_PROBE_FAILED',
        about,
        pull
          ? `The node cannot get the image ${image}: ${problem}.`
          : `It could not be looked at: ${problem ?? `the probe ended with ${exitCode}: ${output.slice(0, 300)}`}.`,
        pull ? 'Name one that the nodes can pull: --image.' : '',
      ),
    ]
  }
  const found: Finding[] = probe.problems.map(({ severity, code, message, hint }) => ({
    severity,
    code,
    about,
    message,
    hint,
  }))
  if (installed && probe.cni && !probe.cni.chained)
    found.push(
      error(
        'CHECK_CNI_NOT_CHAINED',
        about,
        `Ambit's plugin is not in ${probe.cni.file}: new pods are captured a moment too late.`,
        'The agent of the node puts it there; its log says why it did not.',
      ),
    )
  if (probe.cni && !found.some(({ severity }) => severity === 'error')) {
    const { kernel, rung, cni } = probe
    found.unshift(
      ok(
        'CHECK_NODE',
        about,
        `Linux ${kernel.release} has what capture needs (rung ${rung.name}); network ${cni.file}.`,
      ),
    )
  }
  return found
}

function parse(output: string): Probe | undefined {
  // Before it there may be lines of Node's own.
  const line = output.trim().split('\n').at(-1) ?? ''
  try {
    const value = JSON.parse(line) as Partial<Probe>
    return value.kernel && Array.isArray(value.problems) ? (value as Probe) : undefined
  } catch {
    return undefined
  }
}
