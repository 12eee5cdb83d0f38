// The server's side of HBONE for the bench, as a program: ends TLS, HTTP/2 and CONNECT as an agent does, and is the app itself, so that no
// second program shares the client's core. It answers every head that ends with a blank line; bodies it does not read.
// Must not live here: measuring.
//   agent/bin/node test/bench/http/hbone-app.ts --listen IP,IP --certificate PEM --key PEM --trust PEM --body BYTES
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { acceptTunnel, http2Server, tunnelServer } from '../../../agent/http/http2/index.ts'
import type { Connection, ConnectionHandler } from '../../../agent/io/connection.ts'
import { transport } from './transport.ts'

const { values } = parseArgs({
  options: {
    listen: { type: 'string', default: '' },
    certificate: { type: 'string', default: '' },
    key: { type: 'string', default: '' },
    trust: { type: 'string', default: '' },
    body: { type: 'string', default: '64' },
  },
})
const read = (file: string): string => readFileSync(file, 'utf8')
const own = { certificate: read(values.certificate), key: read(values.key) }
const trust = read(values.trust)
const body = 'x'.repeat(Number(values.body))
const answer = Buffer.from(
  `HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/plain\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
)

/** How much of CR LF CR LF has been seen at the end of what was read so far; in the connection's slot. */
class Progress {
  seen = 0
}

const app: ConnectionHandler = {
  onOpen(connection) {
    connection.slot = new Progress()
  },
  onRead(connection, arena, start, end) {
    const progress = connection.slot as Progress
    let seen = progress.seen
    for (let i = start; i < end; i++) {
      const byte = arena[i]
      if (byte === (seen & 1 ? 0x0a : 0x0d)) seen++
      else seen = byte === 0x0d ? 1 : 0
      if (seen === 4) {
        seen = 0
        connection.write(answer)
      }
    }
    progress.seen = seen
  },
  onDrain() {
    // One answer at a time is asked for: the client waits for it.
  },
  onEnd(connection: Connection) {
    connection.end()
  },
  onClose() {
    // Nothing to let go of.
  },
}

const server = http2Server(
  tunnelServer((exchange) => {
    acceptTunnel(exchange, [], app)
  }),
  { maxStreams: 1_000 },
)
for (const host of values.listen.split(',')) {
  await transport.listen({
    host,
    port: 15008,
    handler: server,
    tls: { alpn: ['h2'], trust: () => trust, certificate: () => own, verify: () => undefined },
  })
}
process.stdout.write('ready\n')
