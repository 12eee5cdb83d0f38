// Time as a value that is passed in: code that waits or measures takes a Clock, tests give it a ManualClock.
// Must not live here: anything that sleeps on its own account.

export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Milliseconds since the epoch, for certificates, logs and ages. */
  now(): number
  /** Monotonic milliseconds, with fractions, for durations. */
  monotonic(): number
  /** Runs `task` once after `ms`. The timer does not keep the process alive when `background` is true. */
  after(ms: number, task: () => void, background?: boolean): Timer
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, task, background = false) {
    const handle = setTimeout(task, ms)
    if (background) handle.unref()
    return { cancel: () => clearTimeout(handle) }
  },
}

/** A clock that stands still until `advance` is called. Tasks run in order of their due time. */
export class ManualClock implements Clock {
  #time: number
  #tasks: { due: number; task: () => void }[] = []

  constructor(start = 0) {
    this.#time = start
  }

  now(): number {
    return this.#time
  }

  monotonic(): number {
    return this.#time
  }

  after(ms: number, task: () => void): Timer {
    const entry = { due: this.#time + Math.max(0, ms), task }
    this.#tasks.push(entry)
    return {
      cancel: () => {
        this.#tasks = this.#tasks.filter((other) => other !== entry)
      },
    }
  }

  /** Moves time forward by `ms`, running what falls due on the way, also what those tasks schedule. */
  advance(ms: number): void {
    const end = this.#time + ms
    for (;;) {
      let next: { due: number; task: () => void } | undefined
      for (const entry of this.#tasks) if (entry.due <= end && (!next || entry.due < next.due)) next = entry
      if (!next) break
      const running = next
      this.#tasks = this.#tasks.filter((other) => other !== running)
      this.#time = Math.max(this.#time, running.due)
      running.task()
    }
    this.#time = end
  }
}
