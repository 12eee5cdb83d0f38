import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { http1Server } from './server.ts'
import { EchoServer, MemoryConnection, tick, type Seen } from './testing.ts'

function open(clock?: ManualClock) {
  const events = new EchoServer()
  const refused: string[] = []
  const server = http1Server(events, clock ? { clock } : {}, {
    onRefused: (_connection, status, details) => refused.push(`${status} ${details}`),
  })
  const connection = new MemoryConnection()
  server.onOpen(connection, connection.info)
  const send = (text: string) => {
    const bytes = Buffer.from(text, 'latin1')
    server.onRead(connection, bytes, 0, bytes.length)
  }
  return { events, server, connection, send, refused }
}

const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'

describe('the HTTP/1.1 server', () => {
  it('keeps the connection for one request after the other', async () => {
    const { connection, send, events } = open()
    for (let i = 0; i < 3; i++) {
      send(get)
      await tick()
    }
    expect(connection.text).toBe(ok.repeat(3))
    expect(events.seen.map((one) => one.error)).toEqual(['none', 'none', 'none'])
    expect(connection.endedHere).toBe(false)
  })

  it('answers pipelined requests in order, one at a time', async () => {
    const { connection, send, events } = open()
    events.answer = () => undefined
    send(get.replace('/', '/1') + get.replace('/', '/2') + get.replace('/', '/3'))
    await tick()
    expect(events.seen.map((one) => one.head.path)).toEqual(['/1'])
    expect(connection.paused).toBe(true)
    for (let i = 0; i < 3; i++) {
      events.exchanges[i]?.respond({ status: 200, headers: ['x', String(i + 1)] }, true)
      await tick()
    }
    expect(connection.text.match(/x: [0-9]/g)).toEqual(['x: 1', 'x: 2', 'x: 3'])
    expect(connection.paused).toBe(false)
  })

  it('frames a body of unknown length in chunks, with trailers', async () => {
    const { connection, send, events } = open()
    events.answer = (exchange) => {
      exchange.respond(
        { status: 200, headers: ['content-type', 'text/plain', 'connection', 'x', 'transfer-encoding', 'gzip'] },
        false,
      )
      exchange.write(Buffer.from('hello'))
      exchange.write(Buffer.from(' world!'))
      exchange.end(['x-sum', '1', 'content-length', '9'])
    }
    send(get)
    await tick()
    expect(connection.text).toBe(
      'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n world!\r\n0\r\nx-sum: 1\r\n\r\n',
    )
  })

  it('frames for HTTP/1.0 by the end of the connection, and keeps it only when asked', async () => {
    const { connection, send, events } = open()
    events.answer = (exchange) => {
      expect(exchange.minor).toBe(0)
      exchange.informational({ status: 100, headers: [] })
      exchange.respond({ status: 200, headers: [] }, false)
      exchange.write(Buffer.from('all'))
      exchange.end()
    }
    send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    await tick()
    expect(connection.text).toBe('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall')
    expect(connection.endedHere).toBe(true)
    const second = open()
    second.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    await tick()
    expect(second.connection.text).toBe('HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n')
    expect(second.connection.endedHere).toBe(false)
  })

  it('sends no body for HEAD, 204 and 304, and keeps the length where it tells something', async () => {
    for (const [method, status, line] of [
      ['HEAD', 200, 'content-length: 4\r\n'],
      ['GET', 304, 'content-length: 4\r\n'],
      ['GET', 204, ''],
    ] as const) {
      const { connection, send, events } = open()
      events.answer = (exchange) => {
        exchange.respond({ status, headers: ['content-length', '4'] }, false)
        exchange.write(Buffer.from('body'))
        exchange.end()
      }
      send(get.replace('GET', method))
      await tick()
      expect(connection.text.split('\r\n').slice(1).join('\r\n')).toBe(`${line}\r\n`)
      expect(events.seen[0]?.error).toBe('none')
    }
  })

  it('relays informational responses', async () => {
    const { connection, send, events } = open()
    events.onHead = (exchange) => {
      exchange.informational({ status: 103, headers: ['link', '</a>'] })
      exchange.informational({ status: 100, headers: [] })
    }
    send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
    expect(connection.text).toBe('HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n')
    send('hi')
    await tick()
    expect(connection.text).toContain('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi')
    expect(events.seen[0]?.head.headers).toEqual(['expect', '100-continue', 'content-length', '2'])
  })

  it('closes after an early answer, throws the rest away, and says so in the answer', async () => {
    const { connection, send, events } = open()
    events.onHead = (exchange) => exchange.respond({ status: 413, headers: [] }, true)
    send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc')
    await tick()
    expect(connection.text).toBe('HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
    expect(connection.endedHere).toBe(true)
    expect(events.seen[0]?.error).toBe('cancel')
    send('x'.repeat(997) + get)
    await tick()
    expect(events.seen).toHaveLength(1)
  })

  it('closes when the user or the client wants it', async () => {
    const first = open()
    first.events.answer = (exchange) => exchange.respond({ status: 200, headers: ['connection', 'close'] }, true)
    first.send(get)
    await tick()
    expect(first.connection.text).toContain('connection: close\r\n')
    expect(first.connection.endedHere).toBe(true)
    const second = open()
    second.send(get.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
    await tick()
    expect(second.connection.endedHere).toBe(true)
  })

  it('cuts a response that is shorter than declared, and one that is longer', async () => {
    for (const body of ['shor', 'much too long']) {
      const { connection, send, events } = open()
      events.answer = (exchange) => {
        exchange.respond({ status: 200, headers: ['content-length', '5'] }, false)
        exchange.write(Buffer.from(body))
        exchange.end()
      }
      send(get)
      await tick()
      expect(connection.aborted).toBeDefined()
      expect(events.seen[0]?.error).toBe('internal')
    }
  })

  it('never ends a cut response cleanly', async () => {
    const { connection, send, events } = open()
    events.answer = (exchange) => {
      exchange.respond({ status: 200, headers: [] }, false)
      exchange.write(Buffer.from('part'))
      exchange.reset('internal')
      exchange.end()
    }
    send(get)
    await tick()
    expect(connection.aborted).toBe('cancel')
    expect(connection.text.endsWith('0\r\n\r\n')).toBe(false)
  })

  it('tells a truncated request as one', async () => {
    for (const bytes of [
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc',
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n',
    ]) {
      const { server, connection, send, events } = open()
      send(bytes)
      server.onEnd(connection)
      expect(events.seen[0]).toMatchObject({ complete: false, error: 'closed by the peer' })
      expect(connection.aborted).toBeDefined()
    }
  })

  it('answers a client that ended its direction after the request', async () => {
    const { server, connection, send, events } = open()
    events.answer = () => undefined
    send(get)
    server.onEnd(connection)
    expect(connection.endedHere).toBe(false)
    events.exchanges[0]?.respond({ status: 200, headers: [] }, true)
    await tick()
    expect(connection.text).toBe(ok)
    expect(connection.endedHere).toBe(true)
    expect(events.seen[0]?.error).toBe('none')
  })

  it('answers a broken body with 400 if nothing was answered, and cuts otherwise', async () => {
    const head = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'
    const first = open()
    first.send(`${head}zz\r\n`)
    await tick()
    expect(first.connection.text).toContain('HTTP/1.1 400 ')
    expect(first.events.seen[0]?.error).toBe('protocol by the peer')
    // It has an owner, who is told by the end of the exchange.
    expect(first.refused).toEqual([])
    const second = open()
    second.events.onHead = (exchange) => exchange.respond({ status: 200, headers: [] }, false)
    second.send(`${head}zz\r\n`)
    await tick()
    expect(second.connection.aborted).toBe('protocol')
  })

  it('becomes a tunnel by 101, with what was sent too early', async () => {
    const { server, connection, send, events } = open()
    events.answer = () => undefined
    send('GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly')
    await tick()
    const [exchange] = events.exchanges
    exchange?.respond({ status: 101, headers: ['sec-websocket-accept', 'x'] }, false)
    await tick()
    expect(connection.text).toBe(
      'HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
    )
    expect(events.seen[0]?.body).toBe('early')
    send('GET / raw')
    expect(events.seen[0]?.body).toBe('earlyGET / raw')
    exchange?.write(Buffer.from('raw answer'))
    expect(connection.text.endsWith('raw answer')).toBe(true)
    events.answer = () => undefined
    server.onEnd(connection)
    expect(events.seen[0]).toMatchObject({ complete: true, error: '' })
    exchange?.end()
    await tick()
    expect(connection.endedHere).toBe(true)
    expect(events.seen[0]?.error).toBe('none')
  })

  it('goes on without a tunnel when an upgrade is not granted', async () => {
    const { connection, send, events } = open()
    events.answer = () => undefined
    send('GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
    events.exchanges[0]?.respond({ status: 403, headers: [] }, true)
    await tick()
    events.answer = (exchange) => exchange.respond({ status: 200, headers: [] }, true)
    send(get)
    await tick()
    expect(connection.text).toBe(`HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n${ok}`)
  })

  it('becomes a tunnel by 200 to CONNECT', async () => {
    const { connection, send, events } = open()
    events.onHead = (exchange) => exchange.respond({ status: 200, headers: [] }, false)
    send('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nbytes')
    await tick()
    expect(connection.text).toBe('HTTP/1.1 200 OK\r\n\r\n')
    expect(events.seen[0]?.body).toBe('bytes')
  })

  it('refuses to write a field that would start another', () => {
    const { connection, send, events } = open()
    const thrown: unknown[] = []
    events.answer = (exchange) => {
      for (const value of ['a\r\nx: b', 'a\nb', 'a\rb', 'a\0b', 'Ċb', 'čĊx: 1']) {
        try {
          exchange.respond({ status: 200, headers: ['x', value] }, true)
        } catch (error) {
          thrown.push((error as { code?: string }).code)
        }
      }
      exchange.respond({ status: 500, headers: [] }, true)
    }
    send(get)
    expect(thrown).toEqual(Array.from({ length: 6 }, () => 'HTTP_BAD_FIELD'))
    expect(connection.text).toBe('HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n')
  })

  it('stops reading while the exchange is paused, and never pauses the next one', async () => {
    const { connection, send, events } = open()
    events.answer = (exchange) => {
      exchange.pause()
      expect(connection.paused).toBe(true)
      exchange.respond({ status: 200, headers: [] }, true)
    }
    send(get)
    await tick()
    expect(connection.paused).toBe(false)
  })

  it('gives up a head that does not come', () => {
    const clock = new ManualClock()
    const { connection, send, refused } = open(clock)
    send('GET / HTTP/1.1\r\nHo')
    clock.advance(62_000)
    expect(connection.text).toContain('HTTP/1.1 408 Request Timeout')
    expect(refused).toEqual(['408 request_header_timeout'])
    clock.advance(4_000)
    expect(connection.aborted).toBe('timeout')
  })

  it('gives up a body that stops, but not one that nobody reads', async () => {
    const clock = new ManualClock()
    const { connection, send, events, refused } = open(clock)
    events.answer = () => undefined
    send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n')
    events.exchanges[0]?.pause()
    clock.advance(400_000)
    expect(connection.text).toBe('')
    events.exchanges[0]?.resume()
    for (const byte of 'slow') {
      send(byte)
      clock.advance(250_000)
    }
    expect(connection.text).toBe('')
    clock.advance(60_000)
    expect(connection.text).toContain('HTTP/1.1 408 Request Timeout')
    expect(connection.text).toContain('\r\n\r\nstream timeout')
    await tick()
    expect([events.seen[0]?.error, refused]).toEqual(['timeout', []])
    expect(connection.endedHere).toBe(true)
  })

  it('closes a connection that stays idle', async () => {
    const clock = new ManualClock()
    const { connection, send } = open(clock)
    send(get)
    await tick()
    clock.advance(3_500_000)
    expect(connection.endedHere).toBe(false)
    clock.advance(200_000)
    expect(connection.endedHere).toBe(true)
  })

  it('drains: idle connections at once, busy ones with their answer', async () => {
    const idle = open()
    idle.server.drain()
    expect(idle.connection.endedHere).toBe(true)
    const busy = open()
    busy.events.answer = () => undefined
    busy.send(get)
    busy.server.drain()
    expect(busy.connection.endedHere).toBe(false)
    busy.events.exchanges[0]?.respond({ status: 200, headers: [] }, true)
    await tick()
    expect(busy.connection.text).toContain('connection: close\r\n')
    expect(busy.connection.endedHere).toBe(true)
  })

  it('drains: an idle connection only once it was idle for long enough, for a request may be on its way', async () => {
    const clock = new ManualClock()
    const { server, connection, send } = open(clock)
    send(get)
    await tick()
    clock.advance(1_500)
    server.drain(5_000)
    clock.advance(2_000)
    expect(connection.endedHere).toBe(false)
    send(get)
    await tick()
    expect(connection.text).toContain('connection: close\r\n')
    expect(connection.endedHere).toBe(true)
    const idle = open(clock)
    idle.send(get)
    await tick()
    idle.server.drain(5_000)
    clock.advance(7_000)
    expect(idle.connection.endedHere).toBe(true)
  })

  it('tells the user that the client went away', () => {
    const { server, connection, send, events } = open()
    events.answer = () => undefined
    send(get)
    server.onClose(connection, new Error('reset'))
    expect((events.exchanges[0]?.slot as Seen | undefined)?.error).toBe('closed by the peer')
    events.exchanges[0]?.respond({ status: 200, headers: [] }, true)
    expect(connection.text).toBe('')
  })
})
