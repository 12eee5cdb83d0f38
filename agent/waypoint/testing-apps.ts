// Apps and clients for tests of this room, on Node's own http, http2 and net: independent peers of our codecs.
import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type RequestListener,
  type Server,
} from 'node:http'
import type { AddressInfo, Server as NetServer } from 'node:net'

/** What an app answers unless told otherwise: who it is, and the request as it saw it. */
export function echo(name: string): RequestListener {
  return (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      response.setHeader('x-app', name)
      response.setHeader('content-type', 'application/json')
      const { method, url, rawHeaders, trailers } = request
      response.end(
        JSON.stringify({
          app: name,
          method,
          url,
          rawHeaders,
          trailers,
          body: Buffer.concat(chunks).toString('latin1'),
        }),
      )
    })
  }
}

/** Listens on an address of its own; port by the kernel. */
export async function listenOn(server: Server | NetServer, address: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, address, resolve)
  })
  return (server.address() as AddressInfo).port
}

export function app(listener: RequestListener): Server {
  const server = createServer(listener)
  server.keepAliveTimeout = 60_000
  return server
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly trailers: Record<string, string | undefined>
}

export interface Call {
  readonly method?: string
  readonly path?: string
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
}

/** One request with node:http, on a connection of its own. Rejects when the answer is not complete. */
export function call(port: number, options: Call = {}): Promise<Answer> {
  const { method = 'GET', path = '/', headers = {}, body } = options
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { host: '127.0.0.1', port, method, path, agent: false, headers: { host: 'api', ...headers } },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          if (!response.complete) reject(new Error('the answer is truncated'))
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString('latin1'),
            trailers: response.trailers as Record<string, string | undefined>,
          })
        })
      },
    )
    request.on('error', reject)
    request.end(body)
  })
}
