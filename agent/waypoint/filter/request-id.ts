// Request ids: random UUIDs (version 4), made many at a time.
import { randomFillSync } from 'node:crypto'

/** Made at once; 18 KB of text. */
const BATCH = 512
const LENGTH = 36
const random = Buffer.allocUnsafeSlow(BATCH * 16)
const written = Buffer.allocUnsafeSlow(BATCH * LENGTH)
const DIGITS = Buffer.from('0123456789abcdef', 'latin1')

let text = ''
let next = BATCH

/** A fresh UUID as text. */
export function newRequestId(): string {
  if (next === BATCH) refill()
  const at = next++ * LENGTH
  return text.slice(at, at + LENGTH)
}

function refill(): void {
  randomFillSync(random)
  let to = 0
  for (let i = 0; i < random.length; i++) {
    const place = i & 15
    let byte = random[i] as number
    if (place === 6) byte = (byte & 0x0f) | 0x40
    else if (place === 8) byte = (byte & 0x3f) | 0x80
    if (place === 4 || place === 6 || place === 8 || place === 10) written[to++] = 0x2d
    written[to++] = DIGITS[byte >> 4] as number
    written[to++] = DIGITS[byte & 15] as number
  }
  text = written.toString('latin1', 0, to)
  next = 0
}
