// The verbs of the command line: their words, flags and help; each loads its module when it is asked for. Must not live here:
// what a verb does (commands/), running it (main.ts).
import { Command, InvalidArgumentError } from 'commander'
import type { AnalyzeOptions } from './commands/analyze.ts'
import type { CheckOptions } from './commands/check.ts'
import type { ConfigOptions } from './commands/config.ts'
import type { ExplainOptions } from './commands/explain.ts'
import type { StatusOptions } from './commands/status.ts'
import type { UninstallOptions } from './commands/uninstall.ts'
import { clusterFlags, meshFlags } from './mesh/flags.ts'

import type { Terminal } from './terminal.ts'

const PROGRAMS = `
Programs:
  agent      the node's part of the mesh: capture, mutual TLS, L4 policy
  waypoint   HTTP routing, policy and resilience
  control    watches configuration, issues certificates
  sandbox    the whole mesh on this machine
  app        sample workloads: echo, load
  completion scripts for bash, zsh and fish

As a plugin of kubectl (put agent/bin into the PATH): kubectl ambit status

Example:
  $ ambit analyze deploy/examples/shop && ambit sandbox up deploy/examples/shop
`

const WHERE =
  '\nThe cluster is that of --kubeconfig, --context or KUBECONFIG; else what runs on this machine is asked; else the\n' +
  'cluster of ~/.kube/config.\n'

const FORMATS = ['-o, --output <format>', 'text, json or yaml', 'text'] as const

/** All verbs; `exit` is told the exit code of the one that ran. */
export function cliProgram(terminal: Terminal, exit: (code: number) => void): Command {
  const program = new Command('ambit')
    .description('A service mesh without sidecars.')
    .addHelpText('after', PROGRAMS)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeOut: (text) => terminal.out(text), writeErr: (text) => terminal.err(text) })
  addAnalyze(program, terminal, exit)
  addExplain(program, terminal, exit)
  addCheck(program, terminal, exit)
  addStatus(program, terminal, exit)
  addConfig(program, terminal, exit)
  addUninstall(program, terminal, exit)
  program
    .command('version')
    .description('Say which version this is.')
    .addHelpText('after', '\nExample:\n  $ ambit version\n')
    .action(async () => {
      const { version } = await import('./commands/version.ts')
      terminal.out(`${version()}\n`)
    })
  return program
}

const addUninstall = (program: Command, terminal: Terminal, exit: (code: number) => void): void => {
  const command = program
    .command('uninstall')
    .description('Take Ambit off a cluster: nodes first, then all the rest. Pods go on talking, plainly.')
  clusterFlags(command)
    .option('--name <sandbox>', 'this running Kubernetes sandbox')
    .option('--yes', 'do not ask', false)
    .option('--dry-run', 'say what would be removed, and end', false)
    .option('--crds', 'the definitions that came with Ambit too, and with them every object of their kinds', false)
    .option('--nodes-only', 'webhook, agents and nodes only, as helm uninstall does before the rest', false)
    .option('--made-only', 'what control made and wrote only, as helm uninstall does after the rest', false)
    .option('--image <image>', "what is run on the nodes (default: the agents' own)")
    .option('--timeout <s>', 'how long a node may take', seconds, 120)
    .addHelpText(
      'after',
      '\nOn each node a Job runs `ambit agent --uninstall`. Run it again when a node could not be reached.\n' +
        '\nExits 1 if a node could not be done or something is left.\n\nExample:\n  $ ambit uninstall --dry-run\n',
    )
    .action(async (options: UninstallOptions) => {
      const { uninstall } = await import('./commands/uninstall.ts')
      exit(await uninstall(options, terminal))
    })
}

type Add = (program: Command, terminal: Terminal, exit: (code: number) => void) => void

const addAnalyze: Add = (program, terminal, exit) => {
  const command = program
    .command('analyze')
    .description('Check resources: what is wrong, what has no effect, what Ambit does not have yet.')
    .argument('[path...]', 'files or folders of Kubernetes YAML, or - for standard input; none: what the cluster has')
  meshFlags(command, "only what is about this namespace (default: the context's)")
    .option('-A, --all-namespaces', 'about every namespace', false)
    .option(...FORMATS)
    .addHelpText(
      'after',
      '\nWith paths and --kubeconfig, --context or --name the files are read as if they were applied there.\n' +
        `${WHERE}\nExits 1 if there are errors.\n\nExample:\n  $ kubectl get vs,dr -A -o yaml | ambit analyze -\n` +
        '  $ ambit analyze --context prod -A\n',
    )
    .action(async (paths: string[], options: AnalyzeOptions) => {
      const { analyze } = await import('./commands/analyze.ts')
      exit(await analyze(paths, options, terminal))
    })
}

const addExplain: Add = (program, terminal, exit) => {
  const command = program
    .command('explain')
    .description('Say what would happen to a connection or request, hop by hop, and which resource decides.')
    .argument('<source>', 'pod, workload or app, as name or namespace/name; an address; or outside')
    .argument('<destination>', 'service, pod or address with port: name[:port], name.namespace[:port], 10.0.0.1:80')
    .argument('[method]', 'HTTP method')
    .argument('[path]', 'path with query', '/')
    .option('-H, --header <header>', 'request header, name: value; may be repeated', collect, [])
    .option('--config-dir <dir>', 'files or folders of Kubernetes YAML; may be repeated', collect, [])
  meshFlags(command, 'namespace of the source')
    .option(...FORMATS)
    .addHelpText(
      'after',
      `\nWithout --config-dir the configuration in force is used.${WHERE}\nExample:\n` +
        "  $ ambit explain frontend my-service:80 GET /api/items -H 'x-user: ann' --config-dir deploy/examples/shop\n",
    )
    .action(async (source: string, destination: string, method: string | undefined, path: string, options) => {
      const { explain } = await import('./commands/explain.ts')
      exit(await explain({ source, destination, method, path, ...(options as ExplainFlags) }, terminal))
    })
}

type ExplainFlags = Omit<ExplainOptions, 'source' | 'destination' | 'method' | 'path'>

const addStatus: Add = (program, terminal, exit) => {
  const command = program
    .command('status')
    .description(
      'Say how control, each agent and its pods, and the waypoints stand: proved to be protected, as whom, in sync or not.',
    )
    .option('--agent <address>', 'an admin server: unix:PATH or HOST:PORT; may be repeated', collect, [])
  meshFlags(command, 'only the pods and waypoints of this namespace (default: all)')
    .option(...FORMATS)
    .addHelpText(
      'after',
      `${WHERE}\nExits 1 if one cannot be asked, or a captured pod is not proved to be protected.\n\nExample:\n` +
        '  $ ambit status --agent unix:/run/ambit/admin.sock -o json\n  $ ambit status --context prod -n shop\n',
    )
    .action(async (options: StatusOptions) => {
      const { status } = await import('./commands/status.ts')
      exit(await status(options, terminal))
    })
}

const addCheck: Add = (program, terminal, exit) => {
  const command = program
    .command('check')
    .description(
      'Check whether a cluster can take Ambit: rights, versions, each node; and once it is there, every part of it.',
    )
  meshFlags(command)
    .option('--image <image>', "what to look at the nodes with (default: the agents' own, else ambit/ambit:VERSION)")
    .option('--no-probe', 'run nothing on the nodes')
    .option('--timeout <s>', 'how long a node may take', seconds, 60)
    .option(...FORMATS)
    .addHelpText(
      'after',
      '\nA short Job on each node runs `ambit agent --probe`, which changes nothing there; it is removed afterwards, also when\n' +
        "this is interrupted. Before the install the Jobs are in kube-system, afterwards in Ambit's namespace.\n" +
        '\nExits 1 if there are errors.\n\nExample:\n  $ ambit check --image registry.example/ambit:0.1.0\n',
    )
    .action(async (options: CheckOptions) => {
      const { check } = await import('./commands/check.ts')
      exit(await check(options, terminal))
    })
}

const addConfig: Add = (program, terminal, exit) => {
  const config = program
    .command('config')
    .description('Show the configuration that a program goes by, and where it differs from what control has for it.')
    .helpCommand(false)
    .addHelpText('after', '\nExample:\n  $ ambit config diff node-1\n')
  const who = 'a node, a waypoint (namespace/name, or name with -n), a pod; node/NAME or waypoint/NAME to be exact'
  const dump = config
    .command('dump')
    .description('Print all that it goes by, without keys.')
    .argument('<program>', `${who}; or control`)
  meshFlags(dump, 'namespace of the waypoint')
    .option('-o, --output <format>', 'json or yaml', 'json')
    .addHelpText('after', `${WHERE}\nExample:\n  $ ambit config dump node-1 | jq .certificates\n`)
    .action(async (words: string, options: ConfigOptions) => {
      const { dump } = await import('./commands/config.ts')
      exit(await dump(words, options, terminal))
    })
  const diff = config
    .command('diff')
    .description('Name the resources that it does not have as control has them, and where they differ.')
    .argument('<program>', who)
  meshFlags(diff, 'namespace of the waypoint')
    .option(...FORMATS)
    .addHelpText(
      'after',
      `${WHERE}\nExits 1 if there are differences.\n\nExample:\n  $ ambit config diff shop/waypoint\n`,
    )
    .action(async (words: string, options: ConfigOptions) => {
      const { diff } = await import('./commands/config.ts')
      exit(await diff(words, options, terminal))
    })
}

function seconds(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 3600)
    throw new InvalidArgumentError('Write whole seconds from 1 to 3600.')
  return value
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}
