// Header hygiene on both ways: hop-by-hop fields end here (RFC 9110 §7.6.1), control headers of clients are not believed,
// every request has an id. Must not live here: header operations of routes (forward.ts).
import { randomUUID } from 'node:crypto'
import { header, removeHeader, setHeader, type Headers } from '../../http/message.ts'
import type { Filter } from './filter.ts'

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

/** Removes hop-by-hop fields, those that `connection` names, and where asked the untrusted ones, in one pass in place. */
export function cleanHeaders(headers: Headers, request: boolean): void {
  let named: Set<string> | undefined
  let trailers = false
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === 'connection') {
      for (const token of (headers[i + 1] as string).split(',')) {
        const name = token.trim().toLowerCase()
        // What frames or identifies the message cannot be taken away by a sender's word.
        if (name && name !== 'close' && name !== 'keep-alive' && name !== 'host' && name !== 'content-length') {
          ;(named ??= new Set()).add(name)
        }
      }
    } else if (headers[i] === 'te') {
      trailers ||= (headers[i + 1] as string).split(',').some((token) => token.trim().toLowerCase() === 'trailers')
    }
  }
  let to = 0
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (HOP_BY_HOP.has(name) || named?.has(name) || (request && UNTRUSTED.has(name))) continue
    headers[to] = name
    headers[to + 1] = headers[i + 1] as string
    to += 2
  }
  headers.length = to
  if (trailers && request) headers.push('te', 'trailers')
}

/** Runs first: what it removes nobody sees. */
export const headerFilter: Filter = {
  name: 'headers',
  onRequest(run) {
    cleanHeaders(run.head.headers, true)
    // The authority is a field of its own; two names for one thing invite confusion.
    removeHeader(run.head.headers, 'host')
    if (!header(run.head.headers, 'x-request-id')) setHeader(run.head.headers, 'x-request-id', randomUUID())
    if (header(run.head.headers, 'x-forwarded-proto') === undefined) {
      run.head.headers.push('x-forwarded-proto', run.head.scheme || 'http')
    }
    return undefined
  },
  onResponse(run, head) {
    if (head.status === 101) return
    cleanHeaders(head.headers, false)
    setHeader(head.headers, 'server', 'istio-envoy')
    if (run.upstreamSentAt > 0 && run.requestEnded) {
      const elapsed = Math.round(run.upstreamHeadAt - run.upstreamSentAt)
      setHeader(head.headers, 'x-envoy-upstream-service-time', String(Math.max(0, elapsed)))
    }
  },
}
