// A request head: start line, Host, and which body follows (RFC 9112 §3, §6).
// Must not live here: the forms of the target (target.ts), fields (fields.ts, lines.ts).
import type { RequestHead } from '../message.ts'
import { CR, isProtocol, latin1, LF, SP, startsWith, TARGET, TOKEN } from './bytes.ts'
import { Http1Error, malformed, targetTooLong } from './error.ts'
import { CHUNKED, facts, NO_BODY, readFields } from './fields.ts'
import { INCOMPLETE, scanFields } from './lines.ts'
import { applyTarget, checkAuthority } from './target.ts'

/** A parsed request, beside its head. One for the whole process: taken before anything else is parsed. */
export const request = {
  head: undefined as unknown as RequestHead,
  /** 0 or 1. */
  minor: 1,
  /** Content-Length, NO_BODY or CHUNKED. */
  framing: NO_BODY,
  keepAlive: false,
}

/**
 * Parses a request head in bytes[start, end) into `request`; returns the offset behind it, or INCOMPLETE. Throws Http1Error with the
 * status to answer, which is final only if the head is complete. `secure`: the bytes came over TLS. `maxTarget`: 414 above.
 */
export function parseRequest(
  bytes: Uint8Array,
  start: number,
  end: number,
  maxFields: number,
  maxTarget: number,
  secure: boolean,
): number {
  let at = start
  while (at < end && TOKEN[bytes[at] as number] !== 0) at++
  if (at === end) return INCOMPLETE
  if (at === start || bytes[at] !== SP) throw malformed('The request line does not begin with a method.')
  const methodEnd = at++
  const targetStart = at
  while (at < end && TARGET[bytes[at] as number] === 1) at++
  if (at === end) return INCOMPLETE
  if (at === targetStart || bytes[at] !== SP) throw malformed('The request target holds what a target must not.')
  const targetEnd = at++
  if (at + 10 > end) return INCOMPLETE
  const minor = parseVersion(bytes, at)
  at += 8
  if (bytes[at] !== CR || bytes[at + 1] !== LF) throw malformed('The request line does not end after the version.')
  const stop = scanFields(bytes, at + 2, end, maxFields)
  if (stop === INCOMPLETE) return INCOMPLETE
  if (targetEnd - targetStart > maxTarget) throw targetTooLong(maxTarget)
  const text = latin1(bytes, start, stop)
  const method = methodOf(bytes, start, methodEnd, text)
  const headers = readFields(text, start, minor, true)
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
    checkAuthority(bytes, facts.hostStart, facts.hostEnd)
    head.authority = facts.host
  }
  applyTarget(head, bytes, targetStart, targetEnd, text, start)
  let framing = NO_BODY
  if (facts.chunked) framing = CHUNKED
  else if (facts.length >= 0) framing = facts.length
  if (method === 'CONNECT') {
    if (framing === CHUNKED || framing > 0) throw malformed('CONNECT with a body.')
    framing = NO_BODY
  }
  // h2c by upgrade is refused everywhere (a way past a proxy's policy); an upgrade with a body is served without it.
  else if (facts.upgrade !== '' && minor === 1 && framing <= 0 && framing !== CHUNKED) {
    if (isProtocol(facts.upgrade) && facts.upgrade !== 'h2c') head.protocol = facts.upgrade
  }
  request.head = head
  request.minor = minor
  request.framing = framing
  request.keepAlive = facts.keepAlive
  return stop
}

/** The methods most requests have cost no text of their own. */
const METHODS = ['GET', 'PUT', 'POST', 'HEAD', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT']

function methodOf(bytes: Uint8Array, start: number, end: number, text: string): string {
  for (const method of METHODS) {
    if (method.length === end - start && startsWith(bytes, start, method)) return method
  }
  return text.slice(0, end - start)
}

/** `HTTP/1.0` or `HTTP/1.1` in the eight bytes from `at`; another version of HTTP is 505, anything else 400. */
export function parseVersion(bytes: Uint8Array, at: number): number {
  const minor = bytes[at + 7]
  if (startsWith(bytes, at, 'HTTP/1.')) {
    if (minor === 49) return 1
    if (minor === 48) return 0
  }
  if (startsWith(bytes, at, 'HTTP/') && isDigit(bytes[at + 5]) && bytes[at + 6] === 46 && isDigit(minor)) {
    if (bytes[at + 8] === CR)
      throw new Http1Error(505, 'http1.codec_error', 'Only HTTP/1.0 and HTTP/1.1 are spoken here.')
  }
  throw malformed('The HTTP version is malformed.')
}

function isDigit(c: number | undefined): boolean {
  return c !== undefined && c >= 48 && c <= 57
}
