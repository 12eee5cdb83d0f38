// Connections this agent refused by its own decision, counted by reason: from a small vocabulary, so that an attacker cannot
// fill memory with series. What could not be carried though nothing forbade it is no refusal (flow.ts counts it as failed).
// Must not live here: verdicts, lines about carried connections (flow.ts).
import { AmbitError } from '../../base/errors.ts'
import type { InboundVerdict } from '../../mesh/inbound.ts'
import type { RefuseReason } from '../../mesh/resolve.ts'
import type { Metrics } from '../../telemetry/exposition.ts'
import type { CounterFamily, Series } from '../../telemetry/series.ts'

export type RefusalReason =
  | InboundVerdict['reason']
  | RefuseReason
  | 'no_state' // this agent never had a state
  | 'no_workload' // nothing is known of the pod
  | 'no_certificate' // none for the own side of the tunnel
  | 'not_captured' // someone dialled the listener for captured connections
  | 'pod_leaving'
  | 'bad_request' // not a CONNECT to an address of the pod
  | 'handshake' // no TLS, or a certificate that is not of this mesh
  | 'handshake_timeout'
  | 'protocol' // HTTP/2 that breaks its rules, or abuses them: the whole connection is cut
  | 'peer_identity' // the peer's certificate names no identity of the mesh
  | 'wrong_peer' // the server is not the workload meant

export type Direction = 'inbound' | 'outbound'

export class Refusals {
  readonly #family: CounterFamily
  readonly #series: Record<Direction, Map<RefusalReason, Series>> = { inbound: new Map(), outbound: new Map() }

  constructor(metrics: Metrics) {
    this.#family = metrics.counter({
      name: 'ambit_connections_refused_total',
      help: 'Connections refused by this agent, by reason.',
      labels: ['direction', 'reason'],
    })
  }

  count(direction: Direction, reason: RefusalReason): void {
    let series = this.#series[direction].get(reason)
    if (!series) this.#series[direction].set(reason, (series = this.#family.with([direction, reason])))
    series.value++
  }
}

/** The reason in an error of the tunnel's own side; undefined for one that is no refusal of ours. */
export function refusalOf(error: unknown): RefusalReason | undefined {
  switch (error instanceof AmbitError ? error.code : '') {
    case 'TUNNEL_WRONG_PEER':
      return 'wrong_peer'
    case 'TUNNEL_TRUST_DOMAIN':
      return 'trust_domain_mismatch'
    case 'PEER_IDENTITY_INVALID':
      return 'peer_identity'
    case 'TUNNEL_NO_WORKLOAD':
      return 'no_workload'
    case 'TUNNEL_NO_CERTIFICATE':
    case 'CERTIFICATE_UNAVAILABLE':
      return 'no_certificate'
    default:
      return undefined
  }
}
