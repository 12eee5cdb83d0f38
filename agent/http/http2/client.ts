// The client's side: a connection becomes a session on which exchanges are started. Must not live here: pools, retries.
import { AmbitError } from '../../base/errors.ts'
import type { Connection, ConnectionHandler, ConnectOptions, Transport } from '../../io/connection.ts'
import {
  ExchangeError,
  type ClientEvents,
  type ClientExchange,
  type Headers,
  type RequestHead,
  type SessionEvents,
} from '../message.ts'
import { MAX_STREAM_ID, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM } from './constants.ts'
import { resolveOptions, type Http2ClientSession, type Http2Options, type ResolvedOptions } from './contract.ts'
import { Http2ConnectionError } from './error.ts'
import { describeGoaway, Session } from './session.ts'
import { Http2Stream } from './stream.ts'
import { checkTrailers, parseResponse } from './validate.ts'

class ClientStream extends Http2Stream implements ClientExchange {
  readonly #events: ClientEvents
  readonly reused: boolean
  readonly #method: string
  #answered = false

  constructor(session: Session, id: number, method: string, events: ClientEvents, reused: boolean) {
    super(session, id)
    this.#events = events
    this.#method = method
    this.reused = reused
  }

  protected get bodyAllowed(): boolean {
    return true
  }

  protected get dataAllowed(): boolean {
    return this.#answered
  }

  /** The head itself ended the request. */
  ended(): void {
    this.markLocalEnd()
  }

  takeHead(fields: Headers, end: boolean): void {
    if (this.#answered) {
      const wrong = end ? checkTrailers(fields) : 'trailers without END_STREAM'
      if (wrong === '') this.takeEnd(fields)
      else this.malformed(wrong)
      return
    }
    const response = parseResponse(fields)
    if (typeof response === 'string') return this.malformed(response)
    const { head, contentLength } = response
    if (head.status < 200) {
      if (end || head.status === 101) return this.malformed(`an informational response that ${end ? 'ends' : 'is 101'}`)
      this.#events.onInformational(this, head)
      return
    }
    this.#answered = true
    this.tunnel = this.#method === 'CONNECT' && head.status < 300
    const bodiless = this.#method === 'HEAD' || head.status === 204 || head.status === 304
    if (end && !bodiless && !this.tunnel && contentLength > 0) return this.malformed('less than its content-length')
    this.contentLeft = bodiless ? 0 : contentLength
    if (end) this.markRemoteEnd()
    this.#events.onResponse(this, head, end)
  }

  protected emitData(arena: Uint8Array, start: number, end: number): void {
    this.#events.onData(this, arena, start, end)
  }

  protected emitEnd(trailers: Headers): void {
    this.#events.onEnd(this, trailers)
  }

  protected emitDrain(): void {
    this.#events.onDrain(this)
  }

  protected emitClose(error: ExchangeError | undefined): void {
    this.#events.onClose(this, error)
  }
}

class Http2Client extends Session implements Http2ClientSession {
  readonly isServer = false
  readonly #events: SessionEvents
  #next: number
  #availableDue = false
  #drainingTold = false
  #exhausted = false

  constructor(connection: Connection, options: ResolvedOptions, events: SessionEvents) {
    super(connection, options, false)
    this.#events = events
    this.#next = options.firstStream
  }

  get extendedConnect(): boolean {
    return this.peerExtendedConnect
  }

  override get open(): boolean {
    return super.open && !this.#exhausted
  }

  get available(): number {
    if (!this.started || !this.open) return 0
    return Math.max(0, Math.min(this.options.maxStreams, this.peerMaxStreams) - this.active)
  }

  override start(): void {
    super.start()
    this.#offer()
  }

  request(head: RequestHead, end: boolean, events: ClientEvents, slot?: unknown): ClientExchange {
    if (this.available <= 0) {
      throw new AmbitError('HTTP_SESSION_CLOSED', 'The session takes no further exchange now.', {
        hint: 'Check `available`, or open another session.',
      })
    }
    const id = this.#next
    this.writer.request(id, head, end)
    this.#next += 2
    const stream = new ClientStream(this, id, head.method, events, id > this.options.firstStream)
    stream.slot = slot
    this.streams.set(id, stream)
    if (end) stream.ended()
    if (this.#next > MAX_STREAM_ID) {
      this.#exhausted = true
      this.#tellDraining()
      this.drain()
    }
    return stream
  }

  override drain(): void {
    super.drain()
    this.#tellDraining()
  }

  protected takeBlock(id: number, end: boolean, _dependency: number): void {
    const stream = this.streams.get(id) as ClientStream | undefined
    const block = this.block
    if (stream === undefined) {
      if (this.isIdle(id)) throw new Http2ConnectionError(PROTOCOL_ERROR, 'HEADERS on a stream that never was')
      return
    }
    if (stream.remoteEnded) stream.malformed('HEADERS after its end')
    else if (block.malformed !== '') stream.malformed(block.malformed)
    else if (block.overflow) stream.malformed('its header list is too large')
    else stream.takeHead(block.headers, end)
  }

  protected takeGoaway(last: number, code: number): void {
    const message = describeGoaway(code)
    for (const stream of [...this.streams.values()]) {
      // What lies above the last stream was not processed (§6.8): the same as refused, and safe to try again.
      if (stream.id > last) stream.cut(new ExchangeError('refused', true, message, REFUSED_STREAM))
    }
    if (code !== NO_ERROR) this.note(new Http2ConnectionError(code, 'The peer went away'))
    this.#tellDraining()
  }

  #tellDraining(): void {
    if (this.#drainingTold) return
    this.#drainingTold = true
    this.#events.onDraining(this)
  }

  protected takeSettings(): void {
    this.#offer()
  }

  protected isIdle(id: number): boolean {
    return (id & 1) === 0 || id >= this.#next
  }

  protected streamGone(): void {
    this.#offer()
  }

  #offer(): void {
    this.#availableDue = true
    this.schedule()
  }

  protected override runDeferred(): void {
    super.runDeferred()
    if (!this.#availableDue) return
    this.#availableDue = false
    if (this.available > 0) this.#events.onAvailable(this)
  }

  protected sessionClosed(error: Error | undefined): void {
    this.#events.onClose(this, error)
  }
}

class ClientHandler implements ConnectionHandler {
  onOpen(connection: Connection): void {
    ;(connection.slot as Http2Client).start()
  }

  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    ;(connection.slot as Http2Client).receive(arena, start, end)
  }

  onDrain(connection: Connection): void {
    ;(connection.slot as Http2Client).drained()
  }

  onEnd(connection: Connection): void {
    ;(connection.slot as Http2Client).ended()
  }

  onClose(connection: Connection, error: Error | undefined): void {
    ;(connection.slot as Http2Client).closed(error)
  }
}

/** The handler of every client connection; its `slot` is the session that `http2Client` put there. */
export const http2ClientHandler: ConnectionHandler = new ClientHandler()

/**
 * A client session on a connection whose handler is `http2ClientHandler`, or passes everything on to it. Takes the
 * connection's slot. The connection may be open already, or opens later.
 */
export function http2Client(
  connection: Connection,
  events: SessionEvents,
  options: Http2Options = {},
): Http2ClientSession {
  const session = new Http2Client(connection, resolveOptions(options, false), events)
  connection.slot = session
  if (connection.writable) session.start()
  return session
}

/** Connects and speaks HTTP/2; the outcome comes through `events` (onAvailable, or onClose). */
export function connectHttp2(
  transport: Transport,
  target: Omit<ConnectOptions, 'handler' | 'slot'>,
  events: SessionEvents,
  options: Http2Options = {},
): Http2ClientSession {
  return http2Client(transport.connect({ ...target, handler: http2ClientHandler }), events, options)
}
