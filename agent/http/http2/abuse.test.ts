// What a peer may send that honest ones do not: frames cut anywhere, wrong messages, silence, too much at once. Spoken to the
// session directly, over a connection that lives in memory. The floods that have names are in cve.test.ts.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { http2Server } from './index.ts'
import { begin, block, frame, GET, HELLO, INFO, Log, POST, Wire } from './testing.ts'

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
    ['no authority at all', [':method', 'GET', ':scheme', 'http', ':path', '/']],
    ['what no host may have', [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'a}b']],
    ['bytes above ASCII', [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'a\u00e9b']],
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
    [
      'two equal lengths',
      [':method', 'GET', ':scheme', 'http', ':path', '/', 'content-length', '1', 'content-length', '1'],
    ],
    ['a blank in the path', [':method', 'GET', ':scheme', 'http', ':path', '/a b', ':authority', 'a']],
    ['a method that is no token', [':method', 'GE T', ':scheme', 'http', ':path', '/', ':authority', 'a']],
    ['a scheme that is none', [':method', 'GET', ':scheme', 'ht tp', ':path', '/', ':authority', 'a']],
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

  it('cuts off a fragment before anyone sees it', () => {
    const { send, log } = begin()
    send(frame(1, 5, 1, block(':method', 'GET', ':scheme', 'http', ':path', '/a?b#/admin', ':authority', 'a')))
    expect(log.lines).toEqual(['request GET a/a?b  true'])
  })

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

  it('waits for the preface and for the rest of a head for a bounded time', () => {
    for (const beginning of [Buffer.from('PRI * HTTP'), Buffer.concat([HELLO, frame(1, 1, 1, GET.subarray(0, 3))])]) {
      const clock = new ManualClock()
      const wire = new Wire()
      const feed = http2Server(new Log(), { clock, headTimeoutMs: 5_000 }).adopt(wire, INFO)
      feed.receive(beginning, 0, beginning.length)
      clock.advance(4_900)
      expect(wire.goaway).toBe(-1)
      // Another crumb does not begin the time anew.
      const crumb = beginning.length < 24 ? Buffer.from('/') : frame(9, 0, 1, GET.subarray(3, 4))
      feed.receive(crumb, 0, crumb.length)
      clock.advance(200)
      expect(wire.goaway).toBe(11)
      expect(wire.ended).toBe(true)
    }
  })

  it('lets an idle connection be, once its head is whole', () => {
    const clock = new ManualClock()
    const { wire, send } = begin({ clock, headTimeoutMs: 5_000 })
    send(frame(1, 1, 1, GET.subarray(0, 3)), frame(9, 4, 1, GET.subarray(3)))
    clock.advance(1_000_000)
    expect(wire.goaway).toBe(-1)
  })

  it('takes larger frames from a connection that carried much, not before', () => {
    const settingsOf = (wire: Wire) => wire.frames.filter(({ type, flags }) => type === 4 && flags === 0)
    const options = { maxFrameSize: 65_536, connectionWindow: 131_072 }
    const early = begin(options)
    early.send(frame(1, 4, 1, POST), frame(0, 0, 1, Buffer.alloc(16_385)))
    expect(early.wire.goaway).toBe(6)
    const { wire, send, log } = begin(options)
    send(frame(1, 4, 1, POST))
    for (let i = 0; i < 3; i++) send(frame(0, 0, 1, Buffer.alloc(16_384)))
    expect(settingsOf(wire)).toHaveLength(2)
    expect([...(settingsOf(wire)[1]?.payload ?? [])]).toEqual([0, 5, 0, 1, 0, 0])
    send(frame(0, 1, 1, Buffer.alloc(65_536, 'y')))
    expect(wire.goaway).toBe(-1)
    expect(log.lines.at(-1)).toBe('close 0 clean')
  })
})
