// Maps of the kernel with the manners of JavaScript's Map: typed keys and values, one system call per operation (about a
// microsecond or two). Must not live here: many entries at once (batch.ts), maps in maps (nested.ts), the ring buffer
// (ring.ts) and how maps come to be (object.ts).
import { native } from './addon.ts'
import { EntryMap } from './batch.ts'
import { bytes, i32, u64, type Codec } from './codec.ts'
import { BpfError, check, failure } from './errors.ts'
import { BPF_F_NO_PREALLOC, mapTypes, type MapType } from './kinds.ts'
import { KeyedMap, type MapShape, type Owner, type UpdateMode } from './keyed.ts'

const ENOENT = 2

/** A map with one value per key: hash, LRU hash, array, SK_STORAGE (whose key is a socket's descriptor). */
export class BpfMap<K, V> extends EntryMap<K, V> {
  readonly #codec: Codec<V>

  constructor(fd: number, shape: MapShape, key: Codec<K>, value: Codec<V>, owner?: Owner) {
    super(fd, shape, key, shape.valueSize, owner)
    assertValue(shape, value)
    this.#codec = value
  }

  protected override readValue(view: DataView, offset: number): V {
    return this.#codec.read(view, offset)
  }

  protected override writeValue(view: DataView, offset: number, value: V): void {
    this.#codec.write(view, offset, value)
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
export class PerCpuMap<K, V> extends EntryMap<K, V[]> {
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
    this.value.fill(0)
    this.writeValue(this.valueView, 0, values)
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

  protected override readValue(view: DataView, offset: number): V[] {
    return Array.from({ length: this.#cpus }, (_, cpu) => this.#codec.read(view, offset + cpu * this.#stride))
  }

  protected override writeValue(view: DataView, offset: number, values: readonly V[]): void {
    if (values.length > this.#cpus) throw new RangeError(`${values.length} values for ${this.#cpus} processors`)
    values.forEach((value, cpu) => this.#codec.write(view, offset + cpu * this.#stride, value))
  }

  /** The sum of one entry's values, as `sum` gives it: for what batches and drains hand out. */
  total(values: readonly V[]): V {
    const codec = this.#codec
    if (codec.add === undefined) {
      throw new BpfError('LAYOUT', 0, '', `The values of map ${this.shape.name} cannot be added up`)
    }
    let total = values[0] as V
    for (let cpu = 1; cpu < values.length; cpu++) total = codec.add(total, values[cpu] as V)
    return total
  }

  #values(): V[] {
    return this.readValue(this.valueView, 0)
  }

  #total(): V {
    return this.total(this.#values())
  }
}

/**
 * An LPM trie: keys are prefixes (a u32 length in bits, then the bytes: codec.prefix, or a struct of the object with the
 * length first). `set` and `delete` mean exactly one prefix; `match` finds the longest one that covers a key.
 */
export class LpmMap<K, V> extends EntryMap<K, V> {
  readonly #codec: Codec<V>

  constructor(fd: number, shape: MapShape, key: Codec<K>, value: Codec<V>, owner?: Owner) {
    super(fd, shape, key, shape.valueSize, owner)
    assertValue(shape, value)
    this.#codec = value
  }

  /** The value of the longest prefix that covers `key`, whose own length is the most that may match. */
  match(key: K): V | undefined {
    return this.lookup(key) ? this.#codec.read(this.valueView, 0) : undefined
  }

  /** Whether any prefix covers `key`. */
  override has(key: K): boolean {
    return this.lookup(key)
  }

  /** Always as if `any`: kernels before 6.13 do not keep new and old prefixes apart. */
  set(key: K, value: V): void {
    this.value.fill(0)
    this.#codec.write(this.valueView, 0, value)
    this.store(key, 'any')
  }

  /** All prefixes with their values, the more specific ones of a branch first. */
  *entries(): Generator<[K, V]> {
    for (const key of this.rawKeys()) {
      if (!this.lookupRaw(key)) continue
      yield [this.keyCodec.read(new DataView(key.buffer), 0), this.#codec.read(this.valueView, 0)]
    }
  }

  protected override readValue(view: DataView, offset: number): V {
    return this.#codec.read(view, offset)
  }

  protected override writeValue(view: DataView, offset: number, value: V): void {
    this.#codec.write(view, offset, value)
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
  /** Maps of maps: what their inner maps hold. */
  readonly inner?: { readonly kind: MapType; readonly key: Codec<unknown>; readonly value: Codec<unknown> }
}

/** Opens a map by its pin. Its sizes must be those of the codecs (BpfError LAYOUT). Close it when done. */
export function openPinnedMap<K, V>(path: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
  const { fd, shape } = openPin(path)
  return guarded(fd, () => new BpfMap(fd, shape, key, value))
}

/** Opens a map by its pin whatever its shape is: keys and values are bytes. Not for per-CPU maps. */
export function openPinnedBytes(path: string): BpfMap<Uint8Array, Uint8Array> {
  const { fd, shape } = openPin(path)
  return guarded(fd, () => new BpfMap(fd, shape, bytes(shape.keySize), bytes(shape.valueSize)))
}

/** The same for per-CPU maps. */
export function openPinnedPerCpuMap<K, V>(path: string, key: Codec<K>, value: Codec<V>): PerCpuMap<K, V> {
  const { fd, shape } = openPin(path)
  return guarded(fd, () => new PerCpuMap(fd, shape, key, value))
}

/** What a map made here looks like. */
export interface MapOptions<K, V> {
  /** At most 15 characters are kept by the kernel. */
  readonly name: string
  readonly key: Codec<K>
  readonly value: Codec<V>
  readonly maxEntries: number
  /** Hashes: take memory per entry when it comes, not for all of them at once. LPM tries always do. */
  readonly onDemand?: boolean
}

/** Creates a map without an object file. */
export function createMap<K, V>(type: 'hash' | 'lru_hash' | 'array', options: MapOptions<K, V>): BpfMap<K, V> {
  const { fd, shape } = create(type, options)
  return new BpfMap(fd, shape, options.key, options.value)
}

/** The same for per-CPU maps. */
export function createPerCpuMap<K, V>(
  type: 'percpu_hash' | 'percpu_array' | 'lru_percpu_hash',
  options: MapOptions<K, V>,
): PerCpuMap<K, V> {
  const { fd, shape } = create(type, options)
  return new PerCpuMap(fd, shape, options.key, options.value)
}

/** The same for LPM tries, whose key is codec.prefix(bytes) or a struct that begins with the length. */
export function createLpmMap<K, V>(options: MapOptions<K, V>): LpmMap<K, V> {
  const { fd, shape } = create('lpm_trie', { ...options, onDemand: true })
  return new LpmMap(fd, shape, options.key, options.value)
}

function create(type: MapType, options: MapOptions<unknown, unknown>): { fd: number; shape: MapShape } {
  const { name, key, value, maxEntries } = options
  const shape = { name, type, keySize: key.size, valueSize: value.size, maxEntries }
  return { fd: createRaw(shape, options.onDemand === true ? BPF_F_NO_PREALLOC : 0), shape }
}

/** A new map of a shape; the caller owns the descriptor. */
export function createRaw(shape: MapShape, flags: number, innerFd = 0): number {
  const { name, type, keySize, valueSize, maxEntries } = shape
  const fd = native().mapCreate(mapTypes.indexOf(type), name, keySize, valueSize, maxEntries, flags, innerFd)
  return check(fd, 'BPF_MAP_CREATE', `Creating map ${name}`)
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
