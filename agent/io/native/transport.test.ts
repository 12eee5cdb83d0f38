import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect as netConnect, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { AmbitError } from '../../base/errors.ts'
import type { Connection, ConnectionHandler, KeyPair, ListenOptions, TlsSettings } from '../connection.ts'
import { describeTransport, Recorder, type MakePair } from '../contract.ts'
import { createNativeTransport, transport } from '../index.ts'
import type { TestRoot } from '../testcerts.ts'
import { issueCertificates, tlsSettings, useSockets } from './testing.ts'

let root: TestRoot
let clientPair: KeyPair
let serverPair: KeyPair
const folder = mkdtempSync(join(tmpdir(), 'ambit-io-'))

beforeAll(() => {
  ;({ root, clientPair, serverPair } = issueCertificates())
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const tlsOf = (pair: () => KeyPair): TlsSettings => tlsSettings(root, pair, {})

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
  const { listeners, listen, connect } = useSockets()

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

  it('gives a connection taken for a listener that stopped in the same turn to no other', async () => {
    const { server, listener } = await listen()
    const heir = new Recorder()
    server.onOpening = () => {
      server.onOpening = undefined
      void listener.stop()
      void listen({ handler: heir })
    }
    listener.pause()
    const clients = [connect(listener), connect(listener)]
    await Promise.all(clients.map((client) => client.until(() => !!client.info)))
    listener.resume()
    await Promise.race(clients.map((client) => client.until(() => client.closes > 0)))
    expect(heir.events).toEqual([])
    for (const client of clients) client.connection?.abort('cancel')
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
