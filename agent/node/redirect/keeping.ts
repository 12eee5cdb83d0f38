// What the holder is to keep of this agent: put there under names, put again when a holder comes back empty. A holder that is away
// costs only that. Must not live here: the protocol (holder.ts), what is kept (listeners.ts, vault.ts).
import { BpfError, closeFd, dupFd } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'
import { PATIENCE_MS, type Holder } from './holder.ts'

/** Between looks whether the holder still has everything. */
const LOOK_MS = 5_000

export interface KeepingOptions {
  /** Undefined: nothing is kept. */
  readonly holder: Holder | undefined
  /** False: another agent says what is kept. */
  readonly leads: () => boolean
  /** The holder failed; said again only after it worked in between. */
  readonly onProblem: (problem: AmbitError) => void
}

export class Keeping {
  readonly #options: KeepingOptions
  /** Descriptors by name; owned by who put them. */
  readonly #kept = new Map<string, readonly number[]>()
  readonly #timer: NodeJS.Timeout | undefined
  /** The holder's run that has everything; undefined: not known. */
  #instance: bigint | undefined
  #told = false

  constructor(options: KeepingOptions) {
    this.#options = options
    if (options.holder) this.#timer = setInterval(() => void this.look(), LOOK_MS).unref()
  }

  /** Has these kept, in place of what has that name. They must stay open until another `put` of that name, or `drop`, has ended. */
  async put(name: string, fds: readonly number[]): Promise<void> {
    this.#kept.set(name, fds)
    await this.#try((holder) => holder.put(name, fds))
  }

  /** New descriptors of what has that name, the caller's to close; undefined if there is nothing. */
  get(name: string): Promise<readonly number[] | undefined> {
    return this.#try((holder) => holder.get(name))
  }

  async drop(name: string): Promise<void> {
    this.#kept.delete(name)
    await this.#try((holder) => holder.drop(name))
  }

  /** All names that begin so; none while the holder is away. */
  async list(prefix: string): Promise<readonly string[]> {
    return (await this.#try((holder) => holder.list(prefix))) ?? []
  }

  async dropAll(prefix: string): Promise<void> {
    await this.#try((holder) => holder.dropAll(prefix))
  }

  /** Puts again what the holder lost, as one that was started anew has. */
  async look(): Promise<void> {
    if (!this.#options.leads()) return
    const status = await this.#try((holder) => holder.status())
    if (!status || status.instance === this.#instance) return
    const there = await this.#try((holder) => holder.list(''))
    if (!there) return
    const known = new Set(there)
    for (const [name, fds] of this.#kept) {
      if (known.has(name)) continue
      // Their owner may close them while the holder is waited for.
      const own = dupAll(fds)
      if (!own) continue
      try {
        if ((await this.#try(async (holder) => (await holder.put(name, own), true))) !== true) return
      } finally {
        own.forEach(closeFd)
      }
    }
    this.#instance = status.instance
  }

  /** Stops looking. What is kept stays. */
  close(): void {
    clearInterval(this.#timer)
  }

  async #try<T>(use: (holder: Holder) => Promise<T>): Promise<T | undefined> {
    const { holder, onProblem } = this.#options
    if (!holder) return undefined
    try {
      const value = await use(holder)
      this.#told = false
      holder.patienceMs = PATIENCE_MS
      return value
    } catch (error) {
      if (!(error instanceof AmbitError)) throw error
      // It may come back empty: then everything is to be put again.
      this.#instance = undefined
      if (!this.#told) onProblem(error)
      this.#told = true
      // Pods are not to wait for one that is away, each anew.
      holder.patienceMs = 0
      return undefined
    }
  }
}

/** Undefined if one of them is closed by now: what takes its place is put by its owner. */
function dupAll(fds: readonly number[]): number[] | undefined {
  const own: number[] = []
  try {
    for (const fd of fds) own.push(dupFd(fd))
    return own
  } catch (error) {
    own.forEach(closeFd)
    if (error instanceof BpfError) return undefined
    throw error
  }
}
