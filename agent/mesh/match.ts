// String matches in Istio's vocabularies. AuthorizationPolicy strings are exact, `abc*`, `*abc` or `*`; VirtualService
// and HTTPRoute strings are exact, prefix or a whole-string RE2 regex. Compiled once, never a JavaScript RegExp of a user's.

/** One value of an AuthorizationPolicy field. `presence` means non-empty. `template` only in paths (`/a/{*}/b`, `{**}` last). */
export type AuthzMatch =
  | { readonly type: 'exact'; readonly value: string }
  | { readonly type: 'prefix'; readonly value: string }
  | { readonly type: 'suffix'; readonly value: string }
  | { readonly type: 'presence' }
  | { readonly type: 'template'; readonly value: string }

/** One value of a route match. `regex` is RE2 and matches the whole string. `present` is an empty StringMatch. */
export type RouteStringMatch =
  | { readonly type: 'exact'; readonly value: string; readonly ignoreCase?: boolean }
  | { readonly type: 'prefix'; readonly value: string; readonly ignoreCase?: boolean }
  | { readonly type: 'regex'; readonly value: string }
  | { readonly type: 'present' }
