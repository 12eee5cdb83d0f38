// A request head: start line, the four forms of the target, Host, and which body follows (RFC 9112 §3, §6).
// Must not live here: fields (fields.ts), bytes to lines (head.ts).
import type { RequestHead } from '../message.ts'
import { CR, HOST, isToken, latin1, LF, SP, TARGET, TOKEN } from './bytes.ts'
import { Http1Error, malformed } from './error.ts'
import { CHUNKED, NO_BODY, readFields } from './fields.ts'
import { splitFields, type Collector } from './head.ts'

export interface ParsedRequest {
  readonly head: RequestHead
  /** 0 or 1. */
  readonly minor: number
  /** Content-Length, NO_BODY or CHUNKED. */
  readonly framing: number
  readonly keepAlive: boolean
}

/** Parses a complete request head. Throws Http1Error with the status to answer. `secure`: the bytes came over TLS. */
export function parseRequest(collector: Collector, maxFields: number, secure: boolean): ParsedRequest {
  const { bytes, start, end } = collector
  const text = latin1(bytes, start, end)
  let at = start
  while (TOKEN[bytes[at] as number]) at++
  if (at === start || bytes[at] !== SP) throw malformed('The request line does not begin with a method.')
  const method = text.slice(0, at - start)
  const targetStart = ++at
  while (TARGET[bytes[at] as number]) at++
  if (at === targetStart || bytes[at] !== SP) throw malformed('The request target holds what a target must not.')
  const target = text.slice(targetStart - start, at - start)
  at++
  const minor = parseVersion(text, at - start)
  at += 8
  if (bytes[at] !== CR || bytes[at + 1] !== LF) throw malformed('The request line does not end after the version.')
  const headers = splitFields(bytes, start, at + 2, end, text, maxFields)
  const facts = readFields(headers, minor)
  const head: RequestHead = {
    method,
    scheme: secure ? 'https' : 'http',
    authority: '',
    path: '',
    protocol: '',
    headers,
  }
  if (facts.host === undefined) {
    if (minor === 1) throw new Http1Error(400, 'missing_host_header', 'Host is missing.')
  } else {
    checkAuthority(facts.host)
    head.authority = facts.host
  }
  applyTarget(head, target)
  let framing = NO_BODY
  if (facts.chunked) framing = CHUNKED
  else if (facts.length >= 0) framing = facts.length
  if (method === 'CONNECT') {
    if (framing === CHUNKED || framing > 0) throw malformed('CONNECT with a body.')
    framing = NO_BODY
  }
  // h2c by upgrade is refused everywhere (a way past a proxy's policy); an upgrade with a body is served without it.
  if (facts.upgrade !== '' && minor === 1 && framing <= 0 && framing !== CHUNKED && method !== 'CONNECT') {
    if (isToken(facts.upgrade) && facts.upgrade !== 'h2c') head.protocol = facts.upgrade
  }
  return { head, minor, framing, keepAlive: facts.keepAlive }
}

/** `HTTP/1.0` or `HTTP/1.1` at `at`; another version of HTTP is 505, anything else 400. */
export function parseVersion(text: string, at: number): number {
  if (text.startsWith('HTTP/1.', at)) {
    const minor = text.charCodeAt(at + 7)
    if (minor === 49) return 1
    if (minor === 48) return 0
  }
  if (/^HTTP\/[0-9]\.[0-9]\r/.test(text.slice(at, at + 9))) {
    throw new Http1Error(505, 'http1.codec_error', 'Only HTTP/1.0 and HTTP/1.1 are spoken here.')
  }
  throw malformed('The HTTP version is malformed.')
}

/** RFC 9112 §3.2: origin, absolute, authority and asterisk form, each only where it belongs. */
function applyTarget(head: RequestHead, target: string): void {
  if (head.method === 'CONNECT') {
    checkAuthority(target)
    if (!/:[0-9]{1,5}$/.test(target)) throw malformed('The target of CONNECT is not host:port.')
    head.authority = target
    head.scheme = ''
    return
  }
  if (target.charCodeAt(0) === 47) {
    head.path = target
    return
  }
  if (target === '*') {
    if (head.method !== 'OPTIONS') throw malformed('The target `*` belongs to OPTIONS only.')
    head.path = '*'
    return
  }
  const match = /^(https?):\/\/([^/?#]*)(.*)$/i.exec(target)
  if (!match) throw malformed('The request target has none of the forms of RFC 9112 §3.2.')
  const [, scheme = '', authority = '', rest = ''] = match
  checkAuthority(authority)
  head.scheme = scheme.toLowerCase()
  // The target's authority wins over Host (RFC 9112 §3.2.2).
  head.authority = authority
  if (rest === '') head.path = head.method === 'OPTIONS' ? '*' : '/'
  else head.path = rest.charCodeAt(0) === 47 ? rest : `/${rest}`
}

/** uri-host with an optional port: no userinfo, no list, no path, not empty (RFC 9110 §7.2). */
export function checkAuthority(authority: string): void {
  let at = 0
  if (authority.charCodeAt(0) === 91) {
    const close = authority.indexOf(']')
    if (close < 3 || !/^[0-9a-fA-F:.]+$/.test(authority.slice(1, close))) throw malformed('Host is malformed.')
    at = close + 1
  } else {
    while (HOST[authority.charCodeAt(at)]) at++
    if (at === 0) throw malformed('Host is empty or malformed.')
  }
  if (at === authority.length) return
  // A colon without a port is valid (RFC 3986 §3.2.3: port is *DIGIT).
  if (authority.charCodeAt(at) !== 58 || !/^[0-9]{0,5}$/.test(authority.slice(at + 1)))
    throw malformed('Host is malformed.')
}
