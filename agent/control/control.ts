// The control plane put together: snapshots come from a gatherer, resources and certificates go out over one gRPC server.
// Must not live here: flags and process life (main.ts), any one of its parts.
import type { Clock, Timer } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import { joinHostPort, parseIp, splitHostPort } from '../base/ip.ts'
import type { Logger } from '../base/log.ts'
import { SYSTEM_NAMESPACE } from '../config/labels.ts'
import { formatIdentity } from '../mesh/identity.ts'
import type { Authority } from '../pki/authority.ts'
import { caServiceDefinition, caServiceImplementation, type IssueRequest } from '../wire/ca-service.ts'
import { startControlServer, type ControlServer } from '../wire/control-server.ts'
import { ResourceStore } from '../wire/resource-store.ts'
import { XdsServer } from '../wire/xds-server.ts'
import type { ClientScope } from '../wire/xds-stream.ts'
import type { Gather, Snapshot } from './gather/gather.ts'
import { describeCaller, type Authenticator, type Caller } from './issue/authenticator.ts'
import { agentAccount, authorizeIssue, authorizeStream } from './issue/authorize.ts'
import { Publisher } from './publish/publisher.ts'
import { agentScope, WaypointScopes } from './publish/scope.ts'

/** What every client knows control by, whatever namespace it runs in. */
export const SERVER_NAME = 'control.ambit-system.svc'

export interface ControlOptions {
  readonly gather: Gather
  /** Opens the CA once the trust domain is known. */
  openAuthority(trustDomain: string): Promise<Authority>
  readonly authenticator: Authenticator
  /** `HOST:PORT`, port 0 = any. */
  readonly listen: string
  /** Where Ambit runs; default ambit-system. */
  readonly systemNamespace?: string
  readonly clock: Clock
  readonly log: Logger
  /** Longest life of a workload certificate; default 86 400 s. */
  readonly certificateSeconds?: number
}

/** Of the server's own certificate; renewed at half of it. */
const SERVER_CERTIFICATE_SECONDS = 86_400
const RETRY_MS = 60_000

export class Control {
  readonly #options: ControlOptions
  readonly store = new ResourceStore()
  readonly xds: XdsServer<Caller>
  readonly publisher: Publisher
  readonly #scopes = new WaypointScopes()
  readonly #listeners = new Set<(snapshot: Snapshot) => void>()
  #authority: Authority | undefined
  #server: ControlServer | undefined
  #renewal: Timer | undefined
  snapshot: Snapshot | undefined
  /** Milliseconds from a snapshot's arrival to its last resource in the store, of the last one. */
  publishMs = 0
  issued = 0
  refused = 0

  constructor(options: ControlOptions) {
    this.#options = options
    const { log, clock, authenticator } = options
    this.publisher = new Publisher(this.store, log)
    this.xds = new XdsServer<Caller>({
      store: this.store,
      clock,
      log,
      authenticate: ({ token }) => authenticator.authenticate(token),
      admit: (caller, node) => {
        authorizeStream(caller, node, this.#known().translation, agentAccount(options.systemNamespace))
        return node.type === 'agent' ? agentScope(caller.node) : this.#scopes.of(node.namespace, node.gateway ?? '')
      },
    })
  }

  /** Resolves once it serves. Rejects with what keeps it from that (CONFIG_UNREADABLE, CA_STATE_INVALID, CONTROL_LISTEN). */
  async start(): Promise<void> {
    const { gather, authenticator, listen, log } = this.#options
    await gather.start((snapshot) => this.#take(snapshot))
    const { settings } = this.#known().translation
    const authority = await this.#options.openAuthority(settings.trustDomain)
    this.#authority = authority
    const names = serverNames(listen, settings.clusterDomain, this.#options.systemNamespace)
    const certificate = await authority.serverCertificate(names, SERVER_CERTIFICATE_SECONDS)
    this.#server = await startControlServer({
      listen,
      certificate,
      services: [
        this.xds,
        {
          definition: caServiceDefinition,
          implementation: caServiceImplementation<Caller>({
            log,
            authenticate: ({ token }) => authenticator.authenticate(token),
            issue: (caller, request) => this.#issue(caller, request),
          }),
        },
      ],
    })
    this.#renewServerCertificate(certificate.notAfter, names)
    authority.onChange?.(() => {
      this.#publish()
      this.#newServerCertificate(names).catch((error: unknown) => {
        log.error({ error: messageOf(error) }, "control's own certificate was not renewed")
      })
    })
    this.#publish()
    log.info({ listen: this.address, names }, 'control serves')
  }

  /** Hears of each snapshot after it was published. */
  onSnapshot(listener: (snapshot: Snapshot) => void): void {
    this.#listeners.add(listener)
  }

  /** `HOST:PORT` it listens on. */
  get address(): string {
    const { host } = splitHostPort(this.#options.listen) ?? { host: '' }
    return joinHostPort(host, this.#server?.port ?? 0)
  }

  /** What an agent or a waypoint may have, connected or not; undefined for a waypoint that is none. */
  scopeOf(client: { agent: string } | { waypoint: string }): ClientScope | undefined {
    if ('agent' in client) return agentScope(client.agent)
    const of = this.snapshot?.translation.waypoints.find((one) => `${one.namespace}/${one.name}` === client.waypoint)
    return of && this.#scopes.of(of.namespace, of.name)
  }

  async stop(graceMs = 2_000): Promise<void> {
    this.#renewal?.cancel()
    await this.#options.gather.stop()
    this.xds.close()
    await this.#server?.close(graceMs)
  }

  #known(): Snapshot {
    if (this.snapshot) return this.snapshot
    throw new AmbitError('CONTROL_UNAVAILABLE', 'control has not read its configuration yet')
  }

  #take(snapshot: Snapshot): void {
    const { clock, log } = this.#options
    const start = clock.monotonic()
    this.snapshot = snapshot
    // Scopes first: what the store's listeners then send must already be judged by them.
    this.#scopes.update(snapshot.translation)
    const changes = this.#publish()
    // A scope may have changed (a Gateway came) without any resource changing.
    this.store.touch()
    this.publishMs = clock.monotonic() - start
    for (const listener of this.#listeners) listener(snapshot)
    log.info({ version: snapshot.version, changes, ms: Math.round(this.publishMs) }, 'configuration published')
  }

  /** What there is, with the roots of the authority in the mesh's settings. How many resources changed. */
  #publish(): number {
    const { translation } = this.#known()
    const trustBundle = this.#authority?.trustBundle ?? ''
    return this.publisher.publish({ ...translation, settings: { ...translation.settings, trustBundle } })
  }

  async #issue(caller: Caller, request: IssueRequest): Promise<readonly string[]> {
    const { log, certificateSeconds = 86_400 } = this.#options
    try {
      const identity = authorizeIssue(
        caller,
        request.impersonate,
        this.#known().translation,
        agentAccount(this.#options.systemNamespace),
      )
      if (!this.#authority) throw new AmbitError('CONTROL_UNAVAILABLE', 'control is starting')
      const wanted = request.validitySeconds > 0 ? request.validitySeconds : certificateSeconds
      const validitySeconds = Math.min(wanted, certificateSeconds)
      const chain = await this.#authority.issue(request.csr, identity, validitySeconds).catch((error: unknown) => {
        const theirs = error instanceof AmbitError && error.code === 'CSR_INVALID'
        throw new AmbitError(theirs ? 'CONTROL_BAD_REQUEST' : 'CONTROL_UNAVAILABLE', messageOf(error), { cause: error })
      })
      this.issued++
      log.info(
        { audit: 'certificate', identity: formatIdentity(identity), caller: describeCaller(caller), validitySeconds },
        'certificate issued',
      )
      return chain
    } catch (error) {
      this.refused++
      throw error
    }
  }

  #renewServerCertificate(notAfter: number, names: readonly string[]): void {
    const { clock, log } = this.#options
    const wait = Math.max(RETRY_MS, (notAfter - clock.now()) / 2)
    const renew = async (): Promise<void> => {
      let next = notAfter
      try {
        next = (await this.#newServerCertificate(names)) ?? notAfter
      } catch (error) {
        log.error({ error: messageOf(error) }, "control's own certificate was not renewed")
      }
      this.#renewServerCertificate(next, names)
    }
    this.#renewal = clock.after(wait, () => void renew(), true)
  }

  /** Resolves with the end of its validity. */
  async #newServerCertificate(names: readonly string[]): Promise<number | undefined> {
    const certificate = await this.#authority?.serverCertificate(names, SERVER_CERTIFICATE_SECONDS)
    if (certificate) this.#server?.setCertificate(certificate)
    return certificate?.notAfter
  }
}

/** The names clients know control by, and the address it listens on unless that is every address. */
function serverNames(listen: string, clusterDomain: string, systemNamespace = SYSTEM_NAMESPACE): string[] {
  const own = `control.${systemNamespace}.svc`
  const names = [...new Set([SERVER_NAME, own])].flatMap((name) => [name, `${name}.${clusterDomain}`])
  const { host } = splitHostPort(listen) ?? { host: '' }
  const bytes = parseIp(host)
  if (bytes?.some((byte) => byte !== 0)) names.push(host)
  return names
}
