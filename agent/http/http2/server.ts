// The server's side: connections become sessions, header blocks requests. Must not live here: what to answer.
import { AmbitError } from '../../base/errors.ts'
import type { Connection, OpenInfo } from '../../io/connection.ts'
import type { ExchangeError, Headers, RequestHead, ResponseHead, ServerEvents, ServerExchange } from '../message.ts'
import { NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED } from './constants.ts'
import {
  resolveOptions,
  type Http2Feed,
  type Http2Options,
  type Http2Server,
  type Http2Session,
  type ResolvedOptions,
  type ServerSessionEvents,
} from './contract.ts'
import { Http2ConnectionError } from './error.ts'
import { Session } from './session.ts'
import { Http2Stream } from './stream.ts'
import { checkTrailers, parseRequest } from './validate.ts'

const EMPTY_ANSWER: Headers = ['content-length', '0']
/** `:status` by status, so that a response makes none. */
const STATUS: readonly string[] = Array.from({ length: 1000 }, (_, status) => String(status))

class ServerStream extends Http2Stream implements ServerExchange {
  readonly #events: ServerEvents
  readonly #connect: boolean
  #responded = false

  constructor(session: Session, id: number, events: ServerEvents, contentLength: number, connect: boolean) {
    super(session, id)
    this.#events = events
    this.#connect = connect
    // A length says nothing about a tunnel (RFC 9110 §9.3.6).
    this.contentLeft = connect ? -1 : contentLength
  }

  get responded(): boolean {
    return this.#responded
  }

  protected get bodyAllowed(): boolean {
    return this.#responded
  }

  protected get dataAllowed(): boolean {
    return true
  }

  /** Tells the owner; `end`: the request has no body, and no onEnd follows. */
  begin(head: RequestHead, end: boolean): void {
    if (end) this.markRemoteEnd()
    this.#events.onRequest(this, head, end)
  }

  informational(head: ResponseHead): void {
    if (this.#responded || this.gone) return
    // 101 does not exist in HTTP/2 (RFC 9113 §8.6).
    if (head.status < 100 || head.status > 199 || head.status === 101) throw badStatus(head.status)
    this.session.writer.headers(this.id, STATUS[head.status] as string, head.headers, false)
  }

  respond(head: ResponseHead, end: boolean): void {
    if (this.#responded || this.gone) return
    const status = STATUS[head.status]
    if (status === undefined || head.status < 200) throw badStatus(head.status)
    this.session.writer.headers(this.id, status, head.headers, end)
    this.#responded = true
    this.tunnel = this.#connect && head.status < 300
    if (end) this.markLocalEnd()
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

function badStatus(status: number): AmbitError {
  return new AmbitError('HTTP_STATUS_INVALID', `Status ${status} cannot be sent here.`, {
    hint: 'Informational statuses are 100–199 except 101; a response has 200–999.',
  })
}

class ServerSession extends Session {
  readonly isServer = true
  readonly #server: Http2ServerHandler

  constructor(connection: Connection, options: ResolvedOptions, server: Http2ServerHandler) {
    super(connection, options, true)
    this.#server = server
  }

  protected takeBlock(id: number, end: boolean, dependency: number): void {
    const block = this.block
    const stream = this.streams.get(id)
    if (stream !== undefined) {
      if (dependency === id) stream.fail(PROTOCOL_ERROR, 'protocol', 'A stream depends on itself')
      else if (stream.remoteEnded) stream.fail(STREAM_CLOSED, 'closed', 'The peer sent HEADERS after its end')
      else if (!end) stream.malformed('trailers without END_STREAM')
      else if (block.malformed !== '') stream.malformed(block.malformed)
      else if (block.overflow) stream.malformed('trailers are too large')
      else {
        const wrong = checkTrailers(block.headers)
        if (wrong === '') stream.takeEnd(block.headers)
        else stream.malformed(wrong)
      }
      return
    }
    if ((id & 1) === 0) throw new Http2ConnectionError(PROTOCOL_ERROR, 'A client opened an even stream')
    if (id <= this.lastPeerStream) {
      const closed = this.recently(id)
      if (closed === -1 || id > this.lastServed) return
      if (closed === 1) throw new Http2ConnectionError(STREAM_CLOSED, 'HEADERS on a closed stream')
      throw new Http2ConnectionError(PROTOCOL_ERROR, 'A stream was opened below the last one')
    }
    this.lastPeerStream = id
    // After the last GOAWAY: the client knows that these are not served.
    if (id > this.lastServed) return
    this.checkSocket()
    this.#open(id, end, dependency)
  }

  #open(id: number, end: boolean, dependency: number): void {
    const block = this.block
    if (this.streams.size >= this.options.maxStreams) return this.refuse(id, REFUSED_STREAM)
    if (block.overflow) return this.#answer(id, end, '431', 'its header list is too large')
    if (block.malformed !== '') return this.#malformed(id, block.malformed)
    if (dependency === id) return this.#malformed(id, 'it depends on itself')
    const request = parseRequest(block.headers, this.options.extendedConnect)
    if (typeof request === 'string') return this.#malformed(id, request)
    const { head, contentLength, bad } = request
    if (bad !== '') return this.#answer(id, end, '400', bad)
    if (end && contentLength > 0 && head.method !== 'CONNECT')
      return this.#malformed(id, 'it is shorter than its content-length')
    const connect = head.method === 'CONNECT'
    const stream = new ServerStream(this, id, this.#server.events, contentLength, connect)
    this.streams.set(id, stream)
    stream.begin(head, end)
  }

  /** Answers for a stream that its owner never sees. */
  #answer(id: number, end: boolean, status: string, why: string): void {
    this.#server.rejected(this, why)
    this.writer.headers(id, status, EMPTY_ANSWER, true)
    if (!end) this.refuse(id, NO_ERROR)
    else this.remember(id)
  }

  #malformed(id: number, why: string): void {
    this.#server.rejected(this, why)
    this.refuse(id, PROTOCOL_ERROR)
  }

  protected takeGoaway(): void {
    // A client that goes away opens no streams; those that run go on.
    this.#server.leaving(this)
  }

  protected takeSettings(): void {
    // Nothing a server's owner could do with them.
  }

  protected isIdle(id: number): boolean {
    return (id & 1) === 0 || id > this.lastPeerStream
  }

  protected streamGone(): void {
    // Room for another stream is the client's to notice.
  }

  protected sessionClosed(error: Error | undefined): void {
    this.#server.gone(this, error)
  }
}

class Http2ServerHandler implements Http2Server {
  readonly events: ServerEvents
  readonly sessions = new Set<Http2Session>()
  readonly #options: ResolvedOptions
  readonly #sessionEvents: ServerSessionEvents
  #draining = false

  constructor(events: ServerEvents, options: Http2Options, sessionEvents: ServerSessionEvents) {
    this.events = events
    this.#options = resolveOptions(options, true)
    this.#sessionEvents = sessionEvents
  }

  adopt(connection: Connection, _info: OpenInfo): Http2Feed {
    const session = new ServerSession(connection, this.#options, this)
    this.sessions.add(session)
    session.start()
    this.#sessionEvents.onSession?.(session)
    if (this.#draining) session.drain()
    return session
  }

  gone(session: ServerSession, error: Error | undefined): void {
    this.sessions.delete(session)
    this.#sessionEvents.onSessionClose?.(session, error)
  }

  leaving(session: ServerSession): void {
    this.#sessionEvents.onLeaving?.(session)
  }

  rejected(session: ServerSession, why: string): void {
    this.#sessionEvents.onRejected?.(session, why)
  }

  onOpen(connection: Connection, info: OpenInfo): void {
    connection.slot = this.adopt(connection, info)
  }

  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    ;(connection.slot as ServerSession).receive(arena, start, end)
  }

  onDrain(connection: Connection): void {
    ;(connection.slot as ServerSession).drained()
  }

  onEnd(connection: Connection): void {
    ;(connection.slot as ServerSession).ended()
  }

  onClose(connection: Connection, error: Error | undefined): void {
    // A connection that never opened (handshake refused) has no session.
    if (connection.slot instanceof ServerSession) connection.slot.closed(error)
    else this.#sessionEvents.onRefused?.(connection, error)
  }

  drain(): void {
    this.#draining = true
    for (const session of [...this.sessions]) session.drain()
  }

  close(): void {
    this.#draining = true
    for (const session of [...this.sessions]) session.close()
  }
}

/**
 * The handler of a listener that speaks HTTP/2: every request of every connection goes to `events`. A request whose head
 * says `end` gets no onEnd. Malformed requests are reset, those with a wrong Host get 400, too large ones 431; of them the
 * owner hears by `onRejected` only.
 */
export function http2Server(
  events: ServerEvents,
  options: Http2Options = {},
  sessionEvents: ServerSessionEvents = {},
): Http2Server {
  return new Http2ServerHandler(events, options, sessionEvents)
}

/** The session an exchange of `http2Server` came in on. */
export function sessionOf(exchange: ServerExchange): Http2Session {
  return (exchange as ServerStream).session
}
