// BTF, the type information inside a BPF object (Documentation/bpf/btf.rst of the kernel): types, sizes, offsets, map
// definitions, global variables. Must not live here: codecs (dynamic.ts, gen.ts).
import { existsSync, readFileSync } from 'node:fs'
import { BpfError } from './errors.ts'
import { cString, parseElf, type ElfFile } from './elf.ts'
import { mapTypes, type MapType } from './kinds.ts'

export interface BtfMember {
  readonly name: string
  readonly type: number
  /** Bits from the start of the struct. */
  readonly bitOffset: number
  /** Width of a bit field; 0 for an ordinary member. */
  readonly bitSize: number
}

export type BtfType =
  | { readonly kind: 'void' }
  | {
      readonly kind: 'int'
      readonly name: string
      readonly size: number
      readonly signed: boolean
      readonly char: boolean
      readonly bool: boolean
    }
  | { readonly kind: 'float'; readonly name: string; readonly size: number }
  | { readonly kind: 'ptr'; readonly type: number }
  | { readonly kind: 'array'; readonly type: number; readonly length: number }
  | {
      readonly kind: 'struct' | 'union'
      readonly name: string
      readonly size: number
      readonly members: readonly BtfMember[]
    }
  | {
      readonly kind: 'enum'
      readonly name: string
      readonly size: number
      readonly signed: boolean
      readonly values: readonly { readonly name: string; readonly value: bigint }[]
    }
  | { readonly kind: 'typedef'; readonly name: string; readonly type: number }
  | { readonly kind: 'const' | 'volatile' | 'restrict' | 'type_tag'; readonly type: number }
  | { readonly kind: 'var'; readonly name: string; readonly type: number }
  | { readonly kind: 'func'; readonly name: string; readonly type: number }
  | { readonly kind: 'func_proto'; readonly parameters: readonly number[] }
  | {
      readonly kind: 'datasec'
      readonly name: string
      readonly variables: readonly { readonly type: number; readonly offset: number; readonly size: number }[]
    }
  | { readonly kind: 'other'; readonly name: string }

/** A variable of .rodata, .data or .bss. */
export interface BtfVariable {
  readonly name: string
  readonly section: string
  readonly type: number
  readonly offset: number
  readonly size: number
}

/** A map of the .maps section, as its definition says. */
export interface BtfMap {
  readonly name: string
  readonly kind: MapType
  /** Type ids; undefined where the definition gives only a size or nothing. */
  readonly key: number | undefined
  readonly value: number | undefined
  readonly keySize: number
  readonly valueSize: number
  /** Maps of maps: the definition in `__array(values, …)`. */
  readonly inner: BtfMap | undefined
}

/** The types of one object file. Type ids are indices, 0 is void. */
export class Btf {
  readonly types: readonly BtfType[]
  readonly variables: readonly BtfVariable[]
  readonly maps: readonly BtfMap[]
  /** Entry functions, that is global functions outside .text. */
  readonly programs: readonly string[]
  /** Entry functions of a SEC("syscall"), whose parameter is a struct of the object's own. */
  readonly syscalls: readonly string[]

  constructor(types: readonly BtfType[], elf: ElfFile, path: string) {
    this.types = types
    const entries = elf.symbols
      .filter((symbol) => symbol.type === 2 && symbol.binding !== 0)
      .map((symbol) => ({ name: symbol.name, section: elf.sections[symbol.section]?.name ?? '.text' }))
      .filter(({ section }) => isProgramSection(section))
    this.programs = entries.map(({ name }) => name)
    this.syscalls = entries.filter(({ section }) => section.startsWith('syscall')).map(({ name }) => name)
    this.variables = this.#findVariables(elf)
    this.maps = this.#findMaps(path)
  }

  type(id: number): BtfType {
    const type = this.types[id]
    if (type === undefined) throw new BpfError('BAD_ELF', 0, '', `There is no BTF type ${id}`)
    return type
  }

  /** The type below typedefs and qualifiers. */
  resolve(id: number): BtfType {
    let type = this.type(id)
    for (let depth = 0; depth < 64 && isAlias(type); depth++) type = this.type(type.type)
    return type
  }

  /** Id of the type below qualifiers, keeping typedefs. */
  unqualified(id: number): number {
    let type = this.type(id)
    while (type.kind === 'const' || type.kind === 'volatile' || type.kind === 'restrict' || type.kind === 'type_tag') {
      id = type.type
      type = this.type(id)
    }
    return id
  }

  sizeOf(id: number): number {
    const type = this.resolve(id)
    if (type.kind === 'array') return this.sizeOf(type.type) * type.length
    if (type.kind === 'ptr') return 8
    return 'size' in type ? type.size : 0
  }

  /** Members with those of anonymous structs and unions lifted up, as C reads them. */
  flatMembers(id: number): BtfMember[] {
    const type = this.resolve(id)
    if (type.kind !== 'struct' && type.kind !== 'union') return []
    return type.members.flatMap((member) =>
      member.name === ''
        ? this.flatMembers(member.type).map((inner) => ({ ...inner, bitOffset: inner.bitOffset + member.bitOffset }))
        : [member],
    )
  }

  /** The struct that a pointer (or a variable, or a function's first parameter) points to, by its type id. */
  pointee(id: number): number | undefined {
    const pointer = this.resolve(id)
    if (pointer.kind !== 'ptr') return undefined
    const target = this.resolve(pointer.type)
    return target.kind === 'struct' || target.kind === 'union' ? pointer.type : undefined
  }

  /** A struct or union by its tag, or a typedef of an anonymous one by its name. */
  struct(name: string): { readonly id: number; readonly size: number } | undefined {
    for (const [id, type] of this.types.entries()) {
      if (!('name' in type) || type.name !== name) continue
      const target = this.resolve(id)
      if (target.kind === 'struct' || target.kind === 'union') return { id, size: target.size }
    }
    return undefined
  }

  #findVariables(elf: ElfFile): BtfVariable[] {
    const out: BtfVariable[] = []
    for (const section of this.types) {
      if (section.kind !== 'datasec' || !/^\.(rodata|data|bss)/.test(section.name)) continue
      for (const { type } of section.variables) {
        const variable = this.type(type)
        if (variable.kind !== 'var') continue
        // Clang leaves offsets to a relocation; the symbol table has them (libbpf does the same, btf_fixup_datasec).
        const symbol = elf.symbols.find(
          (candidate) => candidate.name === variable.name && elf.sections[candidate.section]?.name === section.name,
        )
        if (symbol === undefined) continue
        const size = this.sizeOf(variable.type)
        out.push({ name: variable.name, section: section.name, type: variable.type, offset: symbol.value, size })
      }
    }
    return out
  }

  #findMaps(path: string): BtfMap[] {
    const section = this.types.find((type) => type.kind === 'datasec' && type.name === '.maps')
    if (section?.kind !== 'datasec') return []
    return section.variables.map(({ type }) => {
      const variable = this.type(type)
      const definition = variable.kind === 'var' ? this.resolve(variable.type) : undefined
      if (variable.kind !== 'var' || definition?.kind !== 'struct') {
        throw new BpfError('BAD_ELF', 0, '', `${path}: a map's definition is no struct`)
      }
      return this.#map(variable.name, definition)
    })
  }

  #map(name: string, definition: Extract<BtfType, { kind: 'struct' | 'union' }>): BtfMap {
    const pointed = (name: string): number | undefined => {
      const member = definition.members.find((candidate) => candidate.name === name)
      const pointer = member === undefined ? undefined : this.resolve(member.type)
      return pointer?.kind === 'ptr' ? pointer.type : undefined
    }
    // __uint(name, n) is a pointer to an array of n.
    const number = (name: string): number | undefined => {
      const target = pointed(name)
      const list = target === undefined ? undefined : this.resolve(target)
      return list?.kind === 'array' ? list.length : undefined
    }
    const key = pointed('key')
    const value = pointed('value')
    return {
      name,
      kind: mapTypes[number('type') ?? 0] ?? 'unspec',
      key,
      value,
      keySize: number('key_size') ?? (key === undefined ? 0 : this.sizeOf(key)),
      valueSize: number('value_size') ?? (value === undefined ? 0 : this.sizeOf(value)),
      inner: this.#inner(definition),
    }
  }

  /** __array(values, T) is an array of pointers to T. */
  #inner(definition: Extract<BtfType, { kind: 'struct' | 'union' }>): BtfMap | undefined {
    const member = definition.members.find((candidate) => candidate.name === 'values')
    const list = member === undefined ? undefined : this.resolve(member.type)
    const pointer = list?.kind === 'array' ? this.resolve(list.type) : undefined
    const target = pointer?.kind === 'ptr' ? this.resolve(pointer.type) : undefined
    return target?.kind === 'struct' ? this.#map('', target) : undefined
  }
}

/** Reads the BTF of an object file. Throws BpfError BAD_ELF (also if it was compiled without -g). */
export function readBtf(path: string): Btf {
  if (!existsSync(path)) throw new BpfError('ENOENT', 2, 'open', `There is no object file ${path}`, 'Run bpf/build.sh')
  const file = readFileSync(path)
  const elf = parseElf(file, path)
  const section = elf.sections.find((candidate) => candidate.name === '.BTF')
  if (section === undefined) {
    throw new BpfError('BAD_ELF', 0, '', `${path} has no BTF`, 'Compile it with clang -g -target bpf')
  }
  return new Btf(parseTypes(section.data, elf.little, path), elf, path)
}

function isAlias(type: BtfType): type is Extract<BtfType, { type: number }> {
  return ['typedef', 'const', 'volatile', 'restrict', 'type_tag'].includes(type.kind)
}

function isProgramSection(name: string): boolean {
  return name !== '.text' && name !== '' && !/^\.(maps|rodata|data|bss)/.test(name)
}

function parseTypes(data: Uint8Array, little: boolean, path: string): BtfType[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const u32 = (at: number): number => view.getUint32(at, little)
  const i32 = (at: number): number => view.getInt32(at, little)
  const bad = (why: string): BpfError => new BpfError('BAD_ELF', 0, '', `${path}: bad BTF: ${why}`)
  try {
    if (view.getUint16(0, little) !== 0xeb9f) throw bad('no magic')
    const header = u32(4)
    const start = header + u32(8)
    const end = start + u32(12)
    const strings = data.subarray(header + u32(16), header + u32(16) + u32(20))
    const types: BtfType[] = [{ kind: 'void' }]
    let at = start
    while (at < end) {
      const name = cString(strings, u32(at))
      const info = u32(at + 4)
      const sizeOrType = u32(at + 8)
      const count = info & 0xffff
      const kind = (info >>> 24) & 31
      const flag = info >>> 31 === 1
      const body = at + 12
      const list = <T>(size: number, read: (at: number) => T): T[] => {
        const out = Array.from({ length: count }, (_, i) => read(body + i * size))
        at = body + count * size
        return out
      }
      at = body
      switch (kind) {
        case 1: {
          const encoding = (u32(body) >>> 24) & 15
          at = body + 4
          const [signed, char, bool] = [(encoding & 1) !== 0, (encoding & 2) !== 0, (encoding & 4) !== 0]
          types.push({ kind: 'int', name, size: sizeOrType, signed, char, bool })
          break
        }
        case 2:
          types.push({ kind: 'ptr', type: sizeOrType })
          break
        case 3:
          types.push({ kind: 'array', type: u32(body), length: u32(body + 8) })
          at = body + 12
          break
        case 4:
        case 5: {
          const members = list(12, (m) => {
            const offset = u32(m + 8)
            // With the kind flag set, an offset carries a bit field's width in its top byte.
            const [bitOffset, bitSize] = flag ? [offset & 0xffffff, offset >>> 24] : [offset, 0]
            return { name: cString(strings, u32(m)), type: u32(m + 4), bitOffset, bitSize }
          })
          types.push({ kind: kind === 4 ? 'struct' : 'union', name, size: sizeOrType, members })
          break
        }
        case 6: {
          const values = list(8, (m) => ({
            name: cString(strings, u32(m)),
            value: BigInt(flag ? i32(m + 4) : u32(m + 4)),
          }))
          types.push({ kind: 'enum', name, size: sizeOrType, signed: flag, values })
          break
        }
        case 19: {
          const values = list(12, (m) => {
            const value = (BigInt(u32(m + 8)) << 32n) | BigInt(u32(m + 4))
            return { name: cString(strings, u32(m)), value: flag ? BigInt.asIntN(64, value) : value }
          })
          types.push({ kind: 'enum', name, size: sizeOrType, signed: flag, values })
          break
        }
        case 8:
          types.push({ kind: 'typedef', name, type: sizeOrType })
          break
        case 9:
        case 10:
        case 11:
        case 18: {
          const qualifier = kind === 9 ? 'volatile' : kind === 10 ? 'const' : kind === 11 ? 'restrict' : 'type_tag'
          types.push({ kind: qualifier, type: sizeOrType })
          break
        }
        case 13:
          types.push({ kind: 'func_proto', parameters: list(8, (m) => u32(m + 4)) })
          break
        case 12:
          types.push({ kind: 'func', name, type: sizeOrType })
          break
        case 14:
          at = body + 4
          types.push({ kind: 'var', name, type: sizeOrType })
          break
        case 15: {
          const variables = list(12, (m) => ({ type: u32(m), offset: u32(m + 4), size: u32(m + 8) }))
          types.push({ kind: 'datasec', name, variables })
          break
        }
        case 16:
          types.push({ kind: 'float', name, size: sizeOrType })
          break
        case 17: // DECL_TAG: the component's index
          at = body + 4
          types.push({ kind: 'other', name })
          break
        case 7: // FWD
          types.push({ kind: 'other', name })
          break
        default:
          throw bad(`kind ${kind} of type ${types.length} is unknown`)
      }
    }
    return types
  } catch (error) {
    if (error instanceof RangeError) throw bad('a type leaves the section')
    throw error
  }
}
