// A small world for kernel tests: network namespaces on one bridge, cgroups of the v2 hierarchy, a pin folder; all with a
// unique name, all removed by close(), and by the next world if this process dies. Must not live here: anything of Ambit's own.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, rmdirSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const PREFIX = 'ambit-test'
const BPFFS = '/sys/fs/bpf'
const driver = new URL('./sockets.py', import.meta.url).pathname
const packetDriver = new URL('./packets.py', import.meta.url).pathname
let worlds = 0

/** The mount point of the cgroup v2 hierarchy: /sys/fs/cgroup, or its `unified` child where v1 is mounted too. */
export function cgroupRoot(): string {
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, path, type] = line.split(' ')
    if (type === 'cgroup2' && path) return path
  }
  throw new Error('no cgroup2 hierarchy is mounted')
}

/** Runs `ip` with arguments; throws with its words. */
export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** A network namespace with one leg (`eth0`) on the world's bridge. */
export interface Pod {
  /** Name under /run/netns. */
  readonly name: string
  /** /run/netns/<name> */
  readonly netns: string
  readonly v4: string
  readonly v6: string
  /** Folder of the pod's own cgroup. */
  readonly cgroup: string
  /** The other end of its leg, a port of the bridge in the namespace `outside`. */
  readonly port: string
}

/** What `Sockets` answers: an object of JSON, with `error` (errno name) where the call failed. */
export interface Answer {
  readonly error?: string
  readonly socket?: number
  readonly address?: string
  readonly port?: number
  readonly data?: string
  readonly value?: number
  readonly packets?: readonly SeenPacket[]
  readonly bytes?: number
  readonly retransmits?: number
  readonly rtt_us?: number
}

/** A packet that arrived where `watch` of packets.py listens. */
export interface SeenPacket {
  readonly protocol: 'tcp' | 'udp' | 'icmp' | 'arp' | 'other'
  readonly from?: string
  readonly to?: string
  /** Of TCP, but in later fragments: the port it is for, letters of its flags, what it carries. */
  readonly port?: number
  readonly flags?: string
  readonly data?: string
}

/** A process in a pod that makes system calls on sockets as told: the independent peer of kernel tests. */
export class Sockets {
  readonly process: ChildProcess
  readonly #waiting: ((answer: Answer) => void)[] = []

  constructor(command: string, args: readonly string[]) {
    this.process = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    createInterface({ input: this.process.stdout! }).on('line', (line) =>
      this.#waiting.shift()?.(JSON.parse(line) as Answer),
    )
    this.process.once('exit', () => {
      for (const done of this.#waiting.splice(0)) done({ error: 'EXITED' })
    })
  }

  /** One operation of sockets.py. Operations of one process run one after the other. */
  call(op: string, options: Record<string, unknown> = {}): Promise<Answer> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.process.stdin!.write(`${JSON.stringify({ op, ...options })}\n`)
    })
  }

  /** The same, failing the test on an error. */
  async must(op: string, options: Record<string, unknown> = {}): Promise<Answer> {
    const answer = await this.call(op, options)
    if (answer.error !== undefined) throw new Error(`${op} ${JSON.stringify(options)}: ${answer.error}`)
    return answer
  }

  kill(): void {
    this.process.kill('SIGKILL')
  }
}

export class World {
  /** Part of every name this world makes. */
  readonly id: string
  /** The node's cgroup, parent of `agent` and of the pods' cgroups. */
  readonly cgroup: string
  /** The agent's cgroup. */
  readonly agentCgroup: string
  /** A folder on bpffs of this world's own. */
  readonly bpffs: string
  /** In there, where pins of today's schema are. */
  readonly pinRoot: string
  readonly #fabric: string
  readonly #subnet: number
  readonly #cleanups: (() => void)[] = []
  #pods = 0

  constructor() {
    sweep()
    const number = worlds++
    this.id = `${PREFIX}-${process.pid}-${number}`
    // Isolated from everything else, so that worlds may share a subnet; unique anyway, to read captures by.
    this.#subnet = 1 + ((process.pid + number) % 250)
    this.cgroup = `${cgroupRoot()}/${this.id}/node`
    this.agentCgroup = `${this.cgroup}/agent`
    mkdirSync(this.agentCgroup, { recursive: true })
    if (!mounted(BPFFS)) execFileSync('mount', ['-t', 'bpf', 'bpf', BPFFS])
    this.bpffs = `${BPFFS}/${this.id}`
    this.pinRoot = `${this.bpffs}/v2`
    this.#fabric = `${this.id}-f`
    ip('netns', 'add', this.#fabric)
    ip('-n', this.#fabric, 'link', 'add', 'br0', 'type', 'bridge')
    ip('-n', this.#fabric, 'addr', 'add', `10.66.${this.#subnet}.1/24`, 'dev', 'br0')
    ip('-n', this.#fabric, 'addr', 'add', `fd66:${this.#subnet}::1/64`, 'dev', 'br0', 'nodad')
    ip('-n', this.#fabric, 'link', 'set', 'lo', 'up')
    ip('-n', this.#fabric, 'link', 'set', 'br0', 'up')
  }

  /** The bridge's own namespace, a peer that is no pod. */
  get outside(): Pod {
    const cgroup = `${cgroupRoot()}/${this.id}/outside`
    mkdirSync(cgroup, { recursive: true })
    return {
      name: this.#fabric,
      netns: `/run/netns/${this.#fabric}`,
      v4: `10.66.${this.#subnet}.1`,
      v6: `fd66:${this.#subnet}::1`,
      cgroup,
      port: 'br0',
    }
  }

  /** A new namespace with an IPv4 and an IPv6 address and routes by the bridge. */
  pod(): Pod {
    const number = ++this.#pods + 1
    const name = `${this.id}-${number}`
    const v4 = `10.66.${this.#subnet}.${number}`
    const v6 = `fd66:${this.#subnet}::${number.toString(16)}`
    const cgroup = `${this.cgroup}/pods/${number}`
    mkdirSync(cgroup, { recursive: true })
    ip('netns', 'add', name)
    ip('-n', this.#fabric, 'link', 'add', `p${number}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
    ip('-n', this.#fabric, 'link', 'set', `p${number}`, 'master', 'br0', 'up')
    ip('-n', name, 'link', 'set', 'lo', 'up')
    ip('-n', name, 'link', 'set', 'eth0', 'up')
    ip('-n', name, 'addr', 'add', `${v4}/24`, 'dev', 'eth0')
    ip('-n', name, 'addr', 'add', `${v6}/64`, 'dev', 'eth0', 'nodad')
    ip('-n', name, 'route', 'add', 'default', 'via', `10.66.${this.#subnet}.1`)
    ip('-n', name, '-6', 'route', 'add', 'default', 'via', `fd66:${this.#subnet}::1`)
    return { name, netns: `/run/netns/${name}`, v4, v6, cgroup, port: `p${number}` }
  }

  /** A process in a pod's namespace, in the pod's cgroup or another. */
  spawn(pod: Pod, command: string, args: readonly string[], cgroup = pod.cgroup): ChildProcess {
    const [program, ...rest] = inside(pod, command, args, cgroup)
    const child = spawn(program!, rest, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.onClose(() => child.kill('SIGKILL'))
    return child
  }

  /** A socket driver in a pod. */
  sockets(pod: Pod, cgroup = pod.cgroup): Sockets {
    const [program, ...rest] = inside(pod, 'python3', [driver], cgroup)
    const sockets = new Sockets(program!, rest)
    this.onClose(() => sockets.kill())
    return sockets
  }

  /** A driver in a pod that writes packets by hand, or watches them arrive (packets.py). */
  packets(pod: Pod, cgroup = pod.cgroup): Sockets {
    const [program, ...rest] = inside(pod, 'python3', [packetDriver], cgroup)
    const sockets = new Sockets(program!, rest)
    this.onClose(() => sockets.kill())
    return sockets
  }

  /** Moves this process into the agent's cgroup until close(): its sockets are the agent's. */
  becomeAgent(): void {
    const before = readFileSync('/proc/self/cgroup', 'utf8').match(/^0::(.*)$/m)?.[1] ?? '/'
    writeFileSync(`${this.agentCgroup}/cgroup.procs`, String(process.pid))
    this.onClose(() => writeFileSync(`${cgroupRoot()}${before}/cgroup.procs`, String(process.pid)))
  }

  /** Runs at close(), last added first. */
  onClose(cleanup: () => void): void {
    this.#cleanups.push(cleanup)
  }

  /** Removes everything. Processes still in the cgroups are killed. */
  async close(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) cleanup()
    remove(this.id)
    // Killed processes leave their cgroup a moment after the kill.
    for (let attempt = 0; attempt < 100 && !removeCgroup(`${cgroupRoot()}/${this.id}`); attempt++) {
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

/** The command line that starts a program in a pod. The shell moves itself, so the program starts in the cgroup. */
function inside(pod: Pod, command: string, args: readonly string[], cgroup: string): string[] {
  const script = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
  return ['sh', '-c', script, 'sh', cgroup, 'nsenter', `--net=${pod.netns}`, command, ...args]
}

function mounted(path: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === path)
}

/** Removes what worlds of dead processes left. */
function sweep(): void {
  const dead = (name: string): boolean => {
    const pid = /^ambit-test-(\d+)-/.exec(name)?.[1]
    return pid !== undefined && !existsSync(`/proc/${pid}`)
  }
  const ids = new Set<string>()
  for (const folder of ['/run/netns', cgroupRoot(), BPFFS]) {
    if (!existsSync(folder)) continue
    for (const name of readdirSync(folder)) if (dead(name)) ids.add(name.split('-').slice(0, 4).join('-'))
  }
  for (const id of ids) {
    remove(id)
    removeCgroup(`${cgroupRoot()}/${id}`)
  }
}

/** Namespaces and pins of one world. */
function remove(id: string): void {
  rmSync(`${BPFFS}/${id}`, { recursive: true, force: true })
  if (!existsSync('/run/netns')) return
  for (const name of readdirSync('/run/netns')) if (name.startsWith(`${id}-`)) ip('netns', 'del', name)
}

/** Kills what is in a cgroup and removes it with its children; false if something is still dying. */
function removeCgroup(path: string): boolean {
  if (!existsSync(path)) return true
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory() && !removeCgroup(`${path}/${entry.name}`)) return false
  for (const pid of readFileSync(`${path}/cgroup.procs`, 'utf8').split('\n')) {
    if (pid === '' || Number(pid) === process.pid) continue
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch {
      // It ended by itself meanwhile.
    }
  }
  try {
    rmdirSync(path)
    return true
  } catch {
    return false
  }
}
