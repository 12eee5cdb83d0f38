// Who asks for what: the words of the command line resolved against the mesh. Must not live here: the answer.
import { canonicalIp, parsePort, splitHostPort } from '../../base/ip.ts'
import { AmbitError } from '../../base/errors.ts'
import type { Service } from '../../mesh/service.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'

/** A client that is no workload the mesh knows. */
export interface Stranger {
  readonly address: string
}

export interface Target {
  readonly address: string
  readonly port: number
  /** As the client would write it in Host. */
  readonly authority: string
  readonly service: Service | undefined
  readonly workload: Workload | undefined
}

export interface HttpRequest {
  readonly method: string
  readonly path: string
  /** Flat list; names in lower case. */
  readonly headers: readonly string[]
  readonly authority: string
}

export interface Question {
  readonly source: Workload | Stranger
  readonly target: Target
  /** Absent: a connection is asked about. */
  readonly request: HttpRequest | undefined
}

export function isWorkload(source: Workload | Stranger): source is Workload {
  return 'uid' in source
}

/** An address that documents reserve, for a client outside the mesh without one of its own. */
const OUTSIDE = '192.0.2.1'

/** Finds the source: a pod, a workload or app name with optional namespace, an address, or `outside`. Throws CLI_SOURCE_UNKNOWN, CLI_SOURCE_AMBIGUOUS. */
export function findSource(state: MeshState, text: string): Workload | Stranger {
  if (text === 'outside') return { address: OUTSIDE }
  const address = canonicalIp(text)
  if (address !== undefined) return state.workloadByAddress(address) ?? { address }
  const found = findWorkload(state, text, undefined)
  if (found) return found
  throw new AmbitError('CLI_SOURCE_UNKNOWN', `There is no pod, workload or app '${text}'.`, {
    hint: `Known: ${some([...state.workloads()].map((one) => `${one.namespace}/${one.workloadName}`))}. Or write outside.`,
  })
}

function findWorkload(state: MeshState, text: string, near: string | undefined): Workload | undefined {
  const slash = text.indexOf('/')
  const namespace = slash < 0 ? undefined : text.slice(0, slash)
  const name = text.slice(slash + 1)
  const all = [...state.workloads()].filter((one) => namespace === undefined || one.namespace === namespace)
  for (const fits of [
    (one: Workload) => one.name === name,
    (one: Workload) => one.workloadName === name,
    (one: Workload) => one.labels['app'] === name,
  ]) {
    const found = all.filter(fits)
    const namespaces = new Set(found.map((one) => one.namespace))
    if (namespaces.size > 1) {
      const preferred = found.find((one) => one.namespace === (near ?? 'default'))
      if (preferred) return preferred
      throw new AmbitError(
        'CLI_SOURCE_AMBIGUOUS',
        `'${text}' is in several namespaces: ${[...namespaces].join(', ')}.`,
        {
          hint: `Write namespace/${name}.`,
        },
      )
    }
    // Replicas are alike; a ready one is the better example.
    const chosen = found.find((one) => one.healthy) ?? found[0]
    if (chosen) return chosen
  }
  return undefined
}

/**
 * Finds the destination: `name[:port]`, `namespace/name[:port]`, a host name of any length, `address:port`, all also as a
 * URL. Throws CLI_DESTINATION_UNKNOWN or CLI_PORT_REQUIRED.
 */
export function findTarget(state: MeshState, text: string, source: Workload | Stranger): Target {
  const bare = text.replace(/^https?:\/\//, '').replace(/\/$/, '')
  const direct = splitHostPort(bare)
  const address = canonicalIp(direct?.host ?? bare)
  if (address !== undefined) {
    const service = state.servicesByAddress(address)[0]
    const workload = service ? undefined : state.workloadByAddress(address)
    const port = direct?.port ?? defaultPort(service, workload, text)
    return { address, port, authority: direct ? bare : `${bare}:${port}`, service, workload }
  }
  const colon = bare.lastIndexOf(':')
  const given = colon < 0 ? -1 : parsePort(bare.slice(colon + 1))
  const name = colon < 0 ? bare : bare.slice(0, colon)
  const near = isWorkload(source) ? source.namespace : 'default'
  const service = findService(state, name, near)
  if (service) {
    const [first] = service.addresses
    const port = given >= 0 ? given : defaultPort(service, undefined, text)
    const host = name.slice(name.indexOf('/') + 1)
    if (first !== undefined) {
      return { address: first, port, authority: port === 80 ? host : `${host}:${port}`, service, workload: undefined }
    }
    // Headless: its name leads to a pod's own address.
    const workload = state.endpoints(`${service.namespace}/${service.hostname}`)[0]
    const pod = workload?.addresses[0]
    if (workload && pod !== undefined) {
      const target = workload.services[`${service.namespace}/${service.hostname}`]?.[port] ?? port
      return { address: pod, port: target, authority: `${host}:${port}`, service: undefined, workload }
    }
    throw new AmbitError(
      'CLI_DESTINATION_UNKNOWN',
      `Service ${service.namespace}/${service.name} has neither an address nor an endpoint.`,
    )
  }
  const workload = findWorkload(state, name, near)
  const pod = workload?.addresses[0]
  if (workload && pod !== undefined) {
    const port = given >= 0 ? given : defaultPort(undefined, workload, text)
    return { address: pod, port, authority: `${pod}:${port}`, service: undefined, workload }
  }
  const services = [...state.services()].map((one) => `${one.namespace}/${one.name}`)
  throw new AmbitError('CLI_DESTINATION_UNKNOWN', `There is no service or pod '${name}'.`, {
    hint: `Services: ${some(services)}. An address outside the mesh is written as address:port.`,
  })
}

function findService(state: MeshState, name: string, near: string): Service | undefined {
  const all = [...state.services()]
  const slash = name.indexOf('/')
  if (slash >= 0) return all.find((one) => one.namespace === name.slice(0, slash) && one.name === name.slice(slash + 1))
  const parts = name.split('.')
  if (parts.length > 1) {
    const [short, namespace] = parts
    return (
      all.find((one) => one.hostname === name) ??
      all.find((one) => one.name === short && one.namespace === namespace && one.hostname.startsWith(name))
    )
  }
  const found = all.filter((one) => one.name === name)
  return found.find((one) => one.namespace === near) ?? (found.length === 1 ? found[0] : undefined)
}

function defaultPort(service: Service | undefined, workload: Workload | undefined, text: string): number {
  const ports = service
    ? service.ports.map((one) => one.port)
    : workload
      ? Object.values(workload.services).flatMap((map) => Object.values(map))
      : []
  const distinct = [...new Set(ports)]
  if (distinct.length === 1) return distinct[0] as number
  if (service && distinct.includes(80)) return 80
  throw new AmbitError('CLI_PORT_REQUIRED', `Which port of '${text}'?`, {
    hint: distinct.length > 0 ? `It has ${distinct.join(', ')}: write ${text}:${distinct[0]}.` : `Write ${text}:PORT.`,
  })
}

/** Parses `-H` values: `name: value`. Throws CLI_HEADER_INVALID. */
export function parseHeaders(lines: readonly string[]): { headers: string[]; host: string | undefined } {
  const headers: string[] = []
  let host: string | undefined
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(0, colon)).trim().toLowerCase()
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) {
      throw new AmbitError('CLI_HEADER_INVALID', `'${line}' is no header.`, { hint: "Write -H 'name: value'." })
    }
    const value = line.slice(colon + 1).trim()
    if (name === 'host') host = value
    else headers.push(name, value)
  }
  return { headers, host }
}

function some(names: readonly string[]): string {
  const distinct = [...new Set(names)].sort()
  return distinct.length === 0 ? 'none' : distinct.slice(0, 12).join(', ') + (distinct.length > 12 ? ', …' : '')
}
