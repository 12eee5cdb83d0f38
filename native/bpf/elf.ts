// The parts of an ELF file that a BPF object needs: sections and symbols, little or big endian, 64 bit. Must not live
// here: BTF (btf.ts).
import { BpfError } from './errors.ts'

export interface ElfSection {
  readonly name: string
  readonly type: number
  readonly flags: bigint
  readonly data: Uint8Array
  readonly link: number
}

export interface ElfSymbol {
  readonly name: string
  /** STT_*: 1 object, 2 function. */
  readonly type: number
  /** STB_*: 0 local, 1 global, 2 weak. */
  readonly binding: number
  /** Index into sections. */
  readonly section: number
  readonly value: number
  readonly size: number
}

export interface ElfFile {
  readonly little: boolean
  readonly sections: readonly ElfSection[]
  readonly symbols: readonly ElfSymbol[]
}

const SHT_SYMTAB = 2
const SHT_NOBITS = 8

/** Parses an object file. Throws BpfError BAD_ELF for anything that does not hold together. */
export function parseElf(file: Uint8Array, path: string): ElfFile {
  const bad = (why: string): BpfError => new BpfError('BAD_ELF', 0, '', `${path} is not a BPF object: ${why}`)
  if (file.length < 64 || Buffer.from(file.buffer, file.byteOffset, 4).toString('latin1') !== '\x7fELF') {
    throw bad('no ELF header')
  }
  if (file[4] !== 2) throw bad('not a 64-bit ELF file')
  const little = file[5] === 1
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const u16 = (at: number): number => view.getUint16(at, little)
  const u32 = (at: number): number => view.getUint32(at, little)
  const u64 = (at: number): number => Number(view.getBigUint64(at, little))
  try {
    const table = u64(40)
    const entry = u16(58)
    const count = u16(60)
    const headers = Array.from({ length: count }, (_, i) => {
      const at = table + i * entry
      const type = u32(at + 4)
      const size = u64(at + 32)
      const start = u64(at + 24)
      if (type !== SHT_NOBITS && start + size > file.length) throw bad(`section ${i} leaves the file`)
      const data = type === SHT_NOBITS ? new Uint8Array(0) : file.subarray(start, start + size)
      return { name: u32(at), type, flags: view.getBigUint64(at + 8, little), data, link: u32(at + 40) }
    })
    const names = headers[u16(62)]?.data
    if (names === undefined) throw bad('no section names')
    const sections = headers.map((header) => ({ ...header, name: cString(names, header.name) }))
    const symtab = sections.find((section) => section.type === SHT_SYMTAB)
    const strings = symtab === undefined ? undefined : sections[symtab.link]?.data
    const symbols: ElfSymbol[] = []
    if (symtab !== undefined && strings !== undefined) {
      const { data } = symtab
      const at = new DataView(data.buffer, data.byteOffset, data.byteLength)
      for (let i = 0; i + 24 <= data.length; i += 24) {
        const info = at.getUint8(i + 4)
        symbols.push({
          name: cString(strings, at.getUint32(i, little)),
          type: info & 15,
          binding: info >> 4,
          section: at.getUint16(i + 6, little),
          value: Number(at.getBigUint64(i + 8, little)),
          size: Number(at.getBigUint64(i + 16, little)),
        })
      }
    }
    return { little, sections, symbols }
  } catch (error) {
    if (error instanceof RangeError) throw bad('a header leaves the file')
    throw error
  }
}

/** The zero-terminated text at an offset of a string table. */
export function cString(table: Uint8Array, offset: number): string {
  const end = table.indexOf(0, offset)
  return Buffer.from(table.buffer, table.byteOffset + offset, (end < 0 ? table.length : end) - offset).toString('utf8')
}
