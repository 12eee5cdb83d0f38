// What several codecs share: sources, string matches, checked enums and ports. A decoder accepts only what it fully
// understands: an enum value or a oneof from a newer version is refused by name, never read as something else.
import { AmbitError } from '../../base/errors.ts'
import type { AuthzMatch } from '../../mesh/match.ts'
import type { Source } from '../../mesh/source.ts'
import type { AuthzMatch as WireAuthzMatch } from '../gen/ambit/v1/policy_pb.js'
import type { Source as WireSource } from '../gen/ambit/v1/source_pb.js'

/** The error of every decoder and encoder of this folder. */
export function invalid(what: string): AmbitError {
  return new AmbitError('WIRE_RESOURCE_INVALID', `A resource cannot be carried over the wire: ${what}.`)
}

/** The same record with its keys in order, so that equal objects encode to equal bytes (versions are hashes of them). */
export function sorted<V>(record: Readonly<Record<string, V>>): Record<string, V> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** Text ⇄ enum number, refusing what the table does not hold. */
export class EnumTable<Text extends string> {
  readonly #what: string
  readonly #toWire: ReadonlyMap<string, number>
  readonly #toText: ReadonlyMap<number, Text>

  constructor(what: string, table: Readonly<Record<Text, number>>) {
    const entries = Object.entries(table) as [Text, number][]
    this.#what = what
    this.#toWire = new Map(entries)
    this.#toText = new Map(entries.map(([text, number]) => [number, text]))
  }

  wire(text: Text): number {
    const number = this.#toWire.get(text)
    if (number === undefined) throw invalid(`${this.#what} '${text}' has no form there`)
    return number
  }

  text(number: number): Text {
    const text = this.#toText.get(number)
    if (text === undefined) throw invalid(`${this.#what} ${number} is not known to this version`)
    return text
  }
}

/** 0…65535, where 0 has a meaning of its own. */
export function checkPort(port: number): number {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw invalid(`${port} is not a port`)
  return port
}

/** An unsigned 32-bit number. */
export function checkUint(value: number, what: string): number {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff)
    throw invalid(`${what} ${value} is not a whole number below 2^32`)
  return value
}

export function encodeSource(source: Source) {
  return {
    kind: source.kind,
    namespace: source.namespace,
    name: source.name,
    ...(source.generation === undefined ? {} : { generation: BigInt(source.generation) }),
    ...(source.place === undefined ? {} : { place: source.place }),
  }
}

export function decodeSource(wire: WireSource | undefined, kind: string, namespace: string, name: string): Source {
  if (!wire) return { kind, namespace, name }
  return {
    kind: wire.kind,
    namespace: wire.namespace,
    name: wire.name,
    ...(wire.generation === undefined ? {} : { generation: Number(wire.generation) }),
    ...(wire.place === undefined ? {} : { place: wire.place }),
  }
}

export function encodeAuthzMatch(match: AuthzMatch) {
  switch (match.type) {
    case 'exact':
      return { type: { case: 'exact', value: match.value } } as const
    case 'prefix':
      return { type: { case: 'prefix', value: match.value } } as const
    case 'suffix':
      return { type: { case: 'suffix', value: match.value } } as const
    case 'template':
      return { type: { case: 'template', value: match.value } } as const
    case 'presence':
      return { type: { case: 'presence', value: {} } } as const
  }
}

export function decodeAuthzMatch(wire: WireAuthzMatch): AuthzMatch {
  switch (wire.type.case) {
    case 'presence':
      return { type: 'presence' }
    case undefined:
      throw invalid('a string match of a kind that is not known to this version')
    case 'exact':
    case 'prefix':
    case 'suffix':
    case 'template':
      return { type: wire.type.case, value: wire.type.value }
  }
}

/** An absent list and an empty one are the same: no condition (mesh/lower.ts, isSet). */
export function encodeList<T, W>(list: readonly T[] | undefined, encode: (value: T) => W): W[] {
  return list === undefined ? [] : list.map(encode)
}

/** `{[field]: list}`, or nothing for an empty list. */
export function decodeList<F extends string, W, T>(
  field: F,
  list: readonly W[],
  decode: (wire: W) => T,
): { [K in F]?: T[] } {
  return list.length === 0 ? {} : ({ [field]: list.map(decode) } as { [K in F]: T[] })
}
