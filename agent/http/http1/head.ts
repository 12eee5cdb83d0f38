// Finds the end of a head (or trailer section) in bytes that come in any pieces, and splits its fields. Only CRLF ends a line
// (RFC 9112 §2.2: a bare LF may be taken for one; two readers of the same bytes must not differ, so it is refused).
// Must not live here: what the fields mean (fields.ts), start lines (request.ts, response.ts).
import type { Headers } from '../message.ts'
import { CR, HTAB, latin1, LF, SP, TOKEN, VALUE } from './bytes.ts'
import { malformed, tooLarge } from './error.ts'

/** Collects bytes up to and with the first empty line. A section that lies in one read is not copied. */
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
  #lastCr = false

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Nothing of a section was seen yet. */
  get empty(): boolean {
    return this.#keptLength === 0
  }

  /** Takes bytes from `from`; returns where the section ended (exclusive), or -1 when all were taken and more are needed. */
  feed(arena: Uint8Array, from: number, to: number): number {
    let at = from
    for (;;) {
      const lf = arena.indexOf(LF, at)
      if (lf < 0 || lf >= to) break
      if (!(lf > from ? arena[lf - 1] === CR : this.#lastCr)) throw malformed('A line ends with a bare LF.')
      const length = this.#line + lf - at
      this.#line = 0
      at = lf + 1
      if (length === 1) {
        this.#finish(arena, from, at)
        return at
      }
    }
    this.#line += to - at
    this.#keep(arena, from, to)
    return -1
  }

  #keep(arena: Uint8Array, from: number, to: number): void {
    const length = this.#keptLength + to - from
    if (length > this.#limit) throw tooLarge(`A head is longer than ${this.#limit} bytes.`)
    if (to > from) this.#lastCr = arena[to - 1] === CR
    if (!this.#kept || this.#kept.length < length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#limit, Math.max(1024, length * 2)))
      if (this.#kept) this.#kept.copy(grown, 0, 0, this.#keptLength)
      this.#kept = grown
    }
    this.#kept.set(arena.subarray(from, to), this.#keptLength)
    this.#keptLength = length
  }

  #finish(arena: Uint8Array, from: number, to: number): void {
    if (this.#keptLength === 0) {
      if (to - from > this.#limit) throw tooLarge(`A head is longer than ${this.#limit} bytes.`)
      this.bytes = arena
      this.start = from
      this.end = to
      return
    }
    this.#keep(arena, from, to)
    this.bytes = this.#kept as Buffer
    this.start = 0
    this.end = this.#keptLength
    this.#kept = undefined
    this.#keptLength = 0
    this.#lastCr = false
  }
}

const EMPTY = new Uint8Array(0)

/**
 * Splits field lines from `at` up to the empty line at `end - 2` into a flat list of lower-case names and trimmed values
 * (RFC 9112 §5). `text` is the whole section as text, whose first character is bytes[base].
 */
export function splitFields(
  bytes: Uint8Array,
  base: number,
  at: number,
  end: number,
  text: string,
  maxFields: number,
): Headers {
  const headers: Headers = []
  const stop = end - 2
  while (at < stop) {
    const first = at
    let upper = false
    for (;;) {
      const kind = TOKEN[bytes[at] as number]
      if (kind === 0) break
      if (kind === 2) upper = true
      at++
    }
    if (bytes[at] !== 58 || at === first) {
      if (bytes[first] === SP || bytes[first] === HTAB) throw malformed('A field is folded over two lines.')
      throw malformed('A field name is not a token directly followed by a colon.')
    }
    const name = text.slice(first - base, at - base)
    at++
    while (bytes[at] === SP || bytes[at] === HTAB) at++
    const valueStart = at
    while (VALUE[bytes[at] as number]) at++
    if (bytes[at] !== CR || bytes[at + 1] !== LF) throw malformed('A field value holds a control character.')
    let valueEnd = at
    while (valueEnd > valueStart && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === HTAB)) valueEnd--
    at += 2
    if (headers.length >= maxFields * 2) throw tooLarge(`A head has more than ${maxFields} fields.`)
    headers.push(upper ? name.toLowerCase() : name, text.slice(valueStart - base, valueEnd - base))
  }
  return headers
}

/** Fields of a trailer section; those that would change framing, routing or authentication are dropped (RFC 9110 §6.5.1). */
export function parseTrailers(collector: Collector, maxFields: number): Headers {
  const { bytes, start, end } = collector
  if (end - start === 2) return []
  const all = splitFields(bytes, start, start, end, latin1(bytes, start, end), maxFields)
  const kept: Headers = []
  for (let i = 0; i < all.length; i += 2) {
    const name = all[i] as string
    if (!NOT_IN_TRAILERS.has(name)) kept.push(name, all[i + 1] as string)
  }
  return kept
}

/** Also what a sender must not put there. */
export const NOT_IN_TRAILERS: ReadonlySet<string> = new Set([
  'transfer-encoding',
  'content-length',
  'host',
  'connection',
  'keep-alive',
  'proxy-connection',
  'upgrade',
  'te',
  'trailer',
  'http2-settings',
  'authorization',
  'proxy-authorization',
  'proxy-authenticate',
  'www-authenticate',
  'cookie',
  'set-cookie',
  'content-type',
  'content-encoding',
  'content-range',
  'range',
  'expect',
  'max-forwards',
  'cache-control',
  'pragma',
  'age',
  'date',
  'expires',
  'location',
  'retry-after',
  'vary',
  'warning',
])
