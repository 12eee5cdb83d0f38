// What decisions may ask about a connection and about a request: filled once by who serves (agent, waypoint, explain),
// read by authorize.ts and match-route.ts. Plain mutable fields, so that a server reuses one object per exchange.
// Must not live here: how the attributes are obtained (node/, waypoint/), decisions.
import { parseIp, type IpBytes } from '../base/ip.ts'
import type { Identity } from './identity.ts'

export interface ConnectionAttributes {
  /** The client, canonical text form: the TCP peer, or the original client where that is believed (inbound.ts). */
  sourceAddress: string
  /** Verified identity of that client; undefined for plaintext. */
  identity: Identity | undefined
  /** Pod address and port at an agent; the address and port the client dialled at a waypoint. */
  destinationAddress: string
  destinationPort: number
  /** Server name of the client's own TLS, '' if none. */
  sni: string
}

export interface RequestAttributes extends ConnectionAttributes {
  method: string
  scheme: string
  /** Host with port as sent. */
  authority: string
  /** Normalised (normalize-path.ts), origin form with query. */
  path: string
  /** Flat list: name in lower case, value, … as http/message.ts has it. */
  headers: readonly string[]
  /** Client address by X-Forwarded-For and the trusted hops; equals sourceAddress where no hop is trusted. */
  remoteAddress: string
  /** Port of the service the client dialled. */
  servicePort: number
  /** Of the client's workload or identity; '' if unknown. */
  sourceNamespace: string
  /** Of the client's workload; empty if unknown. */
  sourceLabels: Readonly<Record<string, string>>
}

const NO_LABELS: Readonly<Record<string, string>> = Object.freeze({})

/** Attributes of a connection with everything but the source at hand. */
export function connectionAttributes(
  sourceAddress: string,
  identity: Identity | undefined,
  destinationAddress: string,
  destinationPort: number,
): ConnectionAttributes {
  return { sourceAddress, identity, destinationAddress, destinationPort, sni: '' }
}

/** A request with empty attributes, for a server to fill in. */
export function emptyRequest(): RequestAttributes {
  return {
    sourceAddress: '',
    identity: undefined,
    destinationAddress: '',
    destinationPort: 0,
    sni: '',
    method: 'GET',
    scheme: 'http',
    authority: '',
    path: '/',
    headers: [],
    remoteAddress: '',
    servicePort: 0,
    sourceNamespace: '',
    sourceLabels: NO_LABELS,
  }
}

/** Value of a header (name in lower case); several fields of one name are joined by a comma as Envoy joins them. */
export function headerValue(headers: readonly string[], name: string): string | undefined {
  let value: string | undefined
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] !== name) continue
    value = value === undefined ? (headers[i + 1] as string) : `${value},${headers[i + 1] as string}`
  }
  return value
}

/** First value of a query parameter of a path, raw as sent; a name without `=` has the value ''. Undefined if absent. */
export function queryValue(path: string, name: string): string | undefined {
  let at = path.indexOf('?')
  if (at < 0) return undefined
  while (at >= 0 && at < path.length) {
    const start = at + 1
    const end = path.indexOf('&', start)
    const stop = end < 0 ? path.length : end
    if (path.startsWith(name, start)) {
      const after = start + name.length
      if (after === stop) return ''
      if (path.charCodeAt(after) === 61) return path.slice(after + 1, stop)
    }
    at = end
  }
  return undefined
}

/** The path without its query. */
export function withoutQuery(path: string): string {
  const query = path.indexOf('?')
  return query < 0 ? path : path.slice(0, query)
}

// One address is asked for several times while it is judged; the last few parsed ones are kept. Bounded: 256 entries,
// dropped all at once.
const parsed = new Map<string, IpBytes | undefined>()

/** parseIp with a small memory. */
export function addressBytes(text: string): IpBytes | undefined {
  const known = parsed.get(text)
  if (known || parsed.has(text)) return known
  if (parsed.size >= 256) parsed.clear()
  const bytes = parseIp(text)
  parsed.set(text, bytes)
  return bytes
}
