// The `ambit agent` program: puts the parts together and takes them apart again. Must not live here: what the parts do.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { systemClock } from '../base/clock.ts'
import { envInteger, envString } from '../base/env.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { openLog, type Logger } from '../base/log.ts'
import { collectGarbage } from '../base/memory.ts'
import { transport, trimMemory } from '../io/index.ts'
import { MeshState } from '../mesh/state.ts'
import { CertificateManager } from '../pki/manager.ts'
import { RootFile } from '../pki/root-file.ts'
import { AccessLog } from '../telemetry/access-log.ts'
import {
  dumpRoutes,
  heldRoutes,
  loggingRoutes,
  metricsRoutes,
  openAdmin,
  readyRoutes,
  statusRoutes,
} from '../telemetry/admin.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { TcpMetrics } from '../telemetry/istio.ts'
import { Readiness } from '../telemetry/readiness.ts'
import { connectControl } from '../wire/connect-control.ts'
import { agentEssentials, agentKinds, type ControlConnection } from '../wire/contract.ts'
import { heldAnswer } from '../wire/inventory.ts'
import { CniKeeper, removeFromConflist } from './cni/keeper.ts'
import { cniMetrics } from './cni/metrics.ts'
import type { Enrollment } from './enroll/contract.ts'
import { startEnrollment } from './enroll/enrollment.ts'
import { parseFlags, type AgentFlags } from './flags.ts'
import { KeyKeeper } from './keys.ts'
import { configDump } from './observe/dump.ts'
import { KernelEdges } from './observe/edges.ts'
import { Ends } from './observe/ends.ts'
import { Flows } from './observe/flow.ts'
import { Refusals } from './observe/refusals.ts'
import { agentMetrics, type AgentParts } from './observe/metrics.ts'
import { agentStatus } from './observe/status.ts'
import { Canaries } from './prove/canaries.ts'
import { probeNode } from './probe.ts'
import { proofMetrics } from './prove/metrics.ts'
import { Prover } from './prove/prover.ts'
import { ownCgroupId } from './redirect/cgroup.ts'
import { findPodsCgroup } from './redirect/pods-cgroup.ts'
import { FLOW_LOG_PER_SECOND, openRedirect } from './redirect/redirect.ts'
import { Revoker } from './revoke/revoker.ts'
import { uninstallNode } from './redirect/uninstall.ts'
import { Succession, agentAnswers, openInSuccession } from './succession.ts'
import { tableMetrics } from './tables/metrics.ts'
import { TableSync } from './tables/sync.ts'
import { GiveBack } from './memory.ts'
import { Tunnels } from './tunnel/tunnels.ts'

/** What a drain may take beyond the time running connections get: the state is written, sockets are closed. */
const STOP_MARGIN_MS = 5_000

/** Two agents are side by side for at most so long: until the newer is ready, and while the older drains. */
const OVERLAP_MS = 60_000

interface Times {
  readonly drainMs: number
  readonly proveMs: number
  readonly flowLogPerSecond: number
}

/** Runs until SIGTERM or SIGINT; resolves with the exit code. */
export async function main(argv: string[]): Promise<number> {
  const flags = parseFlags(argv)
  if (typeof flags === 'number') return flags
  if (flags.probe) return probe(flags)
  const log = openLog({ program: 'agent' })
  if (flags.uninstall) return uninstall(flags, log)
  let times: Times
  try {
    times = {
      drainMs: envInteger('AMBIT_DRAIN_SECONDS', 5, { min: 0, max: 3_600 }) * 1_000,
      proveMs: envInteger('AMBIT_PROVE_SECONDS', 5, { min: 1, max: 3_600 }) * 1_000,
      flowLogPerSecond: envInteger('AMBIT_FLOW_LOG_PER_SECOND', FLOW_LOG_PER_SECOND, { min: 0, max: 1_000_000 }),
    }
  } catch (error) {
    log.fatal(messageOf(error))
    return 1
  }
  const lifecycle = new Lifecycle({
    deadlineMs: times.drainMs + STOP_MARGIN_MS,
    onProblem: (step, error) => log.error({ step, error: messageOf(error) }, 'a step of the stop failed'),
  })
  const off = lifecycle.onSignals()
  try {
    await start(flags, log, lifecycle, times)
  } catch (error) {
    log.fatal({ code: error instanceof AmbitError ? error.code : undefined }, messageOf(error))
    await lifecycle.stop('the start failed')
    off()
    return 1
  }
  log.info({ node: flags.node, pid: process.pid }, 'agent started')
  const { reason, clean } = await lifecycle.ended
  off()
  log.info({ reason, clean }, 'agent stopped')
  return clean ? 0 : 1
}

async function probe({ node = '', cgroup, pinRoot, cniConfDir, cniBinDir }: Partial<AgentFlags>): Promise<number> {
  const report = await probeNode({
    version: readVersion(),
    node,
    pinRoot: pinRoot ?? '',
    ...(cgroup === undefined ? {} : { cgroup }),
    ...(cniConfDir === undefined ? {} : { cniConfDir }),
    ...(cniBinDir === undefined ? {} : { cniBinDir }),
    missing: missingFeatures(),
  })
  process.stdout.write(`${JSON.stringify(report)}\n`)
  return report.problems.some(({ severity }) => severity === 'error') ? 1 : 0
}

async function uninstall(
  { pinRoot, holder, cniConfDir, cniBinDir, stateDir }: Omit<AgentFlags, 'stateDir'> & { readonly stateDir?: string },
  log: Logger,
): Promise<number> {
  const offCni = async (): Promise<string[]> =>
    cniConfDir !== undefined && cniBinDir !== undefined
      ? removeFromConflist({ confDir: cniConfDir, binDir: cniBinDir })
      : []
  try {
    // Before the rest: no pod may start that waits for an agent.
    const files = await offCni()
    const removed = await uninstallNode(pinRoot, holder)
    // An agent that led until now may have put it back meanwhile.
    await offCni()
    // It may be a mount: what is in it goes.
    for (const name of stateDir !== undefined && existsSync(stateDir) ? readdirSync(stateDir) : [])
      rmSync(join(stateDir!, name), { recursive: true, force: true })
    log.info({ ...removed, files }, 'everything was removed: pods of this node talk plainly')
    return 0
  } catch (error) {
    log.fatal({ code: error instanceof AmbitError ? error.code : undefined }, messageOf(error))
    return 1
  }
}

async function start(flags: AgentFlags, log: Logger, lifecycle: Lifecycle, times: Times): Promise<void> {
  const { drainMs, proveMs, flowLogPerSecond } = times
  const clock = systemClock
  const version = readVersion()
  const metrics = new Metrics('agent', version)
  const readiness = new Readiness((pending) => log.info({ pending }, pending.length > 0 ? 'waiting' : 'ready'))
  const stateKnown = readiness.block('state from control')
  const podsEnrolled = readiness.block('registered pods')
  let trustMesh = (): void => undefined
  let trustFile = (_pem: string): void => undefined
  const rootFile = new RootFile({
    file: flags.rootCert,
    clock,
    log: log.child({ room: 'certificates' }),
    onChange: (pem) => trustFile(pem),
  })
  lifecycle.onStop('roots', () => rootFile.close())
  mkdirSync(flags.stateDir, { recursive: true, mode: 0o700 })

  // First what answers questions, so that a start that hangs can be looked into.
  const overlaps = await agentAnswers(flags.socket)
  const began = clock.monotonic()
  const asked = { listen: flags.ready, routes: readyRoutes(readiness), localOnly: false, log }
  lifecycle.onStop('readiness', await openInSuccession(asked, overlaps, clock))

  const redirect = await openRedirect({
    cgroup: flags.cgroup ?? findPodsCgroup(),
    agentCgroupIds: [ownCgroupId()],
    pinRoot: flags.pinRoot,
    ...(flags.holder === undefined ? {} : { holder: flags.holder }),
    features: missingFeatures(),
    kubelet: {
      ...(flags.kubeletPid === undefined ? {} : { pid: flags.kubeletPid }),
      ...(flags.kubeletCgroup === undefined ? {} : { cgroup: flags.kubeletCgroup }),
    },
    onProblem: (problem) => log.warn({ error: problem.message }, 'the kernel half goes on without something'),
    flowLogPerSecond,
  })
  lifecycle.onStop('kernel', () => redirect.close())

  const accessLog = new AccessLog()
  lifecycle.onStop('access log', () => accessLog.close())

  const state = new MeshState()
  // Nothing is decided on an empty state: until control has answered, or the last good state was read, there is none.
  let known = false
  let tunnels: Tunnels | undefined
  let enrollment: Enrollment | undefined
  const refusals = new Refusals(metrics)
  const revoker = new Revoker({
    node: flags.node,
    redirect,
    view: () => (known ? state : undefined),
    refusals,
    clock,
    log: log.child({ room: 'revoke' }),
  })
  lifecycle.onStop('open connections', () => revoker.close())
  const tables = new TableSync({
    node: flags.node,
    writer: redirect.tables,
    view: () => (known ? state : undefined),
    clock,
    log: log.child({ room: 'tables' }),
    onPolicies: (uids) => revoker.tablesReplaced(uids),
  })
  const memory = new GiveBack({ clock, changes: () => state.version, giveBack })
  lifecycle.onStop('memory', () => memory.close())
  const changed = (): void => {
    trustMesh()
    tables.changed()
    revoker.changed()
    tunnels?.changed()
    enrollment?.changed()
    if (known) memory.changed()
  }
  const control = await connectControl({
    address: flags.control,
    rootCertFile: flags.rootCert,
    tokenFile: flags.tokenFile,
    kinds: agentKinds,
    node: {
      type: 'agent',
      address: '',
      name: `ambit-agent-${flags.node}`,
      namespace: 'ambit-system',
      node: flags.node,
    },
    state,
    clock,
    log: log.child({ room: 'control' }),
    lastGoodFile: join(flags.stateDir, 'last-good'),
    onApplied: changed,
  })
  lifecycle.onStop('control', () => control.close())
  // Before the tables that it writes to are closed, and after what changes them.
  lifecycle.onStop('tables', () => tables.close())
  known = control.restored
  if (known) stateKnown.done()
  if (known) changed()
  void Promise.all(agentEssentials.map((kind) => control.synced(kind))).then(() => {
    known = true
    stateKnown.done()
    changed()
  })

  const keys = new KeyKeeper({ vault: redirect.vault, clock, log: log.child({ room: 'keys' }) })
  const restored = await keys.load()
  const certificates = new CertificateManager({
    sign: (request) => control.sign(request),
    clock,
    log: log.child({ room: 'certificates' }),
    roots: rootFile.roots,
    ...(restored && { restored }),
  })
  keys.follow(certificates, metrics)
  lifecycle.onStop('certificates', () => {
    keys.close()
    certificates.close()
  })
  trustMesh = () => certificates.setMeshRoots(state.settings.trustBundle)
  trustFile = (pem) => certificates.setFileRoots(pem)
  trustMesh()

  const tcp = new TcpMetrics(metrics)
  const flows = new Flows(tcp, refusals, accessLog, clock)
  const canaries = new Canaries()
  const running = new Tunnels({
    node: flags.node,
    transport,
    redirect,
    certificates,
    view: () => (known ? state : undefined),
    flows,
    clock,
    log: log.child({ room: 'tunnel' }),
    canaries,
  })
  tunnels = running
  const prover = new Prover({
    redirect,
    transport,
    canaries,
    relisten: (uid, listeners) => running.relisten(uid, listeners),
    clock,
    log: log.child({ room: 'prove' }),
    intervalMs: proveMs,
    onRepair(uid, what) {
      // What the tables say of a pod stands in its entry.
      const pod = what === 'pod_entry' ? enrollment?.status(uid)?.pod : undefined
      if (pod) tables.addPod(pod)
    },
    shared: () => overlaps && clock.monotonic() - began < OVERLAP_MS,
  })
  prover.start()

  const enrolled = await startEnrollment({
    node: flags.node,
    redirect,
    view: () => (known ? state : undefined),
    socketPath: flags.socket,
    stateDir: flags.stateDir,
    log: log.child({ room: 'enroll' }),
    clock,
    exemptNamespaces: flags.exemptNamespaces,
    leads: () => redirect.leads(),
    hearsOfPods: () => hearsOfPods(control),
    async onEnrolled(pod, listeners) {
      await running.addPod(pod, listeners)
      prover.add(pod)
      tables.addPod(pod)
      revoker.addPod(pod)
    },
    async onUnenrolled(pod) {
      revoker.removePod(pod.uid)
      tables.removePod(pod.uid)
      prover.remove(pod.uid)
      await running.removePod(pod.uid)
    },
  })
  enrollment = enrolled
  // Stopped first to last in reverse: no pod comes or goes while connections drain.
  lifecycle.onStop('tunnels', () => running.drain(drainMs))
  lifecycle.onStop('enrolment', () => enrolled.close())
  lifecycle.onStop('proofs', () => prover.close())
  const succession = new Succession({
    leads: () => redirect.leads(),
    socketPath: flags.socket,
    clock,
    log,
    onOrphaned: () => void lifecycle.stop('the agent that had taken over is gone'),
  })
  lifecycle.onStop('succession', () => succession.close())
  lifecycle.onStop('not ready any more', () => readiness.drain())
  void enrolled.settled().then(() => podsEnrolled.done())

  if (flags.cniConfDir !== undefined && flags.cniBinDir !== undefined) {
    // Now that there is somebody to ask.
    const keeper = new CniKeeper({
      confDir: flags.cniConfDir,
      binDir: flags.cniBinDir,
      entry: { socket: flags.cniSocket ?? resolve(flags.socket), exemptNamespaces: flags.exemptNamespaces },
      leads: () => redirect.leads(),
      clock,
      log: log.child({ room: 'cni' }),
    })
    lifecycle.onStop('CNI', () => keeper.close())
    cniMetrics(metrics, keeper)
    await keeper.start()
  }

  const ends = new Ends({
    node: flags.node,
    view: () => (known ? state : undefined),
    pods: () => enrolled.list().map(({ pod }) => pod),
  })
  const edges = new KernelEdges({ telemetry: redirect.telemetry, ends, tcp, metrics, clock })
  metrics.beforeScrape(() => edges.refresh())
  edges.start()
  lifecycle.onStop('edges', () => edges.stop())
  redirect.telemetry.onFlows((list) => {
    for (const flow of list) flows.kernel(flow, ends.flow(flow))
  })

  const parts: AgentParts = { redirect, tunnels: running, enrollment: enrolled, certificates, control }
  agentMetrics(metrics, parts)
  proofMetrics(metrics, prover, clock)
  tableMetrics(metrics, tables)
  const facts = { version, node: flags.node, config: { ...flags } }
  const scraped = { listen: flags.metrics, routes: metricsRoutes(metrics), localOnly: false, log }
  lifecycle.onStop('metrics', await openInSuccession(scraped, overlaps, clock))
  const routes = {
    ...readyRoutes(readiness),
    ...metricsRoutes(metrics),
    ...statusRoutes(() => agentStatus(facts, { ...parts, redirect, prover, tables, clock })),
    ...heldRoutes((query) => heldAnswer(control, agentKinds, query)),
    ...dumpRoutes(() => ({ ...configDump(facts, state, parts), tables: tables.status() })),
    ...loggingRoutes(log),
  }
  for (const listen of flags.admin) {
    const admin = await openAdmin({ listen, routes, localOnly: true, replace: true, log })
    lifecycle.onStop('admin', () => admin.close())
  }
}

function hearsOfPods(control: ControlConnection): boolean {
  const { connected, kinds } = control.status()
  return connected && kinds.some(({ kind, synced }) => kind === 'Pod' && synced)
}

/** With 10 000 workloads an agent had 266 MiB before it and 128 after. */
function giveBack(): void {
  collectGarbage(true)
  trimMemory()
}

function readVersion(): string {
  const file = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

function missingFeatures(): Record<string, boolean> {
  const names = envString('AMBIT_FEATURES_OFF', '').split(',')
  return Object.fromEntries(names.filter((name) => name !== '').map((name) => [name.trim(), false]))
}
