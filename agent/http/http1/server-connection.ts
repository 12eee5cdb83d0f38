// One connection of a server of HTTP/1.x: one request after the other, answered in order; pipelined bytes wait.
// Must not live here: parsing (request.ts, lines.ts, body.ts), bytes on the wire (emit.ts), the exchange's user side (server-exchange.ts).
import type { Connection, OpenInfo } from '../../io/connection.ts'
import { ExchangeError, type ServerEvents } from '../message.ts'
import { BodyReader } from './body.ts'
import { CR, LF, TOKEN } from './bytes.ts'
import { type Http1Feed, type Http1ServerSessionEvents, type ResolvedHttp1Options } from './contract.ts'
import { Collector } from './collector.ts'
import { writeHead } from './emit.ts'
import { Http1Error, malformed } from './error.ts'
import { INCOMPLETE } from './lines.ts'
import { statusLine } from './reasons.ts'
import { parseRequest, request } from './request.ts'
import { Http1ServerExchange, type ExchangeOwner } from './server-exchange.ts'
import { Sweep, type Swept } from './sweep.ts'
import { later } from './turn-end.ts'

/** After a refusal or an early answer the client may still be sending: what it sends is thrown away for this long, so that a reset does not overtake the answer. */
const LINGER_MS = 2_000

const HEAD = 0
const BODY = 1
/** The request is complete, the response is not: further bytes wait. */
const ANSWERING = 2
const TUNNEL = 3
const LINGERING = 4
const CLOSED = 5

/** What all connections of a server share. */
export interface ServerState {
  draining: boolean
}

export class ServerConnection implements Http1Feed, ExchangeOwner, Swept {
  deadline = Infinity
  readonly connection: Connection
  readonly #events: ServerEvents
  readonly #sessionEvents: Http1ServerSessionEvents
  readonly #options: ResolvedHttp1Options
  readonly #sweep: Sweep
  readonly #server: ServerState
  readonly #collector: Collector
  readonly #body: BodyReader
  readonly #secure: boolean
  #state = HEAD
  #exchange: Http1ServerExchange | undefined
  /** Bytes of the next request that came too early. The connection is paused meanwhile, so this is one read at most. */
  #held: Buffer | undefined
  #heldFrom = 0
  #skippedLine = false
  /** No exchange yet. */
  #fresh = true
  #paused = false
  #waiting = false
  /** What the connection was told last. */
  #stopped = false
  #peerEnded = false
  /** It drains by itself, not with the whole server. */
  #leaves = false

  constructor(
    connection: Connection,
    info: OpenInfo,
    events: ServerEvents,
    sessionEvents: Http1ServerSessionEvents,
    options: ResolvedHttp1Options,
    sweep: Sweep,
    server: ServerState,
  ) {
    this.connection = connection
    this.#events = events
    this.#sessionEvents = sessionEvents
    this.#options = options
    this.#sweep = sweep
    this.#server = server
    this.#secure = info.secure
    this.#collector = new Collector(options.maxHead)
    this.#body = new BodyReader(this.#collector, options.maxFields)
    sweep.add(this)
    // The first head is due like any other, also where not one byte comes.
    this.deadline = sweep.now + options.headTimeoutMs
  }

  get draining(): boolean {
    return this.#leaves || this.#server.draining
  }

  receive(arena: Uint8Array, start: number, end: number): void {
    let at = start
    try {
      while (at < end) {
        switch (this.#state) {
          case HEAD:
            at = this.#readHead(arena, at, end)
            break
          case BODY:
            this.deadline = this.#sweep.now + this.#options.bodyIdleTimeoutMs
            at = this.#body.feed(arena, at, end, this.#onBody)
            if (this.#state === BODY && this.#body.done) this.#requestComplete()
            break
          case ANSWERING:
            this.#hold(arena, at, end)
            return
          case TUNNEL: {
            const exchange = this.#exchange
            if (exchange) this.#events.onData(exchange, arena, at, end)
            return
          }
          default:
            return
        }
      }
    } catch (error) {
      if (!(error instanceof Http1Error)) throw error
      this.#refuse(error)
    }
  }

  /** Arrow: handed to the body reader without a closure per read. */
  readonly #onBody = (arena: Uint8Array, start: number, end: number): boolean => {
    const exchange = this.#exchange
    if (exchange) this.#events.onData(exchange, arena, start, end)
    return this.#state === BODY
  }

  #readHead(arena: Uint8Array, from: number, end: number): number {
    const { maxFields, maxTarget, maxHead } = this.#options
    let at = INCOMPLETE
    if (this.#collector.empty) {
      this.deadline = this.#sweep.now + this.#options.headTimeoutMs
      // Most heads lie in one read: parsed where they are. Whatever is unusual is looked at again below, where its end is known.
      try {
        at = parseRequest(arena, from, end, maxFields, maxTarget, this.#secure)
      } catch (error) {
        if (!(error instanceof Http1Error)) throw error
      }
      if (at - from > maxHead) at = INCOMPLETE
    }
    if (at === INCOMPLETE) {
      // TLS, zeros and the like need not be waited for: no method and no empty line begins like this.
      if (this.#collector.empty && TOKEN[arena[from] as number] === 0 && arena[from] !== CR && arena[from] !== LF)
        throw malformed('The request line does not begin with a method.')
      at = this.#collector.feed(arena, from, end, true)
      if (at < 0) return end
      const { bytes, start, end: stop } = this.#collector
      if (stop - start === 2) {
        // One empty line before a request is forgiven (RFC 9112 §2.2): old clients send it after a body.
        if (this.#skippedLine) throw malformed('Empty lines instead of a request.')
        this.#skippedLine = true
        return at
      }
      if (parseRequest(bytes, start, stop, maxFields, maxTarget, this.#secure) !== stop) {
        throw malformed('The request line is malformed.')
      }
    }
    this.#skippedLine = false
    this.#fresh = false
    this.deadline = Infinity
    const { head, framing, minor, keepAlive } = request
    this.#body.start(framing)
    const done = this.#body.done
    const open = head.method === 'CONNECT' || head.protocol !== ''
    const exchange = new Http1ServerExchange(this, head.method, head.protocol, minor, keepAlive)
    this.#exchange = exchange
    exchange.requestDone = done
    this.#state = done ? ANSWERING : BODY
    if (!done) this.deadline = this.#sweep.now + this.#options.bodyIdleTimeoutMs
    this.#events.onRequest(exchange, head, done && !open)
    return at
  }

  #requestComplete(): void {
    const exchange = this.#exchange
    this.#state = ANSWERING
    this.deadline = Infinity
    if (!exchange) return
    exchange.requestDone = true
    this.#events.onEnd(exchange, this.#body.trailers)
    if (exchange.responseDone) this.#scheduleFinish(exchange)
  }

  #hold(arena: Uint8Array, start: number, end: number): void {
    const held = this.#held
    // What was held already stays where it is: a long pipeline is not copied once for each of its requests.
    if (held && held === arena) this.#heldFrom = start
    else {
      const more = Buffer.from(arena.subarray(start, end))
      this.#held = held ? Buffer.concat([held.subarray(this.#heldFrom), more]) : more
      this.#heldFrom = 0
    }
    this.#waiting = true
    this.#applyPause()
  }

  /** Reads on in what was held, as far as the state allows. */
  #release(): void {
    const held = this.#held
    if (!held) return
    const from = this.#heldFrom
    this.#waiting = false
    this.receive(held, from, held.length)
    // Not held again: it is used up.
    if (!this.#waiting) this.#held = undefined
  }

  /** The response is complete. Never calls back into the user from its own call: the end of the exchange comes a tick later. */
  responseComplete(exchange: Http1ServerExchange): void {
    if (this.#exchange === exchange) this.#scheduleFinish(exchange)
  }

  #scheduleFinish(exchange: Http1ServerExchange): void {
    if (exchange.finishing) return
    exchange.finishing = true
    later(finish, this, exchange, undefined)
  }

  finish(exchange: Http1ServerExchange): void {
    if (this.#exchange !== exchange) return
    this.#exchange = undefined
    // A call that comes too late must not reach the exchange that follows.
    exchange.dead = true
    const early = !exchange.requestDone
    this.#events.onClose(
      exchange,
      early ? new ExchangeError('cancel', false, 'the response ended before the request did') : undefined,
    )
    if (this.#state === CLOSED) return
    if (early || !exchange.keepAlive || this.#peerEnded || this.draining) {
      this.#leave()
      return
    }
    this.#state = HEAD
    this.#paused = false
    this.deadline = this.#sweep.now + this.#options.idleTimeoutMs
    this.#release()
    this.#applyPause()
  }

  /** Half-closes and throws away what still comes, for a while. */
  #leave(): void {
    this.#held = undefined
    this.#state = LINGERING
    this.connection.end()
    if (this.#peerEnded) return
    this.deadline = this.#sweep.now + LINGER_MS
    this.#paused = false
    this.#waiting = false
    this.#applyPause()
  }

  becomeTunnel(): void {
    this.#state = TUNNEL
    if (this.#held) later(deliverHeld, this, undefined, undefined)
    else this.#applyPause()
  }

  deliver(): void {
    this.#release()
    this.#applyPause()
  }

  setPaused(paused: boolean): void {
    this.#paused = paused
    this.#applyPause()
  }

  #applyPause(): void {
    const stopped = this.#paused || this.#waiting
    // The transport is told of changes only: most exchanges never pause.
    if (stopped === this.#stopped) return
    this.#stopped = stopped
    if (stopped) this.connection.pause()
    else this.connection.resume()
  }

  /** Answers what is no request, or a request whose body broke, and closes. */
  #refuse(error: Http1Error): void {
    const exchange = this.#exchange
    const late = error.status === 408
    const reason = late ? 'timeout' : 'protocol'
    this.#exchange = undefined
    if (exchange?.responded) {
      this.#state = CLOSED
      this.connection.abort(reason)
      this.#events.onClose(exchange, new ExchangeError(reason, !late, error.message))
      return
    }
    let body = error.status === 400 && error.details !== 'missing_host_header' ? 'Bad Request' : ''
    if (late) body = exchange ? 'stream timeout' : 'request timeout'
    const type = body ? 'content-type: text/plain\r\n' : ''
    const own = `content-length: ${body.length}\r\n${type}connection: close\r\n`
    writeHead(this.connection, statusLine(error.status), [], false, own, body ? 3 : 2)
    if (body) this.connection.write(Buffer.from(body))
    this.#leave()
    if (exchange) {
      exchange.dead = true
      this.#events.onClose(exchange, new ExchangeError(reason, !late, error.message, -1, error.status))
    } else this.#sessionEvents.onRefused?.(this.connection, error.status, error.details)
  }

  /** The user cut the exchange: the client sees a broken connection, never a complete message. */
  cut(exchange: Http1ServerExchange, error: ExchangeError): void {
    if (this.#exchange !== exchange) return
    this.#exchange = undefined
    this.#state = CLOSED
    this.connection.abort(error.reason === 'timeout' ? 'timeout' : 'cancel')
    later(closeExchange, this.#events, exchange, error)
  }

  drained(): void {
    const exchange = this.#exchange
    if (exchange) this.#events.onDrain(exchange)
  }

  ended(): void {
    this.#peerEnded = true
    const exchange = this.#exchange
    switch (this.#state) {
      case HEAD:
        // Between requests this is how clients leave; within a head there is nothing to answer.
        this.#state = LINGERING
        this.connection.end()
        return
      case BODY:
        this.#state = CLOSED
        this.#exchange = undefined
        this.connection.abort('protocol')
        if (exchange) this.#events.onClose(exchange, new ExchangeError('closed', true, 'the request was truncated'))
        return
      case TUNNEL:
        if (exchange) {
          exchange.requestDone = true
          this.#events.onEnd(exchange, [])
          if (exchange.responseDone) this.#scheduleFinish(exchange)
        }
        return
      default:
      // ANSWERING: a client may end its direction and wait for the answer.
    }
  }

  closed(error: Error | undefined): void {
    this.#sweep.delete(this)
    this.#state = CLOSED
    const exchange = this.#exchange
    this.#exchange = undefined
    if (!exchange) return
    exchange.dead = true
    const clean = error === undefined && exchange.requestDone && exchange.responseDone
    const reason = error ? error.message : 'the connection was closed'
    this.#events.onClose(exchange, clean ? undefined : new ExchangeError('closed', true, reason))
  }

  onDeadline(): void {
    this.deadline = Infinity
    if (this.#state === LINGERING) this.connection.abort('timeout')
    else if (this.#state === HEAD && !this.#collector.empty) {
      this.#refuse(new Http1Error(408, 'request_header_timeout', 'The request head took too long.'))
    } else if (this.#state === HEAD) this.#leave()
    else if (this.#state === BODY) {
      // Nobody reads it: that is not the client's doing.
      if (this.#stopped) this.deadline = this.#sweep.now + this.#options.bodyIdleTimeoutMs
      else this.#refuse(new Http1Error(408, 'stream_idle_timeout', 'The request body stopped.'))
    }
  }

  expire(): void {
    if (this.#state === HEAD) this.onDeadline()
  }

  drain(idleMs: number): void {
    this.#leaves = true
    if (this.#state !== HEAD || !this.#collector.empty) return
    if (idleMs === 0) return this.#leave()
    const since = this.#fresh ? this.#sweep.now : this.deadline - this.#options.idleTimeoutMs
    this.deadline = Math.min(this.deadline, since + idleMs)
  }
}

function finish(connection: ServerConnection, exchange: Http1ServerExchange): void {
  connection.finish(exchange)
}

function deliverHeld(connection: ServerConnection): void {
  connection.deliver()
}

function closeExchange(events: ServerEvents, exchange: Http1ServerExchange, error: ExchangeError): void {
  events.onClose(exchange, error)
}
