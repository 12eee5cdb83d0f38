// Hostile clients over real sockets against a real waypoint: each gets what it deserves in bounded time and memory, the access
// log says what it was, and afterwards nothing of it is left. Must not live here: codecs' own rules (agent/http).
import { connect as connectHttp2, type ClientHttp2Stream } from 'node:http2'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { app, echo, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { VIP } from '../../agent/waypoint/testing.ts'
import { pause, Stage, tunnel, until, type Line, type WaypointProcess } from '../world/waypoint-process.ts'

let stage: Stage
let program: WaypointProcess
/** What the app of the moment does with a connection; `undefined`: it echoes. */
let raw: ((socket: Socket) => void) | undefined
let seen = 0
/** The app's side of connections that a waypoint may keep for the next request. */
const fronts = new Set<Socket>()
/** What a test opened, so that one that fails leaves nothing to the next. */
const opened: { destroy(): void }[] = []

async function openSession(): ReturnType<Stage['session']> {
  const session = await stage.session()
  opened.push(session)
  return session
}

afterEach(() => {
  for (const one of opened.splice(0)) one.destroy()
})

beforeAll(async () => {
  stage = await Stage.open()
  const { world } = stage
  const server = app(echo('app'))
  const echoPort = await listenOn(server, world.address(10))
  const front = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    fronts.add(socket)
    socket.on('close', () => fronts.delete(socket))
    if (raw) return raw(socket)
    const back = connectTcp(echoPort, world.address(10))
    back.on('error', () => socket.destroy())
    socket.on('close', () => back.destroy())
    socket.pipe(back).pipe(socket)
  })
  await world.endpoint(10, await listenOn(front, world.address(10)))
  world.onClose(() => {
    server.close()
    server.closeAllConnections()
    front.close()
  })
  stage.publish()
  program = await stage.start(['--head-timeout', '2', '--body-idle', '2', '--drain-seconds', '2'])
  await program.ready()
})

afterAll(async () => {
  await stage.close()
})

beforeEach(() => {
  raw = undefined
  for (const socket of fronts) socket.destroy()
  seen = program.accessLines().length
})

/** Access lines of this test, once there are `count`. */
async function logged(count: number): Promise<readonly Line[]> {
  await until(() => program.accessLines().length >= seen + count)
  return program.accessLines().slice(seen)
}

/** Nothing is left of what a test did. */
async function clean(): Promise<void> {
  for (const name of ['ambit_waypoint_requests_active', 'ambit_waypoint_connections', 'ambit_waypoint_opaque_active'])
    await until(async () => (await program.metric(name)) === 0)
}

/** Sends on a fresh tunnel and gives everything that came back until its end. */
async function exchange(send: (stream: ClientHttp2Stream) => void | Promise<void>): Promise<string> {
  const session = await openSession()
  const stream = await tunnel(session)
  let text = ''
  stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  const closed = new Promise<void>((resolve) => stream.once('close', resolve))
  await send(stream)
  await closed
  session.destroy()
  return text
}

async function tlsSocket(): Promise<TLSSocket> {
  const { key, certificate } = await stage.pair()
  return await new Promise((resolve, reject) => {
    const socket = connectTls({
      key,
      cert: certificate,
      ca: stage.roots,
      host: stage.world.address(2),
      port: 15008,
      checkServerIdentity: () => undefined,
      ALPNProtocols: ['h2'],
    })
    socket.once('secureConnect', () => {
      socket.on('error', () => {})
      opened.push(socket)
      resolve(socket)
    })
    socket.once('error', reject)
  })
}

function plainSocket(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp(15008, stage.world.address(2), () => resolve(socket))
    socket.once('error', reject)
    socket.on('error', () => {})
  })
}

const closedBy = (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.resume()
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })

describe('a client that is slow', () => {
  it('with its head gets 408 after the deadline, whatever it trickles', async () => {
    const text = await exchange(async (stream) => {
      for (const byte of 'GET / HTTP/1.1\r\nhost: api\r\nx-slow: aaaaaaaa') {
        if (stream.destroyed || stream.closed) return
        stream.write(byte)
        await pause(100)
      }
    })
    expect(text).toContain('HTTP/1.1 408 ')
    expect(text).toContain('request timeout')
    expect(await logged(1)).toMatchObject([{ response_code: 408, response_code_details: 'request_header_timeout' }])
    await clean()
  })

  it('with its body gets 408 and the flag SI', async () => {
    const text = await exchange((stream) => {
      stream.write('POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 10\r\n\r\nabc')
    })
    expect(text).toContain('HTTP/1.1 408 ')
    expect(await logged(1)).toMatchObject([
      { response_code: 408, response_flags: 'SI', response_code_details: 'stream_idle_timeout' },
    ])
    await clean()
  })

  it('with its TLS handshake is cut after ten seconds', { timeout: 30_000 }, async () => {
    const socket = await plainSocket()
    socket.write(Buffer.from([0x16, 0x03, 0x01]))
    const started = Date.now()
    await closedBy(socket)
    expect(Date.now() - started).toBeLessThan(20_000)
    await clean()
  })
})

describe('a client that sends much of little', () => {
  it('may send 100 000 chunks of one byte', async () => {
    const chunk = Buffer.from('1\r\nx\r\n'.repeat(1_000))
    const text = await exchange(async (stream) => {
      stream.write('POST / HTTP/1.1\r\nhost: api\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n')
      for (let i = 0; i < 100; i++) await new Promise<void>((resolve) => stream.write(chunk, () => resolve()))
      stream.end('0\r\n\r\n')
    })
    expect(text).toContain('HTTP/1.1 200 ')
    expect(text.match(/x{1000,}/)?.[0].length ?? text.length).toBeGreaterThanOrEqual(1_000)
    expect(await logged(1)).toMatchObject([{ response_code: 200, bytes_received: 100_000 }])
    await clean()
  })

  it('gets 431 for a head of many fields, or of one that never ends', async () => {
    const before = program.rss()
    const many = await exchange((stream) => {
      stream.write(`GET / HTTP/1.1\r\nhost: api\r\n${'a: b\r\n'.repeat(5_000)}\r\n`)
    })
    expect(many).toContain('HTTP/1.1 431 ')
    const endless = await exchange(async (stream) => {
      stream.write('GET / HTTP/1.1\r\nhost: api\r\nx: ')
      for (let i = 0; i < 200 && !stream.closed && !stream.destroyed; i++) {
        stream.write(Buffer.alloc(65_536, 'a'))
        await pause(1)
      }
    })
    expect(endless).toContain('HTTP/1.1 431 ')
    for (const line of await logged(2)) expect(line).toMatchObject({ response_code: 431, response_flags: 'DPE' })
    expect(program.rss() - before).toBeLessThan(64 << 20)
    await clean()
  })

  it('gets 431 or a reset for such a head in HTTP/2', async () => {
    const session = await openSession()
    const inner = connectHttp2('http://api', await over(session))
    inner.on('error', () => {})
    const outcome = await new Promise<string>((resolve) => {
      const headers: Record<string, string> = { ':path': '/' }
      for (let i = 0; i < 900; i++) headers[`x-${i}`] = 'y'.repeat(120)
      const request = inner.request(headers)
      request.on('response', (head) => resolve(String(head[':status'])))
      request.on('error', (error) => resolve(error.message))
      request.on('close', () => resolve('closed'))
    })
    expect(outcome).not.toBe('200')
    session.destroy()
    await clean()
  })
})

/** A node:http2 client's connection inside a tunnel of `session`. */
async function over(
  session: Awaited<ReturnType<Stage['session']>>,
): Promise<{ createConnection(): ClientHttp2Stream }> {
  const stream = await tunnel(session)
  return { createConnection: () => stream }
}

describe('bytes that are no TLS', () => {
  it.each([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    ['zeros', Buffer.alloc(4_096)],
    ['a record of the largest length', Buffer.concat([Buffer.from([0x16, 3, 1, 0xff, 0xff]), Buffer.alloc(65_535, 1)])],
    ['a hello that ends early', Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])],
    ['an alert', Buffer.from([0x15, 3, 3, 0, 2, 2, 40])],
  ])('%s: cut at once', async (_name, bytes) => {
    const socket = await plainSocket()
    const closed = closedBy(socket)
    socket.write(bytes)
    socket.end()
    await closed
    await clean()
  })

  it('an older TLS, or none of the ciphers: refused', async () => {
    const { key, certificate } = await stage.pair()
    for (const maxVersion of ['TLSv1.1', 'TLSv1.2'] as const) {
      const error = await new Promise<Error>((resolve) => {
        const socket = connectTls({
          ...{ key, cert: certificate, ca: stage.roots, host: stage.world.address(2), port: 15008 },
          ...{ minVersion: 'TLSv1' as const, maxVersion, ciphers: 'DEFAULT@SECLEVEL=0' },
          checkServerIdentity: () => undefined,
        })
        socket.once('error', resolve)
        socket.once('secureConnect', () => resolve(new Error('connected')))
      })
      expect(error.message).not.toBe('connected')
    }
    await clean()
  })

  it('a client without a certificate gets no byte through', async () => {
    const closed = await new Promise<string>((resolve) => {
      const socket = connectTls({
        host: stage.world.address(2),
        port: 15008,
        rejectUnauthorized: false,
        ALPNProtocols: ['h2'],
      })
      let text = ''
      socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
      socket.on('secureConnect', () => socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'))
      socket.on('error', () => {})
      socket.on('close', () => resolve(text))
    })
    expect(closed).toBe('')
    await clean()
  })

  it('random changes of a good connection: the process lives on', async () => {
    for (let round = 0; round < 40; round++) {
      const socket = await tlsSocket()
      const closed = closedBy(socket)
      const bytes = Buffer.from(
        Array.from({ length: 300 }, (_, i) =>
          i < 24 && round % 2 ? 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'.charCodeAt(i) : (i * 7919 * (round + 1)) & 255,
        ),
      )
      socket.write(bytes)
      await pause(5)
      if (round % 3 === 0) socket.destroy()
      else socket.end()
      await closed
    }
    expect(program.child.exitCode).toBe(null)
    await clean()
  })
})

const REQUEST = 'POST /x HTTP/1.1\r\nhost: api\r\ncontent-length: 5\r\n\r\nhello'
const HEAD = REQUEST.indexOf('hello')

describe('an exchange that ends early, at every byte', () => {
  it('of an HTTP/1.1 request, by FIN: never forwarded as whole, DC from the head on', async () => {
    const session = await openSession()
    for (let cut = 1; cut < REQUEST.length; cut++) {
      const stream = await tunnel(session)
      stream.resume()
      stream.end(REQUEST.slice(0, cut))
      await new Promise<void>((resolve) => stream.once('close', resolve))
    }
    const lines = await logged(REQUEST.length - HEAD)
    for (const line of lines) expect(line).toMatchObject({ response_code: 0, response_flags: 'DC' })
    session.destroy()
    await clean()
  })

  it('of an HTTP/1.1 request, by reset', async () => {
    const session = await openSession()
    for (let cut = 1; cut < REQUEST.length; cut++) {
      const stream = await tunnel(session)
      stream.resume()
      await new Promise<void>((resolve) => stream.write(REQUEST.slice(0, cut), () => resolve()))
      stream.close(8)
    }
    session.destroy()
    await clean()
    const lines = program.accessLines().slice(seen)
    for (const line of lines) expect(line).toMatchObject({ response_flags: 'DC' })
  })

  it('of an HTTP/2 request inside', async () => {
    const authority = Buffer.concat([Buffer.from([0x01, 3]), Buffer.from('api')])
    const block = Buffer.concat([Buffer.from([0x83, 0x86, 0x84]), authority])
    const frame = (type: number, flags: number, id: number, body: Buffer): Buffer => {
      const head = Buffer.alloc(9)
      head.writeUIntBE(body.length, 0, 3)
      head.set([type, flags], 3)
      head.writeUInt32BE(id, 5)
      return Buffer.concat([head, body])
    }
    const bytes = Buffer.concat([
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      frame(4, 0, 0, Buffer.alloc(0)),
      frame(1, 4, 1, block),
      frame(0, 1, 1, Buffer.from('hello')),
    ])
    const session = await openSession()
    for (let cut = 1; cut < bytes.length; cut++) {
      const stream = await tunnel(session)
      stream.resume()
      stream.end(bytes.subarray(0, cut))
      await new Promise<void>((resolve) => stream.once('close', resolve))
    }
    // A preface that stops is no request; on a port that is declared HTTP it is answered 400.
    await logged(10)
    for (const line of program.accessLines().slice(seen))
      expect(line['response_flags']).toBe(line['method'] === null ? 'DPE' : 'DC')
    session.destroy()
    await clean()
  })

  it('of a response: never seen as whole', async () => {
    const answer = 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello'
    const head = answer.indexOf('hello')
    for (const how of ['end', 'reset'] as const) {
      const session = await openSession()
      for (let cut = 1; cut < answer.length; cut++) {
        raw = (socket) =>
          socket.once('data', () => {
            socket.write(answer.slice(0, cut), () => (how === 'end' ? socket.end() : socket.resetAndDestroy()))
          })
        const stream = await tunnel(session)
        let text = ''
        stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
        stream.on('end', () => stream.end())
        stream.write('GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n')
        await new Promise<void>((resolve) => stream.once('close', resolve))
        expect(text).not.toContain('hello')
        if (cut < head) expect(text).toMatch(/^HTTP\/1.1 50[23] /)
      }
      session.destroy()
    }
    const lines = await logged(2 * (answer.length - 1))
    for (const line of lines) expect(line['response_flags']).toMatch(/^U/)
    await clean()
  })

  it('of the tunnel itself: its preface, its CONNECT, what is in it', async () => {
    const bytes = await recorded()
    for (let cut = 1; cut < bytes.length; cut += 3) {
      const socket = await tlsSocket()
      const closed = closedBy(socket)
      socket.write(bytes.subarray(0, cut))
      if (cut % 2) socket.end()
      else socket.destroy()
      await closed
    }
    await clean()
  })
})

/** What a node:http2 client sends to open a tunnel and one request in it. */
async function recorded(): Promise<Buffer> {
  const chunks: Buffer[] = []
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer | string) => chunks.push(Buffer.from(chunk as Buffer)))
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  session.on('error', () => {})
  const stream = session.request({ ':method': 'CONNECT', ':authority': `${VIP}:80` }, { endStream: false })
  stream.on('error', () => {})
  stream.write(REQUEST)
  await until(() => Buffer.concat(chunks).includes(REQUEST))
  session.destroy()
  server.close()
  return Buffer.concat(chunks)
}

describe('a peer that is gone without a word', () => {
  it('is noticed by PING and its tunnels are cut', { timeout: 60_000 }, async () => {
    const socket = await tlsSocket()
    const closed = closedBy(socket)
    // It never answers a PING, though its kernel does acknowledge.
    socket.write(await recorded())
    const started = Date.now()
    await closed
    expect(Date.now() - started).toBeLessThan(45_000)
    await clean()
  })
})
