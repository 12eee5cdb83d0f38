// Pools of one cluster over real sockets to Node's own servers, with time under the test's control: reuse, idleness, age, limits,
// endpoints that leave, HTTP/2 streams and the change of sessions.
import { createServer as createHttp, type Server } from 'node:http'
import { createServer as createH2, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ManualClock, systemClock } from '../../base/clock.ts'
import { http1Client } from '../../http/http1/index.ts'
import { http2Client, http2ClientHandler } from '../../http/http2/index.ts'
import type { ClientEvents, ClientExchange, ClientSession, ExchangeError } from '../../http/message.ts'
import { transport } from '../../io/index.ts'
import type { Candidate } from '../../mesh/pick-endpoint.ts'
import type { ConnectionPool } from '../../mesh/upstream.ts'
import type { Workload } from '../../mesh/workload.ts'
import { listenOn } from '../testing-apps.ts'
import { Cluster, type OpenSession } from './cluster.ts'
import type { Host } from './host.ts'
import type { Pool, Waiting } from './pool.ts'

const clock = new ManualClock()
const stops: (() => void)[] = []
let cluster: Cluster

afterEach(() => {
  cluster.drain()
  for (const stop of stops.splice(0)) stop()
})

const open: OpenSession = (candidate, { version }, timeoutMs, events) => {
  const where = { host: candidate.address, port: candidate.port, timeoutMs }
  if (version === 2) {
    const connection = transport.connect({ ...where, handler: http2ClientHandler })
    return http2Client(connection, events, { clock: systemClock })
  }
  const { handler, slot, session } = http1Client(events, { clock: systemClock })
  transport.connect({ ...where, handler, slot })
  return session
}

function candidate(port: number, name = 'one', tunnelProtocol: Workload['tunnelProtocol'] = 'NONE'): Candidate {
  // Of a workload a cluster reads the name and whether it has a tunnel.
  const workload = { uid: name, name, tunnelProtocol } as Workload
  return { workload, address: '127.0.0.1', port, weight: 1, rank: 0 }
}

function clusterOf(connectionPool: ConnectionPool, ...candidates: readonly Candidate[]): Cluster {
  cluster = new Cluster({
    name: 'c',
    policy: { connectionPool, loadBalancer: 'ROUND_ROBIN' },
    open,
    clock,
    random: Math.random,
  })
  cluster.update(candidates)
  return cluster
}

/** One GET through the cluster, as the router does it. */
class Request implements Waiting {
  readonly client
  readonly version
  pool: Pool | undefined
  session: ClientSession | undefined
  host: Host | undefined
  exchange: ClientExchange | undefined
  refused: string | undefined
  readonly done: Promise<string>
  #settle!: (outcome: string) => void

  constructor(version: 1 | 2 = 1, address = '10.0.0.1') {
    this.client = { address, port: 1 }
    this.version = version
    this.done = new Promise((resolve) => (this.#settle = resolve))
    this.refused = cluster.acquire(this, [])
    if (this.refused !== undefined) this.#settle(this.refused)
  }

  onSession(session: ClientSession, host: Host): void {
    this.session = session
    this.host = host
    const head = { method: 'GET', scheme: 'http', authority: 'a', path: '/', protocol: '', headers: [] }
    this.exchange = session.request(head, true, events, this)
  }

  onNoSession(_host: Host, kind: 'connect' | 'timeout'): void {
    this.#settle(kind)
  }

  closed(error: ExchangeError | undefined): void {
    if (this.host) cluster.release(this.host)
    this.#settle(error ? error.reason : 'ok')
  }
}

const events: ClientEvents = {
  onInformational: () => undefined,
  onResponse: () => undefined,
  onData: () => undefined,
  onEnd: () => undefined,
  onDrain: () => undefined,
  onClose: (exchange, error) => (exchange.slot as Request).closed(error),
}

interface App {
  readonly port: number
  readonly sockets: Set<Socket>
  opened: number
  /** Requests that wait for their answer. */
  readonly waiting: (() => void)[]
}

async function app(hold = false): Promise<App> {
  const made: App = { port: 0, sockets: new Set(), opened: 0, waiting: [] }
  const server: Server = createHttp((_request, response) => {
    if (hold) made.waiting.push(() => response.end('x'))
    else response.end('x')
  })
  server.keepAliveTimeout = 60_000
  server.on('connection', (socket) => {
    made.opened++
    made.sockets.add(socket)
    socket.on('close', () => made.sockets.delete(socket))
  })
  stops.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return Object.assign(made, { port: await listenOn(server, '127.0.0.1') })
}

interface H2App {
  readonly port: number
  readonly sessions: ServerHttp2Session[]
  readonly streams: ServerHttp2Stream[]
}

async function h2App(settings: { maxConcurrentStreams?: number } = {}): Promise<H2App> {
  const sessions: ServerHttp2Session[] = []
  const streams: ServerHttp2Stream[] = []
  const server: Http2Server = createH2({ settings })
  server.on('session', (session) => sessions.push(session))
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined)
    streams.push(stream)
  })
  stops.push(() => {
    server.close()
    for (const session of sessions) session.destroy()
  })
  return { port: await listenOn(server, '127.0.0.1'), sessions, streams }
}

function answer(stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 })
  stream.end('x')
}

/** Waits for the other side of a socket; the test's own limit is the bound. */
async function until(test: () => boolean): Promise<void> {
  while (!test()) await new Promise((resolve) => setTimeout(resolve, 2))
}

describe('HTTP/1.1 connections to an endpoint', () => {
  it('are reused, by every client where the endpoint has no tunnel', async () => {
    const server = await app()
    clusterOf({}, candidate(server.port))
    expect(await new Request(1, '10.0.0.1').done).toBe('ok')
    expect(await new Request(1, '10.0.0.2').done).toBe('ok')
    expect(server.opened).toBe(1)
  })

  it('are kept apart by client where the endpoint sees whom a tunnel is for', async () => {
    const server = await app()
    clusterOf({}, candidate(server.port, 'one', 'HBONE'))
    for (const address of ['10.0.0.1', '10.0.0.2', '10.0.0.1', '10.0.0.2']) {
      expect(await new Request(1, address).done).toBe('ok')
    }
    expect(server.opened).toBe(2)
  })

  it('are closed when they were idle for idleTimeout, and never before', async () => {
    const server = await app()
    clusterOf({ idleTimeoutMs: 20_000 }, candidate(server.port))
    expect(await new Request().done).toBe('ok')
    for (let i = 0; i < 4; i++) {
      cluster.closeIdle()
      expect(cluster.connections).toBe(1)
      clock.advance(5_000)
    }
    expect(await new Request().done).toBe('ok')
    // It was used meanwhile: its time begins anew.
    cluster.closeIdle()
    expect(cluster.connections).toBe(1)
    clock.advance(20_000)
    cluster.closeIdle()
    await until(() => cluster.connections === 0 && server.sockets.size === 0)
    expect(server.opened).toBe(1)
  })

  it('take no more requests at maxConnectionDuration; the running one ends', async () => {
    const server = await app(true)
    clusterOf({ maxConnectionDurationMs: 10_000 }, candidate(server.port))
    const old = new Request()
    await until(() => server.waiting.length === 1)
    clock.advance(10_000)
    cluster.closeIdle()
    const next = new Request()
    await until(() => server.waiting.length === 2)
    expect(server.opened).toBe(2)
    for (const go of server.waiting) go()
    expect([await old.done, await next.done]).toEqual(['ok', 'ok'])
    await until(() => server.sockets.size === 1)
  })

  it('beyond 64 idle ones of a pool are closed once they are not used any more', async () => {
    const server = await app(true)
    clusterOf({}, candidate(server.port))
    const requests = Array.from({ length: 80 }, () => new Request())
    await until(() => server.waiting.length === 80)
    for (const go of server.waiting) go()
    for (const request of requests) expect(await request.done).toBe('ok')
    cluster.closeIdle()
    expect(cluster.connections).toBe(80)
    clock.advance(5_000)
    cluster.closeIdle()
    await until(() => cluster.connections === 64)
  })

  it('of an endpoint that leaves are closed at once when idle, and when they end otherwise', async () => {
    const [leaving, staying] = [await app(true), await app()]
    clusterOf({}, candidate(leaving.port, 'leaving'))
    const [first, second] = [new Request(), new Request()]
    await until(() => leaving.waiting.length === 2)
    leaving.waiting[0]?.()
    await Promise.race([first.done, second.done])
    expect(cluster.connections).toBe(2)
    cluster.update([candidate(staying.port, 'staying')])
    await until(() => leaving.sockets.size === 1)
    expect(await new Request().done).toBe('ok')
    leaving.waiting[1]?.()
    expect([await first.done, await second.done]).toEqual(['ok', 'ok'])
    await until(() => leaving.sockets.size === 0)
    expect(cluster.active).toBe(0)
  })

  it('are tried once for each request where none can be had', async () => {
    const server = await app()
    for (const stop of stops.splice(0)) stop()
    clusterOf({}, candidate(server.port))
    const outcomes = await Promise.all([new Request().done, new Request().done])
    expect(outcomes).toEqual(['connect', 'connect'])
    expect([cluster.pending, cluster.connections, cluster.active]).toEqual([0, 0, 0])
  })

  it('are bounded: maxConnections makes wait, http1MaxPendingRequests refuses', async () => {
    const server = await app(true)
    clusterOf({ maxConnections: 1, http1MaxPendingRequests: 1 }, candidate(server.port))
    const first = new Request()
    await until(() => server.waiting.length === 1)
    const second = new Request()
    expect([cluster.pending, cluster.connections]).toEqual([1, 1])
    expect(new Request().refused).toBe('overflow')
    const given = second
    cluster.cancel(given)
    expect(cluster.pending).toBe(0)
    const third = new Request()
    server.waiting[0]?.()
    await until(() => server.waiting.length === 2)
    server.waiting[1]?.()
    expect([await first.done, await third.done]).toEqual(['ok', 'ok'])
    expect(server.opened).toBe(1)
  })
})

describe('HTTP/2 sessions to an endpoint', () => {
  it('carry many requests at once', async () => {
    const server = await h2App()
    clusterOf({}, candidate(server.port))
    const requests = Array.from({ length: 20 }, () => new Request(2))
    await until(() => server.streams.length === 20)
    expect(server.sessions).toHaveLength(1)
    for (const stream of server.streams) answer(stream)
    for (const request of requests) expect(await request.done).toBe('ok')
  })

  it('are joined by another when the peer takes no more streams', async () => {
    const server = await h2App({ maxConcurrentStreams: 2 })
    clusterOf({}, candidate(server.port))
    const first = new Request(2)
    await until(() => server.streams.length === 1)
    const more = Array.from({ length: 3 }, () => new Request(2))
    await until(() => server.streams.length === 4)
    expect(server.sessions.length).toBeGreaterThan(1)
    for (const stream of server.streams) answer(stream)
    for (const request of [first, ...more]) expect(await request.done).toBe('ok')
  })

  it('carry no more requests at once than maxConcurrentStreams', async () => {
    const server = await h2App()
    clusterOf({ maxConcurrentStreams: 2 }, candidate(server.port))
    const requests = Array.from({ length: 5 }, () => new Request(2))
    await until(() => server.streams.length === 5)
    expect(server.sessions).toHaveLength(3)
    for (const stream of server.streams) answer(stream)
    for (const request of requests) expect(await request.done).toBe('ok')
  })

  it('make way for a new one after GOAWAY, while running requests end on the old', async () => {
    const server = await h2App()
    clusterOf({}, candidate(server.port))
    const old = new Request(2)
    await until(() => server.streams.length === 1)
    server.sessions[0]?.goaway(0)
    await until(() => old.session?.open === false)
    const next = new Request(2)
    await until(() => server.streams.length === 2)
    expect(server.sessions).toHaveLength(2)
    for (const stream of server.streams) answer(stream)
    expect([await old.done, await next.done]).toEqual(['ok', 'ok'])
    await until(() => cluster.connections === 1)
  })

  it('change after the requests they may carry', async () => {
    const server = await h2App()
    clusterOf({ maxRequestsPerConnection: 2 }, candidate(server.port))
    for (let i = 0; i < 4; i++) {
      const request = new Request(2)
      await until(() => server.streams.length === i + 1)
      answer(server.streams[i] as ServerHttp2Stream)
      expect(await request.done).toBe('ok')
    }
    expect(server.sessions).toHaveLength(2)
  })
})
