// One container: its command line from the machine's namespaces into the pod's, and what it may do there. Capabilities
// are the default set of Docker and containerd; `no_new_privs` is set; the cgroup is the pod's. Must not live here: which
// containers there are (cluster/), when they are restarted (supervise.ts).
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { NETNS_ROOT } from './run.ts'

/** What Docker and containerd leave a container (oci/spec_opts defaults), named as setpriv does. */
export const CONTAINER_CAPABILITIES = [
  'chown',
  'dac_override',
  'fsetid',
  'fowner',
  'mknod',
  'net_raw',
  'setgid',
  'setuid',
  'setfcap',
  'setpcap',
  'net_bind_service',
  'sys_chroot',
  'kill',
  'audit_write',
] as const

export interface Bind {
  readonly source: string
  readonly target: string
  readonly writable: boolean
}

export interface ContainerSpec {
  /** A folder of its own on the machine; not visible inside. */
  readonly folder: string
  readonly netns: string
  readonly cgroup: string
  readonly hostname: string
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  /** `uid:gid`; root when absent. */
  readonly user?: { readonly uid: number; readonly gid: number }
  /** Capabilities left to it, of the default set; all of them when absent. */
  readonly capabilities?: readonly string[]
  /** Sources are canonical paths. */
  readonly binds: readonly Bind[]
  readonly resolvConf: string
  readonly hosts: string
}

const ENTER = fileURLToPath(new URL('enter-pod.sh', import.meta.url))

/** Joins the cgroup, then becomes the rest of the command line. */
const JOIN = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'

export type Confinement = Pick<ContainerSpec, 'command' | 'environment' | 'user' | 'workingDirectory' | 'capabilities'>

/** The part of a command line that drops privileges, sets the environment and starts the command. */
export function confine(spec: Confinement, flags: readonly string[] = []): string[] {
  const kept = CONTAINER_CAPABILITIES.filter((name) => spec.capabilities?.includes(name) ?? true)
  const user = spec.user
    ? [`--reuid=${spec.user.uid}`, `--regid=${spec.user.gid}`, '--clear-groups']
    : ['--clear-groups']
  return [
    'setpriv',
    ...flags,
    ...user,
    '--inh-caps=-all',
    `--bounding-set=${['-all', ...kept.map((name) => `+${name}`)].join(',')}`,
    '--no-new-privs',
    '--',
    'env',
    '-i',
    `--chdir=${spec.workingDirectory}`,
    ...Object.entries(spec.environment).map(([name, value]) => `${name}=${value}`),
    ...spec.command,
  ]
}

/** Writes what enter-pod.sh reads and returns the command line that starts the container. */
export function containerCommand(spec: ContainerSpec): string[] {
  const root = join(spec.folder, 'root')
  const etc = join(spec.folder, 'etc')
  const binds = join(spec.folder, 'binds')
  mkdirSync(root, { recursive: true })
  mkdirSync(etc, { recursive: true })
  writeFileSync(join(etc, 'resolv.conf'), spec.resolvConf)
  writeFileSync(join(etc, 'hosts'), spec.hosts)
  writeFileSync(join(etc, 'hostname'), `${spec.hostname}\n`)
  writeFileSync(
    binds,
    spec.binds.map((bind) => `${bind.writable ? 'rw' : 'ro'}\t${bind.source}\t${bind.target}\n`).join(''),
  )
  return [
    'sh',
    '-c',
    JOIN,
    'sh',
    spec.cgroup,
    'nsenter',
    `--net=${NETNS_ROOT}/${spec.netns}`,
    '--',
    'unshare',
    '--mount',
    '--pid',
    '--ipc',
    '--uts',
    '--fork',
    '--kill-child',
    '--',
    'sh',
    ENTER,
    root,
    spec.hostname,
    etc,
    binds,
    '--',
    ...confine(spec),
  ]
}

/** The command line that runs another command beside a container's first process, in the same cage. */
export function execCommand(pid: number, cgroup: string, spec: Confinement): string[] {
  return [
    'sh',
    '-c',
    JOIN,
    'sh',
    cgroup,
    'nsenter',
    `--target=${pid}`,
    '--mount',
    '--pid',
    '--ipc',
    '--uts',
    '--net',
    '--',
    // Whoever kills the caller means the command, too.
    ...confine(spec, ['--pdeathsig=KILL']),
  ]
}

/** The command line of a program of the mesh itself: its cgroup and network namespace, else the machine's own. */
export function programCommand(netns: string, cgroup: string, command: readonly string[]): string[] {
  return ['sh', '-c', JOIN, 'sh', cgroup, 'nsenter', `--net=${NETNS_ROOT}/${netns}`, '--', ...command]
}
