// Addresses: what parses, what does not, one text per address, containment against a bit-by-bit model.
import * as fc from 'fast-check'
import { isIPv4, isIPv6 } from 'node:net'
import { describe, expect, it } from 'vitest'
import {
  canonicalIp,
  containsIp,
  formatCidr,
  formatIp,
  ipFamily,
  isLoopback,
  joinHostPort,
  parseCidr,
  parseIp,
  parsePort,
  splitHostPort,
  to16,
} from './ip.ts'

const bytes4 = fc.uint8Array({ minLength: 4, maxLength: 4 })
const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 })

describe('addresses', () => {
  it.each([
    ['1.2.3.4', '1.2.3.4'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['::ffff:a00:1', '10.0.0.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['fe80:0:0:0:0:0:0:0', 'fe80::'],
  ])('writes %s as %s', (text, canonical) => {
    expect(canonicalIp(text)).toBe(canonical)
  })

  it.each([
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '1.2.3.256',
    '1.2.3.',
    ' 1.2.3.4',
    '1.2.3.4 ',
    ':',
    ':::',
    '1:::2',
    '::1::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    'fe80::1%eth0',
    '[::1]',
    '12345::',
    '1:2:3:4:5:6:7:',
    ':1:2:3:4:5:6:7',
    '::ffff:1.2.3',
    '1.2.3.4::',
  ])('refuses %j', (text) => {
    expect(parseIp(text)).toBeUndefined()
  })

  it('comes back from its text for every address', () => {
    fc.assert(
      fc.property(fc.oneof(bytes4, bytes16), (bytes) => {
        const text = formatIp(bytes)
        const again = parseIp(text)
        expect(again).toBeDefined()
        expect(formatIp(again as Uint8Array)).toBe(text)
        expect(to16(again as Uint8Array)).toEqual(to16(bytes.length === 4 ? bytes : (parseIp(text) as Uint8Array)))
      }),
    )
  })

  it('agrees with node:net about what is an address', () => {
    const text = fc.oneof(
      fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcf:.%')), maxLength: 24 }),
      fc
        .array(fc.constantFrom('0', '1', 'ff', '::', ':', '.', '255', '256', 'abcd', '1.2.3.4'), { maxLength: 12 })
        .map((parts) => parts.join('')),
    )
    fc.assert(
      fc.property(text, (candidate) => {
        const zoned = candidate.includes('%')
        const theirs = isIPv4(candidate) || (isIPv6(candidate) && !zoned)
        expect(parseIp(candidate) !== undefined).toBe(theirs)
      }),
      { numRuns: 2000 },
    )
  })

  it('tells families, with mapped addresses as IPv4', () => {
    expect([ipFamily('1.1.1.1'), ipFamily('::1'), ipFamily('::ffff:1.1.1.1'), ipFamily('x')]).toEqual([4, 6, 4, 0])
  })

  it('knows loopback', () => {
    expect(isLoopback(parseIp('127.8.0.1') as Uint8Array)).toBe(true)
    expect(isLoopback(parseIp('::1') as Uint8Array)).toBe(true)
    expect(isLoopback(parseIp('::2') as Uint8Array)).toBe(false)
    expect(isLoopback(parseIp('128.0.0.1') as Uint8Array)).toBe(false)
  })
})

describe('ranges', () => {
  it.each([
    ['10.1.2.3/8', '10.0.0.0/8'],
    ['10.1.2.3', '10.1.2.3/32'],
    ['2001:db8::1/33', '2001:db8::/33'],
    ['::/0', '::/0'],
    ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
  ])('reads %s as %s', (text, canonical) => {
    const network = parseCidr(text)
    expect(network && formatCidr(network)).toBe(canonical)
  })

  it.each(['10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/08', '::/129', '/8', '10.0.0/8', '::ffff:1.2.3.4/90'])(
    'refuses %j',
    (text) => {
      expect(parseCidr(text)).toBeUndefined()
    },
  )

  it('contains exactly the addresses that share the prefix', () => {
    const bits = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('')
    fc.assert(
      fc.property(
        fc.oneof(fc.tuple(bytes4, bytes4), fc.tuple(bytes16, bytes16)),
        fc.nat(128),
        fc.nat(128),
        ([range, address], wanted, shared) => {
          const size = range.length * 8
          const length = wanted % (size + 1)
          // Make long common prefixes likely.
          const near = new Uint8Array(address)
          for (let i = 0; i < Math.min(range.length, shared >> 3); i++) near[i] = range[i] as number
          const network = parseCidr(`${formatIp(range)}/${length}`)
          fc.pre(network !== undefined && network.bytes.length === range.length)
          expect(containsIp(network as NonNullable<typeof network>, near)).toBe(
            bits(range).slice(0, length) === bits(near).slice(0, length),
          )
        },
      ),
    )
  })

  it('never mixes families', () => {
    expect(containsIp(parseCidr('::/0') as never, parseIp('1.2.3.4') as Uint8Array)).toBe(false)
    expect(containsIp(parseCidr('0.0.0.0/0') as never, parseIp('::1') as Uint8Array)).toBe(false)
  })
})

describe('host and port', () => {
  it('joins and splits both families', () => {
    for (const [host, port] of [
      ['10.0.0.1', 80],
      ['::1', 65535],
      ['a.b', 0],
    ] as const) {
      expect(splitHostPort(joinHostPort(host, port))).toEqual({ host, port })
    }
  })

  it.each(['10.0.0.1', ':80', '::1:80', '[::1]', '[::1]80', '[a]:80', 'a:65536', 'a:080', 'a:+1', 'a:', '[]:1'])(
    'refuses %j',
    (text) => {
      expect(splitHostPort(text)).toBeUndefined()
    },
  )

  it('reads ports only in plain decimal', () => {
    expect([parsePort('0'), parsePort('65535'), parsePort('65536'), parsePort('1e1'), parsePort(' 1')]).toEqual([
      0, 65535, -1, -1, -1,
    ])
  })
})
