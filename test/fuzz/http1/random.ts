// Chance that can be repeated: the same numbers for the same seed and case. Must not live here: what is generated.

export class Random {
  #a: number
  #b: number

  constructor(seed: number, index: number) {
    this.#a = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35)
    this.#b = Math.imul(index ^ 0x7f4a7c15, 0x27d4eb2f) ^ seed
    for (let i = 0; i < 4; i++) this.next()
  }

  /** 32 bits (xoroshiro64*). */
  next(): number {
    const a = this.#a
    let b = this.#b ^ a
    const out = Math.imul(a, 0x9e3779bb)
    this.#a = ((a << 26) | (a >>> 6)) ^ b ^ (b << 9)
    b = (b << 13) | (b >>> 19)
    this.#b = b
    return out >>> 0
  }

  /** 0 ≤ whole number < below. */
  int(below: number): number {
    return Math.floor((this.next() / 4_294_967_296) * below)
  }

  chance(of: number): boolean {
    return this.next() < of * 4_294_967_296
  }

  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)] as T
  }
}
