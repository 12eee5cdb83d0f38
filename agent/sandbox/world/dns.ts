// Cluster DNS, the wire half: reads a query, writes an answer (RFC 1035, RFC 3596 for AAAA, RFC 2782 for SRV). Pure.
// Must not live here: the names (records come from cluster/names.ts), sockets (dns-server.ts).
import { parseIp } from '../../base/ip.ts'

/** Names in lower case without the last dot. */
export interface Records {
  /** Name → addresses of both families. */
  readonly addresses: Readonly<Record<string, readonly string[]>>
  /** Name → another name (ExternalName). */
  readonly aliases: Readonly<Record<string, string>>
  /** `_port._proto.service…` → targets. */
  readonly services: Readonly<Record<string, readonly { readonly target: string; readonly port: number }[]>>
  /** Names at and below these are ours to deny; all else is refused. */
  readonly zone: string
}

export const emptyRecords: Records = { addresses: {}, aliases: {}, services: {}, zone: 'cluster.local' }

const TYPE = { A: 1, CNAME: 5, AAAA: 28, SRV: 33, ANY: 255 } as const
const CODE = { ok: 0, format: 1, noSuchName: 3, notImplemented: 4 } as const
/** Seconds; short, since endpoints of headless services change. CoreDNS uses 5 for the cluster too. */
const TTL = 5
/** What fits into a UDP answer without EDNS (RFC 1035 section 4.2.1). */
const MAX_UDP = 512

export interface Query {
  readonly id: number
  readonly recursionDesired: boolean
  readonly name: string
  readonly type: number
  /** The question as it came, to be repeated in the answer. */
  readonly question: Buffer
  /** What the client can take over UDP (EDNS, RFC 6891), else 512. */
  readonly udpSize: number
}

/** Parses a query with one question; undefined when it is no such thing (it gets no answer). */
export function parseQuery(message: Buffer): Query | undefined {
  if (message.length < 17) return undefined
  const flags = message.readUInt16BE(2)
  if ((flags & 0xf800) !== 0 || message.readUInt16BE(4) !== 1) return undefined
  const labels: string[] = []
  let at = 12
  let size = 0
  for (;;) {
    const length = message[at]
    if (length === undefined || length > 63) return undefined
    at++
    if (length === 0) break
    size += length + 1
    if (size > 254 || at + length > message.length) return undefined
    labels.push(message.toString('latin1', at, at + length))
    at += length
  }
  if (at + 4 > message.length) return undefined
  const type = message.readUInt16BE(at)
  const end = at + 4
  // An OPT record right behind the question: root name, type 41, class = size.
  const edns = message.readUInt16BE(10) > 0 && message[end] === 0 && end + 5 <= message.length
  const udpSize =
    edns && message.readUInt16BE(end + 1) === 41 ? Math.max(MAX_UDP, message.readUInt16BE(end + 3)) : MAX_UDP
  return {
    id: message.readUInt16BE(0),
    recursionDesired: (flags & 0x0100) !== 0,
    name: labels.join('.').toLowerCase(),
    type,
    question: message.subarray(12, end),
    udpSize: Math.min(udpSize, 4096),
  }
}

function encodeName(name: string): Buffer {
  const parts = name.split('.').filter(Boolean)
  return Buffer.concat([
    ...parts.map((part) =>
      Buffer.concat([Buffer.from([Math.min(63, part.length)]), Buffer.from(part.slice(0, 63), 'latin1')]),
    ),
    Buffer.from([0]),
  ])
}

function record(name: Buffer, type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(10)
  head.writeUInt16BE(type, 0)
  head.writeUInt16BE(1, 2)
  head.writeUInt32BE(TTL, 4)
  head.writeUInt16BE(data.length, 8)
  return Buffer.concat([name, head, data])
}

/** The question's own name, by pointer (RFC 1035 section 4.1.4). */
const SAME_NAME = Buffer.from([0xc0, 0x0c])

function addressRecords(name: Buffer, addresses: readonly string[], type: number): Buffer[] {
  const out: Buffer[] = []
  for (const address of addresses) {
    const bytes = parseIp(address)
    if (!bytes) continue
    const own = address.includes(':') ? TYPE.AAAA : TYPE.A
    if (type === own || type === TYPE.ANY) out.push(record(name, own, Buffer.from(bytes)))
  }
  return out
}

/** The answer to a query. `udp` cuts it to what the client takes and says so (TC), so that it asks again over TCP. */
export function answerQuery(query: Query, records: Records, udp: boolean): Buffer {
  const answers: Buffer[] = []
  let code: number = CODE.ok
  const addresses = records.addresses[query.name]
  const alias = records.aliases[query.name]
  const targets = records.services[query.name]
  if (addresses) answers.push(...addressRecords(SAME_NAME, addresses, query.type))
  else if (alias !== undefined) {
    answers.push(record(SAME_NAME, TYPE.CNAME, encodeName(alias)))
    answers.push(...addressRecords(encodeName(alias), records.addresses[alias] ?? [], query.type))
  } else if (targets) {
    if (query.type === TYPE.SRV || query.type === TYPE.ANY)
      for (const target of targets) {
        const data = Buffer.alloc(6)
        data.writeUInt16BE(Math.max(1, Math.floor(100 / targets.length)), 2)
        data.writeUInt16BE(target.port, 4)
        answers.push(record(SAME_NAME, TYPE.SRV, Buffer.concat([data, encodeName(target.target)])))
      }
  } else if (!hasNamesBelow(records, query.name)) code = CODE.noSuchName

  const build = (list: readonly Buffer[], truncated: boolean): Buffer => {
    const head = Buffer.alloc(12)
    head.writeUInt16BE(query.id, 0)
    // Response, authoritative, recursion available (so that resolvers believe the denial), as CoreDNS answers.
    head.writeUInt16BE(0x8480 | (query.recursionDesired ? 0x0100 : 0) | (truncated ? 0x0200 : 0) | code, 2)
    head.writeUInt16BE(1, 4)
    head.writeUInt16BE(list.length, 6)
    return Buffer.concat([head, query.question, ...list])
  }
  const whole = build(answers, false)
  return udp && whole.length > query.udpSize ? build([], true) : whole
}

/** A name with names below it exists, though it has no records (RFC 8020). */
function hasNamesBelow(records: Records, name: string): boolean {
  if (name === records.zone) return true
  const suffix = `.${name}`
  for (const table of [records.addresses, records.aliases, records.services])
    for (const key of Object.keys(table)) if (key.endsWith(suffix)) return true
  return false
}
