// Whether a cluster can take Ambit, by what its API says: version, nodes, the kinds it has, the rights of who asks, other meshes. Must
// not live here: what only a node itself can tell (nodes.ts), how an installed Ambit stands (health.ts).
import { AmbitError, messageOf } from '../../base/errors.ts'
import { versionsOf } from '../../config/kinds.ts'
import type { KubeClient } from '../../kube/client.ts'
import { CONFIG_KINDS, CONFIG_MAPS, DEPLOYMENTS, NODES } from '../../kube/mesh-kinds.ts'
import { read } from '../../kube/apply.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { listAll } from '../mesh/cluster.ts'
import { error, ok, some, warning, type Finding } from './finding.ts'

/** Tokens tell the node of their pod since then (KEP 4193), by which an agent is known to be on it. */
const MIN_MINOR = 30

export const DAEMON_SETS: Resource = {
  group: 'apps',
  version: 'v1',
  plural: 'daemonsets',
  kind: 'DaemonSet',
  namespaced: true,
}

export async function versionFindings(client: KubeClient): Promise<Finding[]> {
  const { gitVersion } = await client.ask<{ gitVersion: string }>({ path: '/version' })
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(gitVersion) ?? []
  const enough = Number(major) > 1 || Number(minor) >= MIN_MINOR
  return [
    enough
      ? ok('CHECK_VERSION', 'cluster', `Kubernetes ${gitVersion}.`)
      : error(
          'CHECK_VERSION',
          'cluster',
          `Kubernetes ${gitVersion} does not tell in a token on which node its pod runs.`,
          `Use 1.${MIN_MINOR} or newer.`,
        ),
  ]
}

export interface ClusterNode extends KubeObject {
  readonly spec?: { readonly unschedulable?: boolean }
  readonly status?: {
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[]
    readonly nodeInfo?: {
      readonly operatingSystem: string
      readonly architecture: string
      readonly kernelVersion: string
      readonly containerRuntimeVersion: string
      readonly kubeletVersion: string
    }
  }
}

/** Nodes that an agent is for. */
export async function linuxNodes(client: KubeClient): Promise<ClusterNode[]> {
  const nodes = (await listAll<ClusterNode>(client, NODES)) ?? []
  return nodes
    .filter(({ status }) => (status?.nodeInfo?.operatingSystem ?? 'linux') === 'linux')
    .toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name, 'en', { numeric: true }))
}

/** As the kubelets report them; the kernel's features are for the probe to tell. */
export function nodeFindings(nodes: readonly ClusterNode[]): Finding[] {
  if (nodes.length === 0)
    return [error('CHECK_NODES', 'cluster', 'There is no Linux node.', 'Ambit runs on Linux nodes only.')]
  return nodes.flatMap(({ metadata: { name }, status }) => {
    const ready = status?.conditions?.find(({ type }) => type === 'Ready')
    const about = `node/${name}`
    const found: Finding[] = []
    if (ready?.status !== 'True')
      found.push(
        error('CHECK_NODE_NOT_READY', about, `It is not ready: ${ready?.message ?? 'its kubelet is silent'}.`, ''),
      )
    const architecture = status?.nodeInfo?.architecture
    if (architecture !== undefined && architecture !== 'amd64' && architecture !== 'arm64')
      found.push(
        error('CHECK_ARCHITECTURE', about, `Ambit does not run on ${architecture}.`, 'It runs on amd64 and arm64.'),
      )
    return found
  })
}

interface ApiGroup {
  readonly versions?: readonly { readonly version: string }[]
}

/** Kinds that people write for the mesh: there in a version that is read, or not there at all before the install. */
export async function kindFindings(client: KubeClient, installed: boolean): Promise<Finding[]> {
  const served = await servedVersions(client, new Set(CONFIG_KINDS.map(({ group }) => group)))
  const versions = ({ group, kind }: Resource): readonly string[] => served.get(`${group}/${kind}`) ?? []
  const missing = CONFIG_KINDS.filter(
    (one) => !versionsOf(one.group, one.kind).some((version) => versions(one).includes(version)),
  )
  const older = missing.filter((one) => versions(one).length > 0)
  const found = older.map((one) =>
    error(
      'CHECK_KIND_OLDER',
      `crd/${one.plural}.${one.group}`,
      `The cluster has it in ${versions(one).join(', ')}; ${versionsOf(one.group, one.kind).join(', ')} is read.`,
      'Definitions that are there already are left alone: renew those of Istio or the Gateway API.',
    ),
  )
  const absent = missing.filter((one) => !older.includes(one)).map(({ plural, group }) => `${plural}.${group}`)
  if (absent.length > 0 && installed)
    found.push(
      error(
        'CHECK_KIND_MISSING',
        'cluster',
        `Not there: ${some(absent)}.`,
        'helm install and kubectl apply -f deploy/ambit.yaml bring them; helm upgrade brings no new ones: apply deploy/chart/crds.',
      ),
    )
  else if (found.length === 0)
    found.push(
      ok(
        'CHECK_KINDS',
        'cluster',
        absent.length === CONFIG_KINDS.length
          ? 'None of the kinds for the mesh is there yet; the install brings them.'
          : absent.length > 0
            ? `${CONFIG_KINDS.length - absent.length} kinds for the mesh are there and stay as they are; the install brings ${some(absent, 3)}.`
            : `All ${CONFIG_KINDS.length} kinds for the mesh are there.`,
      ),
    )
  return found
}

/** `group/kind` → the versions it is served in, by the server's own discovery, which everybody may read. */
async function servedVersions(
  client: KubeClient,
  groups: ReadonlySet<string>,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const served = new Map<string, string[]>()
  for (const group of groups) {
    const { versions = [] } = (await orNothing(() => client.ask<ApiGroup>({ path: `/apis/${group}` }))) ?? {}
    for (const { version } of versions) {
      const list = await orNothing(() =>
        client.ask<{ resources: readonly { kind: string }[] }>({ path: `/apis/${group}/${version}` }),
      )
      for (const kind of new Set(list?.resources.map((one) => one.kind)))
        served.set(`${group}/${kind}`, [...(served.get(`${group}/${kind}`) ?? []), version])
    }
  }
  return served
}

/** What helm install does, as who asks. `''`: in Ambit's namespace. */
const INSTALLS: readonly (readonly [group: string, resource: string, clusterWide?: boolean])[] = [
  ['', 'namespaces', true],
  ['apiextensions.k8s.io', 'customresourcedefinitions', true],
  ['rbac.authorization.k8s.io', 'clusterroles', true],
  ['rbac.authorization.k8s.io', 'clusterrolebindings', true],
  ['admissionregistration.k8s.io', 'validatingwebhookconfigurations', true],
  ['gateway.networking.k8s.io', 'gatewayclasses', true],
  ['', 'serviceaccounts'],
  ['', 'services'],
  ['', 'configmaps'],
  ['', 'secrets'],
  ['apps', 'daemonsets'],
  ['apps', 'deployments'],
  ['batch', 'jobs'],
  ['rbac.authorization.k8s.io', 'roles'],
  ['rbac.authorization.k8s.io', 'rolebindings'],
  ['policy', 'poddisruptionbudgets'],
  ['networking.k8s.io', 'networkpolicies'],
]

export interface Right {
  readonly group: string
  readonly resource: string
  readonly subresource?: string
  readonly verb: string
  /** Absent: in the whole cluster. */
  readonly namespace?: string
}

/** By SelfSubjectAccessReview: the server's own word, whoever decides. */
export async function allowed(client: KubeClient, right: Right): Promise<boolean> {
  const { status } = await client.ask<{ status: { allowed: boolean } }>({
    method: 'POST',
    path: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
    body: {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes: right },
    },
  })
  return status.allowed
}

export async function rightFindings(client: KubeClient, systemNamespace: string): Promise<Finding[]> {
  const rights = INSTALLS.map(([group, resource, clusterWide]): Right => ({
    group,
    resource,
    verb: 'create',
    ...(clusterWide ? {} : { namespace: systemNamespace }),
  }))
  const answers = await Promise.all(rights.map((right) => allowed(client, right)))
  const lacking = rights.filter((_, at) => !answers[at]).map(({ resource }) => resource)
  // Whoever gives rights must have them, or the right to give what he has not.
  const [everything, escalate] = await Promise.all([
    allowed(client, { group: '*', resource: '*', verb: '*' }),
    allowed(client, { group: 'rbac.authorization.k8s.io', resource: 'clusterroles', verb: 'escalate' }),
  ])
  if (lacking.length > 0)
    return [
      error(
        'CHECK_RIGHTS',
        'cluster',
        `You may not create ${some(lacking, 8)}.`,
        'Install as a cluster administrator; nothing of that is needed afterwards.',
      ),
    ]
  if (!everything && !escalate)
    return [
      warning(
        'CHECK_RIGHTS_GIVEN',
        'cluster',
        'You may create roles, but give only rights that you have yourself.',
        "The install fails if you lack one of those in the chart's rbac.yaml: install as a cluster administrator.",
      ),
    ]
  return [ok('CHECK_RIGHTS', 'cluster', 'You may create all that an install creates.')]
}

/** What else captures traffic or writes the nodes' network configuration. */
export async function neighbourFindings(client: KubeClient): Promise<Finding[]> {
  const found: Finding[] = []
  const [istiod, ztunnel, linkerd, linkerdCni, cilium] = await Promise.all([
    anywhere(client, DEPLOYMENTS, 'app=istiod'),
    anywhere(client, DAEMON_SETS, 'app=ztunnel'),
    anywhere(client, DEPLOYMENTS, 'linkerd.io/control-plane-component'),
    anywhere(client, DAEMON_SETS, 'k8s-app=linkerd-cni'),
    anywhere(client, DAEMON_SETS, 'k8s-app=cilium'),
  ])
  if (ztunnel.length > 0)
    found.push(
      error(
        'CHECK_ISTIO_AMBIENT',
        place(ztunnel),
        'Istio’s ambient mode runs here: it captures the same pods by the same label.',
        'Take ztunnel and istio-cni off before you install Ambit.',
      ),
    )
  if (istiod.length > 0)
    found.push(
      warning(
        'CHECK_ISTIO',
        place(istiod),
        'Istio runs here: pods with a sidecar stay its own, and both read the same resources.',
        'Leave istio-waypoint out of the chart’s gatewayClasses, so that its waypoints stay with Istio.',
      ),
    )
  if (linkerd.length > 0 || linkerdCni.length > 0)
    found.push(
      warning(
        'CHECK_LINKERD',
        place([...linkerd, ...linkerdCni]),
        'Linkerd runs here: a pod with its proxy that is enrolled as well is in two meshes.',
        'Enrol no namespace that Linkerd injects into.',
      ),
    )
  if (cilium.length > 0) found.push(...(await ciliumFindings(client, cilium[0]!)))
  return found
}

async function ciliumFindings(client: KubeClient, { metadata }: KubeObject): Promise<Finding[]> {
  interface ConfigMap extends KubeObject {
    readonly data?: Readonly<Record<string, string>>
  }
  const { namespace } = metadata
  const config = await orNothing(() => read<ConfigMap>(client, CONFIG_MAPS, { namespace, name: 'cilium-config' }))
  if (config?.data?.['cni-exclusive'] === 'true')
    return [
      warning(
        'CHECK_CILIUM_EXCLUSIVE',
        `daemonset/${namespace}/cilium`,
        'Cilium keeps the nodes’ network configuration as it wrote it (cni.exclusive): it and Ambit would undo each other’s changes.',
        'Set cni.exclusive=false in Cilium’s chart.',
      ),
    ]
  return [
    ok('CHECK_CILIUM', `daemonset/${namespace}/cilium`, 'Cilium runs here; its socket programs come after Ambit’s.'),
  ]
}

async function anywhere(client: KubeClient, resource: Resource, labelSelector: string): Promise<KubeObject[]> {
  return (await orNothing(() => listAll(client, resource, { labelSelector }))) ?? []
}

function place(objects: readonly KubeObject[]): string {
  return `namespace/${objects[0]?.metadata.namespace ?? ''}`
}

/** Undefined for what is not there, or not to be seen: a look at neighbours must not fail for a lack of rights. */
async function orNothing<T>(task: () => Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await task()
  } catch (cause) {
    if (cause instanceof AmbitError && ['KUBE_NOT_FOUND', 'KUBE_FORBIDDEN'].includes(cause.code)) return undefined
    throw cause
  }
}

/** A step that failed as a finding of its own, so that one does not hide the others. */
export async function step(about: string, task: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await task()
  } catch (cause) {
    // Without the cluster there is nothing to check.
    if (
      cause instanceof AmbitError &&
      ['KUBE_UNREACHABLE', 'KUBE_UNAUTHORIZED', 'CLI_INTERRUPTED'].includes(cause.code)
    )
      throw cause
    const text = cause instanceof AmbitError ? cause.message : messageOf(cause)
    const hint =
      cause instanceof AmbitError && cause.code === 'KUBE_FORBIDDEN'
        ? 'Ask for this right, or check as an administrator.'
        : ''
    return [error('CHECK_NOT_DONE', about, `This could not be checked: ${text}.`, hint)]
  }
}
