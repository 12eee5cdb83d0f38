// Token buckets for what a peer may do cheaply and at our cost: cancel streams, send PING, SETTINGS, empty frames …
// Time is read only when the bucket is low, so that honest traffic pays a subtraction.
import type { Clock } from '../../base/clock.ts'

export class Budget {
  readonly #burst: number
  readonly #perMs: number
  readonly #clock: Clock
  #tokens: number
  #filled: number

  /** `burst` at once, `perSecond` regained with time. */
  constructor(clock: Clock, burst: number, perSecond: number) {
    this.#burst = burst
    this.#perMs = perSecond / 1000
    this.#clock = clock
    this.#tokens = burst
    this.#filled = clock.monotonic()
  }

  /** Takes one; false when there is none left. */
  take(): boolean {
    if (this.#tokens < 1) {
      const now = this.#clock.monotonic()
      this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#filled) * this.#perMs)
      this.#filled = now
      if (this.#tokens < 1) return false
    }
    this.#tokens--
    return true
  }

  /** Gives back `count` for honest work done. */
  give(count: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + count)
  }
}
