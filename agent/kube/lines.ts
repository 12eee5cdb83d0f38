// Splits a stream of bytes into lines. Must not live here: what a line means.

/** Collects bytes until a line is whole. A line longer than `max` bytes throws: no object is so large. */
export class Lines {
  readonly #max: number
  #pending: Buffer[] = []
  #size = 0

  constructor(max: number) {
    this.#max = max
  }

  /** The lines that `chunk` completes, without their ends. Throws RangeError. */
  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const last = chunk.subarray(from, end)
      if (this.#size + last.length > this.#max) throw new RangeError(`a line is longer than ${this.#max} bytes`)
      lines.push(this.#pending.length === 0 ? last.toString() : Buffer.concat([...this.#pending, last]).toString())
      this.#pending = []
      this.#size = 0
      from = end + 1
    }
    if (from < chunk.length) {
      const rest = chunk.subarray(from)
      this.#size += rest.length
      if (this.#size > this.#max) throw new RangeError(`a line is longer than ${this.#max} bytes`)
      // A piece of a large chunk would keep all of it.
      this.#pending.push(from === 0 ? rest : Buffer.from(rest))
    }
    return lines
  }
}
