// Connections that came before the state they need: they wait for the next change, bounded in time and number.
import type { Clock, Timer } from '../../base/clock.ts'

/** More connections than this do not wait: they are refused at once. */
const MAX_WAITING = 10_000

interface Waiting {
  readonly test: () => boolean
  readonly resolve: (held: boolean) => void
  timer: Timer | undefined
}

export class StateWait {
  readonly #clock: Clock
  readonly #ms: number
  readonly #waiting = new Set<Waiting>()

  constructor(clock: Clock, ms: number) {
    this.#clock = clock
    this.#ms = ms
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** Resolves true once `test` holds, false when the time is over. */
  until(test: () => boolean): Promise<boolean> {
    if (test()) return Promise.resolve(true)
    if (this.#waiting.size >= MAX_WAITING) return Promise.resolve(false)
    return new Promise((resolve) => {
      const entry: Waiting = { test, resolve, timer: undefined }
      entry.timer = this.#clock.after(this.#ms, () => this.#settle(entry, false), true)
      this.#waiting.add(entry)
    })
  }

  /** The state has changed. */
  changed(): void {
    for (const entry of [...this.#waiting]) if (entry.test()) this.#settle(entry, true)
  }

  #settle(entry: Waiting, held: boolean): void {
    if (!this.#waiting.delete(entry)) return
    entry.timer?.cancel()
    entry.resolve(held)
  }
}

/** The promise's outcome, or `error` once `ms` are over. */
export function within<T>(clock: Clock, ms: number, promise: Promise<T>, error: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(ms, () => reject(error()), true)
    promise.then(
      (value) => {
        timer.cancel()
        resolve(value)
      },
      (reason: unknown) => {
        timer.cancel()
        reject(reason instanceof Error ? reason : new Error(String(reason)))
      },
    )
  })
}
