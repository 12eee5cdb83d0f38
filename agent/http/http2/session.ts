// One HTTP/2 connection, what both roles share: settings, both connection windows, PING, GOAWAY, the list of streams, the
// order in which waiting streams send, bounds on what a peer may do, the end (RFC 9113 §3–§6, §10.5).
// Must not live here: header semantics, frame layout, the state of one stream.
import { messageOf } from '../../base/errors.ts'
import type { Timer } from '../../base/clock.ts'
import type { Connection } from '../../io/connection.ts'
import { HpackDecoder, type HeaderBlock } from '../hpack/decoder.ts'
import { HpackError } from '../hpack/error.ts'
import { ExchangeError } from '../message.ts'
import { Budget } from './budget.ts'
import {
  ACK,
  codeName,
  COMPRESSION_ERROR,
  DATA,
  DEFAULT_WINDOW,
  END_STREAM,
  ENHANCE_YOUR_CALM,
  FLOW_CONTROL_ERROR,
  FRAME_SIZE_ERROR,
  GOAWAY,
  HEADERS,
  INTERNAL_ERROR,
  MAX_STREAM_ID,
  MAX_WINDOW,
  MIN_MAX_FRAME,
  NO_ERROR,
  PING,
  PRIORITY,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  RST_STREAM,
  SETTINGS,
  SETTINGS_ENABLE_CONNECT_PROTOCOL,
  SETTINGS_ENABLE_PUSH,
  SETTINGS_HEADER_TABLE_SIZE,
  SETTINGS_INITIAL_WINDOW_SIZE,
  SETTINGS_MAX_CONCURRENT_STREAMS,
  SETTINGS_MAX_FRAME_SIZE,
  SETTINGS_MAX_HEADER_LIST_SIZE,
  STREAM_CLOSED,
  WINDOW_UPDATE,
} from './constants.ts'
import type { Http2Feed, Http2Session, ResolvedOptions } from './contract.ts'
import { Http2ConnectionError } from './error.ts'
import { FrameReader, readStreamId, type FrameSink } from './reader.ts'
import type { Http2Stream } from './stream.ts'
import { FrameWriter } from './writer.ts'

/** DATA is handed to the socket while it holds less than this; above, streams keep their own. */
const SOCKET_HIGH = 262_144
/** Frames other than DATA have no window: a peer that makes us send more than this without reading is cut. */
const SOCKET_MOST = 8 * 1_048_576
/** Largest DATA frame sent, also where the peer would take more: others shall get their turn. */
const MOST_DATA = 262_144
/** After our last frame the peer gets this long to read it before the connection is cut. */
const LINGER_MS = 1_000
const RECENT = 256
/**
 * A stream the peer cancels after this long was work and no rapid reset: the limit on open streams bounds how many there
 * can be (at 200 streams, 2 000 a second). So a proxy whose clients give up may go on.
 */
const LIVED_MS = 100
/** DATA that the peer's window cut shorter than this earns nothing: it is how a peer makes many frames of few bytes. */
const DRIBBLE = 1_024
const DRAIN_PING: Uint8Array = Buffer.from('ambitend', 'latin1')
const KEEPALIVE_PING: Uint8Array = Buffer.from('ambitkee', 'latin1')

export abstract class Session implements FrameSink, Http2Session, Http2Feed {
  slot: unknown = undefined
  readonly connection: Connection
  readonly options: ResolvedOptions
  readonly writer: FrameWriter
  readonly nothing: Uint8Array = new Uint8Array(0)
  abstract readonly isServer: boolean
  /** The peer's SETTINGS_INITIAL_WINDOW_SIZE. */
  peerStreamWindow = DEFAULT_WINDOW
  /** The peer's SETTINGS_MAX_CONCURRENT_STREAMS. */
  protected peerMaxStreams = Infinity
  protected peerExtendedConnect = false
  protected readonly streams = new Map<number, Http2Stream>()
  /** Highest stream the peer opened. */
  protected lastPeerStream = 0
  protected readonly block: HeaderBlock = { headers: [], malformed: '', overflow: false }
  readonly #decoder: HpackDecoder
  readonly #reader: FrameReader
  #sendWindow = DEFAULT_WINDOW
  #receiveWindow: number
  /** Bytes received that the window has not been refilled for. */
  #consumed = 0
  #held = 0
  /** Streams with bytes to send and window for them, in turn. */
  #waiting: Http2Stream[] = []
  #deferred: Http2Stream[] = []
  #receiving = false
  #microtask = false
  readonly #runDeferred = (): void => {
    this.#microtask = false
    try {
      this.runDeferred()
    } catch (error) {
      // A bug of an owner, met in a microtask where no transport can catch it: it costs this connection, and is told
      // through the session's close.
      this.#failure = error instanceof Error ? error : new Error(String(error))
      this.fail(INTERNAL_ERROR, messageOf(error))
    }
  }
  /** Recently closed streams: the id, negative when this side reset it. */
  readonly #recent = new Int32Array(RECENT)
  #recentNext = 0
  #dataStream: Http2Stream | undefined
  #emptyData = 0
  /** The peer has taken our settings: from here it knows the limits. */
  #acknowledged = false
  /** When the bytes at hand arrived, monotonic milliseconds; kept by servers only. */
  arrived = 0
  /** Runs while the peer owes its first SETTINGS or the rest of a header block. */
  #headTimer: Timer | undefined
  #overdrawn = false
  #flushing = false
  #failure: Error | undefined
  #state: 'new' | 'open' | 'ending' | 'closed' = 'new'
  protected goawaySent = false
  protected goawayReceived = false
  /** Streams above this one are not served any more. */
  protected lastServed = MAX_STREAM_ID
  /** The last GOAWAY of a drain was sent: once the last stream is gone, so is the connection. */
  #drained = false
  #heard = false
  #quietMs = 0
  #keepalive: Timer | undefined
  #linger: Timer | undefined
  readonly #resets: Budget
  readonly #pings: Budget
  readonly #settings: Budget
  readonly #small: Budget

  constructor(connection: Connection, options: ResolvedOptions, server: boolean) {
    this.connection = connection
    this.options = options
    this.writer = new FrameWriter(connection)
    // A block is at most twice as large as its list: an encoder that expands more than that is not honest.
    const maxBlock = Math.max(32_768, options.maxHeaderList * 2)
    this.#reader = new FrameReader(this, server, MIN_MAX_FRAME, maxBlock)
    this.#decoder = new HpackDecoder(4096, options.maxHeaderList)
    this.#receiveWindow = Math.max(DEFAULT_WINDOW, options.connectionWindow)
    const clock = options.clock
    this.#resets = new Budget(clock, options.resetBurst, 100)
    this.#pings = new Budget(clock, 1_000, 100)
    this.#settings = new Budget(clock, 100, 10)
    this.#small = new Budget(clock, 10_000, 1_000)
  }

  get session(): Http2Session {
    return this
  }

  get active(): number {
    return this.streams.size
  }

  get open(): boolean {
    return (this.#state === 'new' || this.#state === 'open') && !this.goawaySent && !this.goawayReceived
  }

  protected get started(): boolean {
    return this.#state === 'open'
  }

  get reading(): boolean {
    return this.#state === 'open'
  }

  /** The connection is open: sends the preface, the settings and the connection's window. */
  start(): void {
    if (this.#state !== 'new') return
    this.#state = 'open'
    const options = this.options
    if (!this.isServer) this.writer.preface()
    this.writer.settings([
      ...(this.isServer ? [SETTINGS_MAX_CONCURRENT_STREAMS, options.maxStreams] : [SETTINGS_ENABLE_PUSH, 0]),
      SETTINGS_INITIAL_WINDOW_SIZE,
      options.initialWindow,
      SETTINGS_MAX_HEADER_LIST_SIZE,
      options.maxHeaderList,
      ...(this.isServer && options.extendedConnect ? [SETTINGS_ENABLE_CONNECT_PROTOCOL, 1] : []),
    ])
    if (options.connectionWindow > DEFAULT_WINDOW) {
      this.writer.windowUpdate(0, options.connectionWindow - DEFAULT_WINDOW)
    }
    if (options.keepaliveMs > 0) this.#armKeepalive()
    this.#watchHead()
  }

  /** A peer that begins a head and does not end it (or never begins) holds memory for a bounded time only. */
  #watchHead(): void {
    if (!this.#reader.incomplete) {
      if (this.#headTimer === undefined) return
      this.#headTimer.cancel()
      this.#headTimer = undefined
      return
    }
    this.#headTimer ??= this.options.clock.after(
      this.options.headTimeoutMs,
      () => this.fail(ENHANCE_YOUR_CALM, 'The peer did not complete a head in time'),
      true,
    )
  }

  // Bytes in

  receive(arena: Uint8Array, start: number, end: number): void {
    this.#heard = true
    if (this.#state !== 'open') return
    this.#receiving = true
    if (this.isServer) this.arrived = this.options.clock.monotonic()
    try {
      this.#reader.read(arena, start, end)
      this.#refill()
      if (this.#headTimer !== undefined || this.#reader.incomplete) this.#watchHead()
    } catch (error) {
      this.#broken(error)
    } finally {
      this.#receiving = false
      this.runDeferred()
    }
  }

  #broken(error: unknown): void {
    if (error instanceof Http2ConnectionError) this.fail(error.http2Code, error.message)
    else if (error instanceof HpackError) this.fail(COMPRESSION_ERROR, error.message)
    else {
      // A bug of the owner or ours: end this connection, and let the transport report it (ConnectionHandler's rule).
      this.fail(INTERNAL_ERROR, messageOf(error))
      throw error
    }
  }

  onFrame(type: number, flags: number, _id: number, length: number): void {
    if (this.#overdrawn) throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'Too many streams had to be reset')
    if (type === DATA) {
      if (length > 0) {
        this.#emptyData = 0
        this.#small.give(1)
      } else if ((flags & END_STREAM) === 0 && (++this.#emptyData > 100 || !this.#small.take())) {
        throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'Too many empty DATA frames')
      }
    } else if (type !== HEADERS && !this.#small.take()) {
      throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'Too many frames that carry nothing')
    }
  }

  onControl(type: number, flags: number, id: number, bytes: Uint8Array, start: number, end: number): void {
    switch (type) {
      case PRIORITY:
        if (end - start !== 5) this.#refuseStream(id, FRAME_SIZE_ERROR, 'PRIORITY has a wrong length')
        else if (readStreamId(bytes, start) === id) {
          this.#refuseStream(id, PROTOCOL_ERROR, 'A stream depends on itself')
        }
        break
      case RST_STREAM:
        this.#takeReset(id, readUint32(bytes, start))
        break
      case SETTINGS:
        this.#takeSettings(flags, bytes, start, end)
        break
      case PING:
        this.#takePing(flags, bytes, start)
        break
      case GOAWAY:
        this.goawayReceived = true
        this.takeGoaway(readStreamId(bytes, start), readUint32(bytes, start + 4))
        this.flush()
        this.#maybeEnd()
        break
      case WINDOW_UPDATE:
        this.#takeWindow(id, readStreamId(bytes, start))
        break
    }
  }

  #takeReset(id: number, code: number): void {
    const stream = this.streams.get(id)
    if (stream !== undefined) {
      const lived = this.arrived - stream.opened >= LIVED_MS
      stream.takeReset(code)
      if (lived) return
    } else if (this.isIdle(id)) throw new Http2ConnectionError(PROTOCOL_ERROR, 'RST_STREAM on a stream that never was')
    this.#spendReset()
  }

  /** Cancelled streams, and those reset for the peer's errors, are what rapid reset lives on (CVE-2023-44487, CVE-2025-8671). */
  #spendReset(): void {
    if (this.isServer && !this.#resets.take()) {
      throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'Too many streams were cancelled')
    }
  }

  #takeSettings(flags: number, bytes: Uint8Array, start: number, end: number): void {
    if ((flags & ACK) !== 0) {
      this.#acknowledged = true
      return
    }
    if (!this.#settings.take()) throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'Too many SETTINGS')
    for (let at = start; at < end; at += 6) {
      const id = ((bytes[at] as number) << 8) | (bytes[at + 1] as number)
      const value = readUint32(bytes, at + 2)
      switch (id) {
        case SETTINGS_HEADER_TABLE_SIZE:
          this.writer.encoder.setLimit(value)
          break
        case SETTINGS_ENABLE_PUSH:
          if (value > 1 || (value === 1 && !this.isServer)) {
            throw new Http2ConnectionError(PROTOCOL_ERROR, 'SETTINGS_ENABLE_PUSH has a wrong value')
          }
          break
        case SETTINGS_MAX_CONCURRENT_STREAMS:
          this.peerMaxStreams = value
          break
        case SETTINGS_INITIAL_WINDOW_SIZE:
          this.#setPeerStreamWindow(value)
          break
        case SETTINGS_MAX_FRAME_SIZE:
          if (value < MIN_MAX_FRAME || value > 0xffffff) {
            throw new Http2ConnectionError(PROTOCOL_ERROR, 'SETTINGS_MAX_FRAME_SIZE has a wrong value')
          }
          this.writer.maxFrameSize = value
          break
        case SETTINGS_ENABLE_CONNECT_PROTOCOL:
          if (value > 1) {
            throw new Http2ConnectionError(PROTOCOL_ERROR, 'SETTINGS_ENABLE_CONNECT_PROTOCOL has a wrong value')
          }
          this.peerExtendedConnect = value === 1
          break
      }
    }
    this.writer.settingsAck()
    this.checkSocket()
    this.flush()
    this.takeSettings()
  }

  #setPeerStreamWindow(value: number): void {
    if (value > MAX_WINDOW) throw new Http2ConnectionError(FLOW_CONTROL_ERROR, 'The initial window is too large')
    const change = value - this.peerStreamWindow
    this.peerStreamWindow = value
    if (change === 0) return
    for (const stream of this.streams.values()) {
      if (!stream.addSendWindow(change)) throw new Http2ConnectionError(FLOW_CONTROL_ERROR, 'A window overflowed')
    }
  }

  #takePing(flags: number, bytes: Uint8Array, start: number): void {
    if ((flags & ACK) !== 0) {
      if (equalBytes(bytes, start, DRAIN_PING)) this.#finishDrain()
      return
    }
    if (!this.#pings.take()) throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'Too many PINGs')
    this.writer.ping(true, bytes, start)
    this.checkSocket()
  }

  #takeWindow(id: number, increment: number): void {
    if (id === 0) {
      if (increment === 0) throw new Http2ConnectionError(PROTOCOL_ERROR, 'WINDOW_UPDATE of nothing')
      this.#sendWindow += increment
      if (this.#sendWindow > MAX_WINDOW) {
        throw new Http2ConnectionError(FLOW_CONTROL_ERROR, "The connection's window overflowed")
      }
      this.flush()
      return
    }
    const stream = this.streams.get(id)
    if (stream === undefined) {
      if (this.isIdle(id)) throw new Http2ConnectionError(PROTOCOL_ERROR, 'WINDOW_UPDATE on a stream that never was')
      return
    }
    if (increment === 0) stream.fail(PROTOCOL_ERROR, 'protocol', 'The peer sent a WINDOW_UPDATE of nothing')
    else if (!stream.addSendWindow(increment)) stream.fail(FLOW_CONTROL_ERROR, 'flow', 'The window overflowed')
    else this.flush()
  }

  /** A wrong PRIORITY: a stream error, or a connection error where there is no stream to reset. */
  #refuseStream(id: number, code: number, message: string): void {
    const stream = this.streams.get(id)
    if (stream === undefined) throw new Http2ConnectionError(code, message)
    stream.fail(code, 'protocol', message)
  }

  // DATA

  onDataStart(id: number, _flags: number, length: number): void {
    this.#receiveWindow -= length
    if (this.#receiveWindow < 0) {
      throw new Http2ConnectionError(FLOW_CONTROL_ERROR, "The peer sent more than the connection's window allows")
    }
    this.#consumed += length
    const stream = this.streams.get(id)
    this.#dataStream = undefined
    if (stream !== undefined) {
      if (stream.beginData(length)) this.#dataStream = stream
    } else if (this.isIdle(id)) {
      throw new Http2ConnectionError(PROTOCOL_ERROR, 'DATA on a stream that never was')
    } else if (!this.wasReset(id) && id <= this.lastServed) {
      this.#spendReset()
      this.writer.reset(id, STREAM_CLOSED)
      this.checkSocket()
    }
  }

  onDataBytes(bytes: Uint8Array, start: number, end: number): void {
    const stream = this.#dataStream
    if (stream !== undefined && !stream.closed) stream.takeData(bytes, start, end)
  }

  onDataEnd(_id: number, flags: number): void {
    const stream = this.#dataStream
    this.#dataStream = undefined
    if (stream !== undefined && !stream.closed) stream.endData((flags & END_STREAM) !== 0)
  }

  /** Gives the connection's window back for what arrived, whoever may still hold it, up to `maxHeld`. */
  #refill(): void {
    if (this.#consumed < this.options.connectionWindow / 4 || this.#state !== 'open') return
    if (this.#held > this.options.maxHeld) return
    this.writer.windowUpdate(0, this.#consumed)
    this.#receiveWindow += this.#consumed
    this.#consumed = 0
    if (this.#reader.maxFrameSize >= this.options.maxFrameSize) return
    // A connection that carries much gets larger frames; one that does not has no business sending any (§4.2).
    this.#reader.maxFrameSize = this.options.maxFrameSize
    this.writer.settings([SETTINGS_MAX_FRAME_SIZE, this.options.maxFrameSize])
  }

  hold(bytes: number): void {
    this.#held += bytes
  }

  release(bytes: number): void {
    this.#held -= bytes
    this.#refill()
  }

  onBlock(id: number, flags: number, dependency: number, bytes: Uint8Array, start: number, end: number): void {
    // Always decoded, whatever becomes of the stream: the table must stay in step.
    this.#decoder.decode(bytes, start, end, this.block)
    this.takeBlock(id, (flags & END_STREAM) !== 0, dependency)
  }

  /** A decoded block is in `block`. */
  protected abstract takeBlock(id: number, end: boolean, dependency: number): void
  protected abstract takeGoaway(last: number, code: number): void
  protected abstract takeSettings(): void
  /** True for a stream that has not been opened. */
  protected abstract isIdle(id: number): boolean
  /** A stream has closed on the wire. */
  protected abstract streamGone(): void
  /** The connection is gone; once. */
  protected abstract sessionClosed(error: Error | undefined): void

  /** Closed a short time ago: −1 reset from here, 1 otherwise, 0 not known. */
  protected recently(id: number): number {
    let found = 0
    for (let i = 0; i < RECENT; i++) {
      if (this.#recent[i] === -id) return -1
      if (this.#recent[i] === id) found = 1
    }
    return found
  }

  protected wasReset(id: number): boolean {
    return this.recently(id) === -1
  }

  // Bytes out

  /** Sends as much of the range as windows and socket take now; returns how much. */
  sendData(stream: Http2Stream, bytes: Uint8Array, start: number, end: number): number {
    if (this.#state !== 'open') return 0
    let at = start
    const most = Math.min(this.writer.maxFrameSize, MOST_DATA)
    while (at < end && this.connection.pending < SOCKET_HIGH) {
      const take = Math.min(end - at, most, stream.sendWindow, this.#sendWindow)
      if (take <= 0) break
      stream.sendWindow -= take
      this.#sendWindow -= take
      this.writer.data(stream.id, bytes, at, at + take, false)
      if (take === end - at || take >= DRIBBLE) this.#small.give(2)
      at += take
    }
    return at - start
  }

  /** Puts a stream that has bytes and window into the order of those that send. */
  wait(stream: Http2Stream): void {
    if (stream.ready || stream.sendWindow <= 0) return
    stream.ready = true
    this.#waiting.push(stream)
  }

  /** Lets waiting streams send in turn while the connection takes bytes. */
  flush(): void {
    if (this.#flushing) return
    this.#flushing = true
    const waiting = this.#waiting
    let at = 0
    while (at < waiting.length && this.#sendWindow > 0 && this.connection.pending < SOCKET_HIGH) {
      if (!this.reading) break
      const stream = waiting[at++] as Http2Stream
      stream.ready = false
      if (stream.flush()) this.wait(stream)
    }
    if (at > 0) waiting.splice(0, at)
    this.#flushing = false
  }

  drained(): void {
    if (this.#state !== 'open') return
    this.flush()
    if (!this.#receiving) this.runDeferred()
  }

  sendReset(stream: Http2Stream, code: number): void {
    if (this.#state !== 'open') return
    this.remember(-stream.id)
    this.writer.reset(stream.id, code)
    if (this.isServer && this.#receiving && code !== NO_ERROR && !this.#resets.take()) this.#overdrawn = true
  }

  /** A peer that reads nothing but makes us write is cut. */
  protected checkSocket(): void {
    if (this.connection.pending > SOCKET_MOST) {
      throw new Http2ConnectionError(ENHANCE_YOUR_CALM, 'The peer does not read what it asks for')
    }
  }

  // Streams

  /** Takes a stream out of the list: it has ended on the wire. */
  remove(stream: Http2Stream): void {
    if (!this.streams.delete(stream.id)) return
    this.remember(stream.id)
    this.streamGone()
    if (this.streams.size === 0) this.#maybeEnd()
  }

  /** A stream completed in both directions: honest work, which earns room for the rest. */
  completed(): void {
    this.#resets.give(1)
    this.#small.give(10)
  }

  protected remember(id: number): void {
    this.#recent[this.#recentNext] = id
    this.#recentNext = (this.#recentNext + 1) % RECENT
  }

  /** Has the stream tell what was put off, after the current call has returned. */
  defer(stream: Http2Stream): void {
    if (stream.deferred) return
    stream.deferred = true
    this.#deferred.push(stream)
    this.schedule()
  }

  protected schedule(): void {
    if (this.#receiving || this.#microtask) return
    this.#microtask = true
    queueMicrotask(this.#runDeferred)
  }

  protected runDeferred(): void {
    const list = this.#deferred
    for (let i = 0; i < list.length; i++) {
      const stream = list[i] as Http2Stream
      stream.deferred = false
      stream.runDeferred()
    }
    if (list.length > 0) list.length = 0
  }

  /** Resets a stream that has no object here. */
  protected refuse(id: number, code: number): void {
    this.remember(-id)
    this.writer.reset(id, code)
    // REFUSED_STREAM is nobody's fault until the peer knows how many streams it may have.
    if (code === PROTOCOL_ERROR || (code === REFUSED_STREAM && this.#acknowledged)) this.#spendReset()
  }

  /** Remembers why the session will end, for its close. */
  protected note(error: Error): void {
    this.#failure ??= error
  }

  // The end

  drain(): void {
    if (this.goawaySent || this.#state === 'ending' || this.#state === 'closed') return
    this.goawaySent = true
    if (this.#state === 'new') return
    if (this.isServer) {
      // First the warning, then, once the peer has seen it, the last stream (RFC 9113 §6.8): none is lost in flight.
      this.writer.goaway(MAX_STREAM_ID, NO_ERROR, '')
      this.writer.ping(false, DRAIN_PING, 0)
    } else {
      this.writer.goaway(0, NO_ERROR, '')
      this.lastServed = 0
      this.#drained = true
      this.#maybeEnd()
    }
  }

  #finishDrain(): void {
    if (!this.goawaySent || this.#drained) return
    this.#drained = true
    this.lastServed = this.lastPeerStream
    this.writer.goaway(this.lastPeerStream, NO_ERROR, '')
    this.#maybeEnd()
  }

  /** Ends the connection when it was drained, by either side, and the last stream is gone. */
  #maybeEnd(): void {
    if (this.#state !== 'open' || this.streams.size > 0) return
    if (this.#drained || this.goawayReceived) this.#end()
  }

  close(): void {
    if (this.#state === 'closed' || this.#state === 'ending') return
    if (this.#state === 'new') {
      this.#state = 'ending'
      this.connection.abort('cancel')
      return
    }
    this.fail(NO_ERROR, 'The connection was closed')
  }

  /** A connection error: GOAWAY, every stream cut, the end. */
  fail(code: number, message: string): void {
    if (this.#state !== 'open') return
    this.goawaySent = true
    this.writer.goaway(this.lastPeerStream, code, code === NO_ERROR ? '' : message)
    this.#failure ??= code === NO_ERROR ? undefined : new Http2ConnectionError(code, message)
    this.#end()
    this.#cutAll(new ExchangeError('closed', false, `The connection ended: ${message}`, code))
  }

  #end(): void {
    this.#state = 'ending'
    this.#keepalive?.cancel()
    this.#headTimer?.cancel()
    this.connection.end()
    this.#linger ??= this.options.clock.after(LINGER_MS, () => this.connection.abort('cancel'), true)
  }

  #cutAll(error: ExchangeError): void {
    this.#waiting = []
    for (const stream of [...this.streams.values()]) stream.cut(error)
    this.schedule()
  }

  /** The peer ended its side: nothing more can come, so that what is open is truncated. */
  ended(): void {
    if (this.#state === 'new' || this.#state === 'closed') return
    const was = this.#state
    if (was === 'open') this.#end()
    this.#cutAll(new ExchangeError('closed', true, 'The peer closed the connection'))
    this.runDeferred()
  }

  closed(error: Error | undefined): void {
    const was = this.#state
    if (was === 'closed') return
    this.#state = 'closed'
    this.#keepalive?.cancel()
    this.#headTimer?.cancel()
    this.#linger?.cancel()
    const why = error === undefined ? '' : `: ${messageOf(error)}`
    this.#cutAll(new ExchangeError('closed', true, `The connection was lost${why}`))
    this.runDeferred()
    // After an end from here, how the peer let go does not matter.
    this.sessionClosed(this.#failure ?? (was === 'ending' ? undefined : error))
  }

  #armKeepalive(): void {
    this.#keepalive = this.options.clock.after(this.options.keepaliveMs, () => this.#tick(), true)
  }

  /** Anything received counts as a sign of life: a busy connection is never pinged. */
  #tick(): void {
    if (this.#state !== 'open') return
    if (this.#heard) {
      this.#heard = false
      this.#quietMs = 0
    } else {
      if (this.#quietMs === 0) this.writer.ping(false, KEEPALIVE_PING, 0)
      else if (this.#quietMs >= this.options.keepaliveTimeoutMs) {
        this.#failure = new Http2ConnectionError(NO_ERROR, 'The peer does not answer')
        this.connection.abort('timeout')
        return
      }
      this.#quietMs += this.options.keepaliveMs
    }
    this.#armKeepalive()
  }
}

/** What to say of a code in a GOAWAY. */
export function describeGoaway(code: number): string {
  return `The peer is going away with ${codeName(code)}`
}

function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) * 0x1000000 +
    (((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number))
  )
}

function equalBytes(bytes: Uint8Array, start: number, other: Uint8Array): boolean {
  for (let i = 0; i < other.length; i++) if (bytes[start + i] !== other[i]) return false
  return true
}
