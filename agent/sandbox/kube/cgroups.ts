// The cgroup directories of a node, in every hierarchy the machine has (version 1 and 2): a node sees its own as the root,
// so kubelet, runc and BPF programs find what they find on a machine of their own. Must not live here: who enters them.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Journal } from '../world/journal.ts'

export interface Hierarchy {
  readonly path: string
  readonly version: 1 | 2
}

/** Below a node's own directory: its programs, apart from its pods, since version 2 lets no directory have both. */
export const SYSTEM = 'system'
/** Each in a cgroup of its own below that, as the units of a machine are: by it the mesh knows the kubelet's probes. */
export const PROGRAMS = ['containerd', 'kubelet', 'kube-proxy'] as const

/** Every hierarchy below /sys/fs/cgroup, by the mount table. */
export function hierarchiesOf(mounts: string = readFileSync('/proc/self/mounts', 'utf8')): Hierarchy[] {
  const found = new Map<string, Hierarchy>()
  for (const line of mounts.split('\n')) {
    const [, path, type] = line.split(' ')
    if (!path || (type !== 'cgroup' && type !== 'cgroup2') || !path.startsWith('/sys/fs/cgroup')) continue
    found.set(path, { path, version: type === 'cgroup2' ? 2 : 1 })
  }
  return [...found.values()]
}

/** Makes `tag/node/system/PROGRAM` in each hierarchy. */
export function makeNodeCgroups(
  hierarchies: readonly Hierarchy[],
  tag: string,
  nodes: readonly string[],
  journal: Journal,
): void {
  for (const hierarchy of hierarchies) {
    const top = join(hierarchy.path, tag)
    journal.record('cgroup', top)
    make(hierarchy, hierarchy.path, top)
    for (const node of nodes) {
      make(hierarchy, top, join(top, node))
      const system = join(top, node, SYSTEM)
      make(hierarchy, join(top, node), system)
      for (const program of PROGRAMS) make(hierarchy, system, join(system, program))
    }
  }
}

function make(hierarchy: Hierarchy, parent: string, path: string): void {
  mkdirSync(path, { recursive: true })
  // Version 1: a new directory of cpuset has no processor at all until it is told.
  for (const file of ['cpuset.cpus', 'cpuset.mems'])
    if (hierarchy.version === 1 && existsSync(join(parent, file)))
      writeFileSync(join(path, file), readFileSync(join(parent, file), 'utf8'))
}

/** Version 2: hands every controller down to the children. For a node's own directory only after its first process left it. */
export function handDown(hierarchy: Hierarchy, path: string): void {
  if (hierarchy.version !== 2) return
  const controllers = readFileSync(join(path, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean)
  for (const controller of controllers)
    try {
      writeFileSync(join(path, 'cgroup.subtree_control'), `+${controller}`)
    } catch {
      // One that this kernel keeps to the root; the kubelet says so when it needs it.
    }
}

/** A shell's first words: joins a directory of every hierarchy (`$1` is how many follow), then goes on with the rest. */
const JOIN_ALL = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1/cgroup.procs"; shift; n=$((n - 1)); done; exec "$@"'

/** The command line that runs another in the directory `below` (`ambit-0/node-1`) of every hierarchy. */
export function joined(hierarchies: readonly Hierarchy[], below: string, command: readonly string[]): string[] {
  const folders = hierarchies.map((one) => join(one.path, below))
  return ['sh', '-ec', JOIN_ALL, 'sh', String(folders.length), ...folders, ...command]
}
