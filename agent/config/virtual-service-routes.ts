// VirtualServices as the domain's routes: which services they speak about, for which clients, rule by rule.
// A VirtualService in the service's own namespace is for every client it is exported to; one in another namespace is for
// that namespace's clients only, so that nobody can turn away the traffic of others.
// Must not live here: the schema (virtual-service.ts), matching (mesh/match-route.ts).
import { DEFAULT_ATTEMPTS, DEFAULT_BACKOFF_MS, DEFAULT_RETRY_ON } from '../mesh/retry.ts'
import type {
  Destination,
  HeaderOps,
  NamedMatch,
  PathMatch,
  Redirect,
  RetryPolicy,
  Rewrite,
  Route,
  RouteAction,
  RouteMatch,
  RouteRule,
  TcpRule,
} from '../mesh/route.ts'
import type { Service } from '../mesh/service.ts'
import type { Context } from './context.ts'
import { reportDestination } from './destinations.ts'
import { reportNoWaypoint } from './enforcement.ts'
import { istioGateway } from './istio-gateway.ts'
import { sourceOf, type FieldPath, type Resource } from './resource.ts'
import { toRouteMatch, type StringMatch } from './schema.ts'
import {
  retryWords,
  virtualService,
  type Headers,
  type HttpMatch,
  type HttpRoute,
  type TcpRoute,
  type VirtualServiceBody,
} from './virtual-service.ts'

type VirtualService = Resource<VirtualServiceBody>

/** One VirtualService's rules, read once whatever the number of its hosts. */
interface Rules {
  readonly rules: readonly RouteRule[]
  readonly tcp: readonly TcpRule[]
}

export function toRoutes(context: Context): Route[] {
  /** Service and consumer → VirtualServices by how specific their host is. */
  const claims = new Map<
    string,
    { service: Service; consumer: string; exact: VirtualService[]; wild: { length: number; from: VirtualService }[] }
  >()
  const read = new Map<VirtualService, Rules>()
  for (const one of context.of(virtualService)) {
    reportGateways(context, one)
    if (!appliesInMesh(one)) continue
    read.set(one, readRules(context, one))
    for (const [index, host] of (one.body.spec.hosts ?? []).entries()) {
      const pattern = context.host(host, one)
      const services = context.servicesMatching(pattern)
      if (services.length === 0) {
        context.report(one, {
          severity: 'warning',
          code: 'CONFIG_UNKNOWN_HOST',
          path: ['spec', 'hosts', index],
          message: `${host} is no service of the mesh: the rules have no effect for it.`,
          hint: context.hostHint(pattern, one),
        })
      }
      for (const service of services) {
        if (!pattern.startsWith('*')) reportNoWaypoint(context, one, service, ['spec', 'hosts', index])
        for (const consumer of consumersOf(
          context,
          one,
          service,
          pattern.startsWith('*') ? undefined : ['spec', 'hosts', index],
        )) {
          const key = `${service.hostname}/${consumer}`
          let claim = claims.get(key)
          if (!claim) claims.set(key, (claim = { service, consumer, exact: [], wild: [] }))
          if (pattern.startsWith('*')) claim.wild.push({ length: pattern.length, from: one })
          else if (!claim.exact.includes(one)) claim.exact.push(one)
        }
      }
    }
  }
  const routes: Route[] = []
  for (const { service, consumer, exact, wild } of claims.values()) {
    const longest = Math.max(0, ...wild.map((each) => each.length))
    // The most specific host counts; VirtualServices of one host follow each other, oldest first.
    const chosen = exact.length > 0 ? exact : wild.filter((each) => each.length === longest).map((each) => each.from)
    const [first, second] = chosen
    if (!first) continue
    if (second) {
      context.report(second, {
        severity: 'info',
        code: 'CONFIG_CONFLICT',
        path: ['spec', 'hosts'],
        message: `VirtualService ${first.metadata.namespace}/${first.metadata.name} speaks about ${service.hostname} too: its rules come first.`,
        hint: 'Put the rules of one host into one VirtualService.',
      })
    }
    const parts = chosen.map((each) => read.get(each) as Rules)
    routes.push({
      dialect: 'VirtualService',
      namespace: service.namespace,
      hostname: service.hostname,
      consumerNamespace: consumer,
      rules: parts.flatMap((part) => part.rules),
      tcp: parts.flatMap((part) => part.tcp),
      source: sourceOf(first),
    })
  }
  return routes
}

/** In the mesh when `gateways` is absent or names `mesh`. */
function appliesInMesh(one: VirtualService): boolean {
  const { gateways } = one.body.spec
  return gateways === undefined || gateways.length === 0 || gateways.includes('mesh')
}

function reportGateways(context: Context, one: VirtualService): void {
  const { gateways = [] } = one.body.spec
  for (const [index, text] of gateways.entries()) {
    if (text === 'mesh') continue
    const [namespace, name] = text.includes('/')
      ? (text.split('/', 2) as [string, string])
      : [one.metadata.namespace, text]
    const path: FieldPath = ['spec', 'gateways', index]
    if (!context.has(istioGateway, namespace, name)) {
      context.report(one, {
        severity: 'error',
        code: 'CONFIG_UNKNOWN_GATEWAY',
        path,
        message: `There is no Gateway ${namespace}/${name} (networking.istio.io).`,
        hint: 'Declare it, or remove gateways so that the rules apply in the mesh.',
      })
    }
  }
  if (gateways.length > 0 && !appliesInMesh(one)) {
    context.report(one, {
      severity: 'warning',
      code: 'CONFIG_NOT_YET',
      path: ['spec', 'gateways'],
      message: 'The rules are for ingress gateways, a feature Ambit does not have yet; they do not apply in the mesh.',
      hint: 'Add mesh to gateways to have them in the mesh.',
    })
  }
}

/** '*', or the namespaces whose clients the rules are for. */
function consumersOf(context: Context, one: VirtualService, service: Service, path: FieldPath | undefined): string[] {
  const own = one.metadata.namespace
  const exportTo = (one.body.spec.exportTo ?? ['*']).map((text) => (text === '.' ? own : text))
  if (own === service.namespace) return exportTo.includes('*') ? ['*'] : exportTo
  if (!exportTo.includes('*') && !exportTo.includes(own)) return []
  // A wildcard means whatever is there; only a host by its name is worth a word.
  if (path === undefined) return [own]
  context.report(one, {
    severity: 'info',
    code: 'CONFIG_NO_EFFECT',
    path,
    message: `${service.hostname} is of namespace ${service.namespace}: from namespace ${own} the rules apply to clients in ${own} only.`,
    hint: 'Put the VirtualService into the namespace of its service to have it for every client.',
  })
  return [own]
}

function readRules(context: Context, one: VirtualService): Rules {
  const { spec } = one.body
  const rules: RouteRule[] = []
  let shadow: number | undefined
  for (const [index, rule] of (spec.http ?? []).entries()) {
    const path: FieldPath = ['spec', 'http', index]
    const matches = (rule.match ?? []).filter(forMesh)
    // All its matches are for gateways: in the mesh the rule does not exist, rather than match everything.
    if (rule.match?.length && matches.length === 0) continue
    if (shadow !== undefined) {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_UNREACHABLE',
        path,
        message: `The rule is never reached: http[${shadow}] matches everything.`,
        hint: 'Move it up, or give the earlier rule a match.',
      })
    }
    if (shadow === undefined && (matches.length === 0 || matches.some(matchesEverything))) shadow = index
    rules.push(readRule(context, one, rule, matches, path))
  }
  const tcp = (spec.tcp ?? []).flatMap((rule, index) => readTcp(context, one, rule, ['spec', 'tcp', index]))
  return { rules, tcp }
}

function forMesh(match: { gateways?: readonly string[] | undefined }): boolean {
  return match.gateways === undefined || match.gateways.length === 0 || match.gateways.includes('mesh')
}

function matchesEverything(match: HttpMatch): boolean {
  const { name: _name, gateways: _gateways, statPrefix: _statPrefix, ignoreUriCase: _case, ...rest } = match
  const set = Object.entries(rest).filter(([, value]) => value !== undefined)
  return set.length === 0 || (set.length === 1 && match.uri?.prefix === '/')
}

function readRule(
  context: Context,
  one: VirtualService,
  rule: HttpRoute,
  matches: readonly HttpMatch[],
  path: FieldPath,
): RouteRule {
  const retry = readRetry(rule)
  const rewrite = readRewrite(rule)
  return {
    name: rule.name ?? '',
    matches: matches.map(readMatch),
    action: readAction(context, one, rule, path),
    // 0 is Istio's way of saying "no timeout".
    ...(rule.timeout ? { timeoutMs: rule.timeout } : {}),
    ...(retry ? { retry } : {}),
    ...(rewrite ? { rewrite } : {}),
    ...readHeaders(rule.headers),
    unsupported: unsupportedOf(rule, matches),
    source: sourceOf(one, path),
  }
}

/** Features whose absence would change what a request meets: it is answered 500 instead. */
function unsupportedOf(rule: HttpRoute, matches: readonly HttpMatch[]): string[] {
  const found: string[] = []
  if (rule.fault) found.push('fault injection')
  if (rule.mirror || rule.mirrors?.length) found.push('traffic mirroring')
  if (rule.corsPolicy) found.push('CORS')
  if (rule.delegate) found.push('VirtualService delegation')
  if (
    matches.some((match) =>
      [...Object.keys(match.headers ?? {}), ...Object.keys(match.withoutHeaders ?? {})].some((name) =>
        name.startsWith('@'),
      ),
    )
  ) {
    found.push('routing by claims of a JSON Web Token')
  }
  return found
}

function readMatch(match: HttpMatch): RouteMatch {
  return {
    name: match.name ?? '',
    ...(match.uri ? { path: readPath(match.uri, match.ignoreUriCase ?? false) } : {}),
    ...(match.method ? { method: toRouteMatch(match.method) } : {}),
    ...(match.scheme ? { scheme: toRouteMatch(match.scheme) } : {}),
    ...(match.authority ? { authority: toRouteMatch(match.authority) } : {}),
    headers: readNamed(match.headers, true),
    withoutHeaders: readNamed(match.withoutHeaders, true),
    queryParams: readNamed(match.queryParams, false),
    port: match.port ?? 0,
    sourceNamespace: match.sourceNamespace ?? '',
    sourceLabels: match.sourceLabels ?? {},
  }
}

function readPath(match: StringMatch, ignoreCase: boolean): PathMatch {
  if (match.exact !== undefined) return { type: 'exact', value: match.exact, ignoreCase }
  if (match.regex !== undefined) return { type: 'regex', value: match.regex }
  return { type: 'prefix', value: match.prefix ?? '/', ignoreCase }
}

function readNamed(matches: Readonly<Record<string, StringMatch>> | undefined, lowerCase: boolean): NamedMatch[] {
  return Object.entries(matches ?? {}).map(([name, match]) => ({
    name: lowerCase ? name.toLowerCase() : name,
    match: toRouteMatch(match),
  }))
}

function readAction(context: Context, one: VirtualService, rule: HttpRoute, path: FieldPath): RouteAction {
  if (rule.redirect) return { type: 'redirect', redirect: readRedirect(rule.redirect) }
  if (rule.directResponse) {
    const { status = 200, body } = rule.directResponse
    return {
      type: 'respond',
      status,
      body: body?.string ?? (body?.bytes === undefined ? '' : Buffer.from(body.bytes, 'base64').toString('utf8')),
    }
  }
  const destinations = (rule.route ?? []).map((entry, index) =>
    readDestination(context, one, entry, [...path, 'route', index]),
  )
  return { type: 'forward', destinations: weigh(destinations) }
}

/** One destination takes everything; among several those without weight take nothing. */
function weigh(destinations: readonly Destination[]): Destination[] {
  const [only] = destinations
  if (only && destinations.length === 1) return [{ ...only, weight: 1 }]
  return destinations.filter((one) => one.weight > 0)
}

function readDestination(
  context: Context,
  one: VirtualService,
  entry: {
    destination: { host: string; subset?: string | undefined; port?: { number?: number | undefined } | undefined }
    weight?: number | undefined
    headers?: Headers | undefined
  },
  path: FieldPath,
): Destination {
  const { host, subset = '', port } = entry.destination
  const full = context.host(host, one)
  reportDestination(context, one, { host, full, subset, port: port?.number ?? 0 }, [...path, 'destination'])
  return {
    service: context.serviceKeyOf(full, one),
    host,
    subset,
    port: port?.number ?? 0,
    weight: entry.weight ?? 0,
    ...readHeaders(entry.headers),
  }
}

function readHeaders(headers: Headers | undefined): { requestHeaders?: HeaderOps; responseHeaders?: HeaderOps } {
  const ops = (spec: NonNullable<Headers['request']>): HeaderOps => ({
    set: spec.set ?? {},
    add: spec.add ?? {},
    remove: spec.remove ?? [],
  })
  return {
    ...(headers?.request ? { requestHeaders: ops(headers.request) } : {}),
    ...(headers?.response ? { responseHeaders: ops(headers.response) } : {}),
  }
}

function readRedirect(spec: NonNullable<HttpRoute['redirect']>): Redirect {
  return {
    status: spec.redirectCode ?? 301,
    ...(spec.scheme ? { scheme: spec.scheme } : {}),
    ...(spec.authority ? { authority: spec.authority } : {}),
    ...(spec.port === undefined ? {} : { port: spec.port }),
    ...(spec.derivePort ? { derivePort: spec.derivePort } : {}),
    ...(spec.uri ? { path: spec.uri } : {}),
    ...(spec.prefixRewrite ? { prefixPath: spec.prefixRewrite } : {}),
  }
}

function readRewrite(rule: HttpRoute): Rewrite | undefined {
  const spec = rule.rewrite
  if (!spec) return undefined
  const regex = spec.uriRegexRewrite
  return {
    ...(spec.uri === undefined ? {} : { uri: spec.uri }),
    ...(regex ? { regex: { match: regex.match ?? '', rewrite: regex.rewrite ?? '' } } : {}),
    ...(spec.authority === undefined ? {} : { authority: spec.authority }),
  }
}

/** Absent: Istio's default policy. attempts 0 switches it off. A retryOn of words and status codes is taken apart. */
function readRetry(rule: HttpRoute): RetryPolicy | undefined {
  const spec = rule.retries
  if (!spec) return undefined
  const words = retryWords(spec.retryOn)
  const codes = words.filter((word) => /^\d+$/.test(word)).map(Number)
  const named = words.filter((word) => !/^\d+$/.test(word))
  return {
    attempts: spec.attempts ?? DEFAULT_ATTEMPTS,
    ...(spec.perTryTimeout === undefined ? {} : { perTryTimeoutMs: spec.perTryTimeout }),
    retryOn:
      words.length === 0
        ? DEFAULT_RETRY_ON
        : codes.length > 0
          ? [...new Set([...named, 'retriable-status-codes'])]
          : named,
    statusCodes: codes,
    backoffMs: spec.backoff ?? DEFAULT_BACKOFF_MS,
    ignorePreviousHosts: spec.retryIgnorePreviousHosts ?? true,
  }
}

/** One rule per port it matches; other L4 attributes make it a feature to come. */
function readTcp(context: Context, one: VirtualService, rule: TcpRoute, path: FieldPath): TcpRule[] {
  const matches = (rule.match ?? []).filter(forMesh)
  if (rule.match?.length && matches.length === 0) return []
  const destinations = weigh(
    (rule.route ?? []).map((entry, index) => readDestination(context, one, entry, [...path, 'route', index])),
  )
  const source = sourceOf(one, path)
  if (matches.length === 0) return [{ port: 0, destinations, source }]
  return matches.flatMap((match, index) => {
    const narrow = (['destinationSubnets', 'sourceLabels', 'sourceNamespace'] as const).find(
      (key) => match[key] !== undefined && Object.keys(match[key]).length > 0,
    )
    if (narrow) {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_NOT_YET',
        path: [...path, 'match', index, narrow],
        message: `${narrow} in a tcp match: Ambit does not have this yet; the match is left out.`,
      })
      return []
    }
    return [{ port: match.port ?? 0, destinations, source }]
  })
}
