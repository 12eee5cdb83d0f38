// Maps of maps: a table under each key that is replaced as a whole, so that no program sees half of a change. Must not live
// here: which table belongs under which key.
import { native } from './addon.ts'
import { u32, type Codec } from './codec.ts'
import { BpfError, check } from './errors.ts'
import { KeyedMap, type MapShape, type Owner, type UpdateMode } from './keyed.ts'
import { BPF_F_NO_PREALLOC } from './kinds.ts'
import { BpfMap, createRaw, mapShape, type MapOptions } from './map.ts'

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
    const map = this.#empty()
    try {
      await map.setManyAsync(entries)
      this.#put(map)
      this.putKey(key)
      // The scratch bytes may be used for another key while the thread works: it gets its own.
      const [keyBytes, value] = [this.key.slice(), this.value.slice()]
      const { result } = await native().mapBatchAsync('update', this.fd, null, null, keyBytes, value, 1, 0)
      if (result < 0 && !isMissing(result)) check(result, 'BPF_MAP_UPDATE_BATCH', `Writing map ${this.shape.name}`)
      // A kernel without batches for maps of maps.
      if (result < 0) this.set(key, map)
    } finally {
      map.close()
    }
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

  #empty(): BpfMap<IK, IV> {
    const { shape, flags, key, value } = this.inner
    return new BpfMap(createRaw(shape, flags), shape, key, value)
  }

  #put(map: BpfMap<IK, IV>): void {
    u32.write(this.valueView, 0, map.fd)
  }
}

/** What says that the kernel has no batches for a type of map: ENOTSUPP of the kernel's own, or an unknown command. */
function isMissing(result: number): boolean {
  return result === -524 || result === -22 || result === -95
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
