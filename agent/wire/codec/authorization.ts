// Policy ⇄ istio.security.Authorization: what agents enforce, L4 attributes only (mesh/lower.ts makes them). A policy that
// still holds an attribute for which Istio's message has no field (of a request, trust domains) is refused here, never
// published without it. Where a policy came from travels in the extension ambit.v1.AuthorizationExtension.
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import type { AuthzMatch } from '../../mesh/match.ts'
import type { Match, Policy } from '../../mesh/policy.ts'
import { AuthorizationExtensionSchema } from '../gen/ambit/v1/extension_pb.js'
import {
  Action,
  AuthorizationSchema,
  Scope,
  type Extension,
  type Match as WireMatch,
  type MatchSchema,
  type StringMatch,
} from '../gen/istio/security/authorization_pb.js'
import type { Codec } from './codec.ts'
import { checkPort, decodeList, decodeSource, encodeList, encodeSource, EnumTable, invalid, sorted } from './parts.ts'
import { decodeRange, encodeRange } from './policy.ts'
import { packAny } from './workload.ts'

const AUTHORIZATION_EXTENSION = 'ambit.v1.AuthorizationExtension'

const scopes = new EnumTable<'global' | 'namespace' | 'workload'>('authorization scope', {
  global: Scope.GLOBAL,
  namespace: Scope.NAMESPACE,
  workload: Scope.WORKLOAD_SELECTOR,
})
const actions = new EnumTable<'ALLOW' | 'DENY'>('authorization action', { ALLOW: Action.ALLOW, DENY: Action.DENY })

const stringFields = ['namespaces', 'notNamespaces', 'principals', 'notPrincipals'] as const
const rangeFields = ['sourceIps', 'notSourceIps', 'destinationIps', 'notDestinationIps'] as const
const portFields = ['destinationPorts', 'notDestinationPorts'] as const
const accountFields = ['serviceAccounts', 'notServiceAccounts'] as const
const l4Fields = new Set<string>([...stringFields, ...rangeFields, ...portFields, ...accountFields])

export const authorizationCodec: Codec<Policy> = {
  kind: 'Authorization',
  nameOf: (policy) => `${policy.namespace}/${policy.name}`,
  encode(policy) {
    if (policy.scope === 'target') throw invalid(`policy ${policy.namespace}/${policy.name} is bound to targets`)
    if (policy.action !== 'ALLOW' && policy.action !== 'DENY') {
      throw invalid(`policy ${policy.namespace}/${policy.name} has action ${policy.action}, which no agent enforces`)
    }
    const extension = create(AuthorizationExtensionSchema, {
      source: encodeSource(policy.source),
      selector: sorted(policy.selector),
    })
    return toBinary(
      AuthorizationSchema,
      create(AuthorizationSchema, {
        name: policy.name,
        namespace: policy.namespace,
        scope: scopes.wire(policy.scope),
        action: actions.wire(policy.action),
        rules: policy.rules.map((rule) => ({
          clauses: rule.clauses.map((clause) => ({ matches: clause.matches.map(encodeMatch) })),
        })),
        dryRun: policy.dryRun,
        extensions: [
          {
            name: AUTHORIZATION_EXTENSION,
            config: packAny(AUTHORIZATION_EXTENSION, toBinary(AuthorizationExtensionSchema, extension)),
          },
        ],
      }),
    )
  },
  decode(bytes) {
    const wire = fromBinary(AuthorizationSchema, bytes)
    const config = configOf(wire.extensions, AUTHORIZATION_EXTENSION)
    const extension = config && fromBinary(AuthorizationExtensionSchema, config)
    return {
      namespace: wire.namespace,
      name: wire.name,
      scope: scopes.text(wire.scope),
      action: actions.text(wire.action),
      dryRun: wire.dryRun,
      selector: extension?.selector ?? {},
      targets: [],
      rules: wire.rules.map((rule) => ({
        clauses: rule.clauses.map((clause) => ({ matches: clause.matches.map(decodeMatch) })),
      })),
      source: decodeSource(extension?.source, 'AuthorizationPolicy', wire.namespace, wire.name),
    }
  },
}

function encodeMatch(match: Match): MessageInitShape<typeof MatchSchema> {
  for (const [field, value] of Object.entries(match)) {
    if ((value as readonly unknown[]).length > 0 && !l4Fields.has(field))
      throw invalid(`'${field}' has no field in Istio's message, no agent can evaluate it`)
  }
  const wire: Record<string, unknown> = {}
  for (const field of stringFields) wire[field] = encodeList(match[field], encodeString)
  for (const field of rangeFields) wire[field] = encodeList(match[field], encodeRange)
  for (const field of portFields) wire[field] = encodeList(match[field], checkPort)
  for (const field of accountFields) {
    wire[field] = encodeList(match[field], ({ namespace, name }) => ({ namespace, serviceAccount: name }))
  }
  return wire as MessageInitShape<typeof MatchSchema>
}

function decodeMatch(wire: WireMatch): Match {
  const match: Match = {}
  for (const field of stringFields) Object.assign(match, decodeList(field, wire[field], decodeString))
  for (const field of rangeFields) Object.assign(match, decodeList(field, wire[field], decodeRange))
  for (const field of portFields) Object.assign(match, decodeList(field, wire[field], checkPort))
  for (const field of accountFields) {
    Object.assign(
      match,
      decodeList(field, wire[field], (account) => ({ namespace: account.namespace, name: account.serviceAccount })),
    )
  }
  return match
}

function encodeString(match: AuthzMatch) {
  switch (match.type) {
    case 'exact':
      return { matchType: { case: 'exact', value: match.value } } as const
    case 'prefix':
      return { matchType: { case: 'prefix', value: match.value } } as const
    case 'suffix':
      return { matchType: { case: 'suffix', value: match.value } } as const
    case 'presence':
      return { matchType: { case: 'presence', value: {} } } as const
    case 'template':
      throw invalid(`path template '${match.value}' has no form in Istio's message, no agent can evaluate it`)
  }
}

function decodeString(wire: StringMatch): AuthzMatch {
  switch (wire.matchType.case) {
    case 'presence':
      return { type: 'presence' }
    case undefined:
      throw invalid('a string match of a kind that is not known to this version')
    case 'exact':
    case 'prefix':
    case 'suffix':
      return { type: wire.matchType.case, value: wire.matchType.value }
  }
}

function configOf(extensions: readonly Extension[], name: string): Uint8Array | undefined {
  return extensions.find((extension) => extension.name === name)?.config?.value
}
