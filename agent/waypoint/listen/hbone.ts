// The waypoint's front door: HBONE in. A CONNECT is taken only if it names something this waypoint serves; the original
// client is the TCP peer of the tunnel, which its agent opened from inside the client's namespace.
// Must not live here: what flows in the tunnel (inner.ts), policy, routes.
import type { Logger } from '../../base/log.ts'
import { canonicalIp, splitHostPort } from '../../base/ip.ts'
import { acceptTunnel, http2Server, refuseTunnel, tunnelServer, type Http2Server } from '../../http/http2/index.ts'
import { parseForwarded } from '../../http/hbone/headers.ts'
import { header, type RequestHead, type ServerExchange } from '../../http/message.ts'
import type { Connection, Endpoint } from '../../io/connection.ts'
import type { Identity } from '../../mesh/identity.ts'
import { waypointTarget } from '../../mesh/inbound.ts'
import { serviceKey } from '../../mesh/service.ts'
import type { MeshState } from '../../mesh/state.ts'
import { peerIdentity } from '../../pki/peer-identity.ts'
import { Downstream } from '../downstream.ts'
import type { InnerServer } from './inner.ts'

export interface HboneOptions {
  readonly state: MeshState
  /** `namespace/hostname` of this waypoint's Service, which follows the settings' cluster domain. */
  waypoint(): string
  readonly inner: InnerServer
  readonly log: Logger
  /** A CONNECT was refused with this status. */
  onRefused(status: number, reason: string, client: Endpoint): void
}

/** Handler for the TLS listener on 15008. */
export function hboneServer(options: HboneOptions): Http2Server {
  const { state, inner, log } = options
  const identities = new WeakMap<Connection, Identity>()

  const identityFor = (connection: Connection): Identity => {
    let identity = identities.get(connection)
    if (!identity) identities.set(connection, (identity = peerIdentity(connection.info.certificates)))
    return identity
  }

  const refuse = (exchange: ServerExchange, status: number, reason: string): void => {
    const client = exchange.connection.info.peer
    log.warn({ client: client.address, status, reason }, 'tunnel refused')
    options.onRefused(status, reason, client)
    refuseTunnel(exchange, status)
  }

  const onTunnel = (exchange: ServerExchange, head: RequestHead): void => {
    if (head.method !== 'CONNECT' || head.protocol !== '') {
      return refuse(exchange, 400, `${head.method.slice(0, 32)} is not CONNECT: this port speaks HBONE only`)
    }
    const target = splitHostPort(head.authority)
    const address = target && canonicalIp(target.host)
    if (!target || address === undefined)
      return refuse(exchange, 400, `'${head.authority.slice(0, 128)}' is not IP:PORT`)
    const served = waypointTarget(state, options.waypoint(), address, target.port)
    if (served.kind === 'refuse') return refuse(exchange, 404, served.reason)
    let identity: Identity
    try {
      identity = identityFor(exchange.connection)
    } catch {
      return refuse(exchange, 401, 'the peer has no usable identity')
    }
    const { peer } = exchange.connection.info
    // `forwarded` is forgeable by any peer with a certificate: it may name the port of the TCP peer's own client, nothing else.
    const said = parseForwarded(header(head.headers, 'forwarded')).client
    const client = said && said.address === peer.address ? said : peer
    const downstream = new Downstream(
      {
        client,
        identity,
        address,
        port: target.port,
        ...(served.kind === 'service' ? { service: serviceKey(served.service) } : { workload: served.workload }),
      },
      state,
    )
    acceptTunnel(
      exchange,
      [],
      inner.handler,
      // The bytes inside are the client's own: whether they are TLS is for the client to say, not for the tunnel.
      { peer: client, local: { address, port: target.port }, secure: false },
      inner.slot(downstream, { outer: exchange.connection }),
    )
  }
  return http2Server(
    tunnelServer(onTunnel),
    { maxStreams: 200, keepaliveMs: 10_000, keepaliveTimeoutMs: 20_000 },
    { onLeaving: (session) => inner.leave(session.connection) },
  )
}
