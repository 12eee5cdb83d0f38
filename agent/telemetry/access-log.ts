// The access log: one JSON object a line, written straight into bytes, gathered and written in large pieces, never waited
// for. Bounded: when the reader does not keep up, lines are dropped and counted rather than held. Must not live here: which
// fields a line has (node/, waypoint/), program logs (base/log.ts).
import { write, writeSync } from 'node:fs'
import { systemClock, type Clock, type Timer } from '../base/clock.ts'

/** Bytes held at most; beyond it lines are dropped. */
export const MAX_HELD = 4 * 1024 * 1024
/** Written at once when this much is gathered. */
const FLUSH_AT = 64 * 1024
/** Size of the buffers lines are gathered in; a longer line gets one of its own. */
const CHUNK = 128 * 1024
/** Milliseconds a line may wait. */
export const FLUSH_MS = 250

export interface AccessLogOptions {
  /** Default 1, standard output, where program logs go too. */
  readonly fd?: number
  readonly clock?: Clock
}

/** Whole lines in the first `length` bytes. */
interface Piece {
  readonly bytes: Buffer
  readonly length: number
}

/**
 * A line is written in parts: `begin`, any of `raw`, `text`, `number`, then `end`, all in one turn. None of them allocates
 * for an ordinary line.
 */
export class AccessLog {
  /** Lines dropped since start. */
  dropped = 0
  readonly #fd: number
  readonly #clock: Clock
  #buffer: Buffer = Buffer.allocUnsafeSlow(CHUNK)
  #at = 0
  /** Where the current line began: what is before it are whole lines. */
  #line = 0
  /** Full buffers that wait to be written, and how many bytes they hold with the one being written. */
  readonly #full: Piece[] = []
  #held = 0
  #spare: Buffer | undefined
  #writing = false
  #closed = false
  #timer: Timer | undefined
  #idle: (() => void)[] = []

  constructor(options: AccessLogOptions = {}) {
    this.#fd = options.fd ?? 1
    this.#clock = options.clock ?? systemClock
  }

  /** Begins a line. False: it is dropped, and nothing may be written of it. */
  begin(): boolean {
    if (this.#closed || this.#held + this.#at > MAX_HELD) {
      this.dropped++
      return false
    }
    this.#line = this.#at
    return true
  }

  /** Bytes that are JSON already. */
  raw(bytes: Uint8Array): void {
    const { length } = bytes
    if (this.#at + length > this.#buffer.length) this.#grow(length)
    this.#buffer.set(bytes, this.#at)
    this.#at += length
  }

  /** A string with its quotes, escaped. */
  text(text: string): void {
    const { length } = text
    if (this.#at + length + 2 > this.#buffer.length) this.#grow(length + 2)
    const buffer = this.#buffer
    let at = this.#at
    buffer[at++] = 0x22
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i)
      if (code < 0x20 || code > 0x7e || code === 0x22 || code === 0x5c) {
        this.#utf8(JSON.stringify(text))
        return
      }
      buffer[at++] = code
    }
    buffer[at++] = 0x22
    this.#at = at
  }

  /** A whole number from 0. */
  number(value: number): void {
    if (!(value >= 0 && value < 1e9)) {
      this.#utf8(String(Number.isFinite(value) ? Math.round(value) : 0))
      return
    }
    if (this.#at + 10 > this.#buffer.length) this.#grow(10)
    let left = Math.round(value)
    let digits = 1
    for (let power = 10; left >= power; power *= 10) digits++
    const end = this.#at + digits
    const buffer = this.#buffer
    for (let i = end - 1; i >= this.#at; i--) {
      const rest = Math.floor(left / 10)
      buffer[i] = 0x30 + left - rest * 10
      left = rest
    }
    this.#at = end
  }

  /** Ends the line. */
  end(): void {
    if (this.#at + 1 > this.#buffer.length) this.#grow(1)
    this.#buffer[this.#at++] = 0x0a
    this.#line = this.#at
    if (this.#at >= FLUSH_AT) this.#flush()
    else this.#timer ??= this.#clock.after(FLUSH_MS, this.#onTimer, true)
  }

  /** Takes one entry. `json`: a JSON object as text, without a line feed. */
  line(json: string): void {
    if (!this.begin()) return
    this.#utf8(json)
    this.end()
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

  /** Writes what is held and takes no more. */
  async close(): Promise<void> {
    this.#closed = true
    await this.flush()
    this.#timer?.cancel()
    if (this.#at === 0) return
    try {
      writeSync(this.#fd, this.#buffer, 0, this.#at)
    } catch {
      this.dropped += countLines(this.#buffer, 0, this.#at)
    }
    this.#at = 0
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined
    this.#flush()
  }

  #utf8(text: string): void {
    if (this.#at + text.length * 3 > this.#buffer.length) this.#grow(text.length * 3)
    this.#at += this.#buffer.write(text, this.#at, 'utf8')
  }

  /** Room for `more` bytes: whole lines go their way, the line that is being written moves to another buffer. */
  #grow(more: number): void {
    const begun = this.#at - this.#line
    const old = this.#buffer
    const needed = begun + more
    this.#buffer = needed <= CHUNK ? this.#fresh() : Buffer.allocUnsafeSlow(needed * 2)
    old.copy(this.#buffer, 0, this.#line, this.#at)
    if (this.#line > 0) {
      this.#full.push({ bytes: old, length: this.#line })
      this.#held += this.#line
    }
    this.#line = 0
    this.#at = begun
    this.#next()
  }

  #fresh(): Buffer {
    const spare = this.#spare
    this.#spare = undefined
    return spare ?? Buffer.allocUnsafeSlow(CHUNK)
  }

  #flush(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    // While a write is under way lines gather: few large writes cost less than many small ones.
    if (this.#writing || this.#at === 0) return
    this.#full.push({ bytes: this.#buffer, length: this.#at })
    this.#held += this.#at
    this.#buffer = this.#fresh()
    this.#at = 0
    this.#line = 0
    this.#next()
  }

  #next(): void {
    if (this.#writing) return
    const piece = this.#full.shift()
    if (!piece) return
    this.#writing = true
    this.#write(piece, 0)
  }

  #write(piece: Piece, from: number): void {
    const { bytes, length } = piece
    write(this.#fd, bytes, from, length - from, null, (error, written) => {
      if (error && (error as NodeJS.ErrnoException).code === 'EAGAIN') {
        // A full pipe: lines gather meanwhile, up to the limit.
        this.#clock.after(10, () => this.#write(piece, from), true)
        return
      }
      if (!error && from + written < length) {
        this.#write(piece, from + written)
        return
      }
      if (error) this.dropped += countLines(bytes, from, length)
      this.#written(piece)
    })
  }

  #written(piece: Piece): void {
    this.#writing = false
    this.#held -= piece.length
    if (piece.bytes.length === CHUNK) this.#spare = piece.bytes
    if (this.#full.length > 0) this.#next()
    else if (this.#at >= FLUSH_AT || (this.#at > 0 && this.#idle.length > 0)) this.#flush()
    else {
      if (this.#at > 0) this.#timer ??= this.#clock.after(FLUSH_MS, this.#onTimer, true)
      for (const resolve of this.#idle.splice(0)) resolve()
    }
  }
}

function countLines(bytes: Uint8Array, from: number, to: number): number {
  let lines = 0
  for (let i = from; i < to; i++) if (bytes[i] === 0x0a) lines++
  return lines
}
