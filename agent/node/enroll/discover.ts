// Pods that ran before anybody told this agent of them: found by their processes. A look at /proc when asked, nothing that stays.
// Must not live here: whose a cgroup is (cgroup-names.ts), what becomes of the pods (enrollment.ts).
import { closeSync, openSync, readdirSync, readSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { canonicalIp } from '../../base/ip.ts'
import { cgroupOwner } from './cgroup-names.ts'
import { netnsIdOf } from './registry.ts'

/** Processes that are looked at; kernels allow four million, nodes have some thousand. */
const MAX_PROCESSES = 131_072
/** Looked at in one turn of the event loop: some four milliseconds. */
const BATCH = 128
/** Longest file of /proc that is read; one longer says nothing. */
const MAX_READ = 1 << 18
/** Entries of a folder of namespaces. */
const MAX_NAMESPACES = 16_384

/** A pod that is to be found. */
export interface SoughtPod {
  /**
   * As it is in the cgroup's path: metadata.uid, but of a static pod (a mirror in the API) the annotation
   * kubernetes.io/config.hash.
   */
  readonly uid: string
  /** status.podIPs. Where there are some, the namespace must have one of them. */
  readonly addresses: readonly string[]
  /** Ids of its containers without the runtime's name, for nodes whose cgroups do not say the pod's uid. */
  readonly containers?: readonly string[]
}

export interface FoundPod {
  /**
   * A path to its network namespace: one that the runtime keeps where there is one, since it outlives any process; else
   * that of the oldest process.
   */
  readonly netns: string
  /** Device and inode, as netnsIdOf has them. */
  readonly netnsId: string
  /** Its oldest process in there: the one that holds the namespace, as a rule. */
  readonly pid: number
  /** How many of its processes are in there. */
  readonly processes: number
}

export interface Discovery {
  readonly found: ReadonlyMap<string, FoundPod>
  /** Pods that have processes, but none could be chosen: one sentence each. Those without are in neither. */
  readonly unclear: ReadonlyMap<string, string>
}

export interface DiscoverOptions {
  /** Default /proc; must be that of the node's first PID namespace. */
  readonly proc?: string
  /** Where runtimes keep namespaces. */
  readonly netnsFolders?: readonly string[]
}

/** Processes of one pod in one namespace. */
interface Group {
  readonly netnsId: string
  pid: number
  /** Clock ticks since the node's start. */
  started: number
  processes: number
}

/**
 * The network namespaces of pods that run. Of a pod's processes those in the node's own namespace do not count (what serves it from
 * outside, or a container on the host network); if there are several namespaces left, those with one of the pod's addresses; of
 * these the oldest process's, since a nested one is younger than the pod. Without addresses all must agree. About 30 µs a
 * process, a few more for those of the pods, in short turns. Throws only what /proc itself refuses.
 * What is found is for Enrollment.add, which leaves a pod as it is that a CNI plugin told of already.
 */
export async function discoverPods(sought: readonly SoughtPod[], options: DiscoverOptions = {}): Promise<Discovery> {
  const { proc = '/proc', netnsFolders = ['/run/netns', '/run/docker/netns'] } = options
  const found = new Map<string, FoundPod>()
  const unclear = new Map<string, string>()
  if (sought.length === 0) return { found, unclear }
  const groups = await groupsOf(sought, proc)
  const kept = keptNamespaces(netnsFolders)
  for (const pod of sought) {
    const all = [...(groups.get(pod.uid)?.values() ?? [])]
    if (all.length === 0) continue
    const chosen = choose(all, pod, proc)
    if (typeof chosen === 'string') {
      unclear.set(pod.uid, chosen)
      continue
    }
    const { netnsId, pid, processes } = chosen
    found.set(pod.uid, { netns: kept.get(netnsId) ?? `${proc}/${pid}/ns/net`, netnsId, pid, processes })
  }
  return { found, unclear }
}

/** Processes of the pods by uid and namespace. */
async function groupsOf(sought: readonly SoughtPod[], proc: string): Promise<Map<string, Map<string, Group>>> {
  const uids = new Set(sought.map(({ uid }) => uid))
  const containers = new Map(sought.flatMap(({ uid, containers = [] }) => containers.map((id) => [id, uid])))
  // The node's own, and the agent's where that is another: in neither is a pod by itself.
  const outside = new Set([netnsIdOf(`${proc}/1/ns/net`), netnsIdOf('/proc/self/ns/net')])
  const owner = (pid: number): string | undefined => {
    const { uid, container } = cgroupOwner(read(`${proc}/${pid}/cgroup`)) ?? {}
    if (uid !== undefined) return uids.has(uid) ? uid : undefined
    return container === undefined ? undefined : containers.get(container)
  }
  const groups = new Map<string, Map<string, Group>>()
  const pids = readdirSync(proc).filter((name) => /^\d+$/.test(name))
  for (const [index, name] of pids.slice(0, MAX_PROCESSES).entries()) {
    if (index % BATCH === BATCH - 1) await nextTurn()
    const pid = Number(name)
    const uid = owner(pid)
    if (uid === undefined) continue
    const started = startOf(pid, proc)
    const netnsId = netnsIdOf(`${proc}/${pid}/ns/net`)
    // It may have ended meanwhile, and another have its number.
    if (started === undefined || netnsId === undefined || outside.has(netnsId)) continue
    if (owner(pid) !== uid || startOf(pid, proc) !== started) continue
    const ofPod = groups.get(uid) ?? new Map<string, Group>()
    groups.set(uid, ofPod)
    const group = ofPod.get(netnsId) ?? { netnsId, pid, started, processes: 0 }
    ofPod.set(netnsId, group)
    group.processes++
    if (started < group.started) Object.assign(group, { pid, started })
  }
  return groups
}

/** The pod's namespace, or why it is not known. */
function choose(all: readonly Group[], { addresses }: SoughtPod, proc: string): Group | string {
  if (addresses.length === 0) {
    return all.length === 1
      ? all[0]!
      : `Its processes are in ${all.length} network namespaces, and its address is not known.`
  }
  const wanted = addresses.map((address) => canonicalIp(address) ?? address)
  const holding = all.filter(({ pid }) => {
    const held = addressesOf(pid, proc)
    return wanted.some((address) => held.has(address))
  })
  if (holding.length === 0) return `No network namespace of its processes has the address ${wanted.join(' or ')}.`
  return holding.reduce((oldest, group) => (group.started < oldest.started ? group : oldest))
}

/** Addresses of the interfaces in a process's network namespace, as its /proc/PID/net has them. */
function addressesOf(pid: number, proc: string): Set<string> {
  const held = new Set<string>()
  let last = ''
  for (const line of read(`${proc}/${pid}/net/fib_trie`).split('\n')) {
    // The address stands on a line, and what it is on the next.
    const address = /\|-- (\S+)$/.exec(line)?.[1]
    if (address !== undefined) last = address
    else if (line.includes('/32 host LOCAL')) held.add(last)
  }
  for (const line of read(`${proc}/${pid}/net/if_inet6`).split('\n')) {
    const groups = /^([0-9a-f]{32}) /.exec(line)?.[1]?.match(/.{4}/g)
    const address = groups && canonicalIp(groups.join(':'))
    if (address) held.add(address)
  }
  return held
}

/** When a process began (proc(5), field 22 of stat: behind the name, which may have spaces and brackets). */
function startOf(pid: number, proc: string): number | undefined {
  const text = read(`${proc}/${pid}/stat`)
  const started = Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[19])
  return Number.isFinite(started) && text !== '' ? started : undefined
}

/** Namespaces that runtimes keep by a path, by device and inode. */
function keptNamespaces(folders: readonly string[]): Map<string, string> {
  const kept = new Map<string, string>()
  for (const folder of folders) {
    let names: string[] = []
    try {
      names = readdirSync(folder)
    } catch {
      // Not this runtime's way.
    }
    for (const name of names.slice(0, MAX_NAMESPACES)) {
      const id = netnsIdOf(`${folder}/${name}`)
      if (id !== undefined && !kept.has(id)) kept.set(id, `${folder}/${name}`)
    }
  }
  return kept
}

const arena = Buffer.allocUnsafe(MAX_READ)

/** A file of /proc; empty if it is gone or too long. */
function read(path: string): string {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return ''
  }
  try {
    let length = 0
    for (;;) {
      const got = readSync(fd, arena, length, MAX_READ - length, null)
      length += got
      if (length === MAX_READ) return ''
      if (got === 0) return arena.toString('utf8', 0, length)
    }
  } catch {
    return ''
  } finally {
    closeSync(fd)
  }
}
