// Header operations of a route on a flat header list, in Envoy's order: remove, then set, then add. Must not live here:
// which operations apply when (route rule first, then destination: the more specific level comes last).
import type { HeaderOps } from './route.ts'

export interface CompiledHeaderOps {
  /** New authority where `host` or `:authority` is set; undefined leaves it. */
  readonly authority: string | undefined
  readonly remove: ReadonlySet<string>
  /** Flat list name, value, …; replaces fields of that name. */
  readonly set: readonly string[]
  /** Flat list; appended. */
  readonly add: readonly string[]
}

/** Compiles operations; undefined where there is nothing to do. Names are lowered; pseudo-headers other than the authority are left alone. */
export function compileHeaderOps(ops: HeaderOps | undefined): CompiledHeaderOps | undefined {
  if (!ops) return undefined
  let authority: string | undefined
  const set: string[] = []
  const add: string[] = []
  const remove = new Set<string>()
  for (const name of ops.remove) {
    const lower = name.toLowerCase()
    if (!lower.startsWith(':') && lower !== 'host') remove.add(lower)
  }
  for (const [name, value] of Object.entries(ops.set)) {
    const lower = name.toLowerCase()
    if (lower === 'host' || lower === ':authority') authority = value
    else if (!lower.startsWith(':')) {
      set.push(lower, value)
      remove.add(lower)
    }
  }
  for (const [name, value] of Object.entries(ops.add)) {
    const lower = name.toLowerCase()
    if (!lower.startsWith(':') && lower !== 'host') add.push(lower, value)
  }
  if (authority === undefined && remove.size === 0 && set.length === 0 && add.length === 0) return undefined
  return { authority, remove, set, add }
}

/** Applies the operations to a flat list in place. The authority is the caller's to set. */
export function applyHeaderOps(headers: string[], ops: CompiledHeaderOps): void {
  if (ops.remove.size > 0) {
    let to = 0
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i] as string
      if (ops.remove.has(name)) continue
      headers[to] = name
      headers[to + 1] = headers[i + 1] as string
      to += 2
    }
    headers.length = to
  }
  for (let i = 0; i < ops.set.length; i++) headers.push(ops.set[i] as string)
  for (let i = 0; i < ops.add.length; i++) headers.push(ops.add[i] as string)
}
