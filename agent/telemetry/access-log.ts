// The access log: one JSON object a line, gathered and written in large pieces, never waited for. Bounded: when the
// reader does not keep up, lines are dropped and counted rather than held. Must not live here: which fields a line has
// (node/, waypoint/), program logs (base/log.ts).
import { write, writeSync } from 'node:fs'
import { systemClock, type Clock, type Timer } from '../base/clock.ts'

/** Bytes (characters) held at most; beyond it lines are dropped. */
export const MAX_HELD = 4 * 1024 * 1024
/** Written at once when this much is gathered. */
const FLUSH_AT = 64 * 1024
/** Milliseconds a line may wait. */
export const FLUSH_MS = 250

export interface AccessLogOptions {
  /** Default 1, standard output, where program logs go too. */
  readonly fd?: number
  readonly clock?: Clock
}

export class AccessLog {
  /** Lines dropped since start. */
  dropped = 0
  readonly #fd: number
  readonly #clock: Clock
  #lines = ''
  #writing = false
  #closed = false
  #timer: Timer | undefined
  #idle: (() => void)[] = []

  constructor(options: AccessLogOptions = {}) {
    this.#fd = options.fd ?? 1
    this.#clock = options.clock ?? systemClock
  }

  /** Takes one entry. `json`: a JSON object as text, without a line feed. */
  line(json: string): void {
    if (this.#closed || this.#lines.length + json.length > MAX_HELD) {
      this.dropped++
      return
    }
    this.#lines += `${json}\n`
    if (this.#lines.length >= FLUSH_AT) this.#flush()
    else this.#timer ??= this.#clock.after(FLUSH_MS, () => this.#flush(), true)
  }

  /** Takes one entry as an object. Undefined fields are left out. */
  entry(fields: Readonly<Record<string, unknown>>): void {
    this.line(JSON.stringify(fields))
  }

  /** Resolves when everything taken so far is written or lost. */
  async flush(): Promise<void> {
    this.#flush()
    if (!this.#writing) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  /** Writes what is held, synchronously, and takes no more. */
  async close(): Promise<void> {
    this.#closed = true
    await this.flush()
    this.#timer?.cancel()
    if (this.#lines !== '') {
      try {
        writeSync(this.#fd, this.#lines)
      } catch {
        this.dropped += countLines(this.#lines)
      }
      this.#lines = ''
    }
  }

  #flush(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    if (this.#writing || this.#lines === '') return
    const bytes = Buffer.from(this.#lines)
    this.#lines = ''
    this.#writing = true
    this.#write(bytes, 0)
  }

  #write(bytes: Buffer, from: number): void {
    write(this.#fd, bytes, from, bytes.length - from, null, (error, written) => {
      if (error && (error as NodeJS.ErrnoException).code === 'EAGAIN') {
        // A full pipe: lines gather meanwhile, up to the limit.
        this.#clock.after(10, () => this.#write(bytes, from), true)
        return
      }
      if (!error && from + written < bytes.length) {
        this.#write(bytes, from + written)
        return
      }
      if (error) this.dropped += countLines(bytes.toString('latin1', from))
      this.#writing = false
      if (this.#lines !== '') this.#flush()
      else for (const resolve of this.#idle.splice(0)) resolve()
    })
  }
}

function countLines(text: string): number {
  return text.split('\n').length - 1
}
