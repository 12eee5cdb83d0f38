// A response head: status line, and which body follows, which the request decides too (RFC 9112 §4, §6.3).
import type { ResponseHead } from '../message.ts'
import { CR, latin1, LF, SP, VALUE } from './bytes.ts'
import { malformed } from './error.ts'
import { CHUNKED, NO_BODY, readFields, UNTIL_CLOSE } from './fields.ts'
import { splitFields, type Collector } from './head.ts'
import { parseVersion } from './request.ts'

export interface ParsedResponse {
  readonly head: ResponseHead
  readonly minor: number
  /** Content-Length, NO_BODY, CHUNKED or UNTIL_CLOSE. */
  readonly framing: number
  readonly keepAlive: boolean
  /** 101, or 2xx to CONNECT: raw bytes follow. */
  readonly tunnel: boolean
  /** Upgrade token of a 101. */
  readonly upgrade: string
}

/** Parses a complete response head to a request with `method`. Throws Http1Error. */
export function parseResponse(collector: Collector, maxFields: number, method: string): ParsedResponse {
  const { bytes, start, end } = collector
  const text = latin1(bytes, start, end)
  const minor = parseVersion(text, 0)
  const digits = text.slice(9, 12)
  if (bytes[start + 8] !== SP || !/^[1-5][0-9][0-9]$/.test(digits))
    throw malformed('The status line has no valid status.')
  const status = Number(digits)
  let at = start + 12
  // Some servers leave the space away together with the reason.
  if (bytes[at] === SP) {
    at++
    while (VALUE[bytes[at] as number]) at++
  }
  if (bytes[at] !== CR || bytes[at + 1] !== LF) throw malformed('The status line does not end with CRLF.')
  const headers = splitFields(bytes, start, at + 2, end, text, maxFields)
  const facts = readFields(headers, minor)
  const tunnel = status === 101 || (method === 'CONNECT' && status >= 200 && status < 300)
  let framing = UNTIL_CLOSE
  if (status < 200 || status === 204 || tunnel) {
    framing = NO_BODY
    // Meaningless here and forbidden to be sent on (RFC 9110 §8.6).
    dropLength(headers)
  } else if (status === 304 || method === 'HEAD') framing = NO_BODY
  else if (facts.chunked) framing = CHUNKED
  else if (facts.length >= 0) framing = facts.length
  return {
    head: { status, headers },
    minor,
    framing,
    keepAlive: facts.keepAlive && framing !== UNTIL_CLOSE && !tunnel,
    tunnel,
    upgrade: facts.upgrade,
  }
}

function dropLength(headers: string[]): void {
  const at = headers.indexOf('content-length')
  if (at >= 0 && at % 2 === 0) headers.splice(at, 2)
}
