// HPACK encoding (RFC 7541): one per connection and direction. What repeats goes into the dynamic table; what is new
// each time, or secret, does not. Must not live here: which fields a message has (http2/).
import { AmbitError } from '../../base/errors.ts'
import { NAME_CHARACTER, VALUE_CHARACTER } from './characters.ts'
import { huffmanEncode, huffmanLength } from './huffman.ts'
import { STATIC_COUNT, STATIC_TABLE } from './static-table.ts'

const ENTRY_OVERHEAD = 32
/** New values of one name in a row, none used again, after which the name counts as one whose values do not repeat. */
const MOST_FRESH = 16
/** Entries of one name that a value is compared with: comparing beats hashing, since most values are new strings. */
const MOST_COMPARED = 8
/** Names an encoder keeps a state for; beyond, it forgets them all and learns anew. */
const MOST_NAMES = 512
/** Longer values are not worth their room in a table of 4 KiB. */
const MAX_INDEXED_VALUE = 512

/** What is known of a name before any message. */
interface NameFacts {
  /** First index in the static table, 0 for none. */
  readonly index: number
  /** Values of the static table: value, index, value, index … */
  readonly values: readonly (string | number)[]
  readonly indexing: 'yes' | 'no' | 'never'
}

/** Different in nearly every message: only a value that comes twice in a row is indexed. */
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
  const values = [...(known?.values ?? []), ...(value === '' ? [] : [value, i + 1])]
  NAMES.set(name, { index: known?.index ?? i + 1, values, indexing: 'yes' })
}
for (const name of VOLATILE) NAMES.set(name, { index: 0, values: [], ...NAMES.get(name), indexing: 'no' })
for (const name of SECRET) NAMES.set(name, { index: 0, values: [], ...NAMES.get(name), indexing: 'never' })

const UNKNOWN: NameFacts = { index: 0, values: [], indexing: 'yes' }
const NOWHERE = -1_000

/** What one encoder knows of one name. Entry numbers count insertions; one is gone once it is below the oldest. */
class NameState {
  readonly facts: NameFacts
  /** The newest entries with this name, as many as are compared, in a ring; what is older is not found again. */
  readonly recent: number[] = []
  next = 0
  /** The value sent last, and where it stands: an entry's number, minus a static index, or NOWHERE. */
  last: string | undefined = undefined
  lastPlace = NOWHERE
  /** The newest entry with this name, −1 for none. */
  newest = -1
  /** Values inserted since one was used again. */
  fresh = 0

  constructor(facts: NameFacts) {
    this.facts = facts
  }
}

export class HpackEncoder {
  #capacity: number
  readonly #own: number
  #size = 0
  /** The dynamic table, oldest entry first; the head of the arrays is cut now and then. */
  #names: string[] = []
  #values: string[] = []
  #head = 0
  /** Number of the next entry, and of the oldest that is still there. */
  #inserted = 0
  #oldest = 0
  readonly #states = new Map<string, NameState>()
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
    const state = this.#states.get(name) ?? this.#learn(name)
    const repeated = state.last === value
    if (repeated) {
      const place = state.lastPlace
      if (place >= this.#oldest) {
        state.fresh = 0
        this.#integer(0x80, 7, STATIC_COUNT + this.#inserted - place)
        return
      }
      if (place < 0 && place !== NOWHERE) {
        this.#integer(0x80, 7, -place)
        return
      }
    }
    const { facts } = state
    const { values } = facts
    for (let i = 0; i < values.length; i += 2) {
      if (values[i] !== value) continue
      const known = values[i + 1] as number
      state.last = value
      state.lastPlace = -known
      this.#integer(0x80, 7, known)
      return
    }
    const { recent } = state
    for (let i = 0; i < recent.length; i++) {
      const exact = recent[i] as number
      if (exact < this.#oldest || this.#values[this.#head + exact - this.#oldest] !== value) continue
      state.last = value
      state.lastPlace = exact
      state.fresh = 0
      this.#integer(0x80, 7, STATIC_COUNT + this.#inserted - exact)
      return
    }
    let index = facts.index
    if (index === 0 && state.newest >= this.#oldest) index = STATIC_COUNT + this.#inserted - state.newest
    const size = name.length + value.length + ENTRY_OVERHEAD
    // What is seen for the first time, what repeats, and one value of each name, so that the name need not be sent again.
    const worth = index === 0 || repeated || (facts.indexing === 'yes' && state.fresh < MOST_FRESH)
    const insert = worth && facts.indexing !== 'never' && value.length <= MAX_INDEXED_VALUE && size <= this.#capacity
    if (insert) this.#integer(0x40, 6, index)
    else this.#integer(facts.indexing === 'never' ? 0x10 : 0, 4, index)
    if (index === 0) this.#string(name, NAME_CHARACTER, insert)
    this.#string(value, VALUE_CHARACTER, insert)
    state.last = value
    state.lastPlace = NOWHERE
    if (!insert) return
    state.fresh++
    state.lastPlace = state.newest = this.#inserted
    recent[state.next] = this.#inserted
    state.next = (state.next + 1) % MOST_COMPARED
    this.#insert(name, value, size)
  }

  #learn(name: string): NameState {
    if (this.#states.size >= MOST_NAMES) this.#states.clear()
    const state = new NameState(NAMES.get(name) ?? UNKNOWN)
    this.#states.set(name, state)
    return state
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
    // Huffman costs CPU each time it is done: worth it for what is sent once and then stands in the table.
    const packed = compress ? huffmanLength(text) : length
    const out = this.#out
    if (packed < length) this.#integer(0x80, 7, packed)
    else this.#integer(0, 7, length)
    let at = this.#at
    let i = 0
    if (allowed === NAME_CHARACTER && length > 1 && text.charCodeAt(0) === 0x3a) {
      out[at++] = 0x3a
      i = 1
    }
    // Written while they are checked; a code above 255 is not in the table either.
    for (; i < length; i++) {
      const code = text.charCodeAt(i)
      if (allowed[code] !== 1) this.#refuse(text, allowed)
      out[at++] = code
    }
    if (packed < length) at = huffmanEncode(text, out, this.#at)
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
    this.#names.push(name)
    this.#values.push(value)
    this.#inserted++
    this.#size += size
  }

  #evict(room: number): void {
    while (this.#size > 0 && this.#size + room > this.#capacity) {
      const name = this.#names[this.#head] as string
      const value = this.#values[this.#head] as string
      this.#head++
      this.#oldest++
      this.#size -= name.length + value.length + ENTRY_OVERHEAD
    }
    if (this.#head > 256) {
      this.#names = this.#names.slice(this.#head)
      this.#values = this.#values.slice(this.#head)
      this.#head = 0
    }
  }
}
