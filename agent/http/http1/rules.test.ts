// Every rule of HTTP/1.1 that keeps two readers of the same bytes from differing, with where it stands (RFC, section, and the
// CVE it is known by). The rows are in rules/: requests to a server, responses to a client, and what both of them write. Each row of
// bytes is given in one read, byte by byte, and in two reads for every place to cut.
import { describe, expect, it } from 'vitest'
import type { RequestHead } from '../message.ts'
import { http1Client } from './client.ts'
import { ANSWERS, ASKS } from './rules/emitted.ts'
import { FIELDS } from './rules/fields.ts'
import { LENGTHS } from './rules/lengths.ts'
import { RESPONSES } from './rules/responses.ts'
import { get, type RequestRule, type ResponseRule } from './rules/rule.ts'
import { TARGETS } from './rules/targets.ts'
import { http1Server } from './server.ts'
import { Answers, EchoServer, MemoryConnection, tick, type Seen } from './testing.ts'

const REQUESTS: readonly RequestRule[] = [...LENGTHS, ...FIELDS, ...TARGETS]

const OK = { status: 200, headers: [] }

/** Ends of the reads. */
type Cuts = readonly number[]

async function serve(bytes: Buffer, ends: Cuts) {
  const events = new EchoServer()
  events.answer = (exchange, seen) => {
    if (seen.head.method !== 'CONNECT' && seen.head.protocol === '') exchange.respond(OK, true)
  }
  const server = http1Server(events)
  const connection = new MemoryConnection()
  server.onOpen(connection, connection.info)
  let at = 0
  for (const end of ends) {
    server.onRead(connection, bytes, at, end)
    at = end
    // Pipelined requests are answered between the reads.
    if (ends.length < 5) await tick()
  }
  await tick()
  return { seen: events.seen, text: connection.text, ended: connection.endedHere }
}

const byteByByte = (length: number): Cuts => Array.from({ length }, (_, i) => i + 1)

/** Every place to cut, but of a long row only those near its ends and some between. */
function everyCut(length: number): Cuts[] {
  const all = byteByByte(length).slice(0, -1)
  return all.filter((at) => length < 1000 || at < 70 || length - at < 30 || at % 16_411 === 0).map((at) => [at, length])
}

function judge(rule: RequestRule, { seen, text, ended }: Awaited<ReturnType<typeof serve>>): void {
  const [, , , expected] = rule
  if (typeof expected === 'number') {
    expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${expected} [^\r]*\r\n`))
    expect(text).toContain('connection: close\r\n')
    expect(ended).toBe(true)
    expect(seen.every((one) => !one.complete)).toBe(true)
    return
  }
  const { head, body, trailers, complete } = seen[0] as Seen
  const tunnel = head.method === 'CONNECT' || head.protocol !== ''
  expect(complete || tunnel).toBe(true)
  const { body: wantedBody, trailers: wantedTrailers, headers, more = [], ...rest } = expected
  expect(seen.slice(1).map((one) => one.head.path)).toEqual(more)
  expect(text.replace(/connection: [a-z-]+\r\n/g, '')).toBe(
    tunnel ? '' : 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'.repeat(more.length + 1),
  )
  expect(head).toMatchObject(rest)
  if (headers) expect(head.headers).toEqual(headers)
  if (wantedBody !== undefined) expect(body).toBe(wantedBody)
  if (wantedTrailers) expect(trailers).toEqual(wantedTrailers)
}

describe('the rules of requests', () => {
  it.each(REQUESTS)('%s (RFC %s)', async (...rule) => {
    const bytes = Buffer.from(rule[2], 'latin1')
    const whole = await serve(bytes, [bytes.length])
    judge(rule, whole)
    expect(await serve(bytes, byteByByte(bytes.length))).toEqual(whole)
    for (const cuts of everyCut(bytes.length)) expect(await serve(bytes, cuts), `cut at ${cuts[0]}`).toEqual(whole)
  })
})

function ask(method: string, bytes: Buffer, ends: Cuts) {
  const client = http1Client({ onAvailable() {}, onDraining() {}, onClose() {} })
  const connection = new MemoryConnection()
  connection.slot = client.slot
  const { handler, session } = client
  handler.onOpen(connection, connection.info)
  const answers = new Answers()
  const upgrade = method === 'upgrade'
  session.request(
    { ...HEAD, method: upgrade ? 'GET' : method, protocol: upgrade ? 'websocket' : '' },
    !upgrade && method !== 'CONNECT',
    answers,
  )
  let at = 0
  for (const end of ends) {
    if (end > at) handler.onRead(connection, bytes, at, end)
    at = end
  }
  const again = session.available === 1
  if (connection.aborted === undefined) handler.onEnd(connection)
  return { again, log: answers.log, heads: answers.heads, body: answers.body, trailers: answers.trailers }
}

function judgeResponse([, , , , expected]: ResponseRule, seen: ReturnType<typeof ask>): void {
  if (expected === 'cut') {
    expect(seen.log.at(-1)).toMatch(/^close (protocol|closed) by the peer$/)
    expect(seen.log.some((line) => line.startsWith('end') || line.endsWith(' end'))).toBe(false)
    expect(seen.again).toBe(false)
    return
  }
  const { status, headers, body, trailers, informational = [], again } = expected
  expect(seen.log.join()).not.toContain('by the peer')
  expect(seen.heads.map((one) => one.status)).toEqual([...informational, status])
  if (headers) expect(seen.heads.at(-1)?.headers).toEqual(headers)
  if (body !== undefined) expect(seen.body).toBe(body)
  if (trailers) expect(seen.trailers).toEqual(trailers)
  if (again !== undefined) expect(seen.again).toBe(again)
}

describe('the rules of responses', () => {
  it.each(RESPONSES)('%s (RFC %s)', (...rule) => {
    const [, section, method, text] = rule
    const bytes = Buffer.from(text, 'latin1')
    const whole = ask(method, bytes, [bytes.length])
    judgeResponse(rule, whole)
    // Bytes beyond a response may come in a read of their own: it is offered for reuse until then.
    const told = (one: typeof whole) => (section === '9112 §9.2' ? { ...one, again: false } : one)
    expect(told(ask(method, bytes, byteByByte(bytes.length)))).toEqual(whole)
    for (const cuts of everyCut(bytes.length))
      expect(told(ask(method, bytes, cuts)), `cut at ${cuts[0]}`).toEqual(whole)
  })
})

describe('the rules of what a server writes', () => {
  it.each(ANSWERS)(
    '%s (RFC %s)',
    async (_rule, _section, request, { status, headers = [], body, trailers }, expected) => {
      const events = new EchoServer()
      let code = ''
      events.answer = (exchange) => {
        try {
          exchange.respond({ status, headers }, body === undefined)
          for (const piece of body ?? []) exchange.write(Buffer.from(piece))
          if (body) exchange.end(trailers)
        } catch (error) {
          ;({ code } = error as { code: string })
        }
      }
      const server = http1Server(events)
      const connection = new MemoryConnection()
      server.onOpen(connection, connection.info)
      const bytes = Buffer.from(request, 'latin1')
      server.onRead(connection, bytes, 0, bytes.length)
      await tick()
      if (typeof expected === 'object') expect(code).toBe(expected.code)
      else if (expected === 'cut') expect(connection.aborted).toBeDefined()
      else expect(connection.text).toBe(expected)
    },
  )
})

const HEAD: RequestHead = { method: 'GET', scheme: 'http', authority: 'a', path: '/', protocol: '', headers: [] }

describe('the rules of what a client writes', () => {
  it.each(ASKS)('%s (RFC %s)', (_rule, _section, head, end, expected) => {
    const client = http1Client({ onAvailable() {}, onDraining() {}, onClose() {} })
    const connection = new MemoryConnection()
    connection.slot = client.slot
    client.handler.onOpen(connection, connection.info)
    let code = ''
    try {
      client.session.request({ ...HEAD, ...head }, end, new Answers())
    } catch (error) {
      ;({ code } = error as { code: string })
    }
    if (typeof expected === 'string') expect(connection.text).toBe(expected)
    else {
      expect(code).toBe(expected.code)
      expect(connection.text).toBe('')
      expect(client.session.available).toBe(1)
    }
  })
})

describe('refusing', () => {
  const answer = async (text: string) => {
    const bytes = Buffer.from(text, 'latin1')
    return serve(bytes, [bytes.length])
  }

  it('answers 400 with a body and 431 without', async () => {
    expect((await answer(get(get('')))).text).toBe(
      'HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nBad Request',
    )
    expect((await answer(get(`X: ${'a'.repeat(70_000)}\r\n`))).text).toBe(
      'HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n',
    )
    expect((await answer('GET / HTTP/1.1\r\n\r\n')).text).toContain('content-length: 0\r\n')
  })

  it('serves nothing that follows what it refused', async () => {
    const { seen } = await answer(`${get('X : 1\r\n')}${get('')}`)
    expect(seen).toEqual([])
  })

  it('bounds the target by its own limit', () => {
    const connection = new MemoryConnection()
    const server = http1Server(new EchoServer(), { maxTarget: 10 })
    server.onOpen(connection, connection.info)
    const bytes = Buffer.from(get('').replace('/', '/0123456789'))
    server.onRead(connection, bytes, 0, bytes.length)
    expect(connection.text).toContain('HTTP/1.1 414 URI Too Long\r\n')
  })
})
