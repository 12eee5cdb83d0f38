// The connection contract over natively batched I/O (native/io): makes listeners and connections, runs the deadlines of connects,
// handshakes and idle connections. Must not live here: bytes (engine.ts), one connection's life (connection.ts).
import { unlink } from 'node:fs/promises'
import { systemClock, type Clock } from '../../base/clock.ts'
import { AmbitError } from '../../base/errors.ts'
import { parseIp } from '../../base/ip.ts'
import type { ConnectOptions, Connection, Listener, ListenOptions, Transport } from '../connection.ts'
import { connectError, describeTarget, listenError, timeoutError } from '../errors.ts'
import { removeStale } from '../stale.ts'
import { errnoName, NativeConnection, systemError, type Owner } from './connection.ts'
import { theEngine, type Engine } from './engine.ts'
import { NativeListener } from './listener.ts'
import { PACKED, unpackEndpoint } from './names.ts'
import { alpnBytes, versionNumber } from './tls.ts'

const DEFAULT_TIMEOUT = 10_000
const DEFAULT_BACKLOG = 511
const DEFAULT_CONNECTIONS = 65_536
/** How often idle connections are looked for; an idle limit is kept to within this. */
const SWEEP_MS = 1_000

export interface NativeTransportOptions {
  readonly clock?: Clock
}

function ipOf(host: string): Uint8Array {
  const bytes = parseIp(host)
  if (bytes === undefined) {
    throw new AmbitError('IO_ADDRESS', `'${host}' is not an IP address.`, { hint: 'Resolve names before connecting.' })
  }
  return bytes
}

class NativeTransport implements Transport, Owner {
  readonly #clock: Clock
  readonly #engine: Engine = theEngine()
  readonly #idle = new Set<NativeConnection>()
  #sweeping = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async listen(options: ListenOptions): Promise<Listener> {
    const target = describeTarget(options)
    const { native } = this.#engine
    const { tls, path } = options
    try {
      if (path !== undefined) await removeStale(path)
      const id = native.listen({
        fd: options.fd ?? -1,
        ip: options.fd === undefined && path === undefined ? ipOf(options.host ?? '::') : undefined,
        port: options.port ?? 0,
        path,
        backlog: options.backlog ?? DEFAULT_BACKLOG,
        reusePort: options.reusePort ?? false,
        ipv6Only: options.ipv6Only ?? false,
        most: options.maxConnections ?? DEFAULT_CONNECTIONS,
        alpn: tls ? alpnBytes(tls.alpn) : undefined,
        request: tls?.requestCertificate ?? true,
        minVersion: tls ? versionNumber(tls) : 0,
      })
      if (id < 0) throw systemError(`${native.strerror(-id)} (${errnoName(-id)})`, -id)
      const listener = new NativeListener(id, {
        engine: this.#engine,
        clock: this.#clock,
        options,
        target,
        handshakeTimeoutMs: options.handshakeTimeoutMs ?? DEFAULT_TIMEOUT,
        watch: (connection) => this.#watch(connection),
        unlink: async () => {
          if (path !== undefined) await unlink(path).catch(() => undefined)
        },
      })
      const packed = new Uint8Array(PACKED)
      if (path !== undefined) listener.address = { address: path, port: 0 }
      else if (native.bound(id, packed) === 0) listener.address = unpackEndpoint(packed, 0)
      return listener
    } catch (error) {
      throw listenError(target, error)
    }
  }

  connect(options: ConnectOptions): Connection {
    const target = describeTarget(options)
    const timeout = options.timeoutMs ?? DEFAULT_TIMEOUT
    const { tls, path } = options
    const connection = new NativeConnection(this.#engine, options.handler, this, target, false, tls, path, options.slot)
    try {
      if (path === undefined && (options.host === undefined || options.port === undefined)) {
        throw new AmbitError('IO_ADDRESS', 'A connect needs a path, or a host and a port.')
      }
      const id = this.#engine.native.connect({
        fd: options.fd ?? -1,
        ip: options.host === undefined ? undefined : ipOf(options.host),
        port: options.port ?? 0,
        path,
        source: options.source === undefined ? undefined : ipOf(options.source),
        tls: tls && {
          alpn: alpnBytes(tls.alpn),
          serverName: tls.serverName ?? '',
          sessionKey: tls.sessionKey ?? '',
          minVersion: versionNumber(tls),
        },
      })
      if (id < 0) throw systemError(this.#engine.native.strerror(-id), -id)
      connection.enter(id)
      connection.timer = this.#clock.after(timeout, () => {
        if (!connection.opening) return
        connection.fail(timeoutError(target, connection.reached ? 'handshake' : 'connect', timeout))
      })
      if (options.idleTimeoutMs !== undefined && options.idleTimeoutMs > 0) {
        connection.idleMs = options.idleTimeoutMs
        this.#watch(connection)
      }
    } catch (error) {
      connection.fail(connectError(target, error))
    }
    return connection
  }

  gone(connection: NativeConnection): void {
    if (connection.idleMs > 0) this.#idle.delete(connection)
  }

  /** Bytes that move leave a stamp in the engine's table: a connection is idle while its stamp stands still. */
  #watch(connection: NativeConnection): void {
    connection.idleStamp = this.#engine.stamps[connection.id] as number
    connection.idleSince = this.#clock.monotonic()
    this.#idle.add(connection)
    if (!this.#sweeping) {
      this.#sweeping = true
      this.#clock.after(SWEEP_MS, this.#sweep, true)
    }
  }

  readonly #sweep = (): void => {
    const now = this.#clock.monotonic()
    for (const connection of this.#idle) {
      if (this.#engine.connections[connection.id] !== connection) {
        this.#idle.delete(connection)
        continue
      }
      const stamp = this.#engine.stamps[connection.id] as number
      if (stamp !== connection.idleStamp) {
        connection.idleStamp = stamp
        connection.idleSince = now
      } else if (now - connection.idleSince >= connection.idleMs) {
        this.#idle.delete(connection)
        connection.failIdle()
      }
    }
    if (this.#idle.size > 0) this.#clock.after(SWEEP_MS, this.#sweep, true)
    else this.#sweeping = false
  }
}

/** The contract over the process's engine. Throws when the addon is not built. */
export function createNativeTransport(options: NativeTransportOptions = {}): Transport {
  return new NativeTransport(options.clock ?? systemClock)
}
