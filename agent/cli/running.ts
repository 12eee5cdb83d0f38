// Where a running sandbox keeps its configuration: it says so in a file of its folder. Must not live here: anything else
// of the sandbox; programs of the mesh are not imported by the command line.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AmbitError } from '../base/errors.ts'

/** Folders of the sandboxes, one per name, with a `sandbox.json` each. */
export const RUN_ROOT = '/run/ambit'

interface Running {
  readonly name: string
  readonly configDirs: readonly string[]
}

/** The configuration folders of a running sandbox; without a name, of the only one. Throws CLI_SANDBOX_MISSING or CLI_SANDBOX_AMBIGUOUS. */
export function runningConfig(name: string | undefined, root: string = RUN_ROOT): readonly string[] {
  const running = list(root).filter((one) => name === undefined || one.name === name)
  const [only, second] = running
  if (!only) {
    throw new AmbitError('CLI_SANDBOX_MISSING', name ? `No sandbox '${name}' is running.` : 'No sandbox is running.', {
      hint: 'Name the configuration with --config-dir DIR, or start one: ambit sandbox up DIR.',
    })
  }
  if (second) {
    throw new AmbitError(
      'CLI_SANDBOX_AMBIGUOUS',
      `Several sandboxes are running: ${running.map((one) => one.name).join(', ')}.`,
      {
        hint: 'Name one with --name.',
      },
    )
  }
  return only.configDirs
}

function list(root: string): Running[] {
  let names: string[]
  try {
    names = readdirSync(root)
  } catch {
    return []
  }
  return names.flatMap((name) => {
    try {
      const { configDirs } = JSON.parse(readFileSync(join(root, name, 'sandbox.json'), 'utf8')) as Partial<Running>
      return Array.isArray(configDirs) && configDirs.every((dir) => typeof dir === 'string')
        ? [{ name, configDirs }]
        : []
    } catch {
      return []
    }
  })
}
