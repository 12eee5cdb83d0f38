// A tunnel as `Transport.connect` would make it: a connection at once, its outcome through the handler, also while the
// session underneath is still being opened. Must not live here: pooling (pool.ts), streams (http2/tunnel.ts).
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { AbortReason, Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import type { TunnelInfo } from '../http2/index.ts'
import type { Headers } from '../message.ts'
import type { TunnelPool, TunnelRequest, TunnelTarget } from './pool.ts'

export interface TunnelConnectOptions {
  readonly authority: string
  readonly headers: Headers
  readonly handler: ConnectionHandler
  readonly info?: TunnelInfo
  readonly slot?: unknown
  /** As TunnelRequest's. */
  readonly onDraining?: (() => void) | undefined
  /** The tunnel must be open, refusal or not, in this time. */
  readonly timeoutMs: number
  readonly clock: Clock
}

const UNKNOWN: OpenInfo = {
  local: { address: '', port: 0 },
  peer: { address: '', port: 0 },
  alpn: '',
  serverName: '',
  certificates: [],
  secure: false,
}

class PooledTunnel<T extends TunnelTarget> implements Connection, ConnectionHandler, TunnelRequest {
  slot: unknown
  readonly fd = -1
  readonly handler: this = this
  readonly authority: string
  readonly headers: Headers
  readonly info: OpenInfo & TunnelInfo
  readonly onDraining?: () => void
  readonly #owner: ConnectionHandler
  readonly #pool: TunnelPool<T>
  readonly #target: T
  #stream: Connection | undefined
  #timer: Timer | undefined
  #closed = false
  #error: Error | undefined

  constructor(pool: TunnelPool<T>, target: T, options: TunnelConnectOptions) {
    this.#pool = pool
    this.#target = target
    this.#owner = options.handler
    this.slot = options.slot
    if (options.onDraining) this.onDraining = options.onDraining
    this.authority = options.authority
    this.headers = options.headers
    this.info = { ...UNKNOWN, ...options.info }
    this.#timer = options.clock.after(options.timeoutMs, () => {
      this.#fail(
        new AmbitError(
          'TUNNEL_TIMEOUT',
          `The tunnel to ${options.authority} was not open within ${options.timeoutMs} ms.`,
          {
            hint: 'Maybe a NetworkPolicy blocks port 15008.',
          },
        ),
        'timeout',
      )
    })
  }

  // --- Connection

  get pending(): number {
    return this.#stream?.pending ?? 0
  }

  get writable(): boolean {
    return this.#stream?.writable ?? false
  }

  get closed(): boolean {
    return this.#closed || this.#error !== undefined
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#stream?.write(bytes, start, end)
  }

  pause(): void {
    this.#stream?.pause()
  }

  resume(): void {
    this.#stream?.resume()
  }

  end(): void {
    this.#stream?.end()
  }

  abort(reason: AbortReason): void {
    this.#fail(new AmbitError('TUNNEL_ABORTED', `The tunnel to ${this.authority} was cut: ${reason}.`), reason)
  }

  detach(): number {
    throw new AmbitError('IO_NOT_DETACHABLE', 'A tunnel has no descriptor of its own to give up.')
  }

  // --- TunnelRequest

  onStream(stream: Connection): void {
    this.#stream = stream
  }

  onFailed(error: Error): void {
    this.#close(this.#error ?? error)
  }

  // --- ConnectionHandler, for the stream underneath

  onOpen(stream: Connection, info: OpenInfo): void {
    this.#timer?.cancel()
    this.#stream = stream
    ;(this as { info: OpenInfo }).info = info
    this.#owner.onOpen(this, info)
  }

  onRead(_stream: Connection, arena: Uint8Array, start: number, end: number): void {
    this.#owner.onRead(this, arena, start, end)
  }

  onDrain(): void {
    this.#owner.onDrain(this)
  }

  onEnd(): void {
    this.#owner.onEnd(this)
  }

  onClose(_stream: Connection, error: Error | undefined): void {
    this.#close(this.#error ?? error)
  }

  #fail(error: Error, reason: AbortReason): void {
    if (this.#closed) return
    this.#error ??= error
    if (this.#stream) this.#stream.abort(reason)
    else {
      this.#pool.cancel(this.#target, this)
      // As every implementation: never from inside the call that caused it.
      queueMicrotask(() => this.#close(error))
    }
  }

  #close(error: Error | undefined): void {
    if (this.#closed) return
    this.#closed = true
    this.#timer?.cancel()
    if (this.onDraining) this.#pool.ended(this.#target, this)
    this.#owner.onClose(this, error)
  }
}

/** Opens a tunnel through a pool. onOpen comes with the peer's 200; a refusal closes with TunnelRefused. */
export function connectTunnel<T extends TunnelTarget>(
  pool: TunnelPool<T>,
  target: T,
  options: TunnelConnectOptions,
): Connection {
  const tunnel = new PooledTunnel(pool, target, options)
  // In a later turn, so that the caller holds the connection before anything is told about it.
  queueMicrotask(() => {
    if (tunnel.closed) return
    try {
      pool.request(target, tunnel)
    } catch (error) {
      tunnel.onFailed(error instanceof Error ? error : new AmbitError('TUNNEL_OPEN', messageOf(error)))
    }
  })
  return tunnel
}
