// Bytes that wait: for a window, for the socket, for a reader that paused. Copies what it is given; many small pieces
// share a chunk, so that a peer who sends single bytes cannot make it hold more than a small multiple of them. Large chunks
// are used again: a slow stream would else feed the garbage collector every byte it carries.

/** A stream that holds little takes little. */
const SMALL = 2_048
const LARGE = 65_536
/** Chunks kept for later, 4 MiB. */
const MAX_FREE = 64

/** Chunks nobody holds, and those whose bytes were handed on in this turn: they may be read until it ends. */
const free: Uint8Array[] = []
let retired: Uint8Array[] = []
let scheduled = false

function take(): Uint8Array {
  return free.pop() ?? Buffer.allocUnsafeSlow(LARGE)
}

function retire(bytes: Uint8Array): void {
  if (bytes.length !== LARGE || retired.length + free.length >= MAX_FREE) return
  retired.push(bytes)
  if (scheduled) return
  scheduled = true
  setImmediate(reuse)
}

function reuse(): void {
  scheduled = false
  for (const bytes of retired) free.push(bytes)
  retired = []
}

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
    this.length += end - start
    let tail = this.#chunks[this.#chunks.length - 1]
    while (start < end) {
      if (tail === undefined || tail.end === tail.bytes.length) {
        const small = tail === undefined && end - start <= SMALL
        tail = { bytes: small ? Buffer.allocUnsafeSlow(SMALL) : take(), start: 0, end: 0 }
        this.#chunks.push(tail)
      }
      const count = Math.min(tail.bytes.length - tail.end, end - start)
      tail.bytes.set(bytes.subarray(start, start + count), tail.end)
      tail.end += count
      start += count
    }
  }

  /** The oldest bytes; they do not change until the turn ends in which they are skipped. Undefined when empty. */
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
    retire(chunk.bytes)
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
    for (let i = this.#head; i < this.#chunks.length; i++) retire((this.#chunks[i] as Chunk).bytes)
    this.#chunks = []
    this.#head = 0
    this.length = 0
  }
}
