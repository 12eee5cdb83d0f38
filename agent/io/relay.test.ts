// A relay over real sockets: everything and every kind of end goes through, in both directions, and what waits is bounded.
import { afterEach, describe, expect, it } from 'vitest'
import { AmbitError } from '../base/errors.ts'
import { Recorder } from './contract.ts'
import type { Connection, ConnectionHandler, Listener } from './connection.ts'
import { transport } from './index.ts'
import { HIGH_WATER, Relay } from './relay.ts'

const listeners: Listener[] = []
const connections: Connection[] = []

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.abort('cancel')
  for (const listener of listeners.splice(0)) await listener.stop()
})

async function listen(handler: ConnectionHandler): Promise<number> {
  const listener = await transport.listen({ host: '127.0.0.1', port: 0, handler })
  listeners.push(listener)
  return listener.address.port
}

function connect(port: number, handler: ConnectionHandler): Connection {
  const connection = transport.connect({ host: '127.0.0.1', port, handler })
  connections.push(connection)
  return connection
}

interface Path {
  readonly client: Recorder
  readonly server: Recorder
  readonly relay: Relay
  /** The relay's own connection to the server. */
  readonly second: Connection
  readonly done: Promise<Error | undefined>
}

/** client ↔ relay ↔ server. `port` of the server; 1, where nobody listens, for one that cannot be reached. */
async function path(prepare: (client: Recorder, server: Recorder) => void = () => undefined, port = -1): Promise<Path> {
  const client = new Recorder()
  const server = new Recorder()
  prepare(client, server)
  const to = port > 0 ? port : await listen(server)
  const told = Promise.withResolvers<Error | undefined>()
  const relays: [Relay, Connection][] = []
  const middle = await listen({
    onOpen(first) {
      const relay = new Relay({ onDone: (_relay, error) => told.resolve(error) })
      first.slot = relay
      relay.attach(first)
      const second = connect(to, relay.second)
      relay.expect(second)
      relays.push([relay, second])
    },
    onRead: (first, arena, start, end) => (first.slot as Relay).first.onRead(first, arena, start, end),
    onDrain: (first) => (first.slot as Relay).first.onDrain(first),
    onEnd: (first) => (first.slot as Relay).first.onEnd(first),
    onClose: (first, error) => (first.slot as Relay).first.onClose(first, error),
  })
  connect(middle, client)
  await client.until(() => client.connection !== undefined || client.closes > 0)
  if (port < 0) await server.until(() => server.connection !== undefined)
  const [relay, second] = relays[0] as [Relay, Connection]
  return { client, server, relay, second, done: told.promise }
}

describe('a relay', () => {
  it('carries bytes both ways, also those that came before the far side was open, and counts them', async () => {
    const { client, server, relay, done } = await path((client) => {
      client.onOpening = (connection) => {
        connection.write(Buffer.from('early '))
        connection.end()
      }
    })
    await server.until(() => server.ended)
    expect(server.text).toBe('early ')
    // One direction has ended; the other goes on.
    server.connection?.write(Buffer.from('late'))
    server.connection?.end()
    await client.until(() => client.closes > 0)
    expect(client.text).toBe('late')
    expect(client.error).toBeUndefined()
    expect(await done).toBeUndefined()
    expect([relay.firstBytes, relay.secondBytes]).toEqual([6, 4])
  })

  it.each([
    ['the client', 'client', 'server'],
    ['the server', 'server', 'client'],
  ] as const)('passes a reset by %s on as a reset, never as an end', async (_who, from, to) => {
    const both = await path()
    both[from].connection?.write(Buffer.from('half'))
    await both[to].until(() => both[to].received === 4)
    both[from].connection?.abort('cancel')
    await both[to].until(() => both[to].closes > 0)
    expect(both[to].ended).toBe(false)
    expect(both[to].error).toBeInstanceOf(Error)
    expect(await both.done).toBeInstanceOf(Error)
  })

  it('resets the client of a server that cannot be reached', async () => {
    const { client, done } = await path(undefined, 1)
    await client.until(() => client.closes > 0)
    expect(client.ended).toBe(false)
    expect(await done).toMatchObject({ code: 'IO_CONNECT_REFUSED' })
  })

  it('cuts both sides for its owner, who is told the reason once', async () => {
    const { client, server, relay, done } = await path()
    relay.abort('denied', new AmbitError('TUNNEL_REVOKED', 'the policy changed'))
    await client.until(() => client.closes > 0)
    await server.until(() => server.closes > 0)
    expect([client.ended, server.ended]).toEqual([false, false])
    expect(await done).toMatchObject({ code: 'TUNNEL_REVOKED' })
  })

  it('stops the writer while the reader stands still, holds a bounded amount, and delivers all of it in the end', async () => {
    const total = 64 << 20
    const { client, server, relay, second } = await path((_client, server) => {
      server.keep = false
      server.onOpening = (connection) => connection.pause()
    })
    const block = Buffer.alloc(1 << 20, 7)
    let written = 0
    const write = (): void => {
      while (written < total && (client.connection?.pending ?? 0) < 1 << 20) {
        written += block.length
        client.connection?.write(block)
      }
      if (written === total) client.connection?.end()
    }
    client.onDrain = write
    write()
    let before = -1
    while (relay.firstBytes !== before) {
      before = relay.firstBytes
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    // What the kernel's buffers on the far side took, and at most one round of reads over the high water here.
    expect(relay.firstBytes).toBeLessThan(total / 2)
    expect(second.pending).toBeGreaterThan(0)
    expect(second.pending).toBeLessThan(HIGH_WATER + (1 << 20))
    server.connection?.resume()
    await server.until(() => server.ended)
    expect(server.received).toBe(total)
  })
})
