// The `ambit control` program: flags, the parts put together, an orderly end. Must not live here: behaviour (control.ts).
import { readFileSync } from 'node:fs'
import { CommanderError } from 'commander'
import { systemClock, type Clock } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import { splitHostPort } from '../base/ip.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { openLog, type Logger } from '../base/log.ts'
import type { Resource } from '../config/resource.ts'
import { openAuthority, type Authority } from '../pki/authority.ts'
import { dumpRoutes, loggingRoutes, metricsRoutes, openAdmin, readyRoutes } from '../telemetry/admin.ts'
import { Metrics } from '../telemetry/exposition.ts'
import { Readiness } from '../telemetry/readiness.ts'
import { WebhookCertificate } from './admit/certificate.ts'
import { observeWebhook } from './admit/observe.ts'
import { References } from './admit/references.ts'
import { WebhookServer } from './admit/server.ts'
import { Control } from './control.ts'
import { gatherFiles } from './gather/files.ts'
import type { Authenticator } from './issue/authenticator.ts'
import { CaReport } from './issue/ca-report.ts'
import { JwtAuthenticator } from './issue/jwt.ts'
import { KubeAuthority } from './issue/kube-authority.ts'
import { TokenReviewAuthenticator } from './issue/token-review.ts'
import { TrustBundles } from './issue/trust-bundle.ts'
import { openKube, type Kube } from './kube.ts'
import { inspectRoutes } from './inspect.ts'
import { observe, observeKube } from './observe.ts'
import { observeWaypoints } from './operate/observe.ts'
import { Operator } from './operate/operator.ts'
import { controlCommand, type ControlFlags } from './options.ts'
import { Events } from './report/events.ts'
import { observeReports } from './report/observe.ts'
import { Reporter } from './report/reporter.ts'

const GRACE_MS = 2_000
/** Roots are trusted for so long after the last certificate under them has ended: clocks differ. */
const TRUST_MARGIN_MS = 3_600_000

/** Runs the program; resolves with its exit code once it has stopped. */
export async function main(argv: string[]): Promise<number> {
  let code = 0
  const command = controlCommand(async (flags) => {
    const log = openLog({ program: 'control', level: flags.logLevel })
    try {
      code = await serve(flags, log)
    } catch (error) {
      log.fatal({ code: error instanceof AmbitError ? error.code : undefined }, messageOf(error))
      code = 1
    }
  })
  try {
    await command.parseAsync(argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    throw error
  }
  return code
}

async function serve(flags: ControlFlags, log: Logger): Promise<number> {
  const clock = systemClock
  const lifecycle = new Lifecycle({
    deadlineMs: GRACE_MS + 3_000,
    onProblem: (step, error) => log.warn({ step, error: messageOf(error) }, 'stopping went wrong'),
  })
  const metrics = new Metrics('control', version())
  const readiness = new Readiness()
  const starting = readiness.block('configuration')
  const kube =
    flags.configDir === undefined
      ? await openKube({
          ...(flags.kubeconfig === undefined ? {} : { kubeconfig: flags.kubeconfig }),
          ...(flags.context === undefined ? {} : { context: flags.context }),
          systemNamespace: flags.systemNamespace,
          exemptNamespaces: flags.exemptNamespaces,
          replica: flags.replica,
          clock,
          log,
        })
      : undefined
  const open = issuing(flags, kube, clock, log)
  const control = new Control({
    gather: kube?.gather ?? gatherFiles({ paths: flags.configDir ?? [], log: log.child({ room: 'gather' }), clock }),
    openAuthority: (trustDomain) => open.authority(trustDomain),
    authenticator: open.authenticator,
    listen: flags.listen,
    systemNamespace: flags.systemNamespace,
    clock,
    log,
    certificateSeconds: flags.certificateSeconds,
  })
  observe(control, metrics)
  if (kube) observeKube(kube, metrics)
  const routes = { ...metricsRoutes(metrics), ...readyRoutes(readiness) }
  if (flags.metrics !== undefined) {
    const server = await openAdmin({ listen: flags.metrics, routes, localOnly: false, log })
    lifecycle.onStop('metrics server', () => server.close())
  }
  if (flags.ready !== undefined) {
    const server = await openAdmin({ listen: flags.ready, routes: readyRoutes(readiness), localOnly: false, log })
    lifecycle.onStop('readiness server', () => server.close())
  }
  const admin = await openAdmin({
    listen: flags.admin,
    routes: {
      ...routes,
      ...inspectRoutes({ version: version(), replica: kube ? flags.replica : '' }, control, kube),
      ...dumpRoutes(() => dump(control)),
      ...loggingRoutes(log),
    },
    localOnly: true,
    log,
  })
  lifecycle.onStop('admin server', () => admin.close())
  if (kube) lifecycle.onStop('cluster', () => kube.stop())
  lifecycle.onStop('control', () => control.stop(GRACE_MS))
  lifecycle.onSignals()
  try {
    // A server that is away is waited for, but not by somebody who is told to stop.
    await Promise.race([control.start(), lifecycle.ended])
  } catch (error) {
    if (!lifecycle.stopping) {
      await lifecycle.stop('start failed')
      throw error
    }
  }
  if (!lifecycle.stopping) {
    if (kube) startParts({ kube, control, flags, metrics, clock, log, lifecycle })
    starting.done()
  }
  const { reason, clean } = await lifecycle.ended
  log.info({ reason }, 'control ended')
  return clean ? 0 : 1
}

interface Running {
  readonly kube: Kube
  readonly control: Control
  readonly flags: ControlFlags
  readonly metrics: Metrics
  readonly clock: Clock
  readonly log: Logger
  readonly lifecycle: Lifecycle
}

interface Issuing {
  readonly authenticator: Authenticator
  authority(trustDomain: string): Promise<Authority>
}

/** Who judges tokens and who signs: the cluster and its Secret, or files. */
function issuing(flags: ControlFlags, kube: Kube | undefined, clock: Clock, log: Logger): Issuing {
  if (!kube) {
    const { stateDir = '', tokenKeys = '' } = flags
    return {
      authenticator: new JwtAuthenticator({ keyFile: tokenKeys, clock }),
      authority: (trustDomain) => openAuthority(stateDir, trustDomain, clock),
    }
  }
  const { client, systemNamespace: namespace } = kube
  return {
    authenticator: new TokenReviewAuthenticator({ client, clock }),
    async authority(trustDomain) {
      const room = log.child({ room: 'issue' })
      const authority = await KubeAuthority.open(
        {
          client,
          namespace,
          clock,
          log: room,
          spreadMs: flags.trustSpreadSeconds * 1_000,
          keepMs: flags.certificateSeconds * 1_000 + TRUST_MARGIN_MS,
        },
        trustDomain,
        (problem) => void caReport(flags, kube, clock, log).tell(problem),
      )
      kube.authority = authority
      return authority
    },
  }
}

function caReport(
  { replica }: ControlFlags,
  { client, systemNamespace: namespace }: Kube,
  clock: Clock,
  log: Logger,
): CaReport {
  return new CaReport({ client, namespace, replica, clock, log: log.child({ room: 'issue' }) })
}

/** What only a cluster has: the parts that write to it, each while this replica leads. */
function startParts({ kube, control, flags, metrics, clock, log, lifecycle }: Running): void {
  const { client, objects, leader, authority, systemNamespace } = kube
  if (authority) {
    const bundles = new TrustBundles({
      client,
      objects,
      leadership: leader,
      roots: () => authority.trustBundle,
      clock,
      log: log.child({ room: 'trust' }),
    })
    authority.onChange(() => bundles.lookAtAll())
    bundles.start()
    lifecycle.onStop('trust bundles', () => bundles.stop())
    const report = caReport(flags, kube, clock, log)
    report.start(authority, leader)
    lifecycle.onStop('report of the authority', () => report.stop())
  }
  const waypoints = new Operator({
    client,
    objects,
    leader,
    clock,
    log: log.child({ room: 'operate' }),
    image: flags.image,
    control: `control.${systemNamespace}.svc:15012`,
  })
  observeWaypoints(waypoints, metrics)
  waypoints.start()
  lifecycle.onStop('waypoints', () => waypoints.stop())
  const reporter = new Reporter({
    client,
    objects,
    leadership: leader,
    waypoints,
    clock,
    log: log.child({ room: 'report' }),
  })
  const events = new Events({
    client,
    objects,
    leadership: leader,
    replica: flags.replica,
    clock,
    log: log.child({ room: 'report' }),
  })
  observeReports(reporter, events, metrics)
  control.onSnapshot((snapshot) => {
    reporter.take(snapshot)
    events.take(snapshot)
  })
  if (control.snapshot) {
    reporter.take(control.snapshot)
    events.take(control.snapshot)
  }
  reporter.start()
  events.start()
  lifecycle.onStop('statuses', () => {
    reporter.stop()
    events.stop()
  })
  if (flags.webhook !== undefined) startWebhook(flags.webhook, { kube, control, flags, metrics, clock, log, lifecycle })
  // Last: the parts hear of it.
  leader.start()
}

/** Reviews what people apply. Where it cannot be, the rest goes on: nobody is kept from applying. */
function startWebhook(listen: string, { kube, metrics, clock, log, lifecycle }: Running): void {
  const { client, gather, objects, leader, systemNamespace: namespace } = kube
  const room = log.child({ room: 'admit' })
  const references = new References({
    inForce: (definitions) => gather.inForce(definitions),
    systemNamespace: namespace,
    clock,
  })
  const knowledge = { held: objects, missing: (resource: Resource) => references.of(resource) }
  const server = new WebhookServer({ listen, knowledge, log: room })
  const host = splitHostPort(listen)?.host ?? ''
  const names = [`control.${namespace}.svc`, ...(host === '' || host === '::' || host === '0.0.0.0' ? [] : [host])]
  const certificate = new WebhookCertificate({
    client,
    namespace,
    leadership: leader,
    names,
    onCertificate: (material) => server.setCertificate(material),
    clock,
    log: room,
  })
  observeWebhook(server, certificate, references, metrics)
  certificate.start()
  void server.start().then(
    () => room.info({ listen: server.address }, 'the webhook serves'),
    (error: unknown) => room.error({ error: messageOf(error) }, 'there is no webhook'),
  )
  lifecycle.onStop('webhook', async () => {
    await certificate.stop()
    await server.stop()
  })
}

/** Without keys or tokens: control holds none of the workloads'. */
function dump(control: Control): unknown {
  const { snapshot, store, xds, publisher, publishMs, issued, refused } = control
  return {
    address: control.address,
    version: snapshot?.version ?? 0,
    revision: store.revision,
    streams: xds.streams,
    stats: xds.stats,
    publishMs,
    certificates: { issued, refused },
    problems: snapshot?.problems ?? [],
    unpublished: publisher.unpublished,
    translation: snapshot?.translation,
  }
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
