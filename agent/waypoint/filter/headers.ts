// Header hygiene on both ways: hop-by-hop fields end here (RFC 9110 §7.6.1), control headers of clients are not believed,
// every request has an id. Must not live here: header operations of routes (forward.ts).
import { header, removeHeader, type Headers, type ResponseHead } from '../../http/message.ts'
import { isGrpcType } from '../reply.ts'
import type { Run } from '../run.ts'
import { newRequestId } from './request-id.ts'

/** Removed on both ways; `te: trailers` survives, gRPC needs it. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])

/** What frames or identifies the message cannot be taken away by a sender's word. */
const PROTECTED: ReadonlySet<string> = new Set(['close', 'keep-alive', 'host', 'content-length', 'te'])

/**
 * Request fields by which a client could steer Envoy, or claim to be a proxy (reference: l7, trusted control headers, XFCC):
 * any workload could otherwise raise its own timeouts, ask for retries, or forge a certificate's identity.
 */
const UNTRUSTED: ReadonlySet<string> = new Set([
  'x-forwarded-client-cert',
  'x-envoy-max-retries',
  'x-envoy-retry-on',
  'x-envoy-retry-grpc-on',
  'x-envoy-retriable-status-codes',
  'x-envoy-retriable-header-names',
  'x-envoy-upstream-rq-timeout-ms',
  'x-envoy-upstream-rq-per-try-timeout-ms',
  'x-envoy-upstream-rq-timeout-alt-response',
  'x-envoy-hedge-on-per-try-timeout',
  'x-envoy-upstream-alt-stat-name',
  'x-envoy-force-trace',
  'x-envoy-original-path',
  'x-envoy-original-host',
  'x-envoy-internal',
  'x-envoy-external-address',
  'x-envoy-expected-rq-timeout-ms',
  'x-envoy-attempt-count',
  'x-envoy-decorator-operation',
  'x-envoy-peer-metadata',
  'x-envoy-peer-metadata-id',
])

/** Removes what `connection` names, from a list that has been cleaned otherwise. */
function removeNamed(headers: Headers, connection: string): void {
  for (const token of connection.split(',')) {
    const name = token.trim().toLowerCase()
    if (name !== '' && !PROTECTED.has(name)) removeHeader(headers, name)
  }
}

/** True for the first letter and length of what `drop` might remove: spares most names the look-up. */
function suspicious(name: string): boolean {
  switch (name.charCodeAt(0)) {
    case 120: // x-envoy-…, x-forwarded-client-cert
      return name.length >= 14 && (name.charCodeAt(2) === 101 || name.charCodeAt(2) === 102)
    case 99: // connection
      return name.length === 10
    case 104: // host, http2-settings
      return name.length === 4 || name.length === 14
    case 107: // keep-alive
    case 112: // proxy-…
    case 116: // te, transfer-encoding
      return true
    case 117: // upgrade
      return name.length === 7
    default:
      return false
  }
}

/**
 * The request head on its way in, in one pass: removes what must not go on, notes what others will ask for, and completes it.
 * Comes before everything that reads the head.
 */
export function receiveHead(run: Run): void {
  const { head } = run
  const { headers } = head
  let to = 0
  let bytes = 0
  let named = ''
  let trailers = false
  let proto: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    bytes += name.length + value.length + 4
    if (suspicious(name)) {
      if (name === 'connection') {
        if (value !== 'keep-alive' && value !== 'close') named = named === '' ? value : `${named},${value}`
        continue
      }
      if (name === 'te') {
        trailers ||= value === 'trailers' || hasTrailers(value)
        continue
      }
      // The authority is a field of its own; two names for one thing invite confusion.
      if (name === 'host' || HOP_BY_HOP.has(name) || UNTRUSTED.has(name)) continue
      if (name === 'x-forwarded-proto') proto ??= value
      else if (name === 'x-forwarded-for') run.forwardedFor ??= value
    } else if (name === 'user-agent') run.userAgent ??= value
    else if (name === 'x-request-id') {
      if (run.requestId === '') run.requestId = value
    } else if (name === 'content-type') run.grpc ||= isGrpcType(value)
    if (to !== i) {
      headers[to] = name
      headers[to + 1] = value
    }
    to += 2
  }
  if (to !== headers.length) headers.length = to
  run.headBytes = bytes
  if (named !== '') {
    removeNamed(headers, named)
    run.requestId = header(headers, 'x-request-id') ?? ''
    run.userAgent = header(headers, 'user-agent')
    run.forwardedFor = header(headers, 'x-forwarded-for')
    proto = header(headers, 'x-forwarded-proto')
    run.grpc = isGrpcType(header(headers, 'content-type') ?? '')
  }
  if (trailers) headers.push('te', 'trailers')
  if (run.requestId === '') {
    run.requestId = newRequestId()
    if (header(headers, 'x-request-id') === '') removeHeader(headers, 'x-request-id')
    headers.push('x-request-id', run.requestId)
  }
  if (proto === undefined) headers.push('x-forwarded-proto', head.scheme || 'http')
  // HTTP/1.1 has no scheme of its own: a proxy in front says it in x-forwarded-proto (as Envoy reads it).
  run.scheme = run.exchange.version === 1 && (proto === 'http' || proto === 'https') ? proto : head.scheme || 'http'
}

/** The response head on its way out, in one pass, after the operations of the route. */
export function sendHead(run: Run, head: ResponseHead): void {
  if (head.status === 101) return
  const { headers } = head
  let to = 0
  let named = ''
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    if (suspicious(name)) {
      if (name === 'connection') {
        if (value !== 'keep-alive' && value !== 'close') named = named === '' ? value : `${named},${value}`
        continue
      }
      if (name === 'x-envoy-upstream-service-time' || HOP_BY_HOP.has(name)) continue
    } else if (name === 'server') continue
    if (to !== i) {
      headers[to] = name
      headers[to + 1] = value
    }
    to += 2
  }
  if (to !== headers.length) headers.length = to
  if (named !== '') removeNamed(headers, named)
  headers.push('server', 'istio-envoy')
  if (run.upstreamSentAt > 0 && run.requestEnded) {
    const elapsed = Math.round(run.upstreamHeadAt - run.upstreamSentAt)
    headers.push('x-envoy-upstream-service-time', elapsed > 0 ? String(elapsed) : '0')
  }
}

function hasTrailers(te: string): boolean {
  return te.split(',').some((token) => token.trim().toLowerCase() === 'trailers')
}
