// The HTTP half of the echo app: HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket on one port, told apart by
// the connection preface (RFC 9113 section 3.4). On Node's own http and http2. Must not live here: the other ports
// (tcp.ts), flags (echo.ts).
import { createServer as createHttp1, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createHttp2, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { messageOf } from '../../base/errors.ts'
import { endsOf, plainAddress, type Answer, type Speaker } from './answer.ts'
import { changeBehaviour, wishOf, type Behaviour } from './behaviour.ts'
import { serveGrpc } from './grpc.ts'
import { Meter, pour } from './pattern.ts'
import { serveWebSocket } from './websocket.ts'

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
/** Bodies up to this many bytes are shown in the answer. */
const SHOWN_BODY = 4096

type Request = IncomingMessage | Http2ServerRequest
type Response = ServerResponse | Http2ServerResponse

function isLoopback(address: string | undefined): boolean {
  const plain = plainAddress(address)
  return plain.startsWith('127.') || plain === '::1'
}

function headersOf(request: Request): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(request.headers))
    if (!name.startsWith(':') && value !== undefined) headers[name] = Array.isArray(value) ? value.join(', ') : value
  return headers
}

/** Makes the handler of connections of an HTTP port, and the way to stop it gracefully. */
export function httpPort(speaker: Speaker, behaviour: Behaviour): { serve(socket: Socket): void; stop(): void } {
  const about = (socket: Socket): Record<string, string> => ({
    'x-echo-pod': speaker.pod,
    'x-echo-version': speaker.version,
    'x-echo-peer': `${plainAddress(socket.remoteAddress)}:${socket.remotePort ?? 0}`,
  })

  function answer(either: Request, response: Response): void {
    const request = either as Request & Readable
    const socket = request.socket as Socket
    const ends = endsOf(socket)
    const meter = new Meter()
    const shown: Buffer[] = []
    const path = request.url ?? '/'
    request.on('data', (chunk: Buffer) => {
      meter.add(chunk)
      if (meter.bytes <= SHOWN_BODY) shown.push(chunk)
    })
    request.on('error', () => (response as Writable).destroy())
    request.on('end', () => {
      const { bytes, sha256 } = meter.result()
      if (path === '/-/behaviour' && request.method === 'PUT') {
        if (!isLoopback(socket.remoteAddress)) return reply(response, 403, { error: 'from this pod only' })
        try {
          changeBehaviour(behaviour, Buffer.concat(shown).toString())
          return reply(response, 200, behaviour)
        } catch (error) {
          return reply(response, 400, { error: messageOf(error) })
        }
      }
      const wish = wishOf(behaviour, path, Math.random())
      const finish = (): void => {
        if (wish.bytes !== undefined) {
          ;(response as ServerResponse).writeHead(wish.status, {
            'content-type': 'application/octet-stream',
            'content-length': wish.bytes,
            ...about(socket),
          })
          pour(response as Writable, wish.bytes, () => response.end())
          return
        }
        const http2 = request.httpVersionMajor === 2
        const told: Answer & { sha256?: string } = {
          ...speaker,
          protocol: http2 ? 'HTTP/2' : `HTTP/${request.httpVersion}`,
          ...ends,
          method: request.method ?? '',
          path,
          host: String((http2 ? request.headers[':authority'] : undefined) ?? request.headers.host ?? ''),
          headers: headersOf(request),
          bytes,
          ...(bytes > 0 ? { sha256 } : {}),
          ...(bytes > 0 && bytes <= SHOWN_BODY ? { body: Buffer.concat(shown).toString() } : {}),
        }
        reply(response, wish.status, told, about(socket))
      }
      if (wish.delay > 0) setTimeout(finish, wish.delay)
      else finish()
    })
  }

  const http1 = createHttp1({ keepAliveTimeout: 75_000 }, answer)
  http1.on('upgrade', (request, socket, head) => {
    serveWebSocket(request, socket, head, about(socket as Socket))
  })
  const http2 = createHttp2({
    settings: { initialWindowSize: 1024 * 1024, maxConcurrentStreams: 1000 },
    unknownProtocolTimeout: 10_000,
  })
  http2.on('request', (request, response) => {
    if (String(request.headers['content-type'] ?? '').startsWith('application/grpc'))
      serveGrpc(request, response, about(request.socket as Socket))
    else answer(request, response)
  })
  http2.on('sessionError', () => undefined)
  const sessions = new Set<{ close(): void }>()
  http2.on('session', (session) => {
    session.setLocalWindowSize(4 * 1024 * 1024)
    sessions.add(session)
    session.on('close', () => sessions.delete(session))
  })

  return {
    serve(socket) {
      socket.on('error', () => socket.destroy())
      let seen = Buffer.alloc(0)
      const sniff = (chunk: Buffer): void => {
        seen = Buffer.concat([seen, chunk])
        const length = Math.min(seen.length, PREFACE.length)
        const maybe = seen.compare(PREFACE, 0, length, 0, length) === 0
        if (maybe && seen.length < PREFACE.length) return
        socket.off('data', sniff)
        socket.pause()
        socket.unshift(seen)
        ;(maybe ? http2 : http1).emit('connection', socket)
        if (!maybe) socket.resume()
      }
      socket.on('data', sniff)
    },
    stop() {
      for (const session of sessions) session.close()
      http1.closeIdleConnections()
    },
  }
}

function reply(either: Response, status: number, body: unknown, headers: Record<string, string> = {}): void {
  // The two classes have the same methods, but no common signature of writeHead.
  const response = either as ServerResponse
  const text = Buffer.from(`${JSON.stringify(body)}\n`)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': text.length, ...headers })
  response.end(text)
}
