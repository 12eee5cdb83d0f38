// Bytes that wait: for a window, for the socket, for a reader that paused. Copies what it is given; many small pieces
// share a chunk, so that a peer who sends single bytes cannot make it hold more than a small multiple of them.

const FIRST_CHUNK = 2_048
const CHUNK = 16_384

interface Chunk {
  readonly bytes: Uint8Array
  start: number
  end: number
}

export class ByteQueue {
  #chunks: Chunk[] = []
  #head = 0
  /** Bytes held. */
  length = 0

  push(bytes: Uint8Array, start: number, end: number): void {
    const tail = this.#chunks[this.#chunks.length - 1]
    this.length += end - start
    if (tail !== undefined) {
      const take = Math.min(tail.bytes.length - tail.end, end - start)
      if (take > 0) {
        tail.bytes.set(bytes.subarray(start, start + take), tail.end)
        tail.end += take
        start += take
      }
      if (start === end) return
    }
    const size = Math.max(end - start, tail === undefined ? FIRST_CHUNK : CHUNK)
    const copy = Buffer.allocUnsafeSlow(size)
    copy.set(bytes.subarray(start, end), 0)
    this.#chunks.push({ bytes: copy, start: 0, end: end - start })
  }

  /** The oldest bytes, as a range of a buffer that is never written again below `end`; undefined when empty. */
  first(): { readonly bytes: Uint8Array; readonly start: number; readonly end: number } | undefined {
    return this.#chunks[this.#head]
  }

  /** Drops `count` bytes, at most what `first` shows. */
  skip(count: number): void {
    const chunk = this.#chunks[this.#head]
    if (chunk === undefined) return
    chunk.start += count
    this.length -= count
    if (chunk.start < chunk.end) return
    this.#head++
    if (this.#head === this.#chunks.length) {
      this.#chunks = []
      this.#head = 0
    } else if (this.#head > 64) {
      this.#chunks = this.#chunks.slice(this.#head)
      this.#head = 0
    }
  }

  clear(): void {
    this.#chunks = []
    this.#head = 0
    this.length = 0
  }
}
