// The command line for people: dispatch to one module per verb, loaded when asked for. Programs of the mesh (agent,
// waypoint, control, sandbox, app) are dispatched before by bin/ambit.ts. Must not live here: what a verb does.
import { Command, CommanderError } from 'commander'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { StatusOptions } from './commands/status.ts'
import { processTerminal, type Terminal } from './terminal.ts'

const PROGRAMS = `
Programs:
  agent      the node's part of the mesh: capture, mutual TLS, L4 policy
  waypoint   HTTP routing, policy and resilience
  control    watches configuration, issues certificates
  sandbox    the whole mesh on this machine
  app        sample workloads: echo, load

Example:
  $ ambit analyze deploy/examples/shop && ambit sandbox up deploy/examples/shop
`

/** Runs a command; gives the exit code: 0 done, 1 refused or failed, 2 wrong use. */
export async function main(argv: readonly string[], terminal: Terminal = processTerminal): Promise<number> {
  let code = 0
  const program = new Command('ambit')
    .description('A service mesh without sidecars.')
    .addHelpText('after', PROGRAMS)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeOut: (text) => terminal.out(text), writeErr: (text) => terminal.err(text) })
  program
    .command('analyze')
    .description('Check resources: what is wrong, what has no effect, what Ambit does not have yet.')
    .argument('<path...>', 'files or folders of Kubernetes YAML, or - for standard input')
    .option('-o, --output <format>', 'text, json or yaml', 'text')
    .addHelpText(
      'after',
      '\nExits 1 if there are errors.\n\nExample:\n  $ kubectl get vs,dr -A -o yaml | ambit analyze -\n',
    )
    .action(async (paths: string[], options: { output: string }) => {
      const { analyze } = await import('./commands/analyze.ts')
      code = await analyze(paths, options, terminal)
    })
  program
    .command('explain')
    .description('Say what would happen to a connection or request, hop by hop, and which resource decides.')
    .argument('<source>', 'pod, workload or app, as name or namespace/name; an address; or outside')
    .argument('<destination>', 'service, pod or address with port: name[:port], name.namespace[:port], 10.0.0.1:80')
    .argument('[method]', 'HTTP method')
    .argument('[path]', 'path with query', '/')
    .option('-H, --header <header>', 'request header, name: value; may be repeated', collect, [])
    .option('--config-dir <dir>', 'files or folders of Kubernetes YAML; may be repeated', collect, [])
    .option('--name <sandbox>', 'explain in this running sandbox')
    .option('-o, --output <format>', 'text, json or yaml', 'text')
    .addHelpText(
      'after',
      '\nWithout --config-dir the configuration of the running sandbox is used.\n\nExample:\n' +
        "  $ ambit explain frontend my-service:80 GET /api/items -H 'x-user: ann' --config-dir deploy/examples/shop\n",
    )
    .action(async (source: string, destination: string, method: string | undefined, path: string, options) => {
      const { explain } = await import('./commands/explain.ts')
      code = await explain({ source, destination, method, path, ...(options as ExplainFlags) }, terminal)
    })
  program
    .command('status')
    .description('Say how each agent and its pods stand: proved to be protected, as whom, what the kernel can do.')
    .option('--agent <address>', 'an admin server: unix:PATH or HOST:PORT; may be repeated', collect, [])
    .option('--name <sandbox>', 'the nodes of this running sandbox')
    .option('-o, --output <format>', 'text, json or yaml', 'text')
    .addHelpText(
      'after',
      '\nWithout --agent the agent of this node and the nodes of the running sandboxes are asked.\n' +
        'Exits 1 if one cannot be asked, or a captured pod is not proved to be protected.\n\nExample:\n' +
        '  $ ambit status --agent unix:/run/ambit/admin.sock -o json\n',
    )
    .action(async (options) => {
      const { status } = await import('./commands/status.ts')
      code = await status(options as StatusOptions, terminal)
    })
  program
    .command('version')
    .description('Say which version this is.')
    .addHelpText('after', '\nExample:\n  $ ambit version\n')
    .action(async () => {
      const { version } = await import('./commands/version.ts')
      terminal.out(`${version()}\n`)
    })
  try {
    await program.parseAsync(argv.length === 0 ? ['--help'] : argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    terminal.err(`ambit: ${messageOf(error)}\n`)
    return error instanceof AmbitError && error.code.startsWith('CLI_') ? 2 : 1
  }
  return code
}

interface ExplainFlags {
  readonly header: readonly string[]
  readonly configDir: readonly string[]
  readonly name?: string
  readonly output: string
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}
