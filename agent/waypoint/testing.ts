// A small real mesh in one process, for tests of this room: a CA, clients, a waypoint and endpoints on loopback addresses of
// their own, with real TLS between them. Clients dial a local port that stands for "a service address, captured": the
// bytes go into an HBONE tunnel with the client's certificate, as an agent would send them. Apps are plain servers on
// Node's own http, http2 and net behind an HBONE listener. Must not live here: anything a program uses.
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { joinHostPort, splitHostPort } from '../base/ip.ts'
import { silentLog } from '../base/log.ts'
import { connectTunnel } from '../http/hbone/connect.ts'
import { TunnelPool } from '../http/hbone/pool.ts'
import { acceptTunnel, http2Server, tunnelServer } from '../http/http2/index.ts'
import { header } from '../http/message.ts'
import type { Connection, ConnectionHandler, Listener } from '../io/connection.ts'
import { transport } from '../io/index.ts'
import { Relay } from '../io/relay.ts'
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import type { Policy } from '../mesh/policy.ts'
import type { Route, RouteRule } from '../mesh/route.ts'
import type { AppProtocol, Service } from '../mesh/service.ts'
import { MeshState } from '../mesh/state.ts'
import type { Upstream } from '../mesh/upstream.ts'
import type { Workload } from '../mesh/workload.ts'
import { openAuthority, type Authority } from '../pki/authority.ts'
import type { Certificates } from '../pki/contract.ts'
import { CertificateManager } from '../pki/manager.ts'
import { peerIdentity } from '../pki/peer-identity.ts'
import { AccessLog } from '../telemetry/access-log.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { clientTls, serverTls } from './tls.ts'
import { Waypoint, type WaypointParts } from './waypoint.ts'

export const VIP = '10.96.7.1'
export const SERVICE = 'shop/api.shop.svc.cluster.local'
const WAYPOINT = { hostname: 'shop/waypoint.shop.svc.cluster.local', port: 15008 }
const SOURCE = { kind: 'Test', namespace: 'shop', name: 'test' }
export { SOURCE }

let worlds = 0

export interface Seen {
  /** SPIFFE id of the tunnel's peer. */
  readonly peer: string
  readonly authority: string
  readonly forwarded: string
}

export interface Endpoint {
  readonly workload: Workload
  /** CONNECTs that arrived. */
  readonly seen: Seen[]
  /** Sessions to it take nothing new: its agent is being replaced. */
  drain(): void
  stop(): Promise<void>
}

export class World {
  readonly state = new MeshState()
  readonly metrics = new Metrics('waypoint', 'test')
  readonly access: AccessLog
  readonly waypoint: Waypoint
  /** Client, waypoint and endpoints live at <net>.x. */
  readonly net: string
  readonly authority: Authority
  /** Removed at the end. */
  readonly folder: string
  /** Of the clients' agent, one a dialled port. */
  readonly clients: TunnelPool<{ key: string }>[] = []
  readonly #certificates: Certificates
  readonly #stops: (() => Promise<void> | void)[] = []

  private constructor(
    folder: string,
    certificates: Certificates,
    authority: Authority,
    net: string,
    more: Pick<WaypointParts, 'filters' | 'routeFilters'>,
  ) {
    this.authority = authority
    this.folder = folder
    this.#certificates = certificates
    this.net = net
    this.access = new AccessLog({ fd: openSync(join(folder, 'access'), 'a') })
    this.waypoint = new Waypoint({
      name: 'waypoint',
      namespace: 'shop',
      identity: identity('waypoint'),
      place: { network: '', clusterId: 'Kubernetes', node: 'n', locality: { region: '', zone: '', subzone: '' } },
      state: this.state,
      certificates,
      transport,
      clock: systemClock,
      random: Math.random,
      log: silentLog,
      access: this.access,
      metrics: this.metrics,
      ...more,
    })
  }

  /** `program`: the waypoint runs elsewhere (main.test.ts), at `address(2)`. */
  static async open(program = false, more: Pick<WaypointParts, 'filters' | 'routeFilters'> = {}): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), 'ambit-waypoint-'))
    const authority = await openAuthority(folder, 'test', systemClock)
    const certificates = new CertificateManager({
      sign: (request) => authority.issue(request.csr, request.identity, request.validitySeconds),
      clock: systemClock,
      log: silentLog,
      roots: authority.trustBundle,
    })
    // Test files run in processes of their own: the process id keeps their loopback addresses apart, however many worlds each has.
    const net = `127.${80 + (process.pid % 100)}.${worlds++ % 250}`
    const world = new World(folder, certificates, authority, net, more)
    world.#stops.push(() => certificates.close())
    const { state } = world
    state.setService(service('waypoint', '10.96.7.254', [], false))
    state.setWorkload({
      ...world.#workload('waypoint', 2),
      nativeTunnel: true,
      services: { 'shop/waypoint.shop.svc.cluster.local': {} },
    })
    state.setWorkload(world.#workload('client', 1))
    if (!program) await world.waypoint.listen({ host: world.address(2), port: 15008 })
    world.#stops.push(() => world.waypoint.close())
    return world
  }

  address(host: number): string {
    return `${this.net}.${host}`
  }

  #workload(name: string, host: number): Workload {
    return {
      uid: `Kubernetes//Pod/shop/${name}`,
      name,
      namespace: 'shop',
      serviceAccount: name,
      trustDomain: 'cluster.local',
      addresses: [this.address(host)],
      network: '',
      node: 'n',
      clusterId: 'Kubernetes',
      tunnelProtocol: 'HBONE',
      nativeTunnel: false,
      hostNetwork: false,
      services: {},
      authorizationPolicies: [],
      healthy: true,
      canonicalName: name,
      canonicalRevision: 'latest',
      workloadType: 'deployment',
      workloadName: name,
      locality: { region: '', zone: '', subzone: '' },
      capacity: 1,
      sameNode: 'direct',
      labels: {},
    }
  }

  /** The service `shop/api` at VIP, port 80. */
  setService(protocol: AppProtocol = 'http', port = 80): Service {
    const made = service('api', VIP, [{ port, targetPort: 0, name: 'p', protocol }], true)
    this.state.setService(made)
    return made
  }

  /** A pod of `shop/api` whose app listens on `port` of its address; HBONE in front of it. */
  async endpoint(
    host: number,
    port: number,
    labels: Record<string, string> = {},
    more: { serviceAccount?: string; certificate?: string; servicePort?: number; plain?: boolean } = {},
  ): Promise<Endpoint> {
    const workload: Workload = {
      ...this.#workload(`api-${host}`, host),
      serviceAccount: more.serviceAccount ?? 'api',
      labels,
      waypoint: WAYPOINT,
      ...(more.plain && { tunnelProtocol: 'NONE' as const }),
      services: { [SERVICE]: { [more.servicePort ?? 80]: port } },
    }
    const seen: Seen[] = []
    const relays = new Set<Relay>()
    const events = tunnelServer((exchange, head) => {
      seen.push({
        peer: formatIdentity(peerIdentity(exchange.connection.info.certificates)),
        authority: head.authority,
        forwarded: header(head.headers, 'forwarded') ?? '',
      })
      const target = splitHostPort(head.authority)
      const relay = new Relay({ onDone: (done) => void relays.delete(done) })
      relays.add(relay)
      const handler: ConnectionHandler = relay.first
      relay.attach(acceptTunnel(exchange, [], handler))
      relay.expect(transport.connect({ host: target?.host ?? '', port: target?.port ?? 0, handler: relay.second }))
    })
    const server = http2Server(events)
    const own = identity(more.certificate ?? workload.serviceAccount)
    const listener = await transport.listen({
      host: this.address(host),
      port: 15008,
      tls: serverTls(this.#certificates, own, this.state),
      handler: server,
    })
    const stop = async () => {
      await listener.stop()
      server.close()
    }
    this.#stops.push(stop)
    this.state.setWorkload(workload)
    return { workload, seen, stop, drain: () => [...server.sessions].forEach((session) => session.drain()) }
  }

  /** A local port that stands for a captured connection of `client` to `host:port`. */
  async dial(host = VIP, port = 80, as = 'client', from = 1): Promise<number> {
    const pool = new TunnelPool<{ key: string }>({
      clock: systemClock,
      open: (_target, handler) =>
        transport.connect({
          host: this.address(2),
          port: 15008,
          source: this.address(from),
          tls: clientTls(this.#certificates, identity(as), [formatIdentity(identity('waypoint'))]),
          handler,
        }),
    })
    this.clients.push(pool)
    const relayOf = (connection: Connection) => connection.slot as Relay
    const front: ConnectionHandler = {
      onOpen: (connection) => {
        const relay = new Relay({ onDone: () => undefined })
        connection.slot = relay
        relay.attach(connection)
        relay.expect(
          connectTunnel(
            pool,
            { key: 'one' },
            {
              authority: joinHostPort(host, port),
              headers: [],
              handler: relay.second,
              timeoutMs: 10_000,
              clock: systemClock,
            },
          ),
        )
      },
      onRead: (connection, arena, start, end) => relayOf(connection).first.onRead(connection, arena, start, end),
      onDrain: (connection) => relayOf(connection).first.onDrain(connection),
      onEnd: (connection) => relayOf(connection).first.onEnd(connection),
      onClose: (connection, error) => relayOf(connection).first.onClose(connection, error),
    }
    const listener: Listener = await transport.listen({ host: '127.0.0.1', port: 0, handler: front })
    this.#stops.push(async () => {
      await listener.stop()
      pool.close()
    })
    return listener.address.port
  }

  setRoute(rules: readonly Partial<RouteRule>[], more: Partial<Route> = {}): void {
    this.state.setRoute({
      dialect: 'VirtualService',
      namespace: 'shop',
      hostname: 'api.shop.svc.cluster.local',
      consumerNamespace: '*',
      tcp: [],
      source: SOURCE,
      ...more,
      rules: rules.map((rule) => ({
        name: '',
        matches: [],
        action: { type: 'forward', destinations: [to()] },
        unsupported: [],
        source: SOURCE,
        ...rule,
      })),
    })
  }

  setUpstream(upstream: Partial<Upstream>): void {
    this.state.setUpstream({
      namespace: 'shop',
      hostname: 'api.shop.svc.cluster.local',
      consumerNamespace: '*',
      policy: {},
      portPolicies: {},
      subsets: [],
      sources: [SOURCE],
      ...upstream,
    })
  }

  setPolicy(policy: Partial<Policy>): void {
    this.state.setPolicy({
      namespace: 'shop',
      name: 'policy',
      scope: 'namespace',
      action: 'ALLOW',
      dryRun: false,
      selector: {},
      targets: [],
      rules: [],
      source: SOURCE,
      ...policy,
    })
  }

  /** The access log so far. */
  async log(): Promise<Record<string, unknown>[]> {
    await this.access.flush()
    const text = readFileSync(join(this.folder, 'access'), 'utf8')
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  /** Waits for something the other side of a socket does; the test's own time limit is the bound. */
  async until(test: () => boolean): Promise<void> {
    while (!test()) await new Promise((resolve) => setTimeout(resolve, 5))
  }

  onClose(stop: () => Promise<void> | void): void {
    this.#stops.push(stop)
  }

  async close(): Promise<void> {
    for (const stop of this.#stops.reverse()) await stop()
    await this.access.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export function identity(serviceAccount: string): Identity {
  return { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount }
}

/** A destination of a route rule: shop/api, all of it. */
export function to(subset = '', weight = 1) {
  return { service: SERVICE, host: 'api', subset, port: 0, weight }
}

function service(name: string, address: string, ports: Service['ports'], waypoint: boolean): Service {
  return {
    name,
    namespace: 'shop',
    hostname: `${name}.shop.svc.cluster.local`,
    addresses: [address],
    ports,
    subjectAltNames: [],
    routingPreference: [],
    loadBalancing: 'UNSPECIFIED',
    allowUnhealthy: false,
    sessionAffinitySeconds: 0,
    ...(waypoint ? { waypoint: WAYPOINT } : {}),
  }
}
