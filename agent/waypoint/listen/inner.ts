// Connections inside tunnels: their protocol is known from the service port, or detected from the first bytes within a
// bounded time that never breaks a server that speaks first. HTTP goes to the codecs, the rest is opaque.
// Must not live here: tunnels (hbone.ts), requests (pipeline.ts), relaying (opaque.ts).
import type { Clock, Timer } from '../../base/clock.ts'
import type { Http1Feed, Http1Server } from '../../http/http1/index.ts'
import type { Http2Feed, Http2Server } from '../../http/http2/index.ts'
import type { Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import type { AppProtocol } from '../../mesh/service.ts'
import type { Deadline, DeadlineOwner, Deadlines } from '../deadlines.ts'
import type { Downstream } from '../downstream.ts'

/** A client that said nothing for this long is taken for one that waits for the server's greeting. */
export const DETECTION_MS = 150
/** Bytes after which the preface or a request line must have been recognised. */
const DETECTION_BYTES = 64
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')

export interface InnerOptions {
  readonly http1: Http1Server
  readonly http2: Http2Server
  readonly clock: Clock
  readonly deadlines: Deadlines
  /** Where HTTP is declared nothing is detected against a clock: so long may its first bytes take, as a request head may. */
  readonly headTimeoutMs: number
  /** Takes an opaque connection over; what was read so far comes again through the handler it gives. */
  opaque(connection: Connection, downstream: Downstream): ConnectionHandler
}

/** The slot of an inner connection. */
export class Inner implements DeadlineOwner {
  readonly downstream: Downstream
  readonly protocol: AppProtocol
  feed: Http1Feed | Http2Feed | undefined
  opaque: ConnectionHandler | undefined
  held: Buffer[] = []
  heldBytes = 0
  ended = false
  timer: Timer | undefined
  info: OpenInfo | undefined
  /** Runs until the first bytes have told the codec. */
  due: Deadline | undefined
  connection: Connection | undefined
  /** The connection its tunnel runs on. */
  readonly outer: Connection | undefined
  /** That one's client goes away. */
  leaving = false
  readonly #onLate: (inner: Inner) => void

  constructor(
    downstream: Downstream,
    protocol: AppProtocol,
    outer: Connection | undefined,
    onLate: (inner: Inner) => void,
  ) {
    this.downstream = downstream
    this.outer = outer
    this.protocol = protocol
    this.#onLate = onLate
  }

  onDeadline(): void {
    this.#onLate(this)
  }
}

export interface InnerServer {
  readonly handler: ConnectionHandler
  /** `protocol`: what the listener is declared to speak; absent: what the dialled port says. */
  slot(downstream: Downstream, more?: { readonly protocol?: AppProtocol; readonly outer?: Connection }): Inner
  /**
   * The agent at the other end of `outer` is being replaced, and will cut what runs over it some time: HTTP is asked to come
   * again, over the successor, before that.
   */
  leave(outer: Connection): void
}

/** The Downstream of an inner connection, for the pipeline. */
export function downstreamOf(connection: Connection): Downstream {
  return (connection.slot as Inner).downstream
}

/** A kept-alive connection of a client whose agent leaves is closed once it was idle for so long, or with its next answer. */
const LEAVE_IDLE_MS = 1_000

/** What the bytes so far look like. */
export function detect(bytes: Uint8Array): 'http1' | 'http2' | 'opaque' | 'more' {
  const prefix = Math.min(bytes.length, PREFACE.length)
  if (PREFACE.subarray(0, prefix).equals(bytes.subarray(0, prefix))) return prefix === PREFACE.length ? 'http2' : 'more'
  // A request line: a method token of upper-case letters, a blank, a target. Longest registered method: 17 (RFC 3253).
  let i = 0
  for (; i < bytes.length; i++) {
    const byte = bytes[i] as number
    if (byte === 0x20) break
    const letter = (byte >= 0x41 && byte <= 0x5a) || byte === 0x2d
    if (!letter || i >= 32) return 'opaque'
  }
  if (i === bytes.length) return i >= DETECTION_BYTES ? 'opaque' : 'more'
  if (i === 0) return 'opaque'
  const next = bytes[i + 1]
  if (next === undefined) return 'more'
  // Origin form, absolute form, asterisk, or an authority.
  return next > 0x20 && next < 0x7f ? 'http1' : 'opaque'
}

/** Whether a first line is there and names no version of HTTP/1: then a port that is declared HTTP/2 answers in HTTP/2. */
function isNotHttp1(bytes: Buffer): boolean {
  const line = bytes.indexOf('\n')
  return line >= 0 && !bytes.subarray(0, line).includes(' HTTP/1.')
}

function declared(downstream: Downstream): AppProtocol {
  const { service, workload, port } = downstream
  if (service) return service.ports.find((candidate) => candidate.port === port)?.protocol ?? 'unknown'
  return workload ? 'unknown' : 'tcp'
}

/** Makes the handler of inner connections. */
export function innerServer(options: InnerOptions): InnerServer {
  const { http1, http2, clock, deadlines, headTimeoutMs } = options

  const giveOver = (connection: Connection, inner: Inner, kind: 'http1' | 'http2' | 'opaque'): void => {
    settle(inner)
    const held = inner.held
    inner.held = []
    if (kind === 'opaque') inner.opaque = options.opaque(connection, inner.downstream)
    else {
      const info = inner.info as OpenInfo
      inner.feed = kind === 'http1' ? http1.adopt(connection, info) : http2.adopt(connection, info)
    }
    for (const chunk of held) deliver(connection, inner, chunk, 0, chunk.length)
    if (inner.leaving) drain(inner)
    if (inner.ended) finish(connection, inner)
  }

  const live = new Set<Inner>()

  const drain = ({ feed }: Inner): void => {
    if (!feed) return
    if ('session' in feed) feed.session.drain()
    else feed.drain(LEAVE_IDLE_MS)
  }

  const settle = (inner: Inner): void => {
    inner.timer?.cancel()
    if (inner.due) deadlines.stop(inner.due)
    inner.connection = undefined
  }

  /** Silence, or a few bytes that might still become anything: a slow head, and HTTP/1.1 has the words for it. */
  const onLate = (inner: Inner): void => {
    const { connection } = inner
    if (!connection) return
    giveOver(connection, inner, 'http1')
    ;(inner.feed as Http1Feed | undefined)?.expire()
  }

  const deliver = (connection: Connection, inner: Inner, bytes: Uint8Array, start: number, end: number): void => {
    if (inner.feed) inner.feed.receive(bytes, start, end)
    else inner.opaque?.onRead(connection, bytes, start, end)
  }

  const finish = (connection: Connection, inner: Inner): void => {
    if (inner.feed) inner.feed.ended()
    else inner.opaque?.onEnd(connection)
  }

  const handler: ConnectionHandler = {
    onOpen(connection, info) {
      const inner = connection.slot as Inner
      inner.info = info
      live.add(inner)
      const { protocol } = inner
      if (protocol === 'tcp' || protocol === 'tls') return giveOver(connection, inner, 'opaque')
      if (protocol === 'unknown') {
        inner.timer = clock.after(DETECTION_MS, () => {
          if (!inner.feed && !inner.opaque) giveOver(connection, inner, 'opaque')
        })
        return
      }
      inner.connection = connection
      inner.due = deadlines.start(headTimeoutMs, inner)
    },
    onRead(connection, arena, start, end) {
      const inner = connection.slot as Inner
      if (inner.feed || inner.opaque) return deliver(connection, inner, arena, start, end)
      inner.held.push(Buffer.from(arena.subarray(start, end)))
      inner.heldBytes += end - start
      const bytes = inner.held.length === 1 ? (inner.held[0] as Buffer) : Buffer.concat(inner.held)
      let kind = detect(bytes)
      if (kind === 'more' && inner.heldBytes < DETECTION_BYTES) return
      if (kind === 'more') kind = 'opaque'
      const { protocol } = inner
      // A port that is declared HTTP is never opaque: what is not HTTP there gets its 400, or its GOAWAY, from the codec.
      if (kind === 'opaque' && protocol !== 'unknown') kind = 'http1'
      if (kind === 'http1' && (protocol === 'http2' || protocol === 'grpc') && isNotHttp1(bytes)) kind = 'http2'
      giveOver(connection, inner, kind)
    },
    onDrain(connection) {
      const inner = connection.slot as Inner
      if (inner.feed) inner.feed.drained()
      else inner.opaque?.onDrain(connection)
    },
    onEnd(connection) {
      const inner = connection.slot as Inner
      inner.ended = true
      if (inner.feed || inner.opaque) finish(connection, inner)
      else giveOver(connection, inner, inner.protocol === 'unknown' ? 'opaque' : 'http1')
    },
    onClose(connection, error) {
      const inner = connection.slot as Inner
      live.delete(inner)
      settle(inner)
      inner.held = []
      if (inner.feed) inner.feed.closed(error)
      else inner.opaque?.onClose(connection, error)
    },
  }
  return {
    handler,
    slot: (downstream, { protocol, outer } = {}) =>
      new Inner(downstream, protocol ?? declared(downstream), outer, onLate),
    leave(outer) {
      for (const inner of live) {
        if (inner.outer !== outer || inner.leaving) continue
        inner.leaving = true
        drain(inner)
      }
    },
  }
}
