// Keeps a head (or trailer section) that comes in pieces, up to and with its empty line. Only CRLF ends a line (RFC 9112 §2.2:
// a bare LF may be taken for one; two readers of the same bytes must not differ, so it is refused).
// Must not live here: what the lines hold (lines.ts).
import { CR, LF } from './bytes.ts'
import { malformed, targetTooLong, tooLarge } from './error.ts'

export class Collector {
  /** After `feed` found the end: bytes[start, end) with the empty line. */
  bytes: Uint8Array = EMPTY
  start = 0
  end = 0
  readonly #limit: number
  #kept: Buffer | undefined
  #keptLength = 0
  /** Length of the unfinished line so far, its CR included. */
  #line = 0
  /** Length of the first line with its end, or 0 while it is not finished. */
  #firstLine = 0
  #lastCr = false

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Nothing of a section was seen yet. */
  get empty(): boolean {
    return this.#keptLength === 0
  }

  /**
   * Takes bytes from `from`; returns where the section ended (exclusive), or -1 when all were taken and more are needed.
   * `request`: a first line that alone is over the limit is a target too long (414), not fields too large (431).
   */
  feed(arena: Uint8Array, from: number, to: number, request = false): number {
    let line = this.#line
    let lastCr = this.#lastCr
    for (let at = from; at < to; at++) {
      const c = arena[at]
      line++
      if (c === LF) {
        if (!lastCr) throw malformed('A line ends with a bare LF.')
        if (this.#firstLine === 0) this.#firstLine = this.#keptLength + at + 1 - from
        if (line === 2) {
          this.#finish(arena, from, at + 1, request)
          return at + 1
        }
        line = 0
      }
      lastCr = c === CR
    }
    this.#line = line
    this.#lastCr = lastCr
    this.#keep(arena, from, to, request)
    return -1
  }

  #check(length: number, request: boolean): void {
    if (length <= this.#limit) return
    if (request && (this.#firstLine === 0 || this.#firstLine > this.#limit)) throw targetTooLong(this.#limit)
    throw tooLarge(`A head is longer than ${this.#limit} bytes.`)
  }

  #keep(arena: Uint8Array, from: number, to: number, request: boolean): void {
    const length = this.#keptLength + to - from
    this.#check(length, request)
    if (!this.#kept || this.#kept.length < length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#limit, Math.max(1024, length * 2)))
      if (this.#kept) this.#kept.copy(grown, 0, 0, this.#keptLength)
      this.#kept = grown
    }
    this.#kept.set(arena.subarray(from, to), this.#keptLength)
    this.#keptLength = length
  }

  #finish(arena: Uint8Array, from: number, to: number, request: boolean): void {
    if (this.#keptLength === 0) {
      this.#check(to - from, request)
      this.bytes = arena
      this.start = from
      this.end = to
    } else {
      this.#keep(arena, from, to, request)
      this.bytes = this.#kept as Buffer
      this.start = 0
      this.end = this.#keptLength
      this.#kept = undefined
      this.#keptLength = 0
    }
    this.#line = 0
    this.#firstLine = 0
    this.#lastCr = false
  }
}

const EMPTY = new Uint8Array(0)
