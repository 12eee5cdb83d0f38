// Time limits of requests: one timer for all of them, and starting or stopping one costs a few assignments. A limit is never
// early, and late by at most 10 ms (below 2 s), 100 ms (below 20 s) or a second. Must not live here: what follows from one.
import type { Clock, Timer } from '../base/clock.ts'

export interface DeadlineOwner {
  /** Called once, unless the deadline was stopped. `kind`: as it was started. */
  onDeadline(kind: number): void
}

/** A running limit; in the list of its bucket. */
export class Deadline {
  readonly owner: DeadlineOwner | undefined
  readonly kind: number
  previous: Deadline = this
  next: Deadline = this

  constructor(owner: DeadlineOwner | undefined, kind: number) {
    this.owner = owner
    this.kind = kind
  }
}

function unlink(deadline: Deadline): void {
  deadline.previous.next = deadline.next
  deadline.next.previous = deadline.previous
  deadline.next = deadline
  deadline.previous = deadline
}

export class Deadlines {
  readonly #clock: Clock
  /** Ring heads by the time they are due. */
  readonly #buckets = new Map<number, Deadline>()
  #timer: Timer | undefined
  #timerDue = Infinity

  constructor(clock: Clock) {
    this.#clock = clock
  }

  start(ms: number, owner: DeadlineOwner, kind = 0): Deadline {
    const step = ms < 2_000 ? 10 : ms < 20_000 ? 100 : 1_000
    const due = Math.ceil((this.#clock.monotonic() + ms) / step) * step
    let ring = this.#buckets.get(due)
    if (!ring) this.#buckets.set(due, (ring = new Deadline(undefined, 0)))
    const deadline = new Deadline(owner, kind)
    deadline.previous = ring.previous
    deadline.next = ring
    ring.previous.next = deadline
    ring.previous = deadline
    if (due < this.#timerDue) this.#arm(due)
    return deadline
  }

  /** Harmless for one that is over. */
  stop(deadline: Deadline): void {
    unlink(deadline)
  }

  #arm(due: number): void {
    this.#timer?.cancel()
    this.#timerDue = due
    this.#timer = this.#clock.after(Math.max(0, due - this.#clock.monotonic()), this.#onTimer, true)
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    this.#timerDue = Infinity
    const now = this.#clock.monotonic()
    let next = Infinity
    for (const [due, ring] of this.#buckets) {
      if (due <= now) {
        this.#buckets.delete(due)
        for (let one = ring.next; one !== ring; one = ring.next) {
          unlink(one)
          one.owner?.onDeadline(one.kind)
        }
      } else if (ring.next === ring) this.#buckets.delete(due)
      else if (due < next) next = due
    }
    // What was started by a call-back may have armed an earlier one already.
    if (next < this.#timerDue) this.#arm(next)
  }
}
