// A client that opens again and again, as a program for the suite `handshake`: TLS connections, HBONE sessions or CONNECT streams on pooled sessions, so many at a
// time. One counts once the server has spoken on it; then a connection is cut, so that no port waits for its death. Prints one line of JSON (LoadResult).
//   agent/bin/node test/bench/http/handshake-load.ts --mode tls|resumed|session|stream --server IP --authority IP:PORT --certificate PEM ...
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { systemClock } from '../../../agent/base/clock.ts'
import { connectTunnel } from '../../../agent/http/hbone/connect.ts'
import { TunnelPool } from '../../../agent/http/hbone/pool.ts'
import type { Connection, ConnectionHandler } from '../../../agent/io/connection.ts'
import { latencies } from '../latencies.ts'
import { transport } from './transport.ts'

const { values } = parseArgs({
  options: {
    mode: { type: 'string', default: 'tls' },
    server: { type: 'string', default: '' },
    authority: { type: 'string', default: '10.0.0.1:80' },
    certificate: { type: 'string', default: '' },
    key: { type: 'string', default: '' },
    trust: { type: 'string', default: '' },
    concurrency: { type: 'string', default: '16' },
    seconds: { type: 'string', default: '3' },
  },
})
const read = (file: string): string => readFileSync(file, 'utf8')
const own = { certificate: read(values.certificate), key: read(values.key) }
const trust = read(values.trust)
const request = Buffer.from('GET / HTTP/1.1\r\nhost: bench\r\n\r\n')
const tls = {
  alpn: ['h2'],
  trust: () => trust,
  certificate: () => own,
  verify: () => undefined,
  // A transport that resumes keeps sessions by this key; one that does not ignores it.
  ...(values.mode === 'resumed' ? { sessionKey: 'bench' } : {}),
}

const times: number[] = []
let errors = 0
let firstError = ''
let running = true

type Pool = TunnelPool<{ key: string }>

const newPool = (): Pool =>
  new TunnelPool<{ key: string }>({
    clock: systemClock,
    open: (_target, handler) => transport.connect({ host: values.server, port: 15008, handler, tls }),
  })
const shared = newPool()

/** One of those that run at a time. */
class Opener implements ConnectionHandler {
  #began = 0
  #done = false
  #pool: Pool = shared

  start = (): void => {
    if (!running) return
    this.#began = performance.now()
    this.#done = false
    if (values.mode === 'tls' || values.mode === 'resumed') {
      transport.connect({ host: values.server, port: 15008, handler: this, tls })
      return
    }
    if (values.mode === 'session') this.#pool = newPool()
    connectTunnel(
      this.#pool,
      { key: 'server' },
      { authority: values.authority, headers: [], handler: this, timeoutMs: 10_000, clock: systemClock },
    )
  }

  onOpen(connection: Connection): void {
    // Without a tunnel the server speaks first: its SETTINGS.
    if (values.mode === 'session' || values.mode === 'stream') connection.write(request)
  }

  onRead(connection: Connection): void {
    if (this.#done) return
    this.#done = true
    if (running) times.push((performance.now() - this.#began) * 1000)
    // Streams take no port, and a server counts their resets: they end in order.
    if (values.mode === 'stream') connection.end()
    else connection.abort('cancel')
    if (values.mode === 'session') this.#pool.close()
  }

  onDrain(): void {
    // Nothing is ever held back.
  }

  onEnd(): void {
    // Cut at the first byte, or ended from here already.
  }

  onClose(_connection: Connection, error: Error | undefined): void {
    if (!this.#done && running) {
      errors++
      firstError ||= error?.message ?? 'closed before the server spoke'
      // A server that refuses everything must not be asked as fast as can be.
      setTimeout(this.start, 50)
      return
    }
    queueMicrotask(this.start)
  }
}

const began = performance.now()
for (let i = 0; i < Number(values.concurrency); i++) new Opener().start()
setTimeout(
  () => {
    running = false
    const seconds = (performance.now() - began) / 1000
    const result = {
      requests: times.length,
      requestsPerSecond: times.length / seconds,
      errors,
      firstError,
      ...latencies(times),
    }
    process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
  },
  Number(values.seconds) * 1000,
)
