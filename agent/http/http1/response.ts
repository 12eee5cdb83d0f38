// A response head: status line, and which body follows, which the request decides too (RFC 9112 §4, §6.3).
import type { ResponseHead } from '../message.ts'
import { removeHeader } from '../message.ts'
import { CR, latin1, LF, SP, VALUE } from './bytes.ts'
import { malformed } from './error.ts'
import { CHUNKED, facts, NO_BODY, readFields, UNTIL_CLOSE } from './fields.ts'
import { INCOMPLETE, scanFields } from './lines.ts'
import { parseVersion } from './request.ts'

/** A parsed response, beside its head. One for the whole process: taken before anything else is parsed. */
export const response = {
  head: undefined as unknown as ResponseHead,
  /** Content-Length, NO_BODY, CHUNKED or UNTIL_CLOSE. */
  framing: NO_BODY,
  keepAlive: false,
  /** 101, or 2xx to CONNECT: raw bytes follow. */
  tunnel: false,
  /** Upgrade token of a 101. */
  upgrade: '',
}

/**
 * Parses a response head, to a request with `method`, in bytes[start, end) into `response`; returns the offset behind it, or
 * INCOMPLETE. Throws Http1Error, final only if the head is complete.
 */
export function parseResponse(
  bytes: Uint8Array,
  start: number,
  end: number,
  maxFields: number,
  method: string,
): number {
  if (start + 13 > end) return INCOMPLETE
  const minor = parseVersion(bytes, start)
  if (bytes[start + 8] !== SP) throw malformed('The status line has no valid status.')
  const hundreds = (bytes[start + 9] as number) - 48
  const tens = (bytes[start + 10] as number) - 48
  const ones = (bytes[start + 11] as number) - 48
  if (hundreds < 1 || hundreds > 5 || tens < 0 || tens > 9 || ones < 0 || ones > 9) {
    throw malformed('The status line has no valid status.')
  }
  const status = hundreds * 100 + tens * 10 + ones
  // RFC 9110 §15.2: HTTP/1.0 has none; some readers take them for the final response.
  if (status < 200 && minor === 0) throw malformed('An informational response in HTTP/1.0.')
  let at = start + 12
  // Some servers leave the space away together with the reason.
  if (bytes[at] === SP) {
    at++
    while (at < end && VALUE[bytes[at] as number] === 1) at++
  }
  if (at + 2 > end) return INCOMPLETE
  if (bytes[at] !== CR || bytes[at + 1] !== LF) throw malformed('The status line does not end with CRLF.')
  const stop = scanFields(bytes, at + 2, end, maxFields)
  if (stop === INCOMPLETE) return INCOMPLETE
  const text = latin1(bytes, start, stop)
  const headers = readFields(text, start, minor, false)
  // The connection would end before the response that this one announces.
  if (status < 200 && status !== 101 && !facts.keepAlive) throw malformed('An informational response that closes.')
  const tunnel = status === 101 || (method === 'CONNECT' && status >= 200 && status < 300)
  let framing = UNTIL_CLOSE
  if (status < 200 || status === 204 || tunnel) {
    framing = NO_BODY
    // Meaningless here and forbidden to be sent on (RFC 9110 §8.6).
    if (facts.length >= 0) removeHeader(headers, 'content-length')
  } else if (status === 304 || method === 'HEAD') framing = NO_BODY
  else if (facts.chunked) framing = CHUNKED
  else if (facts.length >= 0) framing = facts.length
  response.head = { status, headers }
  response.framing = framing
  response.keepAlive = facts.keepAlive && framing !== UNTIL_CLOSE && !tunnel
  response.tunnel = tunnel
  response.upgrade = facts.upgrade
  return stop
}
