// The access line of a request, with the fields of Istio's default format and Ambit's own, written piece by piece into the
// log's bytes: what does not change from one request to the next (of a connection, an endpoint, a usual outcome) is made once.
// Must not live here: when a line is written (observe.ts), buffering (telemetry/access-log.ts).
import { joinHostPort } from '../../base/ip.ts'
import type { Verdict } from '../../mesh/authorize.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import type { RouteMatched } from '../../mesh/match-route.ts'
import { identityOf } from '../../mesh/workload.ts'
import type { AccessLog } from '../../telemetry/access-log.ts'
import type { Run } from '../run.ts'

const encoder = new TextEncoder()
const bytes = (text: string): Uint8Array => encoder.encode(text)
/** Further members of an object. */
const members = (fields: Readonly<Record<string, unknown>>): Uint8Array =>
  bytes(`,${JSON.stringify(fields).slice(1, -1)}`)

const SERVICE_TIME = bytes(',"upstream_service_time":')
const RECEIVED = bytes(',"bytes_received":')
const SENT = bytes(',"bytes_sent":')
const REQUEST_ID = bytes(',"request_id":')
const PATH = bytes(',"path":')
const NULL = bytes('null')
const END = bytes('}')

/** `{"type":"access","start_time":"2026-01-02T03:04:05.678Z","duration":`: rewritten in place, whole once a second. */
const start = Buffer.from('{"type":"access","start_time":"2026-01-02T03:04:05.678Z","duration":', 'latin1')
const TIME_AT = 31
const MS_AT = TIME_AT + 20
let startSecond = -1

function startAt(ms: number): Uint8Array {
  const second = Math.floor(ms / 1000)
  if (second !== startSecond) {
    startSecond = second
    start.write(new Date(ms).toISOString(), TIME_AT, 'latin1')
  }
  const rest = Math.floor(ms - second * 1000)
  const hundreds = Math.floor(rest / 100)
  const tens = Math.floor((rest - hundreds * 100) / 10)
  start[MS_AT] = 0x30 + hundreds
  start[MS_AT + 1] = 0x30 + tens
  start[MS_AT + 2] = 0x30 + rest - hundreds * 100 - tens * 10
  return start
}

/** What a client's requests on one connection mostly have in common. */
export class ClientPart {
  readonly authority: string
  readonly userAgent: string | undefined
  readonly forwardedFor: string | undefined
  readonly bytes: Uint8Array

  constructor(run: Run) {
    const { source, identity, address, port, client } = run.downstream
    this.authority = run.head.authority
    this.userAgent = run.userAgent
    this.forwardedFor = run.forwardedFor
    this.bytes = members({
      authority: this.authority,
      user_agent: this.userAgent ?? null,
      x_forwarded_for: this.forwardedFor ?? null,
      downstream_local_address: joinHostPort(address, port),
      downstream_remote_address: joinHostPort(client.address, client.port),
      source_principal: identity ? formatIdentity(identity) : null,
      source_workload: source ? `${source.namespace}/${source.name}` : null,
    })
  }

  fits(run: Run): boolean {
    return (
      this.authority === run.head.authority &&
      this.userAgent === run.userAgent &&
      this.forwardedFor === run.forwardedFor
    )
  }
}

/** How it ended and where it went: few for each endpoint. */
export class OutcomePart {
  readonly method: string
  readonly protocol: string
  readonly status: number
  readonly flags: string
  readonly details: string
  readonly failure: string
  readonly attempts: number
  readonly grpcStatus: number
  readonly cluster: string
  readonly matched: RouteMatched | undefined
  readonly verdict: Verdict | undefined
  readonly bytes: Uint8Array

  constructor(run: Run) {
    const { endpoint, host, verdict } = run
    this.method = run.head.method
    this.protocol = protocolOf(run)
    this.status = run.status
    this.flags = run.flags
    this.details = run.details
    this.failure = run.transportFailure
    this.attempts = run.attempts
    this.grpcStatus = run.grpc ? run.grpcStatus : -1
    this.cluster = run.cluster
    this.matched = run.matched
    this.verdict = verdict
    this.bytes = members({
      method: this.method,
      protocol: this.protocol,
      response_code: this.status,
      response_flags: this.flags,
      response_code_details: this.details || null,
      connection_termination_details: null,
      upstream_transport_failure_reason: this.failure || null,
      upstream_host: host ? host.address : null,
      upstream_cluster: this.cluster || null,
      requested_server_name: null,
      route_name: this.matched?.name || null,
      ...(this.grpcStatus >= 0 && { grpc_status: this.grpcStatus }),
      attempts: this.attempts,
      destination_principal: endpoint ? formatIdentity(identityOf(endpoint)) : null,
      destination_workload: endpoint ? `${endpoint.namespace}/${endpoint.name}` : null,
      ...(verdict?.policy && {
        policy: `${verdict.policy.namespace}/${verdict.policy.name}`,
        policy_rule: verdict.rule,
      }),
    })
  }

  fits(run: Run): boolean {
    return (
      this.matched === run.matched &&
      this.verdict === run.verdict &&
      this.status === run.status &&
      this.attempts === run.attempts &&
      this.flags === run.flags &&
      this.details === run.details &&
      this.cluster === run.cluster &&
      this.failure === run.transportFailure &&
      this.grpcStatus === (run.grpc ? run.grpcStatus : -1) &&
      this.method === run.head.method &&
      this.protocol === protocolOf(run)
    )
  }
}

function protocolOf({ exchange }: Run): string {
  return exchange.version === 2 ? 'HTTP/2' : exchange.minor === 1 ? 'HTTP/1.1' : 'HTTP/1.0'
}

/** Outcomes kept for an endpoint. */
const MAX_OUTCOMES = 8

function outcomeOf(run: Run): OutcomePart {
  const outcomes = run.host?.outcomes
  // Answers from here name no endpoint and are rarer.
  if (!outcomes) return new OutcomePart(run)
  for (let i = 0; i < outcomes.length; i++) {
    const known = outcomes[i] as OutcomePart
    if (known.fits(run)) return known
  }
  const made = new OutcomePart(run)
  if (outcomes.length >= MAX_OUTCOMES) outcomes.shift()
  outcomes.push(made)
  return made
}

/** Writes the line of a finished request. */
export function writeAccessLine(log: AccessLog, run: Run, durationMs: number): void {
  if (!log.begin()) return
  const { downstream } = run
  let client = downstream.line
  if (!client?.fits(run)) downstream.line = client = new ClientPart(run)
  log.raw(startAt(run.startedTime))
  log.number(durationMs)
  log.raw(SERVICE_TIME)
  if (run.upstreamHeadAt > 0) log.number(Math.max(0, run.upstreamHeadAt - run.upstreamSentAt))
  else log.raw(NULL)
  log.raw(RECEIVED)
  log.number(run.requestBytes)
  log.raw(SENT)
  log.number(run.responseBytes)
  log.raw(REQUEST_ID)
  log.text(run.requestId)
  log.raw(PATH)
  log.text(run.originalPath)
  log.raw(client.bytes)
  log.raw(outcomeOf(run).bytes)
  log.raw(END)
  log.end()
}
