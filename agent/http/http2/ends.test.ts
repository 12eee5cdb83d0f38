// How messages, streams and connections end: what is truncated is never taken for complete, what was not processed is known
// to be safe to try again, reasons keep their meaning on the way through, and connections end without losing a request.
import { describe, expect, it } from 'vitest'
import type { ResetReason } from '../message.ts'
import { codeOfReason, MAX_STREAM_ID, reasonOfCode } from './constants.ts'
import { begin, beginClient, block, frame, POST } from './testing.ts'

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}
const reset = (id: number, code: number): Buffer => frame(3, 0, id, u32(code))
const goaway = (last: number, code: number): Buffer => frame(7, 0, 0, Buffer.concat([u32(last), u32(code)]))
const data = (id: number, text: string, end = false): Buffer => frame(0, end ? 1 : 0, id, Buffer.from(text))
const OK = Buffer.from([0x88])
const okOf = (length: number): Buffer => Buffer.concat([OK, block('content-length', String(length))])

describe('a response that is cut', () => {
  const cases: readonly [string, (side: ReturnType<typeof beginClient>) => void, string][] = [
    ['by RST_STREAM(NO_ERROR)', ({ send }) => send(reset(1, 0)), 'a close cancel remote'],
    ['by RST_STREAM(CANCEL)', ({ send }) => send(reset(1, 8)), 'a close cancel remote'],
    ['by RST_STREAM(INTERNAL_ERROR)', ({ send }) => send(reset(1, 2)), 'a close internal remote'],
    ['by the end of the connection', ({ ended }) => ended(), 'a close closed remote'],
    ['by the loss of the connection', ({ closed }) => closed(new Error('reset')), 'a close closed remote'],
    [
      'by GOAWAY and the end of the connection',
      (side) => {
        side.send(goaway(1, 0))
        side.ended()
      },
      'a close closed remote',
    ],
    [
      'in the middle of a DATA frame',
      (side) => {
        side.send(data(1, 'whole frame').subarray(0, 12))
        side.ended()
      },
      'a close closed remote',
    ],
    ['by a broken frame', ({ send }) => send(frame(0, 0, 0, Buffer.from('x'))), 'a close closed'],
  ]
  it.each(cases)('%s is no end', (_what, cut, close) => {
    const side = beginClient()
    side.ask('a')
    side.send(frame(1, 4, 1, OK), data(1, 'part'))
    cut(side)
    expect(side.log.lines.filter((line) => line.startsWith('a end'))).toEqual([])
    expect(side.log.lines.filter((line) => line.startsWith('a close'))).toEqual([close])
    side.closed()
    expect(side.log.lines.filter((line) => line.startsWith('a close'))).toEqual([close])
  })

  it('after END_STREAM was complete, whatever comes then', async () => {
    const side = beginClient()
    const exchange = side.ask('a', false, 'POST')
    side.send(frame(1, 4, 1, OK), data(1, 'all', true), reset(1, 0))
    expect(side.log.lines).toEqual(['a response 200 false', 'a data all', 'a end', 'a close cancel remote'])
    // The request was cut, which the owner is told; the response was delivered whole before.
    exchange.write(Buffer.from('more'))
    exchange.end()
    await Promise.resolve()
    expect(side.wire.frames.filter(({ type }) => type === 0)).toEqual([])
  })

  it('while its reader is paused is told after what is complete, and not delivered as complete when it is not', async () => {
    const side = beginClient()
    const exchange = side.ask('a', false, 'POST')
    exchange.pause()
    side.send(frame(1, 4, 1, OK), data(1, 'all', true), reset(1, 8))
    expect(side.log.lines).toEqual(['a response 200 false'])
    exchange.resume()
    await Promise.resolve()
    expect(side.log.lines.slice(1)).toEqual(['a data all', 'a end', 'a close cancel remote'])
    const other = beginClient()
    other.ask('b').pause()
    other.send(frame(1, 4, 1, OK), data(1, 'part'), reset(1, 8))
    expect(other.log.lines).toEqual(['b response 200 false', 'b close cancel remote'])
  })
})

describe('a content-length', () => {
  it.each([
    ['less than it says', [data(1, 'abc', true)]],
    ['nothing', [data(1, '', true)]],
    ['more than it says', [data(1, 'abcdef')]],
    ['less, ended by trailers', [data(1, 'abc'), frame(1, 5, 1, block('x-sum', '1'))]],
  ])('of a response with %s is an error', (_what, frames) => {
    const side = beginClient()
    side.ask('a', false)
    side.send(frame(1, 4, 1, okOf(5)), ...frames)
    expect(side.log.lines.some((line) => line.startsWith('a end'))).toBe(false)
    expect(side.log.lines.at(-1)).toBe('a close protocol')
    expect(side.wire.resets()).toEqual([1])
  })

  it.each([
    ['less than it says', [data(1, 'abc', true)]],
    ['nothing', [data(1, '', true)]],
    ['more than it says', [data(1, 'abcdef')]],
    ['less, ended by trailers', [data(1, 'abc'), frame(1, 5, 1, block('x-sum', '1'))]],
  ])('of a request with %s is an error', (_what, frames) => {
    const side = begin()
    side.send(
      frame(
        1,
        4,
        1,
        block(':method', 'POST', ':scheme', 'http', ':path', '/', ':authority', 'a', 'content-length', '5'),
      ),
      ...frames,
    )
    expect(side.log.lines.some((line) => line.startsWith('end'))).toBe(false)
    expect(side.log.lines.at(-1)).toBe('close 0 protocol')
    expect(side.wire.resets()).toEqual([1])
  })

  it('is still judged after the response was sent whole', () => {
    const side = begin()
    side.send(
      frame(
        1,
        4,
        1,
        block(':method', 'POST', ':scheme', 'http', ':path', '/', ':authority', 'a', 'content-length', '5'),
      ),
    )
    side.log.exchanges[0]?.respond({ status: 200, headers: [] }, true)
    side.send(data(1, 'abc', true))
    expect(side.log.lines.at(-1)).toBe('close 0 protocol')
    expect(side.wire.resets()).toEqual([1])
  })

  it.each([
    ['HEAD', OK, 'HEAD'],
    ['204', Buffer.from([0x89]), 'GET'],
    ['304', Buffer.from([0x8b]), 'GET'],
  ])('announces nothing in an answer that has no body: %s', (_what, status, method) => {
    const side = beginClient()
    side.ask('a', true, method)
    side.send(frame(1, 5, 1, Buffer.concat([status, block('content-length', '5')])))
    expect(side.log.lines.at(-1)).toBe('a close clean')
    const body = beginClient()
    body.ask('b', true, method)
    body.send(frame(1, 4, 1, Buffer.concat([status, block('content-length', '5')])), data(1, 'abcde', true))
    expect(body.log.lines.at(-1)).toBe('b close protocol')
  })

  it('that is met, also over many frames and with padding, is a clean end', () => {
    const side = beginClient()
    side.ask('a')
    const padded = frame(0, 9, 1, Buffer.concat([Buffer.from([3]), Buffer.from('de'), Buffer.alloc(3)]))
    side.send(frame(1, 4, 1, okOf(5)), data(1, 'ab'), data(1, 'c'), padded)
    expect(side.log.lines.slice(-2)).toEqual(['a end', 'a close clean'])
  })
})

describe('a request that is cut', () => {
  it.each([
    ['by RST_STREAM(NO_ERROR)', (side: ReturnType<typeof begin>) => side.send(reset(1, 0)), 'close 0 cancel'],
    ['by RST_STREAM(CANCEL)', (side: ReturnType<typeof begin>) => side.send(reset(1, 8)), 'close 0 cancel'],
    ['by the end of the connection', (side: ReturnType<typeof begin>) => side.feed.ended(), 'close 0 closed'],
  ])('%s is no end', (_what, cut, close) => {
    const side = begin()
    side.send(frame(1, 4, 1, POST), data(1, 'part'))
    cut(side)
    expect(side.log.lines.slice(1)).toEqual(['data 0 part', close])
  })
})

describe('reasons', () => {
  it('keep their meaning from code to reason to code', () => {
    const kept: [number, ResetReason][] = [
      [1, 'protocol'],
      [2, 'internal'],
      [3, 'flow'],
      [5, 'closed'],
      [7, 'refused'],
      [8, 'cancel'],
      [11, 'calm'],
    ]
    for (const [code, reason] of kept) {
      expect(reasonOfCode(code)).toBe(reason)
      expect(codeOfReason(reason)).toBe(code)
    }
    // In mid-stream, NO_ERROR is a message that will not be completed.
    expect(reasonOfCode(0)).toBe('cancel')
    for (const code of [4, 6, 9, 10, 12, 13, 99, 0xffffffff]) expect(reasonOfCode(code)).toBe('internal')
    expect(codeOfReason('timeout')).toBe(8)
  })

  it('are told to the peer, save that a finished answer makes the rest of a request uninteresting, not wrong', () => {
    const side = begin()
    side.send(frame(1, 4, 1, POST), frame(1, 4, 3, POST), frame(1, 4, 5, POST))
    const [first, second, third] = side.log.exchanges
    first?.reset('refused')
    second?.respond({ status: 200, headers: [] }, false)
    second?.reset('internal')
    third?.respond({ status: 413, headers: [] }, true)
    third?.reset('cancel')
    expect(side.wire.resets()).toEqual([7, 2, 0])
  })
})

describe('what a server did not process', () => {
  it('is refused: streams above the last one of a GOAWAY, and REFUSED_STREAM', () => {
    const side = beginClient()
    for (const name of ['a', 'b', 'c', 'd']) side.ask(name)
    side.send(reset(1, 7), goaway(5, 11))
    expect(side.log.lines).toEqual(['session draining', 'a close refused remote', 'd close refused remote'])
    expect([side.session.open, side.session.available]).toEqual([false, 0])
    expect(() => side.ask('e')).toThrow('takes no further exchange')
    // Those at or below it go on to their end, and the connection with the last of them.
    side.send(frame(1, 5, 3, OK))
    expect(side.wire.ended).toBe(false)
    side.send(frame(1, 5, 5, OK))
    expect(side.wire.ended).toBe(true)
    expect(side.log.lines.slice(3)).toEqual([
      'b response 200 true',
      'b close clean',
      'c response 200 true',
      'c close clean',
    ])
  })

  it('is known by the second, lower GOAWAY of a graceful end', () => {
    const side = beginClient()
    side.ask('a')
    side.ask('b')
    side.send(goaway(MAX_STREAM_ID, 0))
    expect(side.log.lines).toEqual(['session draining'])
    side.send(goaway(1, 0))
    side.send(frame(1, 5, 1, OK))
    expect(side.log.lines.slice(1)).toEqual(['b close refused remote', 'a response 200 true', 'a close clean'])
  })
})

describe('a server that drains', () => {
  it('warns, serves what was in flight, then names its last stream and ends', () => {
    const side = begin()
    side.send(frame(1, 4, 1, POST))
    side.feed.session.drain()
    side.feed.session.drain()
    const sent = () => side.wire.frames.filter(({ type }) => type === 7).map(({ payload }) => payload.readUInt32BE(0))
    expect(sent()).toEqual([MAX_STREAM_ID])
    const ping = side.wire.frames.find(({ type, flags }) => type === 6 && flags === 0)?.payload ?? Buffer.alloc(8)
    // Sent before the client had read the warning: served.
    side.send(frame(1, 4, 3, POST), frame(6, 1, 0, ping))
    expect(sent()).toEqual([MAX_STREAM_ID, 3])
    // Sent after the last word: not served, and the client knows it.
    side.send(frame(1, 4, 5, POST))
    expect(side.log.exchanges.length).toBe(2)
    side.send(data(1, '', true))
    expect(side.wire.ended).toBe(false)
    side.send(data(3, '', true))
    expect(side.wire.ended).toBe(true)
    expect(side.log.lines.filter((line) => line.startsWith('close'))).toEqual(['close 0 clean', 'close 1 clean'])
  })

  it('ends although its last stream was the last one there is', () => {
    const side = begin()
    side.send(frame(1, 4, MAX_STREAM_ID, POST))
    side.feed.session.drain()
    const ping = side.wire.frames.find(({ type, flags }) => type === 6 && flags === 0)?.payload ?? Buffer.alloc(8)
    side.send(frame(6, 1, 0, ping), data(MAX_STREAM_ID, '', true))
    expect(side.wire.ended).toBe(true)
  })
})

describe('the last stream ids', () => {
  it('are used up to 2^31 − 1, then the session drains and another is needed', () => {
    const side = beginClient({ firstStream: MAX_STREAM_ID - 2 })
    side.ask('a')
    expect(side.session.open).toBe(true)
    side.ask('b')
    expect([side.session.open, side.session.available]).toEqual([false, 0])
    expect(side.log.lines).toEqual(['session draining'])
    expect(side.wire.frames.filter(({ type }) => type === 1).map(({ id }) => id)).toEqual([
      MAX_STREAM_ID - 2,
      MAX_STREAM_ID,
    ])
    expect(() => side.ask('c')).toThrow('takes no further exchange')
    side.send(frame(1, 4, MAX_STREAM_ID, OK), data(MAX_STREAM_ID, 'x', true), frame(1, 5, MAX_STREAM_ID - 2, OK))
    expect(side.log.lines.filter((line) => line.includes('close'))).toEqual(['b close clean', 'a close clean'])
    expect(side.wire.ended).toBe(true)
  })
})
