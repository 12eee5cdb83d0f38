// VirtualService (networking.istio.io): the schema and the rules one document must keep by itself.
// Must not live here: what its hosts and destinations refer to, and the routes it becomes (virtual-service-routes.ts).
// Fields after istio.io/api networking/v1alpha3/virtual_service.proto.
import { z } from 'zod'
import { RETRY_WORDS } from '../mesh/retry.ts'
import { nearest } from './check.ts'
import { defineKind, type FieldPath, type Report, type Resource } from './resource.ts'
import {
  checkRewrite,
  checkStringMatch,
  count,
  duration,
  istioPort,
  labels,
  object,
  percent,
  port,
  positiveDuration,
  stringMatch,
} from './schema.ts'

const texts = z.array(z.string())
const headerMap = z.record(z.string().min(1), z.string())
const headerOps = object({ set: headerMap, add: headerMap, remove: texts })
export const headers = object({ request: headerOps, response: headerOps })
export type Headers = z.infer<typeof headers>

const destination = z.strictObject({
  host: z.string().min(1),
  subset: z.string().optional(),
  port: istioPort.optional(),
})
const routeDestination = z.strictObject({ destination, weight: z.int().min(0).optional(), headers: headers.optional() })
const matchers = z.record(z.string().min(1), stringMatch)

const httpMatch = object({
  name: z.string(),
  uri: stringMatch,
  scheme: stringMatch,
  method: stringMatch,
  authority: stringMatch,
  headers: matchers,
  withoutHeaders: matchers,
  queryParams: matchers,
  ignoreUriCase: z.boolean(),
  port,
  sourceLabels: labels,
  sourceNamespace: z.string(),
  gateways: texts,
  statPrefix: z.string(),
})
export type HttpMatch = z.infer<typeof httpMatch>

const percentage = object({ value: z.number().min(0).max(100) })
const httpRoute = object({
  name: z.string(),
  match: z.array(httpMatch),
  route: z.array(routeDestination),
  redirect: object({
    uri: z.string(),
    prefixRewrite: z.string(),
    authority: z.string(),
    port,
    derivePort: z.enum(['FROM_PROTOCOL_DEFAULT', 'FROM_REQUEST_PORT']),
    scheme: z.enum(['http', 'https']),
    redirectCode: z.int(),
  }),
  directResponse: object({
    status: z.int().min(200).max(599),
    body: object({ string: z.string(), bytes: z.string() }),
  }),
  delegate: object({ name: z.string(), namespace: z.string() }),
  rewrite: object({
    uri: z.string(),
    authority: z.string(),
    uriRegexRewrite: object({ match: z.string(), rewrite: z.string() }),
  }),
  timeout: duration,
  retries: object({
    attempts: z.int().min(0),
    perTryTimeout: positiveDuration,
    retryOn: z.string(),
    retryRemoteLocalities: z.boolean(),
    retryIgnorePreviousHosts: z.boolean(),
    backoff: positiveDuration,
  }),
  fault: object({
    delay: object({ fixedDelay: duration, percentage, percent, exponentialDelay: duration }),
    abort: object({
      httpStatus: z.int().min(200).max(599),
      grpcStatus: z.string(),
      percentage,
      http2Error: z.string(),
    }),
  }),
  mirror: destination,
  mirrors: z.array(z.strictObject({ destination, percentage: percentage.optional() })),
  mirrorPercentage: percentage,
  mirrorPercent: count,
  mirror_percent: count,
  corsPolicy: object({
    allowOrigin: texts,
    allowOrigins: z.array(stringMatch),
    allowMethods: texts,
    allowHeaders: texts,
    exposeHeaders: texts,
    maxAge: duration,
    allowCredentials: z.boolean(),
    unmatchedPreflights: z.enum(['UNSPECIFIED', 'FORWARD', 'IGNORE']),
  }),
  headers,
})
export type HttpRoute = z.infer<typeof httpRoute>

const l4Match = { destinationSubnets: texts, port, sourceLabels: labels, gateways: texts, sourceNamespace: z.string() }
const l4Destination = z.strictObject({ destination, weight: z.int().min(0).optional() })
const tcpRoute = object({
  match: z.array(object({ ...l4Match, sourceSubnet: z.string() })),
  route: z.array(l4Destination),
})
const tlsRoute = object({ match: z.array(object({ ...l4Match, sniHosts: texts })), route: z.array(l4Destination) })
export type TcpRoute = z.infer<typeof tcpRoute>

const schema = z.strictObject({
  spec: object({
    hosts: z.array(z.string().min(1)),
    gateways: texts,
    exportTo: texts,
    http: z.array(httpRoute),
    tcp: z.array(tcpRoute),
    tls: z.array(tlsRoute),
  }),
  status: z.unknown().optional(),
})
export type VirtualServiceBody = z.infer<typeof schema>

const REDIRECT_CODES = [301, 302, 303, 307, 308]
/** Bytes of a directResponse, as Istio bounds it. */
const MAX_RESPONSE = 1024 * 1024

export const virtualService = defineKind({
  kind: 'VirtualService',
  group: 'networking.istio.io',
  versions: ['v1', 'v1beta1', 'v1alpha3'],
  schema,
  notes: [
    { path: 'spec.tls', code: 'CONFIG_NOT_YET', feature: 'TLS routing by SNI' },
    {
      path: 'spec.http[].fault',
      code: 'CONFIG_NOT_YET',
      feature: 'fault injection',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.http[].mirror',
      code: 'CONFIG_NOT_YET',
      feature: 'traffic mirroring',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.http[].mirrors',
      code: 'CONFIG_NOT_YET',
      feature: 'traffic mirroring',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.http[].corsPolicy',
      code: 'CONFIG_NOT_YET',
      feature: 'CORS',
      hint: 'Requests that meet this rule are answered 500.',
    },
    {
      path: 'spec.http[].delegate',
      code: 'CONFIG_NOT_YET',
      feature: 'VirtualService delegation',
      hint: 'Requests that meet this rule are answered 500.',
    },
    { path: 'spec.http[].match[].statPrefix', code: 'CONFIG_NOT_YET', feature: 'statistics by route' },
    { path: 'spec.http[].retries.retryRemoteLocalities', code: 'CONFIG_NOT_YET', feature: 'locality-aware balancing' },
    { path: 'spec.tcp[].match[].sourceSubnet', code: 'CONFIG_NO_EFFECT', feature: 'Istio does not evaluate it either' },
  ],
  mistakes: {
    'spec.http[].matches': 'The field is called match.',
    'spec.http[].routes': 'The field is called route.',
    'spec.http[].retry': 'The field is called retries.',
    'spec.http[].match[].path': 'The field is called uri, as in uri: {prefix: /api}.',
    'spec.http[].match[].query': 'The field is called queryParams.',
    'spec.http[].route[].host': 'Write destination: {host: …}.',
    'spec.http[].route[].subset': 'Write it inside destination: {host: …, subset: …}.',
    'spec.http[].route[].destination.weight': 'weight stands beside destination, not inside it.',
    'spec.host': 'The field is called hosts and is a list.',
    'spec.routes': 'The field is called http (or tcp).',
    'spec.subsets': 'Subsets are declared in a DestinationRule.',
  },
  check,
})

function check(resource: Resource<VirtualServiceBody>, report: Report): void {
  const { spec } = resource.body
  const fail = (path: FieldPath, message: string, hint = '') =>
    report({ severity: 'error', code: 'CONFIG_INVALID_VALUE', path, message, hint })
  if (!spec.http && !spec.tcp && !spec.tls) {
    report({
      severity: 'error',
      code: 'CONFIG_REQUIRED',
      path: ['spec'],
      message: 'A VirtualService needs one of http, tcp and tls.',
    })
  }
  // A delegate has no hosts; a root has.
  if (!spec.hosts)
    report({
      severity: 'info',
      code: 'CONFIG_NOT_YET',
      path: ['spec'],
      message:
        'A VirtualService without hosts is a delegate: VirtualService delegation is a feature Ambit does not have yet.',
    })
  else if (spec.hosts.length === 0) fail(['spec', 'hosts'], 'Must name at least one host.')
  for (const [index, rule] of (spec.http ?? []).entries()) checkRule(rule, ['spec', 'http', index], report)
  for (const key of ['tcp', 'tls'] as const) {
    for (const [index, rule] of (spec[key] ?? []).entries()) {
      const path: FieldPath = ['spec', key, index]
      if (!rule.route || rule.route.length === 0)
        report({
          severity: 'error',
          code: 'CONFIG_REQUIRED',
          path,
          message: 'The rule needs route with at least one destination.',
        })
      else checkWeights(rule.route, [...path, 'route'], report)
    }
  }
}

function checkRule(rule: HttpRoute, path: FieldPath, report: Report): void {
  const fail = (at: FieldPath, message: string, hint = '') =>
    report({ severity: 'error', code: 'CONFIG_INVALID_VALUE', path: at, message, hint })
  const actions = (['route', 'redirect', 'directResponse', 'delegate'] as const).filter((key) => {
    const value = rule[key]
    return Array.isArray(value) ? value.length > 0 : value !== undefined
  })
  if (actions.length === 0) {
    report({
      severity: 'error',
      code: 'CONFIG_REQUIRED',
      path,
      message: 'The rule needs one of route, redirect and directResponse.',
    })
  } else if (actions.length > 1) {
    fail(
      path,
      `The rule may have only one of route, redirect, directResponse and delegate, not ${actions.join(' and ')}.`,
    )
  }
  if (rule.rewrite && (rule.redirect || rule.directResponse))
    fail([...path, 'rewrite'], 'rewrite only goes with route.')
  if (rule.rewrite?.uri !== undefined && rule.rewrite.uriRegexRewrite)
    fail([...path, 'rewrite'], 'Only one of uri and uriRegexRewrite may be set.')
  if (rule.rewrite?.uriRegexRewrite) {
    const { match, rewrite } = rule.rewrite.uriRegexRewrite
    checkRewrite(match ?? '', rewrite ?? '', [...path, 'rewrite', 'uriRegexRewrite'], report)
  }
  for (const word of retryWords(rule.retries?.retryOn)) {
    if (RETRY_WORDS.includes(word) || /^[1-5]\d\d$/.test(word)) continue
    const near = nearest(word, RETRY_WORDS)
    fail(
      [...path, 'retries', 'retryOn'],
      `${JSON.stringify(word)} is no retry condition.`,
      near ? `Did you mean ${near}?` : `Conditions: ${RETRY_WORDS.join(', ')}, and status codes.`,
    )
  }
  if (rule.redirect) {
    const { redirect } = rule
    if (redirect.redirectCode !== undefined && !REDIRECT_CODES.includes(redirect.redirectCode)) {
      fail(
        [...path, 'redirect', 'redirectCode'],
        `Must be one of ${REDIRECT_CODES.join(', ')}, not ${redirect.redirectCode}.`,
      )
    }
    if (redirect.uri !== undefined && redirect.prefixRewrite !== undefined)
      fail([...path, 'redirect'], 'Only one of uri and prefixRewrite may be set.')
    if (redirect.port !== undefined && redirect.derivePort !== undefined)
      fail([...path, 'redirect'], 'Only one of port and derivePort may be set.')
  }
  if (rule.directResponse) {
    if (rule.directResponse.status === undefined)
      report({
        severity: 'error',
        code: 'CONFIG_REQUIRED',
        path: [...path, 'directResponse'],
        message: 'The field status is missing.',
      })
    const body = rule.directResponse.body
    if (body?.string !== undefined && body.bytes !== undefined)
      fail([...path, 'directResponse', 'body'], 'Only one of string and bytes may be set.')
    if ((body?.string ?? body?.bytes ?? '').length > MAX_RESPONSE)
      fail([...path, 'directResponse', 'body'], 'The body is larger than 1 MiB.')
  }
  if (rule.route) checkWeights(rule.route, [...path, 'route'], report)
  for (const [index, match] of (rule.match ?? []).entries()) checkMatch(match, [...path, 'match', index], report)
  for (const [index, origin] of (rule.corsPolicy?.allowOrigins ?? []).entries())
    checkStringMatch(origin, [...path, 'corsPolicy', 'allowOrigins', index], report)
}

/** The parts of a retryOn. */
export function retryWords(retryOn: string | undefined): string[] {
  return (retryOn ?? '')
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')
}

function checkMatch(match: HttpMatch, path: FieldPath, report: Report): void {
  for (const key of ['uri', 'scheme', 'method', 'authority'] as const) {
    const value = match[key]
    if (value) checkStringMatch(value, [...path, key], report)
  }
  for (const key of ['headers', 'withoutHeaders', 'queryParams'] as const) {
    // Old Istio files write regex: "*" for presence, which no regex engine takes.
    for (const [name, value] of Object.entries(match[key] ?? {}))
      if (value.regex !== '*') checkStringMatch(value, [...path, key, name], report)
  }
}

/** Several destinations whose weights sum to nothing route nothing. One destination needs no weight. */
function checkWeights(route: readonly { weight?: number | undefined }[], path: FieldPath, report: Report): void {
  if (route.length < 2) return
  const total = route.reduce((sum, one) => sum + (one.weight ?? 0), 0)
  if (total === 0) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path,
      message: 'The total destination weight is 0.',
      hint: 'Give at least one destination a weight above 0.',
    })
  }
}
