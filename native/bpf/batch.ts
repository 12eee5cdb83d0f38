// Many entries of a map by few system calls: write, delete, read, read and remove; one by one where the kernel has no
// batches for the map's type. Must not live here: single entries (map.ts).
import { native, type BatchOperation, type NativeBatchAnswer } from './addon.ts'
import { BpfError, check, failure } from './errors.ts'
import { hasFeature } from './features.ts'
import { updateFlags } from './kinds.ts'
import { KeyedMap, type UpdateMode } from './keyed.ts'

const ENOENT = 2
const ENOSPC = 28
/** Entries a system call carries unless told otherwise: the gain is had by then, and the event loop is held for under a millisecond or so. */
const DEFAULT_BATCH = 1024
/** More the library never puts into one call, whatever it is asked: a bucket of a hash that exceeds it cannot be read. */
const MAX_BATCH = 1 << 20

export interface BatchOptions {
  /** Entries of one system call. Default 1024. */
  readonly batch?: number
}

export interface SetManyOptions extends BatchOptions {
  /**
   * As for `set`; the first entry that does not fit it ends the call. Default `any`; the kernel's batches know no other, so
   * `create` and `replace` write one by one.
   */
  readonly mode?: UpdateMode
}

/** Packed room for entries, used again from call to call. */
interface Room {
  readonly size: number
  readonly keys: Uint8Array
  readonly keyView: DataView
  readonly values: Uint8Array
  readonly valueView: DataView
}

/** A map whose entries can be handled many at a time. `E` is what one key holds. */
export abstract class EntryMap<K, E> extends KeyedMap<K> {
  protected abstract readValue(view: DataView, offset: number): E
  protected abstract writeValue(view: DataView, offset: number, value: E): void

  /**
   * Writes entries in their order and returns how many. What the kernel refuses ends it with the BpfError of a `set`, which
   * says how many were written before; those stay.
   */
  setMany(entries: Iterable<readonly [K, E]>, options: SetManyOptions = {}): number {
    let done = 0
    const flags = updateFlags[options.mode ?? 'any']
    const room = this.#room(options)
    for (const count of this.#fill(room, entries)) {
      if (flags === 0 && this.#has('update')) {
        const answer = native().mapBatch('update', this.fd, null, null, room.keys, room.values, count, flags)
        done = this.#written(answer, done, count)
      } else done = this.#oneByOne(room, count, flags, done)
    }
    return done
  }

  /**
   * The same with the kernel's work on a worker thread, batch after batch: the event loop goes on in between. Between the
   * batches `entries` is read on. The map must not be closed before it ends.
   */
  async setManyAsync(entries: Iterable<readonly [K, E]>, options: SetManyOptions = {}): Promise<number> {
    let done = 0
    const flags = updateFlags[options.mode ?? 'any']
    const room = this.#room(options)
    for (const count of this.#fill(room, entries)) {
      if (flags === 0 && this.#has('update')) {
        const answer = await native().mapBatchAsync('update', this.fd, null, null, room.keys, room.values, count, flags)
        done = this.#written(answer, done, count)
      } else {
        done = this.#oneByOne(room, count, flags, done)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    return done
  }

  /** Removes the keys that are there and returns how many were. */
  deleteMany(keys: Iterable<K>, options: BatchOptions = {}): number {
    if (!this.#has('delete')) {
      let gone = 0
      for (const key of keys) if (this.delete(key)) gone++
      return gone
    }
    const room = this.#room(options)
    let gone = 0
    let count = 0
    const flush = (): void => {
      // The kernel stops at a key that is not there: go on after it.
      for (let at = 0; at < count;) {
        const rest = room.keys.subarray(at * this.shape.keySize)
        const answer = native().mapBatch('delete', this.fd, null, null, rest, null, count - at, 0)
        if (answer.result !== -ENOENT) check(answer.result, 'BPF_MAP_DELETE_BATCH', `Deleting from ${this.shape.name}`)
        gone += answer.count
        at += answer.count + 1
      }
      count = 0
    }
    for (const key of keys) {
      this.#putKey(room, count, key)
      if (++count === room.size) flush()
    }
    if (count > 0) flush()
    return gone
  }

  /** All entries, a list per system call. A walk while others write may miss what is new and give what is gone. */
  *batches(options: BatchOptions = {}): Generator<[K, E][]> {
    yield* this.#walk('lookup', options)
  }

  /**
   * Reads and removes all entries, a list per system call. Of hashes each entry is removed as it is read; where the kernel
   * lacks that, what a program adds to an entry between its reading and its removal is lost. Stopping early leaves the rest.
   */
  *drain(options: BatchOptions = {}): Generator<[K, E][]> {
    yield* this.#walk('take', options)
  }

  *#walk(operation: 'lookup' | 'take', options: BatchOptions): Generator<[K, E][]> {
    if (!this.#has(operation)) {
      yield* this.#walkOneByOne(operation, options)
      return
    }
    let room = this.#room(options)
    // Hashes remember their place in 4 bytes, others in a key.
    let [from, next] = [
      new Uint8Array(Math.max(4, this.shape.keySize)),
      new Uint8Array(Math.max(4, this.shape.keySize)),
    ]
    let started = false
    const call = operation === 'take' ? 'BPF_MAP_LOOKUP_AND_DELETE_BATCH' : 'BPF_MAP_LOOKUP_BATCH'
    for (;;) {
      const place = started ? from : null
      const answer = native().mapBatch(operation, this.fd, place, next, room.keys, room.values, room.size, 0)
      if (answer.result === -ENOSPC && room.size < MAX_BATCH) {
        // One bucket has more entries than fit; nothing was read.
        room = this.#room({ batch: room.size * 2 })
        continue
      }
      if (answer.result !== -ENOENT) check(answer.result, call, `Reading map ${this.shape.name}`)
      if (answer.count > 0) yield this.#entries(room, answer.count)
      if (answer.result === -ENOENT) return
      ;[from, next] = [next, from]
      started = true
    }
  }

  *#walkOneByOne(operation: 'lookup' | 'take', options: BatchOptions): Generator<[K, E][]> {
    let list: [K, E][] = []
    const size = sizeOf(options)
    for (const key of this.rawKeys()) {
      if (!this.lookupRaw(key)) continue
      list.push([this.keyCodec.read(new DataView(key.buffer), 0), this.readValue(this.valueView, 0)])
      if (operation === 'take') {
        const result = native().mapDelete(this.fd, key)
        if (result !== -ENOENT) check(result, 'BPF_MAP_DELETE_ELEM', `Deleting from map ${this.shape.name}`)
      }
      if (list.length < size) continue
      yield list
      list = []
    }
    if (list.length > 0) yield list
  }

  #has(operation: BatchOperation): boolean {
    return hasFeature(`batch:${this.shape.type}/${operation}`)
  }

  #room(options: BatchOptions): Room {
    const size = sizeOf(options)
    const keys = new Uint8Array(size * this.shape.keySize)
    const values = new Uint8Array(size * this.value.length)
    return { size, keys, keyView: new DataView(keys.buffer), values, valueView: new DataView(values.buffer) }
  }

  #putKey(room: Room, index: number, key: K): void {
    const at = index * this.shape.keySize
    room.keys.fill(0, at, at + this.shape.keySize)
    this.keyCodec.write(room.keyView, at, key)
  }

  /** Encodes entries into the room and gives their number each time it is full, and at the end. */
  *#fill(room: Room, entries: Iterable<readonly [K, E]>): Generator<number> {
    const stride = this.value.length
    let count = 0
    for (const [key, value] of entries) {
      this.#putKey(room, count, key)
      room.values.fill(0, count * stride, (count + 1) * stride)
      this.writeValue(room.valueView, count * stride, value)
      if (++count < room.size) continue
      yield count
      count = 0
    }
    if (count > 0) yield count
  }

  #entries(room: Room, count: number): [K, E][] {
    return Array.from({ length: count }, (_, i) => [
      this.keyCodec.read(room.keyView, i * this.shape.keySize),
      this.readValue(room.valueView, i * this.value.length),
    ])
  }

  #oneByOne(room: Room, count: number, flags: number, done: number): number {
    const { keySize } = this.shape
    for (let i = 0; i < count; i++) {
      const key = room.keys.subarray(i * keySize, (i + 1) * keySize)
      const value = room.values.subarray(i * this.value.length, (i + 1) * this.value.length)
      const result = native().mapUpdate(this.fd, key, value, flags)
      if (result < 0) throw this.#refused(result, done + i)
    }
    return done + count
  }

  #written(answer: NativeBatchAnswer, done: number, wanted: number): number {
    // A request that the kernel refuses as such leaves the count as it was given.
    const written = answer.count === wanted ? 0 : answer.count
    if (answer.result < 0) throw this.#refused(answer.result, done + written)
    if (answer.count !== wanted) throw this.#refused(-ENOSPC, done + answer.count)
    return done + answer.count
  }

  #refused(result: number, done: number): BpfError {
    return failure(-result, 'BPF_MAP_UPDATE_ELEM', `Writing map ${this.shape.name} after ${done} entries`)
  }
}

function sizeOf(options: BatchOptions): number {
  const size = options.batch ?? DEFAULT_BATCH
  if (!Number.isInteger(size) || size < 1 || size > MAX_BATCH) {
    throw new RangeError(`A batch has from 1 to ${MAX_BATCH} entries, not ${size}`)
  }
  return size
}
