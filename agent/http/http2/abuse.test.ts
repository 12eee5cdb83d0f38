// What a peer may send that honest ones do not: frames cut anywhere, floods of each known family, bombs, silence. Spoken
// to the session directly, over a connection that lives in memory.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import type { AbortReason, Connection, OpenInfo } from '../../io/connection.ts'
import { HpackEncoder } from '../hpack/encoder.ts'
import type { ExchangeError, Headers, RequestHead, ServerEvents, ServerExchange } from '../message.ts'
import { http2Server, type Http2Feed, type Http2Options } from './index.ts'

const INFO: OpenInfo = {
  local: { address: '127.0.0.1', port: 1 },
  peer: { address: '127.0.0.1', port: 2 },
  alpn: 'h2',
  serverName: '',
  certificates: [],
  secure: false,
}

/** A connection in memory: keeps what is written, takes all of it unless told to be stuck. */
class Wire implements Connection {
  slot: unknown
  pending = 0
  writable = true
  readonly fd = -1
  readonly info = INFO
  stuck = false
  aborted: AbortReason | undefined
  ended = false
  readonly #written: Buffer[] = []
  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#written.push(Buffer.from(bytes.subarray(start, end)))
    if (this.stuck) this.pending += end - start
  }
  pause(): void {
    throw new Error('A whole connection is never paused.')
  }
  resume(): void {
    throw new Error('A whole connection is never resumed.')
  }
  end(): void {
    this.ended = true
  }
  abort(reason: AbortReason): void {
    this.aborted = reason
  }
  detach(): number {
    return -1
  }
  get frames(): { type: number; flags: number; id: number; payload: Buffer }[] {
    const all = Buffer.concat(this.#written)
    const frames = []
    for (let at = 0; at < all.length;) {
      const length = all.readUIntBE(at, 3)
      frames.push({
        type: all[at + 3]!,
        flags: all[at + 4]!,
        id: all.readUInt32BE(at + 5),
        payload: all.subarray(at + 9, at + 9 + length),
      })
      at += 9 + length
    }
    return frames
  }
  /** The code of the GOAWAY that was sent, or −1. */
  get goaway(): number {
    const frame = this.frames.find(({ type }) => type === 7)
    return frame === undefined ? -1 : frame.payload.readUInt32BE(4)
  }
  resets(): number[] {
    return this.frames.filter(({ type }) => type === 3).map(({ payload }) => payload.readUInt32BE(0))
  }
}

/** Writes down what it is told, in one line per event. */
class Log implements ServerEvents {
  readonly lines: string[] = []
  exchanges: ServerExchange[] = []
  pauses = false
  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    this.lines.push(`request ${head.method} ${head.authority}${head.path} ${head.headers.join(',')} ${end}`)
    this.exchanges.push(exchange)
    if (this.pauses) exchange.pause()
  }
  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    const text = Buffer.from(arena.subarray(start, end)).toString('latin1')
    const last = this.lines.at(-1) ?? ''
    const prefix = `data ${this.exchanges.indexOf(exchange)} `
    if (last.startsWith(prefix)) this.lines[this.lines.length - 1] = last + text
    else this.lines.push(prefix + text)
  }
  onEnd(exchange: ServerExchange, trailers: Headers): void {
    this.lines.push(`end ${this.exchanges.indexOf(exchange)} ${trailers.join(',')}`)
    exchange.respond({ status: 200, headers: [] }, true)
  }
  onDrain(): void {
    this.lines.push('drain')
  }
  onClose(exchange: ServerExchange, error: ExchangeError | undefined): void {
    this.lines.push(`close ${this.exchanges.indexOf(exchange)} ${error?.reason ?? 'clean'}`)
  }
}

function frame(type: number, flags: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const out = Buffer.alloc(9 + payload.length)
  out.writeUIntBE(payload.length, 0, 3)
  out[3] = type
  out[4] = flags
  out.writeUInt32BE(id, 5)
  out.set(payload, 9)
  return out
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const HELLO = Buffer.concat([PREFACE, frame(4, 0, 0)])
const encoder = new HpackEncoder(0)

function block(...fields: string[]): Buffer {
  const out = Buffer.alloc(70_000)
  encoder.begin(out, 0)
  for (let i = 0; i < fields.length; i += 2) encoder.field(fields[i]!, fields[i + 1]!)
  return Buffer.from(out.subarray(0, encoder.finish()))
}

// The first block carries the table size update that turns indexing off, so that the others can be sent in any session.
encoder.setLimit(0)
block()

const GET = block(':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'a')
const POST = block(':method', 'POST', ':scheme', 'http', ':path', '/p', ':authority', 'a')

function begin(options: Http2Options = {}): { wire: Wire; log: Log; feed: Http2Feed; send(...frames: Buffer[]): void } {
  const wire = new Wire()
  const log = new Log()
  const feed = http2Server(log, options).adopt(wire, INFO)
  const send = (...frames: Buffer[]): void => {
    const all = Buffer.concat(frames)
    feed.receive(all, 0, all.length)
  }
  send(HELLO)
  return { wire, log, feed, send }
}

describe('frames that arrive in pieces', () => {
  const conversation = Buffer.concat([
    HELLO,
    frame(1, 5, 1, GET),
    frame(1, 0x2c, 3, Buffer.concat([Buffer.from([3, 0, 0, 0, 0, 9]), POST, Buffer.alloc(3)])),
    frame(0, 0, 3, Buffer.from('first ')),
    frame(0x77, 0, 3, Buffer.from('unknown')),
    frame(0, 8, 3, Buffer.concat([Buffer.from([4]), Buffer.from('padded '), Buffer.alloc(4)])),
    frame(1, 0, 5, POST.subarray(0, 5)),
    frame(9, 0, 5, POST.subarray(5, 6)),
    frame(9, 4, 5, POST.subarray(6)),
    frame(0, 1, 3, Buffer.from('last')),
    frame(8, 0, 0, Buffer.from([0, 0, 1, 0])),
    frame(1, 5, 5, block('x-trailer', 'yes')),
    frame(6, 0, 0, Buffer.from('12345678')),
  ])
  const expected = (() => {
    const wire = new Wire()
    const log = new Log()
    http2Server(log).adopt(wire, INFO).receive(conversation, 0, conversation.length)
    return { lines: log.lines, frames: wire.frames.length }
  })()

  it('mean what they mean in one piece', () => {
    expect(expected.lines).toEqual([
      'request GET a/  true',
      'request POST a/p  false',
      'data 1 first padded ',
      'request POST a/p  false',
      'data 1 last',
      'end 1 ',
      'end 2 x-trailer,yes',
      'close 1 clean',
      'close 2 clean',
    ])
  })

  it('mean the same wherever they are cut', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: conversation.length - 1 }), { maxLength: 60 }), (cuts) => {
        const wire = new Wire()
        const log = new Log()
        const feed = http2Server(log).adopt(wire, INFO)
        let at = 0
        for (const cut of [...cuts.sort((a, b) => a - b), conversation.length]) {
          // Its own buffer each time, spoilt afterwards: nothing may rely on bytes of an earlier turn.
          const piece = Buffer.from(conversation.subarray(at, cut))
          feed.receive(piece, 0, piece.length)
          piece.fill(0xff)
          at = cut
        }
        expect(log.lines.filter((line) => !line.startsWith('close'))).toEqual(
          expected.lines.filter((line) => !line.startsWith('close')),
        )
        expect(wire.frames.length).toBe(expected.frames)
        expect(wire.goaway).toBe(-1)
      }),
      { numRuns: 300 },
    )
  })

  it('byte by byte too', () => {
    const log = new Log()
    const feed = http2Server(log).adopt(new Wire(), INFO)
    for (let i = 0; i < conversation.length; i++) feed.receive(conversation, i, i + 1)
    expect(log.lines.length).toBe(expected.lines.length)
  })

  it('never crash a session, whatever they are', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.integer({ min: 0, max: 11 }),
            fc.integer({ min: 0, max: 255 }),
            fc.integer({ min: 0, max: 9 }),
            fc.uint8Array({ maxLength: 40 }),
          ),
          { maxLength: 30 },
        ),
        (frames) => {
          const { wire, send } = begin()
          for (const [type, flags, id, payload] of frames) send(frame(type, flags, id, payload))
          if (wire.goaway >= 0) expect(wire.ended).toBe(true)
        },
      ),
      { numRuns: 500 },
    )
  })
})

const CALM = 11

describe('a flood', () => {
  it('of PING is told to calm down', () => {
    const { wire, send } = begin()
    for (let i = 0; i < 3_000; i++) send(frame(6, 0, 0, Buffer.alloc(8)))
    expect(wire.goaway).toBe(CALM)
    expect(wire.frames.filter(({ type }) => type === 6).length).toBeLessThan(1_100)
  })

  it('of SETTINGS is told to calm down', () => {
    const { wire, send } = begin()
    for (let i = 0; i < 300; i++) send(frame(4, 0, 0))
    expect(wire.goaway).toBe(CALM)
  })

  it('of empty DATA is told to calm down', () => {
    const { wire, send } = begin()
    send(frame(1, 4, 1, POST))
    for (let i = 0; i < 300; i++) send(frame(0, 0, 1))
    expect(wire.goaway).toBe(CALM)
  })

  it('of CONTINUATION, empty or full, is told to calm down', () => {
    for (const payload of [Buffer.alloc(0), Buffer.alloc(1000, 0x41)]) {
      const { wire, send, log } = begin()
      send(frame(1, 0, 1, GET.subarray(0, 3)))
      for (let i = 0; i < 1_000; i++) send(frame(9, 0, 1, payload))
      expect(wire.goaway).toBe(CALM)
      expect(log.lines).toEqual([])
    }
  })

  it('of PRIORITY, of WINDOW_UPDATE and of unknown frames is told to calm down', () => {
    for (const one of [frame(2, 0, 1, Buffer.alloc(5)), frame(8, 0, 0, Buffer.from([0, 0, 0, 1])), frame(99, 0, 0)]) {
      const { wire, send } = begin()
      const many = Buffer.concat(Array.from({ length: 20_000 }, () => one))
      send(many)
      expect(wire.goaway).toBe(CALM)
    }
  })

  it('of streams opened and cancelled is told to calm down', () => {
    const { wire, send, log } = begin()
    for (let id = 1; id < 10_000; id += 2) send(frame(1, 5, id, GET), frame(3, 0, id, Buffer.from([0, 0, 0, 8])))
    expect(wire.goaway).toBe(CALM)
    expect(log.lines.filter((line) => line.startsWith('request')).length).toBeLessThan(2_100)
  })

  it('of streams made to be reset by errors is told to calm down', () => {
    const { wire, send } = begin()
    for (let id = 1; id < 10_000; id += 2) send(frame(1, 4, id, POST), frame(8, 0, id, Buffer.alloc(4)))
    expect(wire.goaway).toBe(CALM)
  })

  it('of cancelled streams is regained by honest ones and by time', () => {
    const clock = new ManualClock()
    const { wire, send } = begin({ clock, resetBurst: 10 })
    let id = 1
    for (let round = 0; round < 50; round++, clock.advance(200)) {
      for (let n = 0; n < 10; n++, id += 2) send(frame(1, 5, id, GET), frame(3, 0, id, Buffer.from([0, 0, 0, 8])))
    }
    expect(wire.goaway).toBe(-1)
  })

  it('of answers a peer does not read ends its connection', () => {
    const { wire, send } = begin()
    wire.stuck = true
    wire.pending = 9 << 20
    send(frame(6, 0, 0, Buffer.alloc(8)))
    expect(wire.goaway).toBe(CALM)
  })
})

describe('a server', () => {
  it('refuses streams beyond its limit as safe to retry', () => {
    const { wire, send } = begin({ maxStreams: 2 })
    for (const id of [1, 3, 5]) send(frame(1, 4, id, POST))
    expect(wire.resets()).toEqual([7])
  })

  it('answers 431 to a list that is too large and stays in step', () => {
    const { wire, send, log } = begin({ maxHeaderList: 1000 })
    send(frame(1, 5, 1, block(':method', 'GET', ':scheme', 'http', ':path', '/', 'x-a', 'x'.repeat(2000))))
    send(frame(1, 5, 3, GET))
    expect(log.lines).toEqual(['request GET a/  true'])
    expect(wire.goaway).toBe(-1)
    expect(wire.frames.some(({ type, id }) => type === 1 && id === 1)).toBe(true)
  })

  for (const [what, fields] of [
    ['two differing hosts', [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'a', 'host', 'b']],
    ['a user in the authority', [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'u@a']],
  ] as const) {
    it(`answers 400 to ${what}`, () => {
      const { wire, send, log } = begin()
      send(frame(1, 5, 1, block(...fields)))
      expect(log.lines).toEqual([])
      const answer = wire.frames.find(({ type, id }) => type === 1 && id === 1)
      // Index 12 of the static table is ":status: 400".
      expect(answer?.payload[0]).toBe(0x8c)
    })
  }

  for (const [what, fields] of [
    ['CONNECT with a path', [':method', 'CONNECT', ':path', '/', ':authority', 'a:1']],
    ['CONNECT without an authority', [':method', 'CONNECT']],
    ['a path that does not begin with a slash', [':method', 'GET', ':scheme', 'http', ':path', 'a', ':authority', 'a']],
    [
      ':protocol where it was not offered',
      [':method', 'CONNECT', ':protocol', 'x', ':scheme', 'http', ':path', '/', ':authority', 'a'],
    ],
    ['two lengths', [':method', 'GET', ':scheme', 'http', ':path', '/', 'content-length', '1', 'content-length', '2']],
    ['a length that is no number', [':method', 'GET', ':scheme', 'http', ':path', '/', 'content-length', '+1']],
  ] as const) {
    it(`resets ${what} as malformed`, () => {
      const { wire, send, log } = begin()
      send(frame(1, 4, 1, block(...fields)))
      expect(log.lines).toEqual([])
      expect(wire.resets()).toEqual([1])
    })
  }

  it('gives no window to a stream whose reader paused, and refills the connection', () => {
    const { wire, send, log } = begin({ initialWindow: 65_536, connectionWindow: 131_072 })
    log.pauses = true
    send(frame(1, 4, 1, POST))
    for (let i = 0; i < 4; i++) send(frame(0, 0, 1, Buffer.alloc(16_384, 'x')))
    const updates = wire.frames.filter(({ type }) => type === 8)
    expect(updates.filter(({ id }) => id === 1)).toEqual([])
    expect(updates.filter(({ id }) => id === 0).length).toBeGreaterThan(1)
    expect(log.lines).toEqual(['request POST a/p  false'])
    send(frame(0, 0, 1, Buffer.from('one too many')))
    expect(wire.resets()).toEqual([3])
  })

  it('stops refilling the connection when too much is held', () => {
    const { wire, send, log } = begin({ initialWindow: 65_536, connectionWindow: 131_072, maxHeld: 100_000 })
    log.pauses = true
    for (const id of [1, 3, 5, 7]) {
      send(frame(1, 4, id, POST))
      for (let i = 0; i < 4 && wire.goaway < 0; i++) send(frame(0, 0, id, Buffer.alloc(16_384, 'x')))
    }
    expect(wire.goaway).toBe(3)
  })

  it('pings a silent peer and gives it up; any byte is a sign of life', () => {
    const clock = new ManualClock()
    const { wire, send } = begin({ clock, keepaliveMs: 10_000, keepaliveTimeoutMs: 20_000 })
    clock.advance(25_000)
    expect(wire.frames.filter(({ type }) => type === 6).length).toBe(1)
    send(frame(6, 1, 0, Buffer.alloc(8)))
    clock.advance(25_000)
    expect(wire.aborted).toBeUndefined()
    clock.advance(30_000)
    expect(wire.aborted).toBe('timeout')
  })

  it('cuts what is open when the peer ends the connection', () => {
    const { send, log, feed } = begin()
    send(frame(1, 4, 1, POST), frame(0, 0, 1, Buffer.from('half')))
    feed.ended()
    expect(log.lines.slice(1)).toEqual(['data 0 half', 'close 0 closed'])
  })
})
