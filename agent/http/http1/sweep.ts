// Deadlines of many connections by one coarse timer: setting one costs an addition, and an idle process has no timer at all.
// Precision is a second, which head and idle timeouts do not need finer. Must not live here: what happens at a deadline.
import type { Clock, Timer } from '../../base/clock.ts'

const STEP = 1_000

export interface Swept {
  /** In `Sweep.now` milliseconds; Infinity for none. */
  deadline: number
  onDeadline(): void
}

export class Sweep {
  /** Monotonic milliseconds, moved on once per step. */
  now: number
  readonly #clock: Clock
  readonly #members = new Set<Swept>()
  #timer: Timer | undefined

  constructor(clock: Clock) {
    this.#clock = clock
    this.now = clock.monotonic()
  }

  get size(): number {
    return this.#members.size
  }

  add(member: Swept): void {
    this.#members.add(member)
    if (this.#timer) return
    this.now = this.#clock.monotonic()
    this.#timer = this.#clock.after(STEP, this.#step, true)
  }

  delete(member: Swept): void {
    this.#members.delete(member)
  }

  values(): Iterable<Swept> {
    return this.#members
  }

  readonly #step = (): void => {
    this.#timer = undefined
    this.now = this.#clock.monotonic()
    for (const member of this.#members) if (member.deadline <= this.now) member.onDeadline()
    if (this.#members.size > 0) this.#timer = this.#clock.after(STEP, this.#step, true)
  }
}
