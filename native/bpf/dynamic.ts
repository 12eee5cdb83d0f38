// Codecs made from BTF at run time: how rodata is typed without generated code, and the meaning that generated code must
// share. Must not live here: writing code (gen.ts).
import { Btf, type BtfMember } from './btf.ts'
import * as c from './codec.ts'
import type { Codec } from './codec.ts'
import { BpfError } from './errors.ts'

/** Integer codecs by what BTF says; the key is size and sign. */
// prettier-ignore
const integers: Record<string, Codec<number> | Codec<bigint>> = {
  '1u': c.u8, '2u': c.u16, '4u': c.u32, '8u': c.u64, '1i': c.i8, '2i': c.i16, '4i': c.i32, '8i': c.i64,
}

/**
 * The name in codec.ts of the codec for a scalar or byte array, or undefined for what must be composed (structs, other
 * arrays). One rule for run time and generated code:
 * 64-bit integers are bigint; __be16, __be32, __be64 are host-order values; `char[n]` is text; `__u8[n]` is bytes.
 */
export function simpleCodec(btf: Btf, id: number): { name: string; argument?: number } | undefined {
  const outer = btf.type(btf.unqualified(id))
  if (outer.kind === 'typedef') {
    if (outer.name === '__be16' || outer.name === '__be32' || outer.name === '__be64')
      return { name: outer.name.slice(2) }
    return simpleCodec(btf, outer.type)
  }
  if (outer.kind === 'int') {
    if (outer.bool) return { name: 'bool' }
    if (outer.size > 8) throw new BpfError('LAYOUT', 0, '', `Integers of ${outer.size} bytes are not supported`)
    // Plain `char` counts as a signed byte; clang marks it signed without the char encoding.
    return { name: `${outer.signed ? 'i' : 'u'}${outer.size * 8}` }
  }
  if (outer.kind === 'enum') return { name: `${outer.signed ? 'i' : 'u'}${outer.size * 8}` }
  if (outer.kind === 'ptr') return { name: 'u64' }
  if (outer.kind === 'array') {
    const element = btf.type(btf.unqualified(outer.type))
    const resolved = btf.resolve(outer.type)
    if (element.kind === 'int' && element.name === 'char') return { name: 'text', argument: outer.length }
    if (resolved.kind === 'int' && resolved.size === 1 && !resolved.signed && !resolved.bool) {
      return { name: 'bytes', argument: outer.length }
    }
  }
  return undefined
}

/** Refuses what has no faithful form in JavaScript, by name. */
export function assertMember(struct: string, member: BtfMember): void {
  if (member.bitSize > 0) {
    throw new BpfError('LAYOUT', 0, '', `${struct}.${member.name} is a bit field, which is not supported`)
  }
}

/** Padding members (`_pad`, `pad1`, …) are not shown: they are always zero. */
export function isPadding(member: BtfMember): boolean {
  return /^_*(pad|padding|reserved)\d*$/.test(member.name)
}

/** A codec for any type: structs and unions become plain objects by member name. */
export function codecOf(btf: Btf, id: number): Codec<unknown> {
  const simple = simpleCodec(btf, id)
  if (simple !== undefined) {
    if (simple.name === 'text') return c.text(simple.argument ?? 0)
    if (simple.name === 'bytes') return c.bytes(simple.argument ?? 0)
    if (simple.name === 'bool') return c.bool
    if (simple.name.startsWith('be')) return simple.name === 'be16' ? c.be16 : simple.name === 'be32' ? c.be32 : c.be64
    const key = `${Number(simple.name.slice(1)) / 8}${simple.name[0]}`
    const found = integers[key]
    if (found !== undefined) return found
  }
  const type = btf.resolve(id)
  if (type.kind === 'array') return c.array(codecOf(btf, type.type), type.length)
  if (type.kind !== 'struct' && type.kind !== 'union') {
    throw new BpfError('LAYOUT', 0, '', `A BTF type of kind ${type.kind} has no codec`)
  }
  const fields = btf
    .flatMembers(id)
    .filter((member) => !isPadding(member))
    .map((member) => {
      assertMember(type.name, member)
      return { name: member.name, offset: member.bitOffset / 8, codec: codecOf(btf, member.type) }
    })
  return {
    size: type.size,
    read: (view, offset) => Object.fromEntries(fields.map((f) => [f.name, f.codec.read(view, offset + f.offset)])),
    write: (view, offset, value) => {
      for (const field of fields) {
        const part = (value as Record<string, unknown>)[field.name]
        if (part !== undefined) field.codec.write(view, offset + field.offset, part)
        else if (type.kind === 'struct') throw new TypeError(`${type.name}.${field.name} is missing`)
      }
    },
  }
}
