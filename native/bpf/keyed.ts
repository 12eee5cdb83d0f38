// What all maps have in common: a descriptor with an owner, keys through scratch bytes, the walk over keys. Must not live
// here: what is under a key (map.ts, nested.ts) and many entries at once (batch.ts).
import { native } from './addon.ts'
import type { Codec } from './codec.ts'
import { BpfError, check, failure } from './errors.ts'
import { updateFlags, type MapType } from './kinds.ts'

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
export abstract class KeyedMap<K> extends MapHandle {
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
