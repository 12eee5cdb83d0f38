// The wires: a fabric that joins the nodes and the machine, a bridge per node, a veth per pod. Pods hold host addresses
// (/32, /128) and reach everything through their node, which knows each pod's MAC address and takes from its port only
// packets with the pod's own addresses: a pod cannot pretend to be another one. Must not live here: processes, names.
import { existsSync } from 'node:fs'
import type { Layout, NodeLayout } from '../layout.ts'
import type { Journal } from './journal.ts'
import { ip, NETNS_ROOT, run, sysctl } from './run.ts'

/** MTU of every link; that of Ethernet, so that captures look as they would on a real one. */
const MTU = 1500

async function makeNetns(journal: Journal, name: string): Promise<void> {
  journal.record('netns', name)
  await run('ip', ['netns', 'add', name])
}

/** Builds fabric and nodes; `bridges`: with a bridge for the pods that this sandbox plugs in itself. Everything made is in the journal before it is made. */
export async function buildNetwork(layout: Layout, journal: Journal, bridges = true): Promise<void> {
  if (!existsSync(NETNS_ROOT)) journal.record('netns-root', NETNS_ROOT)
  await makeNetns(journal, layout.fabricNetns)
  await sysctl(QUIET, layout.fabricNetns)
  await ip(
    [
      'link set lo up',
      `link add fabric mtu ${MTU} type bridge forward_delay 0 stp_state 0`,
      'link set fabric up',
      `addr add ${layout.fabricAddress4}/24 dev fabric`,
      `addr add ${layout.dnsAddress4}/32 dev fabric`,
      `addr add ${layout.fabricAddress6}/64 dev fabric nodad`,
    ],
    layout.fabricNetns,
  )
  journal.record('link', layout.hostLink)
  await ip([
    `link add ${layout.hostLink} mtu ${MTU} type veth peer name host netns ${layout.fabricNetns}`,
    `addr add ${layout.hostAddress4}/24 dev ${layout.hostLink}`,
    `link set ${layout.hostLink} up`,
  ])
  await ip(['link set host master fabric up'], layout.fabricNetns)
  for (const node of layout.nodes) await buildNode(layout, node, journal, bridges)
  await ip(
    layout.nodes.flatMap((node) => routesTo(node, node.address4, node.address6)),
    layout.fabricNetns,
  )
}

const QUIET: Readonly<Record<string, string>> = {
  'ipv4/conf/all/accept_redirects': '0',
  'ipv6/conf/all/accept_redirects': '0',
  'ipv6/conf/default/accept_redirects': '0',
  'ipv6/conf/all/accept_ra': '0',
  'ipv6/conf/default/accept_ra': '0',
}

function routesTo(node: NodeLayout, via4: string, via6: string): string[] {
  return [`route add ${node.podCidr4} via ${via4}`, `route add ${node.podCidr6} via ${via6}`]
}

async function buildNode(layout: Layout, node: NodeLayout, journal: Journal, bridges: boolean): Promise<void> {
  await makeNetns(journal, node.netns)
  await sysctl(
    {
      ...QUIET,
      'ipv4/ip_forward': '1',
      'ipv6/conf/all/forwarding': '1',
      // All pods are behind one bridge port from the node's point of view: without this it would send them around it.
      'ipv4/conf/all/send_redirects': '0',
      'ipv4/conf/default/send_redirects': '0',
      'bridge/bridge-nf-call-iptables': '0',
      'bridge/bridge-nf-call-ip6tables': '0',
      'bridge/bridge-nf-call-arptables': '0',
    },
    node.netns,
  )
  await ip(
    [
      `link add ${node.name} mtu ${MTU} type veth peer name eth0 netns ${node.netns}`,
      `link set ${node.name} master fabric up`,
    ],
    layout.fabricNetns,
  )
  await ip(
    [
      'link set lo up',
      `addr add ${node.address4}/24 dev eth0`,
      `addr add ${node.address6}/64 dev eth0 nodad`,
      'link set eth0 up',
      ...(bridges
        ? [
            `link add pods address ${bridgeMac(node)} mtu ${MTU} type bridge forward_delay 0 stp_state 0`,
            `addr add ${node.gateway4}/24 dev pods`,
            `addr add ${node.gateway6}/64 dev pods nodad`,
            'link set pods up',
          ]
        : []),
      ...layout.nodes
        .filter((other) => other !== node)
        .flatMap((other) => routesTo(other, other.address4, other.address6)),
    ],
    node.netns,
  )
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0')
}

function bridgeMac(node: NodeLayout): string {
  return `02:a6:b1:${hex(node.index)}:00:01`
}

function podMac(node: NodeLayout, slot: number): string {
  return `02:a6:b1:${hex(node.index)}:01:${hex(slot)}`
}

/** A pod's wire, as the guard rules need it. */
export interface PodWire {
  readonly slot: number
  readonly netns: string
  readonly v4: string
  readonly v6: string
}

/** The interface of a pod in its node's namespace. */
export function portOf(slot: number): string {
  return `pod${slot}`
}

/** Makes a pod's namespace and its wire to the node. */
export async function plugPod(node: NodeLayout, wire: PodWire, journal: Journal): Promise<void> {
  await makeNetns(journal, wire.netns)
  const port = portOf(wire.slot)
  const mac = podMac(node, wire.slot)
  await sysctl(
    { ...QUIET, 'ipv4/ip_unprivileged_port_start': '0', 'ipv4/ping_group_range': '0 2147483647' },
    wire.netns,
  )
  await ip(
    [
      `link add ${port} mtu ${MTU} type veth peer name eth0 address ${mac} mtu ${MTU} netns ${wire.netns}`,
      `link set ${port} master pods up`,
      `link set ${port} type bridge_slave isolated on learning off`,
      `neigh replace ${wire.v4} lladdr ${mac} dev pods nud permanent`,
      `neigh replace ${wire.v6} lladdr ${mac} dev pods nud permanent`,
    ],
    node.netns,
  )
  await run('bridge', ['fdb', 'replace', mac, 'dev', port, 'master', 'static'], { netns: node.netns })
  await ip(
    [
      'link set lo up',
      'link set eth0 up',
      `addr add ${wire.v4}/32 dev eth0`,
      `addr add ${wire.v6}/128 dev eth0 nodad`,
      `route add ${node.gateway4} dev eth0 src ${wire.v4}`,
      `route add default via ${node.gateway4} dev eth0 src ${wire.v4}`,
      `route add ${node.gateway6} dev eth0`,
      `route add default via ${node.gateway6} dev eth0`,
    ],
    wire.netns,
  )
}

/** Removes a pod's namespace; its wire goes with it. */
export async function unplugPod(node: NodeLayout, wire: PodWire): Promise<void> {
  await ip([`neigh del ${wire.v4} dev pods`, `neigh del ${wire.v6} dev pods`], node.netns).catch(() => undefined)
  await run('ip', ['link', 'del', portOf(wire.slot)], { netns: node.netns }).catch(() => undefined)
  if (existsSync(`${NETNS_ROOT}/${wire.netns}`)) await run('ip', ['netns', 'del', wire.netns])
}

/** The rules that tie each port of the bridge to one pod's addresses (nftables, bridge family). */
export function guardRules(node: NodeLayout, wires: readonly PodWire[]): string {
  const set = (name: string, type: string, elements: readonly string[]): string =>
    `  set ${name} { type ${type}; ${elements.length > 0 ? `elements = { ${elements.join(', ')} };` : ''} }`
  const four = wires.map((wire) => `"${portOf(wire.slot)}" . ${podMac(node, wire.slot)} . ${wire.v4}`)
  const six = wires.map((wire) => `"${portOf(wire.slot)}" . ${podMac(node, wire.slot)} . ${wire.v6}`)
  return `table bridge ambit_guard
delete table bridge ambit_guard
table bridge ambit_guard {
${set('four', 'ifname . ether_addr . ipv4_addr', four)}
${set('six', 'ifname . ether_addr . ipv6_addr', six)}
  chain incoming {
    type filter hook prerouting priority -300;
    ether type ip iifname . ether saddr . ip saddr @four accept;
    ether type arp iifname . ether saddr . arp saddr ip @four accept;
    ether type ip6 iifname . ether saddr . ip6 saddr @six accept;
    ether type ip6 ip6 saddr fe80::/10 ip6 nexthdr icmpv6 accept;
    ether type ip6 ip6 saddr :: ip6 nexthdr icmpv6 accept;
    counter drop;
  }
}
`
}
