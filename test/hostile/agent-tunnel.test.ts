// Hostile peers of an agent's HBONE port, over real TLS: each is refused or cut in bounded time with the reason counted, memory
// stays bounded, and afterwards no session, tunnel, connection or descriptor of it is left. Must not live here: the codec's own
// rules (agent/http), honest tunnels (agent/node/tunnel).
import { readdirSync } from 'node:fs'
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock, systemClock, type Clock } from '../../agent/base/clock.ts'
import type { KeyPair } from '../../agent/io/connection.ts'
import { testRoot } from '../../agent/io/testcerts.ts'
import { Cluster, root, type TestNode, type TestPod } from '../../agent/node/tunnel/world.ts'
import { until } from '../world/waypoint-process.ts'
import { cutter, frame, openSession, openTcp, openTls, PREFACE, recorded, untilGone, type Where } from './raw-peers.ts'

const CLIENT = 'spiffe://cluster.local/ns/default/sa/client'

interface Credentials {
  readonly key: string
  readonly cert: string
  readonly ca: string
}

let cluster: Cluster
let node: TestNode
let server: TestPod
let where: Where
let credentials: Credentials
let descriptors: number
let appConnections: number

const pairs = new Map<string, KeyPair>()
function as(uri: string, by = root): Credentials {
  const id = `${uri} ${by.certificate}`
  let pair = pairs.get(id)
  if (!pair) pairs.set(id, (pair = by.issue(uri)))
  return { key: String(pair.key), cert: String(pair.certificate), ca: root.certificate }
}

const fds = (): number => readdirSync('/proc/self/fd').length

async function build(clock: Clock = systemClock): Promise<void> {
  cluster = new Cluster(76, clock)
  node = cluster.node('node1')
  const client = await cluster.pod(node, 'client')
  server = await cluster.pod(node, 'server')
  appConnections = 0
  await cluster.app(server.address, 8080, (socket) => {
    appConnections++
    socket.on('close', () => appConnections--)
    socket.pipe(socket)
  })
  where = { host: server.address, port: 15008, from: client.address }
  credentials = as(CLIENT)
  // What is made once and kept: a certificate, the first handshake, the first connection to the app.
  const session = await openSession(where, credentials)
  expect(await answer(session, `${server.address}:8080`)).toBe('200')
  session.destroy()
  await until(() => left() === 0)
  await sleep(20)
  descriptors = fds()
}

beforeEach(() => build())
afterEach(() => cluster.close())

/** Sessions, tunnels and the app's connections that are there now. */
function left(): number {
  const status = node.tunnels.status().find((pod) => pod.name === 'default/server')
  return (status?.tunnelsIn ?? 0) + node.tunnels.connections + appConnections
}

/** Nothing is left of what a test did, and honest peers are served. */
async function clean(): Promise<void> {
  await until(() => left() === 0)
  await until(() => fds() <= descriptors)
  const session = await openSession(where, credentials)
  expect(await answer(session, `${server.address}:8080`)).toBe('200')
  session.destroy()
  await until(() => left() === 0)
}

/** Refusals of incoming connections, by reason. */
async function refused(reason: string): Promise<number> {
  const text = await node.metrics.text()
  const found = new RegExp(`ambit_connections_refused_total\\{direction="inbound",reason="${reason}"\\} (\\d+)`).exec(
    text,
  )
  return Number(found?.[1] ?? 0)
}

/** The status of a request, `CONNECT authority` unless `head` says otherwise; else how it ended. */
function answer(session: ClientHttp2Session, authority: string, head: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve) => {
    let stream: ClientHttp2Stream
    try {
      stream = session.request({ ':method': 'CONNECT', ':authority': authority, ...head }, { endStream: false })
    } catch (error) {
      return resolve(`not sent: ${(error as Error).message}`)
    }
    stream.on('error', () => {})
    stream.on('close', () => resolve(`closed ${stream.rstCode}`))
    stream.on('response', (headers) => {
      resolve(String(headers[':status']))
      stream.close(8)
    })
  })
}

describe('before there is TLS', () => {
  it('a handshake that never ends, or trickles, is cut after ten seconds', { timeout: 40_000 }, async () => {
    const started = Date.now()
    const silent = await openTcp(where)
    const slow = await openTcp(where)
    // The head of a ClientHello of 512 bytes, then a byte now and then.
    slow.write(Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]))
    const trickle = setInterval(() => slow.write(Buffer.from([1])), 300)
    await Promise.all([untilGone(silent), untilGone(slow)])
    clearInterval(trickle)
    expect(Date.now() - started).toBeGreaterThan(8_000)
    expect(Date.now() - started).toBeLessThan(15_000)
    await until(async () => (await refused('handshake_timeout')) === 2)
    await clean()
  })

  it.each([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    ['an HTTP/2 preface in plaintext', PREFACE],
    ['zeros', Buffer.alloc(4_096)],
    [
      'a record longer than any may be',
      Buffer.concat([Buffer.from([0x16, 3, 1, 0xff, 0xff]), Buffer.alloc(65_535, 1)]),
    ],
    ['a hello that ends early', Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])],
    ['an alert', Buffer.from([0x15, 3, 3, 0, 2, 2, 40])],
    [
      'the hello of SSL 2',
      Buffer.concat([Buffer.from([0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]), Buffer.alloc(37, 1)]),
    ],
  ])('%s is cut at once and counted', async (_name, bytes) => {
    const socket = await openTcp(where)
    const gone = untilGone(socket)
    const started = Date.now()
    socket.write(bytes)
    await gone
    expect(Date.now() - started).toBeLessThan(3_000)
    await until(async () => (await refused('handshake')) === 1)
    await clean()
  })

  it('TLS 1.2 and older are refused', async () => {
    const versions = ['TLSv1', 'TLSv1.1', 'TLSv1.2'] as const
    for (const maxVersion of versions) {
      const options = { minVersion: 'TLSv1' as const, maxVersion, ciphers: 'DEFAULT@SECLEVEL=0' }
      await expect(openTls(where, { ...credentials, ...options })).rejects.toThrow()
    }
    await until(async () => (await refused('handshake')) === versions.length)
    await clean()
  })

  it('no certificate, one of another root, one without or with a foreign identity: no byte gets through', async () => {
    const foreign = testRoot('another mesh')
    const cases = [
      ['handshake', { ca: root.certificate }],
      ['handshake', as(CLIENT, foreign)],
      ['peer_identity', as('https://example.com/client')],
      ['trust_domain_mismatch', as('spiffe://other.example/ns/default/sa/client')],
    ] as const
    for (const [reason, options] of cases) {
      const before = await refused(reason)
      // In TLS 1.3 a client is done before the server has judged it.
      const socket = await openTls(where, options).catch(() => undefined)
      if (socket) {
        const gone = untilGone(socket)
        socket.write(await recorded(`${server.address}:8080`, 'secret'))
        expect((await gone).length).toBe(0)
      }
      await until(async () => (await refused(reason)) === before + 1)
    }
    expect(node.tunnels.connections).toBe(0)
    expect(cluster.world.shown).toHaveLength(1)
    await clean()
  })
})

describe('a peer of the mesh that asks for nonsense', () => {
  it('gets 400 for every target that is not an address of the pod, and 503 for a port nobody serves', async () => {
    const session = await openSession(where, credentials)
    const { address } = server
    const targets = [
      ...['nonsense', 'localhost:8080', '127.0.0.1:8080', '[::1]:8080', '0.0.0.0:8080', '169.254.169.254:80'],
      ...[address, `${address}:`, `${address}:0`, `${address}:65536`, `${address}:-1`, `${address}:8080:8080`],
      ...[`${address}:8080/x`, `user@${address}:8080`, ` ${address}:8080`, `${address}:0x1f90`, `[${address}]:8080`],
      ...['x'.repeat(5_000), `${address}:${'8'.repeat(4_000)}`],
    ]
    const answers = []
    for (const target of targets) answers.push([target.slice(0, 40), await answer(session, target)])
    for (const [target, status] of answers)
      expect([target, status]).toEqual([target, expect.stringMatching(/^(400|closed 1)$/)])
    expect(await refused('bad_request')).toBe(targets.length)
    expect(await answer(session, `${address}:9`)).toBe('503')
    // Refusals above must not have cost the session.
    expect(await answer(session, `${address}:8080`)).toBe('200')
    session.destroy()
    await clean()
  })

  it('gets 400 for what is no CONNECT', async () => {
    const session = await openSession(where, credentials)
    for (const method of ['GET', 'POST', 'PRI', 'connect'])
      expect(await answer(session, server.address, { ':method': method, ':scheme': 'https', ':path': '/' })).toBe('400')
    expect(await refused('bad_request')).toBe(4)
    session.destroy()
    await clean()
  })
})

describe('a peer of the mesh that floods', () => {
  it('with header fields is refused, and the port serves on', async () => {
    const session = await openSession(where, credentials)
    const head = Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`x-${i}`, 'y'.repeat(120)]))
    expect(await answer(session, `${server.address}:8080`, head)).toBe('431')
    expect(await refused('bad_request')).toBe(1)
    session.destroy()
    await clean()
  })

  it('with CONTINUATION that never ends is cut after a bounded number of bytes', async () => {
    const socket = await openTls(where, credentials)
    const gone = untilGone(socket)
    let sent = 0
    socket.write(Buffer.concat([PREFACE, frame(1, 0, 1, Buffer.from([0x82]))]))
    // Each a literal field without indexing: x: 16 000 bytes.
    const field = Buffer.concat([Buffer.from([0, 1, 0x78, 0x7f, 0x81, 0x7c]), Buffer.alloc(16_000, 'a')])
    while (!socket.destroyed && sent < 64 << 20) {
      await new Promise<void>((resolve) => socket.write(frame(9, 0, 1, field), () => resolve()))
      sent += field.length
    }
    await gone
    // What fits into two socket buffers before the cut is seen.
    expect(sent).toBeLessThan(16 << 20)
    await until(async () => (await refused('protocol')) === 1)
    await clean()
  })

  it('with tunnels opened and reset at once is stopped, and opens no more than it may to the app', async () => {
    const session = await openSession(where, credentials)
    let told = -1
    session.on('goaway', (code: number) => (told = code))
    let sent = 0
    for (; sent < 20_000 && !session.closed && !session.destroyed; sent++) {
      const stream = session.request(
        { ':method': 'CONNECT', ':authority': `${server.address}:8080` },
        { endStream: false },
      )
      stream.on('error', () => {})
      stream.close(8)
      if (sent % 50 === 0) await sleep(1)
    }
    await until(() => session.destroyed || session.closed)
    expect(sent).toBeLessThan(20_000)
    expect(told).toBe(11)
    await until(async () => (await refused('protocol')) === 1)
    await clean()
  })
})

describe('a peer of the mesh that is slow', () => {
  it('with its preface, or with its head, is cut though each byte comes in time', async () => {
    await cluster.close()
    const manual = new ManualClock(1_700_000_000_000)
    await build(manual)
    const mute = await openTls(where, credentials)
    const preface = await openTls(where, credentials)
    const head = await openTls(where, credentials)
    const socks = [mute, preface, head]
    const gone = socks.map(untilGone)
    head.write(Buffer.concat([PREFACE, frame(1, 0, 1, Buffer.from([0x82]))]))
    await until(() => left() === 3)
    let passed = 0
    for (let at = 0; passed < 40_000 && left() > 0; at++) {
      // No answer to a PING, but always a byte.
      if (!preface.destroyed) preface.write(PREFACE.subarray(at, at + 1))
      if (!head.destroyed) head.write(frame(9, 0, 1, Buffer.from([0x84])))
      await sleep(3)
      manual.advance(2_000)
      passed += 2_000
      await sleep(3)
    }
    await until(() => left() === 0)
    await Promise.all(gone)
    expect(passed).toBeLessThanOrEqual(36_000)
    // The mute one may as well have lost its network; the other two began a head and did not end it.
    expect(await refused('protocol')).toBeGreaterThanOrEqual(2)
    await clean()
  })

  it('or gone without a word is noticed by PING, and its tunnels are cut', async () => {
    await cluster.close()
    const manual = new ManualClock(1_700_000_000_000)
    await build(manual)
    const socket = await openTls(where, credentials)
    const gone = untilGone(socket)
    // Its kernel acknowledges; it never answers a PING.
    socket.write(await recorded(`${server.address}:8080`, 'hello'))
    await until(() => appConnections === 1)
    for (let passed = 0; passed < 50_000 && left() > 0; passed += 2_000) {
      manual.advance(2_000)
      await sleep(5)
    }
    await gone
    await clean()
  })
})

describe('an exchange that ends early', () => {
  it('at every byte inside TLS, by FIN or reset', async () => {
    const bytes = await recorded(`${server.address}:8080`, 'hello')
    for (let cut = 0; cut <= bytes.length; cut++) {
      const socket = await openTls(where, credentials)
      const gone = untilGone(socket)
      socket.write(bytes.subarray(0, cut), () => {
        if (cut % 2) socket.end()
        else socket.destroy()
      })
      await gone
    }
    expect(await refused('bad_request')).toBe(0)
    expect(await refused('protocol')).toBe(0)
    await clean()
  })

  it('at bytes of the TLS records themselves', async () => {
    // ClientHello, the client's certificate flight, the records with what is said then.
    for (let cut = 1; cut < 2_600; cut += cut < 12 ? 1 : 61) {
      const relay = await cutter(where, cut, cut % 2 ? 'fin' : 'reset')
      const socket: Socket | undefined = await openTls(
        { host: '127.0.0.1', port: relay.port, from: '127.0.0.1' },
        credentials,
      ).catch(() => undefined)
      if (socket) {
        const gone = untilGone(socket)
        socket.write(await recorded(`${server.address}:8080`, 'x'.repeat(1_000)))
        await gone
      }
      relay.close()
    }
    expect(await refused('handshake')).toBeGreaterThan(10)
    expect(await refused('handshake_timeout')).toBe(0)
    await clean()
  })
})

describe('many', () => {
  it('thousands of tunnels opened and dropped in every way leave nothing, in memory neither', async () => {
    const drop = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i += 250) {
        const session = await openSession(where, credentials)
        const opened = await Promise.all(
          Array.from({ length: 50 }, async (_, j) => {
            for (let k = 0; k < 5; k++) {
              const stream = session.request(
                { ':method': 'CONNECT', ':authority': `${server.address}:8080` },
                { endStream: false },
              )
              stream.on('error', () => {})
              const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()))
              const status = await new Promise((resolve) => {
                stream.once('response', (headers) => resolve(headers[':status']))
                stream.once('close', () => resolve('closed'))
              })
              if (status !== 200) throw new Error(`a tunnel was answered ${String(status)}`)
              if (k === 4) return stream
              stream.write('hello')
              if (j % 2) {
                await new Promise((resolve) => stream.once('data', resolve))
                stream.end()
                stream.resume()
              } else stream.close(8)
              await closed
            }
            return undefined
          }),
        )
        expect(opened.filter(Boolean)).toHaveLength(50)
        // The last of each goes with the session.
        session.destroy()
      }
      await until(() => left() === 0)
    }
    await drop(1_500)
    globalThis.gc?.()
    const before = process.memoryUsage().rss
    await drop(4_500)
    globalThis.gc?.()
    // 4 500 tunnels of 16 KB each would be 70 MB; the attackers live in this process too.
    expect(process.memoryUsage().rss - before).toBeLessThan(48 << 20)
    await clean()
  })

  it('a thousand connections that say nothing are held cheaply and go', async () => {
    const before = process.memoryUsage().rss
    const sockets: Socket[] = []
    for (let i = 0; i < 1_000; i += 100)
      sockets.push(...(await Promise.all(Array.from({ length: 100 }, () => openTcp(where)))))
    // Both ends are here.
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20)
    const session = await openSession(where, credentials)
    expect(await answer(session, `${server.address}:8080`)).toBe('200')
    session.destroy()
    for (const socket of sockets) socket.destroy()
    await until(async () => (await refused('handshake')) === 1_000)
    await clean()
  })
})
