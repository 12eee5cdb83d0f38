// What of Ambit is in a cluster, in the order in which it is to go: what refuses others' changes first, then what would make things
// again, then what was made, then who was allowed to. Must not live here: the nodes (node-jobs.ts), removing (commands/uninstall.ts).
import { MANAGED_BY, MANAGED_LABEL } from '../../config/waypoint.ts'
import type { KubeClient } from '../../kube/client.ts'
import {
  CONFIG_KINDS,
  CONFIG_MAPS,
  DEPLOYMENTS,
  LEASES,
  SECRETS,
  SERVICE_ACCOUNTS,
  SERVICES,
} from '../../kube/mesh-kinds.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { VALIDATING } from '../check/trust.ts'
import { DAEMON_SETS } from '../check/cluster.ts'
import { listAll } from './cluster.ts'
import { JOBS } from './node-jobs.ts'

const of = (group: string, version: string, plural: string, kind: string, namespaced = true): Resource => ({
  group,
  version,
  plural,
  kind,
  namespaced,
})

const RBAC = 'rbac.authorization.k8s.io'
const CRDS = of('apiextensions.k8s.io', 'v1', 'customresourcedefinitions', 'CustomResourceDefinition', false)
const DISRUPTION_BUDGETS = of('policy', 'v1', 'poddisruptionbudgets', 'PodDisruptionBudget')
const AUTOSCALERS = of('autoscaling', 'v2', 'horizontalpodautoscalers', 'HorizontalPodAutoscaler')

/** On everything that the chart makes. */
export const PART_OF = 'app.kubernetes.io/part-of=ambit'

export interface Remain {
  readonly resource: Resource
  readonly namespace: string | undefined
  readonly name: string
  readonly uid: string | undefined
}

export interface RemainsOptions {
  readonly systemNamespace: string
  /** Name of the Helm release, whose records are Secrets. */
  readonly release: string
  /** The definitions that came with the chart, and with them every object of their kinds. */
  readonly crds: boolean
}

/** One step of the way down: all of it may go at once, and must be gone before the next. */
export interface Step {
  readonly what: string
  readonly remains: readonly Remain[]
}

/** Everything but the agents' DaemonSet and what is on the nodes. Throws KubeError, for a kind that may not be listed too. */
export async function remainsOf(client: KubeClient, options: RemainsOptions): Promise<Step[]> {
  const { systemNamespace: namespace, release, crds } = options
  const own = async (resource: Resource): Promise<Remain[]> =>
    find(client, resource, { labelSelector: PART_OF, ...(resource.namespaced ? { namespace } : {}) })
  const kind = (name: string): Resource => CONFIG_KINDS.find((one) => one.kind === name)!
  return await stepsOf([
    ['control', [own(DEPLOYMENTS), own(DISRUPTION_BUDGETS)]],
    ...madeSteps(client, namespace),
    [
      'what the install made',
      [
        own(kind('GatewayClass')),
        ...[
          SERVICES,
          CONFIG_MAPS,
          SECRETS,
          JOBS,
          of('networking.k8s.io', 'v1', 'networkpolicies', 'NetworkPolicy'),
          of('monitoring.coreos.com', 'v1', 'podmonitors', 'PodMonitor'),
          of('monitoring.coreos.com', 'v1', 'prometheusrules', 'PrometheusRule'),
          of(RBAC, 'v1', 'rolebindings', 'RoleBinding'),
          of(RBAC, 'v1', 'roles', 'Role'),
          of(RBAC, 'v1', 'clusterrolebindings', 'ClusterRoleBinding', false),
          of(RBAC, 'v1', 'clusterroles', 'ClusterRole', false),
          SERVICE_ACCOUNTS,
        ].map(own),
        find(client, SECRETS, { namespace, labelSelector: `owner=helm,name=${release}` }),
      ],
    ],
    ...(crds ? [['definitions of kinds, with all their objects', [own(CRDS)]] as Asked] : []),
  ])
}

/** What control made and wrote, which helm knows nothing of. */
export function madeOf(client: KubeClient, systemNamespace: string): Promise<Step[]> {
  return stepsOf(madeSteps(client, systemNamespace))
}

type Asked = [what: string, parts: Promise<Remain[]>[]]

function madeSteps(client: KubeClient, namespace: string): Asked[] {
  const named = (resource: Resource, name: string, within?: string): Promise<Remain[]> =>
    find(client, resource, {
      fieldSelector: `metadata.name=${name}`,
      ...(within === undefined ? {} : { namespace: within }),
    })
  const made = (resource: Resource): Promise<Remain[]> =>
    find(client, resource, { labelSelector: `${MANAGED_LABEL}=${MANAGED_BY}` })
  return [
    ['waypoints', [DEPLOYMENTS, AUTOSCALERS, DISRUPTION_BUDGETS, SERVICES, SERVICE_ACCOUNTS, CONFIG_MAPS].map(made)],
    [
      'what control wrote',
      [
        named(CONFIG_MAPS, 'ambit-root-cert'),
        named(LEASES, 'ambit-control-leader', namespace),
        named(SECRETS, 'ambit-ca', namespace),
        named(SECRETS, 'ambit-ca-roots', namespace),
        named(SECRETS, 'ambit-webhook', namespace),
      ],
    ],
  ]
}

function stepsOf(asked: readonly Asked[]): Promise<Step[]> {
  return Promise.all(asked.map(async ([what, parts]) => ({ what, remains: unique((await Promise.all(parts)).flat()) })))
}

/** What stands between people and the API server, and the agents themselves. */
export async function guardsOf(client: KubeClient): Promise<Remain[]> {
  return unique([
    ...(await find(client, VALIDATING, { labelSelector: PART_OF })),
    ...(await find(client, VALIDATING, { fieldSelector: 'metadata.name=ambit-validation' })),
  ])
}

export async function agentsOf(client: KubeClient, namespace: string): Promise<Remain[]> {
  return find(client, DAEMON_SETS, { namespace, labelSelector: PART_OF })
}

interface Scope {
  readonly namespace?: string
  readonly labelSelector?: string
  readonly fieldSelector?: string
}

async function find(client: KubeClient, resource: Resource, scope: Scope): Promise<Remain[]> {
  const objects = (await listAll<KubeObject>(client, resource, scope)) ?? []
  return objects
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map(({ metadata: { namespace, name, uid } }) => ({ resource, namespace, name, uid }))
}

function unique(all: readonly Remain[]): Remain[] {
  return [
    ...new Map(all.map((one) => [one.uid ?? `${one.resource.plural}/${one.namespace}/${one.name}`, one])).values(),
  ]
}
