// Routes of a service, normalised from VirtualService (ordered, raw prefix) or HTTPRoute (most specific first, path
// elements). The dialects keep their own matchers and precedence; what a matched rule does is one action model.
// Must not live here: matching (match-route.ts), choosing an endpoint (pick-endpoint.ts). All durations are milliseconds.
import type { RouteStringMatch } from './match.ts'
import type { Source } from './source.ts'

/** All routes of one host as one consumer namespace sees them. */
export interface Route {
  readonly dialect: 'VirtualService' | 'HTTPRoute'
  /** Service namespace and host name the route is about. */
  readonly namespace: string
  readonly hostname: string
  /** Clients this route applies to: '*' or the namespace of a consumer route. */
  readonly consumerNamespace: string
  /** In order of evaluation for VirtualService; HTTPRoute rules are sorted by the translator, most specific first. */
  readonly rules: readonly RouteRule[]
  readonly tcp: readonly TcpRule[]
  readonly source: Source
}

export interface RouteRule {
  readonly name: string
  /** OR; empty matches everything. */
  readonly matches: readonly RouteMatch[]
  readonly action: RouteAction
  readonly timeoutMs?: number
  /** Absent: Istio's default policy. attempts 0: none. */
  readonly retry?: RetryPolicy
  readonly rewrite?: Rewrite
  readonly requestHeaders?: HeaderOps
  readonly responseHeaders?: HeaderOps
  /** Features of the resource that Ambit does not have yet, by name: a request that meets the rule gets 500, never a silent skip. */
  readonly unsupported: readonly string[]
  readonly source: Source
}

export interface RouteMatch {
  readonly name: string
  readonly path?: PathMatch
  readonly method?: RouteStringMatch
  readonly scheme?: RouteStringMatch
  readonly authority?: RouteStringMatch
  /** AND; names lower case. */
  readonly headers: readonly NamedMatch[]
  readonly withoutHeaders: readonly NamedMatch[]
  readonly queryParams: readonly NamedMatch[]
  /** Destination service port the client used; 0 = any. */
  readonly port: number
  readonly sourceNamespace: string
  readonly sourceLabels: Readonly<Record<string, string>>
}

export type PathMatch =
  | { readonly type: 'exact'; readonly value: string; readonly ignoreCase: boolean }
  /** VirtualService: raw string prefix. */
  | { readonly type: 'prefix'; readonly value: string; readonly ignoreCase: boolean }
  /** HTTPRoute: path-element prefix. */
  | { readonly type: 'elements'; readonly value: string }
  | { readonly type: 'regex'; readonly value: string }

export interface NamedMatch {
  readonly name: string
  readonly match: RouteStringMatch
}

export type RouteAction =
  | { readonly type: 'forward'; readonly destinations: readonly Destination[] }
  | { readonly type: 'redirect'; readonly redirect: Redirect }
  | { readonly type: 'respond'; readonly status: number; readonly body: string }

export interface Destination {
  /** `namespace/hostname`; '' when the reference is invalid (HTTPRoute: 500 for its share). */
  readonly service: string
  /** As written, for messages. */
  readonly host: string
  readonly subset: string
  /** 0: the only port of the service, or the port the client used. */
  readonly port: number
  readonly weight: number
  readonly requestHeaders?: HeaderOps
  readonly responseHeaders?: HeaderOps
}

export interface HeaderOps {
  readonly set: Readonly<Record<string, string>>
  readonly add: Readonly<Record<string, string>>
  readonly remove: readonly string[]
}

export interface Rewrite {
  /** VirtualService: replaces the matched prefix, or the whole path for exact and regex matches. */
  readonly uri?: string
  /** HTTPRoute ReplaceFullPath. */
  readonly fullPath?: string
  /** HTTPRoute ReplacePrefixMatch. */
  readonly prefixPath?: string
  readonly regex?: { readonly match: string; readonly rewrite: string }
  readonly authority?: string
}

export interface Redirect {
  readonly status: number
  readonly scheme?: string
  readonly authority?: string
  /** 0 / absent: by `derivePort`, else the dialect's rule. */
  readonly port?: number
  readonly derivePort?: 'FROM_PROTOCOL_DEFAULT' | 'FROM_REQUEST_PORT'
  readonly path?: string
  readonly prefixPath?: string
}

export interface RetryPolicy {
  /** Re-tries after the first attempt. */
  readonly attempts: number
  readonly perTryTimeoutMs?: number
  /** Envoy's words: connect-failure, 5xx, gateway-error, reset, refused-stream, cancelled … */
  readonly retryOn: readonly string[]
  readonly statusCodes: readonly number[]
  /** Base interval, default 25. */
  readonly backoffMs: number
  readonly ignorePreviousHosts: boolean
}

export interface TcpRule {
  /** 0 = any port. */
  readonly port: number
  readonly destinations: readonly Destination[]
  readonly source: Source
}
