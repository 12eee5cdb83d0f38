// The shapes an HTTP message has between a codec and its user, the same for HTTP/1.1 and HTTP/2, client and server.
// Must not live here: bytes on the wire (http1/, http2/), routing or policy (waypoint/, mesh/).
import type { Connection } from '../io/connection.ts'

/**
 * Header fields as one flat list: name, value, name, value … Names are lower case, values Latin-1 without leading or
 * trailing blanks. A flat list keeps order and duplicates, and costs one array per message instead of one object per field.
 */
export type Headers = string[]

export interface RequestHead {
  /** Any token, as sent; 'CONNECT' for tunnels. */
  method: string
  /** 'http' or 'https'; '' for plain CONNECT. */
  scheme: string
  /** Host with optional port, as sent; from Host in HTTP/1.1. */
  authority: string
  /** Origin-form with query, '*' for OPTIONS *, '' for plain CONNECT. */
  path: string
  /** RFC 8441 :protocol, or the Upgrade token of an HTTP/1.1 upgrade request; '' otherwise. */
  protocol: string
  headers: Headers
}

export interface ResponseHead {
  status: number
  headers: Headers
}

/** Why an exchange was cut, independent of the HTTP version (RFC 9113 §7 names beside). */
export type ResetReason =
  | 'cancel' // CANCEL
  | 'refused' // REFUSED_STREAM: the peer did not process it, safe to retry
  | 'protocol' // PROTOCOL_ERROR
  | 'internal' // INTERNAL_ERROR
  | 'flow' // FLOW_CONTROL_ERROR
  | 'calm' // ENHANCE_YOUR_CALM
  | 'closed' // connection went away, STREAM_CLOSED
  | 'timeout'

/** The error given to onClose of an exchange that was cut. */
export class ExchangeError extends Error {
  readonly reason: ResetReason
  /** True when the peer did it, false when it was cut from here. */
  readonly remote: boolean
  /** The HTTP/2 error code as received or sent, −1 in HTTP/1.1. */
  readonly http2Code: number
  /** A server's codec answered with this status before it cut; 0: it did not. */
  readonly answered: number

  constructor(reason: ResetReason, remote: boolean, message: string, http2Code = -1, answered = 0) {
    super(message)
    this.name = 'ExchangeError'
    this.reason = reason
    this.remote = remote
    this.http2Code = http2Code
    this.answered = answered
  }
}

/** What both sides of an exchange can do with the body they send. */
export interface Exchange {
  /** The owner's state. */
  slot: unknown
  /** 1 or 2: the major version on the wire. */
  readonly version: 1 | 2
  /** Version minor for HTTP/1.x (0 or 1), 0 for HTTP/2. */
  readonly minor: number
  /** The connection underneath, for its `info`; never write to it. */
  readonly connection: Connection
  /** Body bytes accepted but not taken by the layer below: back-pressure. */
  readonly pending: number
  /** Same rule for the range as Connection.write. */
  write(bytes: Uint8Array, start?: number, end?: number): void
  /** Ends the body, with trailers where given (HTTP/1.1: only in chunked framing, else they are dropped). */
  end(trailers?: Headers): void
  /** Stops delivery of body bytes; HTTP/2 gives no window, HTTP/1.1 stops reading. */
  pause(): void
  resume(): void
  /** Cuts the exchange: RST_STREAM, or closes the HTTP/1.1 connection so that the peer sees a truncated message, never a complete one. */
  reset(reason: ResetReason): void
}

/** Server side of one exchange. */
export interface ServerExchange extends Exchange {
  /** 1xx (100, 103): before `respond`. No-op towards HTTP/1.0. */
  informational(head: ResponseHead): void
  /** Response head; `end` true means no body and no trailers. For 101 and 2xx to CONNECT the exchange becomes a tunnel: `write` and onData then carry raw bytes. */
  respond(head: ResponseHead, end: boolean): void
  readonly responded: boolean
}

/** Client side of one exchange. */
export interface ClientExchange extends Exchange {
  /** True once the exchange was sent on a connection that had served another before (a reused-connection race is then retryable). */
  readonly reused: boolean
}

/** Events common to both sides. `onClose` comes exactly once, last. */
export interface ExchangeEvents<X> {
  /** arena[start,end) valid until the turn ends. */
  onData(exchange: X, arena: Uint8Array, start: number, end: number): void
  /** The peer's message is complete. `trailers` is empty when there were none. */
  onEnd(exchange: X, trailers: Headers): void
  /** `pending` fell to zero after having been above zero. */
  onDrain(exchange: X): void
  /** `error` undefined only if both messages completed. */
  onClose(exchange: X, error: ExchangeError | undefined): void
}

export interface ServerEvents extends ExchangeEvents<ServerExchange> {
  /** `end` true: the request has no body. */
  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void
}

export interface ClientEvents extends ExchangeEvents<ClientExchange> {
  onInformational(exchange: ClientExchange, head: ResponseHead): void
  onResponse(exchange: ClientExchange, head: ResponseHead, end: boolean): void
}

/** One client connection of either version. */
export interface ClientSession {
  slot: unknown
  readonly connection: Connection
  /** Exchanges that can be started now: 0 or 1 in HTTP/1.1, up to the peer's limit in HTTP/2, 0 after GOAWAY. */
  readonly available: number
  readonly active: number
  /** False once it takes no more exchanges for good (GOAWAY, close, `connection: close`). */
  readonly open: boolean
  /** Starts an exchange. `end` true: no body. Throws AmbitError HTTP_SESSION_CLOSED when `available` is 0. */
  request(head: RequestHead, end: boolean, events: ClientEvents, slot?: unknown): ClientExchange
  /** No new exchanges; closes when the last one ends. */
  drain(): void
  close(): void
}

export interface SessionEvents {
  /** `available` grew: an exchange ended or the peer raised its limit. */
  onAvailable(session: ClientSession): void
  /** Once: it will take no more exchanges; running ones go on. */
  onDraining(session: ClientSession): void
  onClose(session: ClientSession, error: Error | undefined): void
}

/** First value of `name` (lower case), or undefined. */
export function header(headers: Headers, name: string): string | undefined {
  for (let i = 0; i < headers.length; i += 2) if (headers[i] === name) return headers[i + 1]
  return undefined
}

/** Removes every field called `name` in place. */
export function removeHeader(headers: Headers, name: string): void {
  let to = 0
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] === name) continue
    headers[to] = headers[i] as string
    headers[to + 1] = headers[i + 1] as string
    to += 2
  }
  headers.length = to
}

/** Replaces every field called `name` by one, at the end of the list. */
export function setHeader(headers: Headers, name: string, value: string): void {
  removeHeader(headers, name)
  headers.push(name, value)
}
