// The verdict of authorization policies, in Istio's order: CUSTOM, DENY, no ALLOW at all, ALLOW, else denied. One
// evaluation for connections (agents) and requests (waypoints). Verdicts are made when policies are compiled, so that
// judging allocates nothing. Must not live here: predicates (compile-policy.ts), peers and waypoints (inbound.ts).
import { agentPolicies } from './applicable.ts'
import { compilePolicy, type CompiledPolicy } from './compile-policy.ts'
import { lowerPolicy } from './lower.ts'
import type { Policy } from './policy.ts'
import { emptyRequest, type ConnectionAttributes, type RequestAttributes } from './request.ts'
import type { MeshSettings } from './settings.ts'
import type { MeshView } from './state.ts'
import type { Workload } from './workload.ts'

export type VerdictReason =
  | 'no_allow_policy' // nothing denies and there is no ALLOW policy: allowed
  | 'allow_matched'
  | 'deny_matched'
  | 'custom_unsupported' // a CUSTOM policy matched and there is no external authoriser: denied
  | 'not_allowed' // ALLOW policies exist, none matched
  | 'unknown_policy' // a reference that is not known (yet): denied

export interface Verdict {
  readonly allowed: boolean
  readonly reason: VerdictReason
  /** The policy that decided; undefined for no_allow_policy, not_allowed and unknown_policy. */
  readonly policy: Policy | undefined
  /** Index of its rule, −1 without one. */
  readonly rule: number
  /** RESPONSE_CODE_DETAILS as Istio writes them; '' when allowed. */
  readonly details: string
}

interface Judge {
  readonly compiled: CompiledPolicy
  /** One verdict per rule. */
  readonly verdicts: readonly Verdict[]
}

/** Policies ready for judging. Immutable. */
export interface CompiledPolicies {
  /** CUSTOM, then DENY. */
  readonly refusing: readonly Judge[]
  readonly allowing: readonly Judge[]
  /** Dry-run and AUDIT: evaluated on request, never enforced. */
  readonly observing: readonly CompiledPolicy[]
  /** Set when a reference is unknown: the verdict of everything. */
  readonly fixed: Verdict | undefined
}

const ALLOWED: Verdict = Object.freeze({
  allowed: true,
  reason: 'no_allow_policy',
  policy: undefined,
  rule: -1,
  details: '',
})
const NOT_ALLOWED: Verdict = Object.freeze({
  allowed: false,
  reason: 'not_allowed',
  policy: undefined,
  rule: -1,
  details: 'rbac_access_denied_matched_policy[none]',
})

/** `ns[foo]-policy[bar]-rule[0]`, Istio's name of a rule. */
export function ruleName(policy: Policy, rule: number): string {
  return `ns[${policy.namespace}]-policy[${policy.name}]-rule[${rule}]`
}

/** Compiles what a waypoint evaluates (applicable.ts lists it). `unknown`: references without a policy, which deny. */
export function compilePolicies(
  policies: readonly Policy[],
  settings: MeshSettings,
  unknown: readonly string[] = [],
): CompiledPolicies {
  return assemble(
    policies.map((policy) => cached(requestCache, policy, settings, () => judge(policy, settings))),
    unknown,
  )
}

/** `form`: what is evaluated, the policy itself or its L4 form; verdicts always name the policy. */
function judge(policy: Policy, settings: MeshSettings, form: Policy = policy): Judge {
  const refuses = policy.action === 'DENY' || policy.action === 'CUSTOM'
  const reason = policy.action === 'CUSTOM' ? 'custom_unsupported' : refuses ? 'deny_matched' : 'allow_matched'
  const verdicts = policy.rules.map((_rule, rule) =>
    Object.freeze({
      allowed: !refuses,
      reason,
      policy,
      rule,
      details: refuses ? `rbac_access_denied_matched_policy[${ruleName(policy, rule)}]` : '',
    } satisfies Verdict),
  )
  return { compiled: { policy, match: compilePolicy(form, settings).match }, verdicts }
}

function assemble(judges: readonly Judge[], unknown: readonly string[]): CompiledPolicies {
  const custom: Judge[] = []
  const deny: Judge[] = []
  const allowing: Judge[] = []
  const observing: CompiledPolicy[] = []
  for (const one of judges) {
    const { policy } = one.compiled
    if (policy.dryRun || policy.action === 'AUDIT') observing.push(one.compiled)
    else if (policy.action === 'CUSTOM') custom.push(one)
    else if (policy.action === 'DENY') deny.push(one)
    else allowing.push(one)
  }
  const fixed: Verdict | undefined =
    unknown.length === 0
      ? undefined
      : {
          allowed: false,
          reason: 'unknown_policy',
          policy: undefined,
          rule: -1,
          details: `unknown_policy[${unknown[0]}]`,
        }
  return { refusing: [...custom, ...deny], allowing, observing, fixed }
}

/** The verdict on a request. Allocates nothing. */
export function authorizeRequest(compiled: CompiledPolicies, attributes: RequestAttributes): Verdict {
  if (compiled.fixed) return compiled.fixed
  const { refusing, allowing } = compiled
  for (let i = 0; i < refusing.length; i++) {
    const one = refusing[i] as Judge
    const rule = one.compiled.match(attributes)
    if (rule >= 0) return one.verdicts[rule] as Verdict
  }
  if (allowing.length === 0) return ALLOWED
  for (let i = 0; i < allowing.length; i++) {
    const one = allowing[i] as Judge
    const rule = one.compiled.match(attributes)
    if (rule >= 0) return one.verdicts[rule] as Verdict
  }
  return NOT_ALLOWED
}

/** What dry-run and AUDIT policies would have said. */
export interface Observation {
  readonly policy: Policy
  readonly rule: number
}

const NOTHING: readonly Observation[] = []

/** Dry-run and AUDIT policies that match; the empty list, without allocation, where there are none. */
export function observe(compiled: CompiledPolicies, attributes: RequestAttributes): readonly Observation[] {
  if (compiled.observing.length === 0) return NOTHING
  const found: Observation[] = []
  for (const one of compiled.observing) {
    const rule = one.match(attributes)
    if (rule >= 0) found.push({ policy: one.policy, rule })
  }
  return found
}

// Compiled forms live as long as their policy; another settings object starts afresh.
type Cache = WeakMap<MeshSettings, WeakMap<Policy, Judge>>
const requestCache: Cache = new WeakMap()
const connectionCache: Cache = new WeakMap()

function cached(cache: Cache, policy: Policy, settings: MeshSettings, make: () => Judge): Judge {
  let byPolicy = cache.get(settings)
  if (!byPolicy) cache.set(settings, (byPolicy = new WeakMap()))
  let value = byPolicy.get(policy)
  if (!value) byPolicy.set(policy, (value = make()))
  return value
}

const byWorkload = new WeakMap<MeshView, WeakMap<Workload, { version: number; compiled: CompiledPolicies }>>()

/** The compiled L4 policies of a workload, kept until the state changes. */
export function connectionPolicies(view: MeshView, workload: Workload): CompiledPolicies {
  let workloads = byWorkload.get(view)
  if (!workloads) byWorkload.set(view, (workloads = new WeakMap()))
  const known = workloads.get(workload)
  if (known && known.version === view.version) return known.compiled
  const { policies, unknown } = agentPolicies(view, workload)
  const { settings } = view
  const judges: Judge[] = []
  for (const policy of policies) {
    const lowered = lowerPolicy(policy, settings)
    if (lowered) judges.push(cached(connectionCache, policy, settings, () => judge(policy, settings, lowered)))
  }
  const compiled = assemble(judges, unknown)
  workloads.set(workload, { version: view.version, compiled })
  return compiled
}

const scratch = emptyRequest()

/** The verdict on a connection to a workload, by every policy its agent evaluates. Plaintext has no identity. */
export function authorizeConnection(view: MeshView, workload: Workload, attributes: ConnectionAttributes): Verdict {
  scratch.sourceAddress = attributes.sourceAddress
  scratch.remoteAddress = attributes.sourceAddress
  scratch.identity = attributes.identity
  scratch.destinationAddress = attributes.destinationAddress
  scratch.destinationPort = attributes.destinationPort
  scratch.sni = attributes.sni
  return authorizeRequest(connectionPolicies(view, workload), scratch)
}
