// Cuts the byte stream of a connection into frames, however it arrives (RFC 9113 §4). DATA is passed on piece by piece
// without a copy; other frames are passed whole, copied only when they straddle two reads; HEADERS and CONTINUATION are
// joined to one block. Bounds: a frame by `maxFrameSize`, a block by `maxBlock` bytes and 32 CONTINUATIONs per 16 KiB
// allowed. Must not live here: what frames mean (session.ts).
import {
  CONTINUATION,
  DATA,
  END_HEADERS,
  FRAME_HEADER,
  FRAME_SIZE_ERROR,
  ENHANCE_YOUR_CALM,
  GOAWAY,
  HEADERS,
  PADDED,
  PING,
  PREFACE,
  PRIORITY,
  PRIORITY_FLAG,
  PROTOCOL_ERROR,
  PUSH_PROMISE,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
} from './constants.ts'
import { Http2ConnectionError } from './error.ts'

/** Longest GOAWAY taken: its debug data is of no use beyond that. */
const MAX_GOAWAY = 16_384
/** Settings in one frame: six are defined. */
const MAX_SETTINGS = 32 * 6

export interface FrameSink {
  /** False once the connection is over: nothing more is delivered. */
  readonly reading: boolean
  /** Before a frame's payload, for every frame: `length` as on the wire. */
  onFrame(type: number, flags: number, id: number, length: number): void
  /** PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, whole, the length checked. */
  onControl(type: number, flags: number, id: number, bytes: Uint8Array, start: number, end: number): void
  /** A whole header block. `dependency` is the stream a priority names, −1 without. */
  onBlock(id: number, flags: number, dependency: number, bytes: Uint8Array, start: number, end: number): void
  onDataStart(id: number, flags: number, length: number): void
  onDataBytes(bytes: Uint8Array, start: number, end: number): void
  onDataEnd(id: number, flags: number): void
}

export class FrameReader {
  readonly #sink: FrameSink
  /** Largest frame taken, as the peer was told or will be told in this turn; never lowered. */
  maxFrameSize: number
  readonly #maxBlock: number
  /** Bytes of the client's preface still to come. */
  #preface: number
  #settled = false
  readonly #header = new Uint8Array(FRAME_HEADER)
  #headerFilled = 0
  #inFrame = false
  #type = 0
  #flags = 0
  #id = 0
  /** Payload bytes still to come. */
  #left = 0
  /** DATA: padding at the end of #left; −1 while its length has not been read. */
  #padding = 0
  /** A frame that straddles reads. */
  #partial: Uint8Array | undefined
  #partialFilled = 0
  /** A header block that is not complete; its stream, or 0. */
  #blockId = 0
  #blockFlags = 0
  #blockDependency = -1
  #block: Uint8Array | undefined
  #blockLength = 0
  #continuations = 0

  constructor(sink: FrameSink, server: boolean, maxFrameSize: number, maxBlock: number) {
    this.#sink = sink
    this.maxFrameSize = maxFrameSize
    this.#maxBlock = maxBlock
    this.#preface = server ? PREFACE.length : 0
  }

  /** The peer owes its preface and first SETTINGS, or the rest of a header block. */
  get incomplete(): boolean {
    return !this.#settled || this.#blockId !== 0 || (this.#inFrame && this.#type === HEADERS)
  }

  /** Takes arena[at, end). Throws Http2ConnectionError. */
  read(arena: Uint8Array, at: number, end: number): void {
    if (this.#preface > 0) at = this.#readPreface(arena, at, end)
    while (this.#sink.reading) {
      if (!this.#inFrame) {
        if (this.#headerFilled === 0 && end - at >= FRAME_HEADER) {
          this.#begin(arena, at)
          at += FRAME_HEADER
        } else {
          if (at >= end) return
          const take = Math.min(FRAME_HEADER - this.#headerFilled, end - at)
          for (let i = 0; i < take; i++) this.#header[this.#headerFilled++] = arena[at++] as number
          if (this.#headerFilled < FRAME_HEADER) return
          this.#headerFilled = 0
          this.#begin(this.#header, 0)
        }
        continue
      }
      if (this.#type === DATA) at = this.#readData(arena, at, end)
      else if (this.#type > CONTINUATION) {
        // Unknown frames are skipped (§4.1).
        const take = Math.min(this.#left, end - at)
        at += take
        this.#left -= take
        if (this.#left === 0) this.#inFrame = false
      } else at = this.#readWhole(arena, at, end)
      if (this.#inFrame && at >= end) return
    }
  }

  #readPreface(arena: Uint8Array, at: number, end: number): number {
    while (this.#preface > 0 && at < end) {
      if (arena[at++] !== PREFACE[PREFACE.length - this.#preface]) {
        throw new Http2ConnectionError(PROTOCOL_ERROR, 'The client did not begin with the HTTP/2 preface')
      }
      this.#preface--
    }
    return at
  }

  #begin(bytes: Uint8Array, at: number): void {
    const length = ((bytes[at] as number) << 16) | ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number)
    const type = bytes[at + 3] as number
    const flags = bytes[at + 4] as number
    const id =
      (((bytes[at + 5] as number) & 0x7f) << 24) |
      ((bytes[at + 6] as number) << 16) |
      ((bytes[at + 7] as number) << 8) |
      (bytes[at + 8] as number)
    if (!this.#settled) {
      if (type !== SETTINGS || (flags & 1) !== 0) fail(PROTOCOL_ERROR, 'The first frame was not SETTINGS')
      this.#settled = true
    }
    if (length > this.maxFrameSize) fail(FRAME_SIZE_ERROR, `A frame of ${length} bytes is larger than was allowed`)
    if (this.#blockId !== 0 && (type !== CONTINUATION || id !== this.#blockId)) {
      fail(PROTOCOL_ERROR, 'A header block was interrupted by another frame')
    }
    this.#check(type, flags, id, length)
    this.#inFrame = true
    this.#type = type
    this.#flags = flags
    this.#id = id
    this.#left = length
    this.#sink.onFrame(type, flags, id, length)
    if (type === DATA) {
      this.#padding = (flags & PADDED) !== 0 ? -1 : 0
      this.#sink.onDataStart(id, flags, length)
    }
    if (type > CONTINUATION && length === 0) this.#inFrame = false
  }

  /** Streams and lengths that are wrong whatever the state (§6). */
  #check(type: number, flags: number, id: number, length: number): void {
    switch (type) {
      case DATA:
        if (id === 0) fail(PROTOCOL_ERROR, 'DATA on stream 0')
        if ((flags & PADDED) !== 0 && length === 0) fail(FRAME_SIZE_ERROR, 'A padded DATA frame is empty')
        break
      case HEADERS:
        if (id === 0) fail(PROTOCOL_ERROR, 'HEADERS on stream 0')
        break
      case CONTINUATION:
        if (this.#blockId === 0) fail(PROTOCOL_ERROR, 'CONTINUATION without a header block')
        break
      case PRIORITY:
        // A wrong length is a stream error (§6.3), told by the session.
        if (id === 0) fail(PROTOCOL_ERROR, 'PRIORITY on stream 0')
        if (length > 255) fail(FRAME_SIZE_ERROR, 'PRIORITY has a wrong length')
        break
      case RST_STREAM:
        if (id === 0) fail(PROTOCOL_ERROR, 'RST_STREAM on stream 0')
        if (length !== 4) fail(FRAME_SIZE_ERROR, 'RST_STREAM has a wrong length')
        break
      case SETTINGS:
        if (id !== 0) fail(PROTOCOL_ERROR, 'SETTINGS on a stream')
        if (length % 6 !== 0 || ((flags & 1) !== 0 && length > 0)) fail(FRAME_SIZE_ERROR, 'SETTINGS has a wrong length')
        if (length > MAX_SETTINGS) fail(ENHANCE_YOUR_CALM, 'SETTINGS has too many entries')
        break
      case PUSH_PROMISE:
        // Push is never enabled here, and a client cannot push (§8.4).
        fail(PROTOCOL_ERROR, 'PUSH_PROMISE was not allowed')
        break
      case PING:
        if (id !== 0) fail(PROTOCOL_ERROR, 'PING on a stream')
        if (length !== 8) fail(FRAME_SIZE_ERROR, 'PING has a wrong length')
        break
      case GOAWAY:
        if (id !== 0) fail(PROTOCOL_ERROR, 'GOAWAY on a stream')
        if (length < 8 || length > MAX_GOAWAY) fail(FRAME_SIZE_ERROR, 'GOAWAY has a wrong length')
        break
      case WINDOW_UPDATE:
        if (length !== 4) fail(FRAME_SIZE_ERROR, 'WINDOW_UPDATE has a wrong length')
        break
    }
  }

  #readData(arena: Uint8Array, at: number, end: number): number {
    if (this.#padding < 0) {
      if (at >= end) return at
      this.#padding = arena[at++] as number
      this.#left--
      if (this.#padding > this.#left) fail(PROTOCOL_ERROR, 'A DATA frame has more padding than payload')
    }
    const body = Math.min(this.#left - this.#padding, end - at)
    if (body > 0) {
      this.#left -= body
      this.#sink.onDataBytes(arena, at, at + body)
      at += body
    }
    if (this.#left <= this.#padding) {
      const pad = Math.min(this.#left, end - at)
      this.#left -= pad
      this.#padding -= pad
      at += pad
    }
    if (this.#left === 0) {
      this.#inFrame = false
      if (this.#sink.reading) this.#sink.onDataEnd(this.#id, this.#flags)
    }
    return at
  }

  #readWhole(arena: Uint8Array, at: number, end: number): number {
    const available = end - at
    if (this.#partial === undefined) {
      if (available >= this.#left) {
        const to = at + this.#left
        this.#inFrame = false
        this.#whole(arena, at, to)
        return to
      }
      if (available === 0) return at
      if (this.#type === HEADERS || this.#type === CONTINUATION) this.#checkBlock(this.#left)
      this.#partial = new Uint8Array(this.#left)
      this.#partialFilled = 0
    }
    const take = Math.min(this.#left, available)
    this.#partial.set(arena.subarray(at, at + take), this.#partialFilled)
    this.#partialFilled += take
    this.#left -= take
    if (this.#left === 0) {
      const whole = this.#partial
      this.#partial = undefined
      this.#inFrame = false
      this.#whole(whole, 0, whole.length)
    }
    return at + take
  }

  #whole(bytes: Uint8Array, start: number, end: number): void {
    if (this.#type === HEADERS) this.#headers(bytes, start, end)
    else if (this.#type === CONTINUATION) this.#continuation(bytes, start, end)
    else this.#sink.onControl(this.#type, this.#flags, this.#id, bytes, start, end)
  }

  #headers(bytes: Uint8Array, start: number, end: number): void {
    const flags = this.#flags
    let padding = 0
    let dependency = -1
    const need = ((flags & PADDED) !== 0 ? 1 : 0) + ((flags & PRIORITY_FLAG) !== 0 ? 5 : 0)
    if (end - start < need) fail(FRAME_SIZE_ERROR, 'HEADERS is too short for its flags')
    if ((flags & PADDED) !== 0) padding = bytes[start++] as number
    if ((flags & PRIORITY_FLAG) !== 0) {
      dependency = readStreamId(bytes, start)
      start += 5
    }
    end -= padding
    if (end < start) fail(PROTOCOL_ERROR, 'HEADERS has more padding than payload')
    this.#checkBlock(end - start)
    if ((flags & END_HEADERS) !== 0) {
      this.#sink.onBlock(this.#id, flags, dependency, bytes, start, end)
      return
    }
    this.#blockId = this.#id
    this.#blockFlags = flags
    this.#blockDependency = dependency
    this.#continuations = 0
    this.#blockLength = 0
    this.#append(bytes, start, end)
  }

  #continuation(bytes: Uint8Array, start: number, end: number): void {
    this.#continuations++
    // Frames of a block that say nothing are the CONTINUATION flood (CVE-2024-27983 and its family).
    if (this.#continuations > 32 * Math.ceil(this.#maxBlock / 16_384)) {
      fail(ENHANCE_YOUR_CALM, 'A header block has too many CONTINUATION frames')
    }
    this.#checkBlock(this.#blockLength + end - start)
    this.#append(bytes, start, end)
    if ((this.#flags & END_HEADERS) === 0) return
    const block = this.#block as Uint8Array
    const id = this.#blockId
    this.#blockId = 0
    this.#block = undefined
    this.#sink.onBlock(id, this.#blockFlags, this.#blockDependency, block, 0, this.#blockLength)
  }

  #append(bytes: Uint8Array, start: number, end: number): void {
    const length = this.#blockLength + end - start
    if (this.#block === undefined || this.#block.length < length) {
      const grown = new Uint8Array(Math.min(this.#maxBlock, Math.max(4096, length * 2)))
      if (this.#block !== undefined) grown.set(this.#block.subarray(0, this.#blockLength))
      this.#block = grown
    }
    this.#block.set(bytes.subarray(start, end), this.#blockLength)
    this.#blockLength = length
  }

  #checkBlock(length: number): void {
    if (length > this.#maxBlock) fail(ENHANCE_YOUR_CALM, `A header block of more than ${this.#maxBlock} bytes`)
  }
}

/** A 31-bit number in network order. */
export function readStreamId(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) & 0x7f) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  )
}

function fail(code: number, message: string): never {
  throw new Http2ConnectionError(code, message)
}
