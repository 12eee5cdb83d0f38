// The Kubernetes objects that a real cluster would have made out of what people wrote: Pods with status, Services with
// addresses, Nodes. Written as YAML next to the folder, for control. Pure text. Must not live here: writing files.
import { stringify } from 'yaml'
import type { NodeLayout } from '../layout.ts'
import type { PodSet } from './desired.ts'
import type { AddressedService } from './endpoints.ts'

export interface PodObject {
  readonly uid: string
  readonly name: string
  readonly namespace: string
  readonly set: PodSet
  readonly node: NodeLayout
  readonly addresses: readonly string[]
  readonly ready: boolean
  /** Kubernetes' phases. */
  readonly phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed'
  readonly startedAt: number
}

function documents(list: readonly object[]): string {
  return list.map((one) => stringify(one, { lineWidth: 0, aliasDuplicateObjects: false })).join('---\n')
}

export function podObjects(pods: readonly PodObject[]): string {
  return documents(
    pods.map((pod) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: pod.name,
        namespace: pod.namespace,
        uid: pod.uid,
        labels:
          pod.set.owner === 'Deployment' ? { ...pod.set.labels, 'pod-template-hash': pod.set.hash } : pod.set.labels,
        annotations: pod.set.annotations,
        creationTimestamp: new Date(pod.startedAt).toISOString(),
        ...(pod.set.owner === 'Pod'
          ? {}
          : {
              ownerReferences: [
                {
                  apiVersion: 'apps/v1',
                  kind: 'ReplicaSet',
                  name: `${pod.set.name}-${pod.set.hash}`,
                  uid: pod.set.key,
                  controller: true,
                },
              ],
            }),
      },
      spec: { ...pod.set.spec, serviceAccountName: pod.set.serviceAccount, nodeName: pod.node.name },
      status: {
        phase: pod.phase,
        podIP: pod.addresses[0],
        podIPs: pod.addresses.map((ip) => ({ ip })),
        hostIP: pod.node.address4,
        conditions: [{ type: 'Ready', status: pod.ready ? 'True' : 'False' }],
      },
    })),
  )
}

export function serviceObjects(services: readonly AddressedService[]): string {
  return documents(
    services.map((service) => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: {
        name: service.name,
        namespace: service.namespace,
        labels: service.labels,
        annotations: service.annotations,
      },
      spec:
        service.spec.type === 'ExternalName'
          ? service.spec
          : {
              ...service.spec,
              clusterIP: service.clusterIps[0] ?? 'None',
              clusterIPs: service.clusterIps.length > 0 ? service.clusterIps : ['None'],
            },
    })),
  )
}

export function nodeObjects(nodes: readonly NodeLayout[]): string {
  return documents(
    nodes.map((node) => ({
      apiVersion: 'v1',
      kind: 'Node',
      metadata: {
        name: node.name,
        // One machine, so one zone: locality must not decide where traffic goes.
        labels: {
          'kubernetes.io/hostname': node.name,
          'kubernetes.io/os': 'linux',
          'topology.kubernetes.io/region': 'sandbox',
          'topology.kubernetes.io/zone': 'sandbox',
        },
      },
      spec: { podCIDR: node.podCidr4, podCIDRs: [node.podCidr4, node.podCidr6] },
      status: { addresses: [{ type: 'InternalIP', address: node.address4 }] },
    })),
  )
}
