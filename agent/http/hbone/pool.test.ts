// Pooled tunnels over real sockets: what shares a session and what must not, what happens when sessions end, are full, or
// run out of stream ids.
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { Recorder } from '../../io/contract.ts'
import type { Connection, Listener } from '../../io/connection.ts'
import { transport } from '../../io/index.ts'
import { MAX_STREAM_ID } from '../http2/constants.ts'
import { acceptTunnel, http2Server, tunnelServer, type Http2Server, type Http2Session } from '../http2/index.ts'
import { connectTunnel } from './connect.ts'
import { TunnelPool, type TunnelPoolOptions } from './pool.ts'

const stops: (() => unknown)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

interface Far {
  readonly server: Http2Server
  readonly sessions: Http2Session[]
  readonly authorities: string[]
  pool(options?: Partial<TunnelPoolOptions<{ key: string }>>): TunnelPool<{ key: string }>
}

/** A peer that accepts every tunnel and echoes. */
async function far(maxStreams = 200): Promise<Far> {
  const sessions: Http2Session[] = []
  const authorities: string[] = []
  const events = tunnelServer((exchange, head) => {
    authorities.push(head.authority)
    acceptTunnel(exchange, [], {
      onOpen: () => undefined,
      onRead: (tunnel, arena, start, end) => tunnel.write(arena, start, end),
      onDrain: () => undefined,
      onEnd: (tunnel) => tunnel.end(),
      onClose: () => undefined,
    })
  })
  const server = http2Server(events, { maxStreams }, { onSession: (session) => void sessions.push(session) })
  const listener: Listener = await transport.listen({ handler: server, host: '127.0.0.1', port: 0 })
  stops.push(async () => {
    server.close()
    await listener.stop()
  })
  const { port } = listener.address
  const pool: Far['pool'] = (options = {}) => {
    const made = new TunnelPool<{ key: string }>({
      clock: systemClock,
      open: (_target, handler) => transport.connect({ host: '127.0.0.1', port, handler }),
      ...options,
    })
    stops.push(() => made.close())
    return made
  }
  return { server, sessions, authorities, pool }
}

async function open(pool: TunnelPool<{ key: string }>, key: string, authority = '10.0.0.1:80') {
  const recorder = new Recorder()
  const options = { authority, headers: [], handler: recorder, timeoutMs: 5_000, clock: systemClock }
  const tunnel = connectTunnel(pool, { key }, options)
  await recorder.until(() => tunnel.writable || recorder.closes > 0)
  return { tunnel, recorder }
}

async function echoes(tunnel: Connection, recorder: Recorder): Promise<boolean> {
  const before = recorder.text.length
  tunnel.write(Buffer.from('ping'))
  await recorder.until(() => recorder.text.length >= before + 4)
  return recorder.text.endsWith('ping')
}

describe('the tunnel pool', () => {
  it('shares a session among the tunnels of one key and never across keys', async () => {
    const { sessions, pool: make } = await far()
    const pool = make()
    const all = await Promise.all(['a', 'a', 'b', 'a'].map((key) => open(pool, key)))
    expect(sessions.length).toBe(2)
    expect(pool.sessions).toBe(2)
    for (const { tunnel, recorder } of all) expect(await echoes(tunnel, recorder)).toBe(true)
  })

  it('opens another session when the peer takes no more streams on the first', async () => {
    const { sessions, pool: make } = await far(2)
    const pool = make({ maxStreams: 2 })
    for (let i = 0; i < 5; i++) {
      const { tunnel, recorder } = await open(pool, 'a')
      expect(await echoes(tunnel, recorder)).toBe(true)
    }
    expect(sessions.length).toBe(3)
  })

  it('goes over to a new session before the stream ids run out, and loses no tunnel', async () => {
    const { sessions, authorities, pool: make } = await far()
    const pool = make({ http2: { firstStream: MAX_STREAM_ID - 4 } })
    const open8 = []
    for (let i = 0; i < 8; i++) open8.push(await open(pool, 'a', `10.0.0.1:${i + 1}`))
    for (const { tunnel, recorder } of open8) expect(await echoes(tunnel, recorder)).toBe(true)
    expect(authorities.length).toBe(8)
    // Three ids are left in each: 2^31 − 5, − 3, − 1.
    expect(sessions.length).toBe(3)
  })

  it('lets running tunnels end when the peer drains, and opens new ones elsewhere', async () => {
    const { server, sessions, pool: make } = await far()
    const pool = make()
    const first = await open(pool, 'a')
    sessions[0]?.drain()
    // Tunnels opened before the word came may still be on the first.
    const early = []
    let second = await open(pool, 'a')
    while (sessions.length < 2) {
      early.push(second)
      second = await open(pool, 'a')
    }
    for (const { tunnel, recorder } of early) {
      expect(await echoes(tunnel, recorder)).toBe(true)
      tunnel.end()
    }
    expect(await echoes(first.tunnel, first.recorder)).toBe(true)
    expect(await echoes(second.tunnel, second.recorder)).toBe(true)
    first.tunnel.end()
    await first.recorder.until(() => first.recorder.closes > 0)
    expect(first.recorder.error).toBeUndefined()
    while (server.sessions.size > 1) await new Promise((resolve) => setImmediate(resolve))
  })

  it('fails those that wait when the peer cannot be reached, and cuts tunnels whose target is dropped', async () => {
    const { pool: make } = await far()
    const dead = make({ open: (_target, handler) => transport.connect({ host: '127.0.0.1', port: 1, handler }) })
    const refused = await open(dead, 'a')
    expect(refused.recorder.error).toBeDefined()
    expect(dead.sessions).toBe(0)
    const pool = make()
    const { recorder } = await open(pool, 'a')
    const other = await open(pool, 'b')
    pool.drop(({ key }) => key === 'a')
    await recorder.until(() => recorder.closes > 0)
    expect(recorder.error).toBeDefined()
    expect(await echoes(other.tunnel, other.recorder)).toBe(true)
  })
})
