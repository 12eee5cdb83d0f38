import { execFileSync, spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect as netConnect, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as tlsConnect, createServer as tlsServer } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { nativeIo } from '../../../native/io/index.ts'
import { ManualClock } from '../../base/clock.ts'
import { AmbitError } from '../../base/errors.ts'
import type { Connection, ConnectionHandler, KeyPair, Listener, ListenOptions, TlsPeer, TlsSettings } from '../connection.ts'
import { describeTransport, Recorder, type MakePair } from '../contract.ts'
import { createNativeTransport, transport } from '../index.ts'
import { testRoot, type TestRoot } from '../testcerts.ts'

const CLIENT = 'spiffe://cluster.local/ns/shop/sa/frontend'
const SERVER = 'spiffe://cluster.local/ns/shop/sa/my-service'

let root: TestRoot
let clientPair: KeyPair
let serverPair: KeyPair
const folder = mkdtempSync(join(tmpdir(), 'ambit-io-'))

beforeAll(() => {
  root = testRoot('mesh')
  clientPair = root.issue(CLIENT)
  serverPair = root.issue(SERVER)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function tlsOf(pair: () => KeyPair, more: Partial<TlsSettings> = {}): TlsSettings {
  return { trust: () => root.certificate, certificate: () => pair(), verify: () => undefined, alpn: ['h2'], ...more }
}

function pairOver(listen: () => Partial<ListenOptions>, secure: boolean): MakePair {
  return async (client, server) => {
    const opened = new Promise<void>((resolve) => {
      const recorder = server as Recorder
      void recorder.until(() => recorder.connection !== undefined).then(resolve)
    })
    const options = listen()
    const listener = await transport.listen({
      handler: server,
      ...options,
      ...(secure ? { tls: tlsOf(() => serverPair) } : {}),
    })
    const connection = transport.connect({
      handler: client,
      ...(options.path === undefined
        ? { host: listener.address.address, port: listener.address.port }
        : { path: options.path }),
      ...(secure ? { tls: tlsOf(() => clientPair) } : {}),
    })
    const recorder = client as Recorder
    await Promise.all([opened, recorder.until(() => recorder.info !== undefined)])
    return { client: connection, server: (server as Recorder).connection as never, dispose: () => listener.stop() }
  }
}

let socketNumber = 0
describeTransport(
  'native TCP, IPv4',
  pairOver(() => ({ host: '127.0.0.1', port: 0 }), false),
)
describeTransport(
  'native TCP, IPv6',
  pairOver(() => ({ host: '::1', port: 0 }), false),
)
describeTransport(
  'native TLS',
  pairOver(() => ({ host: '127.0.0.1', port: 0 }), true),
)
describeTransport(
  'native unix sockets',
  pairOver(() => ({ path: join(folder, `s${++socketNumber}`) }), false),
  { resets: false, buffered: 64 << 20 },
)

describe('listening and connecting over native sockets', () => {
  const listeners: Listener[] = []
  afterEach(async () => {
    for (const listener of listeners.splice(0)) await listener.stop()
  })

  async function listen(options: Partial<ListenOptions> = {}): Promise<{ server: Recorder; listener: Listener }> {
    const server = new Recorder()
    const listener = await transport.listen({ handler: server, host: '127.0.0.1', port: 0, ...options })
    listeners.push(listener)
    return { server, listener }
  }

  function connect(listener: Listener, tls?: TlsSettings, more: object = {}): Recorder {
    const client = new Recorder()
    transport.connect({
      handler: client,
      host: listener.address.address,
      port: listener.address.port,
      ...(tls ? { tls } : {}),
      ...more,
    })
    return client
  }

  it('tells both ends the same addresses, and a descriptor', async () => {
    const { server, listener } = await listen()
    const client = connect(listener)
    await Promise.all([server.until(() => !!server.info), client.until(() => !!client.info)])
    expect(client.info?.peer).toEqual(listener.address)
    expect(server.info?.peer).toEqual(client.info?.local)
    expect(client.connection?.fd).toBeGreaterThan(2)
    expect(client.info?.secure).toBe(false)
  })

  it('writes v4-mapped addresses as IPv4', async () => {
    const { server, listener } = await listen({ host: '::' })
    const client = new Recorder()
    transport.connect({ handler: client, host: '127.0.0.1', port: listener.address.port })
    await server.until(() => !!server.info)
    expect(server.info?.peer.address).toBe('127.0.0.1')
    expect(server.info?.local.address).toBe('127.0.0.1')
  })

  it('binds the source address it was given', async () => {
    const { server, listener } = await listen()
    connect(listener, undefined, { source: '127.0.0.9' })
    await server.until(() => !!server.info)
    expect(server.info?.peer.address).toBe('127.0.0.9')
  })

  it('names an address in use', async () => {
    const { listener } = await listen()
    const again = transport.listen({ handler: new Recorder(), host: '127.0.0.1', port: listener.address.port })
    await expect(again).rejects.toMatchObject({ code: 'IO_ADDRESS_IN_USE', hint: expect.any(String) })
  })

  it('names an address it cannot bind', async () => {
    const wrong = transport.listen({ handler: new Recorder(), host: '192.0.2.1', port: 0 })
    await expect(wrong).rejects.toMatchObject({ code: 'IO_LISTEN' })
  })

  it('reports a refused connect through onClose only', async () => {
    const { listener } = await listen()
    await listener.stop()
    const client = connect(listener)
    await client.until(() => client.closes > 0)
    expect(client.events).toEqual(['close'])
    expect(client.error).toMatchObject({ code: 'IO_CONNECT_REFUSED' })
  })

  it('gives up a connect at its deadline', async () => {
    // A listener whose backlog of one is full leaves further SYNs unanswered.
    const full = spawn('python3', [
      '-c',
      'import socket,sys,time\ns=socket.socket();s.bind(("127.0.0.1",0));s.listen(0)\nprint(s.getsockname()[1],flush=True)\ntime.sleep(30)',
    ])
    try {
      const port = Number(
        await new Promise<string>((resolve) => full.stdout.once('data', (d: Buffer) => resolve(d.toString()))),
      )
      const fillers = [1, 2, 3].map(() => netConnect({ host: '127.0.0.1', port }).on('error', () => undefined))
      await new Promise((resolve) => fillers[0]?.once('connect', resolve))
      const client = new Recorder()
      transport.connect({ handler: client, host: '127.0.0.1', port, timeoutMs: 300 })
      await client.until(() => client.closes > 0)
      expect(client.events).toEqual(['close'])
      expect(client.error).toMatchObject({ code: 'IO_CONNECT_TIMEOUT' })
      for (const filler of fillers) filler.destroy()
    } finally {
      full.kill('SIGKILL')
    }
  })

  it('closes connections beyond its bound and counts them', async () => {
    const { server, listener } = await listen({ maxConnections: 1 })
    const first = connect(listener)
    await Promise.all([server.until(() => !!server.info), first.until(() => !!first.info)])
    const second = connect(listener)
    await second.until(() => second.closes > 0)
    expect(listener.refused).toBe(1)
    expect(listener.connections).toBe(1)
    first.connection?.abort('cancel')
    await server.until(() => server.closes > 0)
    expect(listener.connections).toBe(0)
  })

  it('stops listening and leaves accepted connections alone', async () => {
    const { server, listener } = await listen()
    const client = connect(listener)
    await Promise.all([server.until(() => !!server.info), client.until(() => !!client.info)])
    await listener.stop()
    const late = connect(listener)
    await late.until(() => late.closes > 0)
    client.connection?.write(Buffer.from('still here'))
    await server.until(() => server.text === 'still here')
    client.connection?.abort('cancel')
  })

  it('takes over the socket file of a dead predecessor, and only that', async () => {
    const path = join(folder, 'stale')
    execFileSync('python3', ['-c', `import socket;s=socket.socket(socket.AF_UNIX);s.bind(${JSON.stringify(path)})`])
    await listen({ path })
    await expect(transport.listen({ handler: new Recorder(), path })).rejects.toMatchObject({
      code: 'IO_ADDRESS_IN_USE',
    })
  })

  it('shows an abort of a TCP connection as a reset', async () => {
    const { server, listener } = await listen()
    const socket = netConnect({ host: '127.0.0.1', port: listener.address.port })
    const seen = new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve))
    await server.until(() => !!server.info)
    server.connection?.abort('denied')
    expect((await seen).code).toBe('ECONNRESET')
    await server.until(() => server.closes > 0)
    expect(server.error).toMatchObject({ code: 'IO_ABORTED' })
  })

  it('reports a reset by the peer as an error without an end', async () => {
    const { server, listener } = await listen()
    const socket = netConnect({ host: '127.0.0.1', port: listener.address.port })
    await server.until(() => !!server.info)
    socket.resetAndDestroy()
    await server.until(() => server.closes > 0)
    expect(server.error).toMatchObject({ code: 'IO_RESET' })
    expect(server.ended).toBe(false)
  })

  it('gives a plain descriptor up, and says nothing more of it', async () => {
    const { server, listener } = await listen()
    const client = connect(listener)
    await Promise.all([client.until(() => !!client.info), server.until(() => !!server.info)])
    client.connection?.pause()
    server.connection?.write(Buffer.from('for the next owner'))
    const fd = client.connection?.detach() ?? -1
    expect(fd).toBeGreaterThan(2)
    const raw = new Socket({ fd })
    const text = await new Promise<string>((resolve) => raw.once('data', (chunk: Buffer) => resolve(chunk.toString())))
    expect(text).toBe('for the next owner')
    expect(client.events).toEqual(['open'])
    raw.resetAndDestroy()
    await server.until(() => server.closes > 0)
    expect(client.closes).toBe(0)
  })

  it('does not give up a descriptor under TLS, or with an end on its way', async () => {
    const secure = await listen({ tls: tlsOf(() => serverPair) })
    const client = connect(
      secure.listener,
      tlsOf(() => clientPair),
    )
    await client.until(() => !!client.info)
    expect(() => client.connection?.detach()).toThrow(AmbitError)
    client.connection?.abort('cancel')
    const plain = await listen()
    const ending = connect(plain.listener)
    await ending.until(() => !!ending.info)
    ending.connection?.end()
    expect(() => ending.connection?.detach()).toThrow(AmbitError)
    ending.connection?.abort('cancel')
  })

  it('accepts nobody while paused, and those that waited afterwards', async () => {
    const { server, listener } = await listen()
    listener.pause()
    const client = connect(listener)
    await client.until(() => !!client.info)
    client.connection?.write(Buffer.from('patience'))
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(server.events).toEqual([])
    listener.resume()
    await server.until(() => server.received > 0)
    expect(server.text).toBe('patience')
  })

  it('cuts a connection on which nothing moves, and no other', async () => {
    const clock = new ManualClock()
    const timed = createNativeTransport({ clock })
    const server = new Recorder()
    const listener = await timed.listen({ handler: server, host: '127.0.0.1', port: 0 })
    listeners.push(listener)
    const dial = () => {
      const client = new Recorder()
      const { address: host, port } = listener.address
      timed.connect({ handler: client, host, port, idleTimeoutMs: 5_000 })
      return client
    }
    const [busy, idle] = [dial(), dial()]
    await Promise.all([busy.until(() => !!busy.info), idle.until(() => !!idle.info)])
    for (let second = 0; second < 8; second++) {
      // A stamp is a tenth of a second: bytes must not fall into the one of the last sweep.
      await new Promise((resolve) => setTimeout(resolve, 110))
      busy.connection?.write(Buffer.from('x'))
      await new Promise((resolve) => setImmediate(resolve))
      clock.advance(1_000)
    }
    await idle.until(() => idle.closes > 0)
    expect(idle.error).toMatchObject({ code: 'IO_IDLE' })
    expect(busy.closes).toBe(0)
    busy.connection?.abort('cancel')
  })

  it('lets no bulk transfer starve a small exchange beside it', async () => {
    let bulk = 0
    const server = new Recorder()
    server.keep = false
    const quiet: ConnectionHandler = {
      onOpen: () => undefined,
      onRead: (connection, arena, start, end) => {
        // One byte is a ping, answered; the rest is bulk.
        if (end - start === 1) connection.write(arena, start, end)
        else bulk += end - start
      },
      onDrain: () => undefined,
      onEnd: (connection) => connection.end(),
      onClose: () => undefined,
    }
    const { listener } = await listen({ handler: quiet })
    const block = Buffer.alloc(1 << 17, 'b')
    let running = true
    const pump = (connection: Connection): void => {
      while (running && connection.pending < 1 << 20) connection.write(block)
    }
    const sender: ConnectionHandler = {
      onOpen: pump,
      onRead: () => undefined,
      onDrain: pump,
      onEnd: () => undefined,
      onClose: () => undefined,
    }
    const { address: host, port } = listener.address
    const senders = Array.from({ length: 8 }, () => transport.connect({ handler: sender, host, port }))
    const client = connect(listener)
    await client.until(() => !!client.info)
    let most = 0
    for (let i = 1; i <= 200; i++) {
      const before = bulk
      client.connection?.write(Buffer.from('p'))
      await client.until(() => client.received === i)
      most = Math.max(most, bulk - before)
    }
    running = false
    expect(bulk).toBeGreaterThan(16 << 20)
    // A round of reads takes half a megabyte at most; a ping and its answer need a few of them.
    expect(most).toBeLessThan(8 << 20)
    for (const one of [...senders, client.connection]) one?.abort('cancel')
  })

  it('refuses a name where an address is needed, through onClose', async () => {
    const client = new Recorder()
    transport.connect({ handler: client, host: 'my-service.shop', port: 80 })
    await client.until(() => client.closes > 0)
    expect(client.events).toEqual(['close'])
    expect(client.error).toMatchObject({ code: 'IO_ADDRESS' })
  })

  describe.each(['127.0.0.1', '::1'])('descriptors made elsewhere (%s)', (host) => {
    const run = (script: string, family: string, prepare: string) => {
      const file = join(folder, `fd-${Math.random().toString(36).slice(2)}.mjs`)
      writeFileSync(file, script)
      return execFileSync(
        'python3',
        [
          '-c',
          `import socket,os\ns=socket.socket(socket.${family},socket.SOCK_STREAM)\n${prepare}\nos.dup2(s.fileno(),3)\nos.set_inheritable(3,True)\nos.execv(${JSON.stringify(process.execPath)},["node",${JSON.stringify(file)}])`,
        ],
        { encoding: 'utf8', timeout: 15_000 },
      )
    }
    const index = new URL('../index.ts', import.meta.url).href
    const family = host.includes(':') ? 'AF_INET6' : 'AF_INET'

    it('connects by a socket that is made but not connected', () => {
      const script = `
        import { transport } from ${JSON.stringify(index)}
        import { createServer } from 'node:net'
        const server = createServer((s) => s.end('from the server')).listen(0, ${JSON.stringify(host)}, () => {
          let text = ''
          transport.connect({ fd: 3, host: ${JSON.stringify(host)}, port: server.address().port, handler: {
            onOpen(c, info) { console.log(c.fd, info.peer.address); c.end() },
            onRead(c, b, s, e) { text += Buffer.from(b.subarray(s, e)) },
            onDrain() {}, onEnd() {},
            onClose(c, error) { console.log(text, error?.code ?? 'clean'); server.close() },
          } })
        })`
      expect(run(script, family, '')).toBe(`3 ${host}\nfrom the server clean\n`)
    })

    it('listens by a descriptor', () => {
      const script = `
        import { transport } from ${JSON.stringify(index)}
        import { connect } from 'node:net'
        const listener = await transport.listen({ fd: 3, backlog: 16, handler: {
          onOpen(c) { c.write(Buffer.from('hello')); c.end() },
          onRead() {}, onDrain() {}, onEnd() {}, async onClose() { await listener.stop(); console.log('stopped') },
        } })
        console.log(listener.address.address)
        connect(listener.address.port, ${JSON.stringify(host)}).on('data', (d) => console.log(String(d))).on('end', () => undefined)`
      expect(run(script, family, `s.bind((${JSON.stringify(host)},0));s.listen(1)`)).toBe(`${host}\nhello\nstopped\n`)
    })
  })

  describe('TLS', () => {
    it('is 1.3, mutual, with ALPN, and shows each side the other', async () => {
      const judged: TlsPeer[] = []
      const { server, listener } = await listen({
        tls: tlsOf(() => serverPair, { verify: (peer) => void judged.push(peer) }),
      })
      const client = connect(
        listener,
        tlsOf(() => clientPair, { verify: (peer) => void judged.push(peer) }),
      )
      await Promise.all([server.until(() => !!server.info), client.until(() => !!client.info)])
      expect(server.info).toMatchObject({ alpn: 'h2', serverName: '', secure: true })
      expect(client.info).toMatchObject({ alpn: 'h2', secure: true })
      const names = [server, client].map((side) => new X509Certificate(side.info?.certificates[0] ?? '').subjectAltName)
      expect(names).toEqual([`URI:${CLIENT}`, `URI:${SERVER}`])
      expect(judged).toHaveLength(2)
      client.connection?.abort('cancel')
    })

    it('delivers and accepts nothing before a late verdict', async () => {
      let allow = () => undefined as void
      const verdict = new Promise<void>((resolve) => (allow = resolve))
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair, { verify: () => verdict }) })
      const client = connect(
        listener,
        tlsOf(() => clientPair),
      )
      await client.until(() => !!client.info)
      client.connection?.write(Buffer.from('too early?'))
      await new Promise((resolve) => setTimeout(resolve, 50))
      expect(server.events).toEqual([])
      allow()
      await server.until(() => server.received > 0)
      expect(server.events.slice(0, 2)).toEqual(['open', 'read'])
      client.connection?.abort('cancel')
    })

    it('refuses a peer that verify refuses, and gives the reason to the owner', async () => {
      const refusal = new AmbitError('PEER_WRONG', 'not who I meant')
      const { server, listener } = await listen({
        tls: tlsOf(() => serverPair, {
          verify: () => {
            throw refusal
          },
        }),
      })
      const client = connect(
        listener,
        tlsOf(() => clientPair),
      )
      await Promise.all([server.until(() => server.closes > 0), client.until(() => client.closes > 0)])
      expect(server.events).toEqual(['close'])
      expect(server.error).toBe(refusal)
      expect(client.ended).toBe(false)
    })

    it('refuses a client without a certificate, and one of another root', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair) })
      const bare = tlsConnect({
        host: '127.0.0.1',
        port: listener.address.port,
        rejectUnauthorized: false,
        ALPNProtocols: ['h2'],
      })
      await new Promise((resolve) => bare.once('error', resolve))
      await server.until(() => server.closes === 1)
      expect(server.error).toMatchObject({ code: 'IO_TLS_HANDSHAKE' })
      const other = testRoot('other').issue(CLIENT)
      const client = connect(
        listener,
        tlsOf(() => other),
      )
      await server.until(() => server.closes === 2)
      expect(server.error).toMatchObject({ code: 'IO_TLS_HANDSHAKE' })
      await client.until(() => client.closes > 0)
      expect(server.events).toEqual(['close'])
    })

    it('refuses a server of another root', async () => {
      const other = testRoot('other').issue(SERVER)
      const { listener } = await listen({ tls: tlsOf(() => other) })
      const client = connect(
        listener,
        tlsOf(() => clientPair),
      )
      await client.until(() => client.closes > 0)
      expect(client.events).toEqual(['close'])
      expect(client.error).toMatchObject({ code: 'IO_TLS_HANDSHAKE' })
    })

    it('refuses TLS 1.2', async () => {
      const { listener } = await listen({ tls: tlsOf(() => serverPair) })
      const old = tlsConnect({
        host: '127.0.0.1',
        port: listener.address.port,
        maxVersion: 'TLSv1.2',
        rejectUnauthorized: false,
      })
      const error = await new Promise<NodeJS.ErrnoException>((resolve) => old.once('error', resolve))
      expect(error.code).toMatch(/PROTOCOL_VERSION|ECONNRESET/)
    })

    it('asks for the certificate by the name the client sent, and answers later', async () => {
      const asked: string[] = []
      const { server, listener } = await listen({
        tls: tlsOf(() => serverPair, {
          certificate: async (name) => {
            asked.push(name)
            await new Promise((resolve) => setTimeout(resolve, 20))
            return serverPair
          },
        }),
      })
      const client = connect(
        listener,
        tlsOf(() => clientPair, { serverName: 'control.ambit-system.svc' }),
      )
      await Promise.all([server.until(() => !!server.info), client.until(() => !!client.info)])
      expect(asked.at(-1)).toBe('control.ambit-system.svc')
      expect(server.info?.serverName).toBe('control.ambit-system.svc')
      client.connection?.abort('cancel')
    })

    it('fails the handshake with the error of a certificate it does not get', async () => {
      const missing = new AmbitError('PKI_NO_CERTIFICATE', 'none yet')
      const { server, listener } = await listen({
        tls: tlsOf(() => serverPair, { certificate: () => Promise.reject(missing) }),
      })
      const client = connect(
        listener,
        tlsOf(() => clientPair),
      )
      await Promise.all([server.until(() => server.closes > 0), client.until(() => client.closes > 0)])
      expect(server.error).toBe(missing)
    })

    it('gives up a handshake at its deadline', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair), handshakeTimeoutMs: 200 })
      const silent = netConnect({ host: '127.0.0.1', port: listener.address.port })
      silent.on('error', () => undefined)
      await server.until(() => server.closes > 0)
      expect(server.error).toMatchObject({ code: 'IO_HANDSHAKE_TIMEOUT' })
    })

    it('survives garbage instead of a handshake', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair) })
      const garbage = netConnect({ host: '127.0.0.1', port: listener.address.port })
      garbage.on('error', () => undefined)
      garbage.end('GET / HTTP/1.1\r\n\r\n')
      await server.until(() => server.closes > 0)
      expect(server.error).toMatchObject({ code: 'IO_TLS_HANDSHAKE' })
      const client = connect(
        listener,
        tlsOf(() => clientPair),
      )
      await client.until(() => !!client.info)
      client.connection?.abort('cancel')
    })

    it('takes a FIN without close_notify for a truncation', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair) })
      const raw = netConnect({ host: '127.0.0.1', port: listener.address.port, allowHalfOpen: true })
      const peer = tlsConnect({
        socket: raw,
        key: clientPair.key,
        cert: clientPair.certificate,
        ca: root.certificate,
        ALPNProtocols: ['h2'],
        checkServerIdentity: () => undefined,
      })
      peer.on('error', () => undefined)
      await new Promise((resolve) => peer.once('secureConnect', resolve))
      peer.write('half of it')
      await server.until(() => server.received > 0)
      // A FIN from below TLS, as the kernel sends for a process that died.
      const handle = (raw as unknown as { _handle: { fd: number } })._handle
      execFileSync('python3', [
        '-c',
        `import os,socket\nfd=os.pidfd_open(${process.pid})\nimport ctypes\nn=ctypes.CDLL(None).syscall(438,fd,${handle.fd},0)\nsocket.socket(fileno=n).shutdown(socket.SHUT_WR)`,
      ])
      await server.until(() => server.closes > 0)
      expect(server.ended).toBe(false)
      expect(server.error).toMatchObject({ code: 'IO_TRUNCATED' })
    })

    it('takes close_notify for an end, from a peer that is not ours', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair) })
      const peer = tlsConnect({
        host: '127.0.0.1',
        port: listener.address.port,
        key: clientPair.key,
        cert: clientPair.certificate,
        ca: root.certificate,
        ALPNProtocols: ['h2'],
        checkServerIdentity: () => undefined,
      })
      peer.on('error', () => undefined)
      await new Promise((resolve) => peer.once('secureConnect', resolve))
      peer.end('all of it')
      await server.until(() => server.ended)
      expect(server.text).toBe('all of it')
    })

    describe('resumption', () => {
      /** Dials, waits for the server's ticket to arrive with its first bytes, and closes. */
      async function dial(listener: Listener, server: Recorder, settings: TlsSettings): Promise<void> {
        const opened = server.closes
        const client = connect(listener, settings)
        await client.until(() => client.received > 0 || client.closes > 0)
        if (client.error) throw client.error
        client.connection?.end()
        await Promise.all([client.until(() => client.closes > 0), server.until(() => server.closes > opened)])
      }

      async function resumer(serverTls: Partial<TlsSettings> = {}, pair: () => KeyPair = () => serverPair) {
        const judged: boolean[] = []
        const seen: boolean[] = []
        const { server, listener } = await listen({
          tls: tlsOf(pair, { verify: (peer) => void seen.push(peer.resumed === true), ...serverTls }),
        })
        server.onOpening = (connection) => connection.write(Buffer.from('hello'))
        server.onEnding = (connection) => connection.end()
        const client = (sessionKey: string | undefined, own: () => KeyPair = () => clientPair, more = {}) =>
          dial(
            listener,
            server,
            tlsOf(own, {
              ...(sessionKey === undefined ? {} : { sessionKey }),
              verify: (peer) => void judged.push(peer.resumed === true),
              ...more,
            }),
          )
        return { judged, seen, client, server, listener }
      }

      it('resumes under the same key, and both sides judge again', async () => {
        const { judged, seen, client } = await resumer()
        await client('a → b')
        await client('a → b')
        expect(judged).toEqual([false, true])
        expect(seen).toEqual([false, true])
      })

      it('shows the same peer certificate to the verdict of a resumed session', async () => {
        const certificates: string[] = []
        const { client } = await resumer({
          verify: (peer) =>
            void certificates.push(new X509Certificate(peer.certificates[0] ?? '').subjectAltName ?? ''),
        })
        await client('a → b')
        await client('a → b')
        expect(certificates).toEqual([`URI:${CLIENT}`, `URI:${CLIENT}`])
      })

      it('refuses a resumed peer that the verdict refuses', async () => {
        let allowed = true
        const { client } = await resumer({
          verify: () => {
            if (!allowed) throw new AmbitError('PEER_WRONG', 'no longer')
          },
        })
        await client('a → b')
        allowed = false
        await expect(client('a → b')).rejects.toThrow()
      })

      it('resumes neither without a key, nor under another', async () => {
        const { judged, client } = await resumer()
        await client(undefined)
        await client(undefined)
        await client('a → b')
        await client('a → c')
        expect(judged).toEqual([false, false, false, false])
      })

      it("forgets sessions with the client's certificate", async () => {
        const { judged, client } = await resumer()
        const renewed = root.issue(CLIENT)
        await client('a → b')
        await client('a → b', () => renewed)
        expect(judged).toEqual([false, false])
      })

      it('forgets sessions with a change of trust on either side', async () => {
        let clientTrust = root.certificate
        let serverTrust = root.certificate
        const { judged, client } = await resumer({ trust: () => serverTrust })
        const dialOnce = () => client('a → b', () => clientPair, { trust: () => clientTrust })
        await dialOnce()
        clientTrust += testRoot('second').certificate
        await dialOnce()
        serverTrust += testRoot('second').certificate
        await dialOnce()
        await dialOnce()
        expect(judged).toEqual([false, false, false, true])
      })

      it("forgets sessions with the server's certificate", async () => {
        let own = serverPair
        const { judged, seen, client } = await resumer({}, () => own)
        await client('a → b')
        own = root.issue(SERVER)
        await client('a → b')
        expect(judged).toEqual([false, false])
        expect(seen).toEqual([false, false])
      })
    })

    it('replaces its certificate while connections live on', async () => {
      let own = serverPair
      const { server, listener } = await listen({ tls: tlsOf(() => own) })
      const serials: (string | undefined)[] = []
      const settings = tlsOf(() => clientPair, {
        verify: (peer) => void serials.push(new X509Certificate(peer.certificates[0] ?? '').serialNumber),
      })
      const before = connect(listener, settings)
      await before.until(() => !!before.info)
      own = root.issue(SERVER)
      const after = connect(listener, settings)
      await after.until(() => !!after.info)
      expect(new Set(serials).size).toBe(2)
      before.connection?.write(Buffer.from('still here'))
      await server.until(() => server.text === 'still here')
      before.connection?.abort('cancel')
      after.connection?.abort('cancel')
    })

    it('names the alert that ended a handshake, on both sides', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair) })
      const stranger = testRoot('other').issue(CLIENT)
      const client = connect(
        listener,
        tlsOf(() => stranger),
      )
      await Promise.all([server.until(() => server.closes > 0), client.until(() => client.closes > 0)])
      expect(server.error?.message).toMatch(/certificate verify failed: .*\(sent alert unknown CA\)/)
      // TLS 1.3: the client is done before the server has judged it, and learns of it while it reads.
      expect(client.error?.message).toMatch(/received alert unknown CA|reset/)
    })

    it('refuses a key that is not of its certificate', async () => {
      const mixed: KeyPair = { certificate: clientPair.certificate, key: serverPair.key }
      const { listener } = await listen({ tls: tlsOf(() => serverPair) })
      const client = connect(
        listener,
        tlsOf(() => mixed),
      )
      await client.until(() => client.closes > 0)
      expect(client.error).toMatchObject({ code: 'IO_CERTIFICATE' })
    })

    it('sends what is written in one turn in few records', async () => {
      const { server, listener } = await listen({ tls: tlsOf(() => serverPair) })
      const client = connect(
        listener,
        tlsOf(() => clientPair),
      )
      await client.until(() => !!client.info)
      const before = nativeIo().stats().sends
      for (let i = 0; i < 1_000; i++) client.connection?.write(Buffer.from('sixteen bytes...'))
      await server.until(() => server.received === 16_000)
      expect(nativeIo().stats().sends - before).toBeLessThan(5)
      client.connection?.abort('cancel')
    })

    it('connects to an independent TLS server and is refused by one that wants another protocol', async () => {
      const server = tlsServer(
        {
          key: serverPair.key,
          cert: serverPair.certificate,
          ca: root.certificate,
          requestCert: true,
          ALPNProtocols: ['http/1.1'],
        },
        (s) => s.end('hi'),
      )
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const port = (server.address() as { port: number }).port
      const wrong = new Recorder()
      transport.connect({ handler: wrong, host: '127.0.0.1', port, tls: tlsOf(() => clientPair) })
      await wrong.until(() => wrong.closes > 0)
      expect(wrong.error).toMatchObject({ code: 'IO_TLS_HANDSHAKE' })
      const right = new Recorder()
      transport.connect({
        handler: right,
        host: '127.0.0.1',
        port,
        tls: tlsOf(() => clientPair, { alpn: ['http/1.1'] }),
      })
      await right.until(() => right.ended)
      expect(right.text).toBe('hi')
      right.connection?.end()
      await right.until(() => right.closes > 0)
      server.close()
    })
  })

  it('starts TLS over a socket made elsewhere and connected by descriptor', async () => {
    const { listener } = await listen({ tls: tlsOf(() => serverPair) })
    const file = join(folder, 'fd-tls.mjs')
    const index = new URL('../index.ts', import.meta.url).href
    writeFileSync(
      file,
      `import { transport } from ${JSON.stringify(index)}
       const pair = ${JSON.stringify(clientPair)}
       transport.connect({ fd: 3, host: '127.0.0.1', port: ${listener.address.port},
         tls: { trust: () => ${JSON.stringify(root.certificate)}, certificate: () => pair, verify() {}, alpn: ['h2'] },
         handler: { onOpen(c, info) { console.log(c.fd, info.alpn, info.secure); c.abort('cancel') }, onRead() {}, onDrain() {}, onEnd() {}, onClose() {} } })`,
    )
    const child = spawn('python3', [
      '-c',
      `import socket,os\ns=socket.socket()\nos.dup2(s.fileno(),3)\nos.set_inheritable(3,True)\nos.execv(${JSON.stringify(process.execPath)},["node",${JSON.stringify(file)}])`,
    ])
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    await new Promise((resolve) => child.once('close', resolve))
    expect(text).toBe('3 h2 true\n')
  })
})
