// HTTPRoutes with Service parents (GAMMA) as the domain's routes, rules sorted most specific first across all routes of
// one parent. In the service's namespace a route is for every client (producer), elsewhere for that namespace's (consumer).
// Must not live here: the schema (http-route.ts), matching (mesh/match-route.ts). Semantics after gateway-api HTTPRoute.
import type { Destination, NamedMatch, PathMatch, Route, RouteAction, RouteMatch, RouteRule } from '../mesh/route.ts'
import type { Service } from '../mesh/service.ts'
import type { Context } from './context.ts'
import { reportNoWaypoint } from './enforcement.ts'
import { gateway, referenceGrant } from './gateway.ts'
import { readHeaders, readRedirect, readRetry, readRewrite, unsupportedOf } from './http-route-filters.ts'
import {
  httpRoute,
  type BackendRef,
  type HttpRouteBody,
  type HttpRouteRule,
  type ParentRef,
  type RouteMatchSpec,
} from './http-route.ts'
import { sourceOf, type FieldPath, type Resource } from './resource.ts'
import { serviceHost } from './service.ts'

type HttpRouteResource = Resource<HttpRouteBody>

const GATEWAY_GROUP = 'gateway.networking.k8s.io'

interface Ranked {
  readonly rule: RouteRule
  readonly rank: Rank
}

/** Higher is more specific; compared field by field (HTTPRouteRule.matches: precedence). */
interface Rank {
  readonly exact: number
  readonly path: number
  readonly method: number
  readonly headers: number
  readonly query: number
  /** Ties: oldest route, then name, then order in the route. Lower wins. */
  readonly age: number
  readonly name: string
  readonly order: number
}

export function toHttpRoutes(context: Context): Route[] {
  const found = new Map<string, { service: Service; consumer: string; rules: Ranked[]; first: HttpRouteResource }>()
  for (const one of context.of(httpRoute)) {
    const { spec } = one.body
    // What is wrong with backends is said once, whichever parents there are.
    let told = false
    for (const [index, parent] of (spec.parentRefs ?? []).entries()) {
      const target = findParent(context, one, parent, ['spec', 'parentRefs', index])
      if (!target) continue
      reportNoWaypoint(context, one, target.service, ['spec', 'parentRefs', index])
      const consumer = one.metadata.namespace === target.service.namespace ? '*' : one.metadata.namespace
      const key = `${target.service.hostname}/${consumer}`
      let entry = found.get(key)
      if (!entry) found.set(key, (entry = { ...target, consumer, rules: [], first: one }))
      for (const [order, rule] of (spec.rules ?? [{}]).entries())
        entry.rules.push(...readRule(context, one, rule, order, target.port, !told))
      told = true
    }
    if (!spec.parentRefs?.length) {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_NO_EFFECT',
        path: ['spec'],
        message: 'The route has no parentRefs: it applies to nothing.',
        hint: 'Add parentRefs: [{group: "", kind: Service, name: …}].',
      })
    }
  }
  return [...found.values()].map(({ service, consumer, rules, first }) => ({
    dialect: 'HTTPRoute' as const,
    namespace: service.namespace,
    hostname: service.hostname,
    consumerNamespace: consumer,
    rules: rules.sort((a, b) => compareRank(a.rank, b.rank)).map((ranked) => ranked.rule),
    tcp: [],
    source: sourceOf(first),
  }))
}

/** The service a parentRef names, and the port it is limited to (0: all). */
function findParent(
  context: Context,
  one: HttpRouteResource,
  parent: ParentRef,
  path: FieldPath,
): { service: Service; port: number } | undefined {
  const kind = parent.kind ?? 'Gateway'
  const group = parent.group ?? GATEWAY_GROUP
  const namespace = parent.namespace ?? one.metadata.namespace
  if (kind !== 'Service' || (group !== '' && group !== 'core')) {
    if (kind === 'Service') {
      context.report(one, {
        severity: 'error',
        code: 'CONFIG_UNKNOWN_TARGET',
        path,
        message: 'A Service is of the core group.',
        hint: 'Write group: "" beside kind: Service.',
      })
    } else if (kind === 'Gateway' && !context.has(gateway, namespace, parent.name)) {
      context.report(one, {
        severity: 'error',
        code: 'CONFIG_UNKNOWN_GATEWAY',
        path: [...path, 'name'],
        message: `There is no Gateway ${namespace}/${parent.name}.`,
        hint: 'In the mesh the parent is a Service: write group: "", kind: Service.',
      })
    } else {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_NOT_YET',
        path,
        message: `Routes of a ${kind}: ingress gateways are a feature Ambit does not have yet.`,
        hint: 'In the mesh the parent is a Service: write group: "", kind: Service.',
      })
    }
    return undefined
  }
  const host = serviceHost(parent.name, namespace, context.settings.clusterDomain)
  const service = context.services.get(host)
  if (!service) {
    context.report(one, {
      severity: 'error',
      code: 'CONFIG_UNKNOWN_HOST',
      path: [...path, 'name'],
      message: `There is no Service ${namespace}/${parent.name}.`,
      hint: context.hostHint(host, one),
    })
    return undefined
  }
  if (one.body.spec.hostnames?.length) {
    context.report(one, {
      severity: 'info',
      code: 'CONFIG_NO_EFFECT',
      path: ['spec', 'hostnames'],
      message: 'hostnames have no effect for a Service: its own name and address decide.',
    })
  }
  const port = service.ports.find(
    (each) =>
      (parent.sectionName === undefined || each.name === parent.sectionName) &&
      (parent.port === undefined || each.port === parent.port),
  )
  if (!port && (parent.sectionName !== undefined || parent.port !== undefined)) {
    context.report(one, {
      severity: 'error',
      code: 'CONFIG_UNKNOWN_PORT',
      path,
      message: `${host} has no port ${parent.sectionName ?? parent.port}.`,
      hint: `Its ports: ${service.ports.map((each) => each.name || each.port).join(', ')}.`,
    })
    return undefined
  }
  return { service, port: parent.sectionName !== undefined || parent.port !== undefined ? (port?.port ?? 0) : 0 }
}

/** One domain rule per match, since each match has its own place in the order. */
function readRule(
  context: Context,
  one: HttpRouteResource,
  rule: HttpRouteRule,
  order: number,
  port: number,
  report: boolean,
): Ranked[] {
  const path: FieldPath = ['spec', 'rules', order]
  const filters = rule.filters ?? []
  const redirect = filters.find((filter) => filter.type === 'RequestRedirect')?.requestRedirect
  const rewrite = filters.find((filter) => filter.type === 'URLRewrite')?.urlRewrite
  const action: RouteAction = redirect
    ? { type: 'redirect', redirect: readRedirect(redirect) }
    : { type: 'forward', destinations: readBackends(context, one, rule.backendRefs ?? [], path, report) }
  const retry = readRetry(rule)
  const { request } = rule.timeouts ?? {}
  const common = {
    name: rule.name ?? '',
    action,
    ...(request ? { timeoutMs: request } : {}),
    ...(retry ? { retry } : {}),
    ...(rewrite ? { rewrite: readRewrite(rewrite) } : {}),
    ...readHeaders(filters),
    unsupported: unsupportedOf(rule),
    source: sourceOf(one, path),
  }
  const matches = rule.matches?.length ? rule.matches : [{}]
  return matches.map((match) => ({
    rule: { ...common, matches: [readMatch(match, port)] },
    rank: rankOf(match, one, order),
  }))
}

function readMatch(match: RouteMatchSpec, port: number): RouteMatch {
  return {
    name: '',
    path: readPath(match),
    ...(match.method ? { method: { type: 'exact', value: match.method } as const } : {}),
    headers: readNamed(match.headers, true),
    withoutHeaders: [],
    queryParams: readNamed(match.queryParams, false),
    port,
    sourceNamespace: '',
    sourceLabels: {},
  }
}

function readPath(match: RouteMatchSpec): PathMatch {
  const value = match.path?.value ?? '/'
  if (match.path?.type === 'Exact') return { type: 'exact', value, ignoreCase: false }
  return { type: match.path?.type === 'RegularExpression' ? 'regex' : 'elements', value }
}

/** Of entries with one name the first counts. */
function readNamed(list: RouteMatchSpec['headers'], lowerCase: boolean): NamedMatch[] {
  const result = new Map<string, NamedMatch>()
  for (const { type, name: written, value } of list ?? []) {
    const name = lowerCase ? written.toLowerCase() : written
    if (!result.has(name))
      result.set(name, { name, match: { type: type === 'RegularExpression' ? 'regex' : 'exact', value } })
  }
  return [...result.values()]
}

function rankOf(match: RouteMatchSpec, one: HttpRouteResource, order: number): Rank {
  const value = match.path?.value ?? '/'
  const type = match.path?.type ?? 'PathPrefix'
  return {
    exact: type === 'Exact' ? 2 : type === 'PathPrefix' ? 1 : 0,
    path: type === 'PathPrefix' ? (value.endsWith('/') ? value.length - 1 : value.length) : value.length,
    method: match.method ? 1 : 0,
    headers: match.headers?.length ?? 0,
    query: match.queryParams?.length ?? 0,
    age: one.metadata.createdAt ?? 0,
    name: `${one.metadata.namespace}/${one.metadata.name}`,
    order,
  }
}

function compareRank(a: Rank, b: Rank): number {
  return (
    b.exact - a.exact ||
    b.path - a.path ||
    b.method - a.method ||
    b.headers - a.headers ||
    b.query - a.query ||
    a.age - b.age ||
    (a.name < b.name ? -1 : a.name > b.name ? 1 : 0) ||
    a.order - b.order
  )
}

/** A reference that leads nowhere takes its share of requests and answers 500: its `service` is ''. */
const NOWHERE: Destination = { service: '', host: '', subset: '', port: 0, weight: 1 }

function readBackends(
  context: Context,
  one: HttpRouteResource,
  refs: readonly BackendRef[],
  path: FieldPath,
  report: boolean,
): Destination[] {
  if (refs.length === 0) return [NOWHERE]
  const destinations = refs.map((ref, index) => readBackend(context, one, ref, [...path, 'backendRefs', index], report))
  const weighted = destinations.filter((each) => each.weight > 0)
  return weighted.length > 0 ? weighted : [NOWHERE]
}

function readBackend(
  context: Context,
  one: HttpRouteResource,
  ref: BackendRef,
  path: FieldPath,
  report: boolean,
): Destination {
  const namespace = ref.namespace ?? one.metadata.namespace
  const weight = ref.weight ?? 1
  const host = serviceHost(ref.name, namespace, context.settings.clusterDomain)
  const invalid = (
    code: 'CONFIG_UNKNOWN_TARGET' | 'CONFIG_UNKNOWN_HOST' | 'CONFIG_UNKNOWN_PORT' | 'CONFIG_NOT_PERMITTED',
    message: string,
    hint: string,
  ): Destination => {
    if (report)
      context.report(one, {
        severity: 'error',
        code,
        path,
        message: `${message} Its share of requests is answered 500.`,
        hint,
      })
    return { ...NOWHERE, host: ref.name, weight }
  }
  if ((ref.kind ?? 'Service') !== 'Service' || ((ref.group ?? '') !== '' && ref.group !== 'core')) {
    return invalid(
      'CONFIG_UNKNOWN_TARGET',
      `A backend must be a Service, not ${ref.group ?? 'core'} ${ref.kind ?? ''}.`,
      'Leave kind and group out.',
    )
  }
  if (namespace !== one.metadata.namespace && !isGranted(context, one.metadata.namespace, namespace, ref.name)) {
    return invalid(
      'CONFIG_NOT_PERMITTED',
      `No ReferenceGrant in namespace ${namespace} allows HTTPRoutes of ${one.metadata.namespace} to use Service ${ref.name}.`,
      `Add one to namespace ${namespace}.`,
    )
  }
  const service = context.services.get(host)
  if (!service)
    return invalid('CONFIG_UNKNOWN_HOST', `There is no Service ${namespace}/${ref.name}.`, context.hostHint(host, one))
  if (ref.port === undefined || !service.ports.some((each) => each.port === ref.port)) {
    return invalid(
      'CONFIG_UNKNOWN_PORT',
      ref.port === undefined ? 'A backend that is a Service needs a port.' : `${host} has no port ${ref.port}.`,
      `Its ports: ${service.ports.map((each) => each.port).join(', ')}.`,
    )
  }
  return {
    service: `${namespace}/${host}`,
    host: ref.name,
    subset: '',
    port: ref.port,
    weight,
    ...readHeaders(ref.filters ?? []),
  }
}

function isGranted(context: Context, from: string, to: string, name: string): boolean {
  return context
    .of(referenceGrant)
    .some(
      (grant) =>
        grant.metadata.namespace === to &&
        grant.body.spec.from.some(
          (each) => each.group === GATEWAY_GROUP && each.kind === 'HTTPRoute' && each.namespace === from,
        ) &&
        grant.body.spec.to.some(
          (each) => each.group === '' && each.kind === 'Service' && (each.name === undefined || each.name === name),
        ),
    )
}
