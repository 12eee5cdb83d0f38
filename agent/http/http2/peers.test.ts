// Our HTTP/2 against Node's own (nghttp2), both ways: what one side sends, the other must understand.
import http2 from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { transport } from '../../io/index.ts'
import {
  header,
  type ClientEvents,
  type ClientExchange,
  type ClientSession,
  type ExchangeError,
  type Headers,
  type RequestHead,
  type ResponseHead,
  type ServerEvents,
  type ServerExchange,
  type SessionEvents,
} from '../message.ts'
import { connectHttp2, http2Server, type Http2ClientSession, type Http2Options, type Http2Server } from './index.ts'

const cleanups: (() => void | Promise<void>)[] = []
afterEach(async () => {
  for (const task of cleanups.splice(0).reverse()) await task()
})

/** Answers like an echo service: the body back, trailers back, and `x-seen` with what the head said. */
class Echo implements ServerEvents {
  readonly heads: RequestHead[] = []
  readonly closes: (ExchangeError | undefined)[] = []
  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    this.heads.push(head)
    if (head.path === '/wait') return
    if (head.path === '/hints') exchange.informational({ status: 103, headers: ['link', '</a.css>'] })
    if (head.path === '/truncate') {
      exchange.respond({ status: 200, headers: [] }, false)
      exchange.write(Buffer.from('half'))
      exchange.reset('internal')
      return
    }
    if (head.path === '/early') {
      exchange.respond({ status: 413, headers: [] }, true)
      exchange.reset('cancel')
      return
    }
    exchange.respond({ status: 200, headers: ['x-seen', `${head.method} ${head.authority} ${head.path}`] }, end)
  }
  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    if (exchange.responded) exchange.write(arena, start, end)
    if (exchange.pending > 0) exchange.pause()
  }
  onEnd(exchange: ServerExchange, trailers: Headers): void {
    if (exchange.responded) exchange.end(trailers)
  }
  onDrain(exchange: ServerExchange): void {
    exchange.resume()
  }
  onClose(_exchange: ServerExchange, error: ExchangeError | undefined): void {
    this.closes.push(error)
  }
}

async function serve(events: ServerEvents, options: Http2Options = {}): Promise<{ port: number; server: Http2Server }> {
  const server = http2Server(events, options)
  const listener = await transport.listen({ handler: server, host: '127.0.0.1', port: 0 })
  cleanups.push(async () => {
    server.close()
    await listener.stop()
  })
  return { port: listener.address.port, server }
}

function nodeClient(port: number, settings: http2.Settings = {}): http2.ClientHttp2Session {
  const session = http2.connect(`http://127.0.0.1:${port}`, { settings })
  session.on('error', () => undefined)
  cleanups.push(() => session.destroy())
  return session
}

interface NodeAnswer {
  status: number
  headers: http2.IncomingHttpHeaders
  body: Buffer
  trailers: http2.IncomingHttpHeaders
  hints: number
  code: number
  error: Error | undefined
}

function fetchNode(
  session: http2.ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body?: Buffer,
  trailers?: http2.OutgoingHttpHeaders,
): Promise<NodeAnswer> {
  return new Promise((resolve) => {
    const request = session.request(headers, { endStream: body === undefined, waitForTrailers: trailers !== undefined })
    const answer: NodeAnswer = {
      status: 0,
      headers: {},
      body: Buffer.alloc(0),
      trailers: {},
      hints: 0,
      code: 0,
      error: undefined,
    }
    const parts: Buffer[] = []
    request.on('response', (fields) => {
      answer.status = fields[':status'] ?? 0
      answer.headers = fields
    })
    request.on('headers', () => answer.hints++)
    request.on('trailers', (fields) => (answer.trailers = fields))
    request.on('wantTrailers', () => request.sendTrailers(trailers ?? {}))
    request.on('data', (chunk: Buffer) => parts.push(chunk))
    request.on('error', (error) => (answer.error = error))
    request.on('close', () => {
      answer.body = Buffer.concat(parts)
      answer.code = request.rstCode
      resolve(answer)
    })
    if (body !== undefined) request.end(body)
  })
}

describe("our server with Node's client", () => {
  it('answers a request without a body', async () => {
    const { port } = await serve(new Echo())
    const answer = await fetchNode(nodeClient(port), { ':path': '/a?b=c', cookie: ['a=1', 'b=2'] as never })
    expect(answer.status).toBe(200)
    expect(answer.headers['x-seen']).toBe(`GET 127.0.0.1:${port} /a?b=c`)
    expect(answer.error).toBeUndefined()
  })

  it('joins cookie crumbs and takes the host out of the fields', async () => {
    const echo = new Echo()
    const { port } = await serve(echo)
    await fetchNode(nodeClient(port), { ':path': '/', cookie: ['a=1', 'b=2'] as never, host: `127.0.0.1:${port}` })
    const head = echo.heads[0] as RequestHead
    expect(header(head.headers, 'cookie')).toBe('a=1; b=2')
    expect(header(head.headers, 'host')).toBeUndefined()
  })

  it('echoes five megabytes with trailers', async () => {
    const { port } = await serve(new Echo())
    const body = Buffer.alloc(5 << 20, 'abcdefghij')
    const answer = await fetchNode(nodeClient(port), { ':method': 'POST', ':path': '/' }, body, { 'x-sum': '7' })
    expect(answer.body.equals(body)).toBe(true)
    expect(answer.trailers['x-sum']).toBe('7')
  })

  it('sends informational responses before the final one', async () => {
    const { port } = await serve(new Echo())
    const answer = await fetchNode(nodeClient(port), { ':path': '/hints' })
    expect([answer.hints, answer.status]).toEqual([1, 200])
  })

  it('shows a cut response as an error', async () => {
    const { port } = await serve(new Echo())
    const answer = await fetchNode(nodeClient(port), { ':path': '/truncate' })
    expect(answer.error).toBeInstanceOf(Error)
    expect(answer.code).toBe(2)
  })

  it('answers early and tells the client to stop sending', async () => {
    const { port } = await serve(new Echo())
    const answer = await fetchNode(nodeClient(port), { ':method': 'POST', ':path': '/early' }, Buffer.alloc(1 << 20))
    expect(answer.status).toBe(413)
    expect(answer.code).toBe(0)
  })

  it('answers 431 to a header list that is too large', async () => {
    const { port } = await serve(new Echo(), { maxHeaderList: 8192 })
    const answer = await fetchNode(nodeClient(port), { ':path': '/', 'x-long': 'x'.repeat(10_000) })
    expect(answer.status).toBe(431)
  })

  it('sees a cancelled request as cut by the peer, never as complete', async () => {
    const echo = new Echo()
    const { port } = await serve(echo)
    const request = nodeClient(port).request({ ':method': 'POST', ':path': '/wait' })
    request.on('error', () => undefined)
    request.write('half')
    while (echo.heads.length === 0) await new Promise((resolve) => setImmediate(resolve))
    request.close(http2.constants.NGHTTP2_CANCEL)
    while (echo.closes.length === 0) await new Promise((resolve) => setImmediate(resolve))
    expect(echo.closes[0]).toMatchObject({ reason: 'cancel', remote: true, http2Code: 8 })
  })

  it('takes extended CONNECT where it was offered', async () => {
    const echo = new Echo()
    const { port } = await serve(echo, { extendedConnect: true })
    const session = nodeClient(port)
    await new Promise((resolve) => session.once('remoteSettings', resolve))
    expect(session.remoteSettings.enableConnectProtocol).toBe(true)
    const request = session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':path': '/chat',
      ':scheme': 'http',
      ':authority': 'a',
    })
    const parts: Buffer[] = []
    request.on('data', (chunk: Buffer) => parts.push(chunk))
    await new Promise((resolve) => request.once('response', resolve))
    request.end('hello')
    await new Promise((resolve) => request.once('close', resolve))
    expect(echo.heads[0]).toMatchObject({ method: 'CONNECT', protocol: 'websocket', path: '/chat' })
    expect(Buffer.concat(parts).toString()).toBe('hello')
  })

  it('lets running exchanges finish when it drains', async () => {
    const { port, server } = await serve(new Echo())
    const session = nodeClient(port)
    const request = session.request({ ':method': 'POST', ':path': '/' })
    await new Promise((resolve) => request.once('response', resolve))
    let lastStream = 0
    session.on('goaway', (_code: number, last: number) => (lastStream = last))
    server.drain()
    while (!session.closed) await new Promise((resolve) => setImmediate(resolve))
    request.end('done')
    const parts: Buffer[] = []
    request.on('data', (chunk: Buffer) => parts.push(chunk))
    await new Promise((resolve) => request.once('close', resolve))
    expect(Buffer.concat(parts).toString()).toBe('done')
    expect(lastStream).toBeGreaterThan(0)
  })

  it('serves a thousand exchanges on one connection, two hundred at a time', async () => {
    const { port } = await serve(new Echo())
    const session = nodeClient(port)
    const answers: NodeAnswer[] = []
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        for (let n = 0; n < 10; n++)
          answers.push(await fetchNode(session, { ':method': 'POST', ':path': '/' }, Buffer.from(`${i}/${n}`)))
      }),
    )
    expect(answers.filter((answer) => answer.status === 200 && answer.body.includes('/')).length).toBe(1000)
  })
})

class Client implements ClientEvents, SessionEvents {
  status = 0
  informational: number[] = []
  head: ResponseHead | undefined
  parts: Buffer[] = []
  trailers: Headers | undefined
  ended = false
  closed = false
  error: ExchangeError | undefined
  sessionError: Error | undefined
  sessionClosed = false
  draining = false
  #waiting: (() => void)[] = []

  async until(test: () => boolean): Promise<void> {
    while (!test()) await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }
  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
  get body(): Buffer {
    return Buffer.concat(this.parts)
  }
  onInformational(_exchange: ClientExchange, head: ResponseHead): void {
    this.informational.push(head.status)
  }
  onResponse(_exchange: ClientExchange, head: ResponseHead, end: boolean): void {
    this.status = head.status
    this.head = head
    if (end) this.ended = true
    this.#wake()
  }
  onData(_exchange: ClientExchange, arena: Uint8Array, start: number, end: number): void {
    this.parts.push(Buffer.from(arena.subarray(start, end)))
    this.#wake()
  }
  onEnd(_exchange: ClientExchange, trailers: Headers): void {
    this.ended = true
    this.trailers = trailers
    this.#wake()
  }
  onDrain(): void {
    this.#wake()
  }
  onAvailable(): void {
    this.#wake()
  }
  onDraining(): void {
    this.draining = true
    this.#wake()
  }
  onClose(subject: ClientExchange | ClientSession, error: ExchangeError | Error | undefined): void {
    if ('request' in subject) {
      this.sessionClosed = true
      this.sessionError = error
    } else {
      this.closed = true
      this.error = error as ExchangeError | undefined
    }
    this.#wake()
  }
}

async function nodeServer(
  onStream: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void,
  settings: http2.Settings = {},
): Promise<{
  session: Http2ClientSession
  events: Client
  sockets: Set<Socket>
  sessions: http2.ServerHttp2Session[]
}> {
  const server = http2.createServer({ settings })
  const sockets = new Set<Socket>()
  const sessions: http2.ServerHttp2Session[] = []
  server.on('connection', (socket) => sockets.add(socket as Socket))
  server.on('session', (session) => sessions.push(session))
  server.on('stream', onStream)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const events = new Client()
  const session = connectHttp2(transport, { host: '127.0.0.1', port: (server.address() as AddressInfo).port }, events)
  await events.until(() => session.available > 0)
  cleanups.push(() => {
    session.close()
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { session, events, sockets, sessions }
}

const GET: RequestHead = {
  method: 'GET',
  scheme: 'http',
  authority: 'a.example',
  path: '/x',
  protocol: '',
  headers: [],
}
const POST: RequestHead = { ...GET, method: 'POST' }

describe("our client with Node's server", () => {
  it('asks and is answered, with informational responses and trailers', async () => {
    const { session } = await nodeServer((stream, headers) => {
      stream.additionalHeaders({ ':status': 103 })
      stream.respond({ ':status': 200, 'x-path': headers[':path'] }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      stream.end('body')
    })
    const client = new Client()
    session.request({ ...GET, headers: ['connection', 'close', 'te', 'trailers', 'host', 'b'] }, true, client)
    await client.until(() => client.closed)
    expect(client).toMatchObject({ status: 200, informational: [103], error: undefined, ended: true })
    expect(client.body.toString()).toBe('body')
    expect(client.trailers).toEqual(['grpc-status', '0'])
  })

  it('uploads five megabytes through small windows', async () => {
    const { session } = await nodeServer(
      (stream) => {
        let length = 0
        stream.on('data', (chunk: Buffer) => (length += chunk.length))
        stream.on('end', () => {
          stream.respond({ ':status': 200 })
          stream.end(String(length))
        })
      },
      { initialWindowSize: 1000 },
    )
    const client = new Client()
    const exchange = session.request(POST, false, client)
    exchange.write(Buffer.alloc(5 << 20, 'x'))
    exchange.end()
    expect(exchange.pending).toBeGreaterThan(0)
    await client.until(() => client.closed)
    expect(client.body.toString()).toBe(String(5 << 20))
  })

  for (const [what, cut] of [
    ['a reset', (stream) => stream.destroy(new Error('x'))],
    ['a connection that ends', (_stream, sockets) => sockets.forEach((socket) => socket.end())],
    ['a lost connection', (_stream, sockets) => sockets.forEach((socket) => socket.resetAndDestroy())],
  ] as [string, (stream: http2.ServerHttp2Stream, sockets: Set<Socket>) => void][]) {
    it(`never takes ${what} for a clean end`, async () => {
      const { session, sockets } = await nodeServer((stream) => {
        stream.on('error', () => undefined)
        stream.respond({ ':status': 200 })
        stream.write('half')
        setTimeout(() => cut(stream, sockets), 10)
      })
      const client = new Client()
      session.request(GET, true, client)
      await client.until(() => client.closed)
      expect(client.ended).toBe(false)
      expect(client.error).toMatchObject({ remote: true })
    })
  }

  it('reports GOAWAY, refuses new exchanges and finishes running ones', async () => {
    let running: http2.ServerHttp2Stream | undefined
    const { session, events, sessions } = await nodeServer((stream) => {
      running = stream
      stream.respond({ ':status': 200 })
    })
    const client = new Client()
    session.request(GET, true, client)
    await client.until(() => client.status === 200)
    sessions[0]?.close()
    await events.until(() => events.draining)
    expect([session.open, session.available]).toEqual([false, 0])
    expect(() => session.request(GET, true, client)).toThrowError(
      expect.objectContaining({ code: 'HTTP_SESSION_CLOSED' }) as Error,
    )
    running?.end('the rest')
    await client.until(() => client.closed)
    expect(client.body.toString()).toBe('the rest')
    expect(client.error).toBeUndefined()
    await events.until(() => events.sessionClosed)
    expect(events.sessionError).toBeUndefined()
  })

  it('keeps to the number of streams the server allows', async () => {
    const streams: http2.ServerHttp2Stream[] = []
    const { session, events } = await nodeServer((stream) => streams.push(stream), { maxConcurrentStreams: 3 })
    await events.until(() => session.available === 3)
    const clients = [new Client(), new Client(), new Client()]
    for (const client of clients) session.request(GET, true, client)
    expect(session.available).toBe(0)
    expect(() => session.request(GET, true, new Client())).toThrow()
    while (streams.length < 3) await new Promise((resolve) => setImmediate(resolve))
    streams[0]?.respond({ ':status': 204 }, { endStream: true })
    await events.until(() => session.available === 1)
  })

  it('cancels an exchange and goes on with the session', async () => {
    let code = -1
    const { session } = await nodeServer((stream, headers) => {
      stream.on('error', () => undefined)
      if (headers[':path'] === '/x') stream.on('close', () => (code = stream.rstCode))
      else stream.respond({ ':status': 200 }, { endStream: true })
    })
    const first = new Client()
    session.request(GET, true, first).reset('cancel')
    await first.until(() => first.closed)
    expect(first.error).toMatchObject({ remote: false, reason: 'cancel' })
    const second = new Client()
    session.request({ ...GET, path: '/y' }, true, second)
    await second.until(() => second.closed)
    expect(second.status).toBe(200)
    while (code < 0) await new Promise((resolve) => setImmediate(resolve))
    expect(code).toBe(8)
  })

  it('refuses to send a field that would split a message', async () => {
    const { session } = await nodeServer((stream) => stream.respond({ ':status': 200 }, { endStream: true }))
    expect(() => session.request({ ...GET, headers: ['x-a', 'b\r\nx: y'] }, true, new Client())).toThrowError(
      expect.objectContaining({ code: 'HTTP_HEADER_INVALID' }) as Error,
    )
    const client = new Client()
    session.request(GET, true, client)
    await client.until(() => client.closed)
    expect(client.status).toBe(200)
  })
})
