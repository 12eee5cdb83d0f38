// Where processes stand among the cgroups of version 2, also as seen from a container: with a cgroup namespace of its own, and the
// node's hierarchy mounted somewhere. Must not live here: which cgroup is the pods' (pods-cgroup.ts), programs, links.
import { existsSync, opendirSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupId } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'

/** Folders looked into for a process whose place no file tells; a node of 250 pods has some 800. */
const MAX_SEARCHED = 20_000

/** A mount of the hierarchy. */
export interface CgroupMount {
  readonly path: string
  /** How far above the root of this process's cgroup namespace it begins: 0 where that is the same. */
  readonly above: number
}

/** Throws REDIRECT_NO_CGROUP unless the folder is a cgroup of the v2 hierarchy. */
export function checkCgroup(cgroup: string): void {
  // Only there has a folder one of these files.
  if (existsSync(`${cgroup}/cgroup.events`) || existsSync(`${cgroup}/cgroup.controllers`)) return
  throw new AmbitError('REDIRECT_NO_CGROUP', `${cgroup} is not a cgroup of the v2 hierarchy.`, {
    hint: 'Name the parent of the pods’ cgroups under the cgroup2 mount (see `grep cgroup2 /proc/self/mounts`).',
  })
}

/**
 * The agent's sockets carry notes only if its cgroup is below the one the programs are on: elsewhere every connection
 * would be refused without a visible cause. Throws REDIRECT_AGENT_OUTSIDE.
 */
export function checkAgentCgroup(cgroup: string, agentCgroupIds: readonly bigint[]): void {
  const own = ownCgroup()
  if (!agentCgroupIds.includes(cgroupId(own)) || isWithin(cgroup, own)) return
  throw new AmbitError('REDIRECT_AGENT_OUTSIDE', `The agent runs in cgroup ${own}, which is not below ${cgroup}.`, {
    hint: 'Name a cgroup that holds both the pods and the agent, as kubepods does.',
  })
}

/** Id of the cgroup this process is in: what exempts its sockets from capture. Throws REDIRECT_NO_CGROUP2. */
export function ownCgroupId(): bigint {
  return cgroupId(ownCgroup())
}

/** Folder of this process's cgroup. Throws REDIRECT_NO_CGROUP2. */
export function ownCgroup(): string {
  return cgroupOf(process.pid)
}

/**
 * The folder of a process's cgroup, which really has the process in it. Throws REDIRECT_NO_CGROUP2, or an error of the file
 * system for a process that is gone.
 */
export function cgroupOf(pid: number): string {
  const mount = cgroupMount()
  const told = placeOf(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), mount.above)
  if (told !== 'hidden' && told !== 'outside') {
    const folder = join(mount.path, told)
    if (holds(folder, pid)) return realpathSync(folder)
  }
  // In a cgroup namespace the names of its own ancestors are told to nobody.
  const found = told === 'hidden' ? search(mount.path, pid) : undefined
  if (found !== undefined) return found
  throw new AmbitError(
    'REDIRECT_NO_CGROUP2',
    `The cgroup of process ${pid} is not to be found under the cgroup2 mount ${mount.path}.`,
    {
      hint: 'Mount the node’s hierarchy where the container has its own; --kubelet-cgroup names the kubelet’s.',
    },
  )
}

/** The mount that shows most of the hierarchy. Throws REDIRECT_NO_CGROUP2. */
export function cgroupMount(): CgroupMount {
  const [widest] = cgroupMounts(readFileSync('/proc/self/mountinfo', 'utf8'))
    // Those below a folder that something else is mounted over are listed too.
    .filter(({ path }) => existsSync(join(path, 'cgroup.procs')))
    .toSorted((a, b) => b.above - a.above)
  if (widest) return widest
  throw new AmbitError('REDIRECT_NO_CGROUP2', 'No cgroup2 hierarchy is mounted.', {
    hint: 'Mount it: mount -t cgroup2 none /sys/fs/cgroup/unified.',
  })
}

/** All that begin at this process's root or above, by proc_pid_mountinfo(5). */
export function cgroupMounts(mountinfo: string): CgroupMount[] {
  const top = new Map<string, CgroupMount | undefined>()
  for (const line of mountinfo.split('\n')) {
    const fields = line.split(' ')
    const [root, path] = [fields[3], fields[4]]
    if (root === undefined || path === undefined) continue
    const above = /^(\/\.\.)+$/.test(root) ? root.split('/').length - 1 : root === '/' ? 0 : undefined
    const type = fields[fields.indexOf('-', 6) + 1]
    // What is mounted over it hides it, whatever that is.
    top.set(path, type === 'cgroup2' && above !== undefined ? { path: unescaped(path), above } : undefined)
  }
  return [...top.values()].filter((one) => one !== undefined)
}

/**
 * Where below a mount that begins `above` the reader's root a process is, by its /proc/PID/cgroup. `hidden`: below one of the
 * reader's own ancestors, whose names it is not told. `outside`: not below the mount.
 */
export function placeOf(text: string, above: number): string {
  const path = /^0::(\/.*)$/m.exec(text)?.[1]
  if (path === undefined) return 'outside'
  const ups = /^(\/\.\.(?=\/|$))*/.exec(path)![0]
  const up = ups.length / '/..'.length
  if (up > above) return 'outside'
  return up === above ? path.slice(ups.length) || '/' : 'hidden'
}

/** True if `path` is `folder` or lies in it. */
export function isWithin(folder: string, path: string): boolean {
  const [outer, inner] = [realpathSync(folder), realpathSync(path)]
  return inner === outer || inner.startsWith(outer === '/' ? '/' : `${outer}/`)
}

/** Folders directly in one. */
export function foldersIn(folder: string): string[] {
  const found: string[] = []
  try {
    const open = opendirSync(folder)
    try {
      for (let entry = open.readSync(); entry; entry = open.readSync()) if (entry.isDirectory()) found.push(entry.name)
    } finally {
      open.closeSync()
    }
  } catch {
    // It went while it was looked into.
  }
  return found
}

function holds(folder: string, pid: number): boolean {
  try {
    return readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').includes(String(pid))
  } catch {
    return false
  }
}

function search(top: string, pid: number): string | undefined {
  const folders = [top]
  for (let at = 0; at < folders.length && at < MAX_SEARCHED; at++) {
    const folder = folders[at]!
    if (holds(folder, pid)) return realpathSync(folder)
    for (const name of foldersIn(folder)) folders.push(join(folder, name))
  }
  return undefined
}

/** Blanks and the like are octal there. */
function unescaped(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}
