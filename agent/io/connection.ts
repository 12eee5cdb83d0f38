// The connection contract: what everything that carries the mesh's traffic is written against (design: ARCHITECTURE.md,
// "Connections"). Implementations: native/ here (natively batched I/O) and an HTTP/2 CONNECT stream
// (agent/http/http2/tunnel). Nothing above may know which one it holds. Must not live here: protocols, kernel maps, policy.

/** An IP endpoint in canonical text form (IPv6 lower case and compressed, v4-mapped always written as IPv4), or a unix path with port 0. */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** Why a connection was cut: carried as RST, RST_STREAM code or TLS alert, never as a clean end. */
export type AbortReason = 'cancel' | 'refused' | 'protocol' | 'internal' | 'timeout' | 'denied' | 'shutdown'

/** What is known of a connection once it is open. */
export interface OpenInfo {
  readonly local: Endpoint
  readonly peer: Endpoint
  /** Negotiated ALPN protocol, or '' for none or no TLS. */
  readonly alpn: string
  /** SNI the client sent, or ''. */
  readonly serverName: string
  /** Peer certificates, DER, leaf first; empty without TLS or when the peer sent none. */
  readonly certificates: readonly Uint8Array[]
  /** True when the bytes are protected by TLS on this connection itself. */
  readonly secure: boolean
}

/** One byte stream in both directions, each of which can end on its own. */
export interface Connection {
  /** The owner's state; the implementation never touches it. */
  slot: unknown
  /** Bytes accepted by `write` that the layer below has not taken: the back-pressure signal. */
  readonly pending: number
  /** True between onOpen and the moment nothing more can be written (end, abort or close). */
  readonly writable: boolean
  /** The socket, or -1 for a stream or a closed connection. */
  readonly fd: number
  /** Known after onOpen. */
  readonly info: OpenInfo
  /**
   * Queues bytes[start, end). The range must not change until the turn ends (the call-back or task that called `write`);
   * what was not taken by then the implementation copies and keeps. Writing after `end` or after a close is a no-op.
   * Ranges of the arena and of the slab (slab.ts) are cheapest: the native transport sends them without a copy.
   */
  write(bytes: Uint8Array, start?: number, end?: number): void
  /** Stops delivery. For a stream: gives no window. Bytes already read may still be delivered in the same turn. */
  pause(): void
  resume(): void
  /** Half-close: no more writes from here, reading goes on. Queued bytes are sent first. */
  end(): void
  /** Cuts both directions now; the peer sees a reset, never a clean end. `onClose` follows with this reason. */
  abort(reason: AbortReason): void
  /**
   * Plain sockets with nothing pending, and paused: gives up the descriptor and never touches it again (no onClose follows).
   * Throws AmbitError IO_NOT_DETACHABLE otherwise.
   */
  detach(): number
}

/**
 * What an owner implements, once per protocol, without closures per connection.
 * Order: onOpen once, then any of onRead/onDrain/onEnd, then onClose exactly once. A connection that never opened gets only onClose.
 * A handler that throws is a bug: the implementation aborts that connection with 'internal' and reports it through `onClose`.
 */
export interface ConnectionHandler {
  /** Connected, handshake done, verdict given. */
  onOpen(connection: Connection, info: OpenInfo): void
  /** arena[start, end) is valid until the turn ends; it may be written on to another connection without a copy. */
  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void
  /** `pending` fell to zero after bytes had to wait for the peer, or after the owner had seen it at 65 536 or more. */
  onDrain(connection: Connection): void
  /** The peer ended its direction cleanly (FIN after close_notify, END_STREAM). Never after a reset or truncation. */
  onEnd(connection: Connection): void
  /** Gone. `error` is undefined only if both directions ended cleanly. */
  onClose(connection: Connection, error: Error | undefined): void
}

/** A certificate chain with its key, as the settings of one side of TLS need it. */
export interface KeyPair {
  /** PEM, leaf first. */
  readonly certificate: string
  /** PEM, PKCS#8. */
  readonly key: string
}

/** The peer as `verify` judges it; the chain has already been checked against the trust bundle by OpenSSL. */
export interface TlsPeer {
  readonly certificates: readonly Uint8Array[]
  readonly serverName: string
  readonly endpoint: Endpoint
  readonly local: Endpoint
  /** An earlier session was resumed: the chain was checked then (not more than an hour ago), its dates again now. */
  readonly resumed?: boolean
}

export interface TlsSettings {
  /** PEM roots. The path is checked by OpenSSL; host names are not (identities are URIs, judged by `verify`). */
  trust(): string
  /** Own certificate for this connection; server side gets the SNI. May answer later, within the handshake's deadline. Throwing refuses the handshake. */
  certificate(serverName: string): KeyPair | Promise<KeyPair>
  /** Allows (returns) or refuses (throws) the peer. No byte is delivered or written before it answered. */
  verify(peer: TlsPeer): void | Promise<void>
  readonly alpn: readonly string[]
  /** SNI to send; absent sends none. */
  readonly serverName?: string
  /**
   * Client side: sessions are kept and resumed under this name, which must tell the local workload and the peer apart from all
   * others; they go with the certificate or the trust they were made under. Absent: no session is resumed.
   */
  readonly sessionKey?: string
  /** Server side: ask for and require a client certificate. Default true: mutual TLS. */
  readonly requestCertificate?: boolean
  /** Oldest version accepted; default 'TLSv1.3'. */
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3'
}

export interface ListenOptions {
  readonly handler: ConnectionHandler
  /** One of: `host`+`port` (0 = any), `path` (unix socket), `fd` (an already listening socket: a duplicate is used, the original stays the caller's). */
  readonly host?: string
  readonly port?: number
  readonly path?: string
  readonly fd?: number
  /** Default 511; with `fd` it is applied again by listen(2). */
  readonly backlog?: number
  readonly tls?: TlsSettings
  /** TLS handshake with verdict must be done in this time. Default 10 000 ms. */
  readonly handshakeTimeoutMs?: number
  /** Bound on open connections of this listener; further ones are closed at once and counted in `refused`. Default 65 536. */
  readonly maxConnections?: number
  /** A connection on which no byte moves either way for this long is cut with IO_IDLE. Default: never. */
  readonly idleTimeoutMs?: number
  /** Several processes may share the port. */
  readonly reusePort?: boolean
  /** IPv6 listener that refuses IPv4. */
  readonly ipv6Only?: boolean
}

export interface Listener {
  /** The bound address; for `fd` listeners what getsockname says, where known. */
  readonly address: Endpoint
  readonly connections: number
  readonly refused: number
  /** Stops accepting; clients wait in the kernel's queue until `resume`. */
  pause(): void
  resume(): void
  /** Closes this descriptor only (never shuts the socket down) and leaves accepted connections alone. */
  stop(): Promise<void>
}

export interface ConnectOptions {
  readonly handler: ConnectionHandler
  readonly host?: string
  readonly port?: number
  readonly path?: string
  /** A socket that is made but not yet connected (in some pod's namespace): `host` and `port` say where it goes; the implementation owns it from here. */
  readonly fd?: number
  /** Source address to bind, port chosen by the kernel. */
  readonly source?: string
  readonly tls?: TlsSettings
  /** Connect and handshake must be done in this time. Default 10 000 ms. */
  readonly timeoutMs?: number
  /** As in ListenOptions. */
  readonly idleTimeoutMs?: number
  /** Initial value of `connection.slot`. */
  readonly slot?: unknown
}

/** A way to get connections: the native one, Node's, or a test's. */
export interface Transport {
  /** Resolves once it accepts; rejects with an AmbitError (IO_ADDRESS_IN_USE, IO_LISTEN) naming the address. */
  listen(options: ListenOptions): Promise<Listener>
  /** Returns at once; the outcome comes through the handler. */
  connect(options: ConnectOptions): Connection
}
