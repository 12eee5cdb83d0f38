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

/**
 * Takes one version's programs off the node and the pods, and removes its folder. What pods dial is left alone first; what
 * is captured by then gets a moment to be established, and only then their namespaces are let go.
 */
export async function removeSchema(root: string, schema: number, handshakesMs = 50): Promise<void> {
  const folder = pinFolder(root, schema)
  const links = namesIn(`${folder}/links`)
  for (const name of links.filter(isConnect)) removeLink(`${folder}/links/${name}`)
  await new Promise((resolve) => setTimeout(resolve, handshakesMs))
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory() || entry.name === 'links') continue
    for (const name of namesIn(`${folder}/${entry.name}`)) removeLink(`${folder}/${entry.name}/${name}`)
  }
  for (const name of links.filter((one) => !isConnect(one))) removeLink(`${folder}/links/${name}`)
  rmSync(folder, { recursive: true, force: true })
}

function isConnect(name: string): boolean {
  return name.startsWith('ambit_connect')
}
