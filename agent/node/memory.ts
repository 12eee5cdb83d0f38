// When the agent gives memory back: a state, or a large change of it, comes as one response and leaves twice its size behind in a
// heap that V8 sees no reason to collect. Must not live here: how it is given back (base/memory.ts, io).
import type { Clock, Timer } from '../base/clock.ts'

/** Without a change for so long, what followed from the last ones is done. */
const QUIET_MS = 5_000
/** Collecting holds the thread for a tenth of a second: not more often than this. */
const BETWEEN_MS = 60_000
/** Changes of the state that are worth it: some ten megabytes of garbage. */
const MANY = 1_000

export interface GiveBackOptions {
  readonly clock: Clock
  /** Number of changes of the state so far. */
  readonly changes: () => number
  readonly giveBack: () => void
}

export class GiveBack {
  readonly #options: GiveBackOptions
  /** Changes when memory was given back last; undefined before the first time, which is due whatever there was. */
  #seen: number | undefined
  #lastMs = Number.NEGATIVE_INFINITY
  #timer: Timer | undefined

  constructor(options: GiveBackOptions) {
    this.#options = options
  }

  /** The state has changed. Cheap. */
  changed(): void {
    const { clock, changes } = this.#options
    if (this.#seen !== undefined && changes() - this.#seen < MANY) return
    this.#timer?.cancel()
    const wait = Math.max(QUIET_MS, this.#lastMs + BETWEEN_MS - clock.monotonic())
    this.#timer = clock.after(wait, () => this.#now(), true)
  }

  #now(): void {
    const { clock, changes, giveBack } = this.#options
    this.#timer = undefined
    this.#seen = changes()
    giveBack()
    this.#lastMs = clock.monotonic()
  }

  close(): void {
    this.#timer?.cancel()
  }
}
