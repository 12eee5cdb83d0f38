// Two connections joined into one: bytes, half-closes and resets go both ways, and a slow reader stops the far writer. Memory per
// relay is bounded by a high water each way plus what the layer below holds. Must not live here: policy, who is joined with whom.
import type { AbortReason, Connection, ConnectionHandler, OpenInfo } from './connection.ts'

/** Bytes that may wait to be written on a socket before the other side is paused; it resumes when they are gone. */
export const HIGH_WATER = 262_144
/**
 * The same for a stream. What waits there is beyond what its window and its connection take, and was copied to wait: better
 * left where it came from, and the connection below holds enough to stay busy meanwhile.
 */
export const STREAM_HIGH_WATER = 16_384

export interface RelayObserver {
  /** Both sides are gone. `error`: the first failure, undefined for a clean end. Bytes read from the first and from the second side. */
  onDone(relay: Relay, error: Error | undefined): void
}

class Side implements ConnectionHandler {
  readonly relay: Relay
  connection: Connection | undefined
  other!: Side
  bytes = 0
  /** More than this waiting to be written here pauses the other side. */
  highWater = HIGH_WATER
  /** Bytes that came before the other side was open; bounded, because this side is paused until then. */
  held: Buffer[] = []
  open = false
  ended = false
  closed = false

  constructor(relay: Relay) {
    this.relay = relay
  }

  onOpen(connection: Connection, _info: OpenInfo): void {
    this.take(connection)
    this.relay.opened()
  }

  take(connection: Connection): void {
    this.connection = connection
    this.open = true
    if (connection.fd < 0) this.highWater = STREAM_HIGH_WATER
  }

  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    this.bytes += end - start
    this.relay.spoke = this
    const to = this.other.connection
    if (!to || !this.other.open) {
      // Read before the pause took hold, or by an owner that looked at the first bytes.
      if (!this.other.closed) this.held.push(Buffer.from(arena.subarray(start, end)))
      return
    }
    to.write(arena, start, end)
    if (to.pending > this.other.highWater) connection.pause()
  }

  onDrain(): void {
    this.other.connection?.resume()
  }

  onEnd(): void {
    this.ended = true
    if (this.other.open) this.other.connection?.end()
  }

  onClose(_connection: Connection, error: Error | undefined): void {
    if (this.closed) return
    this.closed = true
    this.open = false
    this.relay.closed(this, error)
  }
}

export class Relay {
  /** The owner's state. */
  slot: unknown
  readonly #observer: RelayObserver
  readonly #first: Side
  readonly #second: Side
  /** The side that the last bytes came from: its own. */
  spoke: Side | undefined
  #error: Error | undefined
  #done = false

  constructor(observer: RelayObserver, slot?: unknown) {
    this.#observer = observer
    this.slot = slot
    this.#first = new Side(this)
    this.#second = new Side(this)
    this.#first.other = this.#second
    this.#second.other = this.#first
  }

  /** Handler to connect the second side with; reading the first starts when it is open. */
  get second(): ConnectionHandler {
    return this.#second
  }

  /** Handler of the first side, for an owner that hands its connection over by passing events on. */
  get first(): ConnectionHandler {
    return this.#first
  }

  /** Bytes read from the first side (towards the second). */
  get firstBytes(): number {
    return this.#first.bytes
  }

  get secondBytes(): number {
    return this.#second.bytes
  }

  /** Takes the first side, which is open; it is paused until the second is open too. */
  attach(first: Connection): void {
    this.#first.take(first)
    first.pause()
  }

  /** Names the second side before it is open, so that it can be cut. */
  expect(second: Connection): void {
    this.#second.connection = second
  }

  /** Nothing is asked and not answered, as far as bytes tell: the last ones came from the second side, or there were none. */
  get answered(): boolean {
    return this.spoke !== this.#first
  }

  /** Ends both directions cleanly after what is on its way. Bytes that still come go nowhere. */
  end(): void {
    for (const side of [this.#first, this.#second]) if (side.open) side.connection?.end()
  }

  /** Cuts both sides. */
  abort(reason: AbortReason, error: Error): void {
    this.#error ??= error
    for (const side of [this.#first, this.#second]) if (!side.closed) side.connection?.abort(reason)
  }

  opened(): void {
    if (!this.#first.open || !this.#second.open) return
    for (const side of [this.#first, this.#second]) {
      for (const chunk of side.held) side.other.connection?.write(chunk)
      side.held = []
    }
    this.#first.connection?.resume()
    // The first side may have ended while it waited.
    if (this.#first.ended) this.#second.connection?.end()
    if (this.#second.ended) this.#first.connection?.end()
  }

  closed(side: Side, error: Error | undefined): void {
    this.#error ??= error
    const { other } = side
    // A side that went without ending cleanly takes the other with it: a truncated stream must not look complete.
    if (error && !other.closed) {
      if (other.connection) other.connection.abort('cancel')
      else other.closed = true
    }
    if (this.#done || !this.#first.closed || (!this.#second.closed && this.#second.connection)) return
    this.#done = true
    this.#observer.onDone(this, this.#error)
  }
}
