// The resources of a mesh as the loader gives them, from wherever the flags lead: the cluster's API, a running sandbox's folders.
// Must not live here: reading files (config/), what they mean (commands/, explain/).
import { AmbitError } from '../../base/errors.ts'
import { loadPaths, type Loaded, type LoadedFile } from '../../config/folder.ts'
import { parseObject } from '../../config/load.ts'
import type { Problem } from '../../config/problem.ts'
import type { KubeClient } from '../../kube/client.ts'
import {
  CONFIG_KINDS,
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  NAMESPACES,
  NODES,
  PODS,
  projectionOf,
  SERVICES,
} from '../../kube/mesh-kinds.ts'
import type { KubeObject } from '../../kube/resource.ts'
import type { Scope } from '../../kube/watch.ts'
import { RUN_ROOT, runningConfig } from '../running.ts'
import { listAll, openCluster } from './cluster.ts'
import type { MeshFlags } from './flags.ts'
import { clusterOf, type Place } from './source.ts'

export interface Resources {
  readonly loaded: Loaded
  /** Of a cluster: what `-n` or the context says. */
  readonly namespace?: string
}

/** Where these flags lead. Throws CLI_SANDBOX_MISSING, CLI_SANDBOX_AMBIGUOUS, KUBE_*. */
export async function readResources(flags: MeshFlags, place: Place = {}): Promise<Resources> {
  const { runRoot = RUN_ROOT } = place
  const cluster = clusterOf(flags, () => runs(flags.name, runRoot), place)
  if (!cluster) return { loaded: loadPaths(runningConfig(flags.name, runRoot)) }
  const source = await openCluster(cluster)
  try {
    return { loaded: await loadCluster(source.client, flags.systemNamespace), namespace: source.namespace }
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

/** Everything the mesh reads, as control reads it. What may not be listed is left out, with a problem that says so. */
export async function loadCluster(client: KubeClient, systemNamespace: string): Promise<Loaded> {
  const scopes: Scope[] = [
    ...[NAMESPACES, NODES, PODS, SERVICES, ENDPOINT_SLICES, ...CONFIG_KINDS].map((resource) => ({ resource })),
    { resource: CONFIG_MAPS, namespace: systemNamespace, fieldSelector: 'metadata.name=istio' },
  ]
  const files: LoadedFile[] = []
  const problems: Problem[] = []
  await Promise.all(
    scopes.map(async ({ resource, ...scope }) => {
      try {
        const project = projectionOf(resource)
        for (const object of (await listAll<KubeObject>(client, resource, scope)) ?? [])
          files.push({ file: '', root: 0, parsed: parseObject(project(object)), empty: false })
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
