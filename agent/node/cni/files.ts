// Replacing files that other programs read and write too: whole or not at all, on disk when it is said to be, and not if
// somebody else was faster. Must not live here: what is in them.
import { randomUUID } from 'node:crypto'
import { renameSync, statSync, type BigIntStats } from 'node:fs'
import { open, readdir, realpath, rm, stat, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** A runtime reads `.conf`, `.conflist` and `.json`: half a file must not look like one. */
const TEMPORARY = /^\.ambit-.*\.tmp$/
/** An agent beside this one may be writing: what is left of a dead one is older. */
const STALE_MS = 60_000
/** Longest file that is read: a network configuration has a few kilobytes. */
export const MAX_FILE = 1 << 20

/** A file as it was read. */
export interface Seen {
  readonly text: string
  /** Changes whenever the file does. */
  readonly version: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** Undefined if there is none. Throws what the kernel says, and RangeError for one that is too long or not UTF-8. */
export async function readSeen(path: string): Promise<Seen | undefined> {
  let file: FileHandle
  try {
    file = await open(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    // Of what is open, and before it is read: whoever is faster from here on is seen.
    const before = await file.stat({ bigint: true })
    if (before.size > MAX_FILE) throw new RangeError(`it has more than ${MAX_FILE} bytes`)
    const bytes = await file.readFile()
    const text = bytes.toString('utf8')
    if (!Buffer.from(text).equals(bytes)) throw new RangeError('it is not UTF-8')
    const [mode, uid, gid] = [Number(before.mode) & 0o7777, Number(before.uid), Number(before.gid)]
    return { text, version: versionText(before), mode, uid, gid }
  } finally {
    await file.close()
  }
}

/** Says nothing about content, but differs once a file was written or replaced. Undefined if there is none. */
export async function versionOf(path: string): Promise<string | undefined> {
  try {
    return versionText(await stat(path, { bigint: true }))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function versionNow(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  return found && versionText(found)
}

function versionText({ dev, ino, size, mtimeNs }: BigIntStats): string {
  return `${dev}:${ino}:${size}:${mtimeNs}`
}

/**
 * Puts a file in the place of the one that was `seen` (undefined: of none), with its owner and mode, which else are 0644 of this
 * process. False, and nothing is changed, if that one is not there any more. A symbolic link stays, its target is replaced.
 */
export async function replaceFile(
  path: string,
  content: string | Uint8Array,
  seen: (Pick<Seen, 'version'> & Partial<Seen>) | undefined,
  mode = 0o644,
): Promise<boolean> {
  const target = seen ? await realpath(path) : path
  const folder = dirname(target)
  const temporary = join(folder, `.ambit-${basename(target)}-${randomUUID()}.tmp`)
  try {
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(content)
      if (seen?.uid !== undefined && seen.gid !== undefined) await file.chown(seen.uid, seen.gid)
      await file.chmod(seen?.mode ?? mode)
      await file.sync()
    } finally {
      await file.close()
    }
    // Nothing of this process comes between the look and the step: what another one writes there would be lost.
    if (versionNow(path) !== seen?.version) return false
    renameSync(temporary, target)
    await syncFolder(folder)
    return true
  } finally {
    await rm(temporary, { force: true })
  }
}

/** Removes a file for good. */
export async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true })
  await syncFolder(dirname(path))
}

/** Removes what a writer that died left. */
export async function removeLeftovers(folder: string, now: number): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!TEMPORARY.test(name)) continue
    const path = join(folder, name)
    const found = await stat(path).catch(() => undefined)
    if (found && now - found.mtimeMs > STALE_MS) await rm(path, { force: true })
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
