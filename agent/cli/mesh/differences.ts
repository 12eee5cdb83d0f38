// Where two JSON values differ, by path. Pure. Must not live here: whose they are.

export interface Change {
  /** `workload.addresses[1]`. */
  readonly path: string
  /** undefined: not there. */
  readonly from: unknown
  readonly to: unknown
}

/** Of one pair of values; more are left out. */
const MAX_CHANGES = 50

/** In the order of the first value's fields, then what only the second has. Arrays are compared by position. */
export function changesOf(from: unknown, to: unknown): readonly Change[] {
  const found: Change[] = []
  walk('', from, to, found)
  return found
}

function walk(path: string, from: unknown, to: unknown, found: Change[]): void {
  if (found.length >= MAX_CHANGES || Object.is(from, to)) return
  if (isObject(from) && isObject(to) && Array.isArray(from) === Array.isArray(to)) {
    for (const key of new Set([...Object.keys(from), ...Object.keys(to)])) {
      const below = Array.isArray(from) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`
      walk(below, from[key], to[key], found)
    }
    return
  }
  found.push({ path, from, to })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

/** A value in a line, cut where it is long. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value)
  return text.length > 120 ? `${text.slice(0, 117)}…` : text
}
