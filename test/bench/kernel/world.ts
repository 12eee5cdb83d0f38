// The world of the suite `kernel`: one node, pods on routed wires in pairs of a client and a server, this process as the node's agent with the tables of a
// large mesh in the kernel. Must not live here: loads (load.ts), what is compared (suite.ts).
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import type { AddressRow, NodeRedirect, PolicyRow, ServiceRow } from '../../../agent/node/redirect/contract.ts'
import { openRedirect } from '../../../agent/node/redirect/redirect.ts'
import { cgroupId } from '../../../native/bpf/index.ts'
import { ip, World } from '../../world/netns.ts'
import { PORT, Server, type Place } from './load.ts'

/** The service in front of the servers of the mesh, on the same ports. */
export const SERVICE = '10.96.0.7'
/** What else is in the tables, so that they are as deep as a large mesh makes them. */
const WORKLOADS = 10_000
const SERVICES = 1_000
const ENDPOINTS = 10
/** What a server listens on. */
const PORTS = [PORT, PORT + 1, PORT + 2]

interface Pod extends Place {
  readonly name: string
  readonly v4: string
  readonly v6: string
}

export interface Pair {
  readonly client: Place
  readonly server: Server
  readonly v4: string
  readonly v6: string
}

export class KernelWorld {
  readonly redirect: NodeRedirect
  /** Folder of the pinned links and maps. */
  readonly pinRoot: string
  /** The same wires, in a cgroup without programs. */
  readonly bare: Pair
  /** In the node's cgroup, where the programs are, but not enrolled. */
  readonly outside: Pair
  /** Enrolled, and the tables allow it, by client and port. */
  readonly mesh: Pair

  private constructor(
    pinRoot: string,
    redirect: NodeRedirect,
    pairs: { readonly bare: Pair; readonly outside: Pair; readonly mesh: Pair },
  ) {
    this.redirect = redirect
    this.pinRoot = pinRoot
    this.bare = pairs.bare
    this.outside = pairs.outside
    this.mesh = pairs.mesh
  }

  static async with<T>(task: (world: KernelWorld) => Promise<T>): Promise<T> {
    const world = new World()
    try {
      world.becomeAgent()
      const redirect = await openRedirect({
        cgroup: world.cgroup,
        agentCgroupIds: [cgroupId(world.agentCgroup)],
        pinRoot: world.bpffs,
      })
      world.onClose(() => redirect.close())
      const bare = await pair(world, 1, world.outside.cgroup)
      const outside = await pair(world, 3)
      const mesh = await pair(world, 5)
      await enroll(redirect, [mesh.pods.client, mesh.pods.server])
      return await task(new KernelWorld(world.pinRoot, redirect, { bare, outside, mesh }))
    } finally {
      await world.close()
    }
  }
}

/** A pod on a routed wire: host addresses, everything by way of the node, as most networks of clusters do it. */
function routedPod(world: World, number: number, cgroup = `${world.cgroup}/pods/${number}`): Pod {
  const node = world.outside.name
  const name = `${world.id}-r${number}`
  const [v4, v6, port] = [`10.77.0.${number}`, `fd77::${number}`, `r${number}`]
  mkdirSync(cgroup, { recursive: true })
  ip('netns', 'add', name)
  ip('-n', node, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
  ip('-n', node, 'addr', 'add', '169.254.1.1/32', 'dev', port)
  ip('-n', node, 'addr', 'add', 'fe80::1/64', 'dev', port, 'nodad')
  ip('-n', node, 'link', 'set', port, 'up')
  ip('-n', node, 'route', 'add', `${v4}/32`, 'dev', port)
  ip('-n', node, '-6', 'route', 'add', `${v6}/128`, 'dev', port)
  ip('-n', name, 'link', 'set', 'lo', 'up')
  ip('-n', name, 'link', 'set', 'eth0', 'up')
  ip('-n', name, 'addr', 'add', `${v4}/32`, 'dev', 'eth0')
  ip('-n', name, 'addr', 'add', `${v6}/128`, 'dev', 'eth0', 'nodad')
  ip('-n', name, 'route', 'add', 'default', 'via', '169.254.1.1', 'dev', 'eth0', 'onlink', 'src', v4)
  ip('-n', name, '-6', 'route', 'add', 'default', 'via', 'fe80::1', 'dev', 'eth0', 'src', v6)
  return { name, netns: `/run/netns/${name}`, cgroup, v4, v6 }
}

async function pair(world: World, number: number, cgroup?: string) {
  if (number === 1) forward(world.outside.netns)
  const client = routedPod(world, number, cgroup)
  const served = routedPod(world, number + 1, cgroup)
  const server = await Server.start(served)
  world.onClose(() => server.stop())
  return { client, server, v4: served.v4, v6: served.v6, pods: { client, server: served } }
}

function forward(netns: string): void {
  const script = 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
  const { status, stderr } = spawnSync('nsenter', [`--net=${netns}`, 'sh', '-c', script], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`the node does not forward: ${stderr}`)
}

/** Pods in the mesh, with the policy whose verdict takes the most look-ups, among the tables of a large mesh. */
async function enroll(redirect: NodeRedirect, [client, server]: readonly [Pod, Pod]): Promise<void> {
  const { tables } = redirect
  for (const pod of [client, server]) {
    await redirect.enroll({ uid: pod.name, netns: pod.netns, addresses: [pod.v4, pod.v6] })
    tables.setDirect(pod.name, true)
    redirect.setPlaintext(pod.name, 'refuse')
  }
  const own = [client, server].flatMap(({ v4, v6, name }) => [v4, v6].map((address) => ({ address, pod: name })))
  await tables.setAddresses([
    ...own.map((row): AddressRow => ({ ...row, class: 'direct' })),
    { address: SERVICE, class: 'agent' },
    ...manyAddresses(),
  ])
  const rows = PORTS.map((port): PolicyRow => ({ client: client.name, port, verdict: 'allow' }))
  rows.push({ client: client.name, port: undefined, verdict: 'deny' })
  await tables.replacePolicies([[server.name, { head: 'by_client', rows, udpRefused: [] }]])
  await tables.setServices([
    ...PORTS.map((port): ServiceRow => {
      const backend = { address: server.v4, port }
      return { address: SERVICE, port, kind: 'balanced', backends: [backend, backend, backend], affinitySeconds: 0 }
    }),
    ...manyServices(),
  ])
  await tables.sweep()
  tables.setSettings({ synced: true, passUnknown: false })
}

function workloadAddress(index: number): string {
  return `10.128.${index >> 8}.${index & 255}`
}

function manyAddresses(): AddressRow[] {
  return Array.from({ length: WORKLOADS }, (_, i) => ({ address: workloadAddress(i), class: 'agent' }))
}

function manyServices(): ServiceRow[] {
  return Array.from({ length: SERVICES }, (_, i) => ({
    address: `10.97.${i >> 8}.${i & 255}`,
    port: 80,
    kind: 'balanced',
    backends: Array.from({ length: ENDPOINTS }, (_, j) => ({
      address: workloadAddress(i * ENDPOINTS + j),
      port: 8080,
    })),
    affinitySeconds: 0,
  }))
}
