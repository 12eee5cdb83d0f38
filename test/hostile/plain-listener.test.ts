// Hostile clients of a Gateway's plaintext HTTP listener, over plain sockets against a real waypoint: each is answered or cut in
// bounded time, the access log says what it was, and nothing of it is left. Must not live here: what comes through HBONE
// (hostile.test.ts), codecs' own rules (agent/http).
import type { Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { app, echo, listenOn } from '../../agent/waypoint/testing-apps.ts'
import { SERVICE } from '../../agent/waypoint/testing.ts'
import { pause, Stage, until, type Line, type WaypointProcess } from '../world/waypoint-process.ts'
import { frame, openTcp, PREFACE, untilGone, type Where } from './raw-peers.ts'

let stage: Stage
let program: WaypointProcess
let where: Where
let seen = 0
let served = 0

beforeAll(async () => {
  stage = await Stage.open()
  const { world } = stage
  const server = app((request, response) => {
    if (request.url !== '/clean') served++
    echo('app')(request, response)
  })
  await world.endpoint(10, await listenOn(server, world.address(10)))
  world.onClose(() => {
    server.close()
    server.closeAllConnections()
  })
  stage.publish()
  where = { host: world.address(2), port: 18_080, from: world.address(1) }
  program = await stage.start([
    ...['--head-timeout', '2', '--body-idle', '2', '--drain-seconds', '2'],
    ...['--http', `${where.host}:${where.port}=${SERVICE}:80`],
  ])
  await program.ready()
})

afterAll(async () => {
  await stage.close()
})

beforeEach(() => {
  seen = lines().length
  served = 0
})

/** Access lines but for those of `clean`. */
const lines = (): readonly Line[] => program.accessLines().filter((line) => line['path'] !== '/clean')

/** Access lines of this test, once there are `count`. */
async function logged(count: number): Promise<readonly Line[]> {
  await until(() => lines().length >= seen + count)
  return lines().slice(seen)
}

/** Nothing is left of what a test did, and honest clients are served. */
async function clean(): Promise<void> {
  for (const name of ['ambit_waypoint_requests_active', 'ambit_waypoint_connections', 'ambit_waypoint_opaque_active'])
    await until(async () => (await program.metric(name)) === 0)
  const all = program.accessLines().length - lines().length
  expect(await exchange('GET /clean HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /)
  // Lines come in order: with this one all lines of the test have come.
  await until(() => program.accessLines().length - lines().length > all)
}

/** Sends on a connection of its own and gives all that came back until its end. */
async function exchange(send: string | Buffer | ((socket: Socket) => void | Promise<void>)): Promise<string> {
  const socket = await openTcp(where)
  const gone = untilGone(socket)
  if (typeof send === 'function') await send(socket)
  else socket.write(send)
  return (await gone).toString('latin1')
}

const POST = 'POST / HTTP/1.1\r\nhost: api\r\n'

describe('a client that is slow', () => {
  it('and says nothing at all is let go after the deadline, without a word', async () => {
    const started = Date.now()
    expect(await exchange(() => {})).toBe('')
    expect(Date.now() - started).toBeLessThan(8_000)
    await clean()
  })

  it.each(['G', 'PRI * HTTP/2.0\r\n', 'POST', 'GET / HTTP/1.1\r\nhost'])(
    'with its head (%j) gets 408',
    async (bytes) => {
      const started = Date.now()
      expect(await exchange(bytes)).toMatch(/^HTTP\/1\.1 408 [\s\S]*request timeout$/)
      expect(Date.now() - started).toBeLessThan(8_000)
      expect(await logged(1)).toMatchObject([{ response_code: 408, response_code_details: 'request_header_timeout' }])
      await clean()
    },
  )

  it('with its head gets 408 though it trickles', async () => {
    const text = await exchange(async (socket) => {
      for (const byte of 'GET / HTTP/1.1\r\nhost: api\r\nx-slow: aaaaaaaaaaaaaaaaaaaa') {
        if (!socket.writable) return
        socket.write(byte)
        await pause(100)
      }
    })
    expect(text).toMatch(/^HTTP\/1\.1 408 /)
    await clean()
  })

  it.each([
    ['of a length', `${POST}content-length: 10\r\n\r\nabc`],
    ['in chunks', `${POST}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n`],
    ['that stops within a chunk', `${POST}transfer-encoding: chunked\r\n\r\nff\r\nabc`],
    ['that stops within its trailers', `${POST}transfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n`],
  ])('with its body %s gets 408 and the flag SI', async (_name, bytes) => {
    const started = Date.now()
    expect(await exchange(bytes)).toMatch(/^HTTP\/1\.1 408 /)
    expect(Date.now() - started).toBeLessThan(8_000)
    expect(await logged(1)).toMatchObject([
      { response_code: 408, response_flags: 'SI', response_code_details: 'stream_idle_timeout' },
    ])
    await clean()
  })
})

describe('a client that sends much of little', () => {
  it('may send 100 000 chunks of one byte', async () => {
    const chunk = Buffer.from('1\r\nx\r\n'.repeat(1_000))
    const text = await exchange(async (socket) => {
      socket.write(`${POST}connection: close\r\ntransfer-encoding: chunked\r\n\r\n`)
      for (let i = 0; i < 100; i++) await new Promise<void>((resolve) => socket.write(chunk, () => resolve()))
      socket.write('0\r\n\r\n')
    })
    expect(text).toMatch(/^HTTP\/1\.1 200 /)
    expect(await logged(1)).toMatchObject([{ response_code: 200, bytes_received: 100_000 }])
    await clean()
  })

  it('gets 431 for a head of many fields, or of one that never ends', async () => {
    const before = program.rss()
    expect(await exchange(`GET / HTTP/1.1\r\nhost: api\r\n${'a: b\r\n'.repeat(5_000)}\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
    const endless = await exchange(async (socket) => {
      socket.write('GET / HTTP/1.1\r\nhost: api\r\nx: ')
      for (let i = 0; i < 200 && socket.writable; i++) {
        socket.write(Buffer.alloc(65_536, 'a'))
        await pause(1)
      }
    })
    expect(endless).toMatch(/^HTTP\/1\.1 431 /)
    for (const line of await logged(2)) expect(line).toMatchObject({ response_code: 431, response_flags: 'DPE' })
    expect(program.rss() - before).toBeLessThan(64 << 20)
    await clean()
  })

  it('pipelines ten thousand requests without reading: held in bounded memory, cut when it leaves', async () => {
    const before = program.rss()
    const socket = await openTcp(where)
    const gone = untilGone(socket)
    socket.pause()
    const batch = Buffer.from('GET / HTTP/1.1\r\nhost: api\r\n\r\n'.repeat(100))
    for (let i = 0; i < 100; i++) socket.write(batch)
    await pause(1_500)
    expect(program.rss() - before).toBeLessThan(64 << 20)
    socket.destroy()
    await gone
    await clean()
  })
})

describe('bytes that are no request', () => {
  it.each([
    ['zeros', Buffer.alloc(4_096)],
    ['TLS', Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.2\r\n\r\n')],
    ['two lengths', Buffer.from(`${POST}content-length: 1\r\ncontent-length: 2\r\n\r\nab`)],
    ['a length and chunks', Buffer.from(`${POST}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`)],
    ['a NUL in a field', Buffer.from('GET / HTTP/1.1\r\nhost: api\r\nx: \0\r\n\r\n')],
    ['two hosts', Buffer.from('GET / HTTP/1.1\r\nhost: api\r\nhost: b\r\n\r\n')],
    ['bare LF', Buffer.from('GET / HTTP/1.1\nhost: api\n\n')],
  ])('%s: 400, logged, never forwarded', async (_name, bytes) => {
    expect(await exchange(bytes)).toMatch(/^HTTP\/1\.1 400 /)
    expect(await logged(1)).toMatchObject([{ response_code: 400, response_flags: 'DPE' }])
    expect(served).toBe(0)
    await clean()
  })

  it('random ones, a hundred times: the process lives on and is clean', async () => {
    let state = 12_345
    for (let round = 0; round < 100; round++) {
      const bytes = Buffer.alloc(64 + round * 8)
      for (let i = 0; i < bytes.length; i++) bytes[i] = (state = (state * 1_103_515_245 + 12_345) & 0x7fffffff) >> 16
      if (round % 2) bytes.write('GET /', 0)
      if (round % 5 === 0) PREFACE.copy(bytes)
      await exchange((socket) => {
        socket.write(bytes)
        if (round % 3) socket.end()
      })
    }
    expect(program.child.exitCode).toBe(null)
    expect(served).toBe(0)
    await clean()
  })
})

describe('a request that ends early, at every byte', () => {
  const request = `${POST}content-length: 5\r\n\r\nhello`
  const head = request.indexOf('hello')

  it('of HTTP/1.1, by FIN: never answered as whole, DC from the head on', async () => {
    for (let cut = 1; cut < request.length; cut++) {
      const text = await exchange((socket) => void socket.end(request.slice(0, cut)))
      expect(text).not.toMatch(/^HTTP\/1\.1 200/)
    }
    const cuts = await logged(request.length - head)
    expect(cuts).toHaveLength(request.length - head)
    for (const line of cuts) expect(line).toMatchObject({ response_code: 0, response_flags: 'DC' })
    await clean()
  })

  it('of HTTP/1.1, by reset', async () => {
    for (let cut = 1; cut < request.length; cut++) {
      await exchange((socket) => void socket.write(request.slice(0, cut), () => socket.resetAndDestroy()))
    }
    await clean()
    for (const line of lines().slice(seen)) expect(line).toMatchObject({ response_flags: 'DC' })
  })

  it('of HTTP/2', async () => {
    const block = Buffer.concat([Buffer.from([0x83, 0x86, 0x84, 0x01, 3]), Buffer.from('api')])
    const bytes = Buffer.concat([PREFACE, frame(1, 4, 1, block), frame(0, 1, 1, Buffer.from('hello'))])
    for (let cut = 1; cut < bytes.length; cut++) await exchange((socket) => void socket.end(bytes.subarray(0, cut)))
    await clean()
    // A preface that stops is no request: 400.
    for (const line of lines().slice(seen)) expect(line['response_flags']).toBe(line['method'] === null ? 'DPE' : 'DC')
  })
})

describe('many', () => {
  it('a thousand that say nothing: others are served meanwhile, all are let go by the deadline', async () => {
    const before = program.rss()
    const sockets = await Promise.all(Array.from({ length: 1_000 }, () => openTcp(where)))
    const gone = sockets.map(untilGone)
    expect(await exchange('GET /clean HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /)
    expect(program.rss() - before).toBeLessThan(64 << 20)
    await Promise.all(gone)
    await clean()
  })
})
