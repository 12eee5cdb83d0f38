// gRPC echo framed by hand over node:http2: every message that comes in goes out again, whatever the method, unary or
// streaming. Who the app saw travels in the response metadata. Must not live here: a gRPC library (the peers of our own
// codecs share no code with them), protobuf (messages are opaque bytes).
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'

/** A message larger than this ends the call with RESOURCE_EXHAUSTED, as gRPC's default does (4 MiB). */
const MAX_MESSAGE = 4 * 1024 * 1024

/** Length-prefixed message (gRPC over HTTP/2, "Length-Prefixed-Message"), not compressed. */
export function grpcFrame(message: Uint8Array): Buffer {
  const frame = Buffer.alloc(5 + message.length)
  frame.writeUInt32BE(message.length, 1)
  frame.set(message, 5)
  return frame
}

/** Cuts a byte stream into gRPC messages. */
export class GrpcDeframer {
  #buffered: Buffer = Buffer.alloc(0)

  /** Messages that are complete now. Throws RangeError for one over the limit. */
  push(chunk: Buffer): Buffer[] {
    this.#buffered = this.#buffered.length === 0 ? chunk : Buffer.concat([this.#buffered, chunk])
    const messages: Buffer[] = []
    while (this.#buffered.length >= 5) {
      const length = this.#buffered.readUInt32BE(1)
      if (length > MAX_MESSAGE) throw new RangeError(`message of ${length} bytes`)
      if (this.#buffered.length < 5 + length) break
      messages.push(this.#buffered.subarray(5, 5 + length))
      this.#buffered = this.#buffered.subarray(5 + length)
    }
    return messages
  }
}

/**
 * Serves one call. Request metadata `x-echo-status: N` makes it a trailers-only answer with that grpc-status;
 * `x-echo-fail-after: K` ends the stream with UNAVAILABLE (14) after K messages.
 */
export function serveGrpc(
  request: Http2ServerRequest,
  response: Http2ServerResponse,
  about: Readonly<Record<string, string>>,
): void {
  const status = request.headers['x-echo-status']
  response.setHeader('content-type', 'application/grpc')
  for (const [name, value] of Object.entries(about)) response.setHeader(name, value)
  if (typeof status === 'string' && /^\d{1,2}$/.test(status) && status !== '0') {
    request.resume()
    response.setHeader('grpc-status', status)
    response.setHeader('grpc-message', 'as asked')
    response.end()
    return
  }
  const failAfter = Number(request.headers['x-echo-fail-after'] ?? Infinity)
  let echoed = 0
  const finish = (code: string, message: string): void => {
    if (response.writableEnded) return
    response.addTrailers({ 'grpc-status': code, 'grpc-message': message })
    response.end()
  }
  const deframer = new GrpcDeframer()
  request.on('data', (chunk: Buffer) => {
    if (response.writableEnded) return
    try {
      for (const message of deframer.push(chunk)) {
        if (echoed++ >= failAfter) return finish('14', 'as asked')
        if (!response.write(grpcFrame(message))) {
          request.pause()
          response.once('drain', () => request.resume())
        }
      }
    } catch {
      finish('8', 'message too large')
    }
  })
  request.on('end', () => finish('0', ''))
  request.on('error', () => response.stream.destroy())
}
