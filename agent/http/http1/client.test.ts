import { describe, expect, it } from 'vitest'
import type { RequestHead } from '../message.ts'
import { http1Client } from './client.ts'
import { Answers, MemoryConnection, tick } from './testing.ts'

const head = (over: Partial<RequestHead> = {}): RequestHead => ({
  method: 'GET',
  scheme: 'http',
  authority: 'a',
  path: '/',
  protocol: '',
  headers: [],
  ...over,
})

function open() {
  const told: string[] = []
  const client = http1Client({
    onAvailable: () => told.push('available'),
    onDraining: () => told.push('draining'),
    onClose: () => told.push('closed'),
  })
  const connection = new MemoryConnection()
  connection.slot = client.slot
  const { handler, session } = client
  const receive = (text: string) => {
    const bytes = Buffer.from(text, 'latin1')
    handler.onRead(connection, bytes, 0, bytes.length)
  }
  const answers = new Answers()
  return {
    told,
    handler,
    session,
    connection,
    receive,
    answers,
    connect: () => handler.onOpen(connection, connection.info),
  }
}

function opened() {
  const it = open()
  it.connect()
  return it
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'

describe('the HTTP/1.1 client', () => {
  it('is available once its connection is open', () => {
    const { session, connect, told, answers } = open()
    expect([session.available, session.open]).toEqual([0, true])
    expect(() => session.request(head(), true, answers)).toThrow(/takes no request/)
    connect()
    expect(session.available).toBe(1)
    expect(told).toEqual(['available'])
  })

  it('sends one request after the other and marks the later ones as reused', () => {
    const { session, connection, receive, answers } = opened()
    expect(
      session.request(head({ headers: ['x', '1', 'connection', 'y', 'host', 'evil'] }), true, answers).reused,
    ).toBe(false)
    expect(connection.text).toBe('GET / HTTP/1.1\r\nx: 1\r\nhost: a\r\n\r\n')
    expect(session.available).toBe(0)
    receive(ok)
    expect(answers).toMatchObject({ body: 'hi', log: ['head 200', 'end', 'close'] })
    expect(session.request(head(), true, answers).reused).toBe(true)
  })

  it('frames the request body as declared, in chunks, or says that there is none', () => {
    const declared = opened()
    const first = declared.session.request(
      head({ method: 'PUT', headers: ['content-length', '3'] }),
      false,
      declared.answers,
    )
    first.write(Buffer.from('abc'))
    first.end()
    expect(declared.connection.text).toBe('PUT / HTTP/1.1\r\ncontent-length: 3\r\nhost: a\r\n\r\nabc')
    const unknown = opened()
    const second = unknown.session.request(head({ method: 'GET' }), false, unknown.answers)
    second.write(Buffer.from('abc'))
    second.end(['x', '1'])
    expect(unknown.connection.text).toBe(
      'GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n\r\n',
    )
    const none = opened()
    none.session.request(head({ method: 'POST' }), true, none.answers)
    expect(none.connection.text).toBe('POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n')
  })

  it('keeps te: trailers for gRPC', () => {
    const { session, connection, answers } = opened()
    session.request(head({ headers: ['te', 'trailers'] }), true, answers)
    expect(connection.text).toContain('te: trailers\r\nconnection: te\r\n')
  })

  it('cuts a request whose body is not as long as declared', async () => {
    const { session, connection, answers } = opened()
    const exchange = session.request(head({ headers: ['content-length', '3'] }), false, answers)
    exchange.write(Buffer.from('ab'))
    exchange.end()
    await tick()
    expect(connection.aborted).toBe('cancel')
    expect(answers.log).toEqual(['close internal'])
  })

  it('refuses to write what would break the request line', () => {
    for (const over of [
      { path: '/a b' },
      { path: '/a\r\nx: y' },
      { method: 'G T' },
      { authority: 'a\r\nx: y' },
      { path: '/é€' },
    ]) {
      const { session, connection, answers } = opened()
      expect(() => session.request(head(over), true, answers)).toThrow(/cannot be written/)
      expect(connection.text).toBe('')
      expect(session.available).toBe(1)
    }
  })

  it.each([
    [
      'chunks with trailers',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: 1\r\n\r\n',
      'hi',
      ['head 200', 'end x 1', 'close'],
    ],
    ['no body', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', '', ['head 200 end', 'close']],
    [
      '204 whatever its fields say',
      'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n',
      '',
      ['head 204 end', 'close'],
    ],
    ['304 with a length', 'HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n', '', ['head 304 end', 'close']],
    [
      'informational responses first',
      `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${ok}`,
      'hi',
      ['info 100', 'info 103', 'head 200', 'end', 'close'],
    ],
    ['no reason and no blank', 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', '', ['head 200 end', 'close']],
  ])('reads %s', (_what, bytes, body, log) => {
    const { session, receive, answers } = opened()
    session.request(head(), true, answers)
    receive(bytes)
    expect(answers).toMatchObject({ body, log })
    expect(session.available).toBe(1)
  })

  it('reads a body until the connection ends', () => {
    const { session, receive, answers, handler, connection } = opened()
    session.request(head(), true, answers)
    receive('HTTP/1.0 200 OK\r\n\r\nall of')
    receive(' it')
    expect(session.open).toBe(false)
    handler.onEnd(connection)
    expect(answers).toMatchObject({ body: 'all of it', log: ['head 200', 'end', 'close'] })
  })

  it('reads no body after HEAD', () => {
    const { session, receive, answers } = opened()
    session.request(head({ method: 'HEAD' }), true, answers)
    receive('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n')
    expect(answers.log).toEqual(['head 200 end', 'close'])
  })

  it.each([
    ['a length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n'],
    ['another coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n'],
    ['a bare LF', 'HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status beyond 599', 'HTTP/1.1 999 OK\r\n\r\n'],
    ['another protocol', 'SSH-2.0-OpenSSH\r\n\r\n'],
    ['101 that nobody asked for', 'HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['a broken chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
    ['a folded field', 'HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n'],
    ['informational responses without end', 'HTTP/1.1 103 X\r\n\r\n'.repeat(40)],
  ])('refuses %s as a protocol error', (_what, bytes) => {
    const { session, receive, answers, connection } = opened()
    session.request(head(), true, answers)
    receive(bytes)
    expect(answers.log.at(-1)).toBe('close protocol by the peer')
    expect(connection.aborted).toBe('protocol')
    expect(session.open).toBe(false)
  })

  it('takes bytes beyond a response for a broken connection, not for the next response', () => {
    const { session, receive, answers, connection } = opened()
    session.request(head(), true, answers)
    receive(`${ok}HTTP/1.1 200 OK\r\n\r\n`)
    expect(answers.log).toEqual(['head 200', 'end', 'close'])
    expect(connection.aborted).toBe('protocol')
    expect(session.available).toBe(0)
  })

  it('never takes a truncated response for a complete one', () => {
    for (const bytes of [
      '',
      'HTTP/1.1 200 OK\r\nContent-Le',
      'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n',
    ]) {
      const { session, receive, answers, handler, connection } = opened()
      session.request(head(), true, answers)
      if (bytes) receive(bytes)
      handler.onEnd(connection)
      expect(answers.log.at(-1)).toBe('close closed by the peer')
      expect(answers.log).not.toContain('end')
    }
  })

  it('takes a reset of an until-close body for a truncation', () => {
    const { session, receive, answers, handler, connection } = opened()
    session.request(head(), true, answers)
    receive('HTTP/1.1 200 OK\r\n\r\npart')
    handler.onClose(connection, new Error('reset'))
    expect(answers.log).toEqual(['head 200', 'close closed by the peer'])
  })

  it('closes after `connection: close` and tells it before the body ends', () => {
    const { session, receive, answers, told, connection } = opened()
    session.request(head(), true, answers)
    receive('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nh')
    expect(told).toEqual(['available', 'draining'])
    expect(session.open).toBe(false)
    receive('i')
    expect(answers.log).toEqual(['head 200', 'end', 'close'])
    expect(connection.endedHere).toBe(true)
  })

  it('becomes a tunnel by 101', async () => {
    const { session, receive, answers, connection, handler } = opened()
    const exchange = session.request(head({ protocol: 'websocket' }), false, answers)
    expect(connection.text).toBe('GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n')
    receive('HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframe')
    expect(answers).toMatchObject({ body: 'frame', log: ['head 101'] })
    exchange.write(Buffer.from('raw'))
    expect(connection.text.endsWith('\r\n\r\nraw')).toBe(true)
    handler.onEnd(connection)
    expect(answers.log).toEqual(['head 101', 'end'])
    exchange.end()
    await tick()
    expect(answers.log.at(-1)).toBe('close')
  })

  it('answers an upgrade that was not granted like any other request', () => {
    const { session, receive, answers } = opened()
    session.request(head({ protocol: 'websocket' }), false, answers)
    receive(ok)
    expect(answers.log).toEqual(['head 200', 'end', 'close'])
    expect(session.available).toBe(1)
  })

  it('hands an early answer over at once and is not used again', async () => {
    const { session, receive, answers } = opened()
    const exchange = session.request(head({ method: 'POST', headers: ['content-length', '9'] }), false, answers)
    receive(ok)
    expect(answers.log).toEqual(['head 200', 'end'])
    expect(session.open).toBe(false)
    exchange.reset('cancel')
    await tick()
    expect(answers.log.at(-1)).toBe('close cancel')
  })

  it('ends when the server closes an idle connection', () => {
    const { session, handler, connection, told } = opened()
    handler.onEnd(connection)
    expect(session.open).toBe(false)
    handler.onClose(connection, undefined)
    expect(told).toEqual(['available', 'draining', 'closed'])
  })

  it('drains after the running exchange', () => {
    const { session, receive, answers, connection } = opened()
    session.request(head(), true, answers)
    session.drain()
    expect(session.open).toBe(false)
    expect(connection.endedHere).toBe(false)
    receive(ok)
    expect(answers.log).toEqual(['head 200', 'end', 'close'])
    expect(connection.endedHere).toBe(true)
  })
})
