// `ambit sandbox`: its flags. Must not live here: what the verbs do (commands.ts, demo.ts).
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { messageOf } from '../base/errors.ts'
import type { UpFlags } from './commands.ts'

function whole(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!Number.isInteger(value) || value < low || value > high)
      throw new InvalidArgumentError(`Write a whole number from ${low} to ${high}.`)
    return value
  }
}

/** The sandbox commands mean when none is named. */
const DEFAULT_NAME = process.env['AMBIT_SANDBOX'] ?? 'default'

/** Its definition. */
export function sandboxCommand(exit: (code: number) => void): Command {
  const sandbox = new Command('ambit sandbox')
    .description(
      'The whole mesh on this machine: nodes and pods are network namespaces, configuration is a folder of YAML.',
    )
    .exitOverride()
    .showHelpAfterError('(--help shows an example)')
  const name = ['--name <name>', 'which sandbox (or AMBIT_SANDBOX)', DEFAULT_NAME] as const

  sandbox
    .command('up [dir]')
    .description(
      'Starts a sandbox with the Deployments, Pods, Services and mesh resources in a folder, and follows it; or a real Kubernetes.',
    )
    .option(...name)
    .option('--nodes <n>', 'how many nodes', whole(1, 32), 2)
    .option('--detach', 'return when it is ready, leave it running', false)
    .option('--no-mesh', 'the same pods and services without control, agents and waypoints')
    .option(
      '--kubernetes',
      'a real cluster instead: API server, kubelets, containerd; the folder is applied once',
      false,
    )
    .option('--no-image', 'with --kubernetes: leave the image of this checkout and those of the shop out')
    .option('--timeout <s>', 'how long it may take to become ready', whole(1, 3600), 60)
    .addHelpText(
      'after',
      `
Images: a file images.yaml in the folder maps an image to a command; an image that is not there runs 'ambit app echo'.
Editing, adding and removing YAML takes effect at once.

With --kubernetes nothing of Ambit runs until you install it, and the folder may be left out. The programs of Kubernetes are
built the first time: a quarter of an hour, 4 GB; later it starts in less than a minute. It prints KUBECONFIG. The nodes have
the image of this checkout, ambit.local/ambit:VERSION, and one for every image that the folder and deploy/examples/shop name.

Example:
  ambit sandbox up deploy/examples/shop --detach
  ambit sandbox up --kubernetes --name k8s --detach`,
    )
    .action(async (dir: string | undefined, flags: UpFlags) => {
      const { up } = await import('./commands.ts')
      exit(await up(dir, flags))
    })

  sandbox
    .command('status')
    .description('Nodes and pods.')
    .option(...name)
    .option('-o, --output <format>', 'text or json', 'text')
    .addHelpText('after', "\nExample:\n  ambit sandbox status -o json | jq '.pods[] | select(.enrolled)'")
    .action(async (flags: { name: string; output: string }) => {
      const { status } = await import('./commands.ts')
      exit(await status(flags.name, flags.output))
    })

  sandbox
    .command('exec <pod> [command...]')
    .description('Runs a command in a pod, with its standard streams and exit code.')
    .option(...name)
    .option('-c, --container <name>', 'which container (default: the first)')
    .addHelpText(
      'after',
      `
The pod is a name, namespace/name, or a Deployment or app label (its first ready pod).

Example:
  ambit sandbox exec frontend -- curl -s http://my-service/api/items`,
    )
    .action(async (pod: string, command: string[], flags: { name: string; container?: string }) => {
      const { exec } = await import('./commands.ts')
      exit(await exec(flags.name, pod, command.length > 0 ? command : ['sh'], flags.container))
    })

  sandbox
    .command('logs [what]')
    .description('Logs of a program (control, agent, waypoint, dns, sandbox) or a pod: one JSON object a line.')
    .option(...name)
    .option('-f, --follow', 'go on with what comes', false)
    .addHelpText('after', '\nExample:\n  ambit sandbox logs agent-node-1 -f')
    .action(async (what: string | undefined, flags: { name: string; follow: boolean }) => {
      const { logs } = await import('./commands.ts')
      exit(await logs(flags.name, what, flags.follow))
    })

  sandbox
    .command('down')
    .description('Ends a sandbox and removes everything it made, also after a crash.')
    .option(...name)
    .addHelpText('after', '\nExample:\n  ambit sandbox down')
    .action(async (flags: { name: string }) => {
      const { down } = await import('./commands.ts')
      exit(await down(flags.name))
    })

  sandbox
    .command('demo [dir]')
    .description('Brings the shop up, drives requests and shows what the mesh does with them; then stays up.')
    .option('--name <name>', 'name of the sandbox', 'demo')
    .option('--once', 'end when all is shown; exit 0 only if all of it held', false)
    .addHelpText('after', '\nExample:\n  ambit sandbox demo --once')
    .action(async (dir: string | undefined, flags: { name: string; once: boolean }) => {
      const { demo } = await import('./demo.ts')
      exit(await demo(dir, flags.name, flags.once))
    })

  // The sandbox starts these itself.
  sandbox.command('dns <address>', { hidden: true }).action(async (address: string) => {
    const { serveDns } = await import('./world/dns-server.ts')
    exit(await serveDns(address, 53))
  })
  sandbox.command('probe <json>', { hidden: true }).action(async (json: string) => {
    const { probe } = await import('./world/prober.ts')
    exit((await probe(JSON.parse(json) as Parameters<typeof probe>[0])).ok ? 0 : 1)
  })
  return sandbox
}

/** Runs `ambit sandbox …`; `argv` is what follows `sandbox`. Resolves with the exit code. */
export async function main(argv: string[]): Promise<number> {
  let code = 0
  try {
    await sandboxCommand((value) => (code = value)).parseAsync(argv.length === 0 ? ['--help'] : argv, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    process.stderr.write(`ambit sandbox: ${messageOf(error)}\n`)
    return 1
  }
}
