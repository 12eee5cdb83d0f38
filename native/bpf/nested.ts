// Maps of maps: a table under each key that is replaced as a whole, so that no program sees half of a change. Must not live
// here: which table belongs under which key.
import { native } from './addon.ts'
import { u32, type Codec } from './codec.ts'
import { BpfError, check } from './errors.ts'
import { hasFeature } from './features.ts'
import { KeyedMap, type MapShape, type Owner, type UpdateMode } from './keyed.ts'
import { BPF_F_NO_PREALLOC } from './kinds.ts'
import { BpfMap, createRaw, mapShape, type MapOptions } from './map.ts'

const ENOENT = 2
/** Tables that are swapped with one wait; so many descriptors are open at a time. */
const AT_ONCE = 256
/** Entries that are written on the calling thread. */
const HANDFUL = 64

/** What every inner map of a map of maps looks like: the kernel takes no other (EINVAL). */
export interface InnerMap<K, V> {
  readonly shape: MapShape
  /** Flags of its creation. */
  readonly flags: number
  readonly key: Codec<K>
  readonly value: Codec<V>
}

/**
 * ARRAY_OF_MAPS or HASH_OF_MAPS. `set` swaps one pointer: a program's look-up sees the old table or the new one. It waits
 * until no program uses the old one (some milliseconds): from the event loop prefer `replace`, which waits on a worker thread.
 */
export class MapOfMaps<K, IK, IV> extends KeyedMap<K> {
  readonly inner: InnerMap<IK, IV>

  constructor(fd: number, shape: MapShape, key: Codec<K>, inner: InnerMap<IK, IV>, owner?: Owner) {
    super(fd, shape, key, 4, owner)
    for (const part of ['key', 'value'] as const) {
      const size = inner.shape[`${part}Size`]
      if (inner[part].size === size) continue
      const what = `Inner maps of ${shape.name} have ${part}s of ${size} bytes, the codec ${inner[part].size}`
      throw new BpfError('LAYOUT', 0, '', what, 'Run npm run gen')
    }
    this.inner = inner
  }

  /** A new inner map, filled but under no key yet; the caller closes it, which leaves it alive under its keys. */
  create(entries: Iterable<readonly [IK, IV]> = []): BpfMap<IK, IV> {
    const map = this.#empty()
    try {
      map.setMany(entries)
      return map
    } catch (error) {
      map.close()
      throw error
    }
  }

  /** Puts a map under a key, in the place of the one that was there. */
  set(key: K, map: BpfMap<IK, IV>, mode: UpdateMode = 'any'): void {
    this.#put(map)
    this.store(key, mode)
  }

  /**
   * Puts a table with exactly these entries under a key, in one step for whoever looks it up: a new inner map is filled,
   * swapped in, and the old one freed. The kernel's work is done on a worker thread. If it fails, the old table stays.
   */
  async replace(key: K, entries: Iterable<readonly [IK, IV]>): Promise<void> {
    await this.replaceMany([[key, entries]])
  }

  /**
   * The same for many keys; undefined takes a table away. Each table is swapped in one step, all of them with one wait for the
   * programs that use the old ones (256 at a time), where `batch:hash_of_maps/update` is there; else one after the other.
   * Inner hashes get room for what they hold. A table that cannot be filled leaves those of its 256 as they were.
   */
  async replaceMany(tables: Iterable<readonly [K, Iterable<readonly [IK, IV]> | undefined]>): Promise<void> {
    const filled: [K, BpfMap<IK, IV>][] = []
    const gone: K[] = []
    try {
      for (const [key, entries] of tables) {
        if (entries) filled.push([key, await this.#filled(entries)])
        else gone.push(key)
        if (filled.length === AT_ONCE) await this.#swap(filled)
      }
      await this.#swap(filled)
    } finally {
      for (const [, map] of filled) map.close()
    }
    for (let at = 0; at < gone.length; at += AT_ONCE) await this.#takeAway(gone.slice(at, at + AT_ONCE))
  }

  async #filled(entries: Iterable<readonly [IK, IV]>): Promise<BpfMap<IK, IV>> {
    const rows = [...entries]
    const map = this.#empty(rows.length)
    try {
      // A handful takes less time than handing it to a thread.
      if (rows.length <= HANDFUL) map.setMany(rows)
      else await map.setManyAsync(rows)
      return map
    } catch (error) {
      map.close()
      throw error
    }
  }

  /** Puts the maps under their keys and lets go of them: the list is empty then. */
  async #swap(filled: [K, BpfMap<IK, IV>][]): Promise<void> {
    const count = filled.length
    if (count === 0) return
    const keys = this.#packed(filled.map(([key]) => key))
    const fds = new Uint8Array(4 * count)
    const view = new DataView(fds.buffer)
    for (const [index, [, map]] of filled.entries()) u32.write(view, 4 * index, map.fd)
    const { type, name } = this.shape
    if (hasFeature(`batch:${type}/update`)) {
      const answer = await native().mapBatchAsync('update', this.fd, null, null, keys, fds, count, 0)
      // A request that the kernel refuses as such leaves the count as it was given.
      const done = answer.result < 0 && answer.count === count ? 0 : answer.count
      check(answer.result, 'BPF_MAP_UPDATE_BATCH', `Writing map ${name} after ${done} tables`)
    } else {
      for (const [key, map] of filled) {
        this.set(key, map)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    for (const [, map] of filled.splice(0)) map.close()
  }

  async #takeAway(keys: readonly K[]): Promise<void> {
    // The kernel stops at a key that is not there.
    const there = keys.filter((key) => this.has(key))
    if (there.length === 0) return
    const { type, name } = this.shape
    if (!hasFeature(`batch:${type}/delete`)) {
      for (const key of there) {
        this.delete(key)
        await new Promise((resolve) => setImmediate(resolve))
      }
      return
    }
    const packed = this.#packed(there)
    const { result } = await native().mapBatchAsync('delete', this.fd, null, null, packed, null, there.length, 0)
    // Somebody else took one away meanwhile: the others go one by one.
    if (result === -ENOENT) for (const key of there) this.delete(key)
    else check(result, 'BPF_MAP_DELETE_BATCH', `Deleting from ${name}`)
  }

  #packed(keys: readonly K[]): Uint8Array {
    const { keySize } = this.shape
    const packed = new Uint8Array(keys.length * keySize)
    for (const [index, key] of keys.entries()) {
      this.putKey(key)
      packed.set(this.key, index * keySize)
    }
    return packed
  }

  /** The kernel's id of the map under a key: another one after each replacement. */
  innerId(key: K): number | undefined {
    return this.lookup(key) ? u32.read(this.valueView, 0) : undefined
  }

  /** Opens the map under a key (needs CAP_SYS_ADMIN). Close it when done. Undefined where there is none. */
  open(key: K): BpfMap<IK, IV> | undefined {
    const id = this.innerId(key)
    if (id === undefined || id === 0) return undefined
    const fd = check(native().mapById(id), 'BPF_MAP_GET_FD_BY_ID', `Opening map ${id} of ${this.shape.name}`)
    try {
      return new BpfMap(fd, mapShape(fd), this.inner.key, this.inner.value)
    } catch (error) {
      native().close(fd)
      throw error
    }
  }

  /** With room for `entries`, where inner maps may differ in that: an empty hash for 65 536 entries takes a megabyte. */
  #empty(entries?: number): BpfMap<IK, IV> {
    const { flags, key, value } = this.inner
    let { shape } = this.inner
    if (entries !== undefined && shape.type === 'hash') {
      shape = { ...shape, maxEntries: Math.min(shape.maxEntries, Math.max(1, entries)) }
    }
    return new BpfMap(createRaw(shape, flags), shape, key, value)
  }

  #put(map: BpfMap<IK, IV>): void {
    u32.write(this.valueView, 0, map.fd)
  }
}

/** Creates a map of maps without an object file; `inner` is what each of its maps looks like. */
export function createMapOfMaps<K, IK, IV>(
  type: 'array_of_maps' | 'hash_of_maps',
  options: Omit<MapOptions<K, number>, 'value' | 'onDemand'>,
  inner: MapOptions<IK, IV> & { readonly type: 'hash' | 'array' },
): MapOfMaps<K, IK, IV> {
  const { name, key, maxEntries } = options
  const innerShape: MapShape = {
    name: inner.name,
    type: inner.type,
    keySize: inner.key.size,
    valueSize: inner.value.size,
    maxEntries: inner.maxEntries,
  }
  const flags = inner.onDemand === true ? BPF_F_NO_PREALLOC : 0
  // The kernel learns the shape from one such map and forgets it again.
  const template = createRaw(innerShape, flags)
  try {
    const shape: MapShape = { name, type, keySize: key.size, valueSize: 4, maxEntries }
    const fd = createRaw(shape, 0, template)
    return new MapOfMaps(fd, shape, key, { shape: innerShape, flags, key: inner.key, value: inner.value })
  } finally {
    native().close(template)
  }
}
