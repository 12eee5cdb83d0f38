// What is kept of an object: named fields, the rest is let go with the page it came in. Equal strings and label sets are kept
// once, since ten thousand pods have a few hundred of them. Must not live here: which fields (mesh-kinds.ts).

/** `true`: as it is. A function: what it makes of it. An object: these fields of it. An array: of each of its elements. */
export type Fields = true | ((value: unknown) => unknown) | { readonly [field: string]: Fields } | readonly [Fields]

/** The kept part; undefined where there is nothing to keep. */
export function keep(value: unknown, fields: Fields): unknown {
  if (value === undefined || value === null) return undefined
  if (fields === true) return value
  if (typeof fields === 'function') return fields(value)
  if (isList(fields)) {
    if (!Array.isArray(value)) return undefined
    const kept: unknown[] = []
    for (const one of value) {
      const part = keep(one, fields[0])
      if (part !== undefined) kept.push(part)
    }
    return kept
  }
  if (typeof value !== 'object') return undefined
  const kept: Record<string, unknown> = {}
  for (const field of Object.keys(fields)) {
    const part = keep((value as Record<string, unknown>)[field], fields[field]!)
    if (part !== undefined) kept[field] = part
  }
  // Else a field that is not kept would show itself by coming and going.
  return Object.keys(kept).length > 0 ? kept : undefined
}

function isList(fields: object): fields is readonly [Fields] {
  return Array.isArray(fields)
}

/** Different values remembered at most; then it begins anew, and equal values may be held twice. */
const MAX_INTERNED = 50_000

/** Keeps one of each of many equal values. */
export class Interner {
  #strings = new Map<string, string>()
  #records = new Map<string, Readonly<Record<string, string>>>()

  string = (value: unknown): unknown => {
    if (typeof value !== 'string') return undefined
    const known = this.#strings.get(value)
    if (known !== undefined) return known
    if (this.#strings.size >= MAX_INTERNED) this.#strings.clear()
    this.#strings.set(value, value)
    return value
  }

  /** A map of strings, as labels are; only the names that `wanted` accepts. Empty ones are left out. */
  record =
    (wanted: (name: string) => boolean = () => true) =>
    (value: unknown): unknown => {
      if (typeof value !== 'object' || value === null) return undefined
      const entries = Object.entries(value).filter(([name]) => wanted(name))
      if (entries.length === 0) return undefined
      const key = JSON.stringify(entries)
      const known = this.#records.get(key)
      if (known) return known
      const record: Record<string, string> = {}
      for (const [name, one] of entries) record[name] = this.string(one) as string
      if (this.#records.size >= MAX_INTERNED) this.#records.clear()
      this.#records.set(key, Object.freeze(record))
      return record
    }
}
