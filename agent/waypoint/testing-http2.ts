// Peers of either HTTP version for tests of this room, on Node's own http and http2: one way to serve an app, one to ask for
// something, so that a test can go through all four pairs. Must not live here: anything a program uses.
import {
  createServer as createHttp1,
  request as requestHttp1,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import { connect, createServer as createHttp2, type ClientHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Server as NetServer, Socket } from 'node:net'
import { listenOn } from './testing-apps.ts'
import type { World } from './testing.ts'

export type Version = 1 | 2

/** Client's version, then the app's. */
export const PAIRS: readonly (readonly [Version, Version])[] = [
  [1, 1],
  [1, 2],
  [2, 1],
  [2, 2],
]

/** What both of Node's servers hand to an app, by its types for HTTP/1.1. */
export type AppRequest = IncomingMessage
export type AppResponse = ServerResponse

/** An app behind `shop/api`, on a port that is declared for its version. */
export async function serveApp(
  world: World,
  version: Version,
  listener: (request: AppRequest, response: AppResponse) => void,
): Promise<NetServer> {
  world.setService(version === 1 ? 'http' : 'http2')
  const app = (request: AppRequest, response: AppResponse): void => {
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    listener(request, response)
  }
  const server = version === 1 ? createHttp1(app) : createHttp2(app as unknown as Parameters<typeof createHttp2>[1])
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
  })
  await world.endpoint(10, await listenOn(server as unknown as NetServer, world.address(10)))
  world.onClose(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return server as unknown as NetServer
}

/** The stream of an HTTP/2 app's answer; undefined for HTTP/1.1. */
export function streamOf(response: AppResponse): ServerHttp2Stream | undefined {
  return (response as unknown as { stream?: ServerHttp2Stream }).stream
}

/** Cuts the answer from the app's side: the connection in HTTP/1.1, the stream by an error in HTTP/2. */
export function cutByApp(response: AppResponse): void {
  const stream = streamOf(response)
  // close(code) of Node would first end the stream cleanly: only an error makes it send the reset alone.
  if (stream) stream.destroy(new Error('cut by the app'))
  else response.socket?.destroy()
}

export interface Ask {
  readonly method?: string
  readonly path?: string
  readonly headers?: Record<string, string | string[]>
  readonly trailers?: Record<string, string>
  /** Sent at once and ended, unless `write` is given. */
  readonly body?: Buffer | string
  /** Sends the body by hand. */
  readonly write?: (body: NodeJS.WritableStream) => void
  /** Told of each piece of the answer as it comes. */
  readonly onData?: (chunk: Buffer) => void
  /** Told of the answer's head. */
  readonly onHead?: (status: number) => void
}

export interface Told {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: Buffer
  trailers: Record<string, string | string[] | undefined>
  informational: number[]
  /** The answer came to its end: never true for one that was cut. */
  complete: boolean
  /** HTTP/2: the code of the reset, 0 for none. */
  code: number
}

export interface Asking {
  readonly told: Promise<Told>
  /** Gives the exchange up: closes the connection in HTTP/1.1, CANCEL in HTTP/2. */
  cancel(): void
}

/** One client of either version, on connections of its own. */
export async function client(world: World, version: Version): Promise<(ask: Ask) => Asking> {
  const port = await world.dial()
  if (version === 1) return (ask) => askHttp1(port, ask)
  const session = connect(`http://127.0.0.1:${port}`)
  session.on('error', () => undefined)
  world.onClose(() => session.destroy())
  return (ask) => askHttp2(session, ask)
}

function blank(): Told {
  return { status: 0, headers: {}, body: Buffer.alloc(0), trailers: {}, informational: [], complete: false, code: 0 }
}

function askHttp1(port: number, ask: Ask): Asking {
  const told = blank()
  const headers = {
    host: 'api',
    ...(ask.trailers ? { trailer: Object.keys(ask.trailers).join(', ') } : {}),
    ...ask.headers,
  }
  const options = { host: '127.0.0.1', port, method: ask.method ?? 'GET', path: ask.path ?? '/', agent: false, headers }
  const request = requestHttp1(options)
  const done = new Promise<Told>((resolve) => {
    request.on('error', () => resolve(told))
    request.on('information', (info) => told.informational.push(info.statusCode))
    request.on('response', (response) => {
      told.status = response.statusCode ?? 0
      told.headers = response.headers
      ask.onHead?.(told.status)
      response.on('data', (chunk: Buffer) => {
        told.body = Buffer.concat([told.body, chunk])
        ask.onData?.(chunk)
      })
      response.on('error', () => undefined)
      response.on('close', () => {
        told.trailers = response.trailers
        told.complete = response.complete
        resolve(told)
      })
    })
  })
  if (ask.trailers) {
    request.flushHeaders()
    request.addTrailers(ask.trailers)
  }
  if (ask.write) {
    request.flushHeaders()
    ask.write(request)
  } else request.end(ask.body)
  return { told: done, cancel: () => request.destroy() }
}

function askHttp2(session: ClientHttp2Session, ask: Ask): Asking {
  const told = blank()
  const bodiless = ask.body === undefined && ask.write === undefined && ask.trailers === undefined
  const stream = session.request(
    { ':method': ask.method ?? 'GET', ':path': ask.path ?? '/', ':authority': 'api', ...ask.headers },
    { endStream: bodiless, waitForTrailers: ask.trailers !== undefined } as object,
  )
  let ended = false
  const done = new Promise<Told>((resolve) => {
    stream.on('error', () => undefined)
    stream.on('headers', (headers) => told.informational.push(Number(headers[':status'])))
    stream.on('response', (headers) => {
      told.status = Number(headers[':status'])
      told.headers = headers as Told['headers']
      ask.onHead?.(told.status)
    })
    stream.on('data', (chunk: Buffer) => {
      told.body = Buffer.concat([told.body, chunk])
      ask.onData?.(chunk)
    })
    stream.on('trailers', (trailers) => (told.trailers = trailers as Told['trailers']))
    stream.on('end', () => (ended = true))
    stream.on('close', () => {
      told.code = stream.rstCode
      // Node ends a stream that was reset as well.
      told.complete = ended && stream.rstCode === 0
      resolve(told)
    })
  })
  if (ask.trailers) stream.on('wantTrailers', () => stream.sendTrailers(ask.trailers as Record<string, string>))
  if (ask.write) ask.write(stream)
  else if (!bodiless) stream.end(ask.body)
  return { told: done, cancel: () => stream.close(8) }
}
