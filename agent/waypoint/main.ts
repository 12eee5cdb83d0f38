// The `ambit waypoint` program: puts the rooms together and takes them apart again. Must not live here: behaviour.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { splitHostPort } from '../base/ip.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { openLog, type Logger } from '../base/log.ts'
import { AmbitError } from '../base/errors.ts'
import { transport } from '../io/index.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Place } from '../mesh/localize.ts'
import { MeshState } from '../mesh/state.ts'
import { CertificateManager } from '../pki/manager.ts'
import { AccessLog } from '../telemetry/access-log.ts'
import { dumpRoutes, loggingRoutes, metricsRoutes, openAdmin, readyRoutes } from '../telemetry/admin.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { Readiness } from '../telemetry/readiness.ts'
import { connectControl } from '../wire/connect-control.ts'
import { waypointKinds } from '../wire/contract.ts'
import { waypointCommand, type WaypointOptions } from './options.ts'
import { parsePlainListen } from './listen/plain.ts'
import { Waypoint } from './waypoint.ts'

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
  const plains = options.http.map(parsePlainListen)
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

  // Made once the settings are known; what is applied before finds nothing to prune.
  let waypoint: Waypoint | undefined
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
    onApplied: () => waypoint?.refresh(),
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
  const place: Place = {
    network: '',
    clusterId: options.clusterId,
    node: options.node,
    locality: { region: '', zone: '', subzone: '' },
  }
  const serving = new Waypoint({
    name: options.name,
    namespace: options.namespace,
    identity: own,
    place,
    state,
    certificates,
    transport,
    clock,
    random: Math.random,
    log,
    access,
    metrics,
  })
  waypoint = serving

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
        ...dumpRoutes(() => dump(state, serving, certificates, control)),
        ...loggingRoutes(log),
      },
    }),
  ]
  const target = addressOf(options.listen)
  const listener = await serving.listen(target.host, target.port)
  for (const plain of plains) {
    const { host, port } = addressOf(plain.listen)
    const { address } = await serving.listenHttp(host, port, plain)
    log.info({ listen: address, service: plain.service, port: plain.port }, 'serving HTTP in plaintext')
  }

  lifecycle.onStop('access log', () => access.close())
  lifecycle.onStop('servers', async () => {
    for (const server of servers) await server.close()
  })
  lifecycle.onStop('control', () => control.close())
  lifecycle.onStop('connections', () => {
    serving.close()
    certificates.close()
  })
  lifecycle.onStop('requests', async () => {
    readiness.drain()
    await serving.drain(drainMs)
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

function addressOf(text: string): { readonly host: string; readonly port: number } {
  const target = splitHostPort(text)
  if (target) return target
  throw new AmbitError('WAYPOINT_LISTEN_INVALID', `'${text}' is no address to listen on.`, {
    hint: 'Write HOST:PORT.',
  })
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

function dump(
  state: MeshState,
  waypoint: Waypoint,
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
    clusters: [...waypoint.clusters.all()].map((cluster) => ({
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
