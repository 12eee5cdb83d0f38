// One connection of the native transport: the contract over an entry of the engine's tables. Its events come from the engine's
// turn. Must not live here: making sockets (transport.ts, listener.ts).
import {
  ABORT,
  ALLOW,
  CLEAN_END,
  CONTEXT,
  END,
  HANDSHAKE_CLOSED,
  REFUSE,
  TLS_FAILED,
  TRUNCATED,
} from '../../../native/io/index.ts'
import type { Timer } from '../../base/clock.ts'
import { AmbitError } from '../../base/errors.ts'
import type {
  AbortReason,
  Connection,
  ConnectionHandler,
  Endpoint,
  KeyPair,
  OpenInfo,
  TlsPeer,
  TlsSettings,
} from '../connection.ts'
import {
  abortError,
  closedError,
  connectError,
  handlerError,
  handshakeError,
  idleError,
  streamError,
  truncatedError,
} from '../errors.ts'
import type { Engine } from './engine.ts'
import { PACKED, unpackEndpoint } from './names.ts'
import { contextFor } from './tls.ts'

const UNKNOWN: Endpoint = { address: '', port: 0 }
const NO_CERTIFICATES: readonly Uint8Array[] = []
const NOT_OPEN: OpenInfo = {
  local: UNKNOWN,
  peer: UNKNOWN,
  alpn: '',
  serverName: '',
  certificates: NO_CERTIFICATES,
  secure: false,
}

const OPENING = 0
const OPEN = 1
/** Cut from here; onClose is on its way. */
const CUT = 2
const CLOSED = 3
/** Detached: nothing more is said. */
const GONE = 4

const packed = new Uint8Array(2 * PACKED)

/** What a connection's maker wants to know. */
export interface Owner {
  /** Once, after onClose. */
  gone(connection: NativeConnection): void
}

export class NativeConnection implements Connection {
  slot: unknown
  info: OpenInfo = NOT_OPEN
  /** −1 before there is a socket. */
  id = -1
  /** The deadline of connect and handshake. */
  timer: Timer | undefined
  /** The socket is connected, perhaps not yet open. */
  reached = false
  /** For the transport's idle sweep: 0 for never, the last stamp seen, and since when it stands. */
  idleMs = 0
  idleStamp = 0
  idleSince = 0
  readonly tls: TlsSettings | undefined
  readonly #engine: Engine
  readonly #handler: ConnectionHandler
  readonly #owner: Owner
  readonly #server: boolean
  /** Unix sockets: their path stands for both addresses. */
  readonly #path: string | undefined
  #target: string
  #state = OPENING
  #ended = false
  #peerEnded = false
  #error: Error | undefined
  #local = UNKNOWN
  #peer = UNKNOWN

  constructor(
    engine: Engine,
    handler: ConnectionHandler,
    owner: Owner,
    target: string,
    server: boolean,
    tls: TlsSettings | undefined,
    path: string | undefined,
    slot: unknown,
  ) {
    this.#engine = engine
    this.#handler = handler
    this.#owner = owner
    this.#target = target
    this.#server = server
    this.tls = tls
    this.#path = path
    this.slot = slot
  }

  // --- the contract

  get pending(): number {
    return this.#state === OPEN ? this.#engine.look(this.id) : 0
  }

  get writable(): boolean {
    return this.#state === OPEN && !this.#ended
  }

  get fd(): number {
    return this.#state === OPEN ? this.#engine.native.fd(this.id) : -1
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.#state !== OPEN || this.#ended || end <= start) return
    this.#engine.write(this.id, bytes, start, end)
  }

  pause(): void {
    if (this.id >= 0 && this.#state <= OPEN) this.#engine.pause(this.id)
  }

  resume(): void {
    if (this.id >= 0 && this.#state <= OPEN) this.#engine.resume(this.id)
  }

  end(): void {
    if (this.#state !== OPEN || this.#ended) return
    this.#ended = true
    this.#engine.command(END, this.id, 0, 0)
  }

  abort(reason: AbortReason): void {
    if (this.#state <= OPEN) this.fail(abortError(this.#target, reason))
  }

  detach(): number {
    if (this.#state === OPEN) {
      this.#engine.flush()
      const fd = this.#engine.native.detach(this.id)
      if (fd >= 0) {
        this.#state = GONE
        this.#engine.connections[this.id] = undefined
        this.#owner.gone(this)
        return fd
      }
    }
    throw new AmbitError('IO_NOT_DETACHABLE', `The connection with ${this.#target} cannot give up its descriptor.`, {
      hint: 'Only an open plain socket with nothing pending and neither direction ended can; relay the bytes instead.',
    })
  }

  // --- for its maker

  get opening(): boolean {
    return this.#state === OPENING
  }

  /** Takes its place in the engine's table. */
  enter(id: number): void {
    this.id = id
    this.#engine.connections[id] = this
  }

  /** Ends a connection that never opened, or breaks an open one, with `error`; onClose follows. */
  fail(error: Error): void {
    if (this.#state >= CUT) return
    this.#error ??= error
    this.#state = CUT
    if (this.id >= 0) this.#engine.command(ABORT, this.id, 0, 0)
    // Asynchronous like every other close, so that no owner is called back from inside its own call.
    else process.nextTick(() => this.closed(CLEAN_END))
  }

  failIdle(): void {
    this.fail(idleError(this.#target, this.idleMs))
  }

  // --- events of the turn

  /** An accepted socket: open at once where there is no TLS. */
  accepted(): void {
    this.reached = true
    this.#nameBoth()
    if (!this.tls) this.#open('', '', NO_CERTIFICATES, false)
  }

  connected(): void {
    if (this.#state !== OPENING) return
    this.reached = true
    this.#nameBoth()
    const settings = this.tls
    if (settings) this.#certificate(settings, settings.serverName ?? '')
    else this.#open('', '', NO_CERTIFICATES, false)
  }

  hello(): void {
    if (this.#state !== OPENING || !this.tls) return
    this.#certificate(this.tls, this.#engine.native.peer(this.id)?.serverName ?? '')
  }

  secured(): void {
    const settings = this.tls
    if (this.#state !== OPENING || !settings) return
    const shown = this.#engine.native.peer(this.id)
    if (!shown) return this.fail(handshakeError(this.#target, new Error('the handshake is not there')))
    const { certificates, serverName, alpn, resumed } = shown
    const peer: TlsPeer = { certificates, serverName, endpoint: this.#peer, local: this.#local, resumed }
    try {
      const verdict = settings.verify(peer)
      if (verdict === undefined) return this.#allow(alpn, serverName, certificates)
      verdict.then(
        () => this.#allow(alpn, serverName, certificates),
        (error: unknown) => this.fail(handshakeError(this.#target, error)),
      )
    } catch (error) {
      this.fail(handshakeError(this.#target, error))
    }
  }

  read(arena: Uint8Array, start: number, end: number): void {
    if (this.#state !== OPEN) return
    try {
      this.#handler.onRead(this, arena, start, end)
    } catch (error) {
      this.fail(handlerError(this.#target, error))
    }
  }

  drained(): void {
    // Written to again meanwhile: another drain follows.
    if (this.#state !== OPEN || (this.#engine.pending[this.id] as number) > 0) return
    try {
      this.#handler.onDrain(this)
    } catch (error) {
      this.fail(handlerError(this.#target, error))
    }
  }

  peerEnded(): void {
    if (this.#state !== OPEN) return
    this.#peerEnded = true
    try {
      this.#handler.onEnd(this)
    } catch (error) {
      this.fail(handlerError(this.#target, error))
    }
  }

  /** `why`: an errno, or one of the addon's own ends. */
  closed(why: number): void {
    if (this.#state >= CLOSED) return
    const error = this.#error ?? this.#errorOf(why)
    this.#state = CLOSED
    this.timer?.cancel()
    try {
      this.#handler.onClose(this, error)
    } finally {
      this.#owner.gone(this)
    }
  }

  // --- own

  #errorOf(why: number): Error | undefined {
    const opened = this.#state === OPEN
    const { native } = this.#engine
    switch (why) {
      case CLEAN_END:
        return this.#ended && this.#peerEnded ? undefined : closedError(this.#target)
      case TRUNCATED:
        return truncatedError(this.#target)
      case TLS_FAILED:
      case HANDSHAKE_CLOSED: {
        const cause = Object.assign(new Error(native.error(this.id)), { code: 'ERR_SSL' })
        return opened ? streamError(this.#target, cause) : handshakeError(this.#target, cause)
      }
      default: {
        const cause = systemError(native.strerror(why), why)
        if (opened) return streamError(this.#target, cause)
        return this.reached ? handshakeError(this.#target, cause) : connectError(this.#target, cause)
      }
    }
  }

  #nameBoth(): void {
    if (this.#path !== undefined) {
      if (this.#server) this.#local = { address: this.#path, port: 0 }
      else this.#peer = { address: this.#path, port: 0 }
      return
    }
    if (this.#engine.native.names(this.id, packed) < 0) return
    this.#local = unpackEndpoint(packed, 0)
    this.#peer = unpackEndpoint(packed, PACKED)
    if (this.#server) this.#target = `${this.#peer.address}:${this.#peer.port}`
  }

  /** Asks for the certificate and starts, or goes on with, the handshake. */
  #certificate(settings: TlsSettings, serverName: string): void {
    const give = (pair: KeyPair): void => {
      if (this.#state !== OPENING) return
      try {
        this.#engine.command(CONTEXT, this.id, contextFor(pair, settings), 0)
      } catch (error) {
        refuse(error)
      }
    }
    const refuse = (error: unknown): void => {
      if (this.#state !== OPENING) return
      this.#error ??= handshakeError(this.#target, error)
      // A server has a ClientHello to answer: by an alert, so that the client does not wait for its deadline.
      if (this.#server) this.#engine.command(REFUSE, this.id, 0, 0)
      else this.fail(this.#error)
    }
    try {
      const pair = settings.certificate(serverName)
      if (pair instanceof Promise) pair.then(give, refuse)
      else give(pair)
    } catch (error) {
      refuse(error)
    }
  }

  #allow(alpn: string, serverName: string, certificates: readonly Uint8Array[]): void {
    if (this.#state !== OPENING) return
    // First, so that what onOpen writes comes after it.
    this.#engine.command(ALLOW, this.id, 0, 0)
    this.#open(alpn, serverName, certificates, true)
  }

  #open(alpn: string, serverName: string, certificates: readonly Uint8Array[], secure: boolean): void {
    if (this.#state !== OPENING) return
    this.#state = OPEN
    this.timer?.cancel()
    this.timer = undefined
    this.info = { local: this.#local, peer: this.#peer, alpn, serverName, certificates, secure }
    try {
      this.#handler.onOpen(this, this.info)
    } catch (error) {
      this.fail(handlerError(this.#target, error))
    }
  }
}

/** The error that Node would make of an errno: `code` is its name. */
export function systemError(text: string, errno: number): Error {
  return Object.assign(new Error(text), { code: errnoName(errno), errno })
}

const NAMES: Readonly<Record<number, string>> = {
  1: 'EPERM',
  2: 'ENOENT',
  11: 'EAGAIN',
  12: 'ENOMEM',
  13: 'EACCES',
  22: 'EINVAL',
  23: 'ENFILE',
  24: 'EMFILE',
  32: 'EPIPE',
  98: 'EADDRINUSE',
  99: 'EADDRNOTAVAIL',
  101: 'ENETUNREACH',
  104: 'ECONNRESET',
  110: 'ETIMEDOUT',
  111: 'ECONNREFUSED',
  113: 'EHOSTUNREACH',
}

/** Names of the errnos that sockets give on Linux. */
export function errnoName(errno: number): string {
  return NAMES[errno] ?? `errno ${errno}`
}
