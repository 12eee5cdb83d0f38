// The filters, timeouts and retries of an HTTPRoute's rule in the domain's words.
// Must not live here: matching, backends and order (http-route-routes.ts).
import { DEFAULT_ATTEMPTS, DEFAULT_BACKOFF_MS, DEFAULT_RETRY_ON } from '../mesh/retry.ts'
import type { HeaderOps, Redirect, RetryPolicy, Rewrite } from '../mesh/route.ts'
import type { HeaderModifier, HttpRouteRule, RouteFilter } from './http-route.ts'

export function unsupportedOf(rule: HttpRouteRule): string[] {
  const names: Partial<Record<RouteFilter['type'], string>> = {
    RequestMirror: 'traffic mirroring',
    CORS: 'CORS',
    ExternalAuth: 'external authorisation',
    ExtensionRef: 'extension filters',
  }
  const found = (rule.filters ?? []).flatMap((filter) => names[filter.type] ?? [])
  const inBackends = (rule.backendRefs ?? [])
    .flatMap((backend) => backend.filters ?? [])
    .filter((filter) => !filter.type.endsWith('HeaderModifier'))
  if (inBackends.length > 0) found.push('filters of one backend other than header modifiers')
  if (rule.sessionPersistence) found.push('session persistence')
  return [...new Set(found)]
}

export function readHeaders(filters: readonly RouteFilter[]): {
  requestHeaders?: HeaderOps
  responseHeaders?: HeaderOps
} {
  const request = filters.find((filter) => filter.type === 'RequestHeaderModifier')?.requestHeaderModifier
  const response = filters.find((filter) => filter.type === 'ResponseHeaderModifier')?.responseHeaderModifier
  return {
    ...(request ? { requestHeaders: toHeaderOps(request) } : {}),
    ...(response ? { responseHeaders: toHeaderOps(response) } : {}),
  }
}

function toHeaderOps(spec: HeaderModifier): HeaderOps {
  const record = (list: HeaderModifier['set']) =>
    Object.fromEntries((list ?? []).map((each) => [each.name, each.value]))
  return { set: record(spec.set), add: record(spec.add), remove: spec.remove ?? [] }
}

export function readRedirect(spec: NonNullable<RouteFilter['requestRedirect']>): Redirect {
  return {
    status: spec.statusCode ?? 302,
    ...(spec.scheme ? { scheme: spec.scheme } : {}),
    ...(spec.hostname ? { authority: spec.hostname } : {}),
    ...(spec.port === undefined ? {} : { port: spec.port }),
    ...(spec.path?.replaceFullPath === undefined ? {} : { path: spec.path.replaceFullPath }),
    ...(spec.path?.replacePrefixMatch === undefined ? {} : { prefixPath: spec.path.replacePrefixMatch }),
  }
}

export function readRewrite(spec: NonNullable<RouteFilter['urlRewrite']>): Rewrite {
  return {
    ...(spec.hostname ? { authority: spec.hostname } : {}),
    ...(spec.path?.replaceFullPath === undefined ? {} : { fullPath: spec.path.replaceFullPath }),
    ...(spec.path?.replacePrefixMatch === undefined ? {} : { prefixPath: spec.path.replacePrefixMatch }),
  }
}

/** Without `retry` the mesh's default holds; timeouts.backendRequest limits each attempt. */
export function readRetry(rule: HttpRouteRule): RetryPolicy | undefined {
  const perTry = rule.timeouts?.backendRequest
  if (!rule.retry && !perTry) return undefined
  const codes = rule.retry?.codes ?? []
  return {
    attempts: rule.retry?.attempts ?? DEFAULT_ATTEMPTS,
    ...(perTry ? { perTryTimeoutMs: perTry } : {}),
    retryOn: codes.length > 0 ? [...DEFAULT_RETRY_ON, 'retriable-status-codes'] : DEFAULT_RETRY_ON,
    statusCodes: codes,
    backoffMs: rule.retry?.backoff || DEFAULT_BACKOFF_MS,
    ignorePreviousHosts: true,
  }
}
