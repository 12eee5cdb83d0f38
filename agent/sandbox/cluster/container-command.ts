// What a container of a pod runs: its own `command`, else what images.yaml says for its image, else the echo app. Pure.
// Must not live here: namespaces and capabilities (world/container.ts).
import type { Container } from '../../config/pod.ts'
import { protocolOf } from '../../config/service.ts'
import { CONTAINER_CAPABILITIES } from '../world/container.ts'
import type { PodSet, ServiceWish } from './desired.ts'

export interface PodFacts {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly node: string
  readonly nodeAddress: string
  readonly addresses: readonly string[]
}

export interface ContainerRun {
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  readonly user?: { readonly uid: number; readonly gid: number }
  /** Of the container's default capabilities; all when absent. */
  readonly capabilities?: readonly string[]
  /** It is the echo app, whose ports are known to listen when it is ready. */
  readonly echo: boolean
  /** It runs the echo app because nothing says what its image is. */
  readonly unmapped: boolean
}

const MAPPED = 'ambit'

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function names(value: unknown): string[] {
  return Array.isArray(value) ? value.map((name) => String(name).toLowerCase().replace(/^cap_/, '')) : []
}

/** `$(NAME)` → its value, `$$(NAME)` → `$(NAME)`; unknown names stay, as Kubernetes does. */
export function expand(text: string, environment: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\(([A-Za-z0-9_.-]+)\)/g, (whole, name: string | undefined) =>
    name === undefined ? '$' : (environment[name] ?? whole),
  )
}

function field(path: string, set: PodSet, pod: PodFacts): string {
  const keyed = /^metadata\.(labels|annotations)\['(.+)'\]$/.exec(path)
  if (keyed) return (keyed[1] === 'labels' ? set.labels : set.annotations)[keyed[2]!] ?? ''
  switch (path) {
    case 'metadata.name':
      return pod.name
    case 'metadata.namespace':
      return pod.namespace
    case 'metadata.uid':
      return pod.uid
    case 'spec.nodeName':
      return pod.node
    case 'spec.serviceAccountName':
      return set.serviceAccount
    case 'status.hostIP':
      return pod.nodeAddress
    case 'status.podIP':
      return pod.addresses[0] ?? ''
    case 'status.podIPs':
      return pod.addresses.join(',')
    default:
      return ''
  }
}

/** Does the service select pods with these labels? */
export function selects(service: ServiceWish, namespace: string, labels: Readonly<Record<string, string>>): boolean {
  const selector = service.spec.selector
  if (!selector || service.namespace !== namespace || Object.keys(selector).length === 0) return false
  return Object.entries(selector).every(([key, value]) => labels[key] === value)
}

/**
 * The ports the echo app opens for a container: its container ports and, for the first container, the numbers that
 * services aim at. A port without a name takes that of the service port, so that its protocol is known.
 */
export function echoPorts(set: PodSet, index: number, services: readonly ServiceWish[]): string {
  const container = set.spec.containers[index]
  const names = new Map<number, string>()
  for (const port of container?.ports ?? [])
    if ((port.protocol ?? 'TCP') === 'TCP') names.set(port.containerPort, port.name ?? '')
  for (const service of services) {
    if (!selects(service, set.namespace, set.labels)) continue
    for (const port of service.spec.ports ?? []) {
      if ((port.protocol ?? 'TCP') !== 'TCP' || typeof port.targetPort === 'string') continue
      const target = port.targetPort ?? port.port
      const elsewhere = set.spec.containers.some(
        (other, at) => at !== index && other.ports?.some((one) => one.containerPort === target),
      )
      if (elsewhere || (index > 0 && !names.has(target))) continue
      const protocol = protocolOf(port)
      const name = port.name ?? (protocol === 'tcp' || protocol === 'tls' ? 'tcp' : '')
      if (!names.get(target)) names.set(target, name)
    }
  }
  if (names.size === 0 && index === 0) return 'http:8080'
  return [...names].map(([port, name]) => (name ? `${name}:${port}` : String(port))).join(',')
}

/** `path`: the PATH of every container. */
export function containerRun(
  set: PodSet,
  index: number,
  pod: PodFacts,
  images: ReadonlyMap<string, readonly string[]>,
  services: readonly ServiceWish[],
  path: string,
): ContainerRun {
  const container: Container = set.spec.containers[index]!
  const image = container.image ?? ''
  const mapped = images.get(image) ?? images.get(image.replace(/:[^/:]*$/, ''))
  const unmapped = !container.command?.length && !mapped
  const environment: Record<string, string> = {
    PATH: path,
    HOME: '/root',
    HOSTNAME: pod.name,
    POD_NAME: pod.name,
    POD_NAMESPACE: pod.namespace,
    NODE_NAME: pod.node,
    APP_NAME: set.labels['app'] ?? set.name,
    APP_VERSION: set.labels['version'] ?? '',
    ECHO_PORTS: echoPorts(set, index, services),
  }
  for (const variable of container.env ?? []) {
    const from = record(record(record(variable)['valueFrom'])['fieldRef'])['fieldPath']
    environment[variable.name] =
      typeof from === 'string' ? field(from, set, pod) : expand(variable.value ?? '', environment)
  }
  const args = (container.args ?? []).map((text) => expand(text, environment))
  const command = container.command?.length
    ? [...container.command.map((text) => expand(text, environment)), ...args]
    : mapped
      ? [...mapped, ...args]
      : [MAPPED, 'app', 'echo']
  const security = { ...record(set.spec['securityContext']), ...record(container['securityContext']) }
  const uid = security['runAsUser']
  const gid = security['runAsGroup']
  const wanted = record(security['capabilities'])
  const dropped = names(wanted['drop'])
  const kept = dropped.includes('all')
    ? names(wanted['add'])
    : CONTAINER_CAPABILITIES.filter((name) => !dropped.includes(name))
  return {
    command,
    environment,
    workingDirectory: typeof container['workingDir'] === 'string' ? container['workingDir'] : '/',
    ...(typeof uid === 'number' ? { user: { uid, gid: typeof gid === 'number' ? gid : uid } } : {}),
    ...(dropped.length > 0 ? { capabilities: kept } : {}),
    echo: command[0] === MAPPED && command[1] === 'app' && command[2] === 'echo',
    unmapped,
  }
}
