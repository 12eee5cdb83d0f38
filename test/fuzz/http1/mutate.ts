// Changes of single bytes, and the places where bytes are cut into reads. Must not live here: grammar.
import type { Random } from './random.ts'

const BYTES = [0, 9, 10, 11, 13, 32, 34, 35, 44, 47, 48, 49, 58, 59, 61, 65, 95, 97, 127, 128, 160, 255]

/** A few bytes set, taken away, put in, doubled or moved. */
export function mutate(r: Random, text: string): string {
  let out = text
  for (let times = 1 + r.int(3); times > 0 && out.length > 0; times--) {
    const at = r.int(out.length)
    const byte = String.fromCharCode(r.chance(0.8) ? r.pick(BYTES) : r.int(256))
    const length = 1 + r.int(12)
    switch (r.int(6)) {
      case 0:
        out = out.slice(0, at) + byte + out.slice(at + 1)
        break
      case 1:
        out = out.slice(0, at) + out.slice(at + (r.chance(0.7) ? 1 : length))
        break
      case 2:
        out = out.slice(0, at) + byte + out.slice(at)
        break
      case 3:
        out = out.slice(0, at) + out.slice(at, at + length) + out.slice(at)
        break
      case 4: {
        const from = r.int(out.length)
        out = out.slice(0, at) + out.slice(from, from + length) + out.slice(at)
        break
      }
      default:
        out = out.slice(0, at)
    }
  }
  return out
}

/** Ends of the reads that bring `length` bytes, ascending, the last one `length`. */
export function cuts(r: Random, length: number): number[] {
  const how = r.int(64)
  if (how < 28 || length === 0) return [length]
  if (how === 63 && length < 400) return Array.from({ length }, (_, i) => i + 1)
  const ends = new Set<number>([length])
  for (let i = 1 + r.int(6); i > 0; i--) ends.add(1 + r.int(length))
  return [...ends].sort((a, b) => a - b)
}
