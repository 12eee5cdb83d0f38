// The flags by which every command is told where the mesh is: kubectl's own, and those of a sandbox. Must not live here: going
// there (source.ts).
import { InvalidArgumentError, type Command } from 'commander'

export interface ClusterFlags {
  readonly kubeconfig?: string
  readonly context?: string
  readonly namespace?: string
  readonly systemNamespace: string
}

export interface MeshFlags extends ClusterFlags {
  /** A sandbox. */
  readonly name?: string
}

export const SYSTEM_NAMESPACE = 'ambit-system'

/** `--kubeconfig`, `--context`, `-n`, `--system-namespace`. */
export function clusterFlags(command: Command, namespace = 'namespace (default: that of the context)'): Command {
  return command
    .option('--kubeconfig <file>', 'the cluster (default: KUBECONFIG, then ~/.kube/config)')
    .option('--context <name>', 'context of the kubeconfig (default: its current one)')
    .option('-n, --namespace <name>', namespace, namespaceName)
    .option('--system-namespace <name>', "Ambit's own namespace", namespaceName, SYSTEM_NAMESPACE)
}

/** The same, and `--name` for a sandbox. */
export function meshFlags(command: Command, namespace?: string): Command {
  return clusterFlags(command, namespace).option('--name <sandbox>', 'this running sandbox instead of a cluster')
}

function namespaceName(text: string): string {
  if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(text)) return text
  throw new InvalidArgumentError('It must be the name of a namespace.')
}
