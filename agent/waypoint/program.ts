// One serving process: puts the rooms together (control, certificates, the waypoint) and says in which order they stop. The
// single process and each of many workers are made of it. Must not live here: behaviour, admin servers, processes (main.ts, workers/).
import { join } from 'node:path'
import { getHeapStatistics } from 'node:v8'
import { systemClock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Lifecycle } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { transport } from '../io/index.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Place } from '../mesh/localize.ts'
import { MeshState } from '../mesh/state.ts'
import { CertificateManager } from '../pki/manager.ts'
import { RootFile } from '../pki/root-file.ts'
import { AccessLog } from '../telemetry/access-log.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { Readiness } from '../telemetry/readiness.ts'
import { connectControl } from '../wire/connect-control.ts'
import { waypointKinds } from '../wire/contract.ts'
import { heldAnswer, heldInventory, inventoryDigest } from '../wire/inventory.ts'
import type { WaypointLimits, WaypointOptions } from './options.ts'
import { Overload } from './overload.ts'
import { Waypoint } from './waypoint.ts'

export interface Program {
  readonly waypoint: Waypoint
  readonly metrics: Metrics
  readonly readiness: Readiness
  readonly identity: Identity
  /** It began with the state on disk. */
  readonly restored: boolean
  /** The state, for /config_dump. */
  dump(): unknown
  /** How it stands, for /status. */
  status(): unknown
  /** What is in force, for /config/held. */
  held(query: URLSearchParams): unknown
  /** Registers how it stops; then waits for configuration and certificate, which end two tasks of `readiness`. */
  run(lifecycle: Lifecycle): void
}

const VERSION = '0.1.0'

/** Connects to control and builds the waypoint; it does not listen yet. `onReadiness` is told each change. */
export async function startProgram(
  options: WaypointOptions,
  limits: WaypointLimits,
  log: Logger,
  onReadiness: (readiness: Readiness) => void,
): Promise<Program> {
  const clock = systemClock
  const state = new MeshState()
  const metrics = new Metrics('waypoint', VERSION)
  const access = new AccessLog()
  const readiness: Readiness = new Readiness((pending) => {
    log.info({ pending }, 'readiness')
    onReadiness(readiness)
  })
  const synced = readiness.block('configuration')
  const certified = readiness.block('certificate')

  // Made once the settings are known; what is applied before finds nothing to prune.
  let waypoint: Waypoint | undefined
  let certificates: CertificateManager | undefined
  const rootFile = new RootFile({
    file: options.rootCert,
    clock,
    log: log.child({ room: 'pki' }),
    onChange: (roots) => certificates?.setFileRoots(roots),
  })
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
    onApplied() {
      certificates?.setMeshRoots(state.settings.trustBundle)
      waypoint?.refresh()
    },
  })
  const held = new CertificateManager({
    sign: (request) => control.sign(request),
    clock,
    log: log.child({ room: 'pki' }),
    roots: rootFile.roots,
  })
  certificates = held
  held.setMeshRoots(state.settings.trustBundle)
  if (!control.restored) await control.synced('MeshSettings')
  const own: Identity = {
    trustDomain: state.settings.trustDomain,
    namespace: options.namespace,
    serviceAccount: options.serviceAccount,
  }
  const place: Place = {
    network: '',
    clusterId: options.clusterId,
    node: options.node,
    locality: { region: '', zone: '', subzone: '' },
  }
  let resident = 0
  const overload = new Overload({
    limits,
    clock,
    log,
    metrics,
    memory() {
      const { used_heap_size: heapUsed, heap_size_limit: heapLimit } = getHeapStatistics()
      try {
        resident = process.memoryUsage.rss()
      } catch {
        // It reads a file: without a descriptor left the last reading stands.
      }
      return { resident, heapUsed, heapLimit }
    },
    onMemory: (overloaded) => waypoint?.setAccepting(!overloaded),
  })
  const serving = new Waypoint({
    name: options.name,
    namespace: options.namespace,
    identity: own,
    place,
    state,
    certificates: held,
    transport,
    clock,
    random: Math.random,
    log,
    access,
    metrics,
    limits,
    overload,
  })
  waypoint = serving
  overload.start()

  return {
    waypoint: serving,
    metrics,
    readiness,
    identity: own,
    restored: control.restored,
    dump: () => dump(state, serving, held, control),
    status() {
      const { connected, lastResponse, kinds } = control.status()
      return {
        version: VERSION,
        namespace: options.namespace,
        gateway: options.name,
        pod: options.podName,
        node: options.node,
        ready: readiness.ready,
        pending: readiness.pending,
        control: { connected, lastResponse, rejected: kinds.flatMap(({ rejected }) => rejected) },
        config: inventoryDigest(heldInventory(control, waypointKinds)),
        certificates: held.status(),
      }
    },
    held: (query) => heldAnswer(control, waypointKinds, query),
    run(lifecycle) {
      lifecycle.onStop('access log', () => access.close())
      lifecycle.onStop('control', () => control.close())
      lifecycle.onStop('roots', () => rootFile.close())
      lifecycle.onStop('connections', () => {
        overload.stop()
        serving.close()
        held.close()
      })
      lifecycle.onStop('requests', async () => {
        readiness.drain()
        await serving.drain(limits.drainMs)
      })
      if (control.restored) synced.done()
      else void control.synced().then(() => synced.done())
      void certify(held, own, log).then(() => certified.done())
    },
  }
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
