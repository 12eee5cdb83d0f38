// The workers' output as one: whole lines only, so that two that write at one time never share a line. Bounded: a worker whose
// lines are not taken is no longer read, and then drops access lines itself. Must not live here: what lines say.
import { write } from 'node:fs'
import type { Readable } from 'node:stream'

/** Bytes held for a slow reader before workers are no longer read. */
const HIGH = 1_048_576
/** A line longer than this is passed on in pieces. */
const LONGEST_LINE = 262_144

export class Lines {
  readonly #fd: number
  readonly #sources = new Set<Readable>()
  #queue: Buffer[] = []
  #held = 0
  #writing = false
  #idle: (() => void)[] = []

  constructor(fd = 1) {
    this.#fd = fd
  }

  /** Takes what a worker writes, until it ends. */
  add(source: Readable): void {
    this.#sources.add(source)
    let rest: Buffer | undefined
    source.on('data', (chunk: Buffer) => {
      const end = chunk.lastIndexOf(10) + 1
      if (end > 0) {
        if (rest) this.#push(rest)
        rest = undefined
        this.#push(chunk.subarray(0, end))
      }
      if (end < chunk.length) {
        const tail = chunk.subarray(end)
        rest = rest ? Buffer.concat([rest, tail]) : Buffer.from(tail)
        if (rest.length > LONGEST_LINE) {
          this.#push(rest)
          rest = undefined
        }
      }
      this.#flush()
    })
    const done = (): void => {
      this.#sources.delete(source)
      if (rest) this.#push(rest)
      rest = undefined
      this.#flush()
    }
    source.once('end', done)
    source.once('error', done)
  }

  /** Resolves once what was taken is written or lost. */
  flushed(): Promise<void> {
    if (!this.#writing) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  #push(bytes: Buffer): void {
    this.#queue.push(bytes)
    this.#held += bytes.length
    if (this.#held > HIGH) for (const source of this.#sources) source.pause()
  }

  #flush(): void {
    if (this.#writing) return
    if (this.#queue.length === 0) {
      for (const resolve of this.#idle.splice(0)) resolve()
      return
    }
    this.#writing = true
    const bytes = this.#queue.length === 1 ? (this.#queue[0] as Buffer) : Buffer.concat(this.#queue)
    this.#queue = []
    this.#write(bytes, 0)
  }

  #write(bytes: Buffer, from: number): void {
    write(this.#fd, bytes, from, bytes.length - from, null, (error, written) => {
      if (error && (error as NodeJS.ErrnoException).code === 'EAGAIN') {
        setTimeout(() => this.#write(bytes, from), 10)
        return
      }
      // Nobody reads (EPIPE): the lines are lost, the traffic goes on.
      if (!error && from + written < bytes.length) return this.#write(bytes, from + written)
      this.#held -= bytes.length
      this.#writing = false
      if (this.#held <= HIGH) for (const source of this.#sources) source.resume()
      this.#flush()
    })
  }
}
