// What `ambit sandbox` does with a Kubernetes sandbox. Must not live here: the cluster (cluster.ts), flags (../main.ts).
import { AmbitError } from '../../base/errors.ts'
import type { UpFlags } from '../commands.ts'
import type { Ask } from '../local-api.ts'
import { serve, type Served } from '../serve.ts'
import { KubeSandbox, type KubeStatus } from './cluster.ts'

/** Brings a cluster up in this process, until it is told to end. */
export function serveCluster(dir: string | undefined, flags: UpFlags): Promise<Served<KubeSandbox>> {
  return serve(
    (stopped) =>
      KubeSandbox.up(
        {
          name: flags.name,
          nodes: flags.nodes,
          image: flags.image,
          ...(dir === undefined ? {} : { dir }),
          tell: (line) => process.stdout.write(`${line}\n`),
          readyMs: flags.timeout * 1000,
        },
        stopped,
      ),
    execCommand,
  )
}

/** `[namespace/]pod`, as in the other kind of sandbox. */
function execCommand(sandbox: KubeSandbox, ask: Ask): string[] {
  const [pod, namespace] = (ask.pod ?? '').split('/').toReversed()
  if (!pod)
    throw new AmbitError('SANDBOX_NO_POD', 'which pod?', { hint: 'ambit sandbox exec NAMESPACE/POD -- COMMAND' })
  return [
    sandbox.kubectl,
    `--kubeconfig=${sandbox.layout.kubeconfig}`,
    'exec',
    '-i',
    ...(ask.terminal ? ['-t'] : []),
    ...(namespace ? ['-n', namespace] : []),
    ...(ask.container ? ['-c', ask.container] : []),
    pod,
    '--',
    ...(ask.command ?? []),
  ]
}

export function describeCluster(status: KubeStatus): string[] {
  const down = status.programs.filter((one) => one.pid === null).map((one) => one.name)
  return [
    ...status.nodes.map((node) => `${node.name}: ${node.address}, process ${node.pid ?? 'not running'}`),
    ...(down.length > 0 ? [`not running: ${down.join(', ')}`] : []),
    `export KUBECONFIG=${status.kubeconfig}`,
    `export PATH=${status.kubectl.replace(/\/kubectl$/, '')}:$PATH`,
  ]
}
