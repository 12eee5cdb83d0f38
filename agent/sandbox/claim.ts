// Choosing an instance number and taking a sandbox's name: one folder per name, one small file per number, so that two
// sandboxes never share a subnet and a crashed one is found again. Must not live here: what is built with them.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AmbitError } from '../base/errors.ts'
import { homeOf, MAX_INSTANCES, RUN_ROOT } from './layout.ts'
import { Journal } from './world/journal.ts'
import { run } from './world/run.ts'

const IDS = join(RUN_ROOT, '.ids')
/** Names go into paths of unix sockets, which hold 107 bytes. */
const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/

/** Throws SANDBOX_NAME_INVALID. */
export function checkName(name: string): void {
  if (!NAME.test(name))
    throw new AmbitError('SANDBOX_NAME_INVALID', `'${name}' cannot be a sandbox's name`, {
      hint: 'Use up to 32 lower-case letters, digits and dashes.',
    })
}

/** The pid of the process that runs the sandbox, if it is alive and really that process. */
export function ownerOf(name: string): number | undefined {
  try {
    const { pid, started } = JSON.parse(readFileSync(join(homeOf(name), 'owner.json'), 'utf8')) as {
      pid: number
      started: string
    }
    return startOf(pid) === started ? pid : undefined
  } catch {
    return undefined
  }
}

/** When a process began (field 22 of its stat, clock ticks since boot): tells a reused pid from the old one. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}

/** Names of the sandboxes that have a folder. */
export function sandboxNames(): string[] {
  if (!existsSync(RUN_ROOT)) return []
  return readdirSync(RUN_ROOT).filter((name) => NAME.test(name) && existsSync(join(RUN_ROOT, name, 'owner.json')))
}

/** Removes everything a sandbox left, also after a crash. Returns what could not be removed. */
export async function sweep(name: string): Promise<string[]> {
  const home = homeOf(name)
  const left = existsSync(home) ? await new Journal(home).removeAll() : []
  if (left.length === 0) {
    rmSync(home, { recursive: true, force: true })
    if (existsSync(IDS))
      for (const id of readdirSync(IDS)) if (holderOf(id) === name) rmSync(join(IDS, id), { force: true })
    removeIfEmpty(IDS)
    removeIfEmpty(RUN_ROOT)
  }
  return left
}

function removeIfEmpty(folder: string): void {
  if (existsSync(folder) && readdirSync(folder).length === 0) rmSync(folder, { recursive: true, force: true })
}

function holderOf(id: string): string {
  try {
    return readFileSync(join(IDS, id), 'utf8').trim()
  } catch {
    return ''
  }
}

export interface Claim {
  readonly id: number
  readonly home: string
  readonly journal: Journal
}

/**
 * Takes the name (throws SANDBOX_RUNNING while another process runs it), removes what a crash left, and takes the lowest
 * free number whose networks the machine does not use already.
 */
export async function claim(name: string): Promise<Claim> {
  checkName(name)
  const owner = ownerOf(name)
  if (owner !== undefined)
    throw new AmbitError('SANDBOX_RUNNING', `the sandbox '${name}' is running already (process ${owner})`, {
      hint: `End it with 'ambit sandbox down --name ${name}', or choose another --name.`,
    })
  const left = await sweep(name)
  if (left.length > 0)
    throw new AmbitError(
      'SANDBOX_NOT_SWEPT',
      `an earlier sandbox '${name}' left what cannot be removed: ${left.join('; ')}`,
    )
  mkdirSync(IDS, { recursive: true, mode: 0o700 })
  const routes = await run('ip', ['-4', 'route', 'show', 'table', 'all'])
  for (let id = 0; id < MAX_INSTANCES; id++) {
    if (routes.includes(` 10.${129 + 2 * id}.`) || routes.includes(`\n10.${129 + 2 * id}.`)) continue
    try {
      writeFileSync(join(IDS, String(id)), name, { flag: 'wx' })
    } catch {
      continue
    }
    const home = homeOf(name)
    mkdirSync(home, { recursive: true, mode: 0o700 })
    writeFileSync(join(home, 'owner.json'), JSON.stringify({ pid: process.pid, started: startOf(process.pid), id }))
    return { id, home, journal: new Journal(home) }
  }
  throw new AmbitError('SANDBOX_NO_SUBNET', `all ${MAX_INSTANCES} instance numbers are taken`, {
    hint: `End other sandboxes: ${sandboxNames().join(', ')}.`,
  })
}
