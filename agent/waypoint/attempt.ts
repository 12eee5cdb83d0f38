// One attempt's exchange with an upstream, as events for the router: what still comes of an attempt that was given up reaches
// nobody. Must not live here: what follows from an event (forward.ts).
import type {
  ClientEvents,
  ClientExchange,
  ClientSession,
  ExchangeError,
  Headers,
  ResponseHead,
} from '../http/message.ts'
import type { UpstreamReset } from './reply.ts'

/** What the router does with an attempt: the `slot` of its exchange. */
export interface AttemptOwner {
  /** False for an attempt that was given up. */
  owns(upstream: ClientExchange): boolean
  informational(head: ResponseHead): void
  response(head: ResponseHead, end: boolean): void
  responseData(upstream: ClientExchange, bytes: Uint8Array, start: number, end: number): void
  responseEnd(trailers: Headers): void
  upstreamDrained(): void
  closed(error: ExchangeError | undefined, upstream: ClientExchange): void
}

/** HTTP/2 with extended CONNECT (RFC 8441 §3). */
export function speaksExtendedConnect(session: ClientSession): boolean {
  return 'extendedConnect' in session && session.extendedConnect === true
}

/** How Envoy names a reset by its cause. */
export function resetName(error: ExchangeError): UpstreamReset {
  switch (error.reason) {
    case 'closed':
      return 'connection termination'
    case 'refused':
      return 'remote refused stream reset'
    case 'protocol':
      return 'protocol error'
    default:
      return error.remote ? 'remote reset' : 'local reset'
  }
}

/** One object for every upstream exchange: its `slot` is the Forwarding. */
export const attemptEvents: ClientEvents = {
  onInformational(exchange, head) {
    const owner = exchange.slot as AttemptOwner
    if (owner.owns(exchange)) owner.informational(head)
  },
  onResponse(exchange, head, end) {
    const owner = exchange.slot as AttemptOwner
    if (owner.owns(exchange)) owner.response(head, end)
  },
  onData(exchange, arena, start, end) {
    const owner = exchange.slot as AttemptOwner
    if (owner.owns(exchange)) owner.responseData(exchange, arena, start, end)
  },
  onEnd(exchange, trailers) {
    const owner = exchange.slot as AttemptOwner
    if (owner.owns(exchange)) owner.responseEnd(trailers)
  },
  onDrain(exchange) {
    const owner = exchange.slot as AttemptOwner
    if (owner.owns(exchange)) owner.upstreamDrained()
  },
  onClose(exchange, error) {
    const owner = exchange.slot as AttemptOwner
    if (owner.owns(exchange)) owner.closed(error, exchange)
  },
}
