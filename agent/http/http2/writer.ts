// Writes frames to a connection (RFC 9113 §6). Frame headers and control frames live in the slab; bodies are passed on as
// they are. Must not live here: windows and states (session.ts, stream.ts).
import type { Connection } from '../../io/connection.ts'
import { HpackEncoder } from '../hpack/encoder.ts'
import type { Headers, RequestHead } from '../message.ts'
import {
  ACK,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  FRAME_HEADER,
  GOAWAY,
  HEADERS,
  MIN_MAX_FRAME,
  PING,
  PREFACE,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
} from './constants.ts'
import { slab } from '../../io/slab.ts'

/** Bodies up to this length are copied beside their frame header: one range to send instead of two. */
const COPY_BELOW = 1_024
/** What the names and lengths of pseudo-header fields take at most, beside their values. */
const PSEUDO_ROOM = 160

/** Fields that belong to one hop of HTTP/1.1 and are malformed here (RFC 9113 §8.2.2); `host` is `:authority`. */
function isOfOneHop(name: string, value: string): boolean {
  switch (name.length) {
    case 2:
      return name === 'te' && value !== 'trailers'
    case 4:
      return name === 'host'
    case 7:
      return name === 'upgrade'
    case 10:
      return name === 'connection' || name === 'keep-alive'
    case 14:
      return name === 'http2-settings'
    case 16:
      return name === 'proxy-connection'
    case 17:
      return name === 'transfer-encoding'
    default:
      return false
  }
}

export class FrameWriter {
  readonly #connection: Connection
  readonly encoder = new HpackEncoder()
  /** The peer's SETTINGS_MAX_FRAME_SIZE. */
  maxFrameSize = MIN_MAX_FRAME

  constructor(connection: Connection) {
    this.#connection = connection
  }

  preface(): void {
    this.#connection.write(PREFACE, 0, PREFACE.length)
  }

  /** `pairs`: identifier, value, identifier, value … */
  settings(pairs: readonly number[]): void {
    const at = this.#frame((pairs.length / 2) * 6, SETTINGS, 0, 0)
    let to = at + FRAME_HEADER
    for (let i = 0; i < pairs.length; i += 2) {
      to = slab.bytes.writeUInt16BE(pairs[i] as number, to)
      to = slab.bytes.writeUInt32BE(pairs[i + 1] as number, to)
    }
    this.#send(at, to)
  }

  settingsAck(): void {
    const at = this.#frame(0, SETTINGS, ACK, 0)
    this.#send(at, at + FRAME_HEADER)
  }

  /** Eight opaque bytes from `bytes` at `start`. */
  ping(ack: boolean, bytes: Uint8Array, start: number): void {
    const at = this.#frame(8, PING, ack ? ACK : 0, 0)
    for (let i = 0; i < 8; i++) slab.bytes[at + FRAME_HEADER + i] = bytes[start + i] as number
    this.#send(at, at + FRAME_HEADER + 8)
  }

  goaway(lastStream: number, code: number, message: string): void {
    const text = message.slice(0, 200)
    const at = this.#frame(8 + text.length, GOAWAY, 0, 0)
    slab.bytes.writeUInt32BE(lastStream, at + FRAME_HEADER)
    slab.bytes.writeUInt32BE(code, at + FRAME_HEADER + 4)
    slab.bytes.write(text, at + FRAME_HEADER + 8, 'latin1')
    this.#send(at, at + FRAME_HEADER + 8 + text.length)
  }

  reset(id: number, code: number): void {
    const at = this.#frame(4, RST_STREAM, 0, id)
    slab.bytes.writeUInt32BE(code, at + FRAME_HEADER)
    this.#send(at, at + FRAME_HEADER + 4)
  }

  windowUpdate(id: number, increment: number): void {
    const at = this.#frame(4, WINDOW_UPDATE, 0, id)
    slab.bytes.writeUInt32BE(increment, at + FRAME_HEADER)
    this.#send(at, at + FRAME_HEADER + 4)
  }

  /** One DATA frame of bytes[start, end), which must fit the peer's frame size. */
  data(id: number, bytes: Uint8Array, start: number, end: number, endStream: boolean): void {
    const length = end - start
    const copied = length <= COPY_BELOW ? length : 0
    const at = slab.reserve(FRAME_HEADER + copied)
    const out = slab.bytes
    frameHeader(out, at, length, DATA, endStream ? END_STREAM : 0, id)
    let to = at + FRAME_HEADER
    if (copied > 0) {
      // A loop beats `set` for short ranges, which are most of them: a `subarray` per frame is an object per frame.
      for (let i = start; i < end; i++) out[to++] = bytes[i] as number
    }
    slab.advance(to)
    this.#connection.write(out, at, to)
    if (copied < length) this.#connection.write(bytes, start, end)
  }

  /** A request's head; as `headers`. Empty parts are left out. */
  request(id: number, head: RequestHead, endStream: boolean): void {
    const { method, scheme, authority, path, protocol, headers } = head
    const most = method.length + scheme.length + authority.length + path.length + protocol.length + PSEUDO_ROOM
    const at = this.#beginBlock(most, headers)
    const { encoder } = this
    encoder.field(':method', method)
    if (scheme !== '') encoder.field(':scheme', scheme)
    if (authority !== '') encoder.field(':authority', authority)
    if (path !== '') encoder.field(':path', path)
    if (protocol !== '') encoder.field(':protocol', protocol)
    this.#endBlock(id, at, headers, endStream)
  }

  /**
   * A header block of `:status`, '' for trailers, and `headers` (name, value, …) in HEADERS and as many CONTINUATIONs as
   * it takes. Fields of one hop are left out. Throws HTTP_HEADER_INVALID before anything is sent.
   */
  headers(id: number, status: string, headers: Headers, endStream: boolean): void {
    const at = this.#beginBlock(PSEUDO_ROOM, headers)
    if (status !== '') this.encoder.field(':status', status)
    this.#endBlock(id, at, headers, endStream)
  }

  /** Reserves what the block can take at most; returns where its first frame begins. */
  #beginBlock(pseudoRoom: number, headers: Headers): number {
    let room = FRAME_HEADER + 12 + pseudoRoom
    for (let i = 0; i < headers.length; i += 2) {
      room += HpackEncoder.fieldRoom(headers[i] as string, headers[i + 1] as string)
    }
    const at = slab.reserve(room)
    this.encoder.begin(slab.bytes, at + FRAME_HEADER)
    return at
  }

  #endBlock(id: number, at: number, headers: Headers, endStream: boolean): void {
    const { encoder } = this
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i] as string
      const value = headers[i + 1] as string
      if (!isOfOneHop(name, value)) encoder.field(name, value)
    }
    const out = slab.bytes
    const from = at + FRAME_HEADER
    const end = encoder.finish()
    slab.advance(end)
    let to = Math.min(end, from + this.maxFrameSize)
    const flags = (endStream ? END_STREAM : 0) | (to === end ? END_HEADERS : 0)
    frameHeader(out, at, to - from, HEADERS, flags, id)
    this.#connection.write(out, at, to)
    while (to < end) {
      const next = Math.min(end, to + this.maxFrameSize)
      const header = this.#frame(next - to, CONTINUATION, next === end ? END_HEADERS : 0, id, 0)
      this.#send(header, header + FRAME_HEADER)
      this.#connection.write(out, to, next)
      to = next
    }
  }

  /** Reserves a frame with `room` payload bytes in the slab (all of it by default) and fills its header. */
  #frame(length: number, type: number, flags: number, id: number, room = length): number {
    const at = slab.reserve(FRAME_HEADER + room)
    frameHeader(slab.bytes, at, length, type, flags, id)
    return at
  }

  #send(at: number, to: number): void {
    slab.advance(to)
    this.#connection.write(slab.bytes, at, to)
  }
}

function frameHeader(out: Uint8Array, at: number, length: number, type: number, flags: number, id: number): void {
  out[at] = length >>> 16
  out[at + 1] = length >>> 8
  out[at + 2] = length
  out[at + 3] = type
  out[at + 4] = flags
  out[at + 5] = id >>> 24
  out[at + 6] = id >>> 16
  out[at + 7] = id >>> 8
  out[at + 8] = id
}
