// What HTTP/1.x offers to its users beyond agent/http/message.ts: settings, and the two sides as handlers of connections, the
// same shape as ../http2/contract.ts. Must not live here: parsing (request.ts, response.ts, body.ts), state (server-connection.ts, client.ts).
import { systemClock, type Clock } from '../../base/clock.ts'
import type { Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import type { ClientSession } from '../message.ts'

export interface Http1Options {
  /** Bound on a head (start line and fields) and on a trailer section, bytes. Default 60 KiB; more is 431. */
  readonly maxHead?: number
  /** Bound on the number of fields in either. Default 100; more is 431. */
  readonly maxFields?: number
  /** Server: bound on a request target, bytes; more is 414. Default `maxHead`, which a request line alone may not pass either. */
  readonly maxTarget?: number
  /** Server: a head must be complete this long after its first byte. Default 60 000 ms; then 408. */
  readonly headTimeoutMs?: number
  /** Server: a request body of which no byte comes for this long, though it is read, is given up: 408. Default 300 000 ms. */
  readonly bodyIdleTimeoutMs?: number
  /** A kept-alive connection without an exchange is closed after this long. Default 3 600 000 ms. */
  readonly idleTimeoutMs?: number
  readonly clock?: Clock
}

/** What a server tells beside its exchanges. */
export interface Http1ServerSessionEvents {
  /** A request that never became an exchange: answered here and closed. `details` in Envoy's words (`http1.codec_error` …). */
  onRefused?(connection: Connection, status: number, details: string): void
}

/** A connection that someone else owns (its `slot` is untouched), fed into the codec by hand: for an owner that detects protocols first. */
export interface Http1Feed {
  /** The owner has waited for the first head as long as it may: 408 for what is there of it, the end where nothing is. */
  expire(): void
  /** As Http1Server's, of this connection alone. */
  drain(idleMs: number): void
  receive(arena: Uint8Array, start: number, end: number): void
  drained(): void
  ended(): void
  closed(error: Error | undefined): void
}

/** A listener's handler. Uses `connection.slot`, unless connections are brought by `adopt`. */
export interface Http1Server extends ConnectionHandler {
  /** Open connections. */
  readonly connections: number
  adopt(connection: Connection, info: OpenInfo): Http1Feed
  /**
   * Connections close after their exchange, which says `connection: close`; those that are idle once they were so for `idleMs`
   * (default 0: now), because a request may be on its way. Holds for those still to come.
   */
  drain(idleMs?: number): void
  /** Cuts every connection. */
  close(): void
}

/** A client that is bound to its connection by the caller: pass `handler` and `slot` to `Transport.connect`. */
export interface Http1Client {
  readonly handler: ConnectionHandler
  readonly slot: unknown
  /** Until its connection is open `available` is 0 and `open` true. */
  readonly session: ClientSession
}

/** Options with their defaults filled in. */
export type ResolvedHttp1Options = Required<Http1Options>

export function resolveHttp1Options(options: Http1Options): ResolvedHttp1Options {
  const maxHead = options.maxHead ?? 61_440
  return {
    maxHead,
    maxTarget: options.maxTarget ?? maxHead,
    maxFields: options.maxFields ?? 100,
    headTimeoutMs: options.headTimeoutMs ?? 60_000,
    bodyIdleTimeoutMs: options.bodyIdleTimeoutMs ?? 300_000,
    idleTimeoutMs: options.idleTimeoutMs ?? 3_600_000,
    clock: options.clock ?? systemClock,
  }
}
