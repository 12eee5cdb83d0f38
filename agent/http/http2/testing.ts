// For tests of this room: a connection that lives in memory, events written down in lines, frames and header blocks made by
// hand. Must not be imported by anything but tests.
import type { AbortReason, Connection, OpenInfo } from '../../io/connection.ts'
import { HpackEncoder } from '../hpack/encoder.ts'
import {
  ExchangeError,
  type ClientEvents,
  type ClientExchange,
  type ClientSession,
  type Exchange,
  type Headers,
  type RequestHead,
  type ResponseHead,
  type ServerEvents,
  type ServerExchange,
  type SessionEvents,
} from '../message.ts'
import {
  http2Client,
  http2ClientHandler,
  http2Server,
  type Http2ClientSession,
  type Http2Feed,
  type Http2Options,
} from './index.ts'

export const INFO: OpenInfo = {
  local: { address: '127.0.0.1', port: 1 },
  peer: { address: '127.0.0.1', port: 2 },
  alpn: 'h2',
  serverName: '',
  certificates: [],
  secure: false,
}

/** A connection in memory: keeps what is written, takes all of it unless told to be stuck. */
export class Wire implements Connection {
  slot: unknown
  pending = 0
  writable = true
  readonly fd = -1
  readonly info = INFO
  stuck = false
  aborted: AbortReason | undefined
  ended = false
  readonly #written: Buffer[] = []
  /** `client`: what is written begins with the client's preface. */
  readonly #preface: boolean
  constructor(client = false) {
    this.#preface = client
  }
  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#written.push(Buffer.from(bytes.subarray(start, end)))
    if (this.stuck) this.pending += end - start
  }
  pause(): void {
    throw new Error('A whole connection is never paused.')
  }
  resume(): void {
    throw new Error('A whole connection is never resumed.')
  }
  end(): void {
    this.ended = true
  }
  abort(reason: AbortReason): void {
    this.aborted = reason
  }
  detach(): number {
    return -1
  }
  get frames(): { type: number; flags: number; id: number; payload: Buffer }[] {
    const all = Buffer.concat(this.#written)
    const frames = []
    for (let at = this.#preface ? PREFACE.length : 0; at < all.length;) {
      const length = all.readUIntBE(at, 3)
      frames.push({
        type: all[at + 3]!,
        flags: all[at + 4]!,
        id: all.readUInt32BE(at + 5),
        payload: all.subarray(at + 9, at + 9 + length),
      })
      at += 9 + length
    }
    return frames
  }
  /** The code of the GOAWAY that was sent, or −1. */
  get goaway(): number {
    const frame = this.frames.find(({ type }) => type === 7)
    return frame === undefined ? -1 : frame.payload.readUInt32BE(4)
  }
  resets(): number[] {
    return this.frames.filter(({ type }) => type === 3).map(({ payload }) => payload.readUInt32BE(0))
  }
}

/** Writes down what it is told, in one line per event. */
export class Log implements ServerEvents {
  readonly lines: string[] = []
  exchanges: ServerExchange[] = []
  pauses = false
  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    this.lines.push(`request ${head.method} ${head.authority}${head.path} ${head.headers.join(',')} ${end}`)
    this.exchanges.push(exchange)
    if (this.pauses) exchange.pause()
  }
  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    const text = Buffer.from(arena.subarray(start, end)).toString('latin1')
    const last = this.lines.at(-1) ?? ''
    const prefix = `data ${this.exchanges.indexOf(exchange)} `
    if (last.startsWith(prefix)) this.lines[this.lines.length - 1] = last + text
    else this.lines.push(prefix + text)
  }
  onEnd(exchange: ServerExchange, trailers: Headers): void {
    this.lines.push(`end ${this.exchanges.indexOf(exchange)} ${trailers.join(',')}`)
    exchange.respond({ status: 200, headers: [] }, true)
  }
  onDrain(): void {
    this.lines.push('drain')
  }
  onClose(exchange: ServerExchange, error: ExchangeError | undefined): void {
    this.lines.push(`close ${this.exchanges.indexOf(exchange)} ${error?.reason ?? 'clean'}`)
  }
}

export function frame(type: number, flags: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const out = Buffer.alloc(9 + payload.length)
  out.writeUIntBE(payload.length, 0, 3)
  out[3] = type
  out[4] = flags
  out.writeUInt32BE(id, 5)
  out.set(payload, 9)
  return out
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
export const HELLO = Buffer.concat([PREFACE, frame(4, 0, 0)])
const encoder = new HpackEncoder(0)

export function block(...fields: string[]): Buffer {
  const out = Buffer.alloc(70_000)
  encoder.begin(out, 0)
  for (let i = 0; i < fields.length; i += 2) encoder.field(fields[i]!, fields[i + 1]!)
  return Buffer.from(out.subarray(0, encoder.finish()))
}

// The first block carries the table size update that turns indexing off, so that the others can be sent in any session.
encoder.setLimit(0)
block()

export const GET = block(':method', 'GET', ':scheme', 'http', ':path', '/', ':authority', 'a')
export const POST = block(':method', 'POST', ':scheme', 'http', ':path', '/p', ':authority', 'a')

/** A server's session that has read a client's preface, and what is needed to go on by hand. */
export function begin(options: Http2Options = {}): {
  wire: Wire
  log: Log
  feed: Http2Feed
  send(...frames: Buffer[]): void
} {
  const wire = new Wire()
  const log = new Log()
  const feed = http2Server(log, options).adopt(wire, INFO)
  const send = (...frames: Buffer[]): void => {
    const all = Buffer.concat(frames)
    feed.receive(all, 0, all.length)
  }
  send(HELLO)
  return { wire, log, feed, send }
}

/** Writes down what a client's exchange and its session are told, in one line per event. */
export class ClientLog implements ClientEvents, SessionEvents {
  readonly lines: string[] = []
  onInformational(exchange: ClientExchange, head: ResponseHead): void {
    this.lines.push(`${String(exchange.slot)} informational ${head.status}`)
  }
  onResponse(exchange: ClientExchange, head: ResponseHead, end: boolean): void {
    this.lines.push(`${String(exchange.slot)} response ${head.status} ${end}`)
  }
  onData(exchange: Exchange, arena: Uint8Array, start: number, end: number): void {
    this.lines.push(`${String(exchange.slot)} data ${Buffer.from(arena.subarray(start, end)).toString('latin1')}`)
  }
  onEnd(exchange: Exchange, trailers: Headers): void {
    this.lines.push(`${String(exchange.slot)} end ${trailers.join(',')}`.trimEnd())
  }
  onDrain(): void {
    this.lines.push('drain')
  }
  onClose(what: Exchange | ClientSession, error: ExchangeError | Error | undefined): void {
    const who = 'request' in what ? 'session' : String(what.slot)
    const remote = error instanceof ExchangeError && error.remote ? ' remote' : ''
    const reason = error instanceof ExchangeError ? error.reason : error === undefined ? 'clean' : error.message
    this.lines.push(`${who} close ${reason}${remote}`)
  }
  onAvailable(): void {
    // Asked for where it matters.
  }
  onDraining(): void {
    this.lines.push('session draining')
  }
}

/** A client's session that has read a server's settings. */
export function beginClient(options: Http2Options = {}): {
  wire: Wire
  log: ClientLog
  session: Http2ClientSession
  send(...frames: Buffer[]): void
  ask(slot: string, end?: boolean, method?: string): ClientExchange
  ended(): void
  closed(error?: Error): void
} {
  const wire = new Wire(true)
  const log = new ClientLog()
  const session = http2Client(wire, log, options)
  const send = (...frames: Buffer[]): void => {
    const all = Buffer.concat(frames)
    http2ClientHandler.onRead(wire, all, 0, all.length)
  }
  send(frame(4, 0, 0))
  const ask = (slot: string, end = true, method = 'GET'): ClientExchange =>
    session.request({ method, scheme: 'http', authority: 'a', path: '/', protocol: '', headers: [] }, end, log, slot)
  const ended = (): void => http2ClientHandler.onEnd(wire)
  const closed = (error?: Error): void => http2ClientHandler.onClose(wire, error)
  return { wire, log, session, send, ask, ended, closed }
}
