// The body of one message: by length, chunked, or until the connection ends (RFC 9112 §6, §7). Reads bytes in any pieces.
// Must not live here: which framing applies (request.ts, response.ts).
import type { Headers } from '../message.ts'
import { CR, HEX, HTAB, LF, TOKEN, VALUE } from './bytes.ts'
import { malformed } from './error.ts'
import { CHUNKED, NO_BODY, UNTIL_CLOSE } from './fields.ts'
import type { Collector } from './collector.ts'
import { parseTrailers } from './trailers.ts'

/** Bound on chunk extensions of one body: they are read and thrown away. */
const MAX_EXTENSIONS = 16_384
/** 2^52: above it sizes would lose digits; no body comes near. */
const MAX_SIZE_DIGITS = 13

const DATA = 0
const SIZE = 1
const EXTENSION_NAME = 2
const EXTENSION_START = 3
const EXTENSION_TOKEN = 4
const EXTENSION_QUOTED = 5
const EXTENSION_ESCAPE = 6
const EXTENSION_AFTER = 7
const SIZE_LF = 8
const DATA_CR = 9
const DATA_LF = 10
const TRAILERS = 11

const QUOTE = 34
const SEMICOLON = 59
const EQUALS = 61
const BACKSLASH = 92

/** Takes body bytes; arena[start, end) as everywhere. Returns false to stop: the rest stays with the caller. */
export type BodySink = (arena: Uint8Array, start: number, end: number) => boolean

export class BodyReader {
  /** The message is complete. */
  done = true
  /** Of a chunked body, once done. */
  trailers: Headers = NO_TRAILERS
  #framing = NO_BODY
  #state = DATA
  #remaining = 0
  #digits = 0
  #extensions = 0
  #nameLength = 0
  readonly #collector: Collector
  readonly #maxFields: number

  /** `collector` is shared with the heads of the connection: it is free while a body is read. */
  constructor(collector: Collector, maxFields: number) {
    this.#collector = collector
    this.#maxFields = maxFields
  }

  /** Starts a body; `framing` is its length or one of the constants of fields.ts. */
  start(framing: number): void {
    this.#framing = framing
    this.trailers = NO_TRAILERS
    this.done = framing === NO_BODY || framing === 0
    this.#state = framing === CHUNKED ? SIZE : DATA
    this.#remaining = framing > 0 ? framing : 0
    this.#digits = 0
    this.#extensions = 0
  }

  /** The connection ended: true if that completes the message. */
  get completeAtEnd(): boolean {
    return this.done || this.#framing === UNTIL_CLOSE
  }

  /** Reads from `at`; returns where it stopped: at `end`, where the message ended, or where `sink` stopped it. */
  feed(arena: Uint8Array, at: number, end: number, sink: BodySink): number {
    if (this.#framing === UNTIL_CLOSE) {
      sink(arena, at, end)
      return end
    }
    while (at < end && !this.done) {
      if (this.#state === DATA) {
        const stop = Math.min(end, at + this.#remaining)
        this.#remaining -= stop - at
        const from = at
        at = stop
        if (this.#remaining === 0) {
          if (this.#framing === CHUNKED) this.#state = DATA_CR
          else this.done = true
        }
        if (!sink(arena, from, stop)) return at
        continue
      }
      if (this.#state === TRAILERS) {
        const stop = this.#collector.feed(arena, at, end)
        if (stop < 0) return end
        this.trailers = parseTrailers(this.#collector, this.#maxFields)
        this.done = true
        return stop
      }
      this.#step(arena[at++] as number)
    }
    return at
  }

  #step(c: number): void {
    switch (this.#state) {
      case SIZE: {
        const digit = HEX[c] as number
        if (digit !== 255) {
          if (++this.#digits > MAX_SIZE_DIGITS) throw malformed('A chunk size is too large.')
          this.#remaining = this.#remaining * 16 + digit
        } else if (this.#digits > 0 && c === CR) this.#state = SIZE_LF
        else if (this.#digits > 0 && c === SEMICOLON) this.#beginExtension()
        else throw malformed('A chunk size is not a hexadecimal number.')
        return
      }
      case SIZE_LF:
        if (c !== LF) throw malformed('A chunk size does not end with CRLF.')
        this.#state = this.#remaining === 0 ? TRAILERS : DATA
        return
      case DATA_CR:
        if (c !== CR) throw malformed('A chunk is longer than its size.')
        this.#state = DATA_LF
        return
      case DATA_LF:
        if (c !== LF) throw malformed('A chunk does not end with CRLF.')
        this.#state = SIZE
        this.#digits = 0
        return
      default:
        this.#extension(c)
    }
  }

  #beginExtension(): void {
    this.#state = EXTENSION_NAME
    this.#nameLength = 0
  }

  /** chunk-ext = *( ";" token [ "=" ( token / quoted-string ) ] ), without the optional blanks (RFC 9112 §7.1.1). */
  #extension(c: number): void {
    if (++this.#extensions > MAX_EXTENSIONS) throw malformed('The chunk extensions are too long.')
    const token = TOKEN[c] as number
    switch (this.#state) {
      case EXTENSION_NAME:
        if (token) this.#nameLength++
        else if (this.#nameLength === 0) break
        else if (c === EQUALS) this.#state = EXTENSION_START
        else if (c === SEMICOLON) this.#beginExtension()
        else if (c === CR) this.#state = SIZE_LF
        else break
        return
      case EXTENSION_START:
        if (c === QUOTE) this.#state = EXTENSION_QUOTED
        else if (token) this.#state = EXTENSION_TOKEN
        else break
        return
      case EXTENSION_TOKEN:
      case EXTENSION_AFTER:
        if (token && this.#state === EXTENSION_TOKEN) return
        if (c === SEMICOLON) this.#beginExtension()
        else if (c === CR) this.#state = SIZE_LF
        else break
        return
      case EXTENSION_QUOTED:
        if (c === QUOTE) this.#state = EXTENSION_AFTER
        else if (c === BACKSLASH) this.#state = EXTENSION_ESCAPE
        else if (!VALUE[c]) break
        return
      case EXTENSION_ESCAPE:
        if (c !== HTAB && !VALUE[c]) break
        this.#state = EXTENSION_QUOTED
        return
      default:
    }
    throw malformed('A chunk extension is malformed.')
  }
}

const NO_TRAILERS: Headers = []
Object.freeze(NO_TRAILERS)
