// A mesh in a cluster: its pods by their labels, each asked at its admin server through the API server (kube/pod-port.ts), which
// takes `list` on pods and `get`, `create` on pods/portforward in Ambit's namespace and in those of waypoints. Must not live
// here: what they answer (commands/).
import { messageOf } from '../../base/errors.ts'
import { MANAGED_BY, MANAGED_LABEL } from '../../config/waypoint.ts'
import { gatewayName } from '../../config/labels.ts'
import { splitHostPort } from '../../base/ip.ts'
import { KubeClient } from '../../kube/client.ts'
import { connect } from '../../kube/connection.ts'
import { list } from '../../kube/list.ts'
import { PODS } from '../../kube/mesh-kinds.ts'
import { askPod } from '../../kube/pod-port.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import type { Scope } from '../../kube/watch.ts'
import { AmbitError } from '../../base/errors.ts'
import type { ClusterFlags } from './flags.ts'
import { parseAnswer } from './local.ts'
import type { Program, ProgramKind, Source } from './source.ts'

export interface ClusterPod extends KubeObject {
  readonly spec: {
    readonly nodeName?: string
    readonly hostNetwork?: boolean
    readonly containers: readonly {
      readonly name: string
      readonly image?: string
      readonly args?: readonly string[]
    }[]
  }
  readonly status?: {
    readonly phase?: string
    readonly podIP?: string
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[]
    readonly containerStatuses?: readonly ContainerStatus[]
    readonly initContainerStatuses?: readonly ContainerStatus[]
  }
}

interface ContainerStatus {
  readonly name: string
  readonly ready: boolean
  readonly restartCount: number
  readonly state?: {
    readonly waiting?: { readonly reason?: string; readonly message?: string }
    readonly terminated?: { readonly reason?: string; readonly exitCode?: number }
  }
}

export interface ClusterSource extends Source {
  readonly type: 'cluster'
  readonly client: KubeClient
  readonly namespace: string
  readonly systemNamespace: string
}

/** Pages of a list; objects of other kinds are larger than pods. */
const PAGE = 500
/** Where the programs have their admin servers unless they are told otherwise. */
const ADMIN_PORT: Readonly<Record<ProgramKind, number>> = { agent: 15000, control: 15014, waypoint: 15000 }

/** Nothing is asked yet. Throws KUBE_NO_CLUSTER, KUBE_CONFIG_INVALID. */
export async function openCluster(flags: ClusterFlags): Promise<ClusterSource> {
  const { kubeconfig, context, systemNamespace } = flags
  const connection = await connect({
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(context === undefined ? {} : { context }),
  })
  const client = new KubeClient(connection, { userAgent: 'ambit-cli' })
  return {
    type: 'cluster',
    where: connection.server.host,
    client,
    namespace: flags.namespace ?? connection.namespace,
    systemNamespace,
    programs: () => programsOf(client, systemNamespace),
    close: () => client.close(),
  }
}

/** All objects of a kind; undefined where the cluster does not have the kind. Throws KubeError. */
export async function listAll<T extends KubeObject>(
  client: KubeClient,
  resource: Resource,
  scope: Omit<Scope, 'resource'> = {},
): Promise<T[] | undefined> {
  const found: T[] = []
  try {
    await list(client, { ...scope, resource, pageSize: PAGE, onPage: (items) => void found.push(...(items as T[])) })
  } catch (error) {
    if (error instanceof AmbitError && error.code === 'KUBE_NOT_FOUND') return undefined
    throw error
  }
  return found
}

async function programsOf(client: KubeClient, systemNamespace: string): Promise<Program[]> {
  const own = await listAll<ClusterPod>(client, PODS, {
    namespace: systemNamespace,
    labelSelector: 'app in (ambit-agent, ambit-control)',
  })
  const waypoints = await waypointPods(client)
  return [...(own ?? []), ...waypoints]
    .filter((pod) => pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed')
    .map((pod) => programOf(client, pod))
    .toSorted(
      (a, b) =>
        ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind) ||
        a.name.localeCompare(b.name, 'en', { numeric: true }) ||
        a.address.localeCompare(b.address),
    )
}

const ORDER: readonly ProgramKind[] = ['control', 'agent', 'waypoint']

/** Pods that control made for Gateways, in all namespaces. */
export async function waypointPods(client: KubeClient): Promise<ClusterPod[]> {
  const labelSelector = `gateway.networking.k8s.io/gateway-name,${MANAGED_LABEL}=${MANAGED_BY}`
  return (await listAll<ClusterPod>(client, PODS, { labelSelector })) ?? []
}

function programOf(client: KubeClient, pod: ClusterPod): Program {
  const { namespace = '', name: podName, labels = {} } = pod.metadata
  const kind: ProgramKind =
    labels['app'] === 'ambit-agent' ? 'agent' : labels['app'] === 'ambit-control' ? 'control' : 'waypoint'
  const name =
    kind === 'agent'
      ? (pod.spec.nodeName ?? '')
      : kind === 'control'
        ? podName
        : `${namespace}/${gatewayName(labels) ?? podName}`
  const address = `pod/${podName}`
  const port = adminPort(pod, kind)
  const problem = podProblem(pod) ?? (port === undefined ? 'its admin server is not on TCP' : undefined)
  return {
    kind,
    name,
    also: [podName, address],
    address,
    ...(problem === undefined ? {} : { problem }),
    async ask(path) {
      if (port === undefined) throw unreachable(pod, 0, new Error(problem ?? ''))
      try {
        const answer = await askPod(client, { namespace, pod: podName, port }, path)
        return parseAnswer(address, path, answer.status, answer.body)
      } catch (error) {
        if (error instanceof AmbitError && error.code.startsWith('CLI_')) throw error
        throw unreachable(pod, port, error)
      }
    },
  }
}

function unreachable(pod: ClusterPod, port: number, error: unknown): AmbitError {
  const { namespace, name } = pod.metadata
  const refused = error instanceof AmbitError && error.code === 'KUBE_FORBIDDEN'
  const text = error instanceof AmbitError ? error.message : messageOf(error)
  // The runtime's own words name a dozen ids before they come to this.
  const why = /connection refused/.test(text) ? `nothing answers on its port ${port}, not yet or not any more` : text
  return new AmbitError('CLI_AGENT_UNREACHABLE', `Pod ${namespace}/${name} cannot be asked: ${why}.`, {
    hint: refused ? `Ask for get and create on pods/portforward in ${namespace}.` : 'See its log.',
  })
}

/** What keeps a pod from running, in the kubelet's own words; undefined when it runs. */
export function podProblem(pod: ClusterPod): string | undefined {
  const { phase = 'Unknown', containerStatuses = [], initContainerStatuses = [], conditions = [] } = pod.status ?? {}
  for (const { name, state } of [...initContainerStatuses, ...containerStatuses]) {
    const { waiting, terminated } = state ?? {}
    if (waiting?.reason && waiting.reason !== 'PodInitializing')
      return `${name}: ${waiting.reason}${waiting.message ? `: ${waiting.message}` : ''}`
    if (terminated && terminated.exitCode !== 0)
      return `${name}: ${terminated.reason ?? 'ended'} (exit ${terminated.exitCode})`
  }
  if (phase === 'Running') return undefined
  const scheduled = conditions.find(({ type, status }) => type === 'PodScheduled' && status === 'False')
  return scheduled ? `it is not scheduled: ${scheduled.message ?? ''}` : `it is ${phase}`
}

/** By its flags; undefined when it is a unix socket only. */
function adminPort(pod: ClusterPod, kind: ProgramKind): number | undefined {
  const given = pod.spec.containers.flatMap(({ args = [] }) =>
    args.flatMap((arg, at) =>
      arg === '--admin' ? [args[at + 1] ?? ''] : arg.startsWith('--admin=') ? [arg.slice('--admin='.length)] : [],
    ),
  )
  if (given.length === 0) return ADMIN_PORT[kind]
  const [port] = given.filter((one) => !one.startsWith('unix:')).map((one) => splitHostPort(one)?.port)
  return port
}
