// One connection over Node's net or tls: gathers what a turn writes into blocks, hands them to the socket at the turn's end,
// and turns Node's events into the handler's. Must not live here: making sockets (transport.ts), handshakes (tls.ts).
import type { Socket } from 'node:net'
import { AmbitError } from '../../base/errors.ts'
import type { AbortReason, Connection, ConnectionHandler, OpenInfo } from '../connection.ts'
import { BLOCK_SIZE, giveBlock, takeBlock } from './blocks.ts'
import { readBytes } from './collect.ts'
import { abortError, closedError, handlerError, streamError, truncatedError } from '../errors.ts'
import { endedByCloseNotify, fdOf, handleOf, resetBelowTls, type RawHandle } from './internals.ts'

const UNKNOWN = { address: '', port: 0 }
const NOT_OPEN: OpenInfo = { local: UNKNOWN, peer: UNKNOWN, alpn: '', serverName: '', certificates: [], secure: false }

/** Connections that wrote in this turn. */
let dirty: NodeConnection[] = []

function flushDirty(): void {
  const list = dirty
  dirty = []
  for (const connection of list) connection.flush()
}

const OPENING = 0
const OPEN = 1
const CLOSED = 2

export class NodeConnection implements Connection {
  slot: unknown
  info: OpenInfo = NOT_OPEN
  pending = 0
  /** The transport's own note: the socket is connected, perhaps not yet open. */
  connected = false
  readonly #handler: ConnectionHandler
  readonly #onGone: () => void
  #state = OPENING
  /** The socket whose bytes the owner sees: the TLS one where there is TLS. */
  #socket: Socket | undefined
  /** The TCP or unix socket underneath. */
  #raw: Socket | undefined
  #rawHandle: RawHandle
  #block: Buffer | undefined
  #used = 0
  /** Blocks the socket has not reported as written, oldest first, with their lengths. */
  readonly #inFlight: { block: Buffer; length: number }[] = []
  #queued = false
  #paused = false
  #ended = false
  #peerEnded = false
  #truncated = false
  #lastChance = false
  #error: Error | undefined
  #target: string

  /** `onGone` runs once, after the handler's onClose. */
  constructor(handler: ConnectionHandler, target: string, slot: unknown, onGone: () => void) {
    this.#handler = handler
    this.#target = target
    this.slot = slot
    this.#onGone = onGone
  }

  get writable(): boolean {
    return this.#state === OPEN && !this.#ended
  }

  get fd(): number {
    return this.#state === OPEN ? fdOf(this.#rawHandle) : -1
  }

  get opening(): boolean {
    return this.#state === OPENING
  }

  /** Takes the raw socket as soon as there is one, so that `abort` reaches it before the connection is open. */
  adopt(raw: Socket): void {
    this.#raw = raw
    raw.on('error', this.#onError)
    raw.on('close', this.#onSocketClose)
  }

  /** The TLS socket over the adopted one. Its end is watched from here on, since it may come before the verdict. */
  secure(tls: Socket): void {
    this.#socket = tls
    if (this.#raw) this.#rawHandle = handleOf(this.#raw)
    const push = tls.push.bind(tls)
    tls.push = (chunk: unknown, encoding?: BufferEncoding) => {
      if (chunk === null && !endedByCloseNotify(this.#rawHandle)) this.#truncated = true
      return push(chunk, encoding)
    }
    tls.on('error', this.#onError)
    tls.on('close', this.#onSocketClose)
  }

  open(info: OpenInfo): void {
    const raw = this.#raw
    if (this.#state !== OPENING || !raw) return
    const socket = (this.#socket ??= raw)
    this.#rawHandle = handleOf(raw)
    this.info = info
    this.#target = info.peer.port > 0 ? `${info.peer.address}:${info.peer.port}` : info.peer.address || this.#target
    this.#state = OPEN
    if (info.peer.port > 0) raw.setNoDelay(true)
    socket.on('end', this.#onEnd)
    socket.on('finish', this.#onFinish)
    try {
      this.#handler.onOpen(this, info)
    } catch (error) {
      this.#bug(error)
    }
    if (this.#state !== OPEN) return
    // Attached last: it starts the flow, and nothing may be read before onOpen returned.
    socket.on('data', this.#onData)
    if (this.#paused) socket.pause()
    else socket.resume()
  }

  /** Ends a connection that never opened, or breaks an open one, with `error`. */
  fail(error: Error): void {
    if (this.#state === CLOSED) return
    this.#error ??= error
    this.#cut()
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.#state !== OPEN || this.#ended || end <= start) return
    this.pending += end - start
    while (start < end) {
      const block = (this.#block ??= takeBlock())
      const take = Math.min(end - start, BLOCK_SIZE - this.#used)
      block.set(bytes.subarray(start, start + take), this.#used)
      this.#used += take
      start += take
      if (this.#used === BLOCK_SIZE) this.#send()
    }
    if (!this.#queued) {
      this.#queued = true
      if (dirty.length === 0) process.nextTick(flushDirty)
      dirty.push(this)
    }
  }

  flush(): void {
    this.#queued = false
    if (this.#state === OPEN) this.#send()
  }

  #send(): void {
    const block = this.#block
    const socket = this.#socket
    if (!block || !socket) return
    const length = this.#used
    this.#block = undefined
    this.#used = 0
    this.#inFlight.push({ block, length })
    socket.write(length === block.length ? block : block.subarray(0, length), this.#onWritten)
  }

  readonly #onWritten = (): void => {
    const done = this.#inFlight.shift()
    if (!done) return
    giveBlock(done.block)
    this.pending -= done.length
    if (this.pending > 0 || this.#state !== OPEN) return
    try {
      this.#handler.onDrain(this)
    } catch (error) {
      this.#bug(error)
    }
  }

  pause(): void {
    if (this.#paused) return
    this.#paused = true
    if (this.#state === OPEN) this.#socket?.pause()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    if (this.#state === OPEN) this.#socket?.resume()
  }

  end(): void {
    if (this.#state !== OPEN || this.#ended) return
    this.#ended = true
    this.#send()
    this.#socket?.end()
  }

  abort(reason: AbortReason): void {
    this.fail(abortError(this.#target, reason))
  }

  detach(): number {
    throw new AmbitError(
      'IO_NOT_DETACHABLE',
      `Node cannot give up the descriptor of the connection with ${this.#target}.`,
      {
        hint: 'Relay the bytes instead of splicing them.',
      },
    )
  }

  /** RST where the transport has one. A unix socket has none: its peer sees the close, with ECONNRESET if it had bytes on the way. */
  #cut(): void {
    const raw = this.#raw
    if (!raw || raw.destroyed) {
      // Asynchronous like every other close, so that no owner is called back from inside its own call.
      process.nextTick(this.#onSocketClose)
      return
    }
    const socket = this.#socket ?? raw
    if (raw.connecting || raw.remoteAddress === undefined) socket.destroy()
    else if (socket === raw) raw.resetAndDestroy()
    else resetBelowTls(raw, socket)
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#state !== OPEN || this.#error) return
    try {
      this.#handler.onRead(this, chunk, 0, chunk.length)
      readBytes(chunk.length)
    } catch (error) {
      this.#bug(error)
    }
  }

  readonly #onEnd = (): void => {
    if (this.#state !== OPEN || this.#error || this.#peerEnded) return
    if (this.#truncated) {
      this.fail(truncatedError(this.#target))
      return
    }
    this.#peerEnded = true
    try {
      this.#handler.onEnd(this)
    } catch (error) {
      this.#bug(error)
      return
    }
    this.#closeWhenDone()
  }

  readonly #onFinish = (): void => {
    this.#closeWhenDone()
  }

  /** Both directions are over: nothing keeps the descriptor open any more. */
  #closeWhenDone(): void {
    if (!this.#peerEnded || !this.#socket?.writableFinished) return
    this.#socket.destroySoon()
  }

  readonly #onError = (error: Error): void => {
    // Before the connection is open, who opens it gets the same error and names it better.
    if (this.#state !== OPEN) return
    this.#error ??= streamError(this.#target, error)
    this.#cut()
  }

  readonly #onSocketClose = (): void => {
    if (this.#state === CLOSED) return
    if (this.#state === OPENING && !this.#error && !this.#lastChance) {
      // The handshake's own error may be a few microtasks away; it says more than "closed".
      this.#lastChance = true
      setImmediate(this.#onSocketClose)
      return
    }
    // With TLS there are two sockets; the upper one takes the lower one with it.
    const top = this.#socket ?? this.#raw
    if (top && !top.destroyed) top.destroy()
    const clean = this.#ended && this.#peerEnded && this.pending === 0
    const error = this.#error ?? (clean ? undefined : closedError(this.#target))
    this.#state = CLOSED
    this.pending = 0
    if (this.#block) giveBlock(this.#block)
    this.#block = undefined
    try {
      this.#handler.onClose(this, error)
    } finally {
      this.#onGone()
    }
  }

  /** The handler threw: its bug, reported through onClose and never through the event loop. */
  #bug(error: unknown): void {
    this.fail(handlerError(this.#target, error))
  }
}
