// What the fields of a head say about the connection: framing, keep-alive, upgrade, expectations. Hop-by-hop fields end here, in
// both directions: users see and send end-to-end fields only (RFC 9110 §7.6.1). Must not live here: start lines.
import type { Headers } from '../message.ts'
import { CR, HTAB, SP } from './bytes.ts'
import { Http1Error, malformed } from './error.ts'
import { nameAt, section, STRIDE, valueAt } from './lines.ts'
import * as names from './names.ts'

/** Framing by Content-Length, else one of these. */
export const NO_BODY = -1
export const CHUNKED = -2
export const UNTIL_CLOSE = -3

/**
 * What `readFields` found. One for the whole process, overwritten by each head: its values are taken before anything else is
 * parsed, and nothing in between calls a user.
 */
export const facts = {
  /** Content-Length, or -1. */
  length: -1,
  chunked: false,
  keepAlive: false,
  /** Upgrade token in lower case when Connection lists it, else ''. */
  upgrade: '',
  /** Value of Host, where its bytes lie (-1: there is none). */
  host: undefined as string | undefined,
  hostStart: -1,
  hostEnd: -1,
}

const ZERO = 48

/** Content-Length is 1*DIGIT, once (RFC 9112 §6.3 allows equal repeats to be merged; refusing them is what llhttp does too). */
export function parseLength(value: string): number {
  let length = value.length > 0 && value.length <= 16 ? 0 : -1
  for (let i = 0; i < value.length && length >= 0; i++) {
    const digit = value.charCodeAt(i) - ZERO
    length = digit >= 0 && digit <= 9 ? length * 10 + digit : -1
  }
  if (length < 0 || length > Number.MAX_SAFE_INTEGER) {
    throw new Http1Error(400, 'http1.content_length_not_allowed', 'Content-Length is not one whole number.')
  }
  return length
}

/**
 * End-to-end fields of the section that was scanned last, and `facts` about the rest. `text` begins at bytes[base]. Refuses what
 * two readers could frame differently: repeated lengths, length beside Transfer-Encoding, any coding other than a single
 * `chunked` (RFC 9112 §6.1, §6.3). `request`: judges Expect too.
 */
export function readFields(text: string, base: number, minor: number, request: boolean): Headers {
  const headers: Headers = []
  const { spans, count } = section
  facts.length = -1
  facts.chunked = false
  facts.keepAlive = minor === 1
  facts.upgrade = ''
  facts.host = undefined
  let connection: string | undefined
  let upgrade: string | undefined
  let coding: string | undefined
  let expected = false
  for (let at = 0; at < count * STRIDE; at += STRIDE) {
    const id = spans[at] as number
    const value = valueAt(at, text, base)
    if (id > names.HTTP2_SETTINGS || id <= 0) {
      headers.push(nameAt(at, text, base), value)
      continue
    }
    switch (id) {
      case names.CONTENT_LENGTH:
        if (facts.length >= 0) {
          throw new Http1Error(400, 'http1.content_length_not_allowed', 'Content-Length is given twice.')
        }
        facts.length = parseLength(value)
        // `007` is a number like any other; what goes on has one spelling.
        headers.push('content-length', value.charCodeAt(0) === ZERO ? String(facts.length) : value)
        break
      case names.TRANSFER_ENCODING:
        checkBlanks(text, (spans[at + 3] as number) - base, (spans[at + 4] as number) - base)
        coding = join(coding, value)
        break
      case names.CONNECTION:
        connection = join(connection, value)
        break
      case names.UPGRADE:
        upgrade = join(upgrade, value)
        break
      case names.HOST:
        if (facts.host !== undefined) throw malformed('Host is given twice.')
        facts.host = value
        facts.hostStart = spans[at + 3] as number
        facts.hostEnd = spans[at + 4] as number
        break
      case names.TE:
        if (hasToken(value, 'trailers')) headers.push('te', 'trailers')
        break
      case names.EXPECT:
        if (!request) headers.push('expect', value)
        else if (value.toLowerCase() !== '100-continue') {
          throw new Http1Error(417, 'http1.unknown_expectation', 'Only `Expect: 100-continue` can be met.')
        } else if (minor === 1 && !expected) {
          // RFC 9110 §10.1.1: an HTTP/1.0 client does not understand 1xx, its expectation is ignored.
          headers.push('expect', '100-continue')
          expected = true
        }
        break
      default:
      // keep-alive, proxy-connection, http2-settings: about this connection.
    }
  }
  if (coding !== undefined) checkCoding(coding, minor)
  if (connection !== undefined) applyConnection(headers, connection, upgrade)
  return headers
}

/**
 * Blanks around the coding are allowed (RFC 9112 §5), and a known way to hide it: other readers, llhttp among them, do not know
 * `chunked` with a tab behind. Who writes honestly puts one space before and nothing after.
 */
function checkBlanks(text: string, start: number, end: number): void {
  if (text.charCodeAt(end) !== CR || text.charCodeAt(start - 1) === HTAB) {
    throw new Http1Error(400, 'http1.invalid_transfer_encoding', 'Blanks hide the Transfer-Encoding.')
  }
}

function join(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before},${value}`
}

function checkCoding(coding: string, minor: number): void {
  if (facts.length >= 0) {
    throw new Http1Error(
      400,
      'http1.content_length_and_chunked_not_allowed',
      'Content-Length beside Transfer-Encoding.',
    )
  }
  if (minor === 0) {
    throw new Http1Error(400, 'http1.invalid_transfer_encoding', 'Transfer-Encoding in HTTP/1.0.')
  }
  if (coding !== 'chunked' && coding.toLowerCase() !== 'chunked') {
    throw new Http1Error(501, 'http1.invalid_transfer_encoding', 'Transfer-Encoding is not a single `chunked`.')
  }
  facts.chunked = true
}

function applyConnection(headers: Headers, connection: string, upgrade: string | undefined): void {
  if (connection === 'keep-alive') {
    facts.keepAlive = true
    return
  }
  let close = false
  for (const part of connection.split(',')) {
    const token = trimBlanks(part).toLowerCase()
    if (token === 'close') close = true
    else if (token === 'keep-alive') facts.keepAlive = true
    else if (token === 'upgrade') facts.upgrade = upgrade === undefined ? '' : upgrade.toLowerCase()
    else if (token !== '' && token !== 'te' && ((names.flagsOf(token) ?? 0) & names.PROTECTED) === 0) {
      removeNamed(headers, token)
    }
  }
  if (close) facts.keepAlive = false
}

/** Without SP and HTAB around: `trim` would take other characters for blanks, such as a no-break space in obs-text. */
function trimBlanks(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return start === 0 && end === text.length ? text : text.slice(start, end)
}

function isBlank(c: number): boolean {
  return c === SP || c === HTAB
}

function removeNamed(headers: Headers, name: string): void {
  let to = 0
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === name) continue
    headers[to++] = headers[i] as string
    headers[to++] = headers[i + 1] as string
  }
  headers.length = to
}

/** True if a comma-separated list holds the token, whatever its case. Parameters of an element are ignored. */
export function hasToken(list: string, token: string): boolean {
  if (list === token) return true
  for (const part of list.split(',')) {
    const semicolon = part.indexOf(';')
    if (trimBlanks(semicolon < 0 ? part : part.slice(0, semicolon)).toLowerCase() === token) return true
  }
  return false
}
