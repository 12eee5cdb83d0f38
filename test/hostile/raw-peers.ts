// Peers that keep to no rule, on Node's own net, tls and http2 so that they share no codec with what they attack: TLS connections
// from an address of choice, connections that end after so many bytes, HTTP/2 frames byte by byte. Must not live here: what
// the attacked must do (the tests).
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { until } from '../world/waypoint-process.ts'

export interface Where {
  readonly host: string
  readonly port: number
  /** The source address. */
  readonly from: string
}

/** A TCP connection, once it is open. Errors later are nobody's: the test looks at `close`. */
export function openTcp(where: Where): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host: where.host, port: where.port, localAddress: where.from })
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
    socket.once('error', reject)
    socket.on('error', () => {})
  })
}

/** A TLS connection with ALPN h2 unless `options` say otherwise, once its own side of the handshake is done. */
export function openTls(where: Where, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const all: ConnectionOptions & { localAddress: string } = {
      ALPNProtocols: ['h2'],
      checkServerIdentity: () => undefined,
      host: where.host,
      port: where.port,
      localAddress: where.from,
      ...options,
    }
    const socket = connectTls(all)
    const refused = (error?: Error): void => reject(error ?? new Error('closed in the handshake'))
    socket.once('secureConnect', () => {
      socket.off('error', refused)
      socket.off('close', refused)
      resolve(socket)
    })
    socket.once('error', refused)
    socket.once('close', refused)
    socket.on('error', () => {})
  })
}

/** A session of node:http2 on such a connection. */
export async function openSession(where: Where, options: ConnectionOptions): Promise<ClientHttp2Session> {
  const socket = await openTls(where, options)
  const session = connectHttp2(`https://${where.host}:${where.port}`, {
    createConnection: () => socket,
    // Its own limit would keep a header bomb at home.
    maxSendHeaderBlockLength: 16 << 20,
  })
  session.on('error', () => {})
  return session
}

/** Resolves with what came, once the connection is gone in whatever way. */
export function untilGone(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  return new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    if (socket.closed) resolve(Buffer.alloc(0))
    else socket.once('close', () => resolve(Buffer.concat(chunks)))
  })
}

/** A port on loopback whose connections lead to `where`, and whose client's bytes stop after `bytes`: by FIN or by reset. */
export async function cutter(
  where: Where,
  bytes: number,
  how: 'fin' | 'reset',
): Promise<{ port: number; close(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const far = connectTcp({ host: where.host, port: where.port, localAddress: where.from })
    for (const socket of [client, far]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => (socket === client ? far : client).destroy())
    }
    let left = bytes
    client.on('data', (chunk: Buffer) => {
      if (left <= 0) return
      const part = chunk.subarray(0, left)
      left -= part.length
      far.write(part, () => {
        if (left > 0) return
        if (how === 'fin') far.end()
        else far.resetAndDestroy()
      })
    })
    client.on('end', () => far.end())
    far.on('data', (chunk: Buffer) => client.write(chunk))
    far.on('end', () => client.end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

/** One HTTP/2 frame (RFC 9113 §4.1). */
export function frame(type: number, flags: number, stream: number, body: Uint8Array = new Uint8Array(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(body.length, 0, 3)
  head.set([type, flags], 3)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, body])
}

/** A client's preface and its empty SETTINGS. */
export const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0)])

/** What a node:http2 client sends to open a tunnel and say `text` in it. */
export async function recorded(authority: string, text: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer | string) => chunks.push(Buffer.from(chunk as Buffer)))
    socket.write(frame(4, 0, 0))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  session.on('error', () => {})
  const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false })
  stream.on('error', () => {})
  stream.write(text)
  await until(() => Buffer.concat(chunks).includes(text))
  session.destroy()
  server.close()
  return Buffer.concat(chunks)
}
