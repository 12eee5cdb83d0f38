// The `ambit waypoint` program: puts the rooms together and takes them apart again. Must not live here: behaviour.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { splitHostPort } from '../base/ip.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { openLog, type Logger } from '../base/log.ts'
import { AmbitError } from '../base/errors.ts'
import { http1Server } from '../http/http1/index.ts'
import { http2Server } from '../http/http2/index.ts'
import { nodeTransport } from '../io/index.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Place } from '../mesh/localize.ts'
import { MeshState } from '../mesh/state.ts'
import { CertificateManager } from '../pki/manager.ts'
import { AccessLog } from '../telemetry/access-log.ts'
import { dumpRoutes, loggingRoutes, metricsRoutes, openAdmin, readyRoutes } from '../telemetry/admin.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { HttpMetrics, TcpMetrics } from '../telemetry/istio.ts'
import { Readiness } from '../telemetry/readiness.ts'
import { connectControl } from '../wire/connect-control.ts'
import { waypointKinds } from '../wire/contract.ts'
import { authorizeFilter } from './filter/authorize.ts'
import { headerFilter } from './filter/headers.ts'
import { observeFilter, observeOpaque } from './filter/observe.ts'
import { hboneServer } from './listen/hbone.ts'
import { downstreamOf, innerServer } from './listen/inner.ts'
import { opaqueServer } from './listen/opaque.ts'
import { waypointCommand, type WaypointOptions } from './options.ts'
import { Pipeline } from './pipeline.ts'
import { Tables } from './route/table.ts'
import { serverTls } from './tls.ts'
import { Clusters } from './upstream/clusters.ts'
import { sessionOpener } from './upstream/sessions.ts'
import { Tunnels } from './upstream/tunnels.ts'

/** Runs the program; resolves with its exit code once it has stopped. */
export async function main(argv: readonly string[]): Promise<number> {
  let code = 0
  const command = waypointCommand(async (options) => {
    const log = openLog({ program: 'waypoint', level: options.logLevel })
    try {
      code = await serve(options, log)
    } catch (error) {
      log.fatal({ code: error instanceof AmbitError ? error.code : undefined }, messageOf(error))
      code = 1
    }
  })
  await command.parseAsync(argv, { from: 'user' })
  return code
}

async function serve(options: WaypointOptions, log: Logger): Promise<number> {
  const clock = systemClock
  const drainMs = Math.max(0, Number(options.drainSeconds)) * 1_000
  const lifecycle = new Lifecycle({
    deadlineMs: drainMs + 5_000,
    onProblem: (step, error) => log.warn({ step, error: messageOf(error) }, 'stopping went wrong'),
  })
  const state = new MeshState()
  const metrics = new Metrics('waypoint', '0.1.0')
  const access = new AccessLog()
  const readiness = new Readiness((pending) => log.info({ pending }, 'readiness'))
  const synced = readiness.block('configuration')
  const certified = readiness.block('certificate')

  let pruneDue = false
  const control = await connectControl({
    address: options.control,
    rootCertFile: options.rootCert,
    tokenFile: options.tokenFile,
    kinds: waypointKinds,
    node: {
      type: 'waypoint',
      address: '',
      name: options.podName,
      namespace: options.namespace,
      node: options.node,
      gateway: options.name,
    },
    state,
    clock,
    log: log.child({ room: 'wire' }),
    clusterId: options.clusterId,
    ...(options.stateDir !== undefined && { lastGoodFile: join(options.stateDir, 'last-good.bin') }),
    onChange: (change) => {
      if (change.kind === 'Address') pruneDue = true
    },
    onApplied: () => {
      if (!pruneDue) return
      pruneDue = false
      tunnels.prune()
    },
  })
  const identity = (): Identity => ({
    trustDomain: state.settings.trustDomain,
    namespace: options.namespace,
    serviceAccount: options.serviceAccount,
  })
  const certificates = new CertificateManager({
    sign: (request) => control.sign(request),
    clock,
    log: log.child({ room: 'pki' }),
    roots: readFileSync(options.rootCert, 'utf8'),
  })
  if (!control.restored) await control.synced('MeshSettings')
  const own = identity()
  const tunnels = new Tunnels({ transport: nodeTransport, state, certificates, identity: own, clock })
  const place: Place = {
    network: '',
    clusterId: options.clusterId,
    node: options.node,
    locality: { region: '', zone: '', subzone: '' },
  }
  const clusters = new Clusters({
    state,
    place,
    open: sessionOpener(tunnels, state, clock),
    clock,
    random: Math.random,
  })
  const tables = new Tables(state, { namespace: options.namespace, name: options.name }, log)
  const tcpMetrics = new TcpMetrics(metrics)
  const pipeline = new Pipeline({
    state,
    tables,
    clusters,
    // The observer stands first, so that its onComplete sees what all others did.
    filters: [observeFilter({ metrics: new HttpMetrics(metrics), access, clock }), headerFilter, authorizeFilter],
    clock,
    random: Math.random,
    log,
    downstreamOf,
  })
  const http1 = http1Server(pipeline, { clock })
  const http2 = http2Server(pipeline, { clock, extendedConnect: true })
  const refused = metrics.counter({
    name: 'ambit_waypoint_tunnels_refused_total',
    help: 'CONNECT requests refused, by status.',
    labels: ['status'],
  })
  const inner = innerServer({
    http1,
    http2,
    clock,
    opaque: opaqueServer({
      state,
      tables,
      clusters,
      tunnels,
      clock,
      random: Math.random,
      onDone: (record) => observeOpaque(tcpMetrics, access, record),
    }),
  })
  const outer = hboneServer({
    state,
    waypoint: `${options.namespace}/${options.name}.${options.namespace}.svc.${state.settings.clusterDomain}`,
    inner,
    log,
    onRefused: (status) => {
      refused.with([String(status)]).value++
    },
  })
  registerGauges(metrics, clusters, pipeline, tunnels)

  const servers = [
    await openAdmin({ listen: options.metrics, routes: metricsRoutes(metrics), localOnly: false, log }),
    await openAdmin({ listen: options.ready, routes: readyRoutes(readiness), localOnly: false, log }),
    await openAdmin({
      listen: options.admin,
      localOnly: true,
      log,
      routes: {
        ...metricsRoutes(metrics),
        ...readyRoutes(readiness),
        ...dumpRoutes(() => dump(state, clusters, certificates, control)),
        ...loggingRoutes(log),
      },
    }),
  ]
  const target = splitHostPort(options.listen)
  if (!target)
    throw new AmbitError('WAYPOINT_LISTEN_INVALID', `'${options.listen}' is no address to listen on.`, {
      hint: 'Write HOST:PORT.',
    })
  const listener = await nodeTransport.listen({
    host: target.host,
    port: target.port,
    tls: serverTls(certificates, own, state),
    handler: outer,
  })

  lifecycle.onStop('access log', () => access.close())
  lifecycle.onStop('servers', async () => {
    for (const server of servers) await server.close()
  })
  lifecycle.onStop('control', () => control.close())
  lifecycle.onStop('connections', () => {
    clusters.drain()
    outer.close()
    tunnels.pool.close()
    certificates.close()
  })
  lifecycle.onStop('requests', async () => {
    readiness.drain()
    await listener.stop()
    outer.drain()
    http1.drain()
    http2.drain()
    const end = clock.monotonic() + drainMs
    while (pipeline.active > 0 && clock.monotonic() < end) {
      await new Promise<void>((resolve) => clock.after(50, resolve))
    }
  })
  lifecycle.onSignals()

  if (control.restored) synced.done()
  else void control.synced().then(() => synced.done())
  void certify(certificates, own, log).then(() => certified.done())
  log.info({ listen: listener.address, identity: own, restored: control.restored }, 'waypoint started')
  const ended = await lifecycle.ended
  log.info(ended, 'waypoint stopped')
  return ended.clean ? 0 : 1
}

/** The own certificate is fetched ahead, so that the first tunnel need not wait; readiness waits for it. */
async function certify(certificates: CertificateManager, own: Identity, log: Logger): Promise<void> {
  certificates.prefetch(own)
  for (;;) {
    try {
      await certificates.keyPair(own)
      return
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'no certificate yet')
      await new Promise<void>((resolve) => systemClock.after(1_000, resolve, true))
    }
  }
}

function registerGauges(metrics: Metrics, clusters: Clusters, pipeline: Pipeline, tunnels: Tunnels): void {
  const active = metrics.gauge({ name: 'ambit_waypoint_requests_active', help: 'Requests in flight.', labels: [] })
  const sessions = metrics.gauge({ name: 'ambit_waypoint_tunnels', help: 'HBONE sessions to endpoints.', labels: [] })
  const ejected = metrics.gauge({
    name: 'ambit_waypoint_hosts_ejected',
    help: 'Endpoints ejected by outlier detection.',
    labels: ['cluster'],
  })
  metrics.beforeScrape(() => {
    active.with([]).value = pipeline.active
    sessions.with([]).value = tunnels.pool.sessions
    for (const cluster of clusters.all()) {
      if (cluster.policy.outlierDetection) ejected.with([cluster.name]).value = cluster.ejected
    }
  })
}

function dump(
  state: MeshState,
  clusters: Clusters,
  certificates: CertificateManager,
  control: { status(): unknown },
): unknown {
  return {
    settings: state.settings,
    control: control.status(),
    certificates: certificates.status(),
    workloads: [...state.workloads()],
    services: [...state.services()],
    policies: [...state.policies()],
    routes: [...state.routes()],
    upstreams: [...state.upstreams()],
    clusters: [...clusters.all()].map((cluster) => ({
      name: cluster.name,
      policy: cluster.policy,
      active: cluster.active,
      pending: cluster.pending,
      connections: cluster.connections,
      ejected: cluster.ejected,
      hosts: cluster.hosts.map((host) => ({
        workload: host.candidate.workload.uid,
        address: host.candidate.address,
        port: host.candidate.port,
        active: host.active,
        sessions: host.sessions.size,
        ejected: host.health?.ejected ?? false,
      })),
    })),
  }
}
