// The resources of a mesh as the loader gives them, from wherever the flags lead: the cluster's API, a running sandbox's folders.
// Must not live here: reading files (config/), what they mean (commands/, explain/).
import { AmbitError } from '../../base/errors.ts'
import { loadPaths, type Loaded, type LoadedFile } from '../../config/folder.ts'
import { versionsOf } from '../../config/kinds.ts'
import { parseObject } from '../../config/load.ts'
import { meshConfigMaps } from '../../config/mesh-config.ts'
import type { Problem } from '../../config/problem.ts'
import type { KubeClient } from '../../kube/client.ts'
import { meshScopes, projectionOf } from '../../kube/mesh-kinds.ts'
import { type KubeObject, type Resource } from '../../kube/resource.ts'
import type { Scope } from '../../kube/watch.ts'
import { RUN_ROOT, runningConfig } from '../running.ts'
import { listAll, openCluster } from './cluster.ts'
import type { MeshFlags } from './flags.ts'
import { clusterOf, type Place } from './source.ts'

export interface Resources {
  readonly loaded: Loaded
  /** Of a cluster: what `-n` or the context says. */
  readonly namespace?: string
  /** Of a cluster: where Ambit is. */
  readonly systemNamespace?: string
}

/** Where these flags lead. Throws CLI_SANDBOX_MISSING, CLI_SANDBOX_AMBIGUOUS, KUBE_*. */
export async function readResources(flags: MeshFlags, place: Place = {}): Promise<Resources> {
  const { runRoot = RUN_ROOT } = place
  const cluster = clusterOf(flags, () => runs(flags.name, runRoot), place)
  if (!cluster) return { loaded: loadPaths(runningConfig(flags.name, runRoot)) }
  const source = await openCluster(cluster)
  try {
    const { client, namespace, systemNamespace } = source
    return { loaded: await loadCluster(client, systemNamespace), namespace, systemNamespace }
  } finally {
    source.close()
  }
}

function runs(name: string | undefined, runRoot: string): boolean {
  try {
    return runningConfig(name, runRoot).length > 0
  } catch (error) {
    return error instanceof AmbitError && error.code === 'CLI_SANDBOX_AMBIGUOUS'
  }
}

/** All objects in the first of its versions that is served; none where none is. */
async function listServed(
  client: KubeClient,
  resource: Resource,
  scope: Omit<Scope, 'resource'>,
): Promise<readonly KubeObject[]> {
  for (const version of versionsOf(resource.group, resource.kind)) {
    const found = await listAll<KubeObject>(client, { ...resource, version }, scope)
    if (found) return found
  }
  return []
}

/** Everything the mesh reads, as control reads it. What may not be listed is left out, with a problem that says so. */
export async function loadCluster(client: KubeClient, systemNamespace: string): Promise<Loaded> {
  const own = meshConfigMaps(systemNamespace).filter(({ namespace }) => namespace === systemNamespace)
  const files: LoadedFile[] = []
  const problems: Problem[] = []
  await Promise.all(
    meshScopes(own).map(async ({ resource, ...scope }) => {
      try {
        const project = projectionOf(resource)
        for (const object of await listServed(client, resource, scope)) {
          const parsed = parseObject(project(object), undefined, systemNamespace)
          files.push({ file: '', root: 0, parsed, empty: false })
        }
      } catch (error) {
        if (!(error instanceof AmbitError) || error.code !== 'KUBE_FORBIDDEN') throw error
        problems.push({
          severity: 'warning',
          code: 'CONFIG_UNREADABLE',
          file: '',
          line: 0,
          field: '',
          message: `Objects of kind ${resource.kind} cannot be read: ${error.message}; what follows from them is missing here.`,
          hint: 'Ask for the right to list them.',
        })
      }
    }),
  )
  return { files, folders: [], unreadable: [], problems }
}
