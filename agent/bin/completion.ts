// `ambit completion`: the scripts that tell a shell every word of every program, made from the programs' own definitions. It is here
// because it knows them all. Must not live here: the scripts (cli/completion.ts), the definitions.
import { Argument, Command, CommanderError } from 'commander'
import { bashScript, fishScript, nodesOf, zshScript } from '../cli/completion.ts'
import { cliProgram } from '../cli/program.ts'
import { processTerminal, type Terminal } from '../cli/terminal.ts'
import { controlCommand } from '../control/options.ts'
import { agentCommand } from '../node/flags.ts'
import { appCommand } from '../sandbox/app/main.ts'
import { sandboxCommand } from '../sandbox/main.ts'
import { waypointCommand } from '../waypoint/options.ts'

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const

const nothing = (): Promise<void> => Promise.resolve()

/** The whole command line. */
export function wholeCommand(terminal: Terminal = processTerminal): Command {
  const whole = cliProgram(terminal, () => undefined)
  const programs = { agent: agentCommand(), waypoint: waypointCommand(nothing), control: controlCommand(nothing) }
  for (const [name, command] of Object.entries(programs)) whole.addCommand(command.name(name))
  whole.addCommand(sandboxCommand(() => undefined).name('sandbox'))
  whole.addCommand(appCommand(() => undefined).name('app'))
  whole.addCommand(completionCommand(() => undefined).name('completion'))
  return whole
}

type Shell = keyof typeof SCRIPTS

function completionCommand(run: (shell: Shell) => void): Command {
  return new Command('ambit completion')
    .description('Print a script that completes the words of ambit in a shell.')
    .addArgument(new Argument('<shell>', 'whose').choices(Object.keys(SCRIPTS)))
    .addHelpText(
      'after',
      '\nExample:\n  $ source <(ambit completion bash)\n  $ ambit completion zsh > "${fpath[1]}/_ambit"\n' +
        '  $ ambit completion fish > ~/.config/fish/completions/ambit.fish\n',
    )
    .exitOverride()
    .action(run)
}

/** Runs `ambit completion …`; `argv` is what follows. Resolves with the exit code. */
export function main(argv: readonly string[], terminal: Terminal = processTerminal): Promise<number> {
  const command = completionCommand((shell) => terminal.out(SCRIPTS[shell](nodesOf(wholeCommand()))))
  command.configureOutput({ writeOut: (text) => terminal.out(text), writeErr: (text) => terminal.err(text) })
  try {
    command.parse([...argv], { from: 'user' })
    return Promise.resolve(0)
  } catch (error) {
    if (error instanceof CommanderError) return Promise.resolve(error.exitCode === 0 ? 0 : 2)
    throw error
  }
}
