// Every answer the waypoint makes itself: Istio's code, body, flag and details for each failure (reference: l7, local
// replies), because dashboards and clients depend on them. One place, gRPC-aware. Must not live here: when to make one.
import { header, type Headers, type RequestHead, type ServerExchange } from '../http/message.ts'

export interface LocalReply {
  readonly status: number
  readonly body: string
  /** Envoy's short response flags, comma separated; '-' for none. */
  readonly flags: string
  /** RESPONSE_CODE_DETAILS. */
  readonly details: string
  /** Extra header fields, flat list. */
  readonly headers?: Headers
  /** Ends the connection after the answer (HTTP/1.1). */
  readonly close?: boolean
}

export const replies = {
  routeNotFound: { status: 404, body: '', flags: 'NR', details: 'route_not_found' },
  clusterNotFound: { status: 503, body: '', flags: 'NC', details: 'cluster_not_found' },
  noHealthyUpstream: { status: 503, body: 'no healthy upstream', flags: 'UH', details: 'no_healthy_upstream' },
  routeTimeout: { status: 504, body: 'upstream request timeout', flags: 'UT', details: 'response_timeout' },
  perTryTimeout: { status: 504, body: 'upstream request timeout', flags: 'UT', details: 'upstream_per_try_timeout' },
  upgradeFailed: { status: 403, body: '', flags: '-', details: 'upgrade_failed' },
  payloadTooLarge: { status: 413, body: 'Payload Too Large', flags: '-', details: 'request_payload_too_large' },
  badPath: { status: 400, body: '', flags: '-', details: 'path_normalization_failed' },
  missingHost: { status: 400, body: '', flags: '-', details: 'missing_host_header' },
  lowVersion: { status: 426, body: '', flags: '-', details: 'low_version', close: true },
  invalidBackend: { status: 500, body: '', flags: '-', details: 'direct_response' },
  overload: { status: 503, body: 'envoy overloaded', flags: 'OM', details: 'overload' },
  draining: { status: 503, body: 'no healthy upstream', flags: 'UH', details: 'draining', close: true },
} as const satisfies Record<string, LocalReply>

/** RBAC: `details` as mesh/authorize made them. */
export function accessDenied(details: string): LocalReply {
  return { status: 403, body: 'RBAC: access denied', flags: '-', details }
}

/** A rule that asks for something this version does not do: refused, never skipped. */
export function unsupportedRule(features: readonly string[]): LocalReply {
  return {
    status: 500,
    body: `unsupported by this waypoint: ${features.join(', ')}`,
    flags: '-',
    details: 'unsupported_feature',
  }
}

/** A limit of connectionPool: which one stands in the details. */
export function overflow(limit: string): LocalReply {
  return {
    status: 503,
    body: 'upstream connect error or disconnect/reset before headers. reset reason: overflow',
    flags: 'UO',
    details: `upstream_reset_before_response_started{overflow}${limit ? `:${limit}` : ''}`,
    headers: ['x-envoy-overloaded', 'true'],
  }
}

export type UpstreamReset =
  | 'connection failure'
  | 'connection timeout'
  | 'connection termination'
  | 'remote reset'
  | 'remote refused stream reset'
  | 'local reset'
  | 'protocol error'

const RESET_FLAGS: Readonly<Record<UpstreamReset, string>> = {
  'connection failure': 'UF',
  'connection timeout': 'UF',
  'connection termination': 'UC',
  'remote reset': 'UR',
  'remote refused stream reset': 'UR',
  'local reset': 'LR',
  'protocol error': 'UPE',
}

/** The upstream failed before its response began. `retried`: attempts were made before this one. */
export function upstreamReset(reason: UpstreamReset, retried: boolean, transportReason = ''): LocalReply {
  const name = reason === 'connection failure' ? 'remote connection failure' : reason
  const transport = transportReason ? `, transport failure reason: ${transportReason}` : ''
  return {
    // A protocol error is the upstream's fault in a way a retry by the client cannot mend: Envoy's 502.
    status: reason === 'protocol error' ? 502 : 503,
    body: `upstream connect error or disconnect/reset before headers. ${retried ? 'retried and the latest ' : ''}reset reason: ${name}${transport}`,
    flags: retried ? `${RESET_FLAGS[reason]},URX` : RESET_FLAGS[reason],
    details:
      `upstream_reset_before_response_started{${transportReason ? `${name},${transportReason}` : name}}`.replaceAll(
        ' ',
        '_',
      ),
  }
}

/** gRPC status of an HTTP status (envoy source/common/grpc/status.cc). */
export function grpcStatusOf(status: number): number {
  switch (status) {
    case 400:
      return 13
    case 401:
      return 16
    case 403:
      return 7
    case 404:
      return 12
    case 429:
    case 502:
    case 503:
    case 504:
      return 14
    default:
      return 2
  }
}

/** True for content-type application/grpc or application/grpc+…: the answer must be gRPC's too. */
export function isGrpcType(type: string): boolean {
  return (
    type.startsWith('application/grpc') &&
    (type.length === 16 || type.charCodeAt(16) === 43 || type.charCodeAt(16) === 59)
  )
}

/** True for requests whose answers must be gRPC's. */
export function isGrpc(headers: Headers): boolean {
  return isGrpcType(header(headers, 'content-type') ?? '')
}

const encoder = new TextEncoder()

/** grpc-message is percent-encoded: everything outside 0x20–0x7E, and % itself (gRPC over HTTP/2, Status-Message). */
export function grpcMessage(text: string): string {
  let out = ''
  for (const byte of encoder.encode(text)) {
    out +=
      byte < 0x20 || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
        : String.fromCharCode(byte)
  }
  return out
}

/**
 * Sends a local reply. gRPC gets a trailers-only 200 with the status mapped; HEAD keeps the length and sends no body.
 * Returns the status that went on the wire and the body bytes sent.
 */
export function sendReply(
  exchange: ServerExchange,
  request: RequestHead,
  reply: LocalReply,
): { status: number; bytes: number } {
  if (isGrpc(request.headers)) {
    const headers: Headers = [
      'content-type',
      'application/grpc',
      'grpc-status',
      String(grpcStatusOf(reply.status)),
      ...(reply.body ? ['grpc-message', grpcMessage(reply.body)] : []),
      ...(reply.headers ?? []),
      'server',
      'istio-envoy',
    ]
    exchange.respond({ status: 200, headers }, true)
    return { status: 200, bytes: 0 }
  }
  const body = encoder.encode(reply.body)
  const headers: Headers = []
  if (body.length > 0) headers.push('content-length', String(body.length), 'content-type', 'text/plain')
  else if (exchange.version === 1) headers.push('content-length', '0')
  if (reply.headers) headers.push(...reply.headers)
  headers.push('server', 'istio-envoy')
  if (reply.close && exchange.version === 1) headers.push('connection', 'close')
  const empty = body.length === 0 || request.method === 'HEAD'
  exchange.respond({ status: reply.status, headers }, empty)
  if (empty) return { status: reply.status, bytes: 0 }
  exchange.write(body)
  exchange.end()
  return { status: reply.status, bytes: body.length }
}
