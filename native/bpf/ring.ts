// The ring buffer on the event loop: records arrive in batches, one call of JavaScript each, bounded per turn so that a
// flood cannot starve the loop. Must not live here: what records mean.
import { native, type NativeRing } from './addon.ts'
import { failure } from './errors.ts'
import type { Codec } from './codec.ts'
import { MapHandle } from './keyed.ts'

export interface RingOptions {
  /** At most so many records a turn of the loop; the rest waits in the ring for the next. Default 1024. */
  readonly maxRecords?: number
  /** At most about so many bytes a turn (one more record may exceed it). Default 256 KiB. */
  readonly maxBytes?: number
}

/** Records of one turn: record i is bytes[ranges[2i] … ranges[2i] + ranges[2i + 1]). The bytes are the receiver's own. */
export type RawBatch = (bytes: Uint8Array, ranges: Uint32Array) => void

/** A BPF_MAP_TYPE_RINGBUF. */
export class RingMap extends MapHandle {
  /**
   * Delivers typed records as they come; a record shorter than the codec is left out and counted in `listener.short`.
   * An exception of `onRecords` is the process's uncaught exception.
   */
  listen<T>(codec: Codec<T>, onRecords: (records: T[]) => void, options: RingOptions = {}): RingListener {
    const listener: RingListener = this.listenRaw((bytes, ranges) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const records: T[] = []
      for (let i = 0; i < ranges.length; i += 2) {
        const start = ranges[i] ?? 0
        if ((ranges[i + 1] ?? 0) < codec.size) listener.short++
        else records.push(codec.read(view, start))
      }
      if (records.length > 0) onRecords(records)
    }, options)
    return listener
  }

  /** Delivers raw records as they come. */
  listenRaw(onBatch: RawBatch, options: RingOptions = {}): RingListener {
    const ring = native().ringOpen(this.fd, options.maxRecords ?? 1024, options.maxBytes ?? 262_144, onBatch)
    if (typeof ring === 'number') throw failure(-ring, 'epoll_ctl', `Listening to ring ${this.shape.name}`)
    return new RingListener(ring)
  }
}

/** A running delivery; close it to end it. It keeps the process alive unless unref'ed. */
export class RingListener {
  /** Records that were too short for the codec. */
  short = 0
  readonly #ring: NativeRing

  constructor(ring: NativeRing) {
    this.#ring = ring
  }

  ref(): this {
    this.#ring.ref()
    return this
  }

  unref(): this {
    this.#ring.unref()
    return this
  }

  /** No batch is delivered after this returns. Idempotent. */
  close(): void {
    this.#ring.close()
  }
}
