// One command, one line of dispatch per program. Each program is loaded only when asked for, so that starting one does
// not pay for the others; and what was compiled once is kept. Must not live here: flags of the programs (each has its own
// `main(argv)`).
import { constants, enableCompileCache, flushCompileCache } from 'node:module'
import { join } from 'node:path'

/** Program → its module, which exports `main(argv): Promise<number>` (the exit code). Everything else is the CLI's. */
const PROGRAMS: Readonly<Record<string, string>> = {
  agent: '../node/main.ts',
  waypoint: '../waypoint/main.ts',
  control: '../control/main.ts',
  sandbox: '../sandbox/main.ts',
  app: '../sandbox/app/main.ts',
  completion: './completion.ts',
}

/**
 * Types stripped and code compiled, by Node's version, user and V8's flags: the next start of a program takes some six tenths of the time.
 * Where nothing can be written nothing is kept.
 */
const COMPILED = join(import.meta.dirname, '../../build/compiled')
/** A program that runs for long, or that is killed, has loaded by then all that it starts with. */
const FLUSH_MS = 3_000
if (enableCompileCache(COMPILED).status === constants.compileCacheStatus.ENABLED)
  setTimeout(flushCompileCache, FLUSH_MS).unref()

const [program, ...rest] = process.argv.slice(2)
const known = program !== undefined && Object.hasOwn(PROGRAMS, program) ? PROGRAMS[program] : undefined
const module = (await import(new URL(known ?? '../cli/main.ts', import.meta.url).href)) as {
  main(argv: string[]): Promise<number>
}
process.exitCode = await module.main(known ? rest : process.argv.slice(2))
// A program that has decided its exit code is done: sockets and timers that are still open must not hold it. But what it
// wrote must get out first: writes to a pipe are asynchronous.
process.stdout.write('', () => process.stderr.write('', () => process.exit()))
