// One policy compiled into predicates: built once per policy, then asked per connection or request without allocation.
// Every field of an AuthorizationPolicy is here (semantics: Istio's authorization_policy.proto and, for a connection's
// fields, istio.security.Authorization). Must not live here: the order of policies (authorize.ts), who is subject to which (applicable.ts).
import { containsIp, parseCidr, type IpNetwork } from '../base/ip.ts'
import { expandTrustDomains, isSet, matchesText, TOKEN_FIELDS, usesAny } from './lower.ts'
import type { AuthzMatch } from './match.ts'
import type { Clause, IpRange, KeyedMatch, Match, Policy, Rule, ServiceAccountMatch } from './policy.ts'
import { addressBytes, headerValue, type RequestAttributes } from './request.ts'
import { principalOf } from './identity.ts'
import type { MeshSettings } from './settings.ts'

/** A predicate over the attributes. At an agent the request's fields hold the empty values of `emptyRequest`. */
export type Test = (attributes: RequestAttributes) => boolean

export interface CompiledPolicy {
  readonly policy: Policy
  /** Index of the first rule that matches, or −1. */
  readonly match: (attributes: RequestAttributes) => number
}

/** Compiles a policy. Unevaluable attributes: ALLOW and AUDIT never match with them, DENY and CUSTOM match without them. */
export function compilePolicy(policy: Policy, settings: MeshSettings): CompiledPolicy {
  const lenient = policy.action === 'DENY' || policy.action === 'CUSTOM'
  const rules = policy.rules.map((rule) => compileRule(rule, lenient, settings))
  return {
    policy,
    match(attributes) {
      for (let i = 0; i < rules.length; i++) if ((rules[i] as Test)(attributes)) return i
      return -1
    },
  }
}

const always: Test = () => true
const never: Test = () => false

function compileRule(rule: Rule, lenient: boolean, settings: MeshSettings): Test {
  return all(rule.clauses.map((clause) => compileClause(clause, lenient, settings)))
}

function compileClause(clause: Clause, lenient: boolean, settings: MeshSettings): Test {
  if (clause.matches.length === 0) return always
  return any(clause.matches.map((match) => compileMatch(match, lenient, settings)))
}

function all(tests: readonly Test[]): Test {
  const [first, second] = tests
  if (!first) return always
  if (!second) return first
  return (attributes) => {
    for (let i = 0; i < tests.length; i++) if (!(tests[i] as Test)(attributes)) return false
    return true
  }
}

function any(tests: readonly Test[]): Test {
  const [first, second] = tests
  if (!first) return never
  if (!second) return first
  return (attributes) => {
    for (let i = 0; i < tests.length; i++) if ((tests[i] as Test)(attributes)) return true
    return false
  }
}

function not(test: Test): Test {
  return (attributes) => !test(attributes)
}

function compileMatch(raw: Match, lenient: boolean, settings: MeshSettings): Test {
  const match = expandTrustDomains(raw, settings)
  if (!(Object.keys(match) as (keyof Match)[]).some((field) => isSet(match, field))) return never
  if (!lenient && usesAny(match, TOKEN_FIELDS)) return never
  const tests: Test[] = []
  let unevaluable = false
  const add = <T>(
    values: readonly T[] | undefined,
    compile: (values: readonly T[]) => Test | undefined,
    negate: boolean,
  ): void => {
    if (values === undefined || values.length === 0) return
    const test = compile(values)
    if (test === undefined) unevaluable = true
    else tests.push(negate ? not(test) : test)
  }
  add(match.principals, textOf(principal), false)
  add(match.notPrincipals, textOf(principal), true)
  add(match.namespaces, textOf(namespace), false)
  add(match.notNamespaces, textOf(namespace), true)
  add(match.serviceAccounts, serviceAccountIn, false)
  add(match.notServiceAccounts, serviceAccountIn, true)
  add(match.trustDomains, textOf(trustDomain), false)
  add(match.notTrustDomains, textOf(trustDomain), true)
  add(match.sourceIps, rangesOf(sourceAddress), false)
  add(match.notSourceIps, rangesOf(sourceAddress), true)
  add(match.remoteIps, rangesOf(remoteAddress), false)
  add(match.notRemoteIps, rangesOf(remoteAddress), true)
  add(match.destinationIps, rangesOf(destinationAddress), false)
  add(match.notDestinationIps, rangesOf(destinationAddress), true)
  add(match.destinationPorts, portIn, false)
  add(match.notDestinationPorts, portIn, true)
  add(match.hosts, hostIn, false)
  add(match.notHosts, hostIn, true)
  add(match.methods, textOf(method), false)
  add(match.notMethods, textOf(method), true)
  add(match.paths, pathIn, false)
  add(match.notPaths, pathIn, true)
  add(match.sni, textOf(sni), false)
  add(match.notSni, textOf(sni), true)
  for (const keyed of match.headers ?? []) tests.push(headerIn(keyed))
  for (const keyed of match.notHeaders ?? []) tests.push(not(headerIn(keyed)))
  if (unevaluable && !lenient) return never
  return all(tests)
}

type Attribute = (attributes: RequestAttributes) => string

// The principal of an identity object is asked for on every request of a connection: built once.
const principals = new WeakMap<object, string>()
const principal: Attribute = ({ identity }) => {
  if (!identity) return ''
  let text = principals.get(identity)
  if (text === undefined) principals.set(identity, (text = principalOf(identity)))
  return text
}
const namespace: Attribute = (attributes) => attributes.identity?.namespace ?? ''
const trustDomain: Attribute = (attributes) => attributes.identity?.trustDomain ?? ''
const method: Attribute = (attributes) => attributes.method
const sni: Attribute = (attributes) => attributes.sni
const sourceAddress: Attribute = (attributes) => attributes.sourceAddress
const remoteAddress: Attribute = (attributes) => attributes.remoteAddress
const destinationAddress: Attribute = (attributes) => attributes.destinationAddress

function textOf(attribute: Attribute): (values: readonly AuthzMatch[]) => Test {
  return (values) =>
    any(
      values.map(
        (value): Test =>
          (attributes) =>
            matchesText(value, attribute(attributes)),
      ),
    )
}

function serviceAccountIn(values: readonly ServiceAccountMatch[]): Test {
  return ({ identity }) =>
    identity !== undefined &&
    values.some((value) => value.name === identity.serviceAccount && value.namespace === identity.namespace)
}

/** Undefined if a range is malformed: the field then counts as unevaluable, not as an emptier list. */
function rangesOf(attribute: Attribute): (values: readonly IpRange[]) => Test | undefined {
  return (values) => {
    const networks: IpNetwork[] = []
    for (const value of values) {
      const network = parseCidr(`${value.address}/${value.length}`)
      if (!network) return undefined
      networks.push(network)
    }
    return (attributes) => {
      const bytes = addressBytes(attribute(attributes))
      if (!bytes) return false
      for (let i = 0; i < networks.length; i++) if (containsIp(networks[i] as IpNetwork, bytes)) return true
      return false
    }
  }
}

function portIn(ports: readonly number[]): Test {
  return (attributes) => ports.includes(attributes.destinationPort)
}

/** Hosts compare without case, with the port as sent. */
function hostIn(values: readonly AuthzMatch[]): Test {
  const lower = values.map((value) => ('value' in value ? { ...value, value: value.value.toLowerCase() } : value))
  return (attributes) => {
    const host = attributes.authority.toLowerCase()
    for (let i = 0; i < lower.length; i++) if (matchesText(lower[i] as AuthzMatch, host)) return true
    return false
  }
}

function pathIn(values: readonly AuthzMatch[]): Test {
  const tests = values.map((value): ((path: string, end: number) => boolean) => {
    switch (value.type) {
      case 'exact':
        return (path, end) => end === value.value.length && path.startsWith(value.value)
      case 'prefix':
        return (path, end) => end >= value.value.length && path.startsWith(value.value)
      case 'suffix':
        return (path, end) => end >= value.value.length && path.startsWith(value.value, end - value.value.length)
      case 'presence':
        return (_path, end) => end > 0
      case 'template':
        return compileTemplate(value.value)
    }
  })
  return ({ path }) => {
    const query = path.indexOf('?')
    const end = query < 0 ? path.length : query
    for (const test of tests) if (test(path, end)) return true
    return false
  }
}

/**
 * `{*}` is one non-empty path segment, `{**}` any rest, also an empty one; literals may follow it, operators may not.
 * Works on path[0,end) without cutting it up.
 */
export function compileTemplate(template: string): (path: string, end: number) => boolean {
  const rest = template.indexOf('{**}')
  const tail = rest < 0 ? '' : template.slice(rest + 4)
  const parts = (rest < 0 ? template : template.slice(0, rest)).split('{*}')
  return (path, end) => {
    const first = parts[0] as string
    if (first.length > end || !path.startsWith(first)) return false
    let at = first.length
    for (let i = 1; i < parts.length; i++) {
      const from = at
      while (at < end && path.charCodeAt(at) !== 47) at++
      if (at === from) return false
      const literal = parts[i] as string
      if (at + literal.length > end || !path.startsWith(literal, at)) return false
      at += literal.length
    }
    if (rest < 0) return at === end
    return end - at >= tail.length && path.startsWith(tail, end - tail.length)
  }
}

/** `*` is presence of the field, whatever its value; a value never matches a field that is absent. */
function headerIn(keyed: KeyedMatch): Test {
  return (attributes) => {
    const value = headerValue(attributes.headers, keyed.key)
    if (value === undefined) return false
    for (const wanted of keyed.values) if (wanted.type === 'presence' || matchesText(wanted, value)) return true
    return false
  }
}
