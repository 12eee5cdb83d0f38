// Authorization policies in one shape for both halves: the agent judges connections with it, the waypoint requests.
// Structure follows istio.security.Authorization: rules OR, clauses AND, matches OR, fields of a match AND, values OR.
// `from`, `to` and each `when` of an AuthorizationPolicy become one clause each. Evaluation lives in authorize.ts.
import type { AuthzMatch } from './match.ts'
import type { Source } from './source.ts'

export type PolicyAction = 'ALLOW' | 'DENY' | 'AUDIT' | 'CUSTOM'

/** `workload`: in the list of the workloads it selects. `target`: by targetRefs, at waypoints only. */
export type PolicyScope = 'global' | 'namespace' | 'workload' | 'target'

export interface TargetRef {
  /** `Service`, `Gateway`, `GatewayClass`, `ServiceEntry`. */
  readonly kind: string
  readonly namespace: string
  readonly name: string
}

export interface Policy {
  readonly namespace: string
  readonly name: string
  readonly scope: PolicyScope
  readonly action: PolicyAction
  /** `istio.io/dry-run`: evaluated and counted, never enforced. */
  readonly dryRun: boolean
  /** matchLabels of a `workload` scoped policy. */
  readonly selector: Readonly<Record<string, string>>
  readonly targets: readonly TargetRef[]
  /** No rules: never matches. */
  readonly rules: readonly Rule[]
  /** CUSTOM: the extension provider. */
  readonly provider?: string
  readonly source: Source
}

export interface Rule {
  /** No clauses: matches everything. */
  readonly clauses: readonly Clause[]
}

export interface Clause {
  /** No matches: true. */
  readonly matches: readonly Match[]
}

export interface IpRange {
  /** Canonical text form. */
  readonly address: string
  readonly length: number
}

export interface ServiceAccountMatch {
  readonly namespace: string
  readonly name: string
}

/** A named value list, as in request.headers[x] or request.auth.claims[a][b]. */
export interface KeyedMatch {
  /** Header name in lower case, or the claim path with its parts joined by U+001F. */
  readonly key: string
  readonly values: readonly AuthzMatch[]
}

/** A match with no field set never matches. `not…`: none of the values may match. */
export interface Match {
  readonly principals?: readonly AuthzMatch[]
  readonly notPrincipals?: readonly AuthzMatch[]
  readonly namespaces?: readonly AuthzMatch[]
  readonly notNamespaces?: readonly AuthzMatch[]
  readonly serviceAccounts?: readonly ServiceAccountMatch[]
  readonly notServiceAccounts?: readonly ServiceAccountMatch[]
  readonly trustDomains?: readonly AuthzMatch[]
  readonly notTrustDomains?: readonly AuthzMatch[]
  readonly sourceIps?: readonly IpRange[]
  readonly notSourceIps?: readonly IpRange[]
  readonly remoteIps?: readonly IpRange[]
  readonly notRemoteIps?: readonly IpRange[]
  readonly destinationIps?: readonly IpRange[]
  readonly notDestinationIps?: readonly IpRange[]
  readonly destinationPorts?: readonly number[]
  readonly notDestinationPorts?: readonly number[]
  // Request attributes: only a waypoint can evaluate these.
  readonly hosts?: readonly AuthzMatch[]
  readonly notHosts?: readonly AuthzMatch[]
  readonly methods?: readonly AuthzMatch[]
  readonly notMethods?: readonly AuthzMatch[]
  readonly paths?: readonly AuthzMatch[]
  readonly notPaths?: readonly AuthzMatch[]
  readonly headers?: readonly KeyedMatch[]
  readonly notHeaders?: readonly KeyedMatch[]
  readonly requestPrincipals?: readonly AuthzMatch[]
  readonly notRequestPrincipals?: readonly AuthzMatch[]
  readonly audiences?: readonly AuthzMatch[]
  readonly notAudiences?: readonly AuthzMatch[]
  readonly presenters?: readonly AuthzMatch[]
  readonly notPresenters?: readonly AuthzMatch[]
  readonly claims?: readonly KeyedMatch[]
  readonly notClaims?: readonly KeyedMatch[]
  readonly sni?: readonly AuthzMatch[]
  readonly notSni?: readonly AuthzMatch[]
  /** Attributes no part of Ambit can evaluate, by name: ALLOW never matches, DENY matches without them. */
  readonly unsupported?: readonly string[]
}
