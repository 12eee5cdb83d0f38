// Names, subnets and paths of one sandbox, all derived from its instance number: two sandboxes side by side never meet.
// Pure. Must not live here: making any of it (world/), choosing the number (claim.ts).

/** Nodes at most: one byte of the pod network names the node, and a sandbox is one machine. */
export const MAX_NODES = 32
/** Instance numbers 0 to 62: two /16 networks each, from 10.128.0.0 to 10.253.255.255. */
export const MAX_INSTANCES = 63
/** Pods of one node at most (one byte of the address). */
export const MAX_PODS_PER_NODE = 250

export const CLUSTER_DOMAIN = 'cluster.local'

export interface NodeLayout {
  /** From 1. */
  readonly index: number
  readonly name: string
  readonly netns: string
  /** On the fabric: what the other nodes and the machine reach it by. */
  readonly address4: string
  readonly address6: string
  readonly podCidr4: string
  readonly podCidr6: string
  /** The node's end of its pods' bridge: their gateway. */
  readonly gateway4: string
  readonly gateway6: string
  readonly cgroup: string
  /** What probes its pods, as a node's kubelet does: outside the cgroup of the pods. */
  readonly kubeletCgroup: string
  readonly pinRoot: string
}

export interface Layout {
  readonly name: string
  readonly id: number
  /** `ambit-<id>`: prefix of namespaces and name of cgroup and pin folder. */
  readonly tag: string
  readonly fabricNetns: string
  /** Interface in the machine's own namespace, at most 15 characters. */
  readonly hostLink: string
  readonly hostAddress4: string
  /** The fabric's own address: control listens here. */
  readonly fabricAddress4: string
  readonly fabricAddress6: string
  readonly dnsAddress4: string
  readonly podCidr4: string
  readonly podCidr6: string
  readonly serviceCidr4: string
  readonly serviceCidr6: string
  readonly cgroup: string
  readonly pinRoot: string
  /** Everything on disk, `/run/ambit/<name>`. */
  readonly home: string
  readonly nodes: readonly NodeLayout[]
}

export const RUN_ROOT = '/run/ambit'

/** The folder of a sandbox by name. */
export function homeOf(name: string): string {
  return `${RUN_ROOT}/${name}`
}

/** Derives everything. `cgroupRoot` is where the v2 hierarchy is mounted. */
export function layoutOf(name: string, id: number, nodes: number, cgroupRoot: string): Layout {
  const tag = `ambit-${id}`
  const pods = `10.${128 + 2 * id}`
  const rest = `10.${129 + 2 * id}`
  const six = `fda6:b17:${(id + 1).toString(16)}`
  return {
    name,
    id,
    tag,
    fabricNetns: `${tag}-fabric`,
    hostLink: `ambit${id}`,
    hostAddress4: `${rest}.255.2`,
    fabricAddress4: `${rest}.255.1`,
    fabricAddress6: `${six}:ffff::1`,
    dnsAddress4: `${rest}.255.53`,
    podCidr4: `${pods}.0.0/16`,
    podCidr6: `${six}::/56`,
    serviceCidr4: `${rest}.0.0/17`,
    serviceCidr6: `${six}:fffe::/112`,
    cgroup: `${cgroupRoot}/${tag}`,
    pinRoot: `/sys/fs/bpf/${tag}`,
    home: homeOf(name),
    nodes: Array.from({ length: nodes }, (_, at): NodeLayout => {
      const index = at + 1
      const node = `node-${index}`
      return {
        index,
        name: node,
        netns: `${tag}-${node}`,
        address4: `${rest}.255.${10 + index}`,
        address6: `${six}:ffff::${(0x10 + index).toString(16)}`,
        podCidr4: `${pods}.${index}.0/24`,
        podCidr6: `${six}:${index.toString(16)}::/64`,
        gateway4: `${pods}.${index}.1`,
        gateway6: `${six}:${index.toString(16)}::1`,
        cgroup: `${cgroupRoot}/${tag}/${node}`,
        kubeletCgroup: `${cgroupRoot}/${tag}/kubelet-${index}`,
        pinRoot: `/sys/fs/bpf/${tag}/${node}`,
      }
    }),
  }
}

/** The addresses of the pod with `slot` (from 2) on a node. */
export function podAddresses(node: NodeLayout, slot: number): { readonly v4: string; readonly v6: string } {
  return {
    v4: node.gateway4.replace(/\.1$/, `.${slot}`),
    v6: node.gateway6.replace(/::1$/, `::${slot.toString(16)}`),
  }
}

/** The `index`-th service address (from 0) of each family. */
export function serviceAddresses(layout: Layout, index: number): { readonly v4: string; readonly v6: string } {
  const number = index + 10
  return {
    v4: layout.serviceCidr4.replace(/0\.0\/17$/, `${number >> 8}.${number & 0xff}`),
    v6: layout.serviceCidr6.replace(/::\/112$/, `::${number.toString(16)}`),
  }
}
