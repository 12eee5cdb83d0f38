// Services and pods to what the wires need: virtual ports with their endpoints (world/services.ts) and cluster DNS
// (world/dns.ts). Pure. Must not live here: which address a service gets (addresses.ts).
import type { PodSet, ServiceWish } from './desired.ts'
import { selects } from './container-command.ts'
import type { Records } from '../world/dns.ts'
import type { VirtualPort, VirtualService } from '../world/services.ts'

/** A pod that has addresses. */
export interface EndpointPod {
  readonly name: string
  readonly namespace: string
  readonly set: PodSet
  readonly addresses: readonly string[]
  readonly ready: boolean
  readonly ending: boolean
}

export interface AddressedService extends ServiceWish {
  /** Empty for a headless service. */
  readonly clusterIps: readonly string[]
}

/** Pods behind a service now. */
export function podsOf(service: ServiceWish, pods: readonly EndpointPod[]): EndpointPod[] {
  const all = service.spec.publishNotReadyAddresses === true
  return pods.filter((pod) => selects(service, pod.namespace, pod.set.labels) && (all || (pod.ready && !pod.ending)))
}

function targetOf(
  target: number | string | undefined,
  port: number,
  pod: EndpointPod,
  udp: boolean,
): number | undefined {
  if (target === undefined) return port
  if (typeof target === 'number') return target
  for (const container of pod.set.spec.containers)
    for (const one of container.ports ?? [])
      if (one.name === target && ((one.protocol ?? 'TCP') === 'UDP') === udp) return one.containerPort
  return undefined
}

/** The services with virtual addresses, each port with its endpoints. */
export function virtualServices(services: readonly AddressedService[], pods: readonly EndpointPod[]): VirtualService[] {
  return services
    .filter((service) => service.clusterIps.length > 0)
    .map((service) => {
      const backends = podsOf(service, pods)
      const ports: VirtualPort[] = []
      for (const port of service.spec.ports ?? []) {
        const protocol = (port.protocol ?? 'TCP').toLowerCase()
        if (protocol !== 'tcp' && protocol !== 'udp') continue
        const endpoints = backends.flatMap((pod) => {
          const target = targetOf(port.targetPort, port.port, pod, protocol === 'udp')
          return target === undefined ? [] : pod.addresses.map((address) => ({ address, port: target }))
        })
        ports.push({ protocol, port: port.port, endpoints })
      }
      return { key: `${service.namespace}/${service.name}`, addresses: service.clusterIps, ports }
    })
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** Everything cluster DNS answers for (Kubernetes DNS-Based Service Discovery, version 1.1.0). */
export function dnsRecords(services: readonly AddressedService[], pods: readonly EndpointPod[], zone: string): Records {
  const addresses: Record<string, readonly string[]> = {}
  const aliases: Record<string, string> = {}
  const targets: Record<string, { target: string; port: number }[]> = {}
  for (const service of services) {
    const name = `${service.name}.${service.namespace}.svc.${zone}`
    if (service.spec.type === 'ExternalName') {
      if (service.spec.externalName) aliases[name] = service.spec.externalName.toLowerCase().replace(/\.$/, '')
      continue
    }
    const backends = podsOf(service, pods)
    const headless = service.clusterIps.length === 0
    addresses[name] = headless ? backends.flatMap((pod) => pod.addresses) : service.clusterIps
    const hosts: { pod: EndpointPod; host: string }[] = []
    if (headless)
      for (const pod of backends) {
        const named = text(pod.set.spec['subdomain']) === service.name ? text(pod.set.spec['hostname']) : undefined
        const host = `${named ?? (pod.addresses[0] ?? '').replaceAll('.', '-')}.${name}`
        addresses[host] = pod.addresses
        hosts.push({ pod, host })
      }
    for (const port of service.spec.ports ?? []) {
      if (!port.name) continue
      const protocol = (port.protocol ?? 'TCP').toLowerCase()
      targets[`_${port.name}._${protocol}.${name}`] = headless
        ? hosts.map(({ pod, host }) => ({
            target: host,
            port: targetOf(port.targetPort, port.port, pod, protocol === 'udp') ?? port.port,
          }))
        : [{ target: name, port: port.port }]
    }
  }
  for (const pod of pods)
    for (const address of pod.addresses)
      addresses[`${address.replaceAll(/[.:]/g, '-')}.${pod.namespace}.pod.${zone}`] = [address]
  return { addresses, aliases, services: targets, zone }
}
