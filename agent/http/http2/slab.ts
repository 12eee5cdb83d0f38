// Memory for what the codec writes itself: frame headers, control frames, header blocks, small bodies. Ranges are handed
// to Connection.write and must not change until the turn ends, which nobody here can see: so a slab is filled once and
// then left to the garbage collector, one for about a thousand frames. Shared by all connections: an idle one costs nothing.

const SLAB_SIZE = 16_384

/** Take room by `reserve`, write into `bytes` from the offset it returned, then `advance` past what was used. */
class Slab {
  bytes: Buffer = Buffer.allocUnsafeSlow(SLAB_SIZE)
  #used = 0

  reserve(length: number): number {
    if (this.#used + length > this.bytes.length) {
      this.bytes = Buffer.allocUnsafeSlow(Math.max(SLAB_SIZE, length))
      this.#used = 0
    }
    return this.#used
  }

  advance(to: number): void {
    this.#used = to
  }
}

export const slab = new Slab()
