// The client's side of HBONE for the bench, as a program: a load generator that is app and agent in one, so that no second program shares
// its core. It opens CONNECT tunnels, pooled in sessions as an agent pools them, and keeps one HTTP/1.1 request in flight in each.
// Prints one line of JSON (LoadResult). Must not live here: what is compared with what.
//   agent/bin/node test/bench/http/hbone-load.ts --waypoint IP --source IP --authority IP:PORT --host NAME --connections N --seconds S ...
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { systemClock } from '../../../agent/base/clock.ts'
import { connectTunnel } from '../../../agent/http/hbone/connect.ts'
import { TunnelPool } from '../../../agent/http/hbone/pool.ts'
import type { Connection, ConnectionHandler } from '../../../agent/io/connection.ts'
import { latencies } from '../latencies.ts'
import { AnswerReader } from './answer-reader.ts'
import { transport } from './transport.ts'

const { values } = parseArgs({
  options: {
    waypoint: { type: 'string', default: '' },
    source: { type: 'string', default: '' },
    authority: { type: 'string', default: '' },
    host: { type: 'string', default: '' },
    path: { type: 'string', default: '/' },
    certificate: { type: 'string', default: '' },
    key: { type: 'string', default: '' },
    trust: { type: 'string', default: '' },
    connections: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '3' },
  },
})
const read = (file: string): string => readFileSync(file, 'utf8')
const own = { certificate: read(values.certificate), key: read(values.key) }
const trust = read(values.trust)
const connections = Number(values.connections)
const request = Buffer.from(`GET ${values.path} HTTP/1.1\r\nhost: ${values.host}\r\nuser-agent: bench\r\n\r\n`)

/** Microseconds, one a request. */
const times: number[] = []
let errors = 0
let open = 0
let running = true
let firstError = ''

class Client implements ConnectionHandler {
  readonly #reader = new AnswerReader()
  #sentAt = 0
  #started = false
  connection: Connection | undefined

  onOpen(connection: Connection): void {
    this.connection = connection
    open++
    begin()
  }

  start(): void {
    this.#started = true
    this.#send()
  }

  #send(): void {
    this.#sentAt = performance.now()
    this.connection?.write(request)
  }

  onRead(_connection: Connection, arena: Uint8Array, start: number, end: number): void {
    if (!this.#reader.take(arena, start, end)) return
    if (this.#reader.status !== 200) fail(`status ${this.#reader.status}`)
    if (!running) return
    times.push((performance.now() - this.#sentAt) * 1000)
    this.#send()
  }

  onDrain(): void {
    // Requests are small and one at a time.
  }

  onEnd(connection: Connection): void {
    connection.abort('cancel')
    if (running) fail('the waypoint ended a tunnel')
  }

  onClose(_connection: Connection, error: Error | undefined): void {
    if (running) fail(error?.message ?? `a tunnel closed${this.#started ? '' : ' before it was used'}`)
  }
}

function fail(message: string): void {
  errors++
  firstError ||= message
}

const pool = new TunnelPool<{ key: string }>({
  clock: systemClock,
  open: (_target, handler) =>
    transport.connect({
      host: values.waypoint,
      port: 15008,
      source: values.source,
      handler,
      tls: { alpn: ['h2'], trust: () => trust, certificate: () => own, verify: () => undefined },
    }),
})
const clients = Array.from({ length: connections }, () => new Client())
for (const client of clients)
  connectTunnel(
    pool,
    { key: 'waypoint' },
    { authority: values.authority, headers: [], handler: client, timeoutMs: 10_000, clock: systemClock },
  )

let began = 0

/** All tunnels are open: the clock starts. */
function begin(): void {
  if (open < connections || began > 0) return
  began = performance.now()
  for (const client of clients) client.start()
  setTimeout(finish, Number(values.seconds) * 1000)
}

setTimeout(() => {
  if (began === 0) {
    process.stderr.write(`only ${open} of ${connections} tunnels opened: ${firstError}\n`)
    process.exit(1)
  }
}, 15_000).unref()

function finish(): void {
  running = false
  const seconds = (performance.now() - began) / 1000
  const { p50Ms, p99Ms } = latencies(times)
  const result = { requests: times.length, requestsPerSecond: times.length / seconds, p50Ms, p99Ms, errors, firstError }
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}
