// What both ways into a pod share, tunnelled and plain: the verdict, now and again whenever the state changes, and the
// connection to the app, to which the original client is shown. Must not live here: HTTP/2, TLS, the rules (mesh/).
import type { Connection, Endpoint } from '../../io/connection.ts'
import { authorizeInbound, type InboundConnection, type InboundVerdict } from '../../mesh/inbound.ts'
import type { Identity } from '../../mesh/identity.ts'
import type { Service } from '../../mesh/service.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import type { FlowFacts } from '../observe/flow.ts'
import { Carried } from './carried.ts'
import type { TunnelContext } from './contract.ts'
import type { LocalPod } from './local-pod.ts'

export interface InboundAsk {
  /** The TCP peer. */
  readonly peer: Endpoint
  readonly identity: Identity | undefined
  /** The pod's address and the app's port. */
  readonly target: Endpoint
  /** The client in `forwarded`, if there was one. */
  readonly forwarded: Endpoint | undefined
  /** Where the peer connected. */
  readonly local: Endpoint
  /** `:authority`, '' for plaintext. */
  readonly authority: string
  /** Host name of the service the client meant, by `forwarded`: for metrics only. */
  readonly host: string
}

export abstract class InboundConnectionBase extends Carried {
  readonly ask: InboundAsk
  #workload: Workload | undefined
  #client: Endpoint
  readonly #judged: InboundConnection

  constructor(context: TunnelContext, pod: LocalPod, ask: InboundAsk) {
    super(context, pod)
    this.ask = ask
    this.#client = ask.peer
    this.#judged = {
      peerAddress: ask.peer.address,
      identity: ask.identity,
      address: ask.target.address,
      port: ask.target.port,
      forwardedFor: ask.forwarded?.address,
    }
  }

  /** Judges once the workload is known. */
  begin(): void {
    const { context, pod } = this
    if (pod.workload) this.#go(pod.workload)
    else {
      void context
        .until(() => pod.workload !== undefined)
        .then(() => {
          if (pod.workload && !pod.stopped) this.#go(pod.workload)
          else {
            this.failed('IDENTITY_ERROR', `nothing is known of pod ${pod.name} yet`, 'no_workload')
            this.unavailable()
          }
        })
    }
  }

  #go(workload: Workload): void {
    this.#workload = workload
    const verdict = this.verdict()
    if (!verdict?.allowed) {
      this.failed('DENY', denial(verdict), verdict?.reason ?? 'no_state', verdict?.details)
      this.denied()
      return
    }
    this.#client = this.#clientOf(verdict)
    const { context, pod, ask } = this
    const { address, port } = ask.target
    try {
      const six = address.includes(':')
      // The kernel can only show the app a client of the socket's own family.
      const shown = this.#client.address.includes(':') === six ? this.#client : ask.peer
      const fd = context.redirect.socket(pod.uid, { family: six ? 6 : 4, client: shown })
      const app = context.transport.connect({ handler: this, fd, host: address, port, timeoutMs: context.connectMs })
      this.relay.expect(app)
      this.connecting(app)
    } catch (error) {
      this.failed('CONNECT', error instanceof Error ? error.message : String(error))
      this.unavailable()
    }
  }

  /** The verdict by the state as it is now; undefined without a state or workload, which denies. */
  verdict(): InboundVerdict | undefined {
    const view = this.context.view()
    const { workload } = this.pod
    return view && workload ? authorizeInbound(view, workload, this.#judged) : undefined
  }

  /** Judges an open connection again; cuts it if it is denied now. */
  rejudge(): void {
    const verdict = this.verdict()
    if (!verdict?.allowed)
      this.revoke(verdict?.reason ?? 'no_state', `connection closed due to policy change: ${denial(verdict)}`)
  }

  #clientOf(verdict: InboundVerdict): Endpoint {
    const { peer, forwarded } = this.ask
    // From others than the waypoint only the port is taken, and only for their own address: it tells the app which of the
    // client's connections this is, and lies about nobody else.
    if (forwarded && (verdict.forwarded || forwarded.address === peer.address)) return forwarded
    return peer
  }

  /** Denied by policy. */
  protected abstract denied(): void
  /** The app cannot be reached. */
  protected abstract unavailable(): void
  /** The app's side is under way. */
  protected abstract connecting(app: Connection): void

  facts(): FlowFacts {
    const { ask, context } = this
    const view = context.view()
    const workload = this.#workload
    const service = serviceOf(workload, ask, (key) => view?.service(key))
    return {
      direction: 'inbound',
      edge: {
        reporter: 'destination',
        source: view?.workloadByAddress(this.#client.address),
        sourceIdentity: ask.identity,
        destination: workload,
        destinationIdentity: ask.identity && workload ? identityOf(workload) : undefined,
        service,
        security: ask.identity ? 'mutual_tls' : 'unknown',
      },
      source: this.#client,
      destination: ask.local,
      authority: ask.authority,
    }
  }
}

/** The service meant, by the host of `forwarded`, else the only one that leads to this port. */
function serviceOf(
  workload: Workload | undefined,
  ask: InboundAsk,
  service: (key: string) => Service | undefined,
): Service | undefined {
  if (!workload) return undefined
  let only: string | undefined
  for (const [key, ports] of Object.entries(workload.services)) {
    if (ask.host !== '' && key.endsWith(`/${ask.host}`)) return service(key)
    if (!Object.values(ports).includes(ask.target.port)) continue
    if (only !== undefined) return undefined
    only = key
  }
  return only === undefined ? undefined : service(only)
}

function denial(verdict: InboundVerdict | undefined): string {
  if (!verdict) return 'this agent has no state yet'
  switch (verdict.reason) {
    case 'waypoint_required':
      return `the workload takes traffic from its waypoint only (${verdict.details})`
    case 'not_allowed':
      return 'ALLOW policies exist, but none allows it'
    case 'deny_matched':
    case 'custom_unsupported':
      return `denied by policy ${verdict.policy?.namespace ?? ''}/${verdict.policy?.name ?? ''}`
    default:
      return `denied: ${verdict.reason} ${verdict.details}`.trimEnd()
  }
}
