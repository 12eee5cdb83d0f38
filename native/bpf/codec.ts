// Fixed-size codecs between bytes of the kernel and values of JavaScript: the primitives that generated code and users
// compose. Must not live here: knowledge of BTF (btf.ts, gen.ts) or of maps.

/** Reads and writes a value of a fixed size. `write` gets zeroed bytes, so padding stays zero and keys compare equal. */
export interface Codec<T> {
  /** Bytes. */
  readonly size: number
  read(view: DataView, offset: number): T
  write(view: DataView, offset: number, value: T): void
  /** Adds two values field by field; only where every field is a number (counters of per-CPU maps). */
  add?(a: T, b: T): T
}

/** The value type of a codec. */
export type ValueOf<C> = C extends Codec<infer T> ? T : never

const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

const sum = (a: number, b: number): number => a + b
const sumBig = (a: bigint, b: bigint): bigint => a + b

export const u8: Codec<number> = {
  size: 1,
  read: (view, offset) => view.getUint8(offset),
  write: (view, offset, value) => view.setUint8(offset, value),
  add: sum,
}
export const u16: Codec<number> = {
  size: 2,
  read: (view, offset) => view.getUint16(offset, little),
  write: (view, offset, value) => view.setUint16(offset, value, little),
  add: sum,
}
export const u32: Codec<number> = {
  size: 4,
  read: (view, offset) => view.getUint32(offset, little),
  write: (view, offset, value) => view.setUint32(offset, value, little),
  add: sum,
}
export const u64: Codec<bigint> = {
  size: 8,
  read: (view, offset) => view.getBigUint64(offset, little),
  write: (view, offset, value) => view.setBigUint64(offset, value, little),
  add: sumBig,
}
export const i8: Codec<number> = {
  size: 1,
  read: (view, offset) => view.getInt8(offset),
  write: (view, offset, value) => view.setInt8(offset, value),
  add: sum,
}
export const i16: Codec<number> = {
  size: 2,
  read: (view, offset) => view.getInt16(offset, little),
  write: (view, offset, value) => view.setInt16(offset, value, little),
  add: sum,
}
export const i32: Codec<number> = {
  size: 4,
  read: (view, offset) => view.getInt32(offset, little),
  write: (view, offset, value) => view.setInt32(offset, value, little),
  add: sum,
}
export const i64: Codec<bigint> = {
  size: 8,
  read: (view, offset) => view.getBigInt64(offset, little),
  write: (view, offset, value) => view.setBigInt64(offset, value, little),
  add: sumBig,
}
/** `_Bool` */
export const bool: Codec<boolean> = {
  size: 1,
  read: (view, offset) => view.getUint8(offset) !== 0,
  write: (view, offset, value) => view.setUint8(offset, value ? 1 : 0),
}
/** `__be16`: network order in the kernel, a plain number here. */
export const be16: Codec<number> = {
  size: 2,
  read: (view, offset) => view.getUint16(offset, false),
  write: (view, offset, value) => view.setUint16(offset, value, false),
}
/** `__be32`: network order in the kernel, a plain number here. */
export const be32: Codec<number> = {
  size: 4,
  read: (view, offset) => view.getUint32(offset, false),
  write: (view, offset, value) => view.setUint32(offset, value, false),
}
/** `__be64`: network order in the kernel, a bigint here. */
export const be64: Codec<bigint> = {
  size: 8,
  read: (view, offset) => view.getBigUint64(offset, false),
  write: (view, offset, value) => view.setBigUint64(offset, value, false),
}

/** Nothing at all: keys and values of ring buffers. */
export const none: Codec<undefined> = { size: 0, read: () => undefined, write: () => undefined }

/** Plain bytes, as in `__u8 address[16]`; reading copies. Writing fewer bytes leaves zeros after them; more throws. */
export function bytes(size: number): Codec<Uint8Array> {
  return {
    size,
    read: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, size).slice(),
    write: (view, offset, value) => {
      if (value.length > size) throw new RangeError(`${value.length} bytes do not fit into ${size}`)
      new Uint8Array(view.buffer, view.byteOffset + offset, size).set(value)
    },
  }
}

/** `char name[size]`: text up to the first zero byte. Longer text throws. */
export function text(size: number): Codec<string> {
  return {
    size,
    read: (view, offset) => {
      const all = Buffer.from(view.buffer, view.byteOffset + offset, size)
      const end = all.indexOf(0)
      return all.toString('utf8', 0, end < 0 ? size : end)
    },
    write: (view, offset, value) => {
      const encoded = Buffer.from(value, 'utf8')
      if (encoded.length > size) throw new RangeError(`"${value}" does not fit into ${size} bytes`)
      new Uint8Array(view.buffer, view.byteOffset + offset, size).set(encoded)
    },
  }
}

/** `T x[length]`. Writing fewer elements leaves zeros after them; more throws. */
export function array<T>(element: Codec<T>, length: number): Codec<T[]> {
  return {
    size: element.size * length,
    read: (view, offset) => {
      const out: T[] = []
      for (let i = 0; i < length; i++) out.push(element.read(view, offset + i * element.size))
      return out
    },
    write: (view, offset, values) => {
      if (values.length > length) throw new RangeError(`${values.length} elements do not fit into ${length}`)
      values.forEach((value, i) => element.write(view, offset + i * element.size, value))
    },
  }
}

/** Key of an LPM trie: how many leading bits of the address count, and the address (network order). */
export interface Prefix {
  readonly length: number
  readonly address: Uint8Array
}

/**
 * `struct bpf_lpm_trie_key` with an address of `size` bytes (4 for IPv4, 16 for IPv6). Bits after the prefix are written
 * as zero, so that one network has one form. A length over the address's bits, or an address of another size, throws.
 */
export function prefix(size: number): Codec<Prefix> {
  return {
    size: 4 + size,
    read: (view, offset) => ({
      length: u32.read(view, offset),
      address: new Uint8Array(view.buffer, view.byteOffset + offset + 4, size).slice(),
    }),
    write: (view, offset, { length, address }) => {
      if (!Number.isInteger(length) || length < 0 || length > 8 * size) {
        throw new RangeError(`A prefix of ${length} bits does not fit an address of ${size} bytes`)
      }
      if (address.length !== size) throw new RangeError(`An address of ${address.length} bytes is not one of ${size}`)
      u32.write(view, offset, length)
      for (let i = 0; i < size; i++) {
        const bits = Math.min(8, Math.max(0, length - 8 * i))
        view.setUint8(offset + 4 + i, address[i]! & (0xff00 >> bits))
      }
    },
  }
}

/** One value from bytes that hold exactly (or begin with) it. */
export function decode<T>(codec: Codec<T>, from: Uint8Array, offset = 0): T {
  return codec.read(new DataView(from.buffer, from.byteOffset, from.byteLength), offset)
}

/** The bytes of one value. */
export function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const out = new Uint8Array(codec.size)
  codec.write(new DataView(out.buffer), 0, value)
  return out
}
