// Where this process stands among the cgroups. Must not live here: programs, links.
import { existsSync, readFileSync, realpathSync } from 'node:fs'
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
  const parent = realpathSync(cgroup)
  if (own === parent || own.startsWith(`${parent}/`)) return
  throw new AmbitError('REDIRECT_AGENT_OUTSIDE', `The agent runs in cgroup ${own}, which is not below ${cgroup}.`, {
    hint: 'Name a cgroup that holds both the pods and the agent, as kubepods does.',
  })
}

/** Path of this process's cgroup, or undefined where it cannot be told. */
function ownCgroup(): string | undefined {
  const path = /^0::(\/.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1]
  const mount = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type]) => type === 'cgroup2')?.[1]
  if (path === undefined || mount === undefined) return undefined
  const full = path === '/' ? mount : mount + path
  return existsSync(full) ? realpathSync(full) : undefined
}
