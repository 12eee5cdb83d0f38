// Pod (core/v1) and Deployment (apps/v1): schemas of what the mesh and the sandbox read of them, and the facts of a pod.
// Must not live here: the workload it becomes (workloads.ts), running it (sandbox/).
import { z } from 'zod'
import { canonicalIp } from '../base/ip.ts'
import { defineKind, type FieldPath, type Report, type Resource } from './resource.ts'
import { labels, port } from './schema.ts'

const container = z.looseObject({
  name: z.string().min(1),
  image: z.string().optional(),
  command: z.array(z.string()).optional(),
  args: z.array(z.string()).optional(),
  env: z.array(z.looseObject({ name: z.string(), value: z.string().optional() })).optional(),
  ports: z
    .array(
      z.looseObject({
        containerPort: port,
        name: z.string().optional(),
        protocol: z.enum(['TCP', 'UDP', 'SCTP']).optional(),
      }),
    )
    .optional(),
})
export type Container = z.infer<typeof container>

export const podSpec = z.looseObject({
  containers: z.array(container).min(1),
  initContainers: z.array(container).optional(),
  serviceAccountName: z.string().optional(),
  nodeName: z.string().optional(),
  nodeSelector: labels.optional(),
  hostNetwork: z.boolean().optional(),
})
export type PodSpec = z.infer<typeof podSpec>

const containerStates = z.array(z.looseObject({ containerID: z.string().optional() })).optional()

const podSchema = z.strictObject({
  spec: podSpec,
  status: z
    .looseObject({
      phase: z.string().optional(),
      podIP: z.string().optional(),
      podIPs: z.array(z.looseObject({ ip: z.string() })).optional(),
      hostIP: z.string().optional(),
      containerStatuses: containerStates,
      initContainerStatuses: containerStates,
      ephemeralContainerStatuses: containerStates,
      conditions: z.array(z.looseObject({ type: z.string(), status: z.string() })).optional(),
    })
    .optional(),
})
export type PodBody = z.infer<typeof podSchema>

export const pod = defineKind({
  kind: 'Pod',
  group: '',
  versions: ['v1'],
  lenient: true,
  schema: podSchema,
  check: (resource, report) => checkPodSpec(resource.body.spec, ['spec'], report),
})

const deploymentSchema = z.strictObject({
  spec: z.looseObject({
    replicas: z.int().min(0).max(10_000).optional(),
    selector: z.looseObject({ matchLabels: labels.optional() }),
    template: z.strictObject({
      metadata: z.looseObject({ labels: labels.optional(), annotations: labels.optional() }).optional(),
      spec: podSpec,
    }),
  }),
  status: z.unknown().optional(),
})
export type DeploymentBody = z.infer<typeof deploymentSchema>

export const deployment = defineKind({
  kind: 'Deployment',
  group: 'apps',
  versions: ['v1'],
  lenient: true,
  schema: deploymentSchema,
  check(resource: Resource<DeploymentBody>, report: Report) {
    const { spec } = resource.body
    const has = spec.template.metadata?.labels ?? {}
    for (const [key, value] of Object.entries(spec.selector.matchLabels ?? {})) {
      if (has[key] === value) continue
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: ['spec', 'selector', 'matchLabels', key],
        message: `The selector asks for ${key}: ${value}, which the template's labels do not have.`,
        hint: `Add ${key}: ${value} to spec.template.metadata.labels.`,
      })
    }
    checkPodSpec(spec.template.spec, ['spec', 'template', 'spec'], report)
    const inject = spec.template.metadata?.annotations?.['sidecar.istio.io/inject'] ?? has['sidecar.istio.io/inject']
    if (inject === 'true') {
      report({
        severity: 'info',
        code: 'CONFIG_NO_EFFECT',
        path: ['spec', 'template', 'metadata'],
        message: 'sidecar.istio.io/inject has no effect: there are no sidecars.',
        hint: 'Label the namespace istio.io/dataplane-mode: ambient to enrol its pods.',
      })
    }
  },
})

function checkPodSpec(spec: PodSpec, path: FieldPath, report: Report): void {
  const names = new Set<string>()
  for (const [index, one] of spec.containers.entries()) {
    if (names.has(one.name)) {
      report({
        severity: 'error',
        code: 'CONFIG_DUPLICATE',
        path: [...path, 'containers', index, 'name'],
        message: `The container name ${one.name} is used twice.`,
      })
    }
    names.add(one.name)
  }
}

const addresses = new WeakMap<Resource<PodBody>, readonly string[]>()

/** Canonical addresses of a pod, in the order of its status. */
export function podAddresses(resource: Resource<PodBody>): readonly string[] {
  let known = addresses.get(resource)
  if (!known) addresses.set(resource, (known = readAddresses(resource)))
  return known
}

function readAddresses(resource: Resource<PodBody>): readonly string[] {
  const { status } = resource.body
  const all = status?.podIPs?.length ? status.podIPs.map((one) => one.ip) : status?.podIP ? [status.podIP] : []
  return all.map((ip) => canonicalIp(ip)).filter((ip) => ip !== undefined)
}

/** By its Ready condition; a pod written by hand without conditions is ready unless it says it is pending. */
export function isReady(resource: Resource<PodBody>): boolean {
  const { status } = resource.body
  const condition = status?.conditions?.find((one) => one.type === 'Ready')
  return condition ? condition.status === 'True' : status?.phase !== 'Pending'
}

/** A pod that has ended keeps its address in its status, while another may have it already. */
export function hasEnded(resource: Resource<PodBody>): boolean {
  const phase = resource.body.status?.phase
  return phase === 'Succeeded' || phase === 'Failed'
}

/** What the kubelet calls it: a static pod is known to the API by a mirror, which has another uid. */
export function kubeletUid(resource: Resource<PodBody>): string {
  return resource.metadata.annotations['kubernetes.io/config.hash'] ?? resource.metadata.uid
}

/** Ids of its containers, as `containerd://ID` has them behind the runtime's name, in order, so that equal pods give equal lists. */
export function containerIds(resource: Resource<PodBody>): readonly string[] {
  const { status } = resource.body
  const states = [
    ...(status?.initContainerStatuses ?? []),
    ...(status?.containerStatuses ?? []),
    ...(status?.ephemeralContainerStatuses ?? []),
  ]
  return states.flatMap(({ containerID = '' }) => /^[a-z0-9.-]+:\/\/(.+)$/.exec(containerID)?.[1] ?? []).sort()
}

/** The container port of that name, TCP. */
export function namedPort(spec: PodSpec, name: string): number | undefined {
  for (const one of spec.containers) {
    for (const candidate of one.ports ?? []) {
      if (candidate.name === name && (candidate.protocol ?? 'TCP') === 'TCP') return candidate.containerPort
    }
  }
  return undefined
}
