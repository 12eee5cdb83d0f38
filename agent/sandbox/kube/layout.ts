// Names, addresses and paths of a Kubernetes sandbox: those of every sandbox (../layout.ts) and what a real control plane
// adds. Pure. Must not live here: making any of it.
import { join } from 'node:path'
import type { Layout, NodeLayout } from '../layout.ts'

/** Images and volumes are too big for /run, which is memory on most systems. */
export const DISK_ROOT = '/var/lib/ambit/sandbox'

export const API_PORT = 6443

export interface KubeLayout extends Layout {
  /** Everything that needs room on a disk. */
  readonly disk: string
  /** What programs on every node and on the machine reach the API server by. */
  readonly apiUrl: string
  /** The address of the Service `kubernetes`. */
  readonly apiServiceAddress: string
  /** The address of the Service `kube-dns`. */
  readonly dnsServiceAddress: string
  readonly certificates: string
  /** For whoever runs kubectl on the machine: cluster administrator. */
  readonly kubeconfig: string
}

export function kubeLayoutOf(layout: Layout): KubeLayout {
  const service = layout.serviceCidr4.replace(/0\/17$/, '')
  return {
    ...layout,
    disk: join(DISK_ROOT, layout.name),
    apiUrl: `https://${layout.fabricAddress4}:${API_PORT}`,
    apiServiceAddress: `${service}1`,
    dnsServiceAddress: `${service}10`,
    certificates: join(layout.home, 'certificates'),
    kubeconfig: join(layout.home, 'kubeconfig'),
  }
}

/** What enter-node.sh works in. */
export function nodeFolder(layout: KubeLayout, node: NodeLayout): string {
  return join(layout.disk, node.name)
}

/** Names for the API server's certificate, as openssl writes them. */
export function apiServerNames(layout: KubeLayout): string {
  return [
    'DNS:kubernetes',
    'DNS:kubernetes.default',
    'DNS:kubernetes.default.svc',
    'DNS:kubernetes.default.svc.cluster.local',
    'DNS:localhost',
    'IP:127.0.0.1',
    `IP:${layout.apiServiceAddress}`,
    `IP:${layout.fabricAddress4}`,
  ].join(',')
}

/** A kubeconfig for one of the certificates; files by path, so that it holds no secret. */
export function kubeconfigOf(layout: KubeLayout, server: string, user: string, folder: string): string {
  return JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: layout.name, cluster: { server, 'certificate-authority': join(folder, 'ca.crt') } }],
      users: [
        {
          name: user,
          user: {
            'client-certificate': join(folder, `${user}.crt`),
            'client-key': join(folder, `${user}.key`),
          },
        },
      ],
      contexts: [{ name: layout.name, context: { cluster: layout.name, user } }],
      'current-context': layout.name,
    },
    null,
    2,
  )
}
