// The Location of a redirect. VirtualService: scheme, authority, port, uri or prefixRewrite, `derivePort`; HTTPRoute:
// scheme, hostname, port and path with its own rule for the port (explicit, else the scheme's, else the listener's, which in a mesh is the
// one the client used). A port that is the scheme's own is left out.
import { parsePort } from '../base/ip.ts'
import { prefixReplacer } from './rewrite.ts'
import type { PathMatch, Redirect, Route } from './route.ts'
import { withoutQuery } from './request.ts'

export interface RedirectRequest {
  readonly scheme: string
  readonly authority: string
  /** With query. */
  readonly path: string
  /** Port of the service the client dialled. */
  readonly port: number
}

const DEFAULT_PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 }

/** The absolute URL to send the client to. */
export function redirectLocation(
  redirect: Redirect,
  match: PathMatch | undefined,
  dialect: Route['dialect'],
  request: RedirectRequest,
): string {
  const scheme = redirect.scheme ?? (request.scheme || 'http')
  const asked = splitAuthority(request.authority)
  const target = redirect.authority === undefined ? asked : splitAuthority(redirect.authority)
  const port = portOf(redirect, dialect, scheme, request, target.port, asked.port)
  const host = target.host
  const authority = port === 0 || port === DEFAULT_PORTS[scheme] ? host : `${host}:${port}`
  return `${scheme}://${authority}${pathOf(redirect, match, request.path)}`
}

function portOf(
  redirect: Redirect,
  dialect: Route['dialect'],
  scheme: string,
  request: RedirectRequest,
  target: number,
  asked: number,
): number {
  if (redirect.port) return redirect.port
  if (redirect.derivePort === 'FROM_PROTOCOL_DEFAULT') return DEFAULT_PORTS[scheme] ?? 0
  if (redirect.derivePort === 'FROM_REQUEST_PORT') return request.port
  if (dialect === 'HTTPRoute')
    return redirect.scheme === undefined ? request.port : (DEFAULT_PORTS[scheme] ?? request.port)
  if (redirect.authority !== undefined) return target
  // Envoy drops a port that was the old scheme's own when the scheme changes.
  return redirect.scheme !== undefined && asked === DEFAULT_PORTS[request.scheme] ? 0 : asked
}

function pathOf(redirect: Redirect, match: PathMatch | undefined, path: string): string {
  const query = path.slice(withoutQuery(path).length)
  if (redirect.path !== undefined) return redirect.path.includes('?') ? redirect.path : redirect.path + query
  if (redirect.prefixPath === undefined) return path
  if (match?.type === 'prefix') return redirect.prefixPath + path.slice(match.value.length)
  return prefixReplacer(match?.type === 'elements' ? match.value : '/', redirect.prefixPath)(path)
}

/** Host (with brackets kept) and port, 0 without one. */
function splitAuthority(authority: string): { host: string; port: number } {
  const colon = authority.lastIndexOf(':')
  if (colon <= 0 || authority.endsWith(']')) return { host: authority, port: 0 }
  const port = parsePort(authority.slice(colon + 1))
  return port < 0 ? { host: authority, port: 0 } : { host: authority.slice(0, colon), port }
}
