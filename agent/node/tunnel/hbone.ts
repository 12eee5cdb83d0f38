// HBONE into a pod (reference: ambient, inbound algorithm): each CONNECT is checked, judged, and joined with the app; every
// refusal has the status Istio gives it. Must not live here: the verdict (inbound.ts), HTTP/2.
import { AmbitError, messageOf } from '../../base/errors.ts'
import { canonicalIp, splitHostPort } from '../../base/ip.ts'
import { parseForwarded } from '../../http/hbone/headers.ts'
import {
  acceptTunnel,
  Http2ConnectionError,
  http2Server,
  onUndecidedClose,
  refuseTunnel,
  sessionOf,
  tunnelServer,
  type Http2Server,
} from '../../http/http2/index.ts'
import { header, type RequestHead, type ServerExchange } from '../../http/message.ts'
import type { Connection, Endpoint, OpenInfo } from '../../io/connection.ts'
import type { Identity } from '../../mesh/identity.ts'
import { peerIdentity } from '../../pki/peer-identity.ts'
import { refusalOf } from '../observe/refusals.ts'
import { baggageOf } from './baggage.ts'
import type { TunnelContext } from './contract.ts'
import { InboundConnectionBase, type InboundAsk } from './inbound.ts'
import type { LocalPod } from './local-pod.ts'
import { CanaryLanded } from './tls.ts'

/** As HBONE has it: PING after 10 s of silence, 20 s for an answer. */
export const KEEPALIVE = { keepaliveMs: 10_000, keepaliveTimeoutMs: 20_000 } as const

/** The HTTP/2 server of a pod's tunnel listener. */
export function hboneServer(context: TunnelContext, pod: LocalPod): Http2Server {
  return http2Server(
    tunnelServer((exchange, head) => serve(context, pod, exchange, head)),
    { clock: context.clock, ...KEEPALIVE },
    {
      onSession(session) {
        // The handshake has checked it; read once per connection.
        session.slot = peerIdentity(session.connection.info.certificates)
      },
      onRejected(session, why) {
        pod.refused('inbound', 'bad_request', session.connection.info.peer.address, why)
      },
      onSessionClose(session, error) {
        // Without a code it is a peer that no longer answers, which nobody refused.
        if (error instanceof Http2ConnectionError && error.http2Code !== 0)
          pod.refused('inbound', 'protocol', session.connection.info.peer.address, error.message)
      },
      onRefused(_connection, error) {
        if (error?.cause instanceof CanaryLanded) return
        const late = error instanceof AmbitError && error.code === 'IO_HANDSHAKE_TIMEOUT'
        const reason = refusalOf(error) ?? (late ? 'handshake_timeout' : 'handshake')
        pod.refused('inbound', reason, '', messageOf(error))
      },
    },
  )
}

function serve(context: TunnelContext, pod: LocalPod, exchange: ServerExchange, head: RequestHead): void {
  const { info } = exchange.connection
  const target = targetOf(head, info.local)
  if (typeof target === 'string' || pod.stopped) {
    if (typeof target === 'string') {
      const why = `${target}: ${head.method} ${head.authority.slice(0, 100)}`
      pod.refused('inbound', 'bad_request', info.peer.address, why)
    } else pod.refused('inbound', 'pod_leaving', info.peer.address, 'the pod leaves')
    refuseTunnel(exchange, typeof target === 'string' ? 400 : 503)
    return
  }
  const forwarded = parseForwarded(header(head.headers, 'forwarded'))
  const carried = new HboneConnection(
    context,
    pod,
    {
      peer: info.peer,
      identity: sessionOf(exchange).slot as Identity,
      target,
      forwarded: forwarded.client,
      local: info.local,
      authority: head.authority,
      host: forwarded.host,
    },
    exchange,
  )
  carried.begin()
}

/** Where a CONNECT leads, or why it is a bad request: it must name the address it was sent to. */
function targetOf(head: RequestHead, local: Endpoint): Endpoint | string {
  if (head.method !== 'CONNECT' || head.protocol !== '') return 'only CONNECT is served here'
  const split = splitHostPort(head.authority)
  const address = split && canonicalIp(split.host)
  if (!split || address === undefined || split.port < 1) return ':authority is not an address with a port'
  if (address !== local.address) return ':authority names another address'
  return { address, port: split.port }
}

class HboneConnection extends InboundConnectionBase {
  readonly #exchange: ServerExchange
  #app: Connection | undefined
  #accepted = false
  #gone = false

  constructor(context: TunnelContext, pod: LocalPod, ask: InboundAsk, exchange: ServerExchange) {
    super(context, pod, ask)
    this.#exchange = exchange
    onUndecidedClose(exchange, () => {
      this.#gone = true
      this.failed('CONNECT', 'the client gave the tunnel up')
      this.#app?.abort('cancel')
    })
  }

  /** The app has taken the connection: the tunnel is answered, and joined with it. */
  override onOpen(app: Connection, info: OpenInfo): void {
    if (this.#gone) {
      app.abort('cancel')
      return
    }
    super.onOpen(app, info)
    const { workload } = this.pod
    const headers = workload ? ['baggage', baggageOf(workload)] : []
    this.#accepted = true
    const { ask } = this
    // Opens the relay's first side, and with it both directions.
    acceptTunnel(this.#exchange, headers, this.relay.first, { local: ask.target, peer: this.facts().source })
  }

  override onClose(app: Connection, error: Error | undefined): void {
    super.onClose(app, error)
    if (!this.#accepted && !this.#gone) {
      this.#gone = true
      refuseTunnel(this.#exchange, 503)
    }
  }

  protected denied(): void {
    this.#refuse(401)
  }

  protected unavailable(): void {
    this.#refuse(503)
  }

  #refuse(status: number): void {
    if (this.#gone) return
    this.#gone = true
    refuseTunnel(this.#exchange, status)
  }

  protected connecting(app: Connection): void {
    this.#app = app
    if (this.#gone) app.abort('cancel')
  }
}
