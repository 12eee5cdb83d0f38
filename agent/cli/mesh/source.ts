// Where a mesh is (a cluster, the sandboxes of this machine, admin servers by address) as the programs that can be asked. Must
// not live here: what they answer (commands/), how a pod is reached (cluster.ts), a local socket (local.ts).
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { AmbitError } from '../../base/errors.ts'
import type { ClusterFlags, MeshFlags } from './flags.ts'
import { RUN_ROOT } from '../running.ts'
import { localPrograms } from './local.ts'

export type ProgramKind = 'agent' | 'control' | 'waypoint'

export interface Program {
  readonly kind: ProgramKind
  /** The node, `namespace/gateway`, or the replica. */
  readonly name: string
  /** Other words for it: its pod, its address. */
  readonly also: readonly string[]
  /** For people: `unix:PATH`, `HOST:PORT`, `pod/NAME`. */
  readonly address: string
  /** Why it cannot be asked, as its pod says. */
  readonly problem?: string
  /** GET as JSON. Throws CLI_AGENT_UNREACHABLE and the like. */
  ask(path: string): Promise<unknown>
}

export interface Source {
  readonly type: 'cluster' | 'local'
  /** For people. */
  readonly where: string
  programs(): Promise<readonly Program[]>
  close(): void
}

/** True if the words or the environment name a cluster. */
export function namesCluster(
  flags: MeshFlags,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): boolean {
  return flags.kubeconfig !== undefined || flags.context !== undefined || Boolean(environment['KUBECONFIG'])
}

/** A cluster is to be found without being named: a service account in a pod, or a kubeconfig at its usual place. */
function findsCluster(environment: Readonly<Record<string, string | undefined>>): boolean {
  return (
    environment['KUBERNETES_SERVICE_HOST'] !== undefined ||
    existsSync(join(environment['HOME'] ?? homedir(), '.kube', 'config'))
  )
}

/** `kubectl ambit` is about clusters, whatever else runs on this machine. */
export const AS_PLUGIN = 'AMBIT_AS_KUBECTL_PLUGIN'

export interface Place {
  readonly environment?: Readonly<Record<string, string | undefined>>
  readonly runRoot?: string
}

/**
 * Where these flags lead: a named cluster, a named sandbox, else what runs on this machine, else the cluster of the usual
 * kubeconfig. `asked` are admin addresses given by hand. Throws CLI_NO_AGENT when there is nothing.
 */
export async function openSource(flags: MeshFlags, asked: readonly string[] = [], place: Place = {}): Promise<Source> {
  const { runRoot = RUN_ROOT } = place
  const cluster =
    asked.length > 0 ? undefined : clusterOf(flags, () => localPrograms(undefined, runRoot).length > 0, place)
  if (cluster) {
    const { openCluster } = await import('./cluster.ts')
    return openCluster(cluster)
  }
  const programs = localPrograms(flags.name, runRoot, asked)
  if (programs.length === 0)
    throw new AmbitError('CLI_NO_AGENT', flags.name ? `No sandbox '${flags.name}' is running.` : 'No mesh is here.', {
      hint: 'Name a cluster with --kubeconfig or --context, an admin server with --agent unix:PATH or HOST:PORT, or start a sandbox: ambit sandbox up DIR.',
    })
  return {
    type: 'local',
    where: flags.name === undefined ? 'this machine' : `sandbox ${flags.name}`,
    programs: () => Promise.resolve(programs),
    close: () => undefined,
  }
}

/** The cluster these flags lead to; undefined when it is something on this machine. `here`: whether something runs here. */
export function clusterOf(flags: MeshFlags, here: () => boolean, place: Place = {}): ClusterFlags | undefined {
  const { environment = process.env, runRoot = RUN_ROOT } = place
  if (flags.name !== undefined) {
    const kubeconfig = kubeconfigOfSandbox(flags.name, runRoot)
    return kubeconfig === undefined ? undefined : { ...flags, kubeconfig }
  }
  if (namesCluster(flags, environment) || environment[AS_PLUGIN] !== undefined) return flags
  return !here() && findsCluster(environment) ? flags : undefined
}

/** The same for what only a cluster has: where no other is named the usual kubeconfig counts, whatever runs here. */
export function requireCluster(flags: MeshFlags, place: Place = {}): ClusterFlags {
  const cluster = clusterOf(flags, () => false, place)
  if (cluster || flags.name === undefined) return cluster ?? flags
  throw new AmbitError('CLI_NO_CLUSTER', `Sandbox '${flags.name}' is no Kubernetes cluster, or does not run.`, {
    hint: 'Start one: ambit sandbox up --kubernetes.',
  })
}

/** A sandbox that is a real cluster says so by its kubeconfig. */
function kubeconfigOfSandbox(name: string, runRoot: string): string | undefined {
  const file = join(runRoot, name, 'kubeconfig')
  return existsSync(file) ? file : undefined
}

/** The one that these words mean: `node-1`, `shop/waypoint`, a pod's name, `control`; with its kind before it (`node/…`) where two have one name. Throws CLI_NOT_THE_ONE. */
export function findProgram(programs: readonly Program[], words: string, namespace?: string): Program {
  const kinds: Readonly<Record<string, ProgramKind>> = { node: 'agent', agent: 'agent', waypoint: 'waypoint' }
  const [first = '', ...rest] = words.split('/')
  const kind = rest.length > 0 && Object.hasOwn(kinds, first) ? kinds[first] : undefined
  const name = kind === undefined ? words.replace(/^pod\//, '') : rest.join('/')
  const found = programs.filter(
    (one) =>
      (kind === undefined || one.kind === kind) &&
      (one.name === name ||
        one.also.includes(name) ||
        (one.kind === 'control' && name === 'control') ||
        (one.kind === 'waypoint' &&
          (namespace === undefined ? one.name.endsWith(`/${name}`) : one.name === `${namespace}/${name}`))),
  )
  // Any replica that can be asked will do: they have one configuration. Of two agents of a node, too.
  const [one] = found.filter((each) => each.problem === undefined)
  const names = new Set(found.map((each) => `${each.kind} ${each.kind === 'control' ? '' : each.name}`))
  if (one && names.size === 1) return one
  if (names.size > 1)
    throw new AmbitError('CLI_NOT_THE_ONE', `'${words}' may be ${[...names].join(' or ')}.`, {
      hint: 'Write node/NAME or waypoint/NAMESPACE/NAME.',
    })
  if (found[0])
    throw new AmbitError('CLI_AGENT_UNREACHABLE', `${found[0].address} cannot be asked: ${found[0].problem}.`)
  throw new AmbitError('CLI_NOT_THE_ONE', `There is no ${words}.`, {
    hint: `There are: ${[...new Set(programs.map((each) => (each.kind === 'control' ? 'control' : each.name)))].join(', ') || 'none'}.`,
  })
}
