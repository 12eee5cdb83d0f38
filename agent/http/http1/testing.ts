// For tests of this room: a connection whose bytes stay in memory, and a server that writes down what it saw.
// Must not live here: anything a program uses.
import type { AbortReason, Connection, OpenInfo } from '../../io/connection.ts'
import type {
  ClientEvents,
  ClientExchange,
  ExchangeError,
  Headers,
  RequestHead,
  ResponseHead,
  ServerEvents,
  ServerExchange,
} from '../message.ts'

const NOWHERE = { address: '127.0.0.1', port: 1 }

/** Accepts every write at once; the test plays the peer. */
export class MemoryConnection implements Connection {
  slot: unknown
  readonly pending = 0
  writable = true
  readonly fd = -1
  readonly info: OpenInfo = {
    local: NOWHERE,
    peer: NOWHERE,
    alpn: '',
    serverName: '',
    certificates: [],
    secure: false,
  }
  readonly written: Buffer[] = []
  paused = false
  endedHere = false
  aborted: AbortReason | undefined

  get text(): string {
    return Buffer.concat(this.written).toString('latin1')
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.writable) this.written.push(Buffer.from(bytes.subarray(start, end)))
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
  }

  end(): void {
    this.endedHere = true
    this.writable = false
  }

  abort(reason: AbortReason): void {
    this.aborted ??= reason
    this.writable = false
  }

  detach(): number {
    throw new Error('a connection in memory has no descriptor')
  }
}

/** One request as the server's user saw it. */
export interface Seen {
  head: RequestHead
  body: string
  trailers: Headers
  complete: boolean
  error: string
}

/** Answers every complete request with 200 and its body; writes down everything. */
export class EchoServer implements ServerEvents {
  readonly seen: Seen[] = []
  readonly exchanges: ServerExchange[] = []
  /** What to do instead of answering when a request is complete. */
  answer: (exchange: ServerExchange, seen: Seen) => void = (exchange, seen) => {
    exchange.respond({ status: 200, headers: ['content-length', String(seen.body.length)] }, seen.body === '')
    if (seen.body === '') return
    exchange.write(Buffer.from(seen.body, 'latin1'))
    exchange.end()
  }
  onHead: ((exchange: ServerExchange, seen: Seen) => void) | undefined

  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    const seen: Seen = { head, body: '', trailers: [], complete: end, error: '' }
    exchange.slot = seen
    this.seen.push(seen)
    this.exchanges.push(exchange)
    this.onHead?.(exchange, seen)
    if (end) this.answer(exchange, seen)
  }

  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    ;(exchange.slot as Seen).body += Buffer.from(arena.subarray(start, end)).toString('latin1')
  }

  onEnd(exchange: ServerExchange, trailers: Headers): void {
    const seen = exchange.slot as Seen
    seen.complete = true
    seen.trailers = trailers
    this.answer(exchange, seen)
  }

  onDrain(): void {}

  onClose(exchange: ServerExchange, error: ExchangeError | undefined): void {
    ;(exchange.slot as Seen).error = error ? `${error.reason}${error.remote ? ' by the peer' : ''}` : 'none'
  }
}

/** Writes down what a client's user sees. */
export class Answers implements ClientEvents {
  readonly log: string[] = []
  readonly heads: ResponseHead[] = []
  body = ''
  trailers: Headers = []

  onInformational(_exchange: ClientExchange, head: ResponseHead): void {
    this.heads.push(head)
    this.log.push(`info ${head.status}`)
  }

  onResponse(_exchange: ClientExchange, head: ResponseHead, end: boolean): void {
    this.heads.push(head)
    this.log.push(`head ${head.status}${end ? ' end' : ''}`)
  }

  onData(_exchange: ClientExchange, arena: Uint8Array, start: number, end: number): void {
    this.body += Buffer.from(arena.subarray(start, end)).toString('latin1')
  }

  onEnd(_exchange: ClientExchange, trailers: Headers): void {
    this.trailers = trailers
    this.log.push(`end${trailers.length > 0 ? ` ${trailers.join(' ')}` : ''}`)
  }

  onDrain(): void {}

  onClose(_exchange: ClientExchange, error: ExchangeError | undefined): void {
    this.log.push(error ? `close ${error.reason}${error.remote ? ' by the peer' : ''}` : 'close')
  }
}

export const tick = () => new Promise<void>((resolve) => setImmediate(resolve))
