// Rewrite ⇄ ambit.v1.Rewrite, and the copying of optional scalar fields that both directions of a route use.
import type { Rewrite } from '../../mesh/route.ts'
import type { Rewrite as WireRewrite } from '../gen/ambit/v1/route_pb.js'

/** The named fields of `from` that are set: an absent field stays absent, never `undefined`. */
export function pick<T extends object, K extends keyof T>(
  from: T,
  fields: readonly K[],
): { [P in K]?: Exclude<T[P], undefined> } {
  const to: { [P in K]?: Exclude<T[P], undefined> } = {}
  for (const field of fields) {
    const value = from[field]
    if (value !== undefined) to[field] = value as Exclude<T[K], undefined>
  }
  return to
}

export function encodeRewrite(rewrite: Rewrite) {
  return {
    ...pick(rewrite, ['uri', 'fullPath', 'prefixPath', 'authority']),
    ...(rewrite.regex ? { regex: { match: rewrite.regex.match, rewrite: rewrite.regex.rewrite } } : {}),
  }
}

export function decodeRewrite(wire: WireRewrite): Rewrite {
  return {
    ...pick(wire, ['uri', 'fullPath', 'prefixPath', 'authority']),
    ...(wire.regex ? { regex: { match: wire.regex.match, rewrite: wire.regex.rewrite } } : {}),
  }
}
