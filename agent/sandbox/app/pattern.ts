// The bulk payload: a fixed pattern that both ends can make and check without sending it first. Its period (65 521
// bytes, a prime) is no multiple of any buffer size, so a lost or repeated block shows in the checksum.
import { createHash, type Hash } from 'node:crypto'

const PERIOD = 65_521
/** One block of the pattern, doubled, so that any window of PERIOD bytes is one slice. */
const block = Buffer.alloc(PERIOD * 2)
for (let index = 0; index < block.length; index++) block[index] = ((index % PERIOD) * 131 + 7) & 0xff

/** The next piece of the pattern at `offset`, at most `left` bytes. The buffer is shared: never write into it. */
export function patternAt(offset: number, left: number): Buffer {
  const start = offset % PERIOD
  return block.subarray(start, start + Math.min(PERIOD, left))
}

/** SHA-256 of the first `bytes` bytes of the pattern, in hex. */
export function patternDigest(bytes: number): string {
  const hash = createHash('sha256')
  for (let sent = 0; sent < bytes;) {
    const piece = patternAt(sent, bytes - sent)
    hash.update(piece)
    sent += piece.length
  }
  return hash.digest('hex')
}

/** Counts and hashes what arrives. */
export class Meter {
  bytes = 0
  readonly #hash: Hash = createHash('sha256')

  add(chunk: Uint8Array): void {
    this.bytes += chunk.length
    this.#hash.update(chunk)
  }

  /** `{bytes, sha256}`; call once, at the end. */
  result(): { bytes: number; sha256: string } {
    return { bytes: this.bytes, sha256: this.#hash.digest('hex') }
  }
}

/** The slice of a Writable that `pour` needs; node:http, node:http2 and node:net all have it. */
export interface Pourable {
  write(chunk: Uint8Array): boolean
  once(event: 'drain', listener: () => void): unknown
  readonly destroyed: boolean
}

/** Writes `bytes` of the pattern with back-pressure, then calls `done`. Stops silently when the sink is destroyed. */
export function pour(sink: Pourable, bytes: number, done: () => void): void {
  let sent = 0
  const turn = (): void => {
    while (sent < bytes) {
      if (sink.destroyed) return
      const piece = patternAt(sent, bytes - sent)
      sent += piece.length
      if (!sink.write(piece) && sent < bytes) {
        sink.once('drain', turn)
        return
      }
    }
    done()
  }
  turn()
}
