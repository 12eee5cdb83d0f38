import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { connect as netConnect, createServer } from 'node:net'
import { connect as tlsConnect, createServer as tlsServer } from 'node:tls'
import { beforeAll, describe, expect, it } from 'vitest'
import { nativeIo } from '../../../native/io/index.ts'
import { AmbitError } from '../../base/errors.ts'
import type { KeyPair, Listener, TlsPeer, TlsSettings } from '../connection.ts'
import { Recorder } from '../contract.ts'
import { transport } from '../index.ts'
import { testRoot, type TestRoot } from '../testcerts.ts'
import { CLIENT, issueCertificates, SERVER, tlsSettings, useSockets } from './testing.ts'

let root: TestRoot
let clientPair: KeyPair
let serverPair: KeyPair

beforeAll(() => {
  ;({ root, clientPair, serverPair } = issueCertificates())
})

const tlsOf = (pair: () => KeyPair, more: Partial<TlsSettings> = {}): TlsSettings => tlsSettings(root, pair, more)

describe('TLS over native sockets', () => {
  const { listen, connect } = useSockets()

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

  it('leaves Node’s own TLS in this process alone when a handshake is refused half way', async () => {
    const { listener } = await listen({
      tls: tlsOf(() => {
        throw new Error('no certificate today')
      }),
    })
    const echo = tlsServer({ cert: serverPair.certificate, key: serverPair.key }, (socket) => socket.pipe(socket))
    await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve))
    const { port } = echo.address() as { port: number }
    // The hello of a real client, sent from a bare socket, so that no TLS of Node's own comes in between.
    const hello = await new Promise<Buffer>((resolve) => {
      const server = createServer((socket) => socket.once('data', resolve))
      server.listen(0, '127.0.0.1', () => {
        const { port: at } = server.address() as { port: number }
        const bare = tlsConnect({ host: '127.0.0.1', port: at, ALPNProtocols: ['h2'] })
        bare.on('error', () => server.close())
        setTimeout(() => bare.destroy(), 100)
      })
    })
    const talk = tlsConnect({ host: '127.0.0.1', port, rejectUnauthorized: false })
    const problems: Error[] = []
    talk.on('error', (error) => problems.push(error))
    await new Promise((resolve) => talk.once('secureConnect', resolve))
    for (let round = 0; round < 30; round++) {
      const refused = netConnect(listener.address.port, '127.0.0.1', () => refused.write(hello))
      refused.resume().on('error', () => undefined)
      talk.write('ping')
      await new Promise((resolve) => refused.once('close', resolve))
      talk.write('pong')
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    expect(problems).toEqual([])
    talk.destroy()
    echo.close()
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
        verify: (peer) => void certificates.push(new X509Certificate(peer.certificates[0] ?? '').subjectAltName ?? ''),
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
