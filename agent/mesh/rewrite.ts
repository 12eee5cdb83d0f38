// Rewriting of a request's path by the rule it met. The query always stays. Semantics: VirtualService HTTPRewrite,
// HTTPRoute HTTPPathModifier (ReplacePrefixMatch works on path elements). Must not live here: the authority, redirects.
import { compileRegex, compileRewrite } from '../base/regex.ts'
import type { PathMatch, Rewrite, Route } from './route.ts'

/** The new path for a path, both with query. */
export type RewritePath = (path: string) => string

/** Compiles the path part of a rewrite for one match of its rule; undefined where the path stays as it is. */
export function compileRewritePath(
  rewrite: Rewrite | undefined,
  match: PathMatch | undefined,
  dialect: Route['dialect'],
): RewritePath | undefined {
  if (!rewrite) return undefined
  if (rewrite.regex) {
    const regex = compileRegex(rewrite.regex.match)
    const template = compileRewrite(rewrite.regex.rewrite, regex)
    return onPath((path) => regex.replaceAll(path, template))
  }
  if (rewrite.fullPath !== undefined) {
    const full = rewrite.fullPath
    return onPath(() => full)
  }
  if (rewrite.prefixPath !== undefined) {
    const prefix = match?.type === 'elements' || match?.type === 'prefix' ? match.value : '/'
    return prefixReplacer(prefix, rewrite.prefixPath)
  }
  if (rewrite.uri === undefined) return undefined
  const uri = rewrite.uri
  // Envoy's prefix_rewrite is set also for exact matches, where the matched prefix is the whole path.
  if (match?.type === 'prefix') {
    const length = match.value.length
    return onPath((path) => uri + path.slice(length))
  }
  if (match?.type === 'elements') return prefixReplacer(match.value, uri)
  if (match === undefined) {
    // Without a path match Istio matches the prefix `/`, which the rewrite replaces.
    return dialect === 'VirtualService' ? onPath((path) => uri + path.slice(1)) : onPath(() => uri)
  }
  return onPath(() => uri)
}

/** ReplacePrefixMatch: `/foo/bar` with prefix `/foo` becomes `<replacement>/bar`, with exactly one slash between. */
export function prefixReplacer(prefix: string, replacement: string): RewritePath {
  const from = prefix.endsWith('/') ? prefix.length - 1 : prefix.length
  const to = replacement.endsWith('/') ? replacement.slice(0, -1) : replacement
  return onPath((path) => {
    const rest = path.slice(from)
    if (rest === '' && replacement !== '' && replacement !== '/') return replacement
    return to + rest || '/'
  })
}

function onPath(change: (path: string) => string): RewritePath {
  return (path) => {
    const query = path.indexOf('?')
    if (query < 0) return change(path)
    const changed = change(path.slice(0, query))
    // A replacement may bring a query of its own, which then stands before the client's.
    return changed.includes('?') ? `${changed}&${path.slice(query + 1)}` : changed + path.slice(query)
  }
}
