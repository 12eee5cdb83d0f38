// Keeps the plugin chained while an agent runs: looks whenever the folders change and from time to time, puts back what others
// took out, and says whether it is there. It stays when the agent ends: pods that start meanwhile must wait for the next.
// Must not live here: how it is put there (network.ts, program.ts).
import { statSync, watch, type FSWatcher } from 'node:fs'
import type { Clock, Timer } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Entry } from './conflist.ts'
import { removeLeftovers } from './files.ts'
import { displace, place } from './network.ts'
import { builtProgram, Program } from './program.ts'

/** Between looks without a cause: an event can be lost, a folder replaced. */
const LOOK_MS = 10_000
/** As often may others take the entry out within LOOK_MS; from then on it is put back at each look only. */
const MAX_PUT_BACK = 5

export interface KeeperOptions {
  /** Where the runtime reads network configurations, as in /etc/cni/net.d. */
  readonly confDir: string
  /** Where it looks for plugins, as in /opt/cni/bin. */
  readonly binDir: string
  readonly entry: Entry
  /** False while another agent of this node has taken over: it is the other's business then, this one only looks. */
  readonly leads: () => boolean
  readonly clock: Clock
  readonly log: Logger
  /** The plugin; default the one that was built with this agent. */
  readonly program?: string
}

export interface KeeperStatus {
  /** True while the runtime would run the plugin for each new pod. */
  readonly chained: boolean
  /** The configuration that has the entry. */
  readonly file: string | undefined
  readonly problem: AmbitError | undefined
  /** How often the entry was put into a configuration. */
  readonly written: number
}

export class CniKeeper {
  readonly #options: KeeperOptions
  readonly #program: Program
  readonly #watchers = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>()
  #status: KeeperStatus = { chained: false, file: undefined, problem: undefined, written: 0 }
  #timer: Timer | undefined
  #running: Promise<void> | undefined
  #dirty = false
  #closed = false
  /** Put back since the last look of the clock's. */
  #putBack = 0

  constructor(options: KeeperOptions) {
    this.#options = options
    this.#program = new Program(options.program ?? builtProgram, options.binDir)
  }

  get status(): KeeperStatus {
    return this.#status
  }

  /** Looks for the first time, and again from now on. Resolves after the first look, whatever it found. */
  async start(): Promise<void> {
    for (const folder of [this.#options.confDir, this.#options.binDir]) {
      await removeLeftovers(folder, this.#options.clock.now()).catch(() => undefined)
    }
    this.#tick()
    await this.settled()
  }

  /** Something may have changed. */
  look(): void {
    if (this.#closed) return
    this.#dirty = true
    this.#running ??= this.#run()
  }

  /** Resolves when no look is running or due at once. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running
  }

  /** Looks no more; the plugin stays where it is. */
  async close(): Promise<void> {
    this.#closed = true
    this.#timer?.cancel()
    for (const { watcher } of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
    await this.settled()
  }

  #tick(): void {
    this.#putBack = 0
    this.#watch(this.#options.confDir)
    this.#watch(this.#options.binDir)
    this.look()
    if (!this.#closed) this.#timer = this.#options.clock.after(LOOK_MS, () => this.#tick(), true)
  }

  async #run(): Promise<void> {
    // In a turn of its own, so that a burst of events is one look.
    await Promise.resolve()
    while (this.#dirty && !this.#closed) {
      this.#dirty = false
      await this.#look()
    }
    this.#running = undefined
  }

  async #look(): Promise<void> {
    const { confDir, entry, leads, log } = this.#options
    const before = this.#status
    const contested = this.#putBack > MAX_PUT_BACK
    const write = leads() && !contested
    try {
      // Before the entry: a list that names a program that is not there lets no pod start at all.
      if (await this.#program.ensure(write)) log.info('the CNI plugin was installed')
      const { file, written } = await place(confDir, entry, write)
      if (written) this.#putBack++
      if (written) log.info({ file }, 'the CNI plugin was chained')
      this.#status = { chained: true, file, problem: undefined, written: before.written + (written ? 1 : 0) }
    } catch (error) {
      const problem = contested ? contestedIn(confDir) : asProblem(error)
      this.#status = { chained: false, file: undefined, problem, written: before.written }
      if (problem.message !== before.problem?.message) {
        log.warn({ code: problem.code, hint: problem.hint }, `the CNI plugin is not chained: ${problem.message}`)
      }
    }
  }

  /** Watches a folder, or the one that has taken its place. */
  #watch(folder: string): void {
    const inode = statSync(folder, { throwIfNoEntry: false })?.ino
    const known = this.#watchers.get(folder)
    if (known && known.inode === inode) return
    known?.watcher.close()
    this.#watchers.delete(folder)
    if (inode === undefined || this.#closed) return
    try {
      const watcher = watch(folder, { persistent: false }, () => this.look())
      watcher.on('error', () => {
        watcher.close()
        this.#watchers.delete(folder)
      })
      this.#watchers.set(folder, { watcher, inode })
    } catch (error) {
      // As when there are no inotify watches left: the clock's looks remain.
      this.#options.log.warn({ folder, error: messageOf(error) }, 'the folder cannot be watched')
    }
  }
}

/**
 * Takes the plugin out of every network configuration of the node, removes it, and gives the files that were changed. Pods go on; new
 * ones start without the mesh. For the uninstall, not the end of an agent; one that runs puts everything back.
 * Throws CNI_FILE, CNI_PROGRAM.
 */
export async function removeFromConflist(options: {
  readonly confDir: string
  readonly binDir: string
}): Promise<string[]> {
  const changed = await displace(options.confDir)
  // After: a list that names a program that is not there lets no pod start at all.
  await new Program(builtProgram, options.binDir).remove()
  return changed
}

function asProblem(error: unknown): AmbitError {
  return error instanceof AmbitError ? error : new AmbitError('CNI_FILE', messageOf(error), { cause: error })
}

function contestedIn(confDir: string): AmbitError {
  return new AmbitError(
    'CNI_CONTESTED',
    `Another program takes the plugin out of the configuration in ${confDir} again and again.`,
    {
      hint: 'It is put back every ten seconds. Let that program keep what others chain (Cilium: cni.exclusive=false).',
    },
  )
}
