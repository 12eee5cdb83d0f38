// One node: its first process, containerd, kubelet and kube-proxy, all inside namespaces of the node's own (enter-node.sh).
// Must not live here: their configuration (node-files.ts), the control plane (control-plane.ts), what runs on the node.
import { connect } from 'node:net'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Keeper, type KeeperOptions } from '../keeper.ts'
import type { NodeLayout } from '../layout.ts'
import { NETNS_ROOT, run } from '../world/run.ts'
import { handDown, joined, SYSTEM, type Hierarchy, type PROGRAMS } from './cgroups.ts'
import { nodeFolder, type KubeLayout } from './layout.ts'
import { CONTAINERD_SOCKET, ETC, KUBELET, writeNodeFiles } from './node-files.ts'
import type { Built } from './programs.ts'

const ENTER = fileURLToPath(new URL('enter-node.sh', import.meta.url))
/**
 * Joins the program's own cgroup from within, so that nobody whom the node cannot see is in it; says that the namespaces are entered
 * (Keeper waits for it); then becomes the program.
 */
const JOIN_AND_SAY_OK =
  'for at in /sys/fs/cgroup/$0 /sys/fs/cgroup/*/$0; do [ ! -e $at/cgroup.procs ] || echo 0 >$at/cgroup.procs; done; ' +
  'echo ok >&3; exec 3>&-; exec "$@"'

export type Until = (what: string, check: () => boolean | Promise<boolean>) => Promise<void>
type Ends = (what: string) => Pick<KeeperOptions, 'onEnded' | 'onStarted'>

export interface NodeWorld {
  readonly layout: KubeLayout
  readonly hierarchies: readonly Hierarchy[]
  readonly built: Built
  readonly logs: string
  readonly ends: Ends
}

export class KubeNode {
  readonly node: NodeLayout
  readonly programs: readonly Keeper[]
  readonly #world: NodeWorld
  readonly #init: Keeper
  readonly #below: string

  constructor(world: NodeWorld, node: NodeLayout) {
    this.#world = world
    this.node = node
    this.#below = `${world.layout.tag}/${node.name}`
    const folder = nodeFolder(world.layout, node)
    this.#init = new Keeper({
      name: node.name,
      logFile: join(world.logs, `${node.name}.log`),
      // The node dies with it.
      restart: 'Never',
      forks: true,
      command: () =>
        joined(world.hierarchies, this.#below, [
          'nsenter',
          `--net=${NETNS_ROOT}/${node.netns}`,
          '--',
          ...'unshare --mount --pid --ipc --uts --cgroup --fork --kill-child --'.split(' '),
          'sh',
          ENTER,
          folder,
          node.name,
          '/sbin/ambit-init',
          world.built.programs,
          world.built.images,
        ]),
      ...world.ends(node.name),
    })
    this.programs = [
      this.#program('containerd', ['containerd', '--config', '/etc/containerd/config.toml']),
      this.#program('kubelet', [
        KUBELET,
        `--config=${ETC}/kubelet.json`,
        `--kubeconfig=${ETC}/kubelet.kubeconfig`,
        `--hostname-override=${node.name}`,
        `--node-ip=${node.address4}`,
        '--v=1',
      ]),
      this.#program('kube-proxy', [join(world.built.programs, 'kube'), 'proxy', `--config=${ETC}/proxy.json`]),
    ]
  }

  get pid(): number | undefined {
    return this.#init.pid
  }

  get init(): Keeper {
    return this.#init
  }

  /** The command line that runs another on the node, beside its programs. */
  command(command: readonly string[]): string[] {
    return joined(this.#world.hierarchies, `${this.#below}/${SYSTEM}`, [
      'nsenter',
      `--target=${this.pid}`,
      ...'--mount --pid --ipc --uts --cgroup --net --'.split(' '),
      ...command,
    ])
  }

  #program(name: (typeof PROGRAMS)[number], command: readonly string[]): Keeper {
    const full = `${name}-${this.node.name}`
    return new Keeper({
      name: full,
      logFile: join(this.#world.logs, `${full}.log`),
      restart: 'Always',
      forks: true,
      command: () => this.command(['sh', '-c', JOIN_AND_SAY_OK, `${SYSTEM}/${name}`, ...command]),
      ...this.#world.ends(full),
    })
  }

  /** Writes the node's files and starts its first process; resolves when that has made its root. */
  async enter(until: Until): Promise<void> {
    writeNodeFiles(this.#world.layout, this.#world.built, this.node)
    this.#init.start()
    await until(this.node.name, () => this.pid !== undefined)
    for (const hierarchy of this.#world.hierarchies) handDown(hierarchy, join(hierarchy.path, this.#below))
  }

  /** Starts containerd and gives it the cluster's images and those of `archives`; meanwhile the kubelet and kube-proxy. */
  async start(until: Until, archives: readonly string[]): Promise<void> {
    const [containerd, kubelet, proxy] = this.programs
    containerd!.start()
    await until(`containerd of ${this.node.name}`, () => this.#containerdAnswers())
    const own = readdirSync(this.#world.built.images).filter((name) => name.endsWith('.tar'))
    const all = [...own.map((name) => join(this.#world.built.images, name)), ...archives]
    const imported = this.importImages(all)
    proxy!.start()
    kubelet!.start()
    await imported
  }

  /** Imports archives, given by their paths on the machine, one after the other: unpacked, so that pods start at once. */
  async importImages(archives: readonly string[]): Promise<void> {
    for (const archive of archives) await this.ctr(['images', 'import', '-'], archive)
  }

  /** Asks the node's containerd, in the kubelet's namespace; `input` is a file of the machine. Resolves with its answer. */
  ctr(args: readonly string[], input = '/dev/null'): Promise<string> {
    const command = this.command(['ctr', '--address', CONTAINERD_SOCKET, '--namespace', 'k8s.io', ...args])
    return run('sh', ['-c', 'input=$1; shift; exec "$@" <"$input"', 'sh', input, ...command], { timeoutMs: 120_000 })
  }

  #containerdAnswers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(`/proc/${this.pid}/root${CONTAINERD_SOCKET}`, () => {
        socket.destroy()
        resolve(true)
      })
      socket.on('error', () => resolve(false))
    })
  }

  abandon(): void {
    for (const keeper of [...this.programs, this.#init]) keeper.abandon()
  }
}
