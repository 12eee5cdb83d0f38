// Something done on nodes by a Job each, in the Ambit image with the agent's own rights and folders: looking (`agent --probe`), taking
// off (`agent --uninstall`). The Jobs are removed however this ends; should this process be killed, the cluster removes them by itself.
// Must not live here: what is done.
import { createHash } from 'node:crypto'
import { messageOf, AmbitError } from '../../base/errors.ts'
import { create, remove } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { PODS } from '../../kube/mesh-kinds.ts'
import { pathOf, type KubeObject, type Resource } from '../../kube/resource.ts'
import { listAll, podProblem, type ClusterPod } from './cluster.ts'

export const JOBS: Resource = { group: 'batch', version: 'v1', plural: 'jobs', kind: 'Job', namespaced: true }

/** What an agent has on a node; paths are the node's and the container's alike. */
export interface HostPaths {
  readonly pinRoot: string
  readonly bpffs: string
  readonly cgroups: string
  readonly cniConf: string
  readonly cniBin: string
  /** Sockets of agent and holder. */
  readonly run: string
  /** The last good configuration. */
  readonly state: string
}

/** The chart's defaults. */
export const DEFAULT_PATHS: HostPaths = {
  pinRoot: '/sys/fs/bpf/ambit',
  bpffs: '/sys/fs/bpf',
  cgroups: '/sys/fs/cgroup',
  cniConf: '/etc/cni/net.d',
  cniBin: '/opt/cni/bin',
  run: '/run/ambit',
  state: '/var/lib/ambit/agent',
}

export interface NodeTask {
  /** `probe`, `uninstall`: names the Jobs. */
  readonly name: string
  readonly namespace: string
  readonly image: string
  /** As the container's arguments. */
  readonly args: readonly string[]
  readonly paths: HostPaths
  /** Folders are mounted to be written to. */
  readonly writes: boolean
  readonly pullSecrets?: readonly { readonly name: string }[]
  /** For one node, in milliseconds. */
  readonly timeoutMs: number
}

export interface NodeOutcome {
  readonly node: string
  /** It ran to its end; `output` is what it wrote. */
  readonly exitCode?: number
  readonly output: string
  /** Why it did not run, in a sentence without a full stop. */
  readonly problem?: string
}

/** Jobs at once. */
const AT_ONCE = 16
const POLL_MS = 500
const CONTAINER = 'ambit'
/** After this the cluster removes a Job whose maker was killed. Seconds. */
const TTL_SECONDS = 120
/** The agent's (chart: ambit.agentSecurity), which says why each is needed, and why no AppArmor profile and this SELinux type. */
const CAPABILITIES = ['BPF', 'PERFMON', 'NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE', 'DAC_OVERRIDE']

/**
 * Runs the task on every node; outcomes in the order of the nodes. Asks first, without making anything, whether such a pod is
 * allowed there: rejects with that refusal (KUBE_FORBIDDEN by Pod Security, for one). When `signal` says so, what runs is
 * removed and CLI_INTERRUPTED is thrown.
 */
export async function runOnNodes(
  client: KubeClient,
  task: NodeTask,
  nodes: readonly string[],
  signal?: AbortSignal,
): Promise<NodeOutcome[]> {
  const [first] = nodes
  if (first === undefined) return []
  await wouldBeAllowed(client, task, first)
  const outcomes: NodeOutcome[] = []
  let next = 0
  const work = async (): Promise<void> => {
    for (let at = next++; at < nodes.length && !signal?.aborted; at = next++)
      outcomes[at] = await runOn(client, task, nodes[at]!, signal)
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, nodes.length) }, work))
  if (signal?.aborted)
    throw new AmbitError('CLI_INTERRUPTED', 'It was interrupted; nothing of it is left in the cluster.')
  return outcomes
}

/** Names of pods have 63 characters; those of nodes may have more. */
function jobName({ name }: NodeTask, node: string): string {
  const hash = createHash('sha256').update(node).digest('hex').slice(0, 8)
  return `ambit-${name}-${hash}`
}

async function wouldBeAllowed(client: KubeClient, task: NodeTask, node: string): Promise<void> {
  await client.ask({
    method: 'POST',
    path: pathOf(PODS, task.namespace),
    query: { dryRun: 'All' },
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { namespace: task.namespace, generateName: `${jobName(task, node)}-` },
      spec: podSpec(task, node),
    },
  })
}

async function runOn(
  client: KubeClient,
  task: NodeTask,
  node: string,
  signal: AbortSignal | undefined,
): Promise<NodeOutcome> {
  const { namespace } = task
  const name = jobName(task, node)
  let uid: string | undefined
  try {
    // Of a run before this one that was killed.
    if (await remove(client, JOBS, { namespace, name })) await gone(client, namespace, name)
    const job = await create(client, JOBS, jobOf(task, node, name))
    uid = job.metadata.uid
    return await outcome(client, task, node, uid ?? '', signal)
  } catch (error) {
    return { node, output: '', problem: messageOf(error) }
  } finally {
    // Its pod goes with it. What fails here is removed by the cluster.
    if (uid !== undefined) await remove(client, JOBS, { namespace, name, uid }).catch(() => false)
  }
}

async function gone(client: KubeClient, namespace: string, name: string): Promise<void> {
  for (let waited = 0; waited < 10_000; waited += POLL_MS) {
    const left = await listAll(client, JOBS, { namespace, fieldSelector: `metadata.name=${name}` })
    if (!left?.length) return
    await pause(POLL_MS)
  }
}

async function outcome(
  client: KubeClient,
  task: NodeTask,
  node: string,
  job: string,
  signal: AbortSignal | undefined,
): Promise<NodeOutcome> {
  const { namespace, timeoutMs } = task
  const end = performance.now() + timeoutMs
  let problem = 'no pod was made for it'
  while (performance.now() < end && !signal?.aborted) {
    const [pod] =
      (await listAll<ClusterPod>(client, PODS, {
        namespace,
        labelSelector: `batch.kubernetes.io/controller-uid=${job}`,
      })) ?? []
    if (pod) {
      const ended = pod.status?.containerStatuses?.find((one) => one.name === CONTAINER)?.state?.terminated
      if (ended) return { node, exitCode: ended.exitCode ?? -1, output: await logOf(client, pod) }
      problem = podProblem(pod) ?? 'it does not end'
      // The kubelet tries again for ever, but what it says will not change.
      if (/ErrImageNeverPull|InvalidImageName|CreateContainerConfigError|ImagePullBackOff/.test(problem)) break
      if (pod.status?.phase === 'Failed') break
    }
    await pause(POLL_MS)
  }
  return { node, output: '', problem }
}

async function logOf(client: KubeClient, pod: ClusterPod): Promise<string> {
  const { namespace = '', name } = pod.metadata
  const response = await client.open({ path: pathOf(PODS, namespace, name, 'log'), query: { limitBytes: 1 << 20 } })
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  if (response.statusCode === 200) return text
  throw new AmbitError('CLI_NODE_TASK', `what it wrote cannot be read: ${text.slice(0, 300)}`)
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function jobOf(task: NodeTask, node: string, name: string): KubeObject & { readonly spec: unknown } {
  const labels = {
    app: `ambit-${task.name}`,
    'app.kubernetes.io/name': 'ambit',
    'app.kubernetes.io/part-of': 'ambit',
    'ambit.io/dataplane-mode': 'none',
    'sidecar.istio.io/inject': 'false',
  }
  return {
    metadata: { namespace: task.namespace, name, labels },
    spec: {
      backoffLimit: 0,
      activeDeadlineSeconds: Math.ceil(task.timeoutMs / 1000),
      ttlSecondsAfterFinished: TTL_SECONDS,
      template: { metadata: { labels }, spec: podSpec(task, node) },
    },
  }
}

function podSpec(task: NodeTask, node: string): unknown {
  const { paths, writes } = task
  const folders: readonly (readonly [string, string, string])[] = [
    ['bpffs', paths.bpffs, 'Directory'],
    ['cgroups', paths.cgroups, 'Directory'],
    ['cni-conf', paths.cniConf, 'DirectoryOrCreate'],
    ['cni-bin', paths.cniBin, 'DirectoryOrCreate'],
    ...(writes
      ? [['run', paths.run, 'DirectoryOrCreate'] as const, ['state', paths.state, 'DirectoryOrCreate'] as const]
      : []),
  ]
  return {
    // Not by way of the scheduler: every node is meant, whatever its taints.
    nodeName: node,
    tolerations: [{ operator: 'Exists' }],
    restartPolicy: 'Never',
    // Without CNI, which may be what is wrong.
    hostNetwork: true,
    hostPID: true,
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 1,
    securityContext: { seLinuxOptions: { type: 'spc_t', level: 's0' } },
    ...(task.pullSecrets?.length ? { imagePullSecrets: task.pullSecrets } : {}),
    containers: [
      {
        name: CONTAINER,
        image: task.image,
        imagePullPolicy: 'IfNotPresent',
        args: task.args,
        env: [{ name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
        resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '256Mi' } },
        securityContext: {
          runAsUser: 0,
          runAsGroup: 0,
          runAsNonRoot: false,
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          seccompProfile: { type: 'RuntimeDefault' },
          appArmorProfile: { type: 'Unconfined' },
          capabilities: { drop: ['ALL'], add: CAPABILITIES },
        },
        volumeMounts: folders.map(([name, path]) => ({
          name,
          mountPath: path,
          readOnly: !writes && name !== 'cni-bin',
        })),
      },
    ],
    volumes: folders.map(([name, path, type]) => ({ name, hostPath: { path, type } })),
  }
}
