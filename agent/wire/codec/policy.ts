// Policy ⇄ ambit.v1.Policy: a policy with all its attributes, for waypoints.
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import type { Clause, IpRange, KeyedMatch, Match, Policy, PolicyAction, PolicyScope } from '../../mesh/policy.ts'
import {
  PolicyAction as WireAction,
  PolicySchema,
  PolicyScope as WireScope,
  type IpRange as WireIpRange,
  type KeyedMatch as WireKeyedMatch,
  type PolicyClause,
  type PolicyClauseSchema,
  type PolicyMatch,
  type PolicyMatchSchema,
} from '../gen/ambit/v1/policy_pb.js'
import type { Codec } from './codec.ts'
import { ipFromBytes, ipToBytes } from './ip.ts'
import {
  checkPort,
  decodeAuthzMatch,
  decodeList,
  decodeSource,
  encodeAuthzMatch,
  encodeList,
  encodeSource,
  EnumTable,
  invalid,
  sorted,
} from './parts.ts'

const scopes = new EnumTable<PolicyScope>('policy scope', {
  global: WireScope.GLOBAL,
  namespace: WireScope.NAMESPACE,
  workload: WireScope.WORKLOAD,
  target: WireScope.TARGET,
})
const actions = new EnumTable<PolicyAction>('policy action', {
  ALLOW: WireAction.ALLOW,
  DENY: WireAction.DENY,
  AUDIT: WireAction.AUDIT,
  CUSTOM: WireAction.CUSTOM,
})

export const policyCodec: Codec<Policy> = {
  kind: 'Policy',
  nameOf: (policy) => `${policy.namespace}/${policy.name}`,
  encode: (policy) => toBinary(PolicySchema, create(PolicySchema, encodePolicy(policy))),
  decode(bytes) {
    const wire = fromBinary(PolicySchema, bytes)
    return {
      namespace: wire.namespace,
      name: wire.name,
      scope: scopes.text(wire.scope),
      action: actions.text(wire.action),
      dryRun: wire.dryRun,
      selector: wire.selector,
      targets: wire.targets.map(({ kind, namespace, name }) => ({ kind, namespace, name })),
      rules: wire.rules.map((rule) => ({ clauses: rule.clauses.map(decodeClause) })),
      ...(wire.provider === undefined ? {} : { provider: wire.provider }),
      source: decodeSource(wire.source, 'AuthorizationPolicy', wire.namespace, wire.name),
    }
  },
}

function encodePolicy(policy: Policy): MessageInitShape<typeof PolicySchema> {
  return {
    namespace: policy.namespace,
    name: policy.name,
    scope: scopes.wire(policy.scope),
    action: actions.wire(policy.action),
    dryRun: policy.dryRun,
    selector: sorted(policy.selector),
    targets: policy.targets.map((target) => ({ ...target })),
    rules: policy.rules.map((rule) => ({ clauses: rule.clauses.map(encodeClause) })),
    ...(policy.provider === undefined ? {} : { provider: policy.provider }),
    source: encodeSource(policy.source),
  }
}

function encodeClause(clause: Clause): MessageInitShape<typeof PolicyClauseSchema> {
  return { matches: clause.matches.map(encodeMatch) }
}

function decodeClause(wire: PolicyClause): Clause {
  return { matches: wire.matches.map(decodeMatch) }
}

/** Fields of a Match by the form of their values; together they are all of them (a type error otherwise). */
const stringFields = [
  'principals',
  'notPrincipals',
  'namespaces',
  'notNamespaces',
  'trustDomains',
  'notTrustDomains',
  'hosts',
  'notHosts',
  'methods',
  'notMethods',
  'paths',
  'notPaths',
  'requestPrincipals',
  'notRequestPrincipals',
  'audiences',
  'notAudiences',
  'presenters',
  'notPresenters',
  'sni',
  'notSni',
] as const
const rangeFields = [
  'sourceIps',
  'notSourceIps',
  'remoteIps',
  'notRemoteIps',
  'destinationIps',
  'notDestinationIps',
] as const
const keyedFields = ['headers', 'notHeaders', 'claims', 'notClaims'] as const
const portFields = ['destinationPorts', 'notDestinationPorts'] as const
const accountFields = ['serviceAccounts', 'notServiceAccounts'] as const

type Covered =
  | (typeof stringFields)[number]
  | (typeof rangeFields)[number]
  | (typeof keyedFields)[number]
  | (typeof portFields)[number]
  | (typeof accountFields)[number]
  | 'unsupported'
/** A field added to Match and forgotten here would be lost on the wire and widen a rule. */
type Forgotten = Exclude<keyof Match, Covered>
const everyFieldIsCovered: [Forgotten] extends [never] ? true : Forgotten = true

function encodeMatch(match: Match): MessageInitShape<typeof PolicyMatchSchema> {
  if (!everyFieldIsCovered) throw invalid('a field of Match')
  const wire: Record<string, unknown> = {}
  for (const field of stringFields) wire[field] = encodeList(match[field], encodeAuthzMatch)
  for (const field of rangeFields) wire[field] = encodeList(match[field], encodeRange)
  for (const field of keyedFields) wire[field] = encodeList(match[field], encodeKeyed)
  for (const field of portFields) wire[field] = encodeList(match[field], checkPort)
  for (const field of accountFields) wire[field] = encodeList(match[field], (account) => ({ ...account }))
  wire['unsupported'] = encodeList(match.unsupported, (name) => name)
  return wire as MessageInitShape<typeof PolicyMatchSchema>
}

function decodeMatch(wire: PolicyMatch): Match {
  const match: Match = {}
  for (const field of stringFields) Object.assign(match, decodeList(field, wire[field], decodeAuthzMatch))
  for (const field of rangeFields) Object.assign(match, decodeList(field, wire[field], decodeRange))
  for (const field of keyedFields) Object.assign(match, decodeList(field, wire[field], decodeKeyed))
  for (const field of portFields) Object.assign(match, decodeList(field, wire[field], checkPort))
  for (const field of accountFields) {
    Object.assign(
      match,
      decodeList(field, wire[field], ({ namespace, name }) => ({ namespace, name })),
    )
  }
  return Object.assign(
    match,
    decodeList('unsupported', wire.unsupported, (name) => name),
  )
}

export function encodeRange(range: IpRange) {
  const address = ipToBytes(range.address)
  if (!Number.isInteger(range.length) || range.length < 0 || range.length > address.length * 8) {
    throw invalid(`'${range.address}/${range.length}' is not an address range`)
  }
  return { address, length: range.length }
}

export function decodeRange(wire: Pick<WireIpRange, 'address' | 'length'>): IpRange {
  if (wire.length > wire.address.length * 8) throw invalid(`an address range of length ${wire.length}`)
  return { address: ipFromBytes(wire.address), length: wire.length }
}

function encodeKeyed(keyed: KeyedMatch) {
  return { key: keyed.key, values: keyed.values.map(encodeAuthzMatch) }
}

function decodeKeyed(wire: WireKeyedMatch): KeyedMatch {
  return { key: wire.key, values: wire.values.map(decodeAuthzMatch) }
}
