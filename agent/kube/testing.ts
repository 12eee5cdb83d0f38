// What tests share: a real HTTPS server that plays an API server in trouble (cut watches, 410, 429, silence), told by each test
// what to answer. Must not live here: how a healthy one behaves (test/kube has a real one).
import { createServer, type Server } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ManualClock } from '../base/clock.ts'
import type { KeyPair } from '../io/connection.ts'
import { testRoot, type TestRoot } from '../io/testcerts.ts'
import { KubeClient } from './client.ts'
import type { Connection } from './connection.ts'
import type { KubeObject } from './resource.ts'

export interface Asked {
  readonly method: string
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  readonly authorization: string | undefined
  readonly body: string
  /** By the server's clock, if it was given one. */
  readonly at: number
}

let root: TestRoot | undefined
let pair: KeyPair | undefined

export class Player {
  readonly asked: Asked[] = []
  readonly clock: ManualClock
  readonly #server: Server
  readonly certificate: string
  /** The token the client shows; `refused` makes it the next one. */
  token = 'token-1'
  answer: (asked: Asked, reply: ServerResponse) => void = (_, reply) =>
    refuse(reply, 500, 'no answer was given to play')

  private constructor(server: Server, certificate: string, clock: ManualClock) {
    this.#server = server
    this.certificate = certificate
    this.clock = clock
    server.on('request', (request: IncomingMessage, reply: ServerResponse) => {
      let body = ''
      request.on('data', (chunk: Buffer) => (body += chunk.toString()))
      request.on('end', () => {
        const url = new URL(request.url ?? '/', 'https://localhost')
        const asked = {
          method: request.method ?? '',
          path: url.pathname,
          query: Object.fromEntries(url.searchParams),
          authorization: request.headers.authorization,
          body,
          at: clock.monotonic(),
        }
        this.asked.push(asked)
        this.answer(asked, reply)
      })
    })
  }

  static async start(clock = new ManualClock(), foreign = false): Promise<Player> {
    if (foreign) root = pair = undefined
    root ??= testRoot('player')
    // openssl reads the rest as more names.
    pair ??= root.issue('spiffe://player,IP:127.0.0.1')
    const server = createServer({ cert: pair.certificate, key: pair.key })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return new Player(server, root.certificate, clock)
  }

  get connection(): Connection {
    return {
      server: new URL(`https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`),
      namespace: 'default',
      credentials: async () => ({ tls: { ca: this.certificate }, headers: { authorization: `Bearer ${this.token}` } }),
      refused: () => (this.token = `token-${Number(this.token.slice(6)) + 1}`),
    }
  }

  client(): KubeClient {
    return new KubeClient(this.connection, { clock: this.clock, random: () => 0.5 })
  }

  /** Cuts every connection. */
  cut(): void {
    this.#server.closeAllConnections()
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.cut()
    await closed
  }

  /** Waits for what real sockets do, while the clock goes on by `step` milliseconds at every look. */
  async until(condition: () => boolean, step = 0): Promise<void> {
    const end = performance.now() + 10_000
    while (!condition()) {
      if (performance.now() > end)
        throw new Error(`it did not happen within 10 s; asked: ${JSON.stringify(this.asked, null, 1)}`)
      if (step > 0) this.clock.advance(step)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }
}

export function reply(
  to: ServerResponse,
  body: unknown,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): void {
  to.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}

export function refuse(
  to: ServerResponse,
  code: number,
  message: string,
  more: { readonly headers?: Readonly<Record<string, string>>; readonly metadata?: unknown } = {},
): void {
  reply(to, { kind: 'Status', code, message, metadata: more.metadata ?? {} }, code, more.headers)
}

export function pod(name: string, version: string, labels: Readonly<Record<string, string>> = {}): KubeObject {
  return { metadata: { namespace: 'shop', name, uid: `uid-${name}`, resourceVersion: version, labels } }
}

export function page(items: readonly KubeObject[], version: string, token?: string): unknown {
  return { kind: 'PodList', metadata: { resourceVersion: version, ...(token ? { continue: token } : {}) }, items }
}

/** Begins the answer to a watch; the function sends one event. */
export function stream(to: ServerResponse): (type: string, object: unknown) => void {
  to.writeHead(200, { 'content-type': 'application/json' })
  to.flushHeaders()
  return (type, object) => void to.write(`${JSON.stringify({ type, object })}\n`)
}
