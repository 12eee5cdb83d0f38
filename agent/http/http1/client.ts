// The client side of HTTP/1.1: one exchange at a time on a connection that is kept alive. Must not live here: pools and
// retries (waypoint/upstream), parsing (response.ts, body.ts), the exchange's user side (client-exchange.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Connection, ConnectionHandler } from '../../io/connection.ts'
import {
  ExchangeError,
  type ClientEvents,
  type ClientExchange,
  type ClientSession,
  type RequestHead,
  type ResetReason,
  type SessionEvents,
} from '../message.ts'
import { BodyReader } from './body.ts'
import { Http1ClientExchange, type ClientExchangeOwner } from './client-exchange.ts'
import { resolveHttp1Options, type Http1Client, type Http1Options, type ResolvedHttp1Options } from './contract.ts'
import { Collector } from './collector.ts'
import { Http1Error, malformed } from './error.ts'
import { INCOMPLETE } from './lines.ts'
import { parseResponse, response } from './response.ts'
import { later } from './turn-end.ts'

/** Bound on informational responses to one request: they cost the peer little and us a turn each. */
const MAX_INFORMATIONAL = 32

const BEYOND = 'The server sent bytes beyond its response.'

const OPENING = 0
const IDLE = 1
const HEAD = 2
const BODY = 3
const TUNNEL = 4
/** The response is complete, the request is not (an early answer): its user still writes or gives up. */
const SENDING = 5
const CLOSED = 6

const UNBOUND = { slot: undefined } as unknown as Connection

class Http1Session implements ClientSession, ClientExchangeOwner {
  slot: unknown
  connection: Connection = UNBOUND
  readonly #events: SessionEvents
  readonly #collector: Collector
  readonly #body: BodyReader
  readonly #options: ResolvedHttp1Options
  #state = OPENING
  #exchange: Http1ClientExchange | undefined
  #clientEvents: ClientEvents | undefined
  #served = 0
  #informational = 0
  #keepAlive = true
  #draining = false
  #paused = false
  #toldDraining = false
  #error: Error | undefined

  constructor(events: SessionEvents, options: ResolvedHttp1Options) {
    this.#events = events
    this.#options = options
    this.#collector = new Collector(options.maxHead)
    this.#body = new BodyReader(this.#collector, options.maxFields)
  }

  get available(): number {
    return this.#state === IDLE && !this.#draining ? 1 : 0
  }

  get active(): number {
    return this.#exchange ? 1 : 0
  }

  get open(): boolean {
    return this.#state !== CLOSED && !this.#draining
  }

  request(head: RequestHead, end: boolean, events: ClientEvents, slot?: unknown): ClientExchange {
    if (this.available === 0) {
      throw new AmbitError('HTTP_SESSION_CLOSED', 'The HTTP/1.1 connection takes no request now.')
    }
    const exchange = new Http1ClientExchange(this, head, this.#served > 0, slot)
    exchange.send(head, end)
    this.#served++
    this.#informational = 0
    this.#exchange = exchange
    this.#clientEvents = events
    this.#state = HEAD
    return exchange
  }

  opened(connection: Connection): void {
    this.connection = connection
    if (this.#state === CLOSED) {
      connection.abort('cancel')
      return
    }
    this.#state = IDLE
    if (this.#draining) this.close()
    else this.#events.onAvailable(this)
  }

  receive(arena: Uint8Array, start: number, end: number): void {
    let at = start
    try {
      while (at < end) {
        const exchange = this.#exchange
        const events = this.#clientEvents
        switch (this.#state) {
          case HEAD:
            at = this.#readHead(arena, at, end)
            break
          case BODY:
            at = this.#body.feed(arena, at, end, this.#onBody)
            if (this.#state === BODY && this.#body.done) this.#responseComplete(at < end)
            break
          case TUNNEL:
            if (exchange) events?.onData(exchange, arena, at, end)
            return
          case IDLE:
          case SENDING:
            // Bytes nobody asked for: the next response could not be told from them (RFC 9112 §6.3).
            this.#fail(new Http1Error(502, 'http1.codec_error', BEYOND))
            return
          default:
            return
        }
      }
    } catch (error) {
      if (!(error instanceof Http1Error)) throw error
      this.#fail(error)
    }
  }

  readonly #onBody = (arena: Uint8Array, start: number, end: number): boolean => {
    const exchange = this.#exchange
    if (exchange) this.#clientEvents?.onData(exchange, arena, start, end)
    return this.#state === BODY
  }

  #readHead(arena: Uint8Array, from: number, end: number): number {
    const exchange = this.#exchange
    const events = this.#clientEvents
    if (!exchange || !events) return end
    const at = this.#parseHead(arena, from, end, exchange.method)
    if (at === INCOMPLETE) return end
    const { head, framing, keepAlive, tunnel, upgrade } = response
    if (tunnel) {
      // 101 is an answer to an upgrade that was asked for, and to nothing else.
      if (head.status === 101 && (exchange.protocol === '' || upgrade !== exchange.protocol)) {
        throw new Http1Error(502, 'http1.codec_error', 'The server switched to a protocol nobody asked for.')
      }
      this.#state = TUNNEL
      this.#keepAlive = false
      this.#drained()
      exchange.becomeTunnel()
      events.onResponse(exchange, head, false)
      return at
    }
    if (head.status < 200) {
      if (++this.#informational > MAX_INFORMATIONAL) {
        throw new Http1Error(502, 'http1.codec_error', 'The server sent too many informational responses.')
      }
      events.onInformational(exchange, head)
      return at
    }
    // An upgrade that was not granted: the request was complete with its head.
    exchange.refuseUpgrade()
    this.#keepAlive = keepAlive
    if (!keepAlive) this.#drained()
    this.#body.start(framing)
    this.#state = BODY
    const done = this.#body.done
    exchange.toldEnd = done
    events.onResponse(exchange, head, done)
    if (this.#state === BODY && done) this.#responseComplete(at < end)
    return at
  }

  /** Parses a response head into `response`; returns the offset behind it, or INCOMPLETE when all bytes were taken. */
  #parseHead(arena: Uint8Array, from: number, end: number, method: string): number {
    const { maxFields, maxHead } = this.#options
    if (this.#collector.empty) {
      // Most heads lie in one read: parsed where they are. Whatever is unusual is looked at again below, where its end is known.
      let at = INCOMPLETE
      try {
        at = parseResponse(arena, from, end, maxFields, method)
      } catch (error) {
        if (!(error instanceof Http1Error)) throw error
      }
      if (at !== INCOMPLETE && at - from <= maxHead) return at
    }
    const at = this.#collector.feed(arena, from, end)
    if (at < 0) return INCOMPLETE
    const { bytes, start, end: stop } = this.#collector
    if (parseResponse(bytes, start, stop, maxFields, method) !== stop) throw malformed('The status line is malformed.')
    return at
  }

  /** Tells once that no further exchange will be taken. */
  #drained(): void {
    this.#draining = true
    if (this.#toldDraining) return
    this.#toldDraining = true
    this.#events.onDraining(this)
  }

  /** `excess`: the server sent bytes beyond this response. No other request may be sent, or they would be its answer (RFC 9112 §9.2). */
  #responseComplete(excess: boolean): void {
    const exchange = this.#exchange
    const events = this.#clientEvents
    if (!exchange || !events) return
    exchange.responseDone = true
    this.#state = SENDING
    if (excess) {
      this.#error = new Http1Error(502, 'http1.codec_error', BEYOND)
      this.#drained()
    }
    if (!exchange.requestDone) this.#drained()
    if (!exchange.toldEnd) {
      exchange.toldEnd = true
      events.onEnd(exchange, this.#body.trailers)
    }
    if (this.#state === SENDING && exchange.requestDone) this.#finish()
  }

  /** The request is complete. Asynchronous, so that the user is never called back from inside its own `end`. */
  requestComplete(exchange: Http1ClientExchange): void {
    if (this.#exchange !== exchange || !exchange.responseDone) return
    later(finish, this, exchange, undefined)
  }

  finishIf(exchange: Http1ClientExchange): void {
    if (this.#exchange === exchange && exchange.requestDone && exchange.responseDone) this.#finish()
  }

  #finish(): void {
    const exchange = this.#exchange
    const events = this.#clientEvents
    this.#exchange = undefined
    this.#clientEvents = undefined
    const tunnel = this.#state === TUNNEL
    if (this.#draining || !this.#keepAlive || tunnel) {
      this.#state = CLOSED
      this.connection.end()
      // The server may keep its side open for ever; the answer is complete, so nothing is lost by cutting.
      if (!tunnel) this.connection.abort(this.#error ? 'protocol' : 'shutdown')
    } else this.#state = IDLE
    if (exchange) {
      exchange.dead = true
      events?.onClose(exchange, undefined)
    }
    if (this.#state === IDLE) {
      // A user that paused this response must not hold back the next one.
      this.setPaused(false)
      this.#events.onAvailable(this)
    }
  }

  #fail(error: Http1Error): void {
    this.#error = error
    this.#close(new ExchangeError('protocol', true, error.message))
    this.connection.abort('protocol')
  }

  #close(error: ExchangeError): void {
    this.#state = CLOSED
    const exchange = this.#exchange
    const events = this.#clientEvents
    this.#exchange = undefined
    this.#clientEvents = undefined
    if (!exchange) return
    exchange.dead = true
    events?.onClose(exchange, error)
  }

  cut(exchange: Http1ClientExchange, reason: ResetReason): void {
    if (this.#exchange !== exchange) return
    const events = this.#clientEvents
    this.#exchange = undefined
    this.#clientEvents = undefined
    this.#state = CLOSED
    this.connection.abort(reason === 'timeout' ? 'timeout' : 'cancel')
    if (events) later(closeExchange, events, exchange, new ExchangeError(reason, false, `cut: ${reason}`))
  }

  setPaused(paused: boolean): void {
    if (paused === this.#paused) return
    this.#paused = paused
    if (paused) this.connection.pause()
    else this.connection.resume()
  }

  drainedBelow(): void {
    const exchange = this.#exchange
    if (exchange) this.#clientEvents?.onDrain(exchange)
  }

  ended(): void {
    const exchange = this.#exchange
    switch (this.#state) {
      case IDLE:
      case SENDING:
        this.#drained()
        if (this.#state === IDLE) {
          this.#state = CLOSED
          this.connection.end()
        }
        return
      case BODY:
        if (this.#body.completeAtEnd) {
          this.#responseComplete(false)
          return
        }
        break
      case TUNNEL:
        if (exchange && !exchange.toldEnd) {
          exchange.toldEnd = true
          exchange.responseDone = true
          this.#clientEvents?.onEnd(exchange, [])
          this.finishIf(exchange)
        }
        return
      default:
    }
    this.#close(new ExchangeError('closed', true, 'the server ended the connection before its response was complete'))
    this.connection.abort('protocol')
  }

  closed(error: Error | undefined): void {
    const opening = this.#state === OPENING
    const reason = error ? error.message : 'the connection was closed'
    this.#close(new ExchangeError('closed', true, reason))
    this.#draining = true
    if (opening) this.#toldDraining = true
    this.#events.onClose(this, this.#error ?? error)
  }

  drain(): void {
    this.#drained()
    if (this.#state === IDLE) this.close()
  }

  close(): void {
    if (this.#state === CLOSED) return
    const idle = this.#state === IDLE
    this.#draining = true
    if (this.#state === OPENING) {
      if (this.connection !== UNBOUND) this.connection.abort('shutdown')
      this.#state = CLOSED
      return
    }
    this.#close(new ExchangeError('closed', false, 'the session was closed'))
    if (idle) this.connection.end()
    this.connection.abort('shutdown')
  }
}

function finish(session: Http1Session, exchange: Http1ClientExchange): void {
  session.finishIf(exchange)
}

function closeExchange(events: ClientEvents, exchange: Http1ClientExchange, error: ExchangeError): void {
  events.onClose(exchange, error)
}

const sessionOf = (connection: Connection) => connection.slot as Http1Session

const handler: ConnectionHandler = {
  onOpen: (connection) => sessionOf(connection).opened(connection),
  onRead: (connection, arena, start, end) => sessionOf(connection).receive(arena, start, end),
  onDrain: (connection) => sessionOf(connection).drainedBelow(),
  onEnd: (connection) => sessionOf(connection).ended(),
  onClose: (connection, error) => sessionOf(connection).closed(error),
}

/** Makes a client session; pass `handler` and `slot` to whatever connects. */
export function http1Client(events: SessionEvents, options: Http1Options = {}): Http1Client {
  const session = new Http1Session(events, resolveHttp1Options(options))
  return { handler, slot: session, session }
}
