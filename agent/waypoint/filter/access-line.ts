// The access line of a request, with the fields of Istio's default format and Ambit's own, written piece by piece into the
// log's bytes: what does not change from one request to the next (of a connection, an endpoint, a usual outcome) is made once.
// Must not live here: when a line is written (observe.ts), buffering (telemetry/access-log.ts).
import { joinHostPort } from '../../base/ip.ts'
import type { Verdict } from '../../mesh/authorize.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import { identityOf } from '../../mesh/workload.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import type { Downstream } from '../downstream.ts'
import type { Run } from '../run.ts'
import type { Host } from '../upstream/host.ts'

const encoder = new TextEncoder()
const bytes = (text: string): Uint8Array => encoder.encode(text)
/** The members of an object without its braces. */
const members = (fields: Readonly<Record<string, unknown>>): Uint8Array => bytes(JSON.stringify(fields).slice(1, -1))

const START = bytes('{"type":"access","start_time":"')
const METHOD = bytes('"method":')
const PATH = bytes(',"path":')
const FAILURE = bytes(',"upstream_transport_failure_reason":')
const RECEIVED = bytes(',"bytes_received":')
const SENT = bytes(',"bytes_sent":')
const DURATION = bytes(',"duration":')
const SERVICE_TIME = bytes(',"upstream_service_time":')
const FORWARDED_FOR = bytes(',"x_forwarded_for":')
const USER_AGENT = bytes(',"user_agent":')
const REQUEST_ID = bytes(',"request_id":')
const AUTHORITY = bytes(',"authority":')
const CLUSTER = bytes(',"upstream_cluster":')
const ROUTE = bytes(',"requested_server_name":null,"route_name":')
const ATTEMPTS = bytes(',"attempts":')
const GRPC_STATUS = bytes(',"grpc_status":')
const COMMA = bytes(',')
const CLOSE = bytes('}')
const NULL = bytes('null')
const ONE = bytes('1')

/** Outcomes, by their text: Envoy's vocabulary times statuses. Bounded, as an upstream may make statuses up. */
const outcomes = new Map<string, Uint8Array>()
/** The usual ones, `via_upstream` without flags, by protocol and status. */
const usual: (Uint8Array | undefined)[] = []

function outcomeOf(run: Run): Uint8Array {
  const { exchange, status, flags, details } = run
  const place = exchange.version === 2 ? 2 : exchange.minor
  if (flags === '-' && details === 'via_upstream' && status < 600) {
    return (usual[status * 4 + place] ??= makeOutcome(place, status, flags, details))
  }
  const key = `${place} ${status} ${flags} ${details}`
  let made = outcomes.get(key)
  if (!made) {
    if (outcomes.size >= 1_024) outcomes.clear()
    outcomes.set(key, (made = makeOutcome(place, status, flags, details)))
  }
  return made
}

function makeOutcome(place: number, status: number, flags: string, details: string): Uint8Array {
  const text = members({
    protocol: place === 2 ? 'HTTP/2' : `HTTP/1.${place}`,
    response_code: status,
    response_flags: flags,
    response_code_details: details || null,
    connection_termination_details: null,
  })
  const out = new Uint8Array(text.length + 1)
  out[0] = 0x2c
  out.set(text, 1)
  return out
}

function downstreamPart(downstream: Downstream): Uint8Array {
  const { source, identity, address, port, client } = downstream
  return members({
    downstream_local_address: joinHostPort(address, port),
    downstream_remote_address: joinHostPort(client.address, client.port),
    source_principal: identity ? formatIdentity(identity) : null,
    source_workload: source ? `${source.namespace}/${source.name}` : null,
  })
}

const NO_HOST = members({ upstream_host: null, destination_principal: null, destination_workload: null })

function hostPart(host: Host): Uint8Array {
  const { workload, address, port } = host.candidate
  return members({
    upstream_host: joinHostPort(address, port),
    destination_principal: formatIdentity(identityOf(workload)),
    destination_workload: `${workload.namespace}/${workload.name}`,
  })
}

const policies = new WeakMap<Verdict, Uint8Array>()

function policyPart(verdict: Verdict): Uint8Array {
  let made = policies.get(verdict)
  if (!made) {
    const { policy, rule } = verdict
    made = bytes(
      `,${JSON.stringify({ policy: `${policy?.namespace}/${policy?.name}`, policy_rule: rule }).slice(1, -1)}`,
    )
    policies.set(verdict, made)
  }
  return made
}

/** `2026-01-02T03:04:05.678Z",`: rewritten in place, whole once a second. */
const time = Buffer.alloc(26)
let timeSecond = -1

function timePart(ms: number): Uint8Array {
  const second = Math.floor(ms / 1000)
  if (second !== timeSecond) {
    timeSecond = second
    time.write(`${new Date(ms).toISOString()}",`, 'latin1')
  }
  const rest = Math.floor(ms - second * 1000)
  const hundreds = Math.floor(rest / 100)
  const tens = Math.floor((rest - hundreds * 100) / 10)
  time[20] = 0x30 + hundreds
  time[21] = 0x30 + tens
  time[22] = 0x30 + rest - hundreds * 100 - tens * 10
  return time
}

function optional(log: AccessLog, text: string | undefined): void {
  if (text === undefined || text === '') log.raw(NULL)
  else log.text(text)
}

/** Writes the line of a finished request. */
export function writeAccessLine(log: AccessLog, run: Run, durationMs: number): void {
  if (!log.begin()) return
  const { downstream, head, host, verdict } = run
  log.raw(START)
  log.raw(timePart(run.startedTime))
  log.raw(METHOD)
  log.text(head.method)
  log.raw(PATH)
  log.text(run.originalPath)
  log.raw(outcomeOf(run))
  log.raw(FAILURE)
  optional(log, run.transportFailure)
  log.raw(RECEIVED)
  log.number(run.requestBytes)
  log.raw(SENT)
  log.number(run.responseBytes)
  log.raw(DURATION)
  log.number(durationMs)
  log.raw(SERVICE_TIME)
  if (run.upstreamHeadAt > 0) log.number(Math.max(0, run.upstreamHeadAt - run.upstreamSentAt))
  else log.raw(NULL)
  log.raw(FORWARDED_FOR)
  optional(log, run.forwardedFor)
  log.raw(USER_AGENT)
  optional(log, run.userAgent)
  log.raw(REQUEST_ID)
  optional(log, run.requestId)
  log.raw(AUTHORITY)
  log.text(head.authority)
  log.raw(COMMA)
  log.raw(host ? (host.line ??= hostPart(host)) : NO_HOST)
  log.raw(CLUSTER)
  optional(log, run.cluster)
  log.raw(COMMA)
  log.raw((downstream.line ??= downstreamPart(downstream)))
  log.raw(ROUTE)
  optional(log, run.matched?.name)
  log.raw(ATTEMPTS)
  if (run.attempts === 1) log.raw(ONE)
  else log.number(run.attempts)
  if (run.grpc && run.grpcStatus >= 0) {
    log.raw(GRPC_STATUS)
    log.number(run.grpcStatus)
  }
  if (verdict?.policy) log.raw(policyPart(verdict))
  log.raw(CLOSE)
  log.end()
}
