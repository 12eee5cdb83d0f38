// The headers of an HBONE CONNECT and of its answer (reference: ambient, request headers): `forwarded` (RFC 7239), `baggage`
// and `traceparent` (W3C). Parsing is strict and bounded: they come from peers. Must not live here: whether they are believed.
import { randomFillSync } from 'node:crypto'
import { canonicalIp, joinHostPort, parsePort } from '../../base/ip.ts'
import type { Endpoint } from '../../io/connection.ts'
import { header, type Headers } from '../message.ts'

/** What a peer says of a workload, for telemetry only, never for a verdict. */
export interface Baggage {
  readonly cluster: string
  readonly namespace: string
  readonly workloadType: string
  readonly workloadName: string
  readonly service: string
  readonly version: string
  readonly region: string
  readonly zone: string
}

/** Longest baggage header that is read, bytes (W3C Baggage §3.3.2 asks for 8192). */
const MAX_BAGGAGE = 8_192

/** `for="ip:port"` with the service that was meant, where it is known. */
export function forwardedValue(client: Endpoint, host = ''): string {
  const forValue = `for="${joinHostPort(client.address, client.port)}"`
  return host ? `${forValue};host=${/^[A-Za-z0-9.-]+$/.test(host) ? host : `"${host}"`}` : forValue
}

export interface Forwarded {
  readonly client: Endpoint | undefined
  readonly host: string
}

/** The first element of a Forwarded field (RFC 7239 §4): `for` must be an IP with a port to count. */
export function parseForwarded(value: string | undefined): Forwarded {
  let client: Endpoint | undefined
  let host = ''
  const first = value === undefined ? '' : (value.split(',', 1)[0] as string)
  for (const pair of first.slice(0, 1_024).split(';')) {
    const equals = pair.indexOf('=')
    if (equals < 0) continue
    const name = pair.slice(0, equals).trim().toLowerCase()
    const raw = pair.slice(equals + 1).trim()
    const text = raw.startsWith('"') && raw.endsWith('"') && raw.length > 1 ? raw.slice(1, -1) : raw
    if (name === 'host') host = text
    else if (name === 'for') client = parseNode(text)
  }
  return { client, host }
}

function parseNode(text: string): Endpoint | undefined {
  const colon = text.lastIndexOf(':')
  if (colon <= 0) return undefined
  const port = parsePort(text.slice(colon + 1))
  const host = text.slice(0, colon)
  const bracketed = host.startsWith('[') && host.endsWith(']')
  // An IPv6 address must stand in brackets, else its last group could pass for a port.
  if (!bracketed && host.includes(':')) return undefined
  const address = canonicalIp(bracketed ? host.slice(1, -1) : host)
  return address === undefined || port === undefined ? undefined : { address, port }
}

const BAGGAGE_KEYS = ['deployment', 'cronjob', 'pod', 'job'] as const

/** The baggage of a workload; empty parts are left out. */
export function baggageValue(baggage: Baggage): string {
  const kind = baggage.workloadType.toLowerCase()
  const type = (BAGGAGE_KEYS as readonly string[]).includes(kind) ? kind : 'pod'
  const pairs: readonly [string, string][] = [
    ['k8s.cluster.name', baggage.cluster],
    ['k8s.namespace.name', baggage.namespace],
    [`k8s.${type}.name`, baggage.workloadName],
    ['service.name', baggage.service],
    ['service.version', baggage.version],
    ['cloud.region', baggage.region],
    ['cloud.availability_zone', baggage.zone],
  ]
  return pairs
    .filter(([, value]) => value !== '')
    .map(([key, value]) => `${key}=${encodeURIComponent(value)}`)
    .join(',')
}

/** Reads baggage; undefined if there is none or it is too long. Unknown keys are ignored. */
export function parseBaggage(value: string | undefined): Baggage | undefined {
  if (value === undefined || value.length > MAX_BAGGAGE) return undefined
  const found = new Map<string, string>()
  for (const member of value.split(',')) {
    const pair = member.split(';', 1)[0] as string
    const equals = pair.indexOf('=')
    if (equals < 0) continue
    found.set(pair.slice(0, equals).trim(), decode(pair.slice(equals + 1).trim()))
  }
  const type = BAGGAGE_KEYS.find((key) => found.has(`k8s.${key}.name`))
  return {
    cluster: found.get('k8s.cluster.name') ?? '',
    namespace: found.get('k8s.namespace.name') ?? '',
    workloadType: type ?? '',
    workloadName: type ? (found.get(`k8s.${type}.name`) ?? '') : '',
    service: found.get('service.name') ?? '',
    version: found.get('service.version') ?? '',
    region: found.get('cloud.region') ?? '',
    zone: found.get('cloud.availability_zone') ?? '',
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Bytes of a trace id and a span id. */
const IDS = 24
/** Random bytes are asked for in advance, for 128 headers at a time: a call into OpenSSL costs more than all else here. */
const random = Buffer.alloc(IDS * 128)
let taken = random.length

/** A fresh `traceparent`: version 00, random ids, not sampled. */
export function newTraceparent(): string {
  if (taken === random.length) {
    randomFillSync(random)
    taken = 0
  }
  const trace = random.toString('hex', taken, taken + 16)
  const span = random.toString('hex', taken + 16, taken + IDS)
  taken += IDS
  return `00-${trace}-${span}-00`
}

const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

/** The peer's traceparent if it is well formed, else a fresh one. */
export function traceparentOf(headers: Headers): string {
  const value = header(headers, 'traceparent')
  return value !== undefined && TRACEPARENT.test(value) ? value : newTraceparent()
}
