// The version of everything that is pinned, and where that is: maps of one version are understood by programs of that version
// only. Must not live here: what is pinned (programs.ts, pods.ts), how one version follows another (older.ts).
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { basename } from 'node:path'
import { BpfError, openPinnedLink } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'

/** Counts up whenever the shape of a pinned map, or what its entries mean, changes. bpf/README.md says what changed. */
export const SCHEMA = 2

/** Where one version's pins are, under the node's folder on the bpffs. */
export function pinFolder(root: string, schema: number): string {
  return `${root}/v${schema}`
}

/** Versions other than `own` of which there are pins, in order. Throws REDIRECT_PIN_ROOT. */
export function otherSchemas(root: string, own: number): number[] {
  checkPinRoot(root)
  if (!existsSync(root)) return []
  return readdirSync(root)
    .flatMap((name) => /^v([1-9]\d{0,3})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .filter((schema) => schema !== own)
    .sort((a, b) => a - b)
}

/** Earlier versions wanted the schema in the path. Taken so, this one would not find what they left. */
export function checkPinRoot(root: string): void {
  if (!/^v\d+$/.test(basename(root))) return
  throw new AmbitError('REDIRECT_PIN_ROOT', `The pin folder ${root} names a schema, which the agent adds itself.`, {
    hint: `Leave the last part off: --pin-root ${root.replace(/\/v\d+\/?$/, '')}`,
  })
}

/** Takes a pinned link away: detached at once, whoever else has it open. */
export function removeLink(path: string): void {
  using link = openPinnedLink(path)
  try {
    link.detach()
  } catch (error) {
    // What it was attached to is gone, and the attachment with it; links of some kinds go with their last holder only.
    if (!(error instanceof BpfError && ['ENOLINK', 'EOPNOTSUPP'].includes(error.code))) throw error
  }
  rmSync(path, { force: true })
}

/** Names in a folder, none if it is not there. */
export function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : []
}

/** A handshake that was captured is over in a tenth of this. */
const HANDSHAKES_MS = 5

/**
 * Takes one version's programs off the node and the pods, and removes its folder. In this order: what would drop plain
 * connections on their way out, what captures, and, after a moment for what was captured by then, what judges in the pods.
 */
export async function removeSchema(root: string, schema: number): Promise<void> {
  const folder = pinFolder(root, schema)
  const links = namesIn(`${folder}/links`)
  removeLinks(`${folder}/guards`)
  for (const name of links.filter(isConnect)) removeLink(`${folder}/links/${name}`)
  await new Promise((resolve) => setTimeout(resolve, HANDSHAKES_MS))
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory() && entry.name !== 'links') removeLinks(`${folder}/${entry.name}`)
  removeLinks(`${folder}/links`)
  rmSync(folder, { recursive: true, force: true })
}

function removeLinks(folder: string): void {
  for (const name of namesIn(folder)) removeLink(`${folder}/${name}`)
}

function isConnect(name: string): boolean {
  return name.startsWith('ambit_connect')
}
