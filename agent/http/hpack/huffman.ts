// The Huffman code of HPACK (RFC 7541 §5.2, Appendix B). The code is canonical, so that its lengths are all one needs:
// the codes, and the state machine that decodes four bits at a time, are computed when the module loads.
// Must not live here: strings with their length prefix (decoder.ts, encoder.ts).

/** Code length of each byte in bits; EOS (256) has 30. */
// prettier-ignore
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
]
const EOS = 256

const CODES = new Uint32Array(257)
const BITS = new Uint8Array(257)

const EMITS = 1 << 17
const FAILS = 1 << 18

/** States in which input may end: at a code's end, or within at most seven 1-bits of EOS (padding, §5.2). */
const ACCEPTING = new Uint8Array(257)
/** Transition for state × nibble: bits 0–8 next state, 9–16 symbol, then EMITS or FAILS. */
const MACHINE: Uint32Array = build()

function build(): Uint32Array {
  const order = LENGTHS.map((_, symbol) => symbol).sort(
    (a, b) => (LENGTHS[a] as number) - (LENGTHS[b] as number) || a - b,
  )
  let code = 0
  let length = LENGTHS[order[0] as number] as number
  // A binary tree in two arrays: child < 0 is a leaf for symbol −child − 1.
  const zero: number[] = [0]
  const one: number[] = [0]
  for (const symbol of order) {
    const bits = LENGTHS[symbol] as number
    code = code * 2 ** (bits - length)
    length = bits
    CODES[symbol] = code
    BITS[symbol] = bits
    let node = 0
    for (let bit = bits - 1; bit >= 0; bit--) {
      const side = (code >>> bit) & 1 ? one : zero
      if (bit === 0) {
        side[node] = -symbol - 1
        break
      }
      let next = side[node] as number
      if (next === 0) {
        next = zero.length
        zero.push(0)
        one.push(0)
        side[node] = next
      }
      node = next
    }
    code++
  }
  for (let node = 0, depth = 0; depth < 8; depth++) {
    ACCEPTING[node] = 1
    node = one[node] as number
  }
  const machine = new Uint32Array(zero.length * 16)
  for (let state = 0; state < zero.length; state++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      let node = state
      let entry = 0
      for (let bit = 3; bit >= 0; bit--) {
        const next = ((nibble >>> bit) & 1 ? one : zero)[node] as number
        if (next >= 0) {
          node = next
          continue
        }
        const symbol = -next - 1
        // EOS inside a string is an error; the shortest code has five bits, so that a nibble ends at most one.
        if (symbol === EOS) entry = FAILS
        else entry = EMITS | (symbol << 9)
        node = 0
      }
      machine[state * 16 + nibble] = entry | node
    }
  }
  return machine
}

/**
 * Decodes bytes[start, end) into `out` from 0 on and returns the length, or −1 when the code is broken (EOS inside,
 * padding that is longer than seven bits or not all ones). `out` must hold 8/5 of the input, rounded up.
 */
export function huffmanDecode(bytes: Uint8Array, start: number, end: number, out: Uint8Array): number {
  let state = 0
  let length = 0
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number
    let entry = MACHINE[(state << 4) | (byte >>> 4)] as number
    if ((entry & EMITS) !== 0) out[length++] = (entry >>> 9) & 0xff
    else if ((entry & FAILS) !== 0) return -1
    entry = MACHINE[((entry & 0x1ff) << 4) | (byte & 15)] as number
    if ((entry & EMITS) !== 0) out[length++] = (entry >>> 9) & 0xff
    else if ((entry & FAILS) !== 0) return -1
    state = entry & 0x1ff
  }
  return ACCEPTING[state] === 1 ? length : -1
}

/** Bytes `text` (Latin-1) takes when encoded. */
export function huffmanLength(text: string): number {
  let bits = 0
  for (let i = 0; i < text.length; i++) bits += BITS[text.charCodeAt(i) & 0xff] as number
  return (bits + 7) >>> 3
}

/** Encodes `text` (Latin-1) into `out` at `at` and returns the position after it. */
export function huffmanEncode(text: string, out: Uint8Array, at: number): number {
  // At most 7 bits wait between symbols and a code has at most 30: 37 bits do not fit an int32, hence two steps.
  let held = 0
  let count = 0
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i) & 0xff
    const code = CODES[symbol] as number
    let bits = BITS[symbol] as number
    if (bits > 16) {
      bits -= 16
      held = (held << bits) | (code >>> 16)
      count += bits
      while (count >= 8) {
        count -= 8
        out[at++] = held >>> count
      }
      held &= (1 << count) - 1
      held = (held << 16) | (code & 0xffff)
      count += 16
    } else {
      held = (held << bits) | code
      count += bits
    }
    while (count >= 8) {
      count -= 8
      out[at++] = held >>> count
    }
    held &= (1 << count) - 1
  }
  if (count > 0) out[at++] = (held << (8 - count)) | ((1 << (8 - count)) - 1)
  return at
}
