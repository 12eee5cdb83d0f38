// A listener of the native transport: turns accepted sockets into connections, and rests when the process is out of descriptors.
// Must not live here: binding (transport.ts).
import type { Clock } from '../../base/clock.ts'
import type { Endpoint, Listener, ListenOptions } from '../connection.ts'
import { timeoutError } from '../errors.ts'
import { NativeConnection, type Owner } from './connection.ts'
import type { Engine } from './engine.ts'

/** Out of descriptors or memory, accepting rests this long: the queue stays in the kernel. */
const REST_MS = 100

export interface ListenerParts {
  readonly engine: Engine
  readonly clock: Clock
  readonly options: ListenOptions
  readonly target: string
  readonly handshakeTimeoutMs: number
  /** Called for connections with an idle limit. */
  watch(connection: NativeConnection): void
  /** Removes the socket's file. */
  unlink(): Promise<void>
}

export class NativeListener implements Listener, Owner {
  address: Endpoint = { address: '', port: 0 }
  connections = 0
  #failed = 0
  #refused = 0
  readonly #id: number
  readonly #parts: ListenerParts
  #stopped: Promise<void> | undefined
  #paused = false
  #resting = false

  constructor(id: number, parts: ListenerParts) {
    this.#id = id
    this.#parts = parts
    parts.engine.listeners[id] = this
  }

  get refused(): number {
    const { engine } = this.#parts
    if (engine.listeners[this.#id] === this) this.#refused = engine.native.refused(this.#id)
    return this.#refused + this.#failed
  }

  pause(): void {
    if (this.#paused || this.#stopped) return
    this.#paused = true
    if (!this.#resting) this.#parts.engine.native.pause(this.#id, true)
  }

  resume(): void {
    if (!this.#paused || this.#stopped) return
    this.#paused = false
    if (!this.#resting) this.#accept()
  }

  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      const { engine } = this.#parts
      this.#refused = this.refused - this.#failed
      engine.native.stop(this.#id)
      engine.listeners[this.#id] = undefined
      await this.#parts.unlink()
    })()
    return this.#stopped
  }

  // --- events of the turn

  accepted(id: number): void {
    const { engine, clock, options, target, handshakeTimeoutMs } = this.#parts
    const name = `a client of ${target}`
    const connection = new NativeConnection(
      engine,
      options.handler,
      this,
      name,
      true,
      options.tls,
      options.path,
      undefined,
    )
    this.connections++
    connection.enter(id)
    if (options.tls) {
      connection.timer = clock.after(handshakeTimeoutMs, () => {
        if (connection.opening) connection.fail(timeoutError(name, 'handshake', handshakeTimeoutMs))
      })
    }
    if (options.idleTimeoutMs !== undefined && options.idleTimeoutMs > 0) {
      connection.idleMs = options.idleTimeoutMs
      this.#parts.watch(connection)
    }
    connection.accepted()
  }

  acceptFailed(_errno: number): void {
    this.#failed++
    if (this.#resting || this.#stopped) return
    this.#parts.engine.native.pause(this.#id, true)
    this.#rest()
  }

  gone(): void {
    this.connections--
  }

  /** Accepts again; where the kernel has no memory for that either, later. */
  #accept(): void {
    if (this.#parts.engine.native.pause(this.#id, false) < 0) this.#rest()
  }

  #rest(): void {
    this.#resting = true
    this.#parts.clock.after(
      REST_MS,
      () => {
        this.#resting = false
        if (!this.#paused && !this.#stopped) this.#accept()
      },
      true,
    )
  }
}
