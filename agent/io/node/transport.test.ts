import { execFileSync, spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as tlsConnect, createServer as tlsServer, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { AmbitError } from '../../base/errors.ts'
import type { KeyPair, Listener, ListenOptions, TlsPeer, TlsSettings } from '../connection.ts'
import { describeTransport, Recorder, type MakePair } from '../contract.ts'
import { nodeTransport } from '../index.ts'
import { handleOf } from './internals.ts'
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
    const listener = await nodeTransport.listen({
      handler: server,
      ...options,
      ...(secure ? { tls: tlsOf(() => serverPair) } : {}),
    })
    const connection = nodeTransport.connect({
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
  'Node TCP, IPv4',
  pairOver(() => ({ host: '127.0.0.1', port: 0 }), false),
)
describeTransport(
  'Node TCP, IPv6',
  pairOver(() => ({ host: '::1', port: 0 }), false),
)
describeTransport(
  'Node TLS',
  pairOver(() => ({ host: '127.0.0.1', port: 0 }), true),
)
describeTransport(
  'Node unix sockets',
  pairOver(() => ({ path: join(folder, `s${++socketNumber}`) }), false),
  { resets: false, buffered: 64 << 20 },
)

describe("listening and connecting over Node's sockets", () => {
  const listeners: Listener[] = []
  afterEach(async () => {
    for (const listener of listeners.splice(0)) await listener.stop()
  })

  async function listen(options: Partial<ListenOptions> = {}): Promise<{ server: Recorder; listener: Listener }> {
    const server = new Recorder()
    const listener = await nodeTransport.listen({ handler: server, host: '127.0.0.1', port: 0, ...options })
    listeners.push(listener)
    return { server, listener }
  }

  function connect(listener: Listener, tls?: TlsSettings, more: object = {}): Recorder {
    const client = new Recorder()
    nodeTransport.connect({
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
    nodeTransport.connect({ handler: client, host: '127.0.0.1', port: listener.address.port })
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
    const again = nodeTransport.listen({ handler: new Recorder(), host: '127.0.0.1', port: listener.address.port })
    await expect(again).rejects.toMatchObject({ code: 'IO_ADDRESS_IN_USE', hint: expect.any(String) })
  })

  it('names an address it cannot bind', async () => {
    const wrong = nodeTransport.listen({ handler: new Recorder(), host: '192.0.2.1', port: 0 })
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
      const client = new Recorder()
      nodeTransport.connect({ handler: client, host: '127.0.0.1', port, timeoutMs: 300 })
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
    await expect(nodeTransport.listen({ handler: new Recorder(), path })).rejects.toMatchObject({
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

  it('says that it cannot give up a descriptor', async () => {
    const { listener } = await listen()
    const client = connect(listener)
    await client.until(() => !!client.info)
    expect(() => client.connection?.detach()).toThrow(AmbitError)
    client.connection?.abort('cancel')
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
        import { nodeTransport } from ${JSON.stringify(index)}
        import { createServer } from 'node:net'
        const server = createServer((s) => s.end('from the server')).listen(0, ${JSON.stringify(host)}, () => {
          let text = ''
          nodeTransport.connect({ fd: 3, host: ${JSON.stringify(host)}, port: server.address().port, handler: {
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
        import { nodeTransport } from ${JSON.stringify(index)}
        import { connect } from 'node:net'
        const listener = await nodeTransport.listen({ fd: 3, backlog: 16, handler: {
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
      const handle = handleOf(raw) as unknown as { fd: number }
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

    it('never resumes a session', async () => {
      const { listener } = await listen({ tls: tlsOf(() => serverPair) })
      const dial = (session?: Buffer) =>
        new Promise<TLSSocket>((resolve, reject) => {
          const socket = tlsConnect(
            {
              host: '127.0.0.1',
              port: listener.address.port,
              key: clientPair.key,
              cert: clientPair.certificate,
              ca: root.certificate,
              ALPNProtocols: ['h2'],
              checkServerIdentity: () => undefined,
              ...(session ? { session } : {}),
            },
            () => resolve(socket),
          )
          socket.once('error', reject)
        })
      const first = await dial()
      const session = await Promise.race([
        new Promise<Buffer>((resolve) => first.once('session', resolve)),
        new Promise<Buffer | undefined>((resolve) => setTimeout(() => resolve(first.getSession()), 200)),
      ])
      const second = await dial(session)
      expect(second.isSessionReused()).toBe(false)
      first.destroy()
      second.destroy()
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
      nodeTransport.connect({ handler: wrong, host: '127.0.0.1', port, tls: tlsOf(() => clientPair) })
      await wrong.until(() => wrong.closes > 0)
      expect(wrong.error).toMatchObject({ code: 'IO_TLS_HANDSHAKE' })
      const right = new Recorder()
      nodeTransport.connect({
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
      `import { nodeTransport } from ${JSON.stringify(index)}
       const pair = ${JSON.stringify(clientPair)}
       nodeTransport.connect({ fd: 3, host: '127.0.0.1', port: ${listener.address.port},
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
