// Addresses between their text and the kernel's bytes, both families, v4-mapped normalised. Must not live here: sockets.
import { isIPv4, isIPv6 } from 'node:net'

export interface SocketAddress {
  /** Canonical text (RFC 5952 for IPv6); a unix socket's path for family 1; '' if there is none. */
  readonly address: string
  /** Host order; 0 for unix sockets. */
  readonly port: number
  /** 4, 6, or 1 for unix. What the address is, not the socket: a v4-mapped one is 4. */
  readonly family: 4 | 6 | 1
  /** The socket is IPv6 and the address came v4-mapped. */
  readonly mapped: boolean
}

/** 4 or 16 bytes for an address, as a socket of `family` needs them: IPv4 text for a family 6 socket becomes v4-mapped. */
export function packAddress(text: string, family: 4 | 6): Uint8Array {
  if (isIPv4(text)) {
    const four = text.split('.').map(Number)
    return family === 4 ? Uint8Array.from(four) : Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...four])
  }
  if (!isIPv6(text)) throw new RangeError(`"${text}" is not an IP address`)
  if (text.includes('%')) throw new RangeError(`"${text}": addresses with a scope are not supported`)
  const bytes = packIPv6(text)
  if (family === 6) return bytes
  if (!isMapped(bytes)) throw new RangeError(`"${text}" is IPv6, the socket is IPv4`)
  return bytes.subarray(12)
}

function packIPv6(text: string): Uint8Array {
  // A dotted tail is the last 32 bits (RFC 4291 §2.2).
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text)
  let plain = text
  if (dotted) {
    const [, head, a, b, c, d] = dotted
    plain = `${head}${((Number(a) << 8) | Number(b)).toString(16)}:${((Number(c) << 8) | Number(d)).toString(16)}`
  }
  const [before = '', after] = plain.split('::')
  const left = before === '' ? [] : before.split(':')
  const right = after === undefined || after === '' ? [] : after.split(':')
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right]
  const bytes = new Uint8Array(16)
  groups.forEach((group, i) => {
    const value = parseInt(group, 16)
    bytes[2 * i] = value >> 8
    bytes[2 * i + 1] = value & 255
  })
  return bytes
}

/** True for ::ffff:0:0/96. */
export function isMapped(sixteen: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (sixteen[i] !== 0) return false
  return sixteen[10] === 255 && sixteen[11] === 255
}

/** Text of 4 or 16 bytes; v4-mapped ones as IPv4. */
export function unpackAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.')
  if (isMapped(bytes)) return bytes.subarray(12, 16).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0))
  // RFC 5952 §4.2: the longest run of two or more zero groups, the first of equals, becomes "::".
  let start = -1
  let length = 1
  for (let i = 0; i < 8; i++) {
    let run = 0
    while (i + run < 8 && groups[i + run] === 0) run++
    if (run > length) {
      start = i
      length = run
    }
    i += run
  }
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':')
  return start < 0 ? hex(groups) : `${hex(groups.slice(0, start))}::${hex(groups.slice(start + length))}`
}

/** A struct sockaddr of any family this library makes. */
export function parseSockaddr(raw: Uint8Array): SocketAddress {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength)
  const family = raw.length < 2 ? 0 : new Uint16Array(raw.slice(0, 2).buffer)[0]
  if (family === 2 && raw.length >= 8) {
    return { address: raw.subarray(4, 8).join('.'), port: view.getUint16(2), family: 4, mapped: false }
  }
  if (family === 10 && raw.length >= 24) {
    const bytes = raw.subarray(8, 24)
    const mapped = isMapped(bytes)
    return { address: unpackAddress(bytes), port: view.getUint16(2), family: mapped ? 4 : 6, mapped }
  }
  return {
    address: Buffer.from(raw.subarray(2)).toString('utf8').replace(/\0+$/, ''),
    port: 0,
    family: 1,
    mapped: false,
  }
}

/** `1.2.3.4:80`, `[::1]:80`. */
export function formatAddress(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}
