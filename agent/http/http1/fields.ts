// What the fields of a head say about the connection: framing, keep-alive, upgrade. Hop-by-hop fields end here, in both
// directions: users see and send end-to-end fields only (RFC 9110 §7.6.1). Must not live here: start lines.
import type { Headers } from '../message.ts'
import { Http1Error, malformed } from './error.ts'

/** Framing by Content-Length, else one of these. */
export const NO_BODY = -1
export const CHUNKED = -2
export const UNTIL_CLOSE = -3

export interface Facts {
  /** Content-Length, or -1. */
  length: number
  chunked: boolean
  close: boolean
  keepAlive: boolean
  /** Upgrade token in lower case when Connection lists it, else ''. */
  upgrade: string
  host: string | undefined
}

/** Never removed because a Connection field names them: policy and framing rest on them (hop-by-hop abuse). */
const PROTECTED: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'authorization',
  'cookie',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-forwarded-client-cert',
  'x-request-id',
  'traceparent',
  'via',
  'content-type',
  'expect',
])

/** Fields that are about this connection only. `te: trailers` is the one value of `te` that goes on. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'te',
])

const DIGITS = /^[0-9]{1,16}$/

/** Content-Length is 1*DIGIT, once (RFC 9112 §6.3 allows equal repeats to be merged; refusing them is what llhttp does too). */
export function parseLength(value: string): number {
  const length = DIGITS.test(value) ? Number(value) : -1
  if (length < 0 || length > Number.MAX_SAFE_INTEGER) {
    throw new Http1Error(400, 'http1.content_length_not_allowed', 'Content-Length is not one whole number.')
  }
  return length
}

/**
 * Reads and removes hop-by-hop fields in place. Refuses what two readers could frame differently: repeated lengths, length
 * beside Transfer-Encoding, any coding other than a single `chunked` (RFC 9112 §6.1, §6.3).
 */
export function readFields(headers: Headers, minor: number): Facts {
  const facts: Facts = {
    length: -1,
    chunked: false,
    close: false,
    keepAlive: minor === 1,
    upgrade: '',
    host: undefined,
  }
  let connection: string | undefined
  let upgrade: string | undefined
  let coding: string | undefined
  let dropped = false
  let to = 0
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    let value = headers[i + 1] as string
    let keep = true
    switch (name) {
      case 'content-length':
        if (facts.length >= 0) {
          throw new Http1Error(400, 'http1.content_length_not_allowed', 'Content-Length is given twice.')
        }
        facts.length = parseLength(value)
        // `007` is a number like any other; what goes on has one spelling.
        value = String(facts.length)
        break
      case 'transfer-encoding':
        coding = coding === undefined ? value : `${coding},${value}`
        keep = false
        break
      case 'connection':
        connection = connection === undefined ? value : `${connection},${value}`
        keep = false
        break
      case 'upgrade':
        upgrade = upgrade === undefined ? value : `${upgrade},${value}`
        keep = false
        break
      case 'host':
        if (facts.host !== undefined) throw malformed('Host is given twice.')
        facts.host = value
        keep = false
        break
      case 'te':
        keep = hasToken(value, 'trailers')
        value = 'trailers'
        break
      case 'keep-alive':
      case 'proxy-connection':
      case 'http2-settings':
        keep = false
        break
      default:
    }
    if (!keep) {
      dropped = true
      continue
    }
    headers[to++] = name
    headers[to++] = value
  }
  if (dropped) headers.length = to
  if (coding !== undefined) {
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
    if (coding.toLowerCase() !== 'chunked') {
      throw new Http1Error(501, 'http1.invalid_transfer_encoding', 'Transfer-Encoding is not a single `chunked`.')
    }
    facts.chunked = true
  }
  if (connection !== undefined) applyConnection(headers, connection, facts, upgrade)
  return facts
}

function applyConnection(headers: Headers, connection: string, facts: Facts, upgrade: string | undefined): void {
  for (const part of connection.split(',')) {
    const token = part.trim().toLowerCase()
    if (token === 'close') facts.close = true
    else if (token === 'keep-alive') facts.keepAlive = true
    else if (token === 'upgrade') facts.upgrade = upgrade === undefined ? '' : upgrade.toLowerCase()
    else if (token !== '' && token !== 'te' && !PROTECTED.has(token)) removeNamed(headers, token)
  }
  if (facts.close) facts.keepAlive = false
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
  for (const part of list.split(',')) {
    const semicolon = part.indexOf(';')
    if ((semicolon < 0 ? part : part.slice(0, semicolon)).trim().toLowerCase() === token) return true
  }
  return false
}
