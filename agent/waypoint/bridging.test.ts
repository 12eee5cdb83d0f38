// HTTP/1.1 and HTTP/2 on either side of the waypoint, all four pairs: bodies, trailers, cookies, informational and early
// answers, and above all cuts, which must stay cuts whichever version they go out in.
import { createHash, randomBytes } from 'node:crypto'
import { createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listenOn } from './testing-apps.ts'
import { client, cutByApp, PAIRS, serveApp, streamOf, type AppRequest } from './testing-http2.ts'
import { World } from './testing.ts'

let world: World

beforeEach(async () => {
  world = await World.open()
})
afterEach(() => world.close())

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** Reads a request to its end. */
function whole(request: AppRequest, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => done(Buffer.concat(chunks)))
}

describe.each(PAIRS)('HTTP/%i to HTTP/%i', (from, to) => {
  it('carries bodies whole both ways, with and without a length', async () => {
    await serveApp(world, to, (request, response) =>
      whole(request, (body) => {
        response.setHeader('x-length', request.headers['content-length'] ?? 'none')
        if (request.url === '/length') response.setHeader('content-length', body.length)
        response.end(body)
      }),
    )
    const ask = await client(world, from)
    const body = randomBytes(3_000_000)
    const known = await ask({ method: 'POST', path: '/length', headers: { 'content-length': '3000000' }, body }).told
    expect([known.status, known.complete, digest(known.body)]).toEqual([200, true, digest(body)])
    expect([known.headers['x-length'], known.headers['content-length']]).toEqual(['3000000', '3000000'])
    const streamed = await ask({
      method: 'POST',
      write: (to) => {
        to.write(body.subarray(0, 1_000_000))
        setTimeout(() => to.end(body.subarray(1_000_000)), 20)
      },
    }).told
    expect([streamed.status, streamed.complete, digest(streamed.body)]).toEqual([200, true, digest(body)])
    expect(streamed.headers['x-length']).toBe('none')
  })

  it('carries trailers both ways', async () => {
    let received: unknown
    await serveApp(world, to, (request, response) =>
      whole(request, () => {
        received = request.trailers
        response.setHeader('trailer', 'x-sum')
        response.write('body')
        response.addTrailers({ 'x-sum': '7' })
        response.end()
      }),
    )
    const ask = await client(world, from)
    const headers = { te: 'trailers', ...(from === 1 ? { 'transfer-encoding': 'chunked' } : {}) }
    const told = await ask({ method: 'POST', headers, trailers: { 'x-mine': '1' }, body: 'hello' }).told
    expect([told.status, told.complete, told.body.toString()]).toEqual([200, true, 'body'])
    expect(told.trailers).toMatchObject({ 'x-sum': '7' })
    expect(received).toMatchObject({ 'x-mine': '1' })
  })

  it('joins the crumbs of a cookie, keeps each Set-Cookie, and passes nothing that belongs to one hop', async () => {
    let seen: AppRequest['headers'] = {}
    await serveApp(world, to, (request, response) => {
      seen = request.headers
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      if (to === 1) response.setHeader('keep-alive', 'timeout=5')
      response.end()
    })
    const ask = await client(world, from)
    const cookie = from === 2 ? ['one=1', 'two=2', 'three=3'] : 'one=1; two=2; three=3'
    const hop = from === 1 ? { connection: 'x-secret, keep-alive', 'x-secret': 'hop', 'proxy-connection': 'x' } : {}
    const told = await ask({ headers: { cookie, ...hop } }).told
    expect([told.status, told.headers['set-cookie']]).toEqual([200, ['a=1', 'b=2']])
    expect(seen['cookie']).toBe('one=1; two=2; three=3')
    expect([seen['x-secret'], seen['proxy-connection']]).toEqual([undefined, undefined])
    expect(seen.host ?? seen[':authority']).toBe('api')
    if (from === 2) expect(told.headers['keep-alive']).toBeUndefined()
  })

  it('passes answers without a body as what they are', async () => {
    await serveApp(world, to, (request, response) => {
      const status = Number(request.url?.slice(1))
      response.writeHead(status, status === 204 ? {} : { 'content-length': '5' })
      response.end(request.method === 'HEAD' || status !== 200 ? undefined : 'hello')
    })
    const ask = await client(world, from)
    for (const [method, path] of [
      ['HEAD', '/200'],
      ['GET', '/204'],
      ['GET', '/304'],
    ] as const) {
      const told = await ask({ method, path }).told
      expect([told.status, told.complete, told.body.length]).toEqual([Number(path.slice(1)), true, 0])
      if (path !== '/204') expect(told.headers['content-length']).toBe('5')
    }
  })

  it('passes early hints on before the answer', async () => {
    await serveApp(world, to, (_request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' })
      setTimeout(() => response.end('late'), 30)
    })
    const told = await (await client(world, from))({}).told
    expect(told.informational).toEqual([103])
    expect([told.status, told.body.toString()]).toEqual([200, 'late'])
  })

  it('streams: each side sees a piece before the next is sent', async () => {
    await serveApp(world, to, (request, response) => {
      response.writeHead(200)
      // A head without a body may wait in Node for the first piece.
      response.write('ready')
      request.on('data', (chunk: Buffer) => response.write(chunk))
      request.on('end', () => response.end())
    })
    const ask = await client(world, from)
    let text = ''
    let body: NodeJS.WritableStream | undefined
    const asking = ask({
      method: 'POST',
      write: (given) => (body = given),
      onData: (chunk) => (text += chunk.toString()),
    })
    await world.until(() => text === 'ready')
    for (const piece of ['one', 'two', 'three']) {
      const before = text
      body?.write(piece)
      await world.until(() => text === before + piece)
    }
    body?.end()
    expect((await asking.told).complete).toBe(true)
  })

  it('lets an early answer through while the client still sends', async () => {
    await serveApp(world, to, (_request, response) => {
      if (to === 1) response.setHeader('connection', 'close')
      response.writeHead(413, { 'content-length': '8' })
      response.end('too much')
    })
    const ask = await client(world, from)
    let status = 0
    let body = ''
    const asking = ask({
      method: 'POST',
      write: (to) => void to.write('beginning'),
      onHead: (given) => (status = given),
      onData: (chunk) => (body += chunk.toString()),
    })
    await world.until(() => body === 'too much')
    expect(status).toBe(413)
    asking.cancel()
    await world.until(() => world.waypoint.pipeline.active === 0)
  })

  it.each([
    ['without a length', {}],
    ['with a length', { 'content-length': '1000' }],
  ])('never takes an answer that the app cut for a whole one (%s)', async (_what, headers) => {
    await serveApp(world, to, (_request, response) => {
      response.writeHead(200, headers)
      response.write('part')
      setTimeout(() => cutByApp(response), 30)
    })
    const told = await (await client(world, from))({}).told
    expect([told.status, told.body.toString(), told.complete]).toEqual([200, 'part', false])
    // INTERNAL_ERROR: the answer broke, whatever the app's own code was.
    if (from === 2) expect(told.code).toBe(2)
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({ response_code: 200, response_flags: to === 1 ? 'UC' : 'UR' })
  })

  it('answers 503 for an app that cuts before it answers', async () => {
    await serveApp(world, to, (_request, response) => cutByApp(response))
    const told = await (await client(world, from))({ method: 'POST', body: 'x' }).told
    expect([told.status, told.complete]).toEqual([503, true])
    expect(told.body.toString()).toMatch(
      to === 1 ? /reset reason: connection termination$/ : /reset reason: remote reset$/,
    )
  })

  it('tells the app of a client that gives up while it waits, and while it sends', async () => {
    const gone: string[] = []
    await serveApp(world, to, (request, response) => {
      const told = (code: number): void => void gone.push(`${request.url} ${to === 2 ? code : 'closed'}`)
      const stream = streamOf(response)
      if (stream) stream.on('close', () => told(stream.rstCode))
      else response.on('close', () => told(0))
      // Node ends a stream that was reset as well.
      if (!stream) request.on('end', () => gone.push('a whole request'))
      request.resume()
    })
    const ask = await client(world, from)
    const sending = ask({
      method: 'POST',
      path: '/sending',
      headers: { 'content-length': '100' },
      write: (to) => void to.write('half'),
    })
    await world.until(() => ([...world.waypoint.clusters.all()][0]?.active ?? 0) > 0)
    await new Promise((resolve) => setTimeout(resolve, 30))
    sending.cancel()
    await world.until(() => gone.length === 1)
    expect(gone).toEqual([to === 2 ? '/sending 8' : '/sending closed'])
    await world.until(() => world.waypoint.pipeline.active === 0)
    const [cluster] = [...world.waypoint.clusters.all()]
    await world.until(() => cluster?.active === 0)
  })

  it('stops an app whose client does not read, and a client whose app does not', async () => {
    let written = 0
    const chunk = Buffer.alloc(65_536)
    await serveApp(world, to, (request, response) => {
      if (request.method === 'POST') {
        request.pause()
        return
      }
      response.writeHead(200)
      const pump = (): void => {
        while (written < 200 << 20) {
          written += chunk.length
          if (response.write(chunk)) continue
          response.once('drain', pump)
          return
        }
      }
      pump()
    })
    const still = async (count: () => number): Promise<number> => {
      for (let before = -1; before !== count() || before === 0;) {
        before = count()
        await new Promise((resolve) => setTimeout(resolve, 250))
      }
      return count()
    }
    const ask = await client(world, from)
    // A client that never takes what it is given: paused from within its first piece.
    let sent = 0
    const asking = ask({
      method: 'POST',
      write: (to) => {
        const pump = (): void => {
          while (sent < 200 << 20) {
            sent += chunk.length
            if (to.write(chunk)) continue
            to.once('drain', pump)
            return
          }
        }
        pump()
      },
    })
    expect(await still(() => sent)).toBeLessThan(64 << 20)
    asking.cancel()
    const socket = await rawReader(from)
    expect(await still(() => written)).toBeLessThan(64 << 20)
    socket.destroy()
  }, 30_000)
})

/** A client that asks for everything and reads nothing. */
async function rawReader(version: 1 | 2): Promise<Socket> {
  const { connect } = await import('node:net')
  const socket = connect({ host: '127.0.0.1', port: await world.dial() })
  socket.on('error', () => undefined)
  socket.pause()
  if (version === 1) socket.write('GET / HTTP/1.1\r\nHost: api\r\n\r\n')
  else {
    const frames = [
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      // SETTINGS: the largest window for every stream; WINDOW_UPDATE: for the connection.
      '\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff',
      '\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0',
      // GET / of `api`.
      '\0\0\x08\x01\x05\0\0\0\x01\x82\x86\x84\x01\x03api',
    ]
    socket.write(Buffer.from(frames.join(''), 'latin1'))
  }
  return socket
}

describe('an HTTP/2 app that ends an answer in a wrong way', () => {
  /** Frames by hand: what Node's server cannot send. HEADERS of 200, DATA, then what `last` makes for the stream. */
  async function broken(last: (id: number) => Buffer, end = false): Promise<void> {
    world.setService('http2')
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))
      let held = Buffer.alloc(0)
      // Behind the client's preface.
      let at = 24
      socket.on('data', (bytes: Buffer) => {
        held = Buffer.concat([held, bytes])
        for (
          ;
          held.length >= at + 9 && held.length >= at + 9 + held.readUIntBE(at, 3);
          at += 9 + held.readUIntBE(at, 3)
        ) {
          if (held[at + 3] !== 1) continue
          const id = held.readUInt32BE(at + 5)
          const head = Buffer.from([0, 0, 1, 1, 4, 0, 0, 0, id, 0x88])
          socket.write(Buffer.concat([head, Buffer.from([0, 0, 4, 0, 0, 0, 0, 0, id]), Buffer.from('part')]))
          setTimeout(() => {
            if (end) socket.end(last(id))
            else socket.write(last(id))
          }, 30)
        }
      })
    })
    await world.endpoint(10, await listenOn(server, world.address(10)))
    world.onClose(() => void server.close())
  }
  const reset = (code: number) => (id: number) => Buffer.from([0, 0, 4, 3, 0, 0, 0, 0, id, 0, 0, 0, code])

  it.each([
    ['RST_STREAM(NO_ERROR)', reset(0), false],
    ['RST_STREAM(CANCEL)', reset(8), false],
    ['RST_STREAM(REFUSED_STREAM)', reset(7), false],
    ['the end of its connection', () => Buffer.alloc(0), true],
    [
      'GOAWAY and the end of its connection',
      (id: number) => Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, id, 0, 0, 0, 0]),
      true,
    ],
    ['half of a frame and the end of its connection', (id: number) => Buffer.from([0, 0, 9, 0, 1, 0, 0, 0, id]), true],
  ])('by %s is cut for the client too, in both versions', async (_what, last, end) => {
    await broken(last, end)
    for (const version of [1, 2] as const) {
      const told = await (await client(world, version))({}).told
      expect([told.status, told.body.toString(), told.complete]).toEqual([200, 'part', false])
      if (version === 2) expect(told.code).toBe(2)
    }
  })
})

describe('an HTTP/2 client that breaks its own request', () => {
  it('has it reset, the app never sees it whole, and the log says whose fault it was', async () => {
    const seen: string[] = []
    await serveApp(world, 1, (request) => {
      seen.push('begun')
      request.on('close', () => seen.push(request.complete ? 'whole' : 'cut'))
      request.resume()
    })
    const ask = await client(world, 2)
    let body: NodeJS.WritableStream | undefined
    const asking = ask({
      method: 'POST',
      headers: { 'content-length': '10' },
      write: (given) => {
        body = given
        given.write('less')
      },
    })
    await world.until(() => seen.length === 1)
    body?.end()
    const told = await asking.told
    expect([told.complete, told.code]).toEqual([false, 1])
    await world.until(() => seen.length === 2)
    expect(seen).toEqual(['begun', 'cut'])
    await world.until(() => world.waypoint.pipeline.active === 0)
    expect((await world.log())[0]).toMatchObject({
      response_flags: 'DPE',
      response_code_details: 'http2.violation.of.messaging.rule',
    })
  })
})

describe('an HTTP/2 app that refuses a stream', () => {
  it('has it tried again, since nothing was processed, also when it was a POST', async () => {
    let requests = 0
    await serveApp(world, 2, (request, response) => {
      requests++
      if (requests === 1) streamOf(response)?.close(7)
      else whole(request, (body) => void response.end(`took ${body.toString()}`))
    })
    const told = await (await client(world, 1))({ method: 'POST', body: 'once' }).told
    expect([told.status, told.body.toString(), requests]).toEqual([200, 'took once', 2])
  })
})
