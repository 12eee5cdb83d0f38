// One stream, what both roles share (RFC 9113 §5): its states, its two windows, bytes that wait in either direction.
// Must not live here: header semantics (server-stream.ts, client-stream.ts, validate.ts), frames (writer.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Connection } from '../../io/connection.ts'
import { ExchangeError, type Exchange, type Headers, type ResetReason } from '../message.ts'
import { ByteQueue } from './byte-queue.ts'
import {
  CANCEL,
  codeName,
  codeOfReason,
  FLOW_CONTROL_ERROR,
  MAX_WINDOW,
  NO_ERROR,
  PROTOCOL_ERROR,
  reasonOfCode,
  STREAM_CLOSED,
} from './constants.ts'
import type { Session } from './session.ts'

/** Most a stream sends in one go before the others get their turn. */
const QUANTUM = 65_536
/** A stream whose reader paused keeps at least this window. */
const SMALL_WINDOW = 262_144
const NO_TRAILERS: Headers = []

export abstract class Http2Stream implements Exchange {
  slot: unknown = undefined
  readonly version = 2
  readonly minor = 0
  readonly id: number
  readonly session: Session
  /** When it was opened, monotonic milliseconds; at a server only. */
  readonly opened: number
  /** Bytes the peer lets this stream send; negative after the peer lowered its setting. */
  sendWindow: number
  /** Bytes the peer may still send. */
  #receiveWindow: number
  /** Window aimed at: grows while the reader keeps up, shrinks when it pauses on much data. */
  #windowTarget: number
  #sendQueue: ByteQueue | undefined
  #trailersToSend: Headers | undefined
  #heldQueue: ByteQueue | undefined
  #heldTrailers: Headers = NO_TRAILERS
  #paused = false
  #endQueued = false
  #localEnd = false
  #remoteEnd = false
  #endDelivered = false
  /** Body bytes the peer announced and has not sent; −1 when it announced none. */
  protected contentLeft = -1
  /** CONNECT: what `reset` may no longer call NO_ERROR. */
  protected tunnel = false
  #closed = false
  #closeEmitted = false
  #failure: ExchangeError | undefined
  /** Cut by the peer after its message was complete: told once that message has been delivered. */
  #cut: ExchangeError | undefined
  /** In the session's list of streams that can send. */
  ready = false
  /** In the session's list of streams with something to tell. */
  deferred = false

  constructor(session: Session, id: number) {
    this.session = session
    this.id = id
    this.opened = session.arrived
    this.sendWindow = session.peerStreamWindow
    this.#receiveWindow = session.options.initialWindow
    this.#windowTarget = session.options.initialWindow
  }

  get connection(): Connection {
    return this.session.connection
  }

  get pending(): number {
    return this.#sendQueue === undefined ? 0 : this.#sendQueue.length
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Nothing can be sent any more: closed, or cut while bytes are still to be delivered. */
  protected get gone(): boolean {
    return this.#closed || this.#cut !== undefined
  }

  get remoteEnded(): boolean {
    return this.#remoteEnd
  }

  protected get localEnded(): boolean {
    return this.#endQueued
  }

  /** True when DATA may be sent: headers are out, nothing ended. */
  protected abstract get bodyAllowed(): boolean
  protected abstract emitData(arena: Uint8Array, start: number, end: number): void
  protected abstract emitEnd(trailers: Headers): void
  protected abstract emitDrain(): void
  protected abstract emitClose(error: ExchangeError | undefined): void

  // Sending

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.#endQueued || this.#closed || start >= end) return
    if (!this.bodyAllowed) throw bodyBeforeHead()
    if (this.pending === 0) start += this.session.sendData(this, bytes, start, end)
    if (start === end) return
    this.#sendQueue ??= new ByteQueue()
    this.#sendQueue.push(bytes, start, end)
    this.session.wait(this)
  }

  end(trailers?: Headers): void {
    if (this.#endQueued || this.#closed) return
    if (!this.bodyAllowed) throw bodyBeforeHead()
    this.#endQueued = true
    this.#trailersToSend = trailers
    if (this.pending === 0) this.#sendEnd()
  }

  #sendEnd(): void {
    const trailers = this.#trailersToSend
    this.#trailersToSend = undefined
    if (trailers !== undefined && trailers.length > 0) this.session.writer.headers(this.id, '', trailers, true)
    else this.session.writer.data(this.id, this.session.nothing, 0, 0, true)
    this.markLocalEnd()
  }

  /** END_STREAM was sent, also with the head. */
  protected markLocalEnd(): void {
    this.#endQueued = true
    this.#localEnd = true
    this.#maybeFinish()
  }

  /** Sends what waits, up to a quantum. True when more could be sent at once. */
  flush(): boolean {
    const queue = this.#sendQueue
    if (queue === undefined || queue.length === 0 || this.#closed) return false
    let left = QUANTUM
    while (left > 0) {
      const chunk = queue.first()
      if (chunk === undefined) break
      const want = Math.min(left, chunk.end - chunk.start)
      const sent = this.session.sendData(this, chunk.bytes, chunk.start, chunk.start + want)
      if (sent === 0) break
      queue.skip(sent)
      left -= sent
    }
    if (queue.length > 0) return this.sendWindow > 0
    if (this.#endQueued) this.#sendEnd()
    this.emitDrain()
    return false
  }

  // Receiving

  /** Counts a DATA frame of `length` (padding included) against the window; false when the stream was reset for it. */
  beginData(length: number): boolean {
    if (this.#remoteEnd) {
      this.fail(STREAM_CLOSED, 'closed', 'The peer sent DATA after its end')
      return false
    }
    this.#receiveWindow -= length
    if (this.#receiveWindow < 0) {
      this.fail(FLOW_CONTROL_ERROR, 'flow', 'The peer sent more than the window allows')
      return false
    }
    if (!this.dataAllowed) {
      this.fail(PROTOCOL_ERROR, 'protocol', 'The peer sent DATA where no body is allowed')
      return false
    }
    return true
  }

  protected abstract get dataAllowed(): boolean

  takeData(arena: Uint8Array, start: number, end: number): void {
    if (this.contentLeft >= 0 && !this.tunnel) {
      this.contentLeft -= end - start
      if (this.contentLeft < 0) {
        this.fail(PROTOCOL_ERROR, 'protocol', 'The peer sent more than its content-length')
        return
      }
    }
    if (this.#paused || (this.#heldQueue !== undefined && this.#heldQueue.length > 0)) {
      this.#heldQueue ??= new ByteQueue()
      this.#heldQueue.push(arena, start, end)
      this.session.hold(end - start)
      const least =
        this.session.options.initialWindow < SMALL_WINDOW ? this.session.options.initialWindow : SMALL_WINDOW
      if (this.#heldQueue.length > this.#windowTarget / 2 && this.#windowTarget > least) {
        this.#windowTarget = Math.max(least, this.#windowTarget / 2)
      }
      return
    }
    this.emitData(arena, start, end)
  }

  /** The end of a DATA frame: gives window back for what was consumed. */
  endData(endStream: boolean): void {
    if (endStream) this.takeEnd(NO_TRAILERS)
    else this.#giveWindow()
  }

  #giveWindow(): void {
    if (this.#paused || this.#remoteEnd || this.#closed) return
    const held = this.#heldQueue === undefined ? 0 : this.#heldQueue.length
    const give = this.#windowTarget - this.#receiveWindow - held
    if (give < this.#windowTarget / 4) return
    // The reader kept up with what it was given: the next round may be larger.
    const largest = this.session.options.streamWindow
    const grown = held === 0 ? Math.min(largest, this.#windowTarget * 2) : this.#windowTarget
    this.#windowTarget = grown
    const increment = grown - this.#receiveWindow - held
    this.#receiveWindow += increment
    this.session.writer.windowUpdate(this.id, increment)
  }

  /** The peer's END_STREAM. */
  takeEnd(trailers: Headers): void {
    if (this.contentLeft > 0 && !this.tunnel) {
      this.fail(PROTOCOL_ERROR, 'protocol', 'The peer sent less than its content-length')
      return
    }
    this.#remoteEnd = true
    this.#heldTrailers = trailers
    if (this.#localEnd) this.session.remove(this)
    if (!this.#paused && (this.#heldQueue === undefined || this.#heldQueue.length === 0)) this.#deliverEnd()
  }

  /** The head itself ended the message: it has been told with the head. */
  protected markRemoteEnd(): void {
    this.#remoteEnd = true
    this.#endDelivered = true
    this.#maybeFinish()
  }

  #deliverEnd(): void {
    this.#endDelivered = true
    this.emitEnd(this.#heldTrailers)
    if (this.#cut !== undefined) this.#finish(this.#cut)
    else this.#maybeFinish()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    if (this.#closed) return
    if ((this.#heldQueue !== undefined && this.#heldQueue.length > 0) || (this.#remoteEnd && !this.#endDelivered)) {
      this.session.defer(this)
    } else this.#giveWindow()
  }

  /** Tells what was put off: held bytes after a resume, the close. Called by the session only. */
  runDeferred(): void {
    if (!this.#closed) {
      const queue = this.#heldQueue
      while (queue !== undefined && !this.#paused && !this.#closed) {
        const chunk = queue.first()
        if (chunk === undefined) break
        const { bytes, start, end } = chunk
        queue.skip(end - start)
        this.session.release(end - start)
        this.emitData(bytes, start, end)
      }
      if (!this.#closed && !this.#paused) {
        if (this.#remoteEnd && !this.#endDelivered) this.#deliverEnd()
        else this.#giveWindow()
      }
    }
    if (this.#closed && !this.#closeEmitted) {
      this.#closeEmitted = true
      this.emitClose(this.#failure)
    }
  }

  // Ends

  reset(reason: ResetReason): void {
    if (this.#closed) return
    // A complete response makes the rest of the request uninteresting, not wrong (RFC 9113 §8.1).
    const done = this.#localEnd && !this.tunnel && reason === 'cancel' && this.session.isServer
    const code = done ? NO_ERROR : codeOfReason(reason)
    this.fail(code, reason, 'The exchange was cut')
  }

  /** Cuts the stream from this side with a code. */
  fail(code: number, reason: ResetReason, message: string): void {
    if (this.#closed) return
    if (!(this.#localEnd && this.#remoteEnd)) this.session.sendReset(this, code)
    this.#finish(new ExchangeError(reason, false, `${message} (stream ${this.id}, ${codeName(code)})`, code))
  }

  /** RST_STREAM from the peer. */
  takeReset(code: number): void {
    this.cut(
      new ExchangeError(reasonOfCode(code), true, `The peer reset stream ${this.id} with ${codeName(code)}`, code),
    )
  }

  /** Cut from outside: by the peer, or because the connection went. What is complete is still delivered first. */
  cut(error: ExchangeError): void {
    if (this.#closed) return
    if (this.#remoteEnd && !this.#endDelivered) {
      this.#cut = error
      this.#endQueued = true
      this.#localEnd = true
      this.#sendQueue?.clear()
      this.session.remove(this)
    } else this.#finish(error)
  }

  #maybeFinish(): void {
    if (this.#localEnd && this.#remoteEnd) {
      this.session.remove(this)
      if (this.#endDelivered) this.#finish(undefined)
    }
  }

  #finish(error: ExchangeError | undefined): void {
    if (this.#closed) return
    this.#closed = true
    this.#failure = error
    if (error === undefined) this.session.completed()
    this.#sendQueue?.clear()
    if (this.#heldQueue !== undefined && this.#heldQueue.length > 0) {
      this.session.release(this.#heldQueue.length)
      this.#heldQueue.clear()
    }
    this.session.remove(this)
    this.session.defer(this)
  }

  /** WINDOW_UPDATE; false when it overflows. */
  addSendWindow(increment: number): boolean {
    this.sendWindow += increment
    if (this.sendWindow > MAX_WINDOW) return false
    if (this.pending > 0 && this.sendWindow > 0) this.session.wait(this)
    return true
  }

  /** The malformed message of the peer: RST_STREAM(PROTOCOL_ERROR), never a clean end. */
  malformed(what: string): void {
    this.fail(PROTOCOL_ERROR, 'protocol', `The peer sent a malformed message: ${what}`)
  }

  /** Cancels a stream whose owner failed. */
  cancel(): void {
    this.fail(CANCEL, 'cancel', 'The exchange was cut')
  }
}

function bodyBeforeHead(): AmbitError {
  return new AmbitError('HTTP_BODY_BEFORE_HEAD', 'A body was written before the response head.')
}
