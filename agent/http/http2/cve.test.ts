// The attacks on HTTP/2 that have names, each for both roles where it applies: what they cost is bounded, in memory and in
// frames sent, and then the peer is told to calm down. Below them, the honest traffic that looks like some of them.
import { describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { MAX_WINDOW } from './constants.ts'
import { begin, beginClient, block, frame, GET, POST, type Wire } from './testing.ts'

const PROTOCOL = 1
const FLOW = 3
const CALM = 11
const EMPTY = Buffer.alloc(0)
const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}
const setting = (id: number, value: number): Buffer => Buffer.concat([Buffer.from([0, id]), u32(value)])
const cancel = (id: number): Buffer => frame(3, 0, id, u32(8))
const OK = Buffer.from([0x88])

/** Something that frames can be sent to, in either role. */
interface Side {
  readonly wire: Wire
  send(...frames: Buffer[]): void
}

/** Either role with one exchange under way on stream 1, whose peer can still send. */
const roles: readonly [string, () => Side][] = [
  [
    'a server',
    () => {
      const side = begin()
      side.send(frame(1, 4, 1, POST))
      return side
    },
  ],
  [
    'a client',
    () => {
      const side = beginClient()
      side.ask('a')
      side.send(frame(1, 4, 1, OK))
      return side
    },
  ],
]

/** Sends the same frames over and over, until the session has had enough or `most` were sent. Returns how many it took. */
function flood(side: Side, most: number, ...frames: Buffer[]): number {
  let sent = 0
  while (sent < most && !side.wire.ended) {
    side.send(...frames)
    sent++
  }
  return sent
}

describe('CVE-2023-44487, rapid reset', () => {
  it('is cut after a burst, with few requests begun', () => {
    const { wire, send, log } = begin()
    for (let id = 1; id < 10_000 && !wire.ended; id += 2) send(frame(1, 5, id, GET), cancel(id))
    expect(wire.goaway).toBe(CALM)
    expect(log.lines.filter((line) => line.startsWith('request')).length).toBeLessThan(2_100)
  })

  it('is cut within one read too', () => {
    const { wire, send, log } = begin()
    const all: Buffer[] = []
    for (let id = 1; id < 10_000; id += 2) all.push(frame(1, 5, id, GET), cancel(id))
    send(...all)
    expect(wire.goaway).toBe(CALM)
    expect(log.lines.filter((line) => line.startsWith('request')).length).toBeLessThan(2_100)
  })

  it('against a client: a server that resets what it never had is at fault, what it had already reset is counted', () => {
    const never = beginClient()
    never.send(cancel(1))
    expect(never.wire.goaway).toBe(PROTOCOL)
    const again = beginClient()
    again.ask('a')
    expect(flood(again, 20_000, cancel(1))).toBeLessThan(20_000)
    expect(again.wire.goaway).toBe(CALM)
  })
})

describe('CVE-2025-8671, MadeYouReset', () => {
  const provocations: readonly [string, (id: number) => Buffer[]][] = [
    ['a WINDOW_UPDATE of nothing', (id) => [frame(1, 4, id, POST), frame(8, 0, id, u32(0))]],
    ['a window that overflows', (id) => [frame(1, 4, id, POST), frame(8, 0, id, u32(MAX_WINDOW))]],
    [
      'a dependency on itself',
      (id) => [frame(1, 4, id, POST), frame(2, 0, id, Buffer.concat([u32(id), Buffer.from([0])]))],
    ],
    ['a PRIORITY of wrong length', (id) => [frame(1, 4, id, POST), frame(2, 0, id, Buffer.alloc(4))]],
    ['DATA after its end', (id) => [frame(1, 5, id, GET), frame(0, 0, id, Buffer.from('x'))]],
    ['HEADERS after its end', (id) => [frame(1, 5, id, GET), frame(1, 5, id, GET)]],
    ['trailers that go on', (id) => [frame(1, 4, id, POST), frame(1, 4, id, block('x-a', 'b'))]],
    [
      'more body than announced',
      (id) => [
        frame(
          1,
          4,
          id,
          block(':method', 'POST', ':scheme', 'http', ':path', '/', ':authority', 'a', 'content-length', '1'),
        ),
        frame(0, 0, id, Buffer.from('xx')),
      ],
    ],
    ['a malformed head', (id) => [frame(1, 5, id, block(':method', 'GET', ':scheme', 'http'))]],
  ]
  it.each(provocations)('by %s is cut after a burst', (_what, provoke) => {
    const { wire, send } = begin({ resetBurst: 50 })
    let id = 1
    for (; id < 2_000 && !wire.ended; id += 2) send(...provoke(id))
    expect(wire.goaway).toBe(CALM)
    expect(id).toBeLessThan(120)
    expect(wire.resets().length).toBeLessThan(60)
  })

  it('by streams beyond the limit is cut once the peer knows the limit', () => {
    const { wire, send } = begin({ resetBurst: 50, maxStreams: 1 })
    send(frame(1, 4, 1, POST))
    for (let id = 3; id < 300; id += 2) send(frame(1, 4, id, POST))
    expect(wire.goaway).toBe(-1)
    send(frame(4, 1, 0))
    for (let id = 301; id < 600; id += 2) send(frame(1, 4, id, POST))
    expect(wire.goaway).toBe(CALM)
  })
})

describe('CVE-2024-27983, 27919, 30255, 28182, CVE-2023-45288: CONTINUATION flood', () => {
  const opens: readonly [string, () => Side & { id: number; head: Buffer }][] = [
    ['a server', () => ({ ...begin(), id: 1, head: GET })],
    [
      'a client',
      () => {
        const side = beginClient()
        side.ask('a')
        return { ...side, id: 1, head: OK }
      },
    ],
  ]
  describe.each(opens)('against %s', (_role, open) => {
    it.each([
      ['empty', EMPTY],
      ['of one byte', Buffer.from([0])],
      ['full', Buffer.alloc(16_384, 0x41)],
    ])('%s frames are cut before they cost more than a block', (_what, payload) => {
      const side = open()
      side.send(frame(1, 1, side.id, side.head))
      const before = process.memoryUsage().arrayBuffers
      const sent = flood(side, 100_000, frame(9, 0, side.id, payload))
      expect(side.wire.goaway).toBe(CALM)
      expect(sent).toBeLessThan(300)
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16 << 20)
    })
  })
})

describe('CVE-2019-9511, data dribble', () => {
  const answer = (side: ReturnType<typeof begin>): void => {
    side.log.exchanges[0]?.respond({ status: 200, headers: [] }, false)
    side.log.exchanges[0]?.write(Buffer.alloc(200_000))
  }
  const data = (wire: Wire): number => wire.frames.filter(({ type }) => type === 0).length

  it('by windows of one byte is cut after a burst of frames', () => {
    const side = begin()
    side.send(frame(4, 0, 0, setting(4, 0)), frame(1, 5, 1, GET))
    answer(side)
    expect(flood(side, 30_000, frame(8, 0, 1, u32(1)))).toBeLessThan(11_000)
    expect(side.wire.goaway).toBe(CALM)
    expect(data(side.wire)).toBeLessThan(11_000)
  })

  it('by settings that open all windows by one byte is cut sooner', () => {
    const side = begin()
    side.send(frame(4, 0, 0, setting(4, 0)), frame(1, 5, 1, GET))
    answer(side)
    let size = 0
    while (size < 1_000 && !side.wire.ended) side.send(frame(4, 0, 0, setting(4, ++size)))
    expect(side.wire.goaway).toBe(CALM)
    expect(data(side.wire)).toBeLessThan(150)
  })

  it('is not what a reader does that gives back what it read, however small', () => {
    const side = begin()
    side.send(frame(1, 5, 1, GET))
    side.log.exchanges[0]?.respond({ status: 200, headers: [] }, false)
    for (let i = 0; i < 30_000; i++) {
      side.log.exchanges[0]?.write(Buffer.from('tick!'))
      side.send(frame(8, 0, 1, u32(5)), frame(8, 0, 0, u32(5)))
    }
    expect(side.wire.goaway).toBe(-1)
  })
})

describe.each(roles)('against %s', (_role, open) => {
  it('CVE-2019-9512, a ping flood, is answered a bounded number of times', () => {
    const side = open()
    expect(flood(side, 5_000, frame(6, 0, 0, Buffer.alloc(8)))).toBeLessThan(1_100)
    expect(side.wire.goaway).toBe(CALM)
    expect(side.wire.frames.filter(({ type }) => type === 6).length).toBeLessThan(1_100)
  })

  it('a flood of ping answers is cut', () => {
    expect(flood(open(), 50_000, frame(6, 1, 0, Buffer.alloc(8)))).toBeLessThan(11_000)
  })

  it('CVE-2019-9513, a resource loop of priorities, builds nothing and is cut', () => {
    const side = open()
    const before = process.memoryUsage().heapUsed
    let id = 1
    for (; id < 100_000 && !side.wire.ended; id += 2) {
      side.send(frame(2, 0, id, Buffer.concat([u32(id === 1 ? 3 : 1), Buffer.from([255])])))
    }
    expect(side.wire.goaway).toBe(CALM)
    expect(id).toBeLessThan(25_000)
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(48 << 20)
  })

  it('CVE-2019-9514, a reset flood, is cut', () => {
    expect(flood(open(), 50_000, cancel(1))).toBeLessThan(11_000)
  })

  it('CVE-2019-9515, a settings flood, is acknowledged a bounded number of times', () => {
    for (const payload of [EMPTY, setting(1, 0), Buffer.concat(Array.from({ length: 32 }, () => setting(3, 7)))]) {
      const side = open()
      expect(flood(side, 1_000, frame(4, 0, 0, payload))).toBeLessThan(120)
      expect(side.wire.goaway).toBe(CALM)
      expect(side.wire.frames.filter(({ type, flags }) => type === 4 && flags === 1).length).toBeLessThan(120)
    }
  })

  it('a flood of settings acknowledgements is cut', () => {
    expect(flood(open(), 50_000, frame(4, 1, 0))).toBeLessThan(11_000)
  })

  it('CVE-2019-9518, empty frames: DATA without an end, and between single bytes, are cut', () => {
    const plain = open()
    expect(flood(plain, 1_000, frame(0, 0, 1))).toBeLessThan(120)
    expect(plain.wire.goaway).toBe(CALM)
    const padded = frame(0, 8, 1, Buffer.concat([Buffer.from([255]), Buffer.alloc(255)]))
    const mixed = open()
    const empties = Array.from({ length: 90 }, () => frame(0, 0, 1))
    expect(flood(mixed, 1_000, ...empties, frame(0, 0, 1, Buffer.from('x')))).toBeLessThan(200)
    expect(mixed.wire.goaway).toBe(CALM)
    // Padding alone counts against the window, so that it cannot go on for free.
    const heavy = open()
    flood(heavy, 10_000, padded)
    expect(heavy.wire.frames.filter(({ type }) => type === 8).length).toBeLessThan(100)
  })

  it('a window flood and windows that overflow are cut', () => {
    expect(flood(open(), 100_000, frame(8, 0, 0, u32(1)))).toBeLessThan(11_000)
    expect(flood(open(), 100_000, frame(8, 0, 1, u32(1)))).toBeLessThan(11_000)
    const over = open()
    over.send(frame(8, 0, 0, u32(MAX_WINDOW)))
    expect(over.wire.goaway).toBe(FLOW)
    const stream = open()
    stream.send(frame(8, 0, 1, u32(MAX_WINDOW)))
    expect(stream.wire.resets().at(-1) ?? FLOW).toBe(FLOW)
    const initial = open()
    initial.send(frame(4, 0, 0, setting(4, MAX_WINDOW + 1)))
    expect(initial.wire.goaway).toBe(FLOW)
  })

  it('a flood of unknown frames, of GOAWAY and of frames for streams long gone is cut', () => {
    expect(flood(open(), 50_000, frame(0x77, 0, 0, Buffer.from('grease')))).toBeLessThan(11_000)
    const goaway = open()
    let sent = 0
    for (; sent < 50_000 && !goaway.wire.ended; sent++) {
      goaway.send(frame(7, 0, 0, Buffer.concat([u32(MAX_WINDOW), u32(0)])))
    }
    expect(sent).toBeLessThan(11_000)
  })
})

describe('CVE-2019-9516, headers of length zero', () => {
  it('is a malformed message and costs what the list may cost', () => {
    // A literal with an empty name and an empty value, plain and as Huffman strings of length zero.
    for (const field of [
      [0x40, 0, 0],
      [0x40, 0x80, 0x80],
    ]) {
      const { wire, send, log } = begin()
      const fields = Buffer.concat([GET, Buffer.from(Array.from({ length: 3_000 }, () => field).flat())])
      const before = process.memoryUsage().heapUsed
      for (let id = 1; id < 200; id += 2) send(frame(1, 5, id, fields))
      expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 << 20)
      expect(log.lines).toEqual([])
      // Larger than the list may be: answered with 431, and nothing of it kept.
      expect(wire.frames.filter(({ type }) => type === 1).length).toBe(100)
    }
    const { wire, send } = begin()
    send(frame(1, 5, 1, Buffer.concat([GET, Buffer.from([0x40, 0, 0])])))
    expect(wire.resets()).toEqual([PROTOCOL])
  })
})

describe('CVE-2019-9517, internal data buffering', () => {
  it('keeps what a peer with open windows does not read in its streams, where owners see it', () => {
    const side = begin()
    side.send(frame(4, 0, 0, setting(4, MAX_WINDOW)), frame(8, 0, 0, u32(MAX_WINDOW - 65_535)))
    side.wire.stuck = true
    const piece = Buffer.alloc(65_536)
    for (let id = 1; id <= 399; id += 2) side.send(frame(1, 5, id, GET))
    let pending = 0
    for (const exchange of side.log.exchanges) {
      exchange.respond({ status: 200, headers: [] }, false)
      // An owner that heeds back-pressure: it stops at the first byte that waits.
      while (exchange.pending === 0 && pending < 64 << 20) exchange.write(piece)
      pending += exchange.pending
    }
    expect(side.log.exchanges.length).toBe(200)
    // One piece a stream waits there; the socket was given a bounded amount.
    expect(pending).toBeLessThanOrEqual(200 * piece.length)
    expect(side.wire.pending).toBeLessThan(1 << 20)
  })

  it('ends a connection whose peer makes us write what it does not read', () => {
    const { wire, send } = begin()
    wire.stuck = true
    wire.pending = 9 << 20
    send(frame(6, 0, 0, Buffer.alloc(8)))
    expect(wire.goaway).toBe(CALM)
  })
})

describe('the HPACK bomb', () => {
  /** One entry of nearly the table's size, then an index that names it, over and over. */
  const bomb = (head: Buffer): Buffer => {
    const value = Buffer.alloc(3_900, 0x61)
    const literal = Buffer.concat([Buffer.from([0x40, 1, 0x78, 0x7f, 0xbd, 0x1d]), value])
    return Buffer.concat([head, literal, Buffer.alloc(11_000, 0xbe)])
  }

  it('expands to the list that is allowed and no further, at a server', () => {
    const { wire, send, log } = begin()
    const before = process.memoryUsage().heapUsed
    for (let id = 1; id < 100; id += 2) send(frame(1, 5, id, bomb(GET)))
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 << 20)
    expect(log.lines).toEqual([])
    expect(wire.frames.filter(({ type }) => type === 1).length).toBe(50)
    expect(wire.goaway).toBe(-1)
  })

  it('is a failed exchange at a client, whose session goes on', () => {
    const side = beginClient()
    side.ask('a')
    side.send(frame(1, 5, 1, bomb(OK)))
    expect(side.log.lines).toEqual(['a close protocol'])
    side.ask('b')
    side.send(frame(1, 5, 3, OK))
    expect(side.log.lines.slice(1)).toEqual(['b response 200 true', 'b close clean'])
  })
})

describe('honest traffic', () => {
  it('of a proxy whose clients cancel half of their requests is never cut', () => {
    const clock = new ManualClock()
    const { wire, send, log } = begin({ clock })
    for (let id = 1; id < 60_000; id += 2) {
      send(frame(1, 5, id, GET))
      const exchange = log.exchanges.pop()
      if (id % 4 === 1) send(cancel(id))
      else exchange?.respond({ status: 200, headers: [] }, true)
    }
    expect(wire.goaway).toBe(-1)
  })

  it('of a proxy whose clients all time out is not cut: streams that lived are not rapid resets', () => {
    const clock = new ManualClock()
    const { wire, send, log } = begin({ clock, resetBurst: 10 })
    let id = 1
    for (let round = 0; round < 100; round++) {
      const first = id
      for (let n = 0; n < 200; n++, id += 2) send(frame(1, 5, id, GET))
      clock.advance(150)
      for (let one = first; one < id; one += 2) send(cancel(one))
    }
    expect(wire.goaway).toBe(-1)
    expect(log.exchanges.length).toBe(20_000)
  })

  it('of cancelled streams is regained by honest ones and by time', () => {
    const clock = new ManualClock()
    const { wire, send } = begin({ clock, resetBurst: 10 })
    let id = 1
    for (let round = 0; round < 50; round++, clock.advance(200)) {
      for (let n = 0; n < 10; n++, id += 2) send(frame(1, 5, id, GET), cancel(id))
    }
    expect(wire.goaway).toBe(-1)
  })
})
