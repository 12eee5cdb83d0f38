// Maps of the kernel with the manners of JavaScript's Map: typed keys and values, one system call per operation (about a
// microsecond or two). Must not live here: the ring buffer (ring.ts) and how maps come to be (object.ts).
import { native } from './addon.ts'
import { i32, u64, type Codec } from './codec.ts'
import { BpfError, check, failure } from './errors.ts'
import { mapTypes, updateFlags, type MapType } from './kinds.ts'

const ENOENT = 2

/** What a map is, as the kernel or the object file says it. */
export interface MapShape {
  readonly name: string
  readonly type: MapType
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
}

/** Who a descriptor belongs to: nothing that came from a closed module may touch its number again. */
export interface Owner {
  readonly closed: boolean
}

/** Anything with a map behind a descriptor. */
export abstract class MapHandle {
  readonly shape: MapShape
  #fd: number
  /** Who closes the descriptor: this handle, or the module it came from (kept alive through this reference). */
  readonly #owner: Owner | undefined

  constructor(fd: number, shape: MapShape, owner: Owner | undefined) {
    this.#fd = fd
    this.shape = shape
    this.#owner = owner
  }

  /** The descriptor, for other system calls; still owned by this handle. */
  get fd(): number {
    if (this.#fd < 0 || this.#owner?.closed === true) {
      throw new BpfError('CLOSED', 0, '', `Map ${this.shape.name} is closed`)
    }
    return this.#fd
  }

  /** Makes the map outlive the process, at a path on a bpffs whose directory exists. */
  pin(path: string): void {
    check(native().objPin(this.fd, path), 'BPF_OBJ_PIN', `Pinning map ${this.shape.name} at ${path}`)
  }

  /** Closes a map that was opened by its pin or created by createMap; one that belongs to a module stays with it. */
  close(): void {
    if (this.#fd >= 0 && this.#owner === undefined) native().close(this.#fd)
    this.#fd = -1
  }
}

/** How `set` treats a key that is or is not there: any, only new (EEXIST), only present (ENOENT). */
export type UpdateMode = keyof typeof updateFlags

/** Shared by all keyed maps: scratch bytes for one key and one value, and the walk over keys. */
abstract class KeyedMap<K> extends MapHandle {
  protected readonly keyCodec: Codec<K>
  protected readonly key: Uint8Array
  protected readonly value: Uint8Array
  protected readonly valueView: DataView
  readonly #keyView: DataView

  constructor(fd: number, shape: MapShape, key: Codec<K>, valueBytes: number, owner: Owner | undefined) {
    super(fd, shape, owner)
    if (key.size !== shape.keySize) {
      throw new BpfError('LAYOUT', 0, '', `Map ${shape.name} has keys of ${shape.keySize} bytes, the codec ${key.size}`)
    }
    this.keyCodec = key
    this.key = new Uint8Array(key.size)
    this.#keyView = new DataView(this.key.buffer)
    this.value = new Uint8Array(valueBytes)
    this.valueView = new DataView(this.value.buffer)
  }

  /** Writes `key` into the scratch bytes. Padding is zero: the kernel hashes raw bytes. */
  protected putKey(key: K): void {
    this.key.fill(0)
    this.keyCodec.write(this.#keyView, 0, key)
  }

  /** Fills the scratch value for a key; false if there is none. */
  protected lookup(key: K): boolean {
    this.putKey(key)
    return this.lookupRaw(this.key)
  }

  protected lookupRaw(key: Uint8Array): boolean {
    const result = native().mapLookup(this.fd, key, this.value)
    if (result === -ENOENT) return false
    check(result, 'BPF_MAP_LOOKUP_ELEM', `Reading map ${this.shape.name}`)
    return true
  }

  protected store(key: K, mode: UpdateMode): void {
    this.putKey(key)
    const result = native().mapUpdate(this.fd, this.key, this.value, updateFlags[mode])
    if (result < 0) throw failure(-result, 'BPF_MAP_UPDATE_ELEM', `Writing map ${this.shape.name}`)
  }

  has(key: K): boolean {
    return this.lookup(key)
  }

  /** Removes an entry; false if there was none. (Arrays refuse with EINVAL: their entries cannot go.) */
  delete(key: K): boolean {
    this.putKey(key)
    return this.#deleteRaw(this.key)
  }

  #deleteRaw(key: Uint8Array): boolean {
    const result = native().mapDelete(this.fd, key)
    if (result === -ENOENT) return false
    check(result, 'BPF_MAP_DELETE_ELEM', `Deleting from map ${this.shape.name}`)
    return true
  }

  /** Removes every entry that a walk finds; entries the kernel adds meanwhile may stay. */
  clear(): void {
    for (const key of this.rawKeys()) this.#deleteRaw(key)
  }

  *keys(): Generator<K> {
    for (const key of this.rawKeys()) yield this.keyCodec.read(new DataView(key.buffer), 0)
  }

  /**
   * The raw keys. The next key is asked for before one is handed out, so deleting what was handed out is safe. If the
   * kernel side deletes the key the walk stands on, the kernel starts over, so an entry can appear twice; the walk ends
   * after twice as many steps as the map holds.
   */
  protected *rawKeys(): Generator<Uint8Array> {
    const addon = native()
    const step = (from: Uint8Array | null): Uint8Array | undefined => {
      const next = new Uint8Array(this.key.length)
      const result = addon.mapNextKey(this.fd, from, next)
      if (result === -ENOENT) return undefined
      check(result, 'BPF_MAP_GET_NEXT_KEY', `Walking map ${this.shape.name}`)
      return next
    }
    let current = step(null)
    for (let steps = 0; current !== undefined && steps < 2 * this.shape.maxEntries; steps++) {
      const following = step(current)
      yield current
      current = following
    }
  }
}

/** A map with one value per key: hash, LRU hash, array, LPM trie, SK_STORAGE (whose key is a socket's descriptor). */
export class BpfMap<K, V> extends KeyedMap<K> {
  readonly #codec: Codec<V>

  constructor(fd: number, shape: MapShape, key: Codec<K>, value: Codec<V>, owner?: Owner) {
    super(fd, shape, key, shape.valueSize, owner)
    assertValue(shape, value)
    this.#codec = value
  }

  get(key: K): V | undefined {
    return this.lookup(key) ? this.#codec.read(this.valueView, 0) : undefined
  }

  /** Reads and removes in one step (hash types: kernel 5.14). */
  take(key: K): V | undefined {
    this.putKey(key)
    const result = native().mapTake(this.fd, this.key, this.value)
    if (result === -ENOENT) return undefined
    check(result, 'BPF_MAP_LOOKUP_AND_DELETE_ELEM', `Taking from map ${this.shape.name}`)
    return this.#codec.read(this.valueView, 0)
  }

  set(key: K, value: V, mode: UpdateMode = 'any'): void {
    this.value.fill(0)
    this.#codec.write(this.valueView, 0, value)
    this.store(key, mode)
  }

  /** All entries a walk finds; one that vanished between its key and its value is left out. */
  *entries(): Generator<[K, V]> {
    for (const key of this.rawKeys()) {
      if (!this.lookupRaw(key)) continue
      yield [this.keyCodec.read(new DataView(key.buffer), 0), this.#codec.read(this.valueView, 0)]
    }
  }
}

/** A map with one value per key and processor: counters without contention. */
export class PerCpuMap<K, V> extends KeyedMap<K> {
  readonly #codec: Codec<V>
  readonly #stride: number
  readonly #cpus: number

  constructor(fd: number, shape: MapShape, key: Codec<K>, value: Codec<V>, owner?: Owner) {
    const stride = (shape.valueSize + 7) & ~7
    const cpus = native().possibleCpus()
    super(fd, shape, key, stride * cpus, owner)
    assertValue(shape, value)
    this.#codec = value
    this.#stride = stride
    this.#cpus = cpus
  }

  /** The values of all possible processors, in their order. */
  get(key: K): V[] | undefined {
    return this.lookup(key) ? this.#values() : undefined
  }

  /** The sum over all processors, field by field. Only for values made of numbers (BpfError LAYOUT otherwise). */
  sum(key: K): V | undefined {
    return this.lookup(key) ? this.#total() : undefined
  }

  /** Sets each processor's value; fewer values leave zeros. */
  set(key: K, values: readonly V[], mode: UpdateMode = 'any'): void {
    if (values.length > this.#cpus) throw new RangeError(`${values.length} values for ${this.#cpus} processors`)
    this.value.fill(0)
    values.forEach((value, cpu) => this.#codec.write(this.valueView, cpu * this.#stride, value))
    this.store(key, mode)
  }

  *entries(): Generator<[K, V[]]> {
    for (const key of this.rawKeys()) {
      if (this.lookupRaw(key)) yield [this.keyCodec.read(new DataView(key.buffer), 0), this.#values()]
    }
  }

  /** All entries, each summed over the processors. */
  *sums(): Generator<[K, V]> {
    for (const key of this.rawKeys()) {
      if (this.lookupRaw(key)) yield [this.keyCodec.read(new DataView(key.buffer), 0), this.#total()]
    }
  }

  #values(): V[] {
    return Array.from({ length: this.#cpus }, (_, cpu) => this.#codec.read(this.valueView, cpu * this.#stride))
  }

  #total(): V {
    const codec = this.#codec
    if (codec.add === undefined) {
      throw new BpfError('LAYOUT', 0, '', `The values of map ${this.shape.name} cannot be added up`)
    }
    let total = codec.read(this.valueView, 0)
    for (let cpu = 1; cpu < this.#cpus; cpu++) {
      total = codec.add(total, codec.read(this.valueView, cpu * this.#stride))
    }
    return total
  }
}

/** SOCKMAP and SOCKHASH: in goes a socket's descriptor, out comes its cookie (only where values have 8 bytes). */
export class SocketMap<K> extends KeyedMap<K> {
  constructor(fd: number, shape: MapShape, key: Codec<K>, owner?: Owner) {
    super(fd, shape, key, shape.valueSize, owner)
  }

  set(key: K, socket: number, mode: UpdateMode = 'any'): void {
    this.value.fill(0)
    if (this.value.length === 8) u64.write(this.valueView, 0, BigInt(socket))
    else i32.write(this.valueView, 0, socket)
    this.store(key, mode)
  }

  /** The cookie of the socket under a key. The kernel gives none for 4-byte values (ENOSPC). */
  cookie(key: K): bigint | undefined {
    return this.lookup(key) ? u64.read(this.valueView, 0) : undefined
  }
}

function assertValue(shape: MapShape, value: Codec<unknown>): void {
  if (value.size === shape.valueSize) return
  throw new BpfError(
    'LAYOUT',
    0,
    '',
    `Map ${shape.name} has values of ${shape.valueSize} bytes, the codec ${value.size}`,
    'Run npm run gen',
  )
}

/** What generated code says of a map. */
export interface MapSchema<K = unknown, V = unknown> {
  readonly kind: MapType
  readonly key: Codec<K>
  readonly value: Codec<V>
}

/** Opens a map by its pin. Its sizes must be those of the codecs (BpfError LAYOUT). Close it when done. */
export function openPinnedMap<K, V>(path: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
  const { fd, shape } = openPin(path)
  return guarded(fd, () => new BpfMap(fd, shape, key, value))
}

/** The same for per-CPU maps. */
export function openPinnedPerCpuMap<K, V>(path: string, key: Codec<K>, value: Codec<V>): PerCpuMap<K, V> {
  const { fd, shape } = openPin(path)
  return guarded(fd, () => new PerCpuMap(fd, shape, key, value))
}

/** Creates a map without an object file. */
export function createMap<K, V>(
  type: 'hash' | 'lru_hash' | 'array',
  options: { name: string; key: Codec<K>; value: Codec<V>; maxEntries: number },
): BpfMap<K, V> {
  const { name, key, value, maxEntries } = options
  const fd = check(
    native().mapCreate(mapTypes.indexOf(type), name, key.size, value.size, maxEntries, 0, 0),
    'BPF_MAP_CREATE',
    `Creating map ${name}`,
  )
  return new BpfMap(fd, { name, type, keySize: key.size, valueSize: value.size, maxEntries }, key, value)
}

/** What the kernel says of the map behind a descriptor. */
export function mapShape(fd: number): MapShape {
  const info = native().info(fd, 'map')
  if (typeof info === 'number') throw failure(-info, 'BPF_OBJ_GET_INFO_BY_FD', `Asking about map ${fd}`)
  const { name, keySize, valueSize, maxEntries } = info
  return { name, type: mapTypes[info.type] ?? 'unspec', keySize, valueSize, maxEntries }
}

function openPin(path: string): { fd: number; shape: MapShape } {
  const fd = check(native().objGet(path), 'BPF_OBJ_GET', `Opening the pinned map ${path}`)
  return guarded(fd, () => ({ fd, shape: mapShape(fd) }))
}

function guarded<T>(fd: number, make: () => T): T {
  try {
    return make()
  } catch (error) {
    native().close(fd)
    throw error
  }
}
