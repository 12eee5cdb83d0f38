// What a node's programs read: configuration of kubelet, kube-proxy, containerd and CNI, certificates, /etc. Written into the
// layer that lies over the machine's own files. Must not live here: running them (node.ts).
import { copyFileSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { NodeLayout } from '../layout.ts'
import { kubeconfigOf, nodeFolder, type KubeLayout } from './layout.ts'
import type { Built } from './programs.ts'

/** Where a node's own files are, inside. */
export const ETC = '/etc/kubernetes'
export const CONTAINERD_SOCKET = '/run/containerd/containerd.sock'
/** One program is all of Kubernetes' own; by its name agents of a mesh know whose probes pass. */
export const KUBELET = '/opt/kubernetes/kubelet'
/** Debian's CNI plugins; the node has them where everybody looks. */
const CNI_PLUGINS = '/usr/lib/cni'

/** Puts the node's own files over those of the machine. */
export function writeNodeFiles(layout: KubeLayout, built: Built, node: NodeLayout): void {
  const folder = nodeFolder(layout, node)
  const upper = join(folder, 'upper')
  const put = (path: string, text: string): void => {
    const file = join(upper, path)
    mkdirSync(join(file, '..'), { recursive: true })
    writeFileSync(file, text, { mode: 0o600 })
  }
  const json = (path: string, value: unknown): void => put(path, `${JSON.stringify(value, null, 2)}\n`)

  mkdirSync(join(upper, 'sbin'), { recursive: true })
  put('/sbin/ambit-init', '')
  copyFileSync(join(built.images, 'init'), join(upper, 'sbin', 'ambit-init'))
  put('/etc/hostname', `${node.name}\n`)
  put('/etc/hosts', `127.0.0.1 localhost\n::1 localhost\n${node.address4} ${node.name}\n`)
  put('/etc/resolv.conf', `nameserver ${layout.dnsServiceAddress}\n`)
  // What pods with dnsPolicy Default get, and what cluster DNS would ask: nobody.
  put('/etc/resolv-kubelet.conf', 'options timeout:1\n')

  mkdirSync(join(upper, KUBELET, '..'), { recursive: true })
  symlinkSync(join(built.programs, 'kube'), join(upper, KUBELET))
  mkdirSync(join(upper, 'opt/cni/bin'), { recursive: true })
  for (const plugin of readdirSync(CNI_PLUGINS))
    symlinkSync(join(CNI_PLUGINS, plugin), join(upper, 'opt/cni/bin', plugin))
  json('/etc/cni/net.d/10-sandbox.conflist', cniConfiguration(node))
  put('/etc/containerd/config.toml', CONTAINERD)

  for (const name of ['ca.crt', `kubelet-${node.name}.crt`, `kubelet-${node.name}.key`, 'proxy.crt', 'proxy.key']) {
    mkdirSync(join(upper, ETC, 'pki'), { recursive: true })
    copyFileSync(join(layout.certificates, name), join(upper, ETC, 'pki', name))
  }
  const pki = `${ETC}/pki`
  put(`${ETC}/kubelet.kubeconfig`, kubeconfigOf(layout, layout.apiUrl, `kubelet-${node.name}`, pki))
  put(`${ETC}/proxy.kubeconfig`, kubeconfigOf(layout, layout.apiUrl, 'proxy', pki))
  json(`${ETC}/kubelet.json`, kubeletConfiguration(layout, node))
  json(`${ETC}/proxy.json`, proxyConfiguration(layout, node))
}

const CONTAINERD = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "${CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "ambit.local/pause:1"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE nobody may lower a process's score, and every sandbox would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

/** A wire per pod and a route for it, as kindnet does: no bridge, so that pods of one node pass kube-proxy's rules too. */
function cniConfiguration(node: NodeLayout): unknown {
  return {
    cniVersion: '1.0.0',
    name: 'sandbox',
    plugins: [
      {
        type: 'ptp',
        ipMasq: false,
        mtu: 1500,
        ipam: {
          type: 'host-local',
          dataDir: '/run/cni-ipam',
          ranges: [[{ subnet: node.podCidr4 }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
    ],
  }
}

function kubeletConfiguration(layout: KubeLayout, node: NodeLayout): unknown {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address: node.address4,
    healthzBindAddress: '127.0.0.1',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: `${ETC}/pki/ca.crt` },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: `${ETC}/pki/kubelet-${node.name}.crt`,
    tlsPrivateKeyFile: `${ETC}/pki/kubelet-${node.name}.key`,
    containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
    cgroupDriver: 'cgroupfs',
    // Machines with version 1 and 2 side by side are fine to try things on.
    failCgroupV1: false,
    failSwapOn: false,
    localStorageCapacityIsolation: false,
    enforceNodeAllocatable: ['pods'],
    clusterDNS: [layout.dnsServiceAddress],
    clusterDomain: 'cluster.local',
    resolvConf: '/etc/resolv-kubelet.conf',
    maxPods: 200,
    serializeImagePulls: false,
    // There is no registry to fetch an image again from, and a full disk of the machine is not the node's business.
    imageGCHighThresholdPercent: 100,
    evictionHard: { 'memory.available': '1Mi' },
    shutdownGracePeriod: '0s',
    syncFrequency: '10s',
    logging: { format: 'json' },
  }
}

function proxyConfiguration(layout: KubeLayout, node: NodeLayout): unknown {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: 'nftables',
    clientConnection: { kubeconfig: `${ETC}/proxy.kubeconfig` },
    hostnameOverride: node.name,
    clusterCIDR: layout.podCidr4,
    bindAddress: node.address4,
    healthzBindAddress: `${node.address4}:10256`,
    metricsBindAddress: '127.0.0.1:10249',
    nodePortAddresses: ['primary'],
    // Of the whole kernel, and not to be had from inside a namespace.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    nftables: { syncPeriod: '30s', minSyncPeriod: '100ms' },
    logging: { format: 'json' },
  }
}
