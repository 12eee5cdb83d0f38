// What the HTTP/1.1 codec costs by itself, without sockets: `agent/bin/node test/bench/codec-http1.ts [--seconds N]`. Prints ns
// per message for typical requests and responses, best of several rounds. Must not live here: the waypoint (mesh.ts).
import { parseArgs } from 'node:util'
import { http1Client, http1Server } from '../../agent/http/http1/index.ts'
import type { AbortReason, Connection, ConnectionHandler, OpenInfo } from '../../agent/io/connection.ts'
import type {
  ClientEvents,
  ClientSession,
  RequestHead,
  ResponseHead,
  ServerEvents,
  ServerExchange,
} from '../../agent/http/message.ts'

const NOWHERE = { address: '127.0.0.1', port: 1 }

/** Takes every write and forgets it. */
class Sink implements Connection {
  slot: unknown
  readonly pending = 0
  readonly writable = true
  readonly fd = -1
  readonly info: OpenInfo = {
    local: NOWHERE,
    peer: NOWHERE,
    alpn: '',
    serverName: '',
    certificates: [],
    secure: false,
  }
  bytes = 0
  writes = 0
  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.bytes += end - start
    this.writes++
  }
  pause(): void {}
  resume(): void {}
  end(): void {}
  abort(reason: AbortReason): void {
    throw new Error(`the codec cut the connection: ${reason}`)
  }
  detach(): number {
    return -1
  }
}

const lines = (...all: string[]): Buffer => Buffer.from(`${all.join('\r\n')}\r\n\r\n`, 'latin1')

const REQUESTS: Readonly<Record<string, Buffer>> = {
  'wrk (2 fields)': lines('GET /productpage HTTP/1.1', 'Host: reviews.default.svc.cluster.local:9080', 'Accept: */*'),
  'curl (4 fields)': lines(
    'GET /api/v1/products?limit=10 HTTP/1.1',
    'Host: productpage:9080',
    'User-Agent: curl/8.5.0',
    'Accept: */*',
    'X-Request-Id: 0a1b2c3d-0000-4000-8000-000000000001',
  ),
  'browser (12 fields)': lines(
    'GET /productpage?u=normal HTTP/1.1',
    'Host: bookinfo.example.com',
    'Connection: keep-alive',
    'Cache-Control: max-age=0',
    'Upgrade-Insecure-Requests: 1',
    'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36',
    'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8',
    'Accept-Encoding: gzip, deflate, br',
    'Accept-Language: en-GB,en;q=0.9,de;q=0.8',
    'Cookie: session=eyJ1c2VyIjoiamFzb24ifQ.ZxYwVu.abcdefghijklmnop; theme=dark',
    'If-None-Match: W/"1234-5678"',
    'X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7',
  ),
  'post (6 fields, 64 bytes)': Buffer.concat([
    lines(
      'POST /api/orders HTTP/1.1',
      'host: orders:8080',
      'user-agent: Go-http-client/1.1',
      'content-length: 64',
      'content-type: application/json',
      'accept-encoding: gzip',
      'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    ),
    Buffer.alloc(64, 'x'),
  ]),
}

const RESPONSE = Buffer.concat([
  lines(
    'HTTP/1.1 200 OK',
    'Server: nginx/1.22.1',
    'Date: Wed, 25 Nov 2026 14:28:37 GMT',
    'Content-Type: application/json',
    'Content-Length: 128',
    'Connection: keep-alive',
    'ETag: "65a1b2c3-80"',
  ),
  Buffer.alloc(128, 'y'),
])

const tick = () => new Promise<void>((resolve) => setImmediate(resolve))
/** Messages between two turns of the event loop: what a batch of the transport brings. */
const BATCH = 64

async function rate(seconds: number, batch: () => void): Promise<number> {
  const until = performance.now() + seconds * 1000
  let done = 0
  let spent = 0
  while (performance.now() < until) {
    // Processor time of this thread, not the clock's: the machine has other things to do.
    const from = process.threadCpuUsage()
    for (let i = 0; i < 32; i++) {
      batch()
      await tick()
    }
    const used = process.threadCpuUsage(from)
    spent += used.user + used.system
    done += BATCH * 32
  }
  return (spent * 1000) / done
}

const BODY = Buffer.alloc(128, 'y')
const ANSWER: ResponseHead = {
  status: 200,
  headers: [
    'server',
    'nginx',
    'date',
    'Wed, 25 Nov 2026 14:28:37 GMT',
    'content-type',
    'application/json',
    'content-length',
    '128',
    'x-envoy-upstream-service-time',
    '1',
  ],
}

class Answering implements ServerEvents {
  count = 0
  onRequest(exchange: ServerExchange, _head: RequestHead, end: boolean): void {
    if (end) this.#answer(exchange)
  }
  onData(): void {}
  onEnd(exchange: ServerExchange): void {
    this.#answer(exchange)
  }
  onDrain(): void {}
  onClose(): void {
    this.count++
  }
  #answer(exchange: ServerExchange): void {
    exchange.respond(ANSWER, false)
    exchange.write(BODY)
    exchange.end()
  }
}

function serverCase(bytes: Buffer): () => void {
  const events = new Answering()
  const server = http1Server(events)
  const connections = Array.from({ length: BATCH }, () => new Sink())
  for (const connection of connections) server.onOpen(connection, connection.info)
  return () => {
    for (const connection of connections) server.onRead(connection, bytes, 0, bytes.length)
  }
}

const HEAD: RequestHead = {
  method: 'GET',
  scheme: 'http',
  authority: 'reviews:9080',
  path: '/reviews/0',
  protocol: '',
  headers: [
    'user-agent',
    'curl/8.5.0',
    'accept',
    '*/*',
    'x-request-id',
    '0a1b2c3d-0000-4000-8000-000000000001',
    'x-forwarded-proto',
    'http',
  ],
}

function clientCase(bytes: Buffer): () => void {
  const connections = Array.from({ length: BATCH }, () => new Sink())
  const sessions: ClientSession[] = []
  let handler: ConnectionHandler | undefined
  for (const connection of connections) {
    const client = http1Client({ onAvailable() {}, onDraining() {}, onClose() {} })
    connection.slot = client.slot
    handler = client.handler
    handler.onOpen(connection, connection.info)
    sessions.push(client.session)
  }
  const events: ClientEvents = {
    onInformational() {},
    onResponse() {},
    onData() {},
    onEnd() {},
    onDrain() {},
    onClose() {},
  }
  return () => {
    for (const session of sessions) session.request(HEAD, true, events)
    for (const connection of connections) handler?.onRead(connection, bytes, 0, bytes.length)
  }
}

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '0.4' }, rounds: { type: 'string', default: '5' } },
})
const cases: [string, () => void][] = [
  ...Object.entries(REQUESTS).map(([name, bytes]): [string, () => void] => [`server: ${name}`, serverCase(bytes)]),
  ['client: request (4 fields), response (6 fields, 128 bytes)', clientCase(RESPONSE)],
]
const best = new Map<string, number>()
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [name, batch] of cases) {
    const ns = await rate(Number(values.seconds), batch)
    best.set(name, Math.min(best.get(name) ?? Infinity, ns))
  }
}
for (const [name, ns] of best) console.log(`${ns.toFixed(0).padStart(7)} ns  ${name}`)
