// Makes deploy/reference/cli.md: what every command says of itself with --help, found by following the commands that each
// help lists. Must not live here: the texts (each program's flags).
import { execFile } from 'node:child_process'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const run = promisify(execFile)

export interface Help {
  /** Without `ambit`: `sandbox up`, '' for the whole. */
  readonly command: string
  readonly text: string
}

/** Variables that change a default shown by --help. */
const SHOWN = /^(AMBIT_|POD_|NODE_NAME$|GATEWAY_|APP_|ECHO_|COLUMNS$|FORCE_COLOR$)/

async function help(command: string): Promise<Help> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !SHOWN.test(name)))
  const args = [...command.split(' ').filter(Boolean), '--help']
  const { stdout } = await run(join(root, 'agent/bin/ambit'), args, { env, timeout: 60_000, encoding: 'utf8' })
  return { command, text: stdout.trimEnd() }
}

/** Names under `Commands:` and `Programs:`, but for commander's own `help`. */
function listed(text: string): string[] {
  const names: string[] = []
  let inside = false
  for (const line of text.split('\n')) {
    if (/^\S/.test(line)) inside = /^(Commands|Programs):$/.test(line)
    else if (inside) {
      const name = /^ {2}([a-z]+)\b/.exec(line)?.[1]
      if (name && name !== 'help') names.push(name)
    }
  }
  return names
}

async function below(command: string): Promise<Help[]> {
  const own = await help(command)
  const parts: Help[][] = []
  // One after the other: each starts a process.
  for (const name of listed(own.text)) parts.push(await below(command ? `${command} ${name}` : name))
  return [own, ...parts.flat()]
}

let known: Promise<Help[]> | undefined

/** The help of every command, the whole first; asked for once. */
export function everyHelp(): Promise<Help[]> {
  return (known ??= below(''))
}

const anchor = (command: string): string => `ambit-${command}`.replaceAll(' ', '-')

/** The page. */
export async function cliPage(): Promise<string> {
  const [whole, ...commands] = await everyHelp()
  return [
    '# Commands',
    '',
    'What each command says of itself with `--help`. Made by `npm run gen`. From a clone `ambit` is `agent/bin/ambit`.',
    '',
    ...commands.map(
      ({ command }) => `${'  '.repeat(command.split(' ').length - 1)}- [ambit ${command}](#${anchor(command)})`,
    ),
    '',
    '```text',
    whole?.text ?? '',
    '```',
    ...commands.flatMap(({ command, text }) => ['', `## ambit ${command}`, '', '```text', text, '```']),
    '',
  ].join('\n')
}
