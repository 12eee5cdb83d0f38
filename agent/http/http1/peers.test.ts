// node:http (llhttp, strict) as an independent peer: it speaks with our server and our client, and no bytes may be a
// message to us that is framed differently by it.
import fc from 'fast-check'
import { Agent, createServer, request as nodeRequest, type IncomingMessage, type Server } from 'node:http'
import { Duplex } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Listener } from '../../io/connection.ts'
import { transport } from '../../io/index.ts'
import type { ClientEvents, ExchangeError, Headers, RequestHead, ResponseHead } from '../message.ts'
import { http1Client } from './client.ts'
import { http1Server } from './server.ts'
import { EchoServer, MemoryConnection, tick, type Seen } from './testing.ts'

describe('our server with the client of node:http', () => {
  let listener: Listener
  const events = new EchoServer()
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })

  beforeAll(async () => {
    listener = await transport.listen({ handler: http1Server(events), host: '127.0.0.1', port: 0 })
  })
  afterAll(async () => {
    agent.destroy()
    await listener.stop()
  })

  function send(method: string, body: string | undefined, headers: Record<string, string> = {}) {
    return new Promise<{ status: number; body: string; response: IncomingMessage }>((resolve, reject) => {
      const request = nodeRequest(
        { host: '127.0.0.1', port: listener.address.port, method, path: '/x?y=1', agent, headers },
        (response) => {
          let text = ''
          response.setEncoding('latin1')
          response.on('data', (chunk: string) => (text += chunk))
          response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text, response }))
          response.on('error', reject)
        },
      )
      request.on('error', reject)
      if (body === undefined) request.end()
      else request.end(body, 'latin1')
    })
  }

  it('serves GET, POST with a length and POST in chunks on one connection', async () => {
    const before = listener.connections
    expect(await send('GET', undefined)).toMatchObject({ status: 200, body: '' })
    expect(await send('POST', 'hello', { 'content-length': '5' })).toMatchObject({ status: 200, body: 'hello' })
    const big = 'x'.repeat(300_000)
    expect((await send('PUT', big, { 'transfer-encoding': 'chunked' })).body).toBe(big)
    expect(events.seen.map((one) => one.head.path)).toEqual(['/x?y=1', '/x?y=1', '/x?y=1'])
    expect(listener.connections).toBe(before + 1)
  })

  it('continues a request that waits for 100', async () => {
    events.onHead = (exchange, seen) => {
      if (seen.head.headers.includes('100-continue')) exchange.informational({ status: 100, headers: [] })
    }
    const answer = await new Promise<string>((resolve, reject) => {
      const request = nodeRequest({
        host: '127.0.0.1',
        port: listener.address.port,
        method: 'POST',
        headers: { expect: '100-continue', 'content-length': '4' },
      })
      request.on('error', reject)
      request.on('continue', () => request.end('body'))
      request.on('response', (response) => response.on('data', (chunk: Buffer) => resolve(chunk.toString())))
      request.flushHeaders()
    })
    expect(answer).toBe('body')
    events.onHead = undefined
  })

  it('shows a cut response as an error to the peer', async () => {
    const answer = events.answer
    events.answer = (exchange) => {
      exchange.respond({ status: 200, headers: [] }, false)
      exchange.write(Buffer.from('part'))
      setTimeout(() => exchange.reset('internal'), 20)
    }
    await expect(send('GET', undefined)).rejects.toThrow(/aborted|ECONNRESET|hang up/)
    events.answer = answer
  })
})

describe('our client with the server of node:http', () => {
  let server: Server
  let port = 0

  beforeAll(async () => {
    server = createServer((request, response) => {
      let length = 0
      request.on('data', (chunk: Buffer) => (length += chunk.length))
      request.on('end', () => {
        response.setHeader('x-seen', `${request.method} ${request.url} ${request.headers.host} ${length}`)
        if (request.url === '/cut') {
          response.write('part', () => setTimeout(() => response.destroy(), 20))
          return
        }
        response.setHeader('trailer', 'x-sum')
        response.write('a'.repeat(100_000))
        response.addTrailers({ 'x-sum': '7' })
        response.end('b')
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    port = (server.address() as { port: number }).port
  })
  afterAll(() => server.close())

  function open() {
    return new Promise<ReturnType<typeof http1Client>>((resolve) => {
      const client = http1Client({ onAvailable: () => resolve(client), onDraining() {}, onClose() {} })
      transport.connect({ host: '127.0.0.1', port, handler: client.handler, slot: client.slot })
    })
  }

  function exchange(session: ReturnType<typeof http1Client>['session'], head: Partial<RequestHead>, body?: string) {
    return new Promise<{
      head: ResponseHead | undefined
      length: number
      trailers: Headers
      error: ExchangeError | undefined
    }>((resolve) => {
      const out = { head: undefined as ResponseHead | undefined, length: 0, trailers: [] as Headers }
      const events: ClientEvents = {
        onInformational() {},
        onResponse: (_x, response) => void (out.head = response),
        onData: (_x, _arena, start, end) => void (out.length += end - start),
        onEnd: (_x, trailers) => void (out.trailers = trailers),
        onDrain() {},
        onClose: (_x, error) => resolve({ ...out, error }),
      }
      const whole = { method: 'GET', scheme: 'http', authority: 'h', path: '/', protocol: '', headers: [], ...head }
      const started = session.request(whole, body === undefined, events)
      if (body !== undefined) {
        started.write(Buffer.from(body))
        started.end()
      }
    })
  }

  it('exchanges bodies of both framings on one connection, with trailers', async () => {
    const { session } = await open()
    const first = await exchange(session, { method: 'POST', path: '/p' }, 'x'.repeat(200_000))
    expect(first).toMatchObject({ length: 100_001, trailers: ['x-sum', '7'], error: undefined })
    expect(first.head?.headers).toContain('POST /p h 200000')
    const second = await exchange(session, { method: 'PUT', headers: ['content-length', '3'] }, 'abc')
    expect(second.head?.headers).toContain('PUT / h 3')
    session.close()
  })

  it('takes a response that the server broke off for broken', async () => {
    const { session } = await open()
    const { error } = await exchange(session, { path: '/cut' })
    expect(error).toMatchObject({ reason: 'closed', remote: true })
  })
})

// --- no bytes are one message here and another one there

interface Message {
  method: string
  body: string
}

/** What node:http makes of the bytes, on a connection without a network. */
function nodeReads(bytes: Buffer): Promise<{ messages: Message[]; refused: boolean }> {
  return new Promise((resolve) => {
    const messages: Message[] = []
    let refused = false
    const wire = new Duplex({
      read() {},
      write(_chunk, _encoding, done) {
        done()
      },
    })
    const server = createServer({ requireHostHeader: false }, (request, response) => {
      let body = ''
      request.setEncoding('latin1')
      request.on('data', (chunk: string) => (body += chunk))
      request.on('end', () => {
        messages.push({ method: request.method ?? '', body })
        response.end()
      })
    })
    const done = () => {
      wire.destroy()
      resolve({ messages, refused })
    }
    server.on('clientError', () => {
      refused = true
    })
    server.on('connect', (request) => void messages.push({ method: request.method ?? '', body: '' }))
    // Nobody hears of `upgrade`: h2c is ignored, as by us, and the body is read. Who heard of it would have no body.
    server.emit('connection', wire)
    wire.push(bytes)
    setImmediate(() => setImmediate(() => setImmediate(() => setImmediate(done))))
  })
}

async function weRead(bytes: Buffer): Promise<Message[]> {
  const events = new EchoServer()
  const server = http1Server(events)
  const connection = new MemoryConnection()
  server.onOpen(connection, connection.info)
  server.onRead(connection, bytes, 0, bytes.length)
  for (let i = 0; i < 4; i++) await tick()
  return events.seen
    .filter((one: Seen) => one.complete || one.head.method === 'CONNECT')
    .map((one) => ({ method: one.head.method, body: one.body }))
}

const pieces = fc.constantFrom(
  'GET / HTTP/1.1\r\n',
  'POST / HTTP/1.1\r\n',
  'PUT /x HTTP/1.0\r\n',
  'Host: a\r\n',
  'Host: a\r\n',
  'Host: a\r\n',
  'Content-Length: 3\r\n',
  'Content-Length: 0\r\n',
  'content-length:3\r\n',
  'Content-Length: 03\r\n',
  'Content-Length: +3\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked\r\n',
  'transfer-encoding:\tchunked \r\n',
  'Transfer-Encoding: identity\r\n',
  'Transfer-Encoding : chunked\r\n',
  'Transfer-Encoding: chunked, chunked\r\n',
  'X: 1\r\n',
  ' folded\r\n',
  'X: \x0b\r\n',
  'Connection: close\r\n',
  'Connection: upgrade\r\n',
  'Upgrade: h2c\r\n',
  '\r\n',
  '\r\n',
  '\r\n',
  '\n',
  '\r',
  'abc',
  '3\r\nabc\r\n',
  '0\r\n\r\n',
  '3;x=y\r\nabc\r\n',
  '3;\r\nabc\r\n',
  '0x3\r\nabc\r\n',
  '03\r\nabc\r\n',
  '0\r\nX: 1\r\n\r\n',
  'ffffffffffffffff3\r\nabc\r\n',
  '-3\r\n',
  '3 \r\nabc\r\n',
  '0\r\n',
  'GET /next HTTP/1.1\r\nHost: b\r\n\r\n',
)

describe('the same bytes in both parsers', () => {
  it('are never a message to us that node:http frames differently', async () => {
    let accepted = 0
    let framed = 0
    await fc.assert(
      fc.asyncProperty(fc.array(pieces, { minLength: 3, maxLength: 10 }), async (all) => {
        const text = /^(GET|POST|PUT)/.test(all[0] ?? '')
          ? all.join('')
          : `POST / HTTP/1.1\r\nHost: a\r\n${all.join('')}`
        const bytes = Buffer.from(text, 'latin1')
        const ours = await weRead(bytes)
        const theirs = await nodeReads(bytes)
        accepted += ours.length
        framed += theirs.messages.length
        // What it refused at some point it did not frame; up to there every message must be the same.
        const common = Math.min(ours.length, theirs.messages.length)
        expect(ours.slice(0, common)).toEqual(theirs.messages.slice(0, common))
        if (!theirs.refused && ours.length > theirs.messages.length) {
          expect({ bytes: text, ours, theirs }).toBe('the same number of messages')
        }
      }),
      { numRuns: 1500 },
    )
    expect(accepted).toBeGreaterThan(100)
    expect(framed).toBeGreaterThan(100)
  })
})
