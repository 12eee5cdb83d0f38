// The world of the suite `kernel`: one node, pods on routed wires in pairs of a client and a server, this process as the node's agent with the tables of a
// large mesh in the kernel. Must not live here: the mesh (mesh.ts), loads (load.ts), what is compared (suite.ts).
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import type { NodeRedirect } from '../../../agent/node/redirect/contract.ts'
import { openRedirect } from '../../../agent/node/redirect/redirect.ts'
import { cgroupId } from '../../../native/bpf/index.ts'
import { ip, World } from '../../world/netns.ts'
import { Server, type Place } from './load.ts'
import { BenchMesh, type BenchPod } from './mesh.ts'

interface Pod extends Place, BenchPod {}

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
  /** Enrolled, and the policy allows it, by client and port. */
  readonly mesh: Pair
  /** The mesh they are part of. */
  readonly large: BenchMesh

  private constructor(
    pinRoot: string,
    redirect: NodeRedirect,
    pairs: { readonly bare: Pair; readonly outside: Pair; readonly mesh: Pair },
    large: BenchMesh,
  ) {
    this.large = large
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
      const { client, server } = mesh.pods
      for (const { name, netns, v4, v6 } of [client, server]) {
        await redirect.enroll({ uid: name, netns, addresses: [v4, v6] })
        redirect.setPlaintext(name, 'refuse')
      }
      const large = new BenchMesh(client, server)
      await large.sync(redirect.tables)
      return await task(new KernelWorld(world.pinRoot, redirect, { bare, outside, mesh }, large))
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
