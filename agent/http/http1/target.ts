// The four forms of a request target, each only where it belongs (RFC 9112 §3.2), and what an authority may look like.
// Must not live here: the rest of the request line (request.ts), normal forms of a path (waypoint).
import type { RequestHead } from '../message.ts'
import { COLON, HEX, HOST } from './bytes.ts'
import { malformed } from './error.ts'

const SLASH = 47
const STAR = 42
const HASH = 35
const QUESTION = 63
const OPEN = 91
const CLOSE = 93
const DOT = 46

/** Fills authority, scheme and path of `head` from the target in bytes[start, end); `text` begins at bytes[base]. */
export function applyTarget(
  head: RequestHead,
  bytes: Uint8Array,
  start: number,
  end: number,
  text: string,
  base: number,
): void {
  if (head.method === 'CONNECT') {
    const port = checkAuthority(bytes, start, end)
    if (port === 0) throw malformed('The target of CONNECT is not host:port.')
    head.authority = text.slice(start - base, end - base)
    head.scheme = ''
    return
  }
  if (bytes[start] === SLASH) {
    head.path = text.slice(start - base, withoutFragment(bytes, start, end) - base)
    return
  }
  if (bytes[start] === STAR && end - start === 1) {
    if (head.method !== 'OPTIONS') throw malformed('The target `*` belongs to OPTIONS only.')
    head.path = '*'
    return
  }
  const scheme = schemeOf(text.slice(start - base, start - base + 8).toLowerCase())
  if (scheme === '') throw malformed('The request target has none of the forms of RFC 9112 §3.2.')
  const from = start + scheme.length + 3
  let at = from
  while (at < end && bytes[at] !== SLASH && bytes[at] !== QUESTION) at++
  checkAuthority(bytes, from, at)
  head.scheme = scheme
  // The target's authority wins over Host (RFC 9112 §3.2.2).
  head.authority = text.slice(from - base, at - base)
  const stop = withoutFragment(bytes, at, end)
  const rest = text.slice(at - base, stop - base)
  if (rest === '') head.path = head.method === 'OPTIONS' ? '*' : '/'
  else head.path = rest.charCodeAt(0) === SLASH ? rest : `/${rest}`
}

function schemeOf(lower: string): string {
  if (lower.startsWith('http://')) return 'http'
  return lower === 'https://' ? 'https' : ''
}

/** A target has no fragment; one that a client sent anyway is cut off before any policy sees it (CVE-2021-39156). */
function withoutFragment(bytes: Uint8Array, start: number, end: number): number {
  for (let at = start; at < end; at++) if (bytes[at] === HASH) return at
  return end
}

/** uri-host with an optional port: no userinfo, no list, no path, not empty (RFC 9110 §7.2). Returns the number of digits of the port. */
export function checkAuthority(bytes: Uint8Array, start: number, end: number): number {
  let at = start
  if (bytes[at] === OPEN) {
    at++
    while (at < end && (HEX[bytes[at] as number] !== 255 || bytes[at] === COLON || bytes[at] === DOT)) at++
    if (at === end || bytes[at] !== CLOSE || at - start < 3) throw badHost()
    at++
  } else {
    while (at < end && HOST[bytes[at] as number] === 1) at++
    if (at === start) throw badHost()
  }
  if (at === end) return 0
  if (bytes[at] !== COLON) throw badHost()
  // A colon without a port is valid (RFC 3986 §3.2.3: port is *DIGIT).
  const port = at + 1
  for (at = port; at < end; at++) {
    const c = bytes[at] as number
    if (c < 48 || c > 57) throw badHost()
  }
  if (end - port > 5) throw badHost()
  return end - port
}

function badHost(): Error {
  return malformed('Host is empty or malformed.')
}
