// WebSocket through the waypoint in all four pairs of HTTP/1.1 (RFC 6455) and extended CONNECT (RFC 8441): real frames, of
// Node's own WebSocket where the client speaks HTTP/1.1, by hand elsewhere; closes stay closes, and cuts stay cuts.
import { createHash, randomBytes } from 'node:crypto'
import { createServer as createHttp1, type IncomingMessage } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2, type ServerHttp2Stream } from 'node:http2'
import type { Server as NetServer } from 'node:net'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listenOn } from './testing-apps.ts'
import { PAIRS, type Version } from './testing-http2.ts'
import { World } from './testing.ts'

const TEXT = 1
const BINARY = 2
const CLOSE = 8
const PING = 9
const PONG = 10

let world: World

beforeEach(async () => {
  world = await World.open()
})
afterEach(() => world.close())

/** One frame that is a whole message; a client's are masked. */
function encode(opcode: number, payload: Buffer, masked: boolean): Buffer {
  const long = payload.length > 125
  const head = Buffer.alloc(long ? 10 : 2)
  head[0] = 0x80 | opcode
  head[1] = (masked ? 0x80 : 0) | (long ? 127 : payload.length)
  if (long) head.writeUInt32BE(payload.length, 6)
  if (!masked) return Buffer.concat([head, payload])
  const mask = randomBytes(4)
  const body = Buffer.from(payload.map((byte, i) => byte ^ (mask[i & 3] as number)))
  return Buffer.concat([head, mask, body])
}

/** Cuts a stream into frames. */
function decode(
  stream: Duplex,
  onFrame: (opcode: number, payload: Buffer) => void,
  first: Buffer = Buffer.alloc(0),
): void {
  let held = first
  const step = (): void => {
    for (;;) {
      if (held.length < 2) return
      const masked = ((held[1] as number) & 0x80) !== 0
      let length = (held[1] as number) & 0x7f
      let at = 2
      if (length === 126) {
        if (held.length < 4) return
        length = held.readUInt16BE(2)
        at = 4
      } else if (length === 127) {
        if (held.length < 10) return
        length = held.readUInt32BE(6)
        at = 10
      }
      const from = at + (masked ? 4 : 0)
      if (held.length < from + length) return
      const mask = held.subarray(at, from)
      const payload = Buffer.from(held.subarray(from, from + length))
      if (masked) for (let i = 0; i < length; i++) payload[i] = (payload[i] as number) ^ (mask[i & 3] as number)
      const opcode = (held[0] as number) & 15
      held = held.subarray(from + length)
      onFrame(opcode, payload)
    }
  }
  stream.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk])
    step()
  })
  step()
}

/** Echoes messages, answers PING and CLOSE; the text `cut` cuts the connection, `close` ends it from here. */
function echo(stream: Duplex, cut: () => void, first?: Buffer): void {
  stream.on('error', () => undefined)
  stream.write(encode(TEXT, Buffer.from('welcome'), false))
  decode(
    stream,
    (opcode, payload) => {
      const text = payload.toString('latin1')
      if (opcode === TEXT && text === 'cut') cut()
      else if (opcode === TEXT && text === 'close') {
        stream.end(encode(CLOSE, Buffer.concat([Buffer.from([0x0f, 0xa1]), Buffer.from('enough')]), false))
      } else if (opcode === PING) stream.write(encode(PONG, payload, false))
      else if (opcode === CLOSE) stream.end(encode(CLOSE, payload, false))
      else stream.write(encode(opcode, payload, false))
    },
    first,
  )
}

interface Asked {
  protocols: string
  path: string
}

async function serve(version: Version): Promise<Asked> {
  const asked: Asked = { protocols: '', path: '' }
  let server: NetServer
  if (version === 1) {
    const made = createHttp1()
    made.on('upgrade', (request: IncomingMessage, socket: Duplex & { resetAndDestroy(): void }, head: Buffer) => {
      asked.protocols = String(request.headers['sec-websocket-protocol'] ?? '')
      asked.path = request.url ?? ''
      const key = `${request.headers['sec-websocket-key'] ?? ''}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`
      const accept = createHash('sha1').update(key).digest('base64')
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n`,
      )
      echo(socket, () => socket.resetAndDestroy(), head)
    })
    server = made
  } else {
    const made = createHttp2({ settings: { enableConnectProtocol: true } })
    made.on('stream', (stream: ServerHttp2Stream, headers) => {
      asked.protocols = String(headers['sec-websocket-protocol'] ?? '')
      asked.path = `${String(headers[':path'])}`
      if (headers[':protocol'] !== 'websocket') return stream.respond({ ':status': 400 }, { endStream: true })
      stream.respond({ ':status': 200, 'sec-websocket-protocol': 'chat' })
      echo(stream, () => stream.destroy(new Error('cut by the app')))
    })
    server = made as unknown as NetServer
  }
  world.setService(version === 1 ? 'http' : 'http2')
  await world.endpoint(10, await listenOn(server, world.address(10)))
  world.onClose(() => void server.close())
  return asked
}

interface Client {
  readonly messages: string[]
  protocol: string
  /** Code of the close, 1006 for a cut; 0 while open. */
  closed: number
  /** Longest message seen. */
  longest: number
  text(message: string): void
  binary(message: Buffer): void
  close(code: number): void
}

async function openClient(version: Version): Promise<Client> {
  const port = await world.dial()
  const made: Client = {
    messages: [],
    protocol: '',
    closed: 0,
    longest: 0,
    text: () => undefined,
    binary: () => undefined,
    close: () => undefined,
  }
  const took = (message: Buffer): void => {
    made.longest = Math.max(made.longest, message.length)
    made.messages.push(message.toString('latin1').slice(0, 40))
  }
  if (version === 1) {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws?room=1`, ['chat'])
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => (made.protocol = socket.protocol)
    socket.onmessage = ({ data }) =>
      took(typeof data === 'string' ? Buffer.from(data) : Buffer.from(data as ArrayBuffer))
    socket.onclose = ({ code }) => (made.closed = code)
    socket.onerror = () => undefined
    return Object.assign(made, {
      text: (message: string) => socket.send(message),
      binary: (message: Buffer) => socket.send(message as Uint8Array<ArrayBuffer>),
      close: (code: number) => socket.close(code, 'done'),
    })
  }
  const session = connectHttp2(`http://127.0.0.1:${port}`)
  session.on('error', () => undefined)
  world.onClose(() => session.destroy())
  // Extended CONNECT only once it was offered (RFC 8441 §3).
  await new Promise((resolve) => session.once('remoteSettings', resolve))
  const stream = session.request(
    {
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':scheme': 'http',
      ':path': '/ws?room=1',
      ':authority': 'api',
      'sec-websocket-version': '13',
      'sec-websocket-protocol': 'chat',
    },
    { endStream: false },
  )
  stream.on('error', () => undefined)
  stream.on('response', (headers) => (made.protocol = String(headers['sec-websocket-protocol'])))
  let code = 0
  decode(stream, (opcode, payload) => {
    if (opcode === CLOSE) {
      code = payload.readUInt16BE(0)
      stream.end()
    } else took(opcode === PONG ? Buffer.concat([Buffer.from('pong '), payload]) : payload)
  })
  stream.on('close', () => (made.closed = stream.rstCode === 0 && code > 0 ? code : 1006))
  return Object.assign(made, {
    text: (message: string) => void stream.write(encode(TEXT, Buffer.from(message), true)),
    binary: (message: Buffer) => void stream.write(encode(BINARY, message, true)),
    close: (with_: number) => {
      const payload = Buffer.alloc(2)
      payload.writeUInt16BE(with_)
      stream.write(encode(CLOSE, payload, true))
    },
  })
}

describe.each(PAIRS)('a WebSocket from HTTP/%i to HTTP/%i', (from, to) => {
  it('is agreed on, and carries messages of any size both ways until the client closes it', async () => {
    const asked = await serve(to)
    const client = await openClient(from)
    await world.until(() => client.messages.length === 1)
    expect([client.messages[0], client.protocol, asked.protocols, asked.path]).toEqual([
      'welcome',
      'chat',
      'chat',
      '/ws?room=1',
    ])
    for (const text of ['one', 'two', 'ü']) {
      client.text(text)
      await world.until(() => client.messages.length > 1)
      expect(client.messages.pop()).toBe(Buffer.from(text).toString('latin1'))
    }
    client.binary(randomBytes(1_000_000))
    await world.until(() => client.longest === 1_000_000)
    client.close(4_001)
    await world.until(() => client.closed !== 0)
    expect(client.closed).toBe(4_001)
    await world.until(() => world.waypoint.pipeline.active === 0)
    for (const cluster of world.waypoint.clusters.all()) await world.until(() => cluster.active === 0)
  })

  it('that the app closes is closed with its code', async () => {
    await serve(to)
    const client = await openClient(from)
    await world.until(() => client.messages.length === 1)
    client.text('close')
    await world.until(() => client.closed !== 0)
    expect(client.closed).toBe(4_001)
    await world.until(() => world.waypoint.pipeline.active === 0)
  })

  it('that the app cuts is cut, not closed', async () => {
    await serve(to)
    const client = await openClient(from)
    await world.until(() => client.messages.length === 1)
    client.text('cut')
    await world.until(() => client.closed !== 0)
    expect(client.closed).toBe(1_006)
    await world.until(() => world.waypoint.pipeline.active === 0)
  })
})
