// The user's side of one exchange at a server: the response head, its framing, the body as it goes out.
// Must not live here: the request (server-connection.ts), bytes on the wire (emit.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Connection } from '../../io/connection.ts'
import {
  ExchangeError,
  header,
  type Headers,
  type ResetReason,
  type ResponseHead,
  type ServerExchange,
} from '../message.ts'
import { writeChunk, writeHead, writeLastChunk } from './emit.ts'
import { CHUNKED, hasToken, NO_BODY, parseLength, UNTIL_CLOSE } from './fields.ts'
import { statusLine } from './reasons.ts'

/** What an exchange needs of its connection. */
export interface ExchangeOwner {
  readonly connection: Connection
  readonly draining: boolean
  responseComplete(exchange: Http1ServerExchange): void
  becomeTunnel(): void
  setPaused(paused: boolean): void
  cut(exchange: Http1ServerExchange, error: ExchangeError): void
}

/** Framing of a response that may carry no body at all: what is written is dropped. */
const SILENT = -4

export class Http1ServerExchange implements ServerExchange {
  slot: unknown
  readonly version = 1
  readonly minor: number
  responded = false
  requestDone = false
  responseDone = false
  finishing = false
  /** Cut or lost: every call is a no-op. */
  dead = false
  keepAlive: boolean
  readonly #owner: ExchangeOwner
  readonly #method: string
  readonly #protocol: string
  #framing = NO_BODY
  #remaining = 0

  constructor(owner: ExchangeOwner, method: string, protocol: string, minor: number, keepAlive: boolean) {
    this.#owner = owner
    this.#method = method
    this.#protocol = protocol
    this.minor = minor
    this.keepAlive = keepAlive
  }

  get connection(): Connection {
    return this.#owner.connection
  }

  get pending(): number {
    return this.#owner.connection.pending
  }

  informational(head: ResponseHead): void {
    // RFC 9110 §15.2: a server must not send 1xx to an HTTP/1.0 client.
    if (this.dead || this.responded || this.minor === 0 || head.status === 101 || head.status >= 200) return
    writeHead(this.connection, statusLine(head.status), head.headers, false, '', 0)
  }

  respond(head: ResponseHead, end: boolean): void {
    if (this.dead || this.responded) return
    const { status, headers } = head
    const tunnel = status === 101 ? this.#protocol !== '' : this.#method === 'CONNECT' && status >= 200 && status < 300
    if ((status < 200 && !tunnel) || statusLine(status) === '') {
      throw new AmbitError('HTTP_BAD_STATUS', `Status ${status} cannot end an exchange that asked for no upgrade.`)
    }
    if (tunnel) {
      const own = status === 101 ? `connection: upgrade\r\nupgrade: ${this.#protocol}\r\n` : ''
      writeHead(this.connection, statusLine(status), headers, false, own, own ? 2 : 0)
      this.responded = true
      this.keepAlive = false
      this.#framing = UNTIL_CLOSE
      this.requestDone = false
      this.#owner.becomeTunnel()
      if (end) this.end()
      return
    }
    const declared = header(headers, 'content-length')
    const wantsClose = header(headers, 'connection')
    if (this.#owner.draining || (wantsClose !== undefined && hasToken(wantsClose, 'close'))) this.keepAlive = false
    // Whoever still sends a request that is answered already must not take the connection for reusable.
    if (end && !this.requestDone) this.keepAlive = false
    let own = ''
    let lines = 0
    let keepLength = declared !== undefined
    const bodiless = status === 204 || status === 304 || this.#method === 'HEAD'
    if (bodiless) {
      this.#framing = SILENT
      // HEAD and 304 tell the length the body would have; 204 has none to tell (RFC 9110 §8.6).
      if (status === 204) keepLength = false
    } else if (declared !== undefined) {
      this.#remaining = parseLength(declared)
      this.#framing = this.#remaining
    } else if (end) {
      this.#framing = 0
      own = 'content-length: 0\r\n'
      lines = 1
    } else if (this.minor === 1) {
      this.#framing = CHUNKED
      own = 'transfer-encoding: chunked\r\n'
      lines = 1
    } else {
      this.#framing = UNTIL_CLOSE
      this.keepAlive = false
    }
    if (!this.keepAlive) {
      own += 'connection: close\r\n'
      lines++
    } else if (this.minor === 0) {
      own += 'connection: keep-alive\r\n'
      lines++
    }
    writeHead(this.connection, statusLine(status), headers, keepLength, own, lines)
    this.responded = true
    if (end) this.end()
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.dead || !this.responded || this.responseDone || end <= start) return
    if (this.#framing === SILENT) return
    if (this.#framing === CHUNKED) writeChunk(this.connection, bytes, start, end)
    else if (this.#framing === UNTIL_CLOSE) this.connection.write(bytes, start, end)
    else if (end - start > this.#remaining) this.reset('internal')
    else {
      this.#remaining -= end - start
      this.connection.write(bytes, start, end)
    }
  }

  end(trailers?: Headers): void {
    if (this.dead || this.responseDone || !this.responded) return
    if (this.#framing === CHUNKED) writeLastChunk(this.connection, trailers)
    else if (this.#framing === UNTIL_CLOSE) this.connection.end()
    else if (this.#framing !== SILENT && this.#remaining > 0) {
      // Fewer bytes than declared: cut, so that the client does not wait, nor take it for whole.
      this.reset('internal')
      return
    }
    this.responseDone = true
    // A tunnel lives on until the client's direction ends too.
    if (this.requestDone || !this.#isTunnel()) this.#owner.responseComplete(this)
  }

  #isTunnel(): boolean {
    return this.#framing === UNTIL_CLOSE && (this.#method === 'CONNECT' || this.#protocol !== '') && !this.requestDone
  }

  pause(): void {
    if (!this.dead) this.#owner.setPaused(true)
  }

  resume(): void {
    if (!this.dead) this.#owner.setPaused(false)
  }

  reset(reason: ResetReason): void {
    if (this.dead) return
    this.dead = true
    this.#owner.cut(this, new ExchangeError(reason, false, `cut: ${reason}`))
  }
}
