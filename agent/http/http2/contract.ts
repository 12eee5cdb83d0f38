// What HTTP/2 offers to its users beyond agent/http/message.ts: settings, sessions, and the two sides as handlers of
// connections. Must not live here: frames, state machines (session.ts, stream.ts), tunnels (tunnel.ts).
import { systemClock, type Clock } from '../../base/clock.ts'
import type { Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import type { ClientSession } from '../message.ts'

export interface Http2Options {
  /**
   * Receive window a new stream begins with, bytes. Default 256 KiB: every stream of a connection can be stuck without
   * `maxHeld` being reached, so that slow readers never stall the others.
   */
  readonly initialWindow?: number
  /** Receive window a stream grows to while its reader keeps up (it doubles each time it is refilled). Default 4 MiB, as HBONE. */
  readonly streamWindow?: number
  /** Receive window of the connection, bytes. Default 16 MiB, as HBONE. */
  readonly connectionWindow?: number
  /** Bytes received but held back because their streams are paused; above it the connection's window is no longer refilled. Default 64 MiB. */
  readonly maxHeld?: number
  /** Largest frame accepted once the connection has carried a quarter of its window, 16 384 … 16 777 215; until then 16 384. Default 1 MiB. */
  readonly maxFrameSize?: number
  /** Largest header list accepted, bytes as RFC 9113 §6.5.2 counts. Default 64 KiB for a server, 16 KiB for a client. */
  readonly maxHeaderList?: number
  /** Server: streams a client may have open. Default 200. Client: streams opened at once, also where the peer would allow more. Default 100. */
  readonly maxStreams?: number
  /** Server: accept extended CONNECT (RFC 8441). Default false. */
  readonly extendedConnect?: boolean
  /** Sends PING after this many milliseconds in which nothing was received. 0 = never. Default 0; HBONE uses 10 000. */
  readonly keepaliveMs?: number
  /** Cuts the connection when nothing at all was received for this long after such a PING. Default 20 000. */
  readonly keepaliveTimeoutMs?: number
  /** The peer's first SETTINGS, and each header block once it has begun, must be whole in this time. Default 30 000. */
  readonly headTimeoutMs?: number
  /** Client: the id of the first stream, odd. Default 1; tests begin near the last one. */
  readonly firstStream?: number
  /** Streams the peer may cancel soon after opening them, in a burst before it is told to calm down; completed streams and time refill it. Default 2 000. */
  readonly resetBurst?: number
  readonly clock?: Clock
}

/** One connection as the codec sees it, either side. */
export interface Http2Session {
  /** The owner's state. */
  slot: unknown
  readonly connection: Connection
  /** Open streams. */
  readonly active: number
  /** False after GOAWAY in either direction or a close. */
  readonly open: boolean
  /** Takes no more streams (GOAWAY); closes when the last one ends. */
  drain(): void
  /** GOAWAY, then the end of the connection; running streams are cut. */
  close(): void
}

/** What a server tells of its connections, beside its exchanges. */
export interface ServerSessionEvents {
  onSession?(session: Http2Session): void
  onSessionClose?(session: Http2Session, error: Error | undefined): void
  /** The client says that it goes away (GOAWAY): it opens no more streams; those that run had better end. */
  onLeaving?(session: Http2Session): void
  /** A request that was answered or reset before the owner could see it: malformed or too large. `why` is for a log. */
  onRejected?(session: Http2Session, why: string): void
  /** A connection that never became a session: its handshake failed or was refused. */
  onRefused?(connection: Connection, error: Error | undefined): void
}

/** A connection that someone else owns (its `slot` is untouched), fed into the codec by hand: for an owner that detects protocols first. */
export interface Http2Feed {
  readonly session: Http2Session
  receive(arena: Uint8Array, start: number, end: number): void
  drained(): void
  ended(): void
  closed(error: Error | undefined): void
}

/** A listener's handler. Exchanges go to `events`. Uses `connection.slot`, unless connections are brought by `adopt`. */
export interface Http2Server extends ConnectionHandler {
  readonly sessions: ReadonlySet<Http2Session>
  adopt(connection: Connection, info: OpenInfo): Http2Feed
  /** Drains every session, now and those still to come. */
  drain(): void
  /** Closes every session. */
  close(): void
}

/** A client session; made before its connection is open: until then `available` is 0 and `open` true. */
export interface Http2ClientSession extends ClientSession {
  /** True once the peer announced extended CONNECT (RFC 8441 §3). */
  readonly extendedConnect: boolean
}

/** Options with their defaults filled in. */
export interface ResolvedOptions {
  readonly initialWindow: number
  readonly streamWindow: number
  readonly connectionWindow: number
  readonly maxHeld: number
  readonly maxFrameSize: number
  readonly maxHeaderList: number
  readonly maxStreams: number
  readonly extendedConnect: boolean
  readonly keepaliveMs: number
  readonly keepaliveTimeoutMs: number
  readonly headTimeoutMs: number
  readonly firstStream: number
  readonly resetBurst: number
  readonly clock: Clock
}

const MIB = 1_048_576

export function resolveOptions(options: Http2Options, server: boolean): ResolvedOptions {
  return {
    initialWindow: options.initialWindow ?? Math.min(MIB / 4, options.streamWindow ?? MIB / 4),
    streamWindow: options.streamWindow ?? Math.max(4 * MIB, options.initialWindow ?? 0),
    connectionWindow: options.connectionWindow ?? 16 * MIB,
    maxHeld: options.maxHeld ?? 64 * MIB,
    maxFrameSize: options.maxFrameSize ?? MIB,
    maxHeaderList: options.maxHeaderList ?? (server ? 65_536 : 16_384),
    maxStreams: options.maxStreams ?? (server ? 200 : 100),
    extendedConnect: options.extendedConnect ?? false,
    keepaliveMs: options.keepaliveMs ?? 0,
    keepaliveTimeoutMs: options.keepaliveTimeoutMs ?? 20_000,
    headTimeoutMs: options.headTimeoutMs ?? 30_000,
    firstStream: options.firstStream ?? 1,
    resetBurst: options.resetBurst ?? 2_000,
    clock: options.clock ?? systemClock,
  }
}
