// Configuration from folders of YAML: watches them, and on a change reads, checks and translates everything anew. Each
// problem is logged once, with its file and line. Must not live here: the rules of documents (config/).
import { watch, type FSWatcher } from 'node:fs'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import { loadPaths, type FolderCache, type Loaded } from '../../config/folder.ts'
import { Memory } from '../../config/memory.ts'
import { describeProblem, sortProblems } from '../../config/problem.ts'
import { ResourceStore } from '../../config/store.ts'
import { translate } from '../../config/translate.ts'
import type { Gather, Snapshot } from './gather.ts'
import { ProblemLog } from './problem-log.ts'

export interface FileGatherOptions {
  /** Files and folders; resources of a later one overlay those of an earlier one. */
  readonly paths: readonly string[]
  readonly log: Logger
  readonly clock: Clock
  /** Quiet time after a change before it is read, so that a file being written is not read in halves. Default 30 ms. */
  readonly settleMs?: number
  /** Looks without a cause, for changes that no event told (network file systems, lost events). Default 5 s. */
  readonly rescanMs?: number
}

/** A folder that cannot be watched (no inotify instance left) is looked at this often instead. */
const POLL_MS = 500
/** An editor that truncates before it writes is given this long before its empty file is believed. */
const EMPTY_MS = 200
/** Changes that never pause are read after this long all the same. */
const MAX_SETTLE_MS = 250

/** Watches files and folders. */
export function gatherFiles(options: FileGatherOptions): Gather {
  return new FileGather(options)
}

class FileGather implements Gather {
  readonly #options: FileGatherOptions
  readonly #cache: FolderCache = new Map()
  readonly #store = new ResourceStore()
  readonly #memory = new Memory()
  readonly #watchers = new Map<string, FSWatcher>()
  #unwatched = false
  #onSnapshot: ((snapshot: Snapshot) => void) | undefined
  #last: Loaded | undefined
  #version = 0
  readonly #told: ProblemLog
  /** Files that held something and are empty now, with the time since when. */
  #emptied = new Map<string, number>()
  #settling: Timer | undefined
  #firstChange = 0
  #rescan: Timer | undefined

  constructor(options: FileGatherOptions) {
    this.#options = options
    this.#told = new ProblemLog(options.log)
  }

  start(onSnapshot: (snapshot: Snapshot) => void): Promise<void> {
    const { paths } = this.#options
    const loaded = loadPaths(paths, this.#cache)
    const missing = paths.find((path) => loaded.unreadable.includes(path))
    if (missing !== undefined) {
      const problem = loaded.problems.find((one) => one.file === missing)
      return Promise.reject(
        new AmbitError('CONFIG_UNREADABLE', `The configuration ${missing} cannot be read: ${problem?.message ?? ''}`, {
          hint: 'Name an existing file or folder with --config-dir.',
        }),
      )
    }
    this.#onSnapshot = onSnapshot
    this.#take(loaded)
    this.#watch(loaded)
    // Whatever changed between the first look and the watching.
    this.#changed()
    this.#planRescan()
    return Promise.resolve()
  }

  stop(): Promise<void> {
    this.#onSnapshot = undefined
    this.#settling?.cancel()
    this.#rescan?.cancel()
    for (const watcher of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
    return Promise.resolve()
  }

  #look(): void {
    if (!this.#onSnapshot) return
    const loaded = loadPaths(this.#options.paths, this.#cache)
    this.#watch(loaded)
    if (this.#waitsForContent(loaded)) return
    if (this.#last && isSame(this.#last, loaded)) return
    this.#take(loaded)
  }

  #take(loaded: Loaded): void {
    const { log } = this.#options
    this.#last = loaded
    let snapshot: Snapshot
    try {
      const state = this.#store.update(loaded)
      const translation = translate(state, this.#memory)
      const problems = sortProblems([...state.problems, ...translation.problems])
      snapshot = { version: ++this.#version, translation, problems }
    } catch (error) {
      // A fault of ours; what ran keeps running.
      log.error({ error: messageOf(error) }, 'the configuration could not be translated; the last one stays in force')
      return
    }
    this.#told.tell(snapshot.problems)
    this.#onSnapshot?.(snapshot)
  }

  /** True if a file that held something is empty just now: the next look decides. */
  #waitsForContent(loaded: Loaded): boolean {
    const { clock } = this.#options
    const held = new Set(
      this.#last?.files.filter((one) => (one.parsed?.resources.length ?? 0) > 0).map((one) => one.file),
    )
    let waits = false
    for (const { file, empty } of loaded.files) {
      if (!empty) this.#emptied.delete(file)
      else if (held.has(file)) {
        const since = this.#emptied.get(file) ?? clock.monotonic()
        this.#emptied.set(file, since)
        if (clock.monotonic() - since < EMPTY_MS) waits = true
      }
    }
    if (waits && !this.#settling) this.#settle(EMPTY_MS)
    return waits
  }

  #changed(): void {
    const { clock, settleMs = 30 } = this.#options
    if (this.#settling) {
      if (clock.monotonic() - this.#firstChange > MAX_SETTLE_MS) return
      this.#settling.cancel()
    } else this.#firstChange = clock.monotonic()
    this.#settle(settleMs)
  }

  #settle(ms: number): void {
    this.#settling = this.#options.clock.after(ms, () => {
      this.#settling = undefined
      this.#look()
    })
  }

  #planRescan(): void {
    const { clock, rescanMs = 5000 } = this.#options
    this.#rescan = clock.after(
      this.#unwatched ? Math.min(POLL_MS, rescanMs) : rescanMs,
      () => {
        this.#look()
        if (this.#onSnapshot) this.#planRescan()
      },
      true,
    )
  }

  /** One watcher per folder that exists now; a file given by itself has its own. */
  #watch(loaded: Loaded): void {
    const own = this.#options.paths.filter((path) => loaded.files.some((one) => one.file === path))
    const wanted = new Set([...loaded.folders, ...own])
    for (const [path, watcher] of this.#watchers) {
      if (wanted.has(path)) continue
      watcher.close()
      this.#watchers.delete(path)
    }
    for (const path of wanted) if (!this.#watchers.has(path)) this.#watchOne(path)
  }

  #watchOne(path: string): void {
    try {
      const watcher = watch(path, { persistent: true }, (event) => {
        // A file replaced by renaming takes its watcher along: a new one is made at the next look.
        if (event === 'rename' && this.#options.paths.includes(path)) this.#drop(path, watcher)
        this.#changed()
      })
      watcher.on('error', () => {
        this.#drop(path, watcher)
        this.#changed()
      })
      this.#watchers.set(path, watcher)
    } catch (error) {
      if (!this.#unwatched) {
        this.#options.log.warn(
          { path, error: messageOf(error) },
          `folders cannot be watched and are read every ${POLL_MS} ms instead`,
        )
      }
      this.#unwatched = true
    }
  }

  #drop(path: string, watcher: FSWatcher): void {
    watcher.close()
    if (this.#watchers.get(path) === watcher) this.#watchers.delete(path)
  }
}

/** Unchanged files are the same parsed objects; then nothing else can have changed. */
function isSame(a: Loaded, b: Loaded): boolean {
  return (
    a.files.length === b.files.length &&
    a.unreadable.join('\n') === b.unreadable.join('\n') &&
    a.problems.map(describeProblem).join('\n') === b.problems.map(describeProblem).join('\n') &&
    a.files.every((one, index) => one.parsed === b.files[index]?.parsed && one.file === b.files[index]?.file)
  )
}
