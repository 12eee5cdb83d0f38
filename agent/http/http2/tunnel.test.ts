// Tunnels as connections: the contract's own suite, and what only a tunnel has: refusals, verdicts that take time.
import { describe, expect, it } from 'vitest'
import { describeTransport, Recorder, type MakePair } from '../../io/contract.ts'
import { transport } from '../../io/index.ts'
import type { ConnectionHandler } from '../../io/connection.ts'
import type { ClientSession, ServerExchange, SessionEvents } from '../message.ts'
import {
  acceptTunnel,
  connectHttp2,
  http2Server,
  onUndecidedClose,
  openTunnel,
  refuseTunnel,
  tunnelHeaders,
  TunnelRefused,
  tunnelServer,
  type OnTunnel,
} from './index.ts'
import { frame, HELLO, INFO, POST, Wire } from './testing.ts'

class Waiter implements SessionEvents {
  readonly available: Promise<ClientSession>
  #resolve: (session: ClientSession) => void = () => undefined

  constructor() {
    this.available = new Promise((resolve) => (this.#resolve = resolve))
  }

  onAvailable(session: ClientSession): void {
    this.#resolve(session)
  }

  onDraining(): void {
    // Nothing to wait for.
  }

  onClose(): void {
    // Judged by the tunnels.
  }
}

interface World {
  session: ClientSession
  dispose(): Promise<void>
}

async function world(onTunnel: OnTunnel): Promise<World> {
  const server = http2Server(tunnelServer(onTunnel))
  const listener = await transport.listen({ handler: server, host: '127.0.0.1', port: 0 })
  const waiter = new Waiter()
  connectHttp2(transport, { host: '127.0.0.1', port: listener.address.port }, waiter)
  const session = await waiter.available
  return {
    session,
    async dispose() {
      session.close()
      server.close()
      await listener.stop()
    },
  }
}

function tunnelPair(): MakePair {
  return async (client: ConnectionHandler, server: ConnectionHandler) => {
    let accepted: ReturnType<typeof acceptTunnel> | undefined
    const { session, dispose } = await world((exchange) => {
      accepted = acceptTunnel(exchange, [], server)
    })
    const connection = openTunnel(session, '10.0.0.1:80', [], client)
    while (!connection.writable || !accepted?.writable) await new Promise((resolve) => setImmediate(resolve))
    return { client: connection, server: accepted, dispose }
  }
}

describeTransport('an HTTP/2 CONNECT stream', tunnelPair())

describe('a tunnel', () => {
  it('is refused with the status the server chose, and never opens', async () => {
    const { session, dispose } = await world((exchange) => refuseTunnel(exchange, 401, ['x-why', 'policy']))
    const client = new Recorder()
    openTunnel(session, '10.0.0.1:80', [], client)
    await client.until(() => client.closes === 1)
    expect(client.events).toEqual(['close'])
    expect(client.error).toBeInstanceOf(TunnelRefused)
    expect((client.error as TunnelRefused).status).toBe(401)
    expect((client.error as TunnelRefused).headers).toContain('policy')
    expect(session.open).toBe(true)
    await dispose()
  })

  it('holds bytes sent before the verdict and delivers them after it, with the end', async () => {
    let waiting: ServerExchange | undefined
    const { session, dispose } = await world((exchange) => (waiting = exchange))
    const server = new Recorder()
    const client = new Recorder()
    // A client that does not wait for the answer, as HBONE allows.
    session
      .request({ method: 'CONNECT', scheme: '', authority: 'a:1', path: '', protocol: '', headers: [] }, false, {
        onInformational: () => undefined,
        onResponse: () => undefined,
        onData: () => undefined,
        onEnd: () => client.onEnd(undefined as never),
        onDrain: () => undefined,
        onClose: () => undefined,
      })
      .write(Buffer.from('early'))
    while (waiting === undefined) await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(server.events).toEqual([])
    const accepted = acceptTunnel(waiting, ['baggage', 'x=y'], server)
    await server.until(() => server.received === 5)
    expect(server.text).toBe('early')
    accepted.end()
    await client.until(() => client.ended)
    await dispose()
  })

  it('tells of a client that went away before the verdict', async () => {
    let waiting: ServerExchange | undefined
    const { session, dispose } = await world((exchange) => (waiting = exchange))
    const client = new Recorder()
    const tunnel = openTunnel(session, 'a:1', [], client)
    while (waiting === undefined) await new Promise((resolve) => setImmediate(resolve))
    const gone = new Promise((resolve) => onUndecidedClose(waiting as ServerExchange, resolve))
    tunnel.abort('cancel')
    expect(await gone).toMatchObject({ reason: 'cancel', remote: true })
    await dispose()
  })

  it("shows the server's headers to the client", async () => {
    const { session, dispose } = await world((exchange) => {
      acceptTunnel(exchange, ['baggage', 'service.name=x'], new Recorder())
    })
    const client = new Recorder()
    const tunnel = openTunnel(session, 'a:1', [], client)
    await client.until(() => client.info !== undefined)
    expect(tunnelHeaders(tunnel)).toEqual(['baggage', 'service.name=x'])
    expect(tunnel.fd).toBe(-1)
    expect(() => tunnel.detach()).toThrowError(expect.objectContaining({ code: 'IO_NOT_DETACHABLE' }) as Error)
    await dispose()
  })

  it('is not what other requests are: they are answered with a text, and their body is dropped within a bound', () => {
    const wire = new Wire()
    const feed = http2Server(tunnelServer((exchange) => refuseTunnel(exchange, 400))).adopt(wire, INFO)
    const send = (...frames: Buffer[]) => feed.receive(Buffer.concat(frames), 0, Buffer.concat(frames).length)
    send(HELLO, frame(1, 4, 1, POST), frame(0, 0, 1, Buffer.alloc(16_384)))
    const answer = wire.frames.filter(({ id }) => id === 1)
    expect(answer.map(({ type, flags }) => [type, flags])).toEqual([
      [1, 4],
      [0, 0],
      [0, 1],
    ])
    expect(answer[1]?.payload.toString()).toContain('HBONE')
    // A client that ends its request has had a whole exchange; one that never does is told to stop (RFC 9113 §8.1).
    send(frame(0, 1, 1), frame(1, 4, 3, POST))
    for (let i = 0; i < 5; i++) send(frame(0, 0, 3, Buffer.alloc(16_384)))
    expect(wire.frames.filter(({ type }) => type === 3).map(({ id, payload }) => [id, payload[3]])).toEqual([[3, 0]])
    expect(feed.session.active).toBe(0)
  })

  it('that is stuck does not stop another of the same connection', async () => {
    const servers: Recorder[] = []
    const { session, dispose } = await world((exchange) => {
      const recorder = new Recorder()
      recorder.keep = false
      servers.push(recorder)
      const connection = acceptTunnel(exchange, [], recorder)
      if (servers.length <= 90) connection.pause()
    })
    const clients = Array.from({ length: 91 }, () => new Recorder())
    const tunnels = clients.map((client) => openTunnel(session, 'a:1', [], client))
    await clients[90]!.until(() => tunnels[90]!.writable)
    const megabyte = Buffer.alloc(1 << 20, 'x')
    for (let i = 0; i < 90; i++) tunnels[i]!.write(megabyte)
    // Far more than the connection's window passes beside ninety streams whose readers stand still.
    const total = 64
    let sent = 0
    const free = clients[90]!
    const more = (): void => {
      while (sent < total && tunnels[90]!.pending === 0) {
        sent++
        tunnels[90]!.write(megabyte)
      }
      if (sent === total) tunnels[90]!.end()
    }
    free.onDrain = () => more()
    more()
    await servers[90]!.until(() => servers[90]!.ended)
    expect(servers[90]!.received).toBe(total << 20)
    expect(servers[0]!.received).toBe(0)
    await dispose()
  })
})
