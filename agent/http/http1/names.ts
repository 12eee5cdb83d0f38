// The field names that HTTP/1.x knows: one string and one small number for each, found from bytes without making text, and what
// the codec must know of each. A name that is not here is just a name. Must not live here: what fields say (fields.ts).
import { TOKEN } from './bytes.ts'

/** Ids of the fields whose value the codec reads. */
export const CONTENT_LENGTH = 1
export const TRANSFER_ENCODING = 2
export const CONNECTION = 3
export const UPGRADE = 4
export const HOST = 5
export const TE = 6
export const EXPECT = 7
export const KEEP_ALIVE = 8
export const PROXY_CONNECTION = 9
export const HTTP2_SETTINGS = 10

/** About one connection only: never passed on (RFC 9110 §7.6.1). `te: trailers` is written by its own rule. */
export const HOP = 1
/** Not allowed in trailers, neither taken nor sent: framing, routing, authentication, content (RFC 9110 §6.5.1). */
export const NOT_IN_TRAILERS = 2
/** Never removed because a Connection field names it: policy and framing rest on it (abuse of hop-by-hop). */
export const PROTECTED = 4
/** Its value is written by the codec itself, or under a rule of its own. */
export const FRAMING = 8

const KNOWN: readonly (readonly [name: string, flags: number])[] = [
  ['', 0],
  ['content-length', NOT_IN_TRAILERS | PROTECTED | FRAMING],
  ['transfer-encoding', HOP | NOT_IN_TRAILERS | FRAMING],
  ['connection', HOP | NOT_IN_TRAILERS | FRAMING],
  ['upgrade', HOP | NOT_IN_TRAILERS | FRAMING],
  ['host', NOT_IN_TRAILERS | PROTECTED | FRAMING],
  ['te', HOP | NOT_IN_TRAILERS | FRAMING],
  ['expect', NOT_IN_TRAILERS | PROTECTED],
  ['keep-alive', HOP | NOT_IN_TRAILERS | FRAMING],
  ['proxy-connection', HOP | NOT_IN_TRAILERS | FRAMING],
  ['http2-settings', HOP | NOT_IN_TRAILERS | FRAMING],
  ...flagged(PROTECTED, 'forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-client-cert'),
  ...flagged(PROTECTED, 'x-forwarded-port x-request-id traceparent tracestate via origin'),
  ...flagged(PROTECTED | NOT_IN_TRAILERS, 'authorization cookie content-type'),
  ...flagged(NOT_IN_TRAILERS, 'trailer proxy-authorization proxy-authenticate www-authenticate set-cookie'),
  ...flagged(NOT_IN_TRAILERS, 'content-encoding content-range range max-forwards cache-control pragma age date'),
  ...flagged(NOT_IN_TRAILERS, 'expires location retry-after vary warning if-match if-none-match if-range'),
  ...flagged(NOT_IN_TRAILERS, 'if-modified-since if-unmodified-since'),
  ...flagged(0, 'accept accept-charset accept-encoding accept-language accept-ranges user-agent server referer'),
  ...flagged(0, 'content-language content-location content-disposition content-security-policy etag last-modified'),
  ...flagged(0, 'link allow alt-svc dnt priority strict-transport-security upgrade-insecure-requests'),
  ...flagged(0, 'access-control-allow-origin access-control-allow-credentials access-control-allow-headers'),
  ...flagged(0, 'access-control-allow-methods access-control-expose-headers access-control-max-age'),
  ...flagged(0, 'access-control-request-headers access-control-request-method timing-allow-origin server-timing'),
  ...flagged(0, 'sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site'),
  ...flagged(0, 'sec-fetch-user sec-websocket-accept sec-websocket-extensions sec-websocket-key'),
  ...flagged(0, 'sec-websocket-protocol sec-websocket-version x-content-type-options x-frame-options'),
  ...flagged(0, 'x-xss-protection x-powered-by x-real-ip x-requested-with x-csrf-token x-api-key'),
  ...flagged(0, 'x-b3-traceid x-b3-spanid x-b3-parentspanid x-b3-sampled x-b3-flags b3 baggage x-ot-span-context'),
  ...flagged(0, 'x-envoy-upstream-service-time x-envoy-attempt-count x-envoy-decorator-operation'),
  ...flagged(0, 'x-envoy-external-address x-envoy-original-path x-envoy-peer-metadata x-envoy-peer-metadata-id'),
  ...flagged(0, 'grpc-status grpc-message grpc-timeout grpc-encoding grpc-accept-encoding grpc-status-details-bin'),
]

function flagged(flags: number, names: string): [string, number][] {
  return names.split(' ').map((name) => [name, flags])
}

/** Name by id; '' for 0, which is no name. */
export const NAMES: readonly string[] = KNOWN.map(([name]) => name)
/** Flags by id. */
export const FLAGS: Uint8Array = Uint8Array.from(KNOWN, ([, flags]) => flags)

const byName: ReadonlyMap<string, number> = new Map(KNOWN.slice(1))

/** Flags of a lower-case name, or undefined for one that is not known here. */
export function flagsOf(name: string): number | undefined {
  return byName.get(name)
}

// Open addressing, at most an eighth full. Names that collide on purpose cost the table's longest run, which is short and fixed.
const SIZE = 1024
const table = new Uint8Array(SIZE)
const hashes = new Int32Array(NAMES.length)
const lengths = new Uint8Array(NAMES.length)

/** Adds one lower-case character to the hash of a name; begins with 0. */
export function addToHash(hash: number, character: number): number {
  return (Math.imul(hash, 31) + character) | 0
}

for (let id = 1; id < NAMES.length; id++) {
  const name = NAMES[id] as string
  let hash = 0
  for (let i = 0; i < name.length; i++) hash = addToHash(hash, name.charCodeAt(i))
  hashes[id] = hash
  lengths[id] = name.length
  let slot = (hash ^ (hash >>> 10)) & (SIZE - 1)
  while (table[slot] !== 0) slot = (slot + 1) & (SIZE - 1)
  table[slot] = id
}

/** Id of the name in bytes[start, end), whatever its case, or 0. `hash` is that of its lower-case characters. */
export function nameId(bytes: Uint8Array, start: number, end: number, hash: number): number {
  let slot = (hash ^ (hash >>> 10)) & (SIZE - 1)
  for (;;) {
    const id = table[slot] as number
    if (id === 0) return 0
    if (hashes[id] === hash && lengths[id] === end - start && same(bytes, start, NAMES[id] as string)) return id
    slot = (slot + 1) & (SIZE - 1)
  }
}

function same(bytes: Uint8Array, start: number, name: string): boolean {
  for (let i = 0; i < name.length; i++) if (TOKEN[bytes[start + i] as number] !== name.charCodeAt(i)) return false
  return true
}
