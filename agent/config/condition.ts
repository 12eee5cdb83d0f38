// The attributes of an AuthorizationPolicy's `when`: which field of a domain Match each key is.
// Must not live here: values (authorization-policy.ts), evaluation (mesh/).
import type { Match } from '../mesh/policy.ts'

type Field = keyof Match

export type ConditionField =
  | {
      readonly type: 'texts' | 'ips' | 'ports' | 'accounts'
      readonly positive: Field
      readonly negative: Field
      readonly token: boolean
    }
  | {
      readonly type: 'keyed'
      readonly key: string
      readonly positive: Field
      readonly negative: Field
      readonly token: boolean
    }
  | { readonly type: 'unsupported' }

const FIELDS: Readonly<Record<string, ConditionField>> = {
  'source.ip': { type: 'ips', positive: 'sourceIps', negative: 'notSourceIps', token: false },
  'remote.ip': { type: 'ips', positive: 'remoteIps', negative: 'notRemoteIps', token: false },
  'source.namespace': { type: 'texts', positive: 'namespaces', negative: 'notNamespaces', token: false },
  'source.principal': { type: 'texts', positive: 'principals', negative: 'notPrincipals', token: false },
  'source.serviceAccount': {
    type: 'accounts',
    positive: 'serviceAccounts',
    negative: 'notServiceAccounts',
    token: false,
  },
  'source.trustDomain': { type: 'texts', positive: 'trustDomains', negative: 'notTrustDomains', token: false },
  'destination.ip': { type: 'ips', positive: 'destinationIps', negative: 'notDestinationIps', token: false },
  'destination.port': { type: 'ports', positive: 'destinationPorts', negative: 'notDestinationPorts', token: false },
  'connection.sni': { type: 'texts', positive: 'sni', negative: 'notSni', token: false },
  'request.auth.principal': {
    type: 'texts',
    positive: 'requestPrincipals',
    negative: 'notRequestPrincipals',
    token: true,
  },
  'request.auth.audiences': { type: 'texts', positive: 'audiences', negative: 'notAudiences', token: true },
  'request.auth.presenter': { type: 'texts', positive: 'presenters', negative: 'notPresenters', token: true },
}

/** The part of a claim path between its steps, as KeyedMatch.key wants it. */
const SEPARATOR = '\u001f'

/** What a condition's key asks about; undefined if it is no attribute at all. */
export function parseCondition(key: string): ConditionField | undefined {
  if (Object.hasOwn(FIELDS, key)) return FIELDS[key]
  const header = /^request\.headers\[([^[\]]+)\]$/.exec(key)
  if (header) {
    return {
      type: 'keyed',
      key: (header[1] as string).toLowerCase(),
      positive: 'headers',
      negative: 'notHeaders',
      token: false,
    }
  }
  if (/^request\.auth\.claims(\[[^[\]]+\])+$/.test(key)) {
    const steps = [...key.matchAll(/\[([^[\]]+)\]/g)].map((part) => part[1] as string)
    return { type: 'keyed', key: steps.join(SEPARATOR), positive: 'claims', negative: 'notClaims', token: true }
  }
  return key.startsWith('experimental.envoy.filters.') ? { type: 'unsupported' } : undefined
}
