import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Lines } from './lines.ts'

describe('lines of a stream', () => {
  it('are the same however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'grapheme' })), fc.array(fc.nat()), (texts, cuts) => {
        const lines = texts.map((text) => text.replaceAll('\n', ''))
        const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''))
        const places = cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b)
        const splitter = new Lines(1 << 20)
        const found: string[] = []
        for (let at = 0, from = 0; at <= places.length; at++) {
          const to = places[at] ?? bytes.length
          found.push(...splitter.push(bytes.subarray(from, to)))
          from = to
        }
        expect(found).toEqual(lines)
      }),
    )
  })

  it('may not be longer than is allowed, in one piece or in many', () => {
    expect(() => new Lines(3).push(Buffer.from('1234\n'))).toThrow(RangeError)
    const lines = new Lines(3)
    expect(lines.push(Buffer.from('123\n1'))).toEqual(['123'])
    expect(() => lines.push(Buffer.from('234'))).toThrow(RangeError)
  })
})
