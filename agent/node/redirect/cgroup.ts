// Where this process stands among the cgroups. Must not live here: programs, links.
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupId } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'

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
 * would be refused without a visible cause. Throws REDIRECT_AGENT_OUTSIDE. In a cgroup namespace the true place cannot be
 * seen; then nothing is checked.
 */
export function checkAgentCgroup(cgroup: string, agentCgroupIds: readonly bigint[]): void {
  const own = ownCgroup()
  if (own === undefined || !agentCgroupIds.includes(cgroupId(own))) return
  if (isWithin(cgroup, own)) return
  throw new AmbitError('REDIRECT_AGENT_OUTSIDE', `The agent runs in cgroup ${own}, which is not below ${cgroup}.`, {
    hint: 'Name a cgroup that holds both the pods and the agent, as kubepods does.',
  })
}

/** Id of the cgroup this process is in: what exempts its sockets from capture. Throws REDIRECT_NO_CGROUP2. */
export function ownCgroupId(): bigint {
  const mount = cgroupMount()
  if (mount !== undefined) return cgroupId(join(mount, rawPath('self') ?? '/'))
  throw new AmbitError('REDIRECT_NO_CGROUP2', 'No cgroup2 hierarchy is mounted.', {
    hint: 'Mount it: mount -t cgroup2 none /sys/fs/cgroup/unified.',
  })
}

/** Path of this process's cgroup, or undefined where it cannot be told. */
function ownCgroup(): string | undefined {
  const mount = cgroupMount()
  const path = rawPath('self')
  if (mount === undefined || path === undefined) return undefined
  const full = join(mount, path)
  return existsSync(full) ? realpathSync(full) : undefined
}

/** Where the cgroup2 hierarchy is mounted: not always /sys/fs/cgroup (hybrid hosts have it in a folder below). */
function cgroupMount(): string | undefined {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type]) => type === 'cgroup2')?.[1]
}

/** As the process's own file says it. */
function rawPath(pid: number | 'self'): string | undefined {
  return /^0::(\/.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1]
}

/**
 * The folder of a process's cgroup, which really has the process in it. Throws REDIRECT_NO_CGROUP2, or an error of the file
 * system for a process that is gone.
 */
export function cgroupOf(pid: number): string {
  const mount = cgroupMount()
  const raw = mount === undefined ? undefined : rawPath(pid)
  if (mount !== undefined && raw !== undefined) {
    const folder = realpathSync(join(mount, fromRoot(raw)))
    if (readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').includes(String(pid))) return folder
  }
  throw new AmbitError(
    'REDIRECT_NO_CGROUP2',
    `The cgroup of process ${pid} is not to be found under the cgroup2 mount.`,
    {
      hint: 'Mount the node’s hierarchy; --kubelet-cgroup names the kubelet’s.',
    },
  )
}

/**
 * Seen from within a cgroup namespace the way to another's cgroup leads up first, as in `/../../system.slice/kubelet.service`:
 * most often to the root, where the mount begins. Where it does not, nothing is there, or not the process.
 */
export function fromRoot(path: string): string {
  return path.replace(/^(\/\.\.)+/, '') || '/'
}

/** True if `path` is `folder` or lies in it. */
export function isWithin(folder: string, path: string): boolean {
  const [outer, inner] = [realpathSync(folder), realpathSync(path)]
  return inner === outer || inner.startsWith(outer === '/' ? '/' : `${outer}/`)
}
