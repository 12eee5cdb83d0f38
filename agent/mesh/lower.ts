// A policy as an agent can judge it: only attributes of a connection, in the vocabulary of istio.security.Authorization.
// Fail closed: what cannot be evaluated there never lets an ALLOW match and never keeps a DENY from matching (Istio's
// own conversion makes such DENY rules no-ops). Must not live here: evaluation (authorize.ts), the wire.
import type { AuthzMatch } from './match.ts'
import type { Clause, Match, Policy, Rule } from './policy.ts'
import type { MeshSettings } from './settings.ts'

type Field = keyof Match

/** A match without fields never matches. */
const NEVER: Rule = { clauses: [{ matches: [{}] }] }

/** Fields of a Match that ask about a request: no agent can evaluate them. */
export const REQUEST_FIELDS: readonly Field[] = [
  'remoteIps',
  'notRemoteIps',
  'hosts',
  'notHosts',
  'methods',
  'notMethods',
  'paths',
  'notPaths',
  'headers',
  'notHeaders',
  'requestPrincipals',
  'notRequestPrincipals',
  'audiences',
  'notAudiences',
  'presenters',
  'notPresenters',
  'claims',
  'notClaims',
  'sni',
  'notSni',
  'unsupported',
]

/** Fields of a token: nothing of Ambit evaluates them yet. */
export const TOKEN_FIELDS: readonly Field[] = [
  'requestPrincipals',
  'notRequestPrincipals',
  'audiences',
  'notAudiences',
  'presenters',
  'notPresenters',
  'claims',
  'notClaims',
  'unsupported',
]

/** True if a Match sets one of these fields. */
export function usesAny(match: Match, fields: readonly Field[]): boolean {
  return fields.some((field) => isSet(match, field))
}

/** A field counts as set when it has at least one value: an empty list is no condition. */
export function isSet(match: Match, field: Field): boolean {
  const value = match[field]
  return value !== undefined && value.length > 0
}

/** True if the policy asks about requests somewhere, so that its L4 form differs from it. */
export function needsRequest(policy: Policy): boolean {
  return policy.rules.some((rule) =>
    rule.clauses.some((clause) => clause.matches.some((match) => usesAny(match, REQUEST_FIELDS))),
  )
}

/**
 * The L4 form of a policy, or undefined where agents have nothing to do with it (targetRefs, AUDIT). ALLOW: a match with
 * a request attribute never matches, so it is left out; a rule that can no longer match becomes one that never does. DENY, and
 * CUSTOM which denies while there is no external authoriser: request attributes are taken out, the match stays. Rules keep
 * their numbers.
 */
export function lowerPolicy(policy: Policy, settings: MeshSettings): Policy | undefined {
  if (policy.scope === 'target' || policy.action === 'AUDIT') return undefined
  const lenient = policy.action !== 'ALLOW'
  const rules: Rule[] = []
  for (const rule of policy.rules) {
    const clauses: Clause[] = []
    let possible = true
    for (const clause of rule.clauses) {
      const lowered = lowerClause(clause, lenient, settings)
      if (lowered === 'always') continue
      if (lowered === 'never') possible = false
      else clauses.push(lowered)
    }
    // A rule that cannot match stays as one that never does, so that rule numbers in verdicts are those of the resource.
    rules.push(possible ? { clauses } : NEVER)
  }
  return { ...policy, action: policy.action === 'CUSTOM' ? 'DENY' : policy.action, rules }
}

function lowerClause(clause: Clause, lenient: boolean, settings: MeshSettings): Clause | 'always' | 'never' {
  if (clause.matches.length === 0) return 'always'
  const matches: Match[] = []
  for (const match of clause.matches) {
    const lowered = lowerMatch(match, lenient, settings)
    if (lowered === 'always') return 'always'
    if (lowered !== 'never') matches.push(lowered)
  }
  return matches.length === 0 ? 'never' : { matches }
}

/** A match without request attributes and without trust domains; `always` when nothing restricts it any more. */
function lowerMatch(match: Match, lenient: boolean, settings: MeshSettings): Match | 'always' | 'never' {
  const fields = (Object.keys(match) as Field[]).filter((field) => isSet(match, field))
  if (fields.length === 0) return 'never'
  if (!lenient && usesAny(match, REQUEST_FIELDS)) return 'never'
  const kept: Record<string, unknown> = {}
  for (const field of fields) if (!REQUEST_FIELDS.includes(field)) kept[field] = match[field]
  const expanded = expandTrustDomains(kept as Match, settings)
  const lowered = lowerTrustDomains(expanded, lenient)
  if (lowered === 'never') return 'never'
  return Object.keys(lowered).length === 0 ? 'always' : lowered
}

/**
 * Trust domains have no field of their own on the wire, but a principal starts with one: `td` is the principal prefix
 * `td/`. A suffix (`*td`) cannot be said that way, nor can both fields of one match unless the principals are exact.
 */
function lowerTrustDomains(match: Match, lenient: boolean): Match | 'never' {
  const { trustDomains, notTrustDomains, ...rest } = match
  let principals = rest.principals
  let notPrincipals = rest.notPrincipals
  if (trustDomains && trustDomains.length > 0) {
    const prefixes = trustDomains.map(trustDomainAsPrincipal)
    if (principals === undefined || principals.length === 0) {
      if (prefixes.some((prefix) => prefix === undefined)) {
        if (!lenient) return 'never'
      } else principals = prefixes as AuthzMatch[]
    } else if (principals.every((principal) => principal.type === 'exact')) {
      principals = principals.filter((principal) => {
        const domain = principal.type === 'exact' ? (principal.value.split('/')[0] ?? '') : ''
        return trustDomains.some((wanted) => matchesText(wanted, domain))
      })
      if (principals.length === 0) return 'never'
    } else if (!lenient) return 'never'
  }
  if (notTrustDomains && notTrustDomains.length > 0) {
    const prefixes = notTrustDomains.map(trustDomainAsPrincipal)
    if (prefixes.some((prefix) => prefix === undefined)) {
      if (!lenient) return 'never'
    } else notPrincipals = [...(notPrincipals ?? []), ...(prefixes as AuthzMatch[])]
  }
  return {
    ...rest,
    ...(principals && principals.length > 0 ? { principals } : {}),
    ...(notPrincipals && notPrincipals.length > 0 ? { notPrincipals } : {}),
  }
}

function trustDomainAsPrincipal(match: AuthzMatch): AuthzMatch | undefined {
  if (match.type === 'exact') return { type: 'prefix', value: `${match.value}/` }
  if (match.type === 'prefix') return match
  return match.type === 'presence' ? match : undefined
}

/** A value of an AuthorizationPolicy field against a text; templates only make sense for paths (compile-policy.ts). */
export function matchesText(match: AuthzMatch, text: string): boolean {
  switch (match.type) {
    case 'exact':
      return text === match.value
    case 'prefix':
      return text.startsWith(match.value)
    case 'suffix':
      return text.endsWith(match.value)
    case 'presence':
      return text.length > 0
    case 'template':
      return false
  }
}

/**
 * Principals for every trust domain of the mesh: one written with a domain of the mesh, or with `cluster.local`, which
 * always points at the mesh's own, stands for all of them (MeshConfig.trustDomainAliases). Idempotent.
 */
export function expandTrustDomains(match: Match, settings: MeshSettings): Match {
  if (settings.trustDomainAliases.length === 0 && settings.trustDomain === 'cluster.local') return match
  const domains = [settings.trustDomain, ...settings.trustDomainAliases]
  const expand = (values: readonly AuthzMatch[]): readonly AuthzMatch[] => {
    const out = new Map<string, AuthzMatch>()
    for (const value of values) {
      if (value.type === 'exact' || value.type === 'prefix') {
        const slash = value.value.indexOf('/')
        const domain = value.value.slice(0, Math.max(0, slash))
        if (slash > 0 && (domain === 'cluster.local' || domains.includes(domain))) {
          for (const other of domains) {
            const next = { type: value.type, value: other + value.value.slice(slash) }
            out.set(`${next.type} ${next.value}`, next)
          }
          continue
        }
      }
      out.set(value.type === 'presence' ? '*' : `${value.type} ${value.value}`, value)
    }
    return [...out.values()]
  }
  return {
    ...match,
    ...(match.principals ? { principals: expand(match.principals) } : {}),
    ...(match.notPrincipals ? { notPrincipals: expand(match.notPrincipals) } : {}),
  }
}
