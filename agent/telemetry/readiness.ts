// Whether a program is ready: named tasks block it until each is done. Must not live here: serving it (admin.ts).

/** A task that blocks readiness. `using` it, or calling `done`, ends the task; the second time changes nothing. */
export interface Blocker extends Disposable {
  readonly name: string
  done(): void
}

export class Readiness {
  readonly #pending = new Set<Blocker>()
  readonly #changed: (pending: readonly string[]) => void
  #draining = false

  /** `changed` is told the names still pending whenever a task ends. */
  constructor(changed: (pending: readonly string[]) => void = () => {}) {
    this.#changed = changed
  }

  /** Registers a task. */
  block(name: string): Blocker {
    const end = (): void => {
      if (this.#pending.delete(blocker)) this.#changed(this.pending)
    }
    const blocker: Blocker = { name, done: end, [Symbol.dispose]: end }
    this.#pending.add(blocker)
    return blocker
  }

  /** Names of the tasks that still block. */
  get pending(): readonly string[] {
    return [...this.#pending].map((blocker) => blocker.name)
  }

  /** Not ready any more, for good: the program is going away. */
  drain(): void {
    this.#draining = true
  }

  get draining(): boolean {
    return this.#draining
  }

  get ready(): boolean {
    return !this.#draining && this.#pending.size === 0
  }
}
