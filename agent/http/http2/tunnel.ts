// A CONNECT stream as a connection of agent/io's contract (RFC 9113 §8.5), so that a codec or a relay runs on it as on a
// socket: back-pressure by the stream's window, `end` = END_STREAM, `abort` = RST_STREAM. Must not live here: which
// tunnels are let through and where they lead (node/tunnel, waypoint).
import { AmbitError } from '../../base/errors.ts'
import type { AbortReason, Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import type {
  ClientEvents,
  ClientExchange,
  ClientSession,
  Exchange,
  ExchangeError,
  Headers,
  RequestHead,
  ResponseHead,
  ServerEvents,
  ServerExchange,
} from '../message.ts'
import { resetOfAbort } from './constants.ts'

/** A server refused a CONNECT: `status` says how. */
export class TunnelRefused extends AmbitError {
  readonly status: number
  readonly headers: Headers

  constructor(status: number, headers: Headers) {
    super('TUNNEL_REFUSED', `The tunnel was refused with status ${status}.`)
    this.status = status
    this.headers = headers
  }
}

const UNKNOWN_INFO: OpenInfo = {
  local: { address: '', port: 0 },
  peer: { address: '', port: 0 },
  alpn: '',
  serverName: '',
  certificates: [],
  secure: false,
}

/** What a tunnel's owner may know better than the connection underneath. */
export type TunnelInfo = Partial<OpenInfo>

class Tunnel implements Connection {
  slot: unknown
  readonly fd = -1
  readonly handler: ConnectionHandler
  info: OpenInfo = UNKNOWN_INFO
  /** The response's headers, on the client's side. */
  headers: Headers = []
  readonly #given: TunnelInfo
  #exchange: Exchange | undefined
  #open = false
  #ended = false
  #closed = false
  #refused: Error | undefined

  constructor(handler: ConnectionHandler, given: TunnelInfo, slot: unknown) {
    this.handler = handler
    this.#given = given
    this.slot = slot
  }

  attach(exchange: Exchange): void {
    this.#exchange = exchange
  }

  opened(): void {
    const exchange = this.#exchange as Exchange
    this.info = { ...exchange.connection.info, alpn: '', serverName: '', ...this.#given }
    this.#open = true
    this.handler.onOpen(this, this.info)
  }

  refused(status: number, headers: Headers): void {
    this.#refused = new TunnelRefused(status, headers)
    this.#exchange?.reset('cancel')
  }

  ended(): void {
    if (this.#open) this.handler.onEnd(this)
  }

  closed(error: ExchangeError | undefined): void {
    if (this.#closed) return
    this.#closed = true
    this.handler.onClose(this, this.#refused ?? error)
  }

  get pending(): number {
    return this.#exchange === undefined ? 0 : this.#exchange.pending
  }

  get writable(): boolean {
    return this.#open && !this.#ended && !this.#closed
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.#open && !this.#ended) this.#exchange?.write(bytes, start, end)
  }

  pause(): void {
    this.#exchange?.pause()
  }

  resume(): void {
    this.#exchange?.resume()
  }

  end(): void {
    if (!this.#open || this.#ended) return
    this.#ended = true
    this.#exchange?.end()
  }

  abort(reason: AbortReason): void {
    this.#ended = true
    this.#exchange?.reset(resetOfAbort(reason))
  }

  detach(): number {
    throw new AmbitError('IO_NOT_DETACHABLE', 'A tunnel has no descriptor of its own to give up.')
  }
}

/** Exchange events to connection events: one object for all tunnels, the tunnel is the exchange's slot. */
class TunnelEvents implements ClientEvents {
  onInformational(): void {
    // Nothing a tunnel could use.
  }

  onResponse(exchange: ClientExchange, head: ResponseHead, end: boolean): void {
    const tunnel = exchange.slot as Tunnel
    if (head.status < 200 || head.status > 299) {
      tunnel.refused(head.status, head.headers)
      return
    }
    tunnel.headers = head.headers
    tunnel.opened()
    if (end) tunnel.ended()
  }

  onData(exchange: Exchange, arena: Uint8Array, start: number, end: number): void {
    const tunnel = exchange.slot as Tunnel
    tunnel.handler.onRead(tunnel, arena, start, end)
  }

  onEnd(exchange: Exchange): void {
    ;(exchange.slot as Tunnel).ended()
  }

  onDrain(exchange: Exchange): void {
    const tunnel = exchange.slot as Tunnel
    tunnel.handler.onDrain(tunnel)
  }

  onClose(exchange: Exchange, error: ExchangeError | undefined): void {
    ;(exchange.slot as Tunnel).closed(error)
  }
}

const EVENTS = new TunnelEvents()

/** Decides over a CONNECT: calls `acceptTunnel` or responds with a refusal, now or later. Data waits. */
export type OnTunnel = (exchange: ServerExchange, head: RequestHead, end: boolean) => void

/** A request that waits for its verdict, and whether the client's side has ended already. */
interface Undecided {
  readonly end: boolean
  /** Told if it goes away before the verdict. */
  onGone?: (error: ExchangeError | undefined) => void
}

/** Most body bytes of a refused ordinary request that are read and dropped before its stream is cut. */
const MOST_DROPPED = 65_536
const NOT_A_TUNNEL: Uint8Array = Buffer.from(
  'This port speaks HBONE only: CONNECT, to an address with a port.\n',
  'latin1',
)

/** The slot of a request that is no CONNECT: its body is read and dropped, whatever the answer. */
class Ordinary {
  left = MOST_DROPPED
}

class TunnelServerEvents implements ServerEvents {
  readonly #onTunnel: OnTunnel

  constructor(onTunnel: OnTunnel) {
    this.#onTunnel = onTunnel
  }

  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    if (head.method === 'CONNECT') {
      exchange.slot = { end } satisfies Undecided
      // No byte is taken before the verdict; the window bounds what may wait.
      exchange.pause()
    } else exchange.slot = new Ordinary()
    this.#onTunnel(exchange, head, end)
  }

  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    if (exchange.slot instanceof Tunnel) EVENTS.onData(exchange, arena, start, end)
    else if (exchange.slot instanceof Ordinary) {
      exchange.slot.left -= end - start
      if (exchange.slot.left < 0) exchange.reset('cancel')
    }
  }

  onEnd(exchange: ServerExchange): void {
    if (exchange.slot instanceof Tunnel) EVENTS.onEnd(exchange)
  }

  onDrain(exchange: ServerExchange): void {
    if (exchange.slot instanceof Tunnel) EVENTS.onDrain(exchange)
  }

  onClose(exchange: ServerExchange, error: ExchangeError | undefined): void {
    if (exchange.slot instanceof Tunnel) EVENTS.onClose(exchange, error)
    else if (!(exchange.slot instanceof Ordinary)) (exchange.slot as Undecided).onGone?.(error)
  }
}

/** Events for an `http2Server` whose requests are tunnels. `onTunnel` sees every request, also what is not CONNECT. */
export function tunnelServer(onTunnel: OnTunnel): ServerEvents {
  return new TunnelServerEvents(onTunnel)
}

/** Has `task` called if the exchange goes away while its tunnel has been neither accepted nor refused. */
export function onUndecidedClose(exchange: ServerExchange, task: (error: ExchangeError | undefined) => void): void {
  if (exchange.slot instanceof Tunnel || exchange.slot instanceof Ordinary) return
  ;(exchange.slot as Undecided).onGone = task
}

/**
 * Answers a request of `tunnelServer` with 200 and makes it a connection: `handler.onOpen` is called before this returns.
 * `info` says what is known better than by the connection underneath (the original client, the target).
 */
export function acceptTunnel(
  exchange: ServerExchange,
  headers: Headers,
  handler: ConnectionHandler,
  info: TunnelInfo = {},
  slot?: unknown,
): Connection {
  const end = (exchange.slot as Undecided).end
  const tunnel = new Tunnel(handler, info, slot)
  tunnel.attach(exchange)
  exchange.slot = tunnel
  exchange.respond({ status: 200, headers }, false)
  // Before onOpen, so that an owner who pauses there stays paused; held bytes are delivered after this call.
  exchange.resume()
  tunnel.opened()
  if (end) tunnel.ended()
  return tunnel
}

/**
 * Answers a request of `tunnelServer` with a refusal. A CONNECT gets no body, and what the client still sends is let go;
 * any other request a text that says what the port is for, and may finish its own body within a bound (RFC 9113 §8.1).
 */
export function refuseTunnel(exchange: ServerExchange, status: number, headers: Headers = []): void {
  if (exchange.slot instanceof Ordinary) {
    const length = String(NOT_A_TUNNEL.length)
    exchange.respond({ status, headers: ['content-type', 'text/plain', 'content-length', length, ...headers] }, false)
    exchange.write(NOT_A_TUNNEL)
    exchange.end()
    return
  }
  exchange.respond({ status, headers }, true)
  exchange.reset('cancel')
}

/**
 * Opens a tunnel on a session: CONNECT to `authority`. onOpen comes with a 2xx; any other answer closes with
 * `TunnelRefused`. Throws HTTP_SESSION_CLOSED when the session takes no stream.
 */
export function openTunnel(
  session: ClientSession,
  authority: string,
  headers: Headers,
  handler: ConnectionHandler,
  info: TunnelInfo = {},
  slot?: unknown,
): Connection {
  const tunnel = new Tunnel(handler, info, slot)
  const head: RequestHead = { method: 'CONNECT', scheme: '', authority, path: '', protocol: '', headers }
  tunnel.attach(session.request(head, false, EVENTS, tunnel))
  return tunnel
}

/** The headers the server answered with, for a connection made by `openTunnel`. */
export function tunnelHeaders(connection: Connection): Headers {
  return connection instanceof Tunnel ? connection.headers : []
}
