// HPACK encoding (RFC 7541): one per connection and direction. What repeats goes into the dynamic table; what is new
// each time, or secret, does not. Must not live here: which fields a message has (http2/).
import { AmbitError } from '../../base/errors.ts'
import { NAME_CHARACTER, VALUE_CHARACTER } from './characters.ts'
import { huffmanEncode, huffmanLength } from './huffman.ts'
import { STATIC_COUNT, STATIC_TABLE } from './static-table.ts'

const ENTRY_OVERHEAD = 32
/** Longer values are not worth their room in a table of 4 KiB. */
const MAX_INDEXED_VALUE = 512

/** What is known of a name before any message. */
interface NameFacts {
  /** First index in the static table, 0 for none. */
  readonly index: number
  readonly values: ReadonlyMap<string, number> | undefined
  readonly indexing: 'yes' | 'no' | 'never'
}

/** Different in nearly every message: indexing them would only push out what repeats. */
const VOLATILE = [
  ':path',
  'age',
  'content-length',
  'content-range',
  'date',
  'etag',
  'forwarded',
  'grpc-timeout',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'last-modified',
  'location',
  'traceparent',
  'tracestate',
  'x-envoy-upstream-service-time',
  'x-forwarded-for',
  'x-request-id',
]
/** Never indexed, also by intermediaries (§7.1.3). */
const SECRET = ['authorization', 'cookie', 'proxy-authorization', 'set-cookie']

const NAMES = new Map<string, NameFacts>()
for (let i = 0; i < STATIC_COUNT; i++) {
  const name = STATIC_TABLE[i * 2] as string
  const value = STATIC_TABLE[i * 2 + 1] as string
  const known = NAMES.get(name)
  const values = new Map(known?.values)
  if (value !== '') values.set(value, i + 1)
  NAMES.set(name, { index: known?.index ?? i + 1, values: values.size > 0 ? values : undefined, indexing: 'yes' })
}
for (const name of VOLATILE) NAMES.set(name, { index: 0, values: undefined, ...NAMES.get(name), indexing: 'no' })
for (const name of SECRET) NAMES.set(name, { index: 0, values: undefined, ...NAMES.get(name), indexing: 'never' })

const UNKNOWN: NameFacts = { index: 0, values: undefined, indexing: 'yes' }

export class HpackEncoder {
  #capacity: number
  readonly #own: number
  #size = 0
  /** Entries by absolute number: #first … #first + #names.length − 1, oldest first; the head of the arrays is cut now and then. */
  #names: string[] = []
  #values: string[] = []
  #head = 0
  #inserted = 0
  readonly #index = new Map<string, Map<string, number>>()
  /** Smallest table size since the last block, and whether the peer must be told. */
  #smallest: number
  #announce = false
  #out: Uint8Array = new Uint8Array(0)
  #at = 0

  /** `limit`: most this side will use, whatever the peer allows. A peer allows 4 096 until it says otherwise. */
  constructor(limit = 4096) {
    this.#own = limit
    this.#capacity = Math.min(limit, 4096)
    this.#smallest = this.#capacity
  }

  /** Bytes the dynamic table takes, for tests and dumps. */
  get size(): number {
    return this.#size
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. */
  setLimit(size: number): void {
    const capacity = Math.min(size, this.#own)
    if (capacity === this.#capacity) return
    this.#capacity = capacity
    this.#smallest = Math.min(this.#smallest, capacity)
    this.#announce = true
    this.#evict(0)
  }

  /** Begins a block in `out` at `at`, where room for all fields is needed: `fieldRoom` each, and 12 bytes. */
  begin(out: Uint8Array, at: number): void {
    this.#out = out
    this.#at = at
    if (!this.#announce) return
    // Both the smallest and the final size are told, §4.2.
    if (this.#smallest < this.#capacity) this.#integer(0x20, 5, this.#smallest)
    this.#integer(0x20, 5, this.#capacity)
    this.#smallest = this.#capacity
    this.#announce = false
  }

  /** Position after the block. */
  finish(): number {
    return this.#at
  }

  /** Throws HTTP_HEADER_INVALID for characters that cannot be sent; the block is then lost, the connection is not. */
  field(name: string, value: string): void {
    const facts = NAMES.get(name) ?? UNKNOWN
    const known = facts.values?.get(value)
    if (known !== undefined) {
      this.#integer(0x80, 7, known)
      return
    }
    let index = facts.index
    const byValue = this.#index.get(name)
    if (byValue !== undefined) {
      const exact = byValue.get(value)
      if (exact !== undefined) {
        this.#integer(0x80, 7, STATIC_COUNT + this.#inserted - exact)
        return
      }
    }
    const size = name.length + value.length + ENTRY_OVERHEAD
    const insert = facts.indexing === 'yes' && value.length <= MAX_INDEXED_VALUE && size <= this.#capacity
    if (insert) {
      if (index === 0 && byValue !== undefined) {
        for (const number of byValue.values()) {
          index = STATIC_COUNT + this.#inserted - number
          break
        }
      }
      this.#integer(0x40, 6, index)
    } else this.#integer(facts.indexing === 'never' ? 0x10 : 0, 4, index)
    if (index === 0) this.#string(name, NAME_CHARACTER, insert)
    this.#string(value, VALUE_CHARACTER, insert)
    if (insert) this.#insert(name, value, size)
  }

  /** Room one field may take at most. */
  static fieldRoom(name: string, value: string): number {
    return name.length + value.length + 16
  }

  #integer(flags: number, prefix: number, value: number): void {
    const mask = (1 << prefix) - 1
    if (value < mask) {
      this.#out[this.#at++] = flags | value
      return
    }
    this.#out[this.#at++] = flags | mask
    value -= mask
    while (value >= 0x80) {
      this.#out[this.#at++] = (value & 0x7f) | 0x80
      value >>>= 7
    }
    this.#out[this.#at++] = value
  }

  #string(text: string, allowed: Uint8Array, compress: boolean): void {
    const length = text.length
    let i = allowed === NAME_CHARACTER && length > 1 && text.charCodeAt(0) === 0x3a ? 1 : 0
    for (; i < length; i++) {
      const code = text.charCodeAt(i)
      if (code > 255 || allowed[code] === 0) this.#refuse(text, allowed)
    }
    // Huffman costs CPU each time it is done: worth it for what is sent once and then stands in the table.
    if (compress) {
      const packed = huffmanLength(text)
      if (packed < length) {
        this.#integer(0x80, 7, packed)
        this.#at = huffmanEncode(text, this.#out, this.#at)
        return
      }
    }
    this.#integer(0, 7, length)
    let at = this.#at
    for (i = 0; i < length; i++) this.#out[at++] = text.charCodeAt(i)
    this.#at = at
  }

  #refuse(text: string, allowed: Uint8Array): never {
    // The block is abandoned, though its first fields may already stand in the table: empty it here, and have the peer
    // do the same before the next block.
    this.#evict(this.#capacity + 1)
    this.#smallest = 0
    this.#announce = true
    const what = allowed === NAME_CHARACTER ? 'field name' : 'field value'
    throw new AmbitError('HTTP_HEADER_INVALID', `The ${what} ${JSON.stringify(text.slice(0, 80))} cannot be sent.`, {
      hint: 'Names are lower-case tokens, values have no control characters.',
    })
  }

  #insert(name: string, value: string, size: number): void {
    this.#evict(size)
    let byValue = this.#index.get(name)
    if (byValue === undefined) this.#index.set(name, (byValue = new Map()))
    byValue.set(value, this.#inserted)
    this.#names.push(name)
    this.#values.push(value)
    this.#inserted++
    this.#size += size
  }

  #evict(room: number): void {
    while (this.#size > 0 && this.#size + room > this.#capacity) {
      const name = this.#names[this.#head] as string
      const value = this.#values[this.#head] as string
      const number = this.#inserted - (this.#names.length - this.#head)
      this.#head++
      this.#size -= name.length + value.length + ENTRY_OVERHEAD
      const byValue = this.#index.get(name)
      if (byValue?.get(value) === number) {
        byValue.delete(value)
        if (byValue.size === 0) this.#index.delete(name)
      }
    }
    if (this.#head > 256) {
      this.#names = this.#names.slice(this.#head)
      this.#values = this.#values.slice(this.#head)
      this.#head = 0
    }
  }
}
