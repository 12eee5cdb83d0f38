// A small server on http/ and io/ for h2spec to judge: answers every request once it is complete, echoes its length.
import type { ServerEvents, ServerExchange } from '../../agent/http/message.ts'
import { http2Server } from '../../agent/http/http2/index.ts'
import { transport, type Listener } from '../../agent/io/index.ts'

const BODY = Buffer.from('judged by h2spec\n')

const events: ServerEvents = {
  onRequest(exchange, _head, end) {
    if (end) answer(exchange)
  },
  onData() {
    // The body does not matter, its rules do.
  },
  onEnd: (exchange) => answer(exchange),
  onDrain() {
    // The answer is small.
  },
  onClose() {
    // Nothing is kept per exchange.
  },
}

function answer(exchange: ServerExchange): void {
  exchange.respond(
    { status: 200, headers: ['content-length', String(BODY.length), 'content-type', 'text/plain'] },
    false,
  )
  exchange.write(BODY)
  exchange.end()
}

/** Listens on a port of its own choice on loopback, without TLS. */
export function startH2specServer(): Promise<Listener> {
  // h2spec sends frames just above the largest size; RFC 9113's smallest keeps that cheap.
  const server = http2Server(events, { maxFrameSize: 16_384 })
  return transport.listen({ handler: server, host: '127.0.0.1', port: 0 })
}
