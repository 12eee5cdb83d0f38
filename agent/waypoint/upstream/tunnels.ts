// From the waypoint to endpoints: HBONE tunnels with the waypoint's identity, or plain TCP to endpoints outside the mesh.
// The CONNECT names the client, so that the app sees it. Must not live here: pooling (http/hbone), HTTP on top (sessions.ts).
import type { Clock } from '../../base/clock.ts'
import { joinHostPort } from '../../base/ip.ts'
import { connectTunnel } from '../../http/hbone/connect.ts'
import { baggageValue, forwardedValue, newTraceparent } from '../../http/hbone/headers.ts'
import { TunnelPool } from '../../http/hbone/pool.ts'
import type { Connection, ConnectionHandler, Endpoint, Transport } from '../../io/connection.ts'
import { formatIdentity, type Identity } from '../../mesh/identity.ts'
import { addressLike } from '../../mesh/localize.ts'
import type { Candidate } from '../../mesh/pick-endpoint.ts'
import { HBONE_PORT } from '../../mesh/resolve.ts'
import type { MeshState } from '../../mesh/state.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import type { Certificates } from '../../pki/contract.ts'
import { clientTls } from '../tls.ts'

export interface TunnelsOptions {
  readonly transport: Transport
  readonly state: MeshState
  readonly certificates: Certificates
  readonly identity: Identity
  readonly clock: Clock
}

interface Target {
  readonly key: string
  readonly uid: string
  readonly address: string
  readonly identity: string
}

export class Tunnels {
  readonly pool: TunnelPool<Target>
  readonly #options: TunnelsOptions

  constructor(options: TunnelsOptions) {
    this.#options = options
    const { transport, certificates, identity, clock } = options
    this.pool = new TunnelPool<Target>({
      clock,
      // A peer that is gone without a word must not hold requests for the kernel's many minutes.
      http2: { keepaliveMs: 10_000, keepaliveTimeoutMs: 20_000 },
      open: (target, handler) =>
        transport.connect({
          host: target.address,
          port: HBONE_PORT,
          tls: clientTls(certificates, identity, [target.identity], target.key),
          handler,
        }),
    })
  }

  /**
   * A connection to an endpoint on behalf of a client; the outcome comes through the handler. `onDraining`: the endpoint's agent
   * is being replaced and will cut the connection some time; whoever has a quiet moment ends it before.
   */
  connect(
    candidate: Candidate,
    client: Endpoint,
    source: Workload | undefined,
    timeoutMs: number,
    handler: ConnectionHandler,
    slot?: unknown,
    onDraining?: () => void,
  ): Connection {
    const { workload, port } = candidate
    const { transport, clock } = this.#options
    if (workload.tunnelProtocol !== 'HBONE') {
      return transport.connect({ host: candidate.address, port, timeoutMs, handler, slot })
    }
    // Of the client's family, where the workload has one: an IPv4 socket cannot show the app an IPv6 client.
    const address = addressLike(workload, client.address) ?? candidate.address
    const id = formatIdentity(identityOf(workload))
    const target: Target = { key: `${workload.uid} ${address} ${id}`, uid: workload.uid, address, identity: id }
    const headers = ['forwarded', forwardedValue(client), 'traceparent', newTraceparent()]
    if (source) {
      headers.push(
        'baggage',
        baggageValue({
          cluster: source.clusterId,
          namespace: source.namespace,
          workloadType: source.workloadType,
          workloadName: source.workloadName,
          service: source.canonicalName,
          version: source.canonicalRevision,
          region: source.locality.region,
          zone: source.locality.zone,
        }),
      )
    }
    return connectTunnel(this.pool, target, {
      authority: joinHostPort(address, port),
      headers,
      handler,
      slot,
      onDraining,
      timeoutMs,
      clock,
    })
  }

  /** Sessions to workloads that are gone, or are another one now, must not be used again. */
  prune(): void {
    const { state } = this.#options
    this.pool.drop((target) => {
      const workload = state.workload(target.uid)
      return (
        !workload ||
        !workload.addresses.includes(target.address) ||
        formatIdentity(identityOf(workload)) !== target.identity
      )
    })
  }
}
