// Waiting times between attempts: exponential, capped, with full jitter so that many clients do not come back together.
// Must not live here: the waiting itself (a Clock does), HTTP retries (mesh/retry.ts).

export interface BackoffOptions {
  /** Milliseconds before the first retry. */
  readonly baseMs: number
  readonly maxMs: number
  /** Growth per attempt, default 2. */
  readonly factor?: number
  /** Share of the wait that is random, 0–1; default 0.5: between half the step and the step. */
  readonly jitter?: number
  /** In [0,1); default Math.random. */
  readonly random?: () => number
}

export class Backoff {
  readonly #options: BackoffOptions
  #attempt = 0

  constructor(options: BackoffOptions) {
    this.#options = options
  }

  /** Attempts since the last reset. */
  get attempt(): number {
    return this.#attempt
  }

  /** Milliseconds to wait now; the next call gives the next step. */
  next(): number {
    const { baseMs, maxMs, factor = 2, jitter = 0.5, random = Math.random } = this.#options
    const step = Math.min(maxMs, baseMs * factor ** this.#attempt)
    // Once capped the exponent stays put: an outage of weeks must not reach Infinity.
    if (step < maxMs) this.#attempt++
    return step * (1 - jitter + jitter * random())
  }

  /** After a success. */
  reset(): void {
    this.#attempt = 0
  }
}
