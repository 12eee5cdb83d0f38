// Folders and files of YAML as parsed files, in a stable order (age in a folder is path, then document order). Unchanged
// files are not read or parsed again. Synchronous: a look must be of one moment, and control has nothing else to do meanwhile.
// Must not live here: watching (control/gather), what a document means (load.ts), earlier versions (store.ts).
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { messageOf } from '../base/errors.ts'
import { decodeFile, fileProblem } from './document.ts'
import { IMAGES_FILE } from './images.ts'
import { parseMeshFile, parseText, type Parsed } from './load.ts'
import { MESH_FILE } from './mesh-config.ts'
import type { Problem } from './problem.ts'

/** Files in all folders together. */
export const MAX_FILES = 20_000
/** Folders inside folders. */
const MAX_DEPTH = 16

export interface LoadedFile {
  readonly file: string
  /** Which of the given paths it was found under: a later one overlays the resources of an earlier one. */
  readonly root: number
  /** undefined: the file exists and cannot be read; what it held is not known to be gone. */
  readonly parsed: Parsed | undefined
  /** No bytes at all: perhaps in the middle of being written. */
  readonly empty: boolean
}

export interface Loaded {
  readonly files: readonly LoadedFile[]
  /** Every folder that was listed, for whoever watches them. */
  readonly folders: readonly string[]
  /** Paths that cannot be listed: what was under them is not known to be gone. */
  readonly unreadable: readonly string[]
  /** About files and folders themselves; those of documents are in `files`. */
  readonly problems: readonly Problem[]
}

/** Files by path as they were at the last look, so that what did not change is neither read nor parsed again. */
export type FolderCache = Map<string, CachedFile>

interface CachedFile {
  readonly text: string
  readonly parsed: Parsed
  readonly inode: number
  readonly size: number
  readonly modified: number
  readonly readAt: number
}

/** Times of modification are only as fine as the kernel's tick: a file changed this shortly before it was read is read again. */
const TRUST_AFTER_MS = 100

interface Look {
  readonly found: { readonly file: string; readonly root: number }[]
  readonly files: LoadedFile[]
  readonly folders: string[]
  readonly unreadable: string[]
  readonly problems: Problem[]
}

/**
 * Reads files and folders (recursively: *.yaml, *.yml, *.json; names with a leading dot and images.yaml are left out).
 * Never throws. `now` is the wall clock that the files' times of modification are written by.
 */
export function loadPaths(
  paths: readonly string[],
  cache: FolderCache = new Map(),
  now: () => number = Date.now,
): Loaded {
  const look: Look = { found: [], files: [], folders: [], unreadable: [], problems: [] }
  for (const [root, path] of paths.entries()) {
    try {
      if (statSync(path).isDirectory()) listFolder(path, root, 0, look)
      else look.found.push({ file: path, root })
    } catch (error) {
      cannotRead(path, error, look)
      look.unreadable.push(path)
    }
  }
  const excess = look.found[MAX_FILES]
  if (excess) {
    const message = `More than ${MAX_FILES} files: this one and those after it are left out.`
    look.problems.push(fileProblem(excess.file, 1, 'CONFIG_TOO_LARGE', message, 'Put more resources into one file.'))
  }
  for (const { file, root } of look.found.slice(0, MAX_FILES)) readOne(file, root, look, cache, now)
  const present = new Set(look.found.map((one) => one.file))
  for (const file of cache.keys()) if (!present.has(file)) cache.delete(file)
  const { files, folders, unreadable, problems } = look
  return { files, folders, unreadable, problems }
}

/** A single text, as from standard input. */
export function loadText(text: string, file: string): Loaded {
  const one = { file, root: 0, parsed: parseFile(text, file), empty: text === '' }
  return { files: [one], folders: [], unreadable: [], problems: [] }
}

function readOne(file: string, root: number, look: Look, cache: FolderCache, now: () => number): void {
  try {
    const known = cache.get(file)
    const { ino, size, mtimeMs } = statSync(file)
    const same = known?.inode === ino && known.size === size && known.modified === mtimeMs
    if (known && same && mtimeMs < known.readAt - TRUST_AFTER_MS) {
      look.files.push({ file, root, parsed: known.parsed, empty: size === 0 })
      return
    }
    const readAt = now()
    const bytes = readFileSync(file)
    const text = decodeFile(bytes, file)
    if (typeof text !== 'string') {
      look.problems.push(text)
      look.files.push({ file, root, parsed: undefined, empty: false })
      return
    }
    const parsed = known?.text === text ? known.parsed : parseFile(text, file)
    cache.set(file, { text, parsed, inode: ino, size, modified: mtimeMs, readAt })
    look.files.push({ file, root, parsed, empty: bytes.length === 0 })
  } catch (error) {
    // Gone between listing and reading: as if it had not been listed.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    cannotRead(file, error, look)
    look.files.push({ file, root, parsed: undefined, empty: false })
  }
}

function parseFile(text: string, file: string): Parsed {
  return basename(file) === MESH_FILE ? parseMeshFile(text, file) : parseText(text, file)
}

function cannotRead(path: string, error: unknown, look: Look): void {
  const hint = 'Check the path and its permissions.'
  look.problems.push(fileProblem(path, 1, 'CONFIG_UNREADABLE', `Cannot be read: ${messageOf(error)}.`, hint))
}

function listFolder(folder: string, root: number, depth: number, look: Look): void {
  const names = readdirSync(folder).sort()
  look.folders.push(folder)
  for (const name of names) {
    if (name.startsWith('.')) continue
    const path = join(folder, name)
    try {
      // Follows links: a ConfigMap mounted into a pod is a folder of them.
      if (statSync(path).isDirectory()) {
        if (depth < MAX_DEPTH) listFolder(path, root, depth + 1, look)
      } else if (/\.(ya?ml|json)$/.test(name) && name !== IMAGES_FILE) look.found.push({ file: path, root })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
      cannotRead(path, error, look)
      look.unreadable.push(path)
    }
  }
}
