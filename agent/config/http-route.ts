// HTTPRoute (Gateway API): schema and the rules one document must keep by itself.
// Must not live here: what its references mean and the routes it becomes (http-route-routes.ts).
// Fields after gateway-api apis/v1/httproute_types.go.
import { z } from 'zod'
import { defineKind, type FieldPath, type Report, type Resource } from './resource.ts'
import { checkRegex, duration, object, port } from './schema.ts'

const headerList = z.array(z.strictObject({ name: z.string().min(1), value: z.string() })).max(16)
const headerModifier = object({ set: headerList, add: headerList, remove: z.array(z.string()).max(16) })
export type HeaderModifier = z.infer<typeof headerModifier>

const pathModifier = z.strictObject({
  type: z.enum(['ReplaceFullPath', 'ReplacePrefixMatch']),
  replaceFullPath: z.string().optional(),
  replacePrefixMatch: z.string().optional(),
})

const backendReference = {
  group: z.string().optional(),
  kind: z.string().optional(),
  namespace: z.string().optional(),
  name: z.string().min(1),
  port: port.optional(),
}

const filter = z.strictObject({
  type: z.enum([
    'RequestHeaderModifier',
    'ResponseHeaderModifier',
    'RequestMirror',
    'RequestRedirect',
    'URLRewrite',
    'CORS',
    'ExternalAuth',
    'ExtensionRef',
  ]),
  requestHeaderModifier: headerModifier.optional(),
  responseHeaderModifier: headerModifier.optional(),
  requestMirror: z.looseObject({}).optional(),
  requestRedirect: object({
    scheme: z.enum(['http', 'https']),
    hostname: z.string(),
    path: pathModifier,
    port,
    statusCode: z.union([z.literal(301), z.literal(302), z.literal(303), z.literal(307), z.literal(308)]),
  }).optional(),
  urlRewrite: object({ hostname: z.string(), path: pathModifier }).optional(),
  cors: z.looseObject({}).optional(),
  externalAuth: z.looseObject({}).optional(),
  extensionRef: z.looseObject({}).optional(),
})
export type RouteFilter = z.infer<typeof filter>

const nameMatch = z.strictObject({
  type: z.enum(['Exact', 'RegularExpression']).optional(),
  name: z.string().min(1),
  value: z.string(),
})
const match = object({
  path: object({ type: z.enum(['Exact', 'PathPrefix', 'RegularExpression']), value: z.string() }),
  headers: z.array(nameMatch).max(16),
  queryParams: z.array(nameMatch).max(16),
  method: z.enum(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH']),
})
export type RouteMatchSpec = z.infer<typeof match>

const backendRef = z.strictObject({
  ...backendReference,
  weight: z.int().min(0).max(1_000_000).optional(),
  filters: z.array(filter).max(16).optional(),
})
export type BackendRef = z.infer<typeof backendRef>

const rule = object({
  name: z.string(),
  matches: z.array(match).max(64),
  filters: z.array(filter).max(16),
  backendRefs: z.array(backendRef).max(16),
  timeouts: object({ request: duration, backendRequest: duration }),
  retry: object({ codes: z.array(z.int().min(400).max(599)), attempts: z.int().min(0), backoff: duration }),
  sessionPersistence: z.looseObject({}),
})
export type HttpRouteRule = z.infer<typeof rule>

const parentRef = z.strictObject({
  group: z.string().optional(),
  kind: z.string().optional(),
  namespace: z.string().optional(),
  name: z.string().min(1),
  sectionName: z.string().optional(),
  port: port.optional(),
})
export type ParentRef = z.infer<typeof parentRef>

const schema = z.strictObject({
  spec: object({
    parentRefs: z.array(parentRef).max(32),
    hostnames: z.array(z.string()).max(16),
    rules: z.array(rule).max(16),
    useDefaultGateways: z.string(),
  }),
  status: z.unknown().optional(),
})
export type HttpRouteBody = z.infer<typeof schema>

export const httpRoute = defineKind({
  kind: 'HTTPRoute',
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1beta1'],
  schema,
  notes: [
    {
      path: 'spec.rules[].sessionPersistence',
      code: 'CONFIG_NOT_YET',
      feature: 'session persistence',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.rules[].filters[].requestMirror',
      code: 'CONFIG_NOT_YET',
      feature: 'traffic mirroring',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.rules[].filters[].cors',
      code: 'CONFIG_NOT_YET',
      feature: 'CORS',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.rules[].filters[].externalAuth',
      code: 'CONFIG_NOT_YET',
      feature: 'external authorisation',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.rules[].filters[].extensionRef',
      code: 'CONFIG_NOT_YET',
      feature: 'extension filters',
      hint: 'Requests that meet this rule are answered 500.',
    },
  ],
  mistakes: {
    'spec.http': 'That is a field of VirtualService; here it is rules.',
    'spec.rules[].match': 'The field is called matches.',
    'spec.rules[].route': 'The field is called backendRefs.',
    'spec.rules[].backendRefs[].host': 'The field is called name.',
  },
  check,
})

const FILTER_FIELDS: Readonly<Record<RouteFilter['type'], keyof RouteFilter>> = {
  RequestHeaderModifier: 'requestHeaderModifier',
  ResponseHeaderModifier: 'responseHeaderModifier',
  RequestMirror: 'requestMirror',
  RequestRedirect: 'requestRedirect',
  URLRewrite: 'urlRewrite',
  CORS: 'cors',
  ExternalAuth: 'externalAuth',
  ExtensionRef: 'extensionRef',
}

function check(resource: Resource<HttpRouteBody>, report: Report): void {
  for (const [index, one] of (resource.body.spec.rules ?? []).entries()) {
    const path: FieldPath = ['spec', 'rules', index]
    const fail = (at: FieldPath, message: string, hint = '') =>
      report({ severity: 'error', code: 'CONFIG_INVALID_VALUE', path: at, message, hint })
    const filters = one.filters ?? []
    const types = filters.map((each) => each.type)
    if (types.includes('RequestRedirect') && types.includes('URLRewrite'))
      fail([...path, 'filters'], 'RequestRedirect and URLRewrite do not go together in one rule.')
    for (const [i, type] of types.entries()) {
      if (types.indexOf(type) !== i && type !== 'RequestMirror' && type !== 'ExtensionRef')
        fail([...path, 'filters', i], `The filter ${type} may appear once in a rule.`)
      if (filters[i]?.[FILTER_FIELDS[type]] === undefined)
        report({
          severity: 'error',
          code: 'CONFIG_REQUIRED',
          path: [...path, 'filters', i],
          message: `A filter of type ${type} needs ${FILTER_FIELDS[type]}.`,
        })
    }
    const onlyPrefixes = (one.matches ?? []).every((each) => (each.path?.type ?? 'PathPrefix') === 'PathPrefix')
    for (const [i, each] of filters.entries()) {
      const modifier = each.urlRewrite?.path ?? each.requestRedirect?.path
      if (modifier?.type === 'ReplacePrefixMatch' && !onlyPrefixes)
        fail([...path, 'filters', i], 'ReplacePrefixMatch only goes with PathPrefix matches.')
    }
    if (types.includes('RequestRedirect') && one.backendRefs?.length)
      fail([...path, 'backendRefs'], 'A rule that redirects has no backends.')
    for (const [i, each] of (one.matches ?? []).entries()) {
      const at: FieldPath = [...path, 'matches', i]
      const value = each.path?.value ?? '/'
      if (each.path?.type === 'RegularExpression') checkRegex(value, [...at, 'path', 'value'], report)
      else if (!value.startsWith('/'))
        fail([...at, 'path', 'value'], `A path begins with a slash, not ${JSON.stringify(value)}.`)
      for (const key of ['headers', 'queryParams'] as const) {
        for (const [j, named] of (each[key] ?? []).entries())
          if (named.type === 'RegularExpression') checkRegex(named.value, [...at, key, j, 'value'], report)
      }
    }
    const { request, backendRequest } = one.timeouts ?? {}
    if (request && backendRequest && backendRequest > request)
      fail([...path, 'timeouts', 'backendRequest'], 'backendRequest must not be longer than request.')
  }
}
