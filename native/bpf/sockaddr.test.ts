// Addresses between text and bytes, checked against the system's own parser and printer.
import { isIPv6, SocketAddress } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { packAddress, parseSockaddr, unpackAddress } from './sockaddr.ts'

describe('addresses', () => {
  it('survive the way to bytes and back, in the system’s canonical form', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        // ::a.b.c.d outside ::ffff:0:0/96 is printed dotted by some C libraries; RFC 5952 leaves it open.
        fc.pre(!/^(0*:)*:?[\da-f.:]*\.\d+$/i.test(text) || !isIPv6(text))
        const family = isIPv6(text) ? 6 : 4
        const system = new SocketAddress({ address: text, family: family === 6 ? 'ipv6' : 'ipv4' }).address
        const ours = unpackAddress(packAddress(text, family))
        expect(unpackAddress(packAddress(ours, ours.includes(':') ? 6 : 4))).toBe(ours)
        if (!system.includes('.') || family === 4) expect(ours).toBe(system)
      }),
    )
  })

  it('know the v4-mapped form', () => {
    expect([...packAddress('10.1.2.3', 6)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3])
    expect([...packAddress('::ffff:10.1.2.3', 4)]).toEqual([10, 1, 2, 3])
    expect(unpackAddress(packAddress('::ffff:a01:203', 6))).toBe('10.1.2.3')
  })

  it('shorten the longest run of zeros, the first of equals', () => {
    expect(unpackAddress(packAddress('2001:db8:0:0:1:0:0:1', 6))).toBe('2001:db8::1:0:0:1')
    expect(unpackAddress(packAddress('1:0:2:0:0:0:0:3', 6))).toBe('1:0:2::3')
    expect(unpackAddress(packAddress('::', 6))).toBe('::')
    expect(unpackAddress(packAddress('1::', 6))).toBe('1::')
  })

  it('refuse what is none, and IPv6 for an IPv4 socket', () => {
    expect(() => packAddress('300.1.1.1', 4)).toThrow('is not an IP address')
    expect(() => packAddress('fe80::1%eth0', 6)).toThrow('scope')
    expect(() => packAddress('2001:db8::1', 4)).toThrow('the socket is IPv4')
  })

  it('are read from the kernel’s structs, mapped ones as IPv4', () => {
    const four = Uint8Array.from([2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    expect(parseSockaddr(four)).toEqual({ address: '127.0.0.1', port: 8080, family: 4, mapped: false })
    const six = new Uint8Array(28)
    six.set([10, 0, 0, 80], 0)
    six.set(packAddress('10.0.0.9', 6), 8)
    expect(parseSockaddr(six)).toEqual({ address: '10.0.0.9', port: 80, family: 4, mapped: true })
  })
})
