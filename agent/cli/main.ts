// The command line for people. Programs of the mesh (agent, waypoint, control, sandbox, app) are dispatched before by
// bin/ambit.ts. Must not live here: the verbs (program.ts).
import { CommanderError } from 'commander'
import { AmbitError, messageOf } from '../base/errors.ts'
import { cliProgram } from './program.ts'
import { processTerminal, type Terminal } from './terminal.ts'

/** Runs a command; gives the exit code: 0 done, 1 refused or failed, 2 wrong use. */
export async function main(argv: readonly string[], terminal: Terminal = processTerminal): Promise<number> {
  let code = 0
  try {
    const program = cliProgram(terminal, (given) => (code = given))
    await program.parseAsync(argv.length === 0 ? ['--help'] : argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    terminal.err(`ambit: ${textOf(error)}\n`)
    if (!(error instanceof AmbitError)) return 1
    // As a shell says of a program that ended by Ctrl-C.
    if (error.code === 'CLI_INTERRUPTED') return 130
    return error.code.startsWith('CLI_') ? 2 : 1
  }
  return code
}

/** The hint of a refusal by the API server is for Ambit's own programs; a person asks whoever grants rights. */
function textOf(error: unknown): string {
  if (!(error instanceof AmbitError) || error.code !== 'KUBE_FORBIDDEN') return messageOf(error)
  return `${error.message} [${error.code}] Ask whoever administers the cluster for this right.`
}
