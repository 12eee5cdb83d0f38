// IP addresses and ranges as values: text to bytes and back, one canonical text form per address, containment.
// IPv4-mapped IPv6 addresses are IPv4 everywhere above the sockets (dual-stack listeners make them the norm).
// Must not live here: sockets, names, who owns an address (mesh/state.ts).

/** 4 or 16 bytes, network order. An IPv4-mapped IPv6 address is never represented by 16 bytes. */
export type IpBytes = Uint8Array

/** A range with its host bits cleared. */
export interface IpNetwork {
  readonly bytes: IpBytes
  /** Prefix length in bits of `bytes`' own family. */
  readonly length: number
}

/** An address with a port. */
export interface HostPort {
  readonly host: string
  readonly port: number
}

const DOT = 46
const COLON = 58
const ZERO = 48

/** Four decimal octets without leading zeros (octal look-alikes are refused), into `out` at `at`; false if it is none. */
function parseV4Into(text: string, start: number, out: Uint8Array, at: number): boolean {
  let octet = -1
  let digits = 0
  let count = 0
  for (let i = start; i <= text.length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : DOT
    if (code === DOT) {
      if (octet < 0 || count === 4) return false
      out[at + count++] = octet
      octet = -1
      digits = 0
      continue
    }
    if (code < ZERO || code > 57) return false
    if (digits > 0 && octet === 0) return false
    octet = (octet < 0 ? 0 : octet * 10) + code - ZERO
    if (octet > 255 || ++digits > 3) return false
  }
  return count === 4
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  if (code >= 97 && code <= 102) return code - 87
  if (code >= 65 && code <= 70) return code - 55
  return -1
}

/** RFC 4291 §2.2 text forms, without zones. */
function parseV6(text: string): Uint8Array | undefined {
  const out = new Uint8Array(16)
  let at = 0
  let gap = -1
  let i = 0
  if (text.startsWith('::')) {
    gap = 0
    i = 2
    if (text.length === 2) return out
  } else if (text.charCodeAt(0) === COLON) return undefined
  for (;;) {
    // One group: up to four hex digits, or a dotted IPv4 tail.
    const start = i
    let value = 0
    while (i < text.length) {
      const digit = hexDigit(text.charCodeAt(i))
      if (digit < 0) break
      if (i - start === 4) return undefined
      value = value * 16 + digit
      i++
    }
    if (text.charCodeAt(i) === DOT) {
      if (at > 12 || !parseV4Into(text, start, out, at)) return undefined
      at += 4
      i = text.length
      break
    }
    if (i === start || at > 14) return undefined
    out[at++] = value >> 8
    out[at++] = value & 255
    if (i === text.length) break
    if (text.charCodeAt(i) !== COLON) return undefined
    i++
    if (text.charCodeAt(i) === COLON) {
      if (gap >= 0) return undefined
      gap = at
      i++
      if (i === text.length) break
    } else if (i === text.length) return undefined
  }
  if (gap < 0) return at === 16 ? out : undefined
  // `::` stands for at least one group of zeros (RFC 5952 §4.2.2 lets writers avoid less; readers refuse none).
  if (at > 14) return undefined
  out.copyWithin(16 - (at - gap), gap, at)
  out.fill(0, gap, 16 - (at - gap))
  return out
}

function isMapped(bytes: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false
  return bytes[10] === 255 && bytes[11] === 255
}

/** Parses an address; undefined if it is none (leading zeros, zones, brackets, ports are refused). */
export function parseIp(text: string): IpBytes | undefined {
  if (text.length < 2 || text.length > 45) return undefined
  if (!text.includes(':')) {
    const out = new Uint8Array(4)
    return parseV4Into(text, 0, out, 0) ? out : undefined
  }
  const bytes = parseV6(text)
  return bytes && isMapped(bytes) ? bytes.slice(12) : bytes
}

/** Canonical text: dotted IPv4 (also for 16 bytes that map IPv4), RFC 5952 for IPv6. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`
  if (isMapped(bytes)) return `${bytes[12]}.${bytes[13]}.${bytes[14]}.${bytes[15]}`
  let bestStart = -1
  let bestLength = 1 // a single group of zeros is not shortened (RFC 5952 §4.2.2)
  for (let i = 0; i < 8;) {
    let end = i
    while (end < 8 && bytes[end * 2] === 0 && bytes[end * 2 + 1] === 0) end++
    if (end - i > bestLength) {
      bestStart = i
      bestLength = end - i
    }
    i = end + 1
  }
  let text = ''
  for (let i = 0; i < 8; i++) {
    if (i === bestStart) {
      text += '::'
      i += bestLength - 1
      continue
    }
    if (text !== '' && !text.endsWith(':')) text += ':'
    text += (((bytes[i * 2] as number) << 8) | (bytes[i * 2 + 1] as number)).toString(16)
  }
  return text
}

/** The one text form of an address, so that strings can be compared; undefined if `text` is no address. */
export function canonicalIp(text: string): string | undefined {
  const bytes = parseIp(text)
  return bytes && formatIp(bytes)
}

/** 4 or 6, or 0 if `text` is no address. */
export function ipFamily(text: string): 0 | 4 | 6 {
  const bytes = parseIp(text)
  return bytes ? (bytes.length === 4 ? 4 : 6) : 0
}

/** 16 bytes with IPv4 mapped: the form of kernel keys. */
export function to16(bytes: IpBytes): Uint8Array {
  if (bytes.length === 16) return bytes
  const out = new Uint8Array(16)
  out[10] = 255
  out[11] = 255
  out.set(bytes, 12)
  return out
}

/** Parses an address or a CIDR range; host bits are cleared. Undefined for anything else. */
export function parseCidr(text: string): IpNetwork | undefined {
  const slash = text.indexOf('/')
  const address = slash < 0 ? text : text.slice(0, slash)
  let bytes = parseIp(address)
  if (!bytes) return undefined
  const full = bytes.length * 8
  let length = full
  if (slash >= 0) {
    const suffix = text.slice(slash + 1)
    if (suffix.length === 0 || suffix.length > 3) return undefined
    length = 0
    for (let i = 0; i < suffix.length; i++) {
      const digit = suffix.charCodeAt(i) - ZERO
      if (digit < 0 || digit > 9 || (i > 0 && length === 0)) return undefined
      length = length * 10 + digit
    }
    // A range over mapped addresses counts its bits from the IPv6 side.
    if (full === 32 && address.includes(':')) length -= 96
    if (length < 0 || length > full) return undefined
  }
  bytes = bytes.slice()
  clearHostBits(bytes, length)
  return { bytes, length }
}

function clearHostBits(bytes: Uint8Array, length: number): void {
  for (let i = 0; i < bytes.length; i++) {
    const left = length - i * 8
    if (left >= 8) continue
    bytes[i] = left <= 0 ? 0 : (bytes[i] as number) & (0xff << (8 - left))
  }
}

/** `address/length` in canonical form. */
export function formatCidr(network: IpNetwork): string {
  return `${formatIp(network.bytes)}/${network.length}`
}

/** True if the address lies in the range. Families never mix. */
export function containsIp(network: IpNetwork, address: IpBytes): boolean {
  const range = network.bytes
  if (range.length !== address.length) return false
  const whole = network.length >> 3
  for (let i = 0; i < whole; i++) if (range[i] !== address[i]) return false
  const rest = network.length & 7
  if (rest === 0) return true
  const mask = (0xff << (8 - rest)) & 0xff
  return (((range[whole] as number) ^ (address[whole] as number)) & mask) === 0
}

/** 127.0.0.0/8 and ::1. */
export function isLoopback(bytes: IpBytes): boolean {
  if (bytes.length === 4) return bytes[0] === 127
  for (let i = 0; i < 15; i++) if (bytes[i] !== 0) return false
  return bytes[15] === 1
}

/** `1.2.3.4:80`, `[::1]:80`. */
export function joinHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** Splits `host:port` or `[v6]:port`; the port is required, 0–65535, without sign or leading zeros. */
export function splitHostPort(text: string): HostPort | undefined {
  const colon = text.lastIndexOf(':')
  if (colon <= 0) return undefined
  let host = text.slice(0, colon)
  const port = parsePort(text.slice(colon + 1))
  if (port < 0) return undefined
  if (host.startsWith('[')) {
    if (!host.endsWith(']')) return undefined
    host = host.slice(1, -1)
    if (!host.includes(':')) return undefined
  } else if (host.includes(':')) return undefined
  return host === '' ? undefined : { host, port }
}

/** A decimal port, or −1. */
export function parsePort(text: string): number {
  if (text.length === 0 || text.length > 5) return -1
  let port = 0
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - ZERO
    if (digit < 0 || digit > 9 || (i > 0 && port === 0)) return -1
    port = port * 10 + digit
  }
  return port <= 65535 ? port : -1
}
