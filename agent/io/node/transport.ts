// The connection contract over Node's net and tls: makes listeners and sockets, runs the deadlines, opens connections.
// Must not live here: bytes (connection.ts), handshakes (tls.ts).
import { createServer, Socket, type Server } from 'node:net'
import { unlink } from 'node:fs/promises'
import { AmbitError } from '../../base/errors.ts'
import { systemClock, type Clock, type Timer } from '../../base/clock.ts'
import type {
  ConnectOptions,
  Connection,
  Endpoint,
  Listener,
  ListenOptions,
  OpenInfo,
  TlsSettings,
  Transport,
} from '../connection.ts'
import { NodeConnection } from './connection.ts'
import { connectError, describeTarget, handshakeError, listenError, timeoutError } from '../errors.ts'
import { removeStale } from '../stale.ts'
import { acceptTls, connectTls, type Handshake } from './tls.ts'

const DEFAULT_TIMEOUT = 10_000
const DEFAULT_BACKLOG = 511
const DEFAULT_CONNECTIONS = 65_536

export interface NodeTransportOptions {
  /**
   * dup(2), from the addon that makes the descriptors. Without it a listener by `fd` takes the descriptor over and closes it
   * in `stop`, because Node has no dup of its own.
   */
  readonly duplicate?: (fd: number) => number
  readonly clock?: Clock
}

/** Canonical text form of what Node reports: v4-mapped IPv6 is written as IPv4. */
function endpoint(address: string | undefined, port: number | undefined): Endpoint {
  const text = address ?? ''
  const mapped = text.startsWith('::ffff:') && text.includes('.')
  return { address: mapped ? text.slice(7) : text.toLowerCase(), port: port ?? 0 }
}

function infoOf(local: Endpoint, peer: Endpoint, handshake?: Handshake): OpenInfo {
  return handshake
    ? { local, peer, ...handshake, secure: true }
    : { local, peer, alpn: '', serverName: '', certificates: [], secure: false }
}

class NodeListener implements Listener {
  address: Endpoint = { address: '', port: 0 }
  connections = 0
  refused = 0
  readonly #server: Server
  readonly #path: string | undefined
  #stopped: Promise<void> | undefined

  constructor(server: Server, path: string | undefined) {
    this.#server = server
    this.#path = path
  }

  /** Node's servers cannot stop accepting and go on later. */
  pause(): void {}
  resume(): void {}

  stop(): Promise<void> {
    // close() reports back only when the last accepted connection is gone; the descriptor itself is closed at once.
    this.#stopped ??= (async () => {
      this.#server.close()
      await new Promise((resolve) => setImmediate(resolve))
      if (this.#path !== undefined) await unlink(this.#path).catch(() => undefined)
    })()
    return this.#stopped
  }
}

export function createNodeTransport(options: NodeTransportOptions = {}): Transport {
  const clock = options.clock ?? systemClock

  function deadline(connection: NodeConnection, ms: number, peer: string): Timer {
    return clock.after(ms, () => {
      if (connection.opening) connection.fail(timeoutError(peer, connection.connected ? 'handshake' : 'connect', ms))
    })
  }

  async function listen(wanted: ListenOptions): Promise<Listener> {
    const target = describeTarget(wanted)
    const { handler, tls } = wanted
    const limit = wanted.maxConnections ?? DEFAULT_CONNECTIONS
    const handshakeTimeout = wanted.handshakeTimeoutMs ?? DEFAULT_TIMEOUT
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
    const listener = new NodeListener(server, wanted.path)
    const gone = () => {
      listener.connections--
    }
    server.on('connection', (raw) => {
      if (listener.connections >= limit) {
        listener.refused++
        raw.on('error', () => undefined)
        if (raw.remoteAddress === undefined) raw.destroy()
        else raw.resetAndDestroy()
        return
      }
      listener.connections++
      const peer = endpoint(raw.remoteAddress, raw.remotePort)
      const local = wanted.path === undefined ? endpoint(raw.localAddress, raw.localPort) : endpoint(wanted.path, 0)
      const name = peer.port > 0 ? `${peer.address}:${peer.port}` : `a client of ${target}`
      const connection = new NodeConnection(handler, name, undefined, gone)
      connection.adopt(raw)
      connection.connected = true
      if (!tls) {
        connection.open(infoOf(local, peer))
        return
      }
      const timer = deadline(connection, handshakeTimeout, name)
      void shake(acceptTls, connection, raw, tls, peer, local, name).finally(() => timer.cancel())
    })
    try {
      if (wanted.path !== undefined) await removeStale(wanted.path)
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.once('listening', () => {
          server.removeListener('error', reject)
          resolve()
        })
        const backlog = wanted.backlog ?? DEFAULT_BACKLOG
        if (wanted.fd !== undefined) {
          server.listen({ fd: options.duplicate ? options.duplicate(wanted.fd) : wanted.fd, backlog })
        } else if (wanted.path !== undefined) {
          server.listen({ path: wanted.path, backlog })
        } else {
          server.listen({
            host: wanted.host ?? '::',
            port: wanted.port ?? 0,
            backlog,
            exclusive: true,
            ...(wanted.reusePort ? { reusePort: true } : {}),
            ...(wanted.ipv6Only ? { ipv6Only: true } : {}),
          })
        }
      })
    } catch (error) {
      throw listenError(target, error)
    }
    // An accept that fails (no descriptors left) is not the end of the listener.
    server.on('error', () => {
      listener.refused++
    })
    const address = server.address()
    if (typeof address === 'string') listener.address = { address, port: 0 }
    else if (address) listener.address = endpoint(address.address, address.port)
    return listener
  }

  /** Runs a handshake and opens or fails the connection; never rejects. */
  async function shake(
    run: typeof acceptTls,
    connection: NodeConnection,
    raw: Socket,
    settings: TlsSettings,
    peer: Endpoint,
    local: Endpoint,
    name: string,
  ): Promise<void> {
    try {
      const handshake = await run(raw, settings, peer, local, (tls) => connection.secure(tls))
      connection.open(infoOf(local, peer, handshake))
    } catch (error) {
      connection.fail(handshakeError(name, error))
    }
  }

  function connect(wanted: ConnectOptions): Connection {
    const target = describeTarget(wanted)
    const timeout = wanted.timeoutMs ?? DEFAULT_TIMEOUT
    let timer: Timer | undefined
    const connection = new NodeConnection(wanted.handler, target, wanted.slot, () => timer?.cancel())
    timer = deadline(connection, timeout, target)
    try {
      const raw =
        wanted.fd === undefined
          ? new Socket({ allowHalfOpen: true })
          : // Not started: the descriptor is not connected yet, and reading from it would fail.
            new Socket(notStarted(wanted.fd))
      raw.once('error', (error) => {
        if (!connection.connected) connection.fail(connectError(target, error))
      })
      connection.adopt(raw)
      raw.once('connect', () => {
        connection.connected = true
        const peer = wanted.path === undefined ? endpoint(raw.remoteAddress, raw.remotePort) : endpoint(wanted.path, 0)
        const local = endpoint(raw.localAddress, raw.localPort)
        if (!wanted.tls) {
          connection.open(infoOf(local, peer))
          timer?.cancel()
          return
        }
        void shake(connectTls, connection, raw, wanted.tls, peer, local, target).finally(() => timer?.cancel())
      })
      if (wanted.path !== undefined) raw.connect({ path: wanted.path })
      else if (wanted.host !== undefined && wanted.port !== undefined) {
        raw.connect({
          host: wanted.host,
          port: wanted.port,
          ...(wanted.source === undefined ? {} : { localAddress: wanted.source }),
        })
      } else {
        throw new AmbitError('IO_ADDRESS', 'A connect needs a path, or a host and a port.')
      }
    } catch (error) {
      connection.fail(connectError(target, error))
    }
    return connection
  }

  return { listen, connect }
}

/** `manualStart` is Node's own word for "do not read yet"; its types do not list it. */
function notStarted(fd: number): ConstructorParameters<typeof Socket>[0] {
  const options = { fd, readable: true, writable: true, allowHalfOpen: true, manualStart: true }
  return options
}

/** Over Node's net and tls, with the system's clock. */
export const nodeTransport: Transport = createNodeTransport()
