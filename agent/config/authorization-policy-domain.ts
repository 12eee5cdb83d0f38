// An AuthorizationPolicy in the domain's words: whole, with its L7 attributes.
// Must not live here: its schema and checks (authorization-policy.ts), what agents can judge of it (mesh/lower.ts).
import { formatIp, parseCidr } from '../base/ip.ts'
import type { AuthzMatch } from '../mesh/match.ts'
import type { Clause, IpRange, KeyedMatch, Match, Policy, Rule, ServiceAccountMatch } from '../mesh/policy.ts'
import { attachmentOf } from './attachment.ts'
import {
  portOf,
  serviceAccountOf,
  type AuthorizationPolicyBody,
  type OperationSpec,
  type RuleSpec,
  type SourceSpec,
} from './authorization-policy.ts'
import { parseCondition, type ConditionField } from './condition.ts'
import { sourceOf, type Resource } from './resource.ts'

/** The policy in the domain's words. The resource has passed its check; unreadable values therefore do not occur. */
export function toPolicy(resource: Resource<AuthorizationPolicyBody>, rootNamespace: string): Policy {
  const { metadata, body } = resource
  const { spec } = body
  const attachment = attachmentOf(spec, metadata.namespace, rootNamespace)
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    ...attachment,
    action: spec.action ?? 'ALLOW',
    dryRun: isDryRun(metadata.annotations),
    rules: (spec.rules ?? []).map((one) => toRule(one, metadata.namespace)),
    ...(spec.provider?.name ? { provider: spec.provider.name } : {}),
    source: sourceOf(resource),
  }
}

function isDryRun(annotations: Readonly<Record<string, string>>): boolean {
  return (annotations['ambit.io/dry-run'] ?? annotations['istio.io/dry-run']) === 'true'
}

function toRule(spec: RuleSpec, namespace: string): Rule {
  const clauses: Clause[] = []
  if (spec.from?.length) clauses.push({ matches: spec.from.map((from) => toSourceMatch(from.source, namespace)) })
  if (spec.to?.length) clauses.push({ matches: spec.to.map((to) => toOperationMatch(to.operation)) })
  for (const condition of spec.when ?? []) {
    const parsed = parseCondition(condition.key)
    if (parsed)
      clauses.push({
        matches: [
          toConditionMatch(parsed, condition.key, condition.values ?? [], condition.notValues ?? [], namespace),
        ],
      })
  }
  return { clauses }
}

type Draft = { -readonly [K in keyof Match]: Match[K] }

function toSourceMatch(spec: SourceSpec, namespace: string): Match {
  const match: Draft = {}
  if (spec.principals) match.principals = spec.principals.map(toMatch)
  if (spec.notPrincipals) match.notPrincipals = spec.notPrincipals.map(toMatch)
  if (spec.requestPrincipals) match.requestPrincipals = spec.requestPrincipals.map(toMatch)
  if (spec.notRequestPrincipals) match.notRequestPrincipals = spec.notRequestPrincipals.map(toMatch)
  if (spec.namespaces) match.namespaces = spec.namespaces.map(toMatch)
  if (spec.notNamespaces) match.notNamespaces = spec.notNamespaces.map(toMatch)
  if (spec.serviceAccounts) match.serviceAccounts = accounts(spec.serviceAccounts, namespace)
  if (spec.notServiceAccounts) match.notServiceAccounts = accounts(spec.notServiceAccounts, namespace)
  if (spec.ipBlocks) match.sourceIps = ranges(spec.ipBlocks)
  if (spec.notIpBlocks) match.notSourceIps = ranges(spec.notIpBlocks)
  if (spec.remoteIpBlocks) match.remoteIps = ranges(spec.remoteIpBlocks)
  if (spec.notRemoteIpBlocks) match.notRemoteIps = ranges(spec.notRemoteIpBlocks)
  if (spec.trustDomains) match.trustDomains = spec.trustDomains.map(toMatch)
  if (spec.notTrustDomains) match.notTrustDomains = spec.notTrustDomains.map(toMatch)
  return match
}

function toOperationMatch(spec: OperationSpec): Match {
  const match: Draft = {}
  if (spec.hosts) match.hosts = spec.hosts.map((host) => toMatch(host.toLowerCase()))
  if (spec.notHosts) match.notHosts = spec.notHosts.map((host) => toMatch(host.toLowerCase()))
  if (spec.ports) match.destinationPorts = ports(spec.ports)
  if (spec.notPorts) match.notDestinationPorts = ports(spec.notPorts)
  if (spec.methods) match.methods = spec.methods.map(toMatch)
  if (spec.notMethods) match.notMethods = spec.notMethods.map(toMatch)
  if (spec.paths) match.paths = spec.paths.map(toPathMatch)
  if (spec.notPaths) match.notPaths = spec.notPaths.map(toPathMatch)
  return match
}

function toConditionMatch(
  field: ConditionField,
  key: string,
  values: readonly string[],
  notValues: readonly string[],
  namespace: string,
): Match {
  if (field.type === 'unsupported') return { unsupported: [key] }
  const convert = (list: readonly string[]): unknown => {
    if (field.type === 'ips') return ranges(list)
    if (field.type === 'ports') return ports(list)
    if (field.type === 'accounts') return accounts(list, namespace)
    if (field.type === 'keyed') return [{ key: field.key, values: list.map(toMatch) } satisfies KeyedMatch]
    return list.map(toMatch)
  }
  return {
    ...(values.length > 0 ? { [field.positive]: convert(values) } : {}),
    ...(notValues.length > 0 ? { [field.negative]: convert(notValues) } : {}),
  }
}

/** `*` any non-empty value, `a*` prefix, `*a` suffix, anything else literally. */
export function toMatch(text: string): AuthzMatch {
  if (text === '*') return { type: 'presence' }
  if (text.endsWith('*')) return { type: 'prefix', value: text.slice(0, -1) }
  if (text.startsWith('*')) return { type: 'suffix', value: text.slice(1) }
  return { type: 'exact', value: text }
}

function toPathMatch(text: string): AuthzMatch {
  return text.includes('{*}') || text.includes('{**}') ? { type: 'template', value: text } : toMatch(text)
}

function ranges(texts: readonly string[]): IpRange[] {
  return texts.flatMap((text) => {
    const network = parseCidr(text)
    return network ? [{ address: formatIp(network.bytes), length: network.length }] : []
  })
}

function ports(texts: readonly string[]): number[] {
  return texts.flatMap((text) => portOf(text) ?? [])
}

function accounts(texts: readonly string[], namespace: string): ServiceAccountMatch[] {
  return texts.flatMap((text) => serviceAccountOf(text, namespace) ?? [])
}
