// Codecs: what goes in comes out, sizes hold, network order is network order.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as c from './codec.ts'

const back = <T>(codec: c.Codec<T>, value: T): T => c.decode(codec, c.encode(codec, value))

describe('codecs', () => {
  it('give back every integer of their width', () => {
    fc.assert(
      fc.property(fc.nat(0xff), fc.nat(0xffff), fc.nat(0xffffffff), fc.bigInt(0n, (1n << 64n) - 1n), (a, b, d, e) => {
        expect([back(c.u8, a), back(c.u16, b), back(c.u32, d), back(c.u64, e)]).toEqual([a, b, d, e])
        expect([back(c.be16, b), back(c.be32, d), back(c.be64, e)]).toEqual([b, d, e])
        const signed = BigInt.asIntN(64, e)
        expect([back(c.i8, (a << 24) >> 24), back(c.i32, d | 0), back(c.i64, signed)]).toEqual([
          (a << 24) >> 24,
          d | 0,
          signed,
        ])
      }),
    )
  })

  it('write network order where the kernel does', () => {
    expect([...c.encode(c.be16, 15008)]).toEqual([0x3a, 0xa0])
    expect([...c.encode(c.be32, 0x01020304)]).toEqual([1, 2, 3, 4])
  })

  it('read text up to the first zero and refuse text that does not fit', () => {
    expect(back(c.text(8), 'pod-ä')).toBe('pod-ä')
    expect(back(c.text(4), 'full')).toBe('full')
    expect(() => c.encode(c.text(4), 'toolong')).toThrow(RangeError)
  })

  it('copy bytes, so that a reader keeps them while the buffer is used again', () => {
    const buffer = Uint8Array.from([1, 2, 3, 4])
    const read = c.decode(c.bytes(4), buffer)
    buffer.fill(9)
    expect([...read]).toEqual([1, 2, 3, 4])
    expect(() => c.encode(c.bytes(2), Uint8Array.from([1, 2, 3]))).toThrow(RangeError)
  })

  it('leave zeros behind a short list and refuse a long one', () => {
    const three = c.array(c.u16, 3)
    expect(back(three, [7])).toEqual([7, 0, 0])
    expect(() => c.encode(three, [1, 2, 3, 4])).toThrow(RangeError)
  })
})
