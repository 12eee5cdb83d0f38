// Writes to the API server about many objects, in the order they were asked for: a few at a time, at a bounded rate, and again
// after a while when one fails. One object that cannot be written keeps no other from it; a server that is too busy or away is
// left alone by all. Must not live here: what is written.
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { KubeError } from '../../kube/errors.ts'

export interface WriteQueueOptions {
  readonly clock: Clock
  /** In [0,1); for waiting times. */
  readonly random?: () => number
  /** Writes a second in the long run. */
  readonly perSecond: number
  /** So many may be written at once after a quiet time. */
  readonly burst: number
  /** Requests on their way at one time. */
  readonly atOnce: number
  /** Keys that wait at most; what comes then is dropped and counted. Default: none. */
  readonly max?: number
  /** Attempts at one key before it is given up; default: without end. */
  readonly attempts?: number
  /** Writes what is right for this key now; resolves false where nothing had to be written. Rejects with KubeError. */
  write(key: string): Promise<boolean>
  onFailure(key: string, error: unknown): void
}

/** After what failed, for its key alone. Milliseconds. */
const RETRY = { baseMs: 500, maxMs: 120_000 }
/** After the server was away or too busy, for all. */
const PAUSE = { baseMs: 500, maxMs: 30_000 }

export class WriteQueue {
  readonly #options: WriteQueueOptions
  readonly #pause: Backoff
  readonly #ready = new Set<string>()
  readonly #running = new Set<string>()
  /** Asked for again while they were being written, with how long to wait. */
  readonly #again = new Map<string, number>()
  readonly #delayed = new Map<string, Timer>()
  readonly #retries = new Map<string, Backoff>()
  #tokens: number
  #tokensAt: number
  #timer: Timer | undefined
  #stopped = false
  /** For metrics. */
  readonly counts = { written: 0, failed: 0, dropped: 0 }

  constructor(options: WriteQueueOptions) {
    this.#options = options
    this.#pause = new Backoff({ ...PAUSE, ...(options.random ? { random: options.random } : {}) })
    this.#tokens = options.burst
    this.#tokensAt = options.clock.monotonic()
  }

  /** Keys that wait, those after a failure too. */
  get size(): number {
    return this.#ready.size + this.#delayed.size
  }

  /** Asks for a write, not before `delayMs`; a key that waits already keeps its place. */
  add(key: string, delayMs = 0): void {
    if (this.#stopped || this.#ready.has(key) || this.#delayed.has(key)) return
    if (this.#running.has(key)) {
      this.#again.set(key, delayMs)
      return
    }
    if (this.size >= (this.#options.max ?? Infinity)) {
      this.counts.dropped++
      return
    }
    if (delayMs > 0) this.#delay(key, delayMs)
    else {
      this.#ready.add(key)
      this.#work()
    }
  }

  /** What waits after a failure or for its time waits no longer: it is another matter now. */
  hurry(key: string): void {
    const timer = this.#delayed.get(key)
    if (!timer) return this.add(key)
    timer.cancel()
    this.#delayed.delete(key)
    this.#retries.delete(key)
    this.add(key)
  }

  /** Nothing has to be written about it any more. */
  delete(key: string): void {
    this.#ready.delete(key)
    this.#again.delete(key)
    this.#retries.delete(key)
    this.#delayed.get(key)?.cancel()
    this.#delayed.delete(key)
  }

  /** Forgets all that waits. */
  clear(): void {
    for (const timer of this.#delayed.values()) timer.cancel()
    this.#delayed.clear()
    this.#ready.clear()
    this.#again.clear()
    this.#retries.clear()
  }

  stop(): void {
    this.#stopped = true
    this.clear()
    this.#timer?.cancel()
  }

  #delay(key: string, ms: number): void {
    this.#delayed.set(
      key,
      this.#options.clock.after(ms, () => {
        this.#delayed.delete(key)
        this.#ready.add(key)
        this.#work()
      }),
    )
  }

  #work(): void {
    if (this.#stopped || this.#timer) return
    for (const key of this.#ready) {
      if (this.#running.size >= this.#options.atOnce || !this.#takeToken()) return
      this.#ready.delete(key)
      this.#running.add(key)
      void this.#run(key).finally(() => {
        this.#running.delete(key)
        const again = this.#again.get(key)
        this.#again.delete(key)
        if (again !== undefined) this.add(key, again)
        this.#work()
      })
    }
  }

  /** A bucket: what touches thousands must not take the API server's time from others. */
  #takeToken(): boolean {
    const { clock, perSecond, burst } = this.#options
    const now = clock.monotonic()
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#tokensAt) / 1_000) * perSecond)
    this.#tokensAt = now
    if (this.#tokens < 1) {
      this.#wait(1_000 / perSecond)
      return false
    }
    this.#tokens--
    return true
  }

  #wait(ms: number): void {
    this.#timer ??= this.#options.clock.after(ms, () => {
      this.#timer = undefined
      this.#work()
    })
  }

  async #run(key: string): Promise<void> {
    try {
      if (await this.#options.write(key)) this.counts.written++
      else this.#tokens = Math.min(this.#options.burst, this.#tokens + 1)
      this.#retries.delete(key)
      this.#pause.reset()
    } catch (error) {
      // Gone meanwhile.
      if (error instanceof KubeError && error.status === 404) return
      this.counts.failed++
      this.#options.onFailure(key, error)
      if (this.#stopped) return
      const busy = error instanceof KubeError && (error.status === 0 || error.status === 429 || error.status >= 500)
      if (busy) this.#wait(this.#pause.next())
      let retry = this.#retries.get(key)
      if (!retry) {
        const { random } = this.#options
        this.#retries.set(key, (retry = new Backoff({ ...RETRY, ...(random ? { random } : {}) })))
      }
      if (retry.attempt + 1 >= (this.#options.attempts ?? Infinity)) {
        this.counts.dropped++
        this.#retries.delete(key)
        return
      }
      this.#again.delete(key)
      this.#delay(key, retry.next())
    }
  }
}
