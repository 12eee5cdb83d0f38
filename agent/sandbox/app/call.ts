// Small clients that prove one thing each and print one JSON line: a gRPC stream, a WebSocket conversation, a bulk
// transfer with checksum. On Node's own http2, WebSocket and http. Must not live here: load (load.ts).
import { request } from 'node:http'
import { connect } from 'node:http2'
import { grpcFrame, GrpcDeframer } from './grpc.ts'
import { Meter, patternDigest, pour } from './pattern.ts'

/**
 * Sends `messages` messages one after the other, each after the echo of the one before, then ends.
 * `metadata` is added to the call.
 */
export function callGrpc(
  url: URL,
  messages: number,
  size: number,
  metadata: Readonly<Record<string, string>>,
): Promise<Record<string, unknown>> {
  return new Promise((resolve) => {
    const session = connect(url.origin)
    let status: unknown
    let grpcStatus: unknown
    let grpcMessage: unknown
    let pod: unknown
    let peer: unknown
    let received = 0
    let equal = true
    let ended = false
    const finish = (error?: Error): void => {
      if (ended) return
      ended = true
      session.destroy()
      resolve({ status, grpcStatus, grpcMessage, sent: messages, received, equal, pod, peer, error: error?.message })
    }
    session.on('error', finish)
    const stream = session.request({
      ':method': 'POST',
      ':path': url.pathname === '/' ? '/ambit.sample.Echo/Stream' : url.pathname,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...metadata,
    })
    const payload = (index: number): Buffer => Buffer.alloc(size, `message ${index} `)
    const deframer = new GrpcDeframer()
    stream.on('response', (headers) => {
      status = headers[':status']
      grpcStatus = headers['grpc-status'] ?? grpcStatus
      grpcMessage = headers['grpc-message'] ?? grpcMessage
      pod = headers['x-echo-pod']
      peer = headers['x-echo-peer']
    })
    stream.on('trailers', (headers) => {
      grpcStatus = headers['grpc-status']
      grpcMessage = headers['grpc-message']
    })
    stream.on('data', (chunk: Buffer) => {
      for (const message of deframer.push(chunk)) {
        equal &&= message.equals(payload(received))
        received++
        if (received < messages) stream.write(grpcFrame(payload(received)))
        else stream.end()
      }
    })
    // A call that the server ended early would stay half open.
    stream.on('end', () => stream.end())
    stream.on('error', finish)
    stream.on('close', () => finish(stream.rstCode === 0 ? undefined : new Error(`reset with code ${stream.rstCode}`)))
    if (messages > 0) stream.write(grpcFrame(payload(0)))
    else stream.end()
  })
}

/** Sends text messages over a WebSocket and checks that each comes back. */
export function callWebSocket(url: URL, messages: number): Promise<Record<string, unknown>> {
  return new Promise((resolve) => {
    const socket = new WebSocket(url.href.replace(/^http/, 'ws'))
    let received = 0
    let equal = true
    let failed: string | undefined
    const text = (index: number): string => `message ${index} ${'.'.repeat(index % 300)}`
    socket.addEventListener('open', () => socket.send(text(0)))
    socket.addEventListener('message', (event) => {
      equal &&= event.data === text(received)
      received++
      if (received < messages) socket.send(text(received))
      else socket.close(1000)
    })
    socket.addEventListener('error', () => {
      failed = 'the WebSocket failed'
    })
    socket.addEventListener('close', (event) => {
      resolve({ sent: messages, received, equal, code: event.code, error: failed })
    })
  })
}

/**
 * Fetches (`GET URL?bytes=N`) or sends (`POST`) the test pattern and compares checksums. `rate` in bytes a second makes
 * a slow reader; 0 reads as fast as it can.
 */
export function callBulk(url: URL, bytes: number, send: boolean, rate: number): Promise<Record<string, unknown>> {
  return new Promise((resolve) => {
    const target = new URL(url)
    if (!send) target.searchParams.set('bytes', String(bytes))
    const began = performance.now()
    const fail = (error: Error): void => resolve({ ok: false, bytes: 0, error: error.message })
    const outgoing = request(
      target,
      { method: send ? 'POST' : 'GET', headers: send ? { 'content-length': bytes } : {} },
      (response) => {
        const meter = new Meter()
        const text: Buffer[] = []
        response.on('data', (chunk: Buffer) => {
          meter.add(chunk)
          if (send) text.push(chunk)
          if (rate > 0) {
            response.pause()
            setTimeout(() => response.resume(), (chunk.length * 1000) / rate)
          }
        })
        response.on('error', fail)
        response.on('aborted', () => fail(new Error('the answer was cut off')))
        response.on('end', () => {
          const seconds = (performance.now() - began) / 1000
          const expected = patternDigest(bytes)
          if (send) {
            const told = JSON.parse(Buffer.concat(text).toString()) as { bytes?: number; sha256?: string }
            const ok = told.bytes === bytes && told.sha256 === expected
            resolve({ ok, status: response.statusCode, bytes: told.bytes, sha256: told.sha256, seconds })
          } else {
            const got = meter.result()
            resolve({ ok: got.sha256 === expected, status: response.statusCode, ...got, seconds })
          }
        })
      },
    )
    outgoing.on('error', fail)
    if (send) pour(outgoing, bytes, () => outgoing.end())
    else outgoing.end()
  })
}
