// HPACK decoding (RFC 7541): one per connection and direction. Memory is bounded by the table size that was announced
// and by `maxList`, the size of a header list as RFC 9113 §6.5.2 counts it: what exceeds it is decoded (the table must
// stay in step) but not kept. Must not live here: what a list of fields means (http2/validate.ts).
import { NAME_CHARACTER, VALUE_CHARACTER } from './characters.ts'
import { HpackError } from './error.ts'
import { huffmanDecode } from './huffman.ts'
import { STATIC_COUNT, STATIC_TABLE } from './static-table.ts'

/** One decoded block; reused from block to block except for `headers`. */
export interface HeaderBlock {
  /** Name, value, name, value … in order, pseudo-header fields included. */
  headers: string[]
  /** Why the block is malformed, or ''. A malformed block is a stream error, not a connection error. */
  malformed: string
  /** The list was larger than allowed; `headers` then holds only its beginning. */
  overflow: boolean
}

/** RFC 7541 §4.1: what an entry costs beside its characters. */
const ENTRY_OVERHEAD = 32
const BAD_NAME = 1
const BAD_VALUE = 2

/** Longest encoded string that is kept, and how many: what messages repeat is short. */
const KEPT_BYTES = 32
const KEPT = 1_024

/**
 * Strings that were decoded before, by their bytes as sent: most of what is not in a table repeats all the same (names,
 * paths, lengths, dates), and is then neither decoded nor made again. Direct-mapped, one for all connections, 50 KB.
 */
class StringCache {
  readonly #bytes = new Uint8Array(KEPT * KEPT_BYTES)
  /** Length as sent; 128 more for Huffman. 0 is free: empty strings are not kept. */
  readonly #lengths = new Uint8Array(KEPT)
  readonly #strings: string[] = Array.from({ length: KEPT }, () => '')
  #slot = 0

  /** bytes[from, to), at most KEPT_BYTES, if they were kept; else `keep` may follow. */
  find(bytes: Uint8Array, from: number, to: number, huffman: boolean): string | undefined {
    let hash = to - from
    for (let i = from; i < to; i++) hash = (Math.imul(hash, 31) + (bytes[i] as number)) | 0
    const slot = (hash ^ (hash >>> 10) ^ (hash >>> 20)) & (KEPT - 1)
    this.#slot = slot
    if (this.#lengths[slot] !== to - from + (huffman ? 128 : 0)) return undefined
    const kept = this.#bytes
    for (let i = from, at = slot * KEPT_BYTES; i < to; i++, at++) if (kept[at] !== bytes[i]) return undefined
    return this.#strings[slot]
  }

  /** After a `find` that found nothing. */
  keep(bytes: Uint8Array, from: number, to: number, huffman: boolean, text: string): void {
    const slot = this.#slot
    this.#lengths[slot] = to - from + (huffman ? 128 : 0)
    this.#strings[slot] = text
    for (let i = from, at = slot * KEPT_BYTES; i < to; i++, at++) this.#bytes[at] = bytes[i] as number
  }
}

/** Only strings without a fault are kept, and what may stand in a name and in a value differs. */
const NAMES = new StringCache()
const VALUES = new StringCache()

export class HpackDecoder {
  /** Largest table the peer may ask for: our SETTINGS_HEADER_TABLE_SIZE. */
  readonly #limit: number
  readonly #maxList: number
  #capacity: number
  #size = 0
  /** The dynamic table, a ring: the newest entry is at #next − 1. A power of two that holds limit / 32 entries. */
  readonly #mask: number
  readonly #names: string[]
  readonly #values: string[]
  readonly #faults: Uint8Array
  #next = 0
  #count = 0
  #at = 0
  #fault = 0
  /** Decoded Huffman strings, and the view used to read strings from the arena last seen. */
  #scratch = Buffer.allocUnsafe(1024)
  #source: Uint8Array | undefined
  #view: Buffer = this.#scratch

  constructor(limit = 4096, maxList = 65_536) {
    this.#limit = limit
    this.#capacity = limit
    this.#maxList = maxList
    let slots = 1
    while (slots < limit / ENTRY_OVERHEAD) slots *= 2
    this.#mask = slots - 1
    this.#names = Array.from({ length: slots }, () => '')
    this.#values = Array.from({ length: slots }, () => '')
    this.#faults = new Uint8Array(slots)
  }

  /** Bytes the dynamic table takes, for tests and dumps. */
  get size(): number {
    return this.#size
  }

  /** Decodes bytes[start, end), a whole block. Throws HpackError, after which the connection cannot go on. */
  decode(bytes: Uint8Array, start: number, end: number, out: HeaderBlock): void {
    if (this.#source !== bytes) {
      this.#source = bytes
      this.#view = bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    }
    const headers: string[] = []
    out.headers = headers
    out.malformed = ''
    out.overflow = false
    let listSize = 0
    let fields = false
    this.#at = start
    while (this.#at < end) {
      const byte = bytes[this.#at] as number
      let name: string
      let value: string
      let fault = 0
      if (byte >= 0x80) {
        // Indexed field, §6.1.
        const index = this.#integer(bytes, end, 7)
        if (index === 0) throw new HpackError('Index 0 was used.')
        if (index <= STATIC_COUNT) {
          name = STATIC_TABLE[index * 2 - 2] as string
          value = STATIC_TABLE[index * 2 - 1] as string
        } else {
          const slot = this.#slot(index)
          name = this.#names[slot] as string
          value = this.#values[slot] as string
          fault = this.#faults[slot] as number
        }
      } else if (byte >= 0x20 && byte < 0x40) {
        // Table size update, §6.3: only before the first field.
        if (fields) throw new HpackError('A table size update came after a field.')
        const size = this.#integer(bytes, end, 5)
        if (size > this.#limit)
          throw new HpackError(`A table of ${size} bytes was asked for, ${this.#limit} are allowed.`)
        this.#capacity = size
        this.#evict(0)
        continue
      } else {
        // Literal with incremental indexing (§6.2.1), without (§6.2.2), never indexed (§6.2.3).
        const indexing = byte >= 0x40
        const index = this.#integer(bytes, end, indexing ? 6 : 4)
        this.#fault = 0
        // What the peer calls secret is not kept where others' strings are.
        const secret = byte >= 0x10 && byte < 0x20
        if (index === 0) name = this.#string(bytes, end, true, false)
        else if (index <= STATIC_COUNT) name = STATIC_TABLE[index * 2 - 2] as string
        else {
          const slot = this.#slot(index)
          name = this.#names[slot] as string
          this.#fault = (this.#faults[slot] as number) & BAD_NAME
        }
        value = this.#string(bytes, end, false, secret)
        fault = this.#fault
        if (indexing) this.#insert(name, value, fault)
      }
      fields = true
      listSize += name.length + value.length + ENTRY_OVERHEAD
      if (listSize > this.#maxList) {
        out.overflow = true
        continue
      }
      headers.push(name, value)
      if (fault !== 0 && out.malformed === '') {
        out.malformed =
          (fault & BAD_NAME) !== 0 ? 'a field name has a forbidden character' : `the value of '${name}' is not allowed`
      }
    }
  }

  /** A prefixed integer, §5.1; values from 2^28 on are refused, nothing in HTTP/2 needs them. */
  #integer(bytes: Uint8Array, end: number, prefix: number): number {
    const mask = (1 << prefix) - 1
    let value = (bytes[this.#at++] as number) & mask
    if (value < mask) return value
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.#at >= end) throw new HpackError('An integer is cut off.')
      const byte = bytes[this.#at++] as number
      value += (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    throw new HpackError('An integer is too large.')
  }

  /** A string literal, §5.2; records in #fault what is wrong with its characters. */
  #string(bytes: Uint8Array, end: number, isName: boolean, secret: boolean): string {
    if (this.#at >= end) throw new HpackError('A string is cut off.')
    const huffman = (bytes[this.#at] as number) >= 0x80
    let length = this.#integer(bytes, end, 7)
    let from = this.#at
    if (length > end - from) throw new HpackError('A string is longer than its block.')
    this.#at = from + length
    const sent = from
    const sentTo = from + length
    const cache = secret || length > KEPT_BYTES || length === 0 ? undefined : isName ? NAMES : VALUES
    if (cache !== undefined) {
      const kept = cache.find(bytes, sent, sentTo, huffman)
      if (kept !== undefined) return kept
    }
    let source: Uint8Array = bytes
    let view = this.#view
    if (huffman) {
      // The shortest code has five bits. `length` is bounded by the block, which the frame reader bounds.
      const most = Math.ceil((length * 8) / 5)
      if (this.#scratch.length < most) this.#scratch = Buffer.allocUnsafe(most)
      const decoded = huffmanDecode(bytes, from, from + length, this.#scratch)
      if (decoded < 0) throw new HpackError('A string has a broken Huffman code.')
      source = view = this.#scratch
      from = 0
      length = decoded
    }
    if (length === 0) {
      if (isName) this.#fault |= BAD_NAME
      return ''
    }
    const to = from + length
    let fault = 0
    if (isName) {
      let i = from
      // A colon may only lead a pseudo-header field; which of those exist is judged with the whole list.
      if (source[i] === 0x3a && length > 1) i++
      for (; i < to; i++) if (NAME_CHARACTER[source[i] as number] === 0) fault = BAD_NAME
    } else {
      for (let i = from; i < to; i++) if (VALUE_CHARACTER[source[i] as number] === 0) fault = BAD_VALUE
      const first = source[from] as number
      const last = source[to - 1] as number
      if (first === 0x20 || first === 9 || last === 0x20 || last === 9) fault = BAD_VALUE
    }
    const text = view.toString('latin1', from, to)
    if (fault !== 0) this.#fault |= fault
    else if (cache !== undefined) cache.keep(bytes, sent, sentTo, huffman, text)
    return text
  }

  #slot(index: number): number {
    const position = index - STATIC_COUNT
    if (position > this.#count) throw new HpackError(`Index ${index} is not in the table.`)
    return (this.#next - position) & this.#mask
  }

  #insert(name: string, value: string, fault: number): void {
    const size = name.length + value.length + ENTRY_OVERHEAD
    // An entry larger than the table empties it, §4.4.
    this.#evict(size)
    if (size > this.#capacity) return
    const slot = this.#next & this.#mask
    this.#names[slot] = name
    this.#values[slot] = value
    this.#faults[slot] = fault
    this.#next = (this.#next + 1) & 0x3fffffff
    this.#count++
    this.#size += size
  }

  #evict(room: number): void {
    while (this.#count > 0 && this.#size + room > this.#capacity) {
      const slot = (this.#next - this.#count) & this.#mask
      this.#size -= (this.#names[slot] as string).length + (this.#values[slot] as string).length + ENTRY_OVERHEAD
      this.#names[slot] = ''
      this.#values[slot] = ''
      this.#count--
    }
  }
}
