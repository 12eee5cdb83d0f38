// HPACK: the examples of RFC 7541, Appendix C, round trips of anything, and every way a block can be wrong.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HpackDecoder, type HeaderBlock } from './decoder.ts'
import { HpackEncoder } from './encoder.ts'
import { huffmanDecode, huffmanEncode, huffmanLength } from './huffman.ts'

function decode(decoder: HpackDecoder, hex: string): HeaderBlock {
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
  const block: HeaderBlock = { headers: [], malformed: '', overflow: false }
  decoder.decode(bytes, 0, bytes.length, block)
  return block
}

function encode(encoder: HpackEncoder, fields: readonly string[]): Buffer {
  let room = 12
  for (let i = 0; i < fields.length; i += 2) room += HpackEncoder.fieldRoom(fields[i]!, fields[i + 1]!)
  const out = Buffer.alloc(room)
  encoder.begin(out, 0)
  for (let i = 0; i < fields.length; i += 2) encoder.field(fields[i]!, fields[i + 1]!)
  return out.subarray(0, encoder.finish())
}

const REQUEST = [':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'www.example.com']

describe('HPACK decoding', () => {
  it('reads the request examples of RFC 7541 C.3 on one table', () => {
    const decoder = new HpackDecoder()
    expect(decode(decoder, '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d').headers).toEqual(REQUEST)
    expect(decoder.size).toBe(57)
    expect(decode(decoder, '8286 84be 5808 6e6f 2d63 6163 6865').headers).toEqual([
      ...REQUEST,
      'cache-control',
      'no-cache',
    ])
    expect(decode(decoder, '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65').headers).toEqual(
      [
        ':method',
        'GET',
        ':scheme',
        'https',
        ':path',
        '/index.html',
        ':authority',
        'www.example.com',
        'custom-key',
        'custom-value',
      ],
    )
    expect(decoder.size).toBe(164)
  })

  it('reads the Huffman example of RFC 7541 C.4.1', () => {
    expect(decode(new HpackDecoder(), '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff').headers).toEqual(REQUEST)
  })

  it('evicts as RFC 7541 C.5 does with a table of 256 bytes', () => {
    const decoder = new HpackDecoder(256)
    decode(
      decoder,
      '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
    )
    expect(decoder.size).toBe(222)
    expect(decode(decoder, '4803 3330 37c1 c0bf').headers.slice(0, 4)).toEqual([
      ':status',
      '307',
      'cache-control',
      'private',
    ])
    expect(decoder.size).toBe(222)
  })

  for (const [what, hex] of [
    ['index 0', '80'],
    ['an index beyond the table', 'be'],
    ['an integer that never ends', 'ffffffffffff'],
    ['an integer that is cut off', 'ff80'],
    ['a string longer than its block', '400a61'],
    ['a Huffman string with EOS inside', '4084ffffffff00'],
    ['Huffman padding of eight bits', '00 82 1fff 00'],
    ['Huffman padding with zeros', '00 81 18 00'],
    ['a table larger than announced', '3fe2 1f'],
    ['a table size update after a field', '8220'],
  ] as const) {
    it(`refuses ${what}`, () => {
      expect(() => decode(new HpackDecoder(), hex)).toThrowError(
        expect.objectContaining({ name: 'HpackError' }) as Error,
      )
    })
  }

  it('says that a block is malformed, and goes on, for upper case, blanks and line ends', () => {
    const decoder = new HpackDecoder()
    expect(decode(decoder, '0003 4162 6301 78').malformed).toContain('field name')
    expect(decode(decoder, '0001 6102 2078').malformed).toContain("'a'")
    expect(decode(decoder, '0001 6102 780a').malformed).toContain("'a'")
    expect(decode(decoder, '0001 6102 7879').malformed).toBe('')
  })

  it('remembers that an entry of the table is malformed', () => {
    const decoder = new HpackDecoder()
    expect(decode(decoder, '4001 4101 78').malformed).not.toBe('')
    expect(decode(decoder, 'be').malformed).not.toBe('')
  })

  it('keeps a bomb bounded: a long entry named many times overflows the list, not the memory', () => {
    const decoder = new HpackDecoder(4096, 8192)
    const value = Buffer.alloc(3000, 'x')
    const block: HeaderBlock = { headers: [], malformed: '', overflow: false }
    const bytes = Buffer.concat([
      Buffer.from('4001 61 7f b916'.replaceAll(' ', ''), 'hex'),
      value,
      Buffer.alloc(50_000, 0xbe),
    ])
    decoder.decode(bytes, 0, bytes.length, block)
    expect(block.overflow).toBe(true)
    expect(block.headers.length).toBeLessThan(8)
  })
})

describe('HPACK encoding', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/)
  const value = fc.stringMatching(/^[!-~\u00a1-\u00ff]{0,60}$/)
  const common = fc.constantFrom(
    [':method', 'CONNECT'],
    [':path', '/a?b=c'],
    [':status', '200'],
    ['content-type', 'application/grpc'],
    ['authorization', 'Bearer x'],
    ['x-a', '1'],
    ['x-a', '2'],
    ['cache-control', 'no-cache'],
  )
  const fields = fc.array(fc.oneof(common, fc.tuple(name, value)), { maxLength: 30 }).map((list) => list.flat())

  it('is read back by the decoder, list after list, whatever the table sizes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fields, fc.option(fc.integer({ min: 0, max: 5000 }))), { maxLength: 12 }),
        (lists) => {
          const encoder = new HpackEncoder()
          const decoder = new HpackDecoder()
          const block: HeaderBlock = { headers: [], malformed: '', overflow: false }
          for (const [list, size] of lists) {
            if (size !== null) encoder.setLimit(size)
            const bytes = encode(encoder, list)
            decoder.decode(bytes, 0, bytes.length, block)
            expect(block.headers).toEqual(list)
            expect(block.malformed).toBe('')
            expect(decoder.size).toBe(encoder.size)
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('stays in step after a block that could not be sent', () => {
    const encoder = new HpackEncoder()
    const decoder = new HpackDecoder()
    const block: HeaderBlock = { headers: [], malformed: '', overflow: false }
    const first = encode(encoder, ['x-one', '1', 'x-two', '2'])
    decoder.decode(first, 0, first.length, block)
    expect(() => encode(encoder, ['x-three', '3', 'x-bad', 'a\r\nb: c'])).toThrowError(
      expect.objectContaining({ code: 'HTTP_HEADER_INVALID' }) as Error,
    )
    const list = ['x-one', '1', 'x-three', '3', 'x-two', '2']
    for (let i = 0; i < 2; i++) {
      const bytes = encode(encoder, list)
      decoder.decode(bytes, 0, bytes.length, block)
      expect(block.headers).toEqual(list)
    }
  })

  it('never indexes secrets', () => {
    const encoder = new HpackEncoder()
    const bytes = encode(encoder, ['authorization', 'Bearer t', 'set-cookie', 'a=b'])
    expect(encoder.size).toBe(0)
    expect(bytes[0]! >> 4).toBe(1)
  })

  it('writes a repeated list in one byte a field', () => {
    const encoder = new HpackEncoder()
    const list = [':method', 'CONNECT', ':authority', '10.0.0.1:80', 'baggage', 'k8s.cluster.name=c']
    encode(encoder, list)
    expect(encode(encoder, list).length).toBe(3)
  })
})

describe('what the encoder learns', () => {
  const sizes = (lists: string[][]): number[] => {
    const encoder = new HpackEncoder()
    const decoder = new HpackDecoder()
    const block: HeaderBlock = { headers: [], malformed: '', overflow: false }
    return lists.map((list) => {
      const bytes = encode(encoder, list)
      decoder.decode(bytes, 0, bytes.length, block)
      expect(block.headers).toEqual(list)
      return bytes.length
    })
  }

  it('a value that differs each time is not indexed, but its name is', () => {
    const lengths = sizes(Array.from({ length: 40 }, (_, i) => ['traceparent', `00-${1_000 + i}-01`]))
    // The first brings the name into the table; then: name by index, length, ten characters.
    expect(new Set(lengths.slice(1))).toEqual(new Set([1 + 1 + 1 + 10]))
  })

  it('a value that comes twice in a row is indexed, whatever its name, unless it is secret', () => {
    expect(sizes(Array.from({ length: 3 }, () => [':path', '/pkg.Echo/Unary']))[2]).toBe(1)
    expect(sizes(Array.from({ length: 3 }, () => ['date', 'Wed, 25 Nov 2026 14:31:12 GMT']))[2]).toBe(1)
    expect(sizes(Array.from({ length: 3 }, () => ['cookie', 'session=secret']))[2]).toBeGreaterThan(14)
  })

  it('a name whose values never repeat stops pushing out what does', () => {
    const lists = Array.from({ length: 400 }, (_, i) => ['x-user', `user number ${i} of many`])
    lists.push(['x-shared', 'v'])
    const encoder = new HpackEncoder()
    encode(encoder, ['x-shared', 'v'])
    for (const list of lists) encode(encoder, list)
    expect(encode(encoder, ['x-shared', 'v']).length).toBe(1)
    sizes(lists)
  })

  it('is bounded: more names than it keeps are sent as well', () => {
    sizes(Array.from({ length: 1_200 }, (_, i) => [`x-name-${i % 700}`, String(i)]))
  })
})

describe('strings that were decoded before', () => {
  const decode = (hex: string): HeaderBlock => {
    const block: HeaderBlock = { headers: [], malformed: '', overflow: false }
    const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex')
    new HpackDecoder().decode(bytes, 0, bytes.length, block)
    return block
  }

  it('are the same in every connection, and a fault stays a fault', () => {
    for (let i = 0; i < 3; i++) {
      expect(decode('00 03 782d61 03 616263').headers).toEqual(['x-a', 'abc'])
      // The bytes of the value as a name of upper case; the bytes of a name that is no value of its own.
      expect(decode('00 03 414243 03 414243').malformed).not.toBe('')
      expect(decode('00 03 782d61 03 414243').malformed).toBe('')
      expect(decode('00 03 782d61 03 610a63').malformed).not.toBe('')
      expect(decode('00 03 782d61 02 6120').malformed).not.toBe('')
      // The same bytes, plain and as a Huffman code.
      expect(decode('00 03 782d61 02 1c64').malformed).not.toBe('')
      expect(decode('00 03 782d61 82 1c64').headers).toEqual(['x-a', 'abc'])
    }
  })
})

describe('the Huffman code', () => {
  it('is reversed by the decoder', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const text = Buffer.from(bytes).toString('latin1')
        const packed = new Uint8Array(bytes.length * 4 + 8)
        const length = huffmanEncode(text, packed, 0)
        expect(length).toBe(huffmanLength(text))
        const out = new Uint8Array(bytes.length + 8)
        expect(huffmanDecode(packed, 0, length, out)).toBe(bytes.length)
        expect(Buffer.from(out.subarray(0, bytes.length))).toEqual(Buffer.from(bytes))
      }),
    )
  })
})
