// The user's side of one exchange at a client: the request head, its framing, the body as it goes out.
// Must not live here: the response (client.ts), bytes on the wire (emit.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Connection } from '../../io/connection.ts'
import { header, type ClientExchange, type Headers, type RequestHead, type ResetReason } from '../message.ts'
import { isProtocol, isToken, TARGET } from './bytes.ts'
import { writeChunk, writeHead, writeLastChunk } from './emit.ts'
import { CHUNKED, NO_BODY, parseLength } from './fields.ts'

/** What an exchange needs of its session. */
export interface ClientExchangeOwner {
  readonly connection: Connection
  requestComplete(exchange: Http1ClientExchange): void
  setPaused(paused: boolean): void
  cut(exchange: Http1ClientExchange, reason: ResetReason): void
}

const HASH = 35

/** Raw bytes, after a 101 or a 2xx to CONNECT. */
const RAW = -3
/** An upgrade or CONNECT that waits for its answer: nothing may be sent yet. */
const WAITING = -5

/** Methods whose meaning expects a body: without one they say so (RFC 9110 §8.6). */
const EXPECTS_BODY: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH'])

export class Http1ClientExchange implements ClientExchange {
  slot: unknown
  readonly version = 1
  readonly minor = 1
  readonly reused: boolean
  readonly method: string
  readonly protocol: string
  requestDone = false
  responseDone = false
  toldEnd = false
  dead = false
  readonly #owner: ClientExchangeOwner
  #framing = NO_BODY
  #remaining = 0

  constructor(owner: ClientExchangeOwner, head: RequestHead, reused: boolean, slot: unknown) {
    this.#owner = owner
    this.method = head.method
    this.protocol = head.protocol
    this.reused = reused
    this.slot = slot
  }

  get connection(): Connection {
    return this.#owner.connection
  }

  get pending(): number {
    return this.dead ? 0 : this.#owner.connection.pending
  }

  /** Writes the head. Throws HTTP_BAD_FIELD or HTTP_BAD_TARGET with nothing written. */
  send(head: RequestHead, end: boolean): void {
    const { method, headers, protocol } = head
    const connect = method === 'CONNECT'
    const target = connect ? head.authority : head.path
    if (
      !isToken(method) ||
      target === '' ||
      !isTarget(target) ||
      !isTarget(head.authority) ||
      (protocol !== '' && !isProtocol(protocol))
    ) {
      throw new AmbitError(
        'HTTP_BAD_TARGET',
        `The request ${method} to '${head.authority}' cannot be written on one line.`,
      )
    }
    const declared = header(headers, 'content-length')
    let own = `host: ${head.authority}\r\n`
    let lines = 1
    let keepLength = false
    let framing = NO_BODY
    if (connect || protocol !== '') {
      if (protocol !== '') {
        own += `connection: upgrade\r\nupgrade: ${protocol}\r\n`
        lines += 2
      }
      framing = WAITING
    } else if (declared !== undefined) {
      framing = parseLength(declared)
      keepLength = true
      if (end && framing > 0) {
        throw new AmbitError('HTTP_BODY_LENGTH', `The request declares ${framing} bytes and ends without any.`)
      }
    } else if (!end) {
      framing = CHUNKED
      own += 'transfer-encoding: chunked\r\n'
      lines++
    } else if (EXPECTS_BODY.has(method)) {
      own += 'content-length: 0\r\n'
      lines++
    }
    const te = header(headers, 'te')
    if (te !== undefined && protocol === '') {
      own += 'te: trailers\r\nconnection: te\r\n'
      lines += 2
    }
    writeHead(this.connection, `${method} ${target} HTTP/1.1\r\n`, headers, keepLength, own, lines)
    this.#framing = framing
    this.#remaining = framing > 0 ? framing : 0
    if (framing === WAITING) return
    if (end) this.requestDone = true
  }

  becomeTunnel(): void {
    this.#framing = RAW
    this.requestDone = false
  }

  refuseUpgrade(): void {
    if (this.#framing !== WAITING) return
    this.#framing = NO_BODY
    this.requestDone = true
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    if (this.dead || this.requestDone || end <= start) return
    if (this.#framing === RAW) this.connection.write(bytes, start, end)
    else if (this.#framing === CHUNKED) writeChunk(this.connection, bytes, start, end)
    else if (this.#framing === WAITING || end - start > this.#remaining) this.reset('internal')
    else {
      this.#remaining -= end - start
      this.connection.write(bytes, start, end)
    }
  }

  end(trailers?: Headers): void {
    if (this.dead || this.requestDone || this.#framing === WAITING) return
    if (this.#framing === CHUNKED) writeLastChunk(this.connection, trailers)
    else if (this.#framing === RAW) this.connection.end()
    else if (this.#remaining > 0) {
      this.reset('internal')
      return
    }
    this.requestDone = true
    this.#owner.requestComplete(this)
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
    this.#owner.cut(this, reason)
  }
}

function isTarget(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c > 255 || TARGET[c] !== 1 || c === HASH) return false
  }
  return true
}
