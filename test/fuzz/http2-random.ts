// Seeded randomness and the pieces that fuzzed HTTP/2 is made of: frames, header blocks, requests right and wrong, bytes
// changed at random. Must not live here: what is done with them.
import { HpackEncoder } from '../../agent/http/hpack/encoder.ts'
import type { Headers } from '../../agent/http/message.ts'

/** The same numbers for the same seed. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** A whole number in [0, below). */
  below(below: number): number {
    // mulberry32
    let t = (this.#state = (this.#state + 0x6d2b79f5) | 0)
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (((t ^ (t >>> 14)) >>> 0) % 0x7fffffff) % below
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  bytes(most: number): Buffer {
    const out = Buffer.alloc(this.below(most + 1))
    for (let i = 0; i < out.length; i++) out[i] = this.below(256)
    return out
  }

  text(characters: string, most: number): string {
    let out = ''
    for (let left = this.below(most + 1); left > 0; left--) out += characters[this.below(characters.length)]
    return out
  }
}

export const PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export function frame(type: number, flags: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const out = Buffer.alloc(9 + payload.length)
  out.writeUIntBE(payload.length, 0, 3)
  out[3] = type
  out[4] = flags
  out.writeUInt32BE(id >>> 0, 5)
  out.set(payload, 9)
  return out
}

/** A block of an encoder that lasts as long as the conversation. Fields are written as they are, also wrong ones. */
export function block(encoder: HpackEncoder, fields: Headers): Buffer {
  const out = Buffer.alloc(fields.reduce((sum, text) => sum + text.length + 16, 16))
  encoder.begin(out, 0)
  for (let i = 0; i < fields.length; i += 2) encoder.field(fields[i] as string, fields[i + 1] as string)
  return Buffer.from(out.subarray(0, encoder.finish()))
}

const LOWER = 'abcdefghijklmnopqrstuvwxyz0123456789-'
const VISIBLE = `${LOWER}ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'()*+,./:;<=>?@[]^_{|}~\u00e9\u00ff`

/** Regular fields, each name once. */
export function fields(random: Random, most: number): Headers {
  const out: Headers = []
  const seen = new Set<string>()
  for (let left = random.below(most + 1); left > 0; left--) {
    const name = random.once(3)
      ? random.pick(['user-agent', 'accept', 'x-request-id', 'traceparent', 'content-type', 'etag', 'authorization'])
      : `x-${random.text(LOWER, 12)}`
    if (seen.has(name)) continue
    seen.add(name)
    out.push(name, random.once(2) ? random.pick(['', '1', 'gzip', 'application/grpc']) : random.text(VISIBLE, 60))
  }
  return out
}

const WRONG: readonly ((list: Headers, random: Random) => void)[] = [
  (list) => void list.push('connection', 'close'),
  (list) => void list.push('transfer-encoding', 'chunked'),
  (list) => void list.push('te', 'gzip'),
  (list) => void list.push(':path', '/late'),
  (list) => void list.unshift('x-early', '1'),
  (list) => void list.splice(0, 2),
  (list) => void list.splice(2, 2),
  (list) => void list.splice(4, 2),
  (list) => void list.unshift(':method', 'GET'),
  (list) => void list.unshift(':unknown', 'x'),
  (list) => void list.unshift(':status', '200'),
  (list, random) => void list.push('content-length', random.pick(['0', '1', '5', '-1', '1x', '99999999999999999999'])),
  (list) => void list.push('content-length', '3', 'content-length', '4'),
  (list) => {
    list[5] = ''
  },
  (list) => {
    list[5] = 'no-slash'
  },
]

/** A request's fields, mostly right. */
export function requestFields(random: Random): Headers {
  const method = random.pick(['GET', 'POST', 'PUT', 'OPTIONS', 'FOO'])
  const path = random.pick(['/', '/a?b=c', '/very/long/path'])
  const list = [':method', method, ':scheme', 'http', ':path', path, ':authority', 'a.example']
  list.push(...fields(random, 4))
  if (random.once(6)) list.push('content-length', random.pick(['0', '3', '5', '10']))
  if (random.once(5)) random.pick(WRONG)(list, random)
  return list
}

/** A conversation of a client: the preface, SETTINGS, then frames that are mostly right for the streams they name. */
export function conversation(random: Random): Buffer {
  const parts: Buffer[] = [PREFACE, frame(4, 0, 0, random.once(3) ? settings(random) : Buffer.alloc(0))]
  // No table of its own: a block that is lost must not change what the next one means.
  const encoder = new HpackEncoder(0)
  encoder.setLimit(0)
  let next = 1
  const anyStream = (): number => (random.once(30) ? random.below(12) : 1 + 2 * random.below((next - 1) / 2))
  for (let left = 1 + random.below(14); left > 0; left--) {
    // Nothing is right before the first request.
    switch (next === 1 ? 0 : random.below(12)) {
      case 0:
      case 1:
      case 2: {
        const id = next > 1 && random.once(20) ? anyStream() : next
        if (id === next) next += 2
        parts.push(...headers(random, id, block(encoder, requestFields(random)), random.once(2)))
        break
      }
      case 3:
        parts.push(...headers(random, anyStream(), block(encoder, fields(random, 3)), !random.once(5)))
        break
      case 4:
      case 5:
      case 6:
        parts.push(data(random, anyStream()))
        break
      case 7:
        parts.push(
          frame(8, 0, random.once(2) ? 0 : anyStream(), u32(random.pick([1, 1, 1000, 1000, 65_535, 0, 0x7fffffff]))),
        )
        break
      case 8:
        parts.push(frame(3, 0, anyStream(), u32(random.pick([0, 2, 8, 77]))))
        break
      case 9:
        parts.push(frame(2, 0, anyStream(), Buffer.concat([u32(anyStream()), Buffer.from([1])])))
        break
      case 10:
        parts.push(random.once(2) ? frame(4, 0, 0, settings(random)) : frame(6, 0, 0, Buffer.from('12345678')))
        break
      case 11:
        parts.push(
          frame(
            random.once(4) ? random.below(10) : 10 + random.below(200),
            random.below(256),
            anyStream(),
            random.bytes(20),
          ),
        )
        break
    }
  }
  const all = Buffer.concat(parts)
  return random.once(4) ? mutate(random, all, PREFACE.length) : all
}

export function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value >>> 0)
  return out
}

function settings(random: Random): Buffer {
  const pairs: Buffer[] = []
  for (let left = random.below(4); left > 0; left--) {
    const id = random.pick([1, 2, 3, 4, 5, 6, 8, 99])
    const right = [4096, 0, 100, 65_535, 16_384, 65_536, 1, 7]
    const at = [1, 2, 3, 4, 5, 6, 8, 99].indexOf(id)
    const value = random.once(8) ? random.pick([0, 2, 0x7fffffff, 0xffffffff]) : (right[at] as number)
    pairs.push(Buffer.from([0, id]), u32(value))
  }
  return Buffer.concat(pairs)
}

/** HEADERS, maybe padded, with a priority, cut into CONTINUATIONs. */
function headers(random: Random, id: number, payload: Buffer, end: boolean): Buffer[] {
  let flags = end ? 1 : 0
  const cut = random.once(4) ? random.below(payload.length + 1) : payload.length
  let first = payload.subarray(0, cut)
  if (cut === payload.length) flags |= 4
  if (random.once(5)) {
    first = Buffer.concat([u32(random.below(9)), Buffer.from([random.below(256)]), first])
    flags |= 0x20
  }
  if (random.once(5)) {
    const padding = random.below(8)
    first = Buffer.concat([Buffer.from([padding]), first, Buffer.alloc(padding)])
    flags |= 8
  }
  const out = [frame(1, flags, id, first)]
  if ((flags & 4) !== 0) return out
  const second = cut + random.below(payload.length - cut + 1)
  out.push(frame(9, 0, id, payload.subarray(cut, second)), frame(9, 4, id, payload.subarray(second)))
  return out
}

function data(random: Random, id: number): Buffer {
  let payload: Buffer = Buffer.from(random.text(LOWER, random.pick([0, 3, 5, 10, 40])))
  let flags = random.once(2) ? 1 : 0
  if (random.once(5)) {
    const padding = random.below(8)
    payload = Buffer.concat([Buffer.from([random.once(8) ? 255 : padding]), payload, Buffer.alloc(padding)])
    flags |= 8
  }
  return frame(0, flags, id, payload)
}

/** Changes, takes away or adds a few bytes from `from` on. */
export function mutate(random: Random, bytes: Buffer, from = 0): Buffer {
  let out = Buffer.from(bytes)
  for (let left = 1 + random.below(4); left > 0 && out.length > from; left--) {
    const at = from + random.below(out.length - from)
    switch (random.below(4)) {
      case 0:
        out[at] = random.below(256)
        break
      case 1:
        out[at] = (out[at] as number) ^ (1 << random.below(8))
        break
      case 2:
        out = Buffer.concat([out.subarray(0, at), random.bytes(8), out.subarray(at)])
        break
      case 3:
        out = Buffer.concat([out.subarray(0, at), out.subarray(at + 1 + random.below(8))])
        break
    }
  }
  return out
}
