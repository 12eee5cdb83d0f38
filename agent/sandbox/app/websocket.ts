// A minimal WebSocket echo (RFC 6455): handshake, unmasking, ping, close, fragments passed on as they come. It exists
// to be a peer that shares no code with the waypoint. Must not live here: extensions, sub-protocols.
import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
/** A frame larger than this closes the connection with 1009. */
const MAX_FRAME = 16 * 1024 * 1024

/** Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2). */
export function acceptKey(key: string): string {
  return createHash('sha1')
    .update(key + GUID)
    .digest('base64')
}

/** One unmasked frame as a server sends it. */
export function frameOf(head: number, payload: Uint8Array): Buffer {
  const length = payload.length
  const size = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.alloc(size + length)
  frame[0] = head
  if (size === 2) frame[1] = length
  else if (size === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeBigUInt64BE(BigInt(length), 2)
  }
  frame.set(payload, size)
  return frame
}

export interface Frame {
  /** First byte: FIN, reserved bits and opcode. */
  readonly head: number
  readonly payload: Buffer
  /** Bytes taken from the input. */
  readonly size: number
}

/** The first whole frame in `bytes`, unmasked; undefined while more is needed. Throws RangeError over the limit. */
export function parseFrame(bytes: Buffer): Frame | undefined {
  if (bytes.length < 2) return undefined
  const masked = (bytes[1]! & 0x80) !== 0
  let length = bytes[1]! & 0x7f
  let at = 2
  if (length === 126) {
    if (bytes.length < 4) return undefined
    length = bytes.readUInt16BE(2)
    at = 4
  } else if (length === 127) {
    if (bytes.length < 10) return undefined
    const long = bytes.readBigUInt64BE(2)
    if (long > BigInt(MAX_FRAME)) throw new RangeError(`frame of ${long} bytes`)
    length = Number(long)
    at = 10
  }
  if (length > MAX_FRAME) throw new RangeError(`frame of ${length} bytes`)
  const mask = masked ? at : -1
  if (masked) at += 4
  if (bytes.length < at + length) return undefined
  const payload = Buffer.from(bytes.subarray(at, at + length))
  if (mask >= 0) for (let index = 0; index < length; index++) payload[index]! ^= bytes[mask + (index & 3)]!
  return { head: bytes[0]!, payload, size: at + length }
}

/** Answers an Upgrade and echoes every message. `headers` are added to the 101 (who the app saw). */
export function serveWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  first: Buffer,
  headers: Readonly<Record<string, string>>,
): void {
  const key = request.headers['sec-websocket-key']
  if ((request.headers.upgrade ?? '').toLowerCase() !== 'websocket' || typeof key !== 'string') {
    socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    return
  }
  const extra = Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Accept: ${acceptKey(key)}\r\n${extra}\r\n`,
  )
  let buffered: Buffer = first
  const take = (): void => {
    for (;;) {
      let frame: Frame | undefined
      try {
        frame = parseFrame(buffered)
      } catch {
        socket.end(frameOf(0x88, Buffer.from([0x03, 0xf1]))) // 1009, message too big
        return
      }
      if (!frame) return
      buffered = buffered.subarray(frame.size)
      const opcode = frame.head & 0x0f
      if (opcode === 8) {
        socket.end(frameOf(0x88, frame.payload))
        return
      }
      if (opcode === 9) socket.write(frameOf(0x8a, frame.payload))
      else if (opcode !== 10 && !socket.write(frameOf(frame.head, frame.payload))) {
        socket.pause()
        socket.once('drain', () => socket.resume())
      }
    }
  }
  socket.on('data', (chunk: Buffer) => {
    buffered = buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk])
    take()
  })
  socket.on('end', () => socket.end())
  socket.on('error', () => socket.destroy())
  take()
}
