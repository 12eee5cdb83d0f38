// AuthorizationPolicy (security.istio.io): the schema and the rules one document must keep by itself.
// Must not live here: the domain policy it becomes (authorization-policy-domain.ts), its attachment (attachment.ts).
// Fields after istio.io/api security/v1beta1/authorization_policy.proto.
import { z } from 'zod'
import { parseCidr } from '../base/ip.ts'
import type { ServiceAccountMatch } from '../mesh/policy.ts'
import { checkAttachment } from './attachment.ts'
import { parseCondition } from './condition.ts'
import { defineKind, type FieldPath, type Report, type Resource } from './resource.ts'
import { object, selector, targetRef } from './schema.ts'

const texts = z.array(z.string().min(1))
const source = object({
  principals: texts,
  notPrincipals: texts,
  requestPrincipals: texts,
  notRequestPrincipals: texts,
  namespaces: texts,
  notNamespaces: texts,
  serviceAccounts: texts,
  notServiceAccounts: texts,
  ipBlocks: texts,
  notIpBlocks: texts,
  remoteIpBlocks: texts,
  notRemoteIpBlocks: texts,
  trustDomains: texts,
  notTrustDomains: texts,
})
const operation = object({
  hosts: texts,
  notHosts: texts,
  ports: texts,
  notPorts: texts,
  methods: texts,
  notMethods: texts,
  paths: texts,
  notPaths: texts,
})
const rule = object({
  from: z.array(z.strictObject({ source })),
  to: z.array(z.strictObject({ operation })),
  when: z.array(z.strictObject({ key: z.string().min(1), values: texts.optional(), notValues: texts.optional() })),
})
export type SourceSpec = z.infer<typeof source>
export type OperationSpec = z.infer<typeof operation>
export type RuleSpec = z.infer<typeof rule>

const schema = z.strictObject({
  spec: object({
    selector,
    targetRef,
    targetRefs: z.array(targetRef).max(16),
    action: z.enum(['ALLOW', 'DENY', 'AUDIT', 'CUSTOM']),
    provider: object({ name: z.string() }),
    rules: z.array(rule),
  }),
  status: z.unknown().optional(),
})
export type AuthorizationPolicyBody = z.infer<typeof schema>

const TOKENS = 'JSON Web Tokens (RequestAuthentication)'
const TOKEN_HINT = 'Until then ALLOW rules that ask for it never match, and DENY rules match whatever the token.'

export const authorizationPolicy = defineKind({
  kind: 'AuthorizationPolicy',
  group: 'security.istio.io',
  versions: ['v1', 'v1beta1'],
  security: true,
  schema,
  notes: [
    { path: 'spec.rules[].from[].source.requestPrincipals', code: 'CONFIG_NOT_YET', feature: TOKENS, hint: TOKEN_HINT },
    {
      path: 'spec.rules[].from[].source.notRequestPrincipals',
      code: 'CONFIG_NOT_YET',
      feature: TOKENS,
      hint: TOKEN_HINT,
    },
    {
      path: 'spec.provider',
      code: 'CONFIG_NOT_YET',
      feature: 'external authorisation (action CUSTOM)',
      hint: 'Until then what the policy matches is denied.',
    },
  ],
  mistakes: {
    'spec.matchLabels': 'Write it inside selector.',
    'spec.from': 'Write it inside rules: a list of {from, to, when}.',
    'spec.to': 'Write it inside rules: a list of {from, to, when}.',
    'spec.rules[].from[].principals': 'Write it inside source, as in - source: {principals: […]}.',
    'spec.rules[].from[].namespaces': 'Write it inside source, as in - source: {namespaces: […]}.',
    'spec.rules[].to[].methods': 'Write it inside operation, as in - operation: {methods: […]}.',
    'spec.rules[].to[].paths': 'Write it inside operation, as in - operation: {paths: […]}.',
    'spec.rules[].from[].source.serviceAccount': 'The field is called serviceAccounts and is a list.',
  },
  check,
})

function check(resource: Resource<AuthorizationPolicyBody>, report: Report): void {
  const { spec } = resource.body
  const fail = (path: FieldPath, message: string, hint = '') =>
    report({ severity: 'error', code: 'CONFIG_INVALID_VALUE', path, message, hint })
  checkAttachment(spec, resource.metadata.namespace, report)
  if (spec.action === 'CUSTOM' && !spec.provider?.name) {
    report({
      severity: 'error',
      code: 'CONFIG_REQUIRED',
      path: ['spec'],
      message: 'action: CUSTOM needs provider.name.',
    })
  }
  if (spec.action !== 'CUSTOM' && spec.provider) fail(['spec', 'provider'], 'provider only goes with action: CUSTOM.')
  for (const [index, one] of (spec.rules ?? []).entries())
    checkRule(one, ['spec', 'rules', index], resource.metadata.namespace, report)
}

function checkRule(spec: RuleSpec, path: FieldPath, namespace: string, report: Report): void {
  const fail = (at: FieldPath, message: string, hint = '') =>
    report({ severity: 'error', code: 'CONFIG_INVALID_VALUE', path: at, message, hint })
  for (const key of ['from', 'to', 'when'] as const) {
    if (spec[key]?.length === 0)
      fail([...path, key], `${key} must not be an empty list.`, `Leave ${key} out to match everything.`)
  }
  for (const [index, from] of (spec.from ?? []).entries()) {
    const at = [...path, 'from', index, 'source']
    checkLists(from.source, at, report)
    const { serviceAccounts, notServiceAccounts, principals, notPrincipals, namespaces, notNamespaces } = from.source
    if ((serviceAccounts || notServiceAccounts) && (principals || notPrincipals || namespaces || notNamespaces)) {
      fail(at, 'serviceAccounts does not go with principals or namespaces.', 'Write two sources, or one of the three.')
    }
    for (const key of ['serviceAccounts', 'notServiceAccounts'] as const) {
      for (const [i, value] of (from.source[key] ?? []).entries()) {
        if (!serviceAccountOf(value, namespace))
          fail(
            [...at, key, i],
            `${JSON.stringify(value)} is not of the form name or namespace/name.`,
            'Wildcards are not allowed here; use principals.',
          )
      }
    }
    for (const key of ['principals', 'notPrincipals'] as const) {
      for (const [i, value] of (from.source[key] ?? []).entries()) {
        if (value.startsWith('spiffe://'))
          fail(
            [...at, key, i],
            'A principal is written without spiffe://.',
            `Write ${JSON.stringify(value.slice('spiffe://'.length))}.`,
          )
      }
    }
    for (const key of ['ipBlocks', 'notIpBlocks', 'remoteIpBlocks', 'notRemoteIpBlocks'] as const) {
      for (const [i, value] of (from.source[key] ?? []).entries())
        if (!parseCidr(value))
          fail(
            [...at, key, i],
            `${JSON.stringify(value)} is no IP address or range.`,
            'Write it as 10.0.0.1 or 10.0.0.0/8.',
          )
    }
  }
  for (const [index, to] of (spec.to ?? []).entries()) {
    const at = [...path, 'to', index, 'operation']
    checkLists(to.operation, at, report)
    for (const key of ['ports', 'notPorts'] as const) {
      for (const [i, value] of (to.operation[key] ?? []).entries())
        if (portOf(value) === undefined)
          fail([...at, key, i], `${JSON.stringify(value)} is no port between 1 and 65535.`)
    }
    for (const key of ['paths', 'notPaths'] as const) {
      for (const [i, value] of (to.operation[key] ?? []).entries()) {
        const why = templateError(value)
        if (why) fail([...at, key, i], why)
      }
    }
  }
  for (const [index, condition] of (spec.when ?? []).entries()) {
    const at = [...path, 'when', index]
    if (!condition.values?.length && !condition.notValues?.length)
      report({
        severity: 'error',
        code: 'CONFIG_REQUIRED',
        path: at,
        message: 'A condition needs values or notValues.',
      })
    const parsed = parseCondition(condition.key)
    if (!parsed) {
      fail(
        [...at, 'key'],
        `${JSON.stringify(condition.key)} is no attribute.`,
        'Attributes: source.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain, remote.ip, destination.ip, destination.port, connection.sni, request.headers[…], request.auth.principal, request.auth.audiences, request.auth.presenter, request.auth.claims[…].',
      )
      continue
    }
    if (parsed.type === 'unsupported') {
      report({
        severity: 'warning',
        code: 'CONFIG_NOT_YET',
        path: [...at, 'key'],
        message: `${condition.key}: no part of Ambit can evaluate this attribute.`,
        hint: 'ALLOW rules that ask for it never match, and DENY rules match without it.',
      })
    } else if (parsed.token) {
      report({
        severity: 'warning',
        code: 'CONFIG_NOT_YET',
        path: [...at, 'key'],
        message: `${TOKENS}: Ambit does not have this yet.`,
        hint: TOKEN_HINT,
      })
    }
    for (const key of ['values', 'notValues'] as const) {
      for (const [i, value] of (condition[key] ?? []).entries()) {
        if (parsed.type === 'ips' && !parseCidr(value))
          fail([...at, key, i], `${JSON.stringify(value)} is no IP address or range.`)
        if (parsed.type === 'ports' && portOf(value) === undefined)
          fail([...at, key, i], `${JSON.stringify(value)} is no port between 1 and 65535.`)
        if (parsed.type === 'accounts' && !serviceAccountOf(value, namespace))
          fail([...at, key, i], `${JSON.stringify(value)} is not of the form name or namespace/name.`)
      }
    }
  }
}

/** An empty source or operation, or an empty list in one, says nothing: Istio refuses them too. */
function checkLists(fields: SourceSpec | OperationSpec, path: FieldPath, report: Report): void {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined)
  if (entries.length === 0)
    report({
      severity: 'error',
      code: 'CONFIG_REQUIRED',
      path,
      message: `${path.at(-1)} must have at least one field.`,
    })
  for (const [key, value] of entries) {
    if ((value as readonly string[]).length === 0)
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: [...path, key],
        message: `${key} must not be an empty list.`,
      })
  }
}

/** Path templates: `{*}` is a whole segment, `{**}` the last one; neither mixes with `*`. */
function templateError(text: string): string | undefined {
  if (!text.includes('{') || (!text.includes('{*}') && !text.includes('{**}'))) return undefined
  const segments = text.split('/')
  for (const [index, segment] of segments.entries()) {
    if (segment === '{*}') continue
    if (segment === '{**}') {
      if (index !== segments.length - 1) return `{**} must be the last segment of ${JSON.stringify(text)}.`
      continue
    }
    if (/[{}*]/.test(segment))
      return `In ${JSON.stringify(text)} {*} and {**} must be whole path segments, without other wildcards.`
  }
  return undefined
}

export function portOf(text: string): number | undefined {
  if (!/^[1-9]\d{0,4}$/.test(text)) return undefined
  const value = Number(text)
  return value <= 65535 ? value : undefined
}

export function serviceAccountOf(text: string, namespace: string): ServiceAccountMatch | undefined {
  const parts = text.split('/')
  if (parts.length > 2 || parts.some((part) => !/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(part))) return undefined
  return parts.length === 2 ? { namespace: parts[0] as string, name: parts[1] as string } : { namespace, name: text }
}
