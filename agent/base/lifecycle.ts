// The life of a program: what it started is stopped in reverse order, once, within a deadline, on SIGTERM or SIGINT.
// Must not live here: what draining means for a room (each registers its own step).
import type { Clock } from './clock.ts'
import { systemClock } from './clock.ts'

export interface LifecycleOptions {
  /** Milliseconds for all steps together; then the program ends anyway. */
  readonly deadlineMs: number
  readonly clock?: Clock
  /** Told about steps that fail or do not end. */
  readonly onProblem?: (step: string, error: unknown) => void
}

/** How a program came to its end. */
export interface Ended {
  readonly reason: string
  /** False if a step failed or the deadline passed. */
  readonly clean: boolean
}

export class Lifecycle {
  readonly #options: LifecycleOptions
  readonly #clock: Clock
  readonly #steps: { name: string; stop: () => void | Promise<void> }[] = []
  readonly #ended = Promise.withResolvers<Ended>()
  #stopping = false

  constructor(options: LifecycleOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
  }

  get stopping(): boolean {
    return this.#stopping
  }

  /** Registers a step; the last registered is stopped first. */
  onStop(name: string, stop: () => void | Promise<void>): void {
    this.#steps.push({ name, stop })
  }

  /** Stops everything; later calls change nothing. Never rejects. */
  stop(reason: string): Promise<Ended> {
    if (!this.#stopping) {
      this.#stopping = true
      void this.#run(reason)
    }
    return this.#ended.promise
  }

  /** Resolves once everything has stopped. */
  get ended(): Promise<Ended> {
    return this.#ended.promise
  }

  /**
   * Stops on SIGTERM and SIGINT; a second signal ends the process at once with 128 + its number. Gives a function that
   * takes the handlers off again.
   */
  onSignals(exit: (code: number) => void = (code) => process.exit(code)): () => void {
    const listen = (name: 'SIGTERM' | 'SIGINT', number: number) => {
      const handler = (): void => {
        if (this.#stopping) exit(128 + number)
        else void this.stop(name)
      }
      process.on(name, handler)
      return () => process.off(name, handler)
    }
    const offTerm = listen('SIGTERM', 15)
    const offInt = listen('SIGINT', 2)
    return () => {
      offTerm()
      offInt()
    }
  }

  /** Calls `reload` on SIGHUP, which would end the process otherwise; not while it stops. Gives a function that takes the handler off again. */
  onReload(reload: () => void): () => void {
    const handler = (): void => {
      if (!this.#stopping) reload()
    }
    process.on('SIGHUP', handler)
    return () => process.off('SIGHUP', handler)
  }

  async #run(reason: string): Promise<void> {
    let clean = true
    let late = false
    let current = ''
    const expired = Promise.withResolvers<void>()
    const timer = this.#clock.after(this.#options.deadlineMs, () => {
      late = true
      expired.resolve()
    })
    for (const { name, stop } of this.#steps.reverse()) {
      current = name
      if (late) break
      try {
        await Promise.race([stop(), expired.promise])
      } catch (error) {
        clean = false
        this.#options.onProblem?.(name, error)
      }
    }
    timer.cancel()
    if (late) this.#options.onProblem?.(current, new Error(`did not end within ${this.#options.deadlineMs} ms`))
    this.#ended.resolve({ reason, clean: clean && !late })
  }
}
