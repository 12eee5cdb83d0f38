// However the same bytes are cut into reads, the same messages come out: a parser that depends on the cuts can be steered.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ClientEvents, ClientExchange, ExchangeError, Headers, RequestHead, ResponseHead } from '../message.ts'
import { http1Client } from './client.ts'
import { http1Server } from './server.ts'
import { EchoServer, MemoryConnection, tick } from './testing.ts'

const word = fc.string({ unit: fc.constantFrom(...Array.from('abcXYZ019-_')), minLength: 1, maxLength: 12 })
const value = fc.string({ unit: fc.constantFrom(...Array.from('ab \t,;="é')), maxLength: 12 })
const field = fc.tuple(word, value).map(([name, text]) => `x-${name}: ${text}\r\n`)
const fields = fc.array(field, { maxLength: 4 }).map((all) => all.join(''))
const payload = fc.string({ unit: fc.constantFrom('a', '\r', '\n', '0', ';', ' '), maxLength: 40 })

const chunks = fc
  .tuple(
    fc.array(
      payload.filter((text) => text !== ''),
      { maxLength: 4 },
    ),
    fields,
  )
  .map(
    ([all, trailers]) =>
      `${all.map((text) => `${text.length.toString(16)}\r\n${text}\r\n`).join('')}0\r\n${trailers}\r\n`,
  )

const request = fc.oneof(
  fields.map((all) => `GET /a HTTP/1.1\r\nHost: h\r\n${all}\r\n`),
  fc
    .tuple(fields, payload)
    .map(([all, body]) => `POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: ${body.length}\r\n${all}\r\n${body}`),
  fc
    .tuple(fields, chunks)
    .map(([all, body]) => `PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n${all}\r\n${body}`),
)

/** Valid messages, and the same with one byte changed, taken away or put in. */
const mutation = fc.option(
  fc.record({
    at: fc.nat(),
    kind: fc.constantFrom('set', 'cut', 'add'),
    byte: fc.constantFrom(0, 9, 10, 13, 32, 44, 48, 58, 59, 127, 255),
  }),
)

function mutate(text: string, change: { at: number; kind: string; byte: number } | null): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  if (!change || bytes.length === 0) return bytes
  const at = change.at % bytes.length
  const put = Buffer.from(change.kind === 'cut' ? [] : [change.byte])
  return Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(change.kind === 'add' ? at : at + 1)])
}

function pieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => (bytes.length === 0 ? 0 : cut % bytes.length)))].sort((a, b) => a - b)
  const out: Buffer[] = []
  let from = 0
  for (const cut of [...at, bytes.length]) {
    if (cut > from) out.push(bytes.subarray(from, cut))
    from = cut
  }
  return out
}

async function serve(parts: readonly Buffer[]) {
  const events = new EchoServer()
  const server = http1Server(events)
  const connection = new MemoryConnection()
  server.onOpen(connection, connection.info)
  for (const part of parts) {
    server.onRead(connection, part, 0, part.length)
    await Promise.resolve()
  }
  await tick()
  await tick()
  await tick()
  return { seen: events.seen, text: connection.text, ended: connection.endedHere }
}

describe('any cut of the same bytes', () => {
  it('gives a server the same requests and the same answers', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(request, { minLength: 1, maxLength: 3 }),
        mutation,
        fc.array(fc.nat(), { maxLength: 20 }),
        async (all, change, cuts) => {
          const bytes = mutate(all.join(''), change)
          expect(await serve(pieces(bytes, cuts))).toEqual(await serve([bytes]))
        },
      ),
      { numRuns: 400 },
    )
  })

  it('gives a client the same response', () => {
    const response = fc.oneof(
      fc
        .tuple(fields, payload)
        .map(([all, body]) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n${all}\r\n${body}`),
      fc
        .tuple(fields, chunks)
        .map(
          ([all, body]) => `HTTP/1.1 103 X\r\n\r\nHTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n${all}\r\n${body}`,
        ),
      fc.tuple(fields, payload).map(([all, body]) => `HTTP/1.0 200 OK\r\n${all}\r\n${body}`),
    )
    const read = (parts: readonly Buffer[]) => {
      const client = http1Client({ onAvailable() {}, onDraining() {}, onClose() {} })
      const connection = new MemoryConnection()
      connection.slot = client.slot
      client.handler.onOpen(connection, connection.info)
      const out = { heads: [] as ResponseHead[], body: '', trailers: [] as Headers, close: [] as string[] }
      const events: ClientEvents = {
        onInformational: (_x, head) => void out.heads.push(head),
        onResponse: (_x, head) => void out.heads.push(head),
        onData: (_x, arena, start, end) =>
          void (out.body += Buffer.from(arena.subarray(start, end)).toString('latin1')),
        onEnd: (_x, trailers) => void (out.trailers = trailers),
        onDrain() {},
        onClose: (_x: ClientExchange, error: ExchangeError | undefined) => void out.close.push(error?.reason ?? 'none'),
      }
      const head: RequestHead = { method: 'GET', scheme: 'http', authority: 'h', path: '/', protocol: '', headers: [] }
      client.session.request(head, true, events)
      for (const part of parts) client.handler.onRead(connection, part, 0, part.length)
      client.handler.onEnd(connection)
      return { ...out, aborted: connection.aborted }
    }
    fc.assert(
      fc.property(response, mutation, fc.array(fc.nat(), { maxLength: 20 }), (text, change, cuts) => {
        const bytes = mutate(text, change)
        expect(read(pieces(bytes, cuts))).toEqual(read([bytes]))
      }),
      { numRuns: 1000 },
    )
  })
})
