// Memory for what codecs write themselves: frame headers, control frames, header blocks, small bodies. Ranges are handed to
// Connection.write and must not change until the turn ends. One slab for all connections of a process: an idle one costs
// nothing. The native transport sends its ranges without a copy and starts it anew with every turn; where nobody does, or a turn
// fills it, further room comes from the heap. Must not live here: what is written.

/** Bound on what one turn can put here before the heap helps out. */
export const SLAB_SIZE = 262_144

const OVERFLOW_SIZE = 16_384

/** Take room by `reserve`, write into `bytes` from the offset it returned, then `advance` past what was used. */
export class Slab {
  /** The memory that the native transport knows. */
  readonly home: Buffer = Buffer.allocUnsafeSlow(SLAB_SIZE)
  bytes: Buffer = this.home
  #used = 0

  /** Room for `length` bytes in `bytes`; returns where. Call again before the next write if more is needed. */
  reserve(length: number): number {
    if (this.#used + length > this.bytes.length) {
      this.bytes = Buffer.allocUnsafeSlow(Math.max(OVERFLOW_SIZE, length))
      this.#used = 0
    }
    return this.#used
  }

  advance(to: number): void {
    this.#used = to
  }

  /** A new turn: all that stood here was sent or copied. For the transport only. */
  restart(): void {
    this.bytes = this.home
    this.#used = 0
  }
}

export const slab = new Slab()
