// Reads bytes with the codec, in the reads they are cut into. Must not live here: judging what it read.
import { latin1 } from '../../../agent/http/http1/bytes.ts'
import { http1Client, http1Server } from '../../../agent/http/http1/index.ts'
import { MemoryConnection } from '../../../agent/http/http1/testing.ts'
import type {
  ClientEvents,
  ClientExchange,
  ExchangeError,
  Headers,
  RequestHead,
  ResponseHead,
  ServerEvents,
  ServerExchange,
} from '../../../agent/http/message.ts'
import type { Asked } from './grammar.ts'
import { emptyMessage, lines, type Message, type Reading } from './message.ts'

/** One connection being read: `read` brings bytes; what was seen is complete a turn of the event loop after the last call. */
export interface Reader {
  read(bytes: Buffer, start: number, end: number): void
  end(): void
  readonly result: Reading
}

const OK: ResponseHead = { status: 200, headers: [] }
const SWITCH: ResponseHead = { status: 101, headers: [] }

interface Kept {
  messages: Message[]
}

/** Answers at once, takes every upgrade and CONNECT. */
const recorder: ServerEvents = {
  onRequest(exchange: ServerExchange, head: RequestHead, end: boolean): void {
    const message = emptyMessage()
    message.start = head.method
    message.target = `${head.authority} ${head.path}`
    message.minor = exchange.minor
    message.fields = lines(head.headers)
    ;(exchange.connection.slot as Kept | undefined)?.messages.push(message)
    exchange.slot = message
    if (head.protocol !== '' || head.method === 'CONNECT') {
      message.tunnel = true
      message.complete = true
      exchange.respond(head.protocol === '' ? OK : SWITCH, false)
      return
    }
    message.complete = end
    if (end) exchange.respond(OK, true)
  },
  onData(exchange: ServerExchange, arena: Uint8Array, start: number, end: number): void {
    ;(exchange.slot as Message).body += latin1(arena, start, end)
  },
  onEnd(exchange: ServerExchange, trailers: Headers): void {
    const message = exchange.slot as Message
    message.complete = true
    message.trailers = lines(trailers)
    if (!message.tunnel) exchange.respond(OK, true)
  },
  onDrain(): void {},
  onClose(): void {},
}

let refused = ''
const server = http1Server(recorder, {}, { onRefused: (_connection, status) => (refused = String(status)) })

/** The server side: requests one after the other. */
export function requestReader(): Reader {
  const result: Reading = { messages: [], stopped: '' }
  const connection = new MemoryConnection()
  connection.slot = { messages: result.messages } satisfies Kept
  const feed = server.adopt(connection, connection.info)
  return {
    result,
    read(bytes, start, end) {
      if (connection.aborted !== undefined) return
      refused = ''
      feed.receive(bytes, start, end)
      if (refused !== '') result.stopped = refused
    },
    end() {
      // A refusal may have come from what was held, between two reads.
      if (result.stopped === '' && /^HTTP\/1\.1 [45]/m.test(connection.text)) result.stopped = 'refused'
      if (result.stopped === '' && (connection.endedHere || connection.aborted !== undefined)) result.stopped = 'close'
      feed.closed(undefined)
    },
  }
}

class Answers implements ClientEvents {
  readonly result: Reading = { messages: [], stopped: '' }
  error = ''
  #push(head: ResponseHead): Message {
    const message = emptyMessage()
    message.start = String(head.status)
    message.fields = lines(head.headers)
    this.result.messages.push(message)
    return message
  }
  #last(): Message {
    return this.result.messages.at(-1) as Message
  }
  onInformational(_exchange: ClientExchange, head: ResponseHead): void {
    this.#push(head).complete = true
  }
  onResponse(exchange: ClientExchange, head: ResponseHead, end: boolean): void {
    const message = this.#push(head)
    message.complete = end
    message.tunnel = head.status === 101 || (exchange.slot === 'CONNECT' && head.status < 300)
  }
  onData(_exchange: ClientExchange, arena: Uint8Array, start: number, end: number): void {
    this.#last().body += latin1(arena, start, end)
  }
  onEnd(_exchange: ClientExchange, trailers: Headers): void {
    const message = this.#last()
    message.complete = true
    message.trailers = lines(trailers)
  }
  onDrain(): void {}
  onClose(_exchange: ClientExchange, error: ExchangeError | undefined): void {
    if (error) this.error = error.reason
  }
}

const session = { onAvailable() {}, onDraining() {}, onClose() {} }

/** The client side: the answer to one request. */
export function responseReader(asked: Asked): Reader {
  const answers = new Answers()
  const client = http1Client(session)
  const connection = new MemoryConnection()
  connection.slot = client.slot
  client.handler.onOpen(connection, connection.info)
  const upgrade = asked === 'upgrade'
  const head: RequestHead = {
    method: upgrade ? 'GET' : asked,
    scheme: 'http',
    authority: 'a:1',
    path: asked === 'CONNECT' ? '' : '/',
    protocol: upgrade ? 'websocket' : '',
    headers: [],
  }
  client.session.request(head, !upgrade && asked !== 'CONNECT', answers, asked)
  const stop = () => {
    if (answers.error !== '') answers.result.stopped = answers.error
    else if (connection.aborted !== undefined) answers.result.stopped = 'close'
  }
  return {
    result: answers.result,
    read(bytes, start, end) {
      if (connection.aborted !== undefined) return
      client.handler.onRead(connection, bytes, start, end)
      stop()
    },
    end() {
      if (connection.aborted === undefined) client.handler.onEnd(connection)
      stop()
      client.handler.onClose(connection, undefined)
    },
  }
}
