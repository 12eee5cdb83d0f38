// One term of leading: follows Gateways, their parameters and the objects of their waypoints, and makes each what its Gateway
// wants: by server-side apply where something differs, again when somebody changed or deleted it, and away when the Gateway is no
// waypoint any more. What belongs to somebody else is never touched. Must not live here: what a Gateway wants (wishes.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { KubernetesObject } from '../../config/waypoint.ts'
import { apply, read, remove } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import type { Change } from '../../kube/reflector.ts'
import { isOlder, keyOf, type KubeObject, type Resource } from '../../kube/resource.ts'
import type { ObjectView } from '../gather/objects.ts'
import type { WaypointFacts, WaypointProblem } from './facts.ts'
import { fingerprintOf, Held, heldOf, MADE, type HeldObject } from './held.ts'
import { gatewayOf, ownershipOf } from './owner.ts'
import { ParameterMaps } from './parameter-maps.ts'
import { wishOf } from './wishes.ts'

const GATEWAY_API = 'gateway.networking.k8s.io'
const kindOf = (kind: string): Resource =>
  CONFIG_KINDS.find((one) => one.group === GATEWAY_API && one.kind === kind) as Resource
export const GATEWAYS = kindOf('Gateway')
export const GATEWAY_CLASSES = kindOf('GatewayClass')

/** Changes of one Gateway's objects come together. Milliseconds. */
const SETTLE_MS = 20
/** Waits after what failed, and between two repairs of what somebody else keeps changing. */
const RETRY = { baseMs: 500, maxMs: 60_000 }
/** Repairs further apart are each an accident of their own. */
const QUIET_MS = 120_000
/** Gateways worked on at once. */
const MAX_AT_ONCE = 4

export interface TermOptions {
  readonly client: KubeClient
  readonly objects: ObjectView
  readonly clock: Clock
  readonly log: Logger
  /** In [0,1). */
  readonly random?: () => number
  readonly image: string | undefined
  /** `host:port` for waypoints. */
  readonly control: string
  /** The facts of this Gateway may have changed. */
  readonly onFacts: (namespace: string, name: string) => void
}

export interface TermCounts {
  applied: number
  repaired: number
  removed: number
  failed: number
}

interface Applied {
  readonly wanted: string
  /** How the server then had it, and the version of that. */
  readonly seen: string
  readonly version: string
  /** Somebody deleted it since, or took its label off. */
  gone: boolean
}

interface Work {
  readonly namespace: string
  readonly name: string
  readonly retry: Backoff
  readonly repair: Backoff
  timer: Timer | undefined
  running: boolean
  /** Something changed while it ran. */
  again: boolean
  /** By kind. */
  readonly applied: Map<Resource, Applied>
  /** ConfigMaps it looked at. */
  used: ReadonlySet<string>
  repairedAt: number
  /** Nothing is repaired before. */
  quietUntil: number
  problem: WaypointProblem | undefined
}

export class Term {
  readonly #options: TermOptions
  readonly #held: Held
  readonly #maps: ParameterMaps
  readonly #works = new Map<string, Work>()
  readonly #waiting: Work[] = []
  readonly #counts: TermCounts
  #atOnce = 0
  #idle: (() => void)[] = []
  #off: (() => void) | undefined
  #ready = false
  #stopped = false

  constructor(options: TermOptions, counts: TermCounts) {
    const { client, clock, log } = options
    this.#options = options
    this.#counts = counts
    this.#held = new Held({ client, clock, log })
    this.#maps = new ParameterMaps({ client, clock, log }, () => this.#all())
  }

  /** Resolves when everything is known and looked at for the first time, or when it is stopped. */
  async start(): Promise<void> {
    this.#off = this.#options.objects.onChange((resource, changes) => {
      // A class has few Gateways that know of it, and changes once in its life.
      if (resource === GATEWAY_CLASSES) this.#all()
      if (resource !== GATEWAYS) return
      for (const change of changes) {
        const { metadata } = change.type === 'set' ? change.object : change.before
        this.#look(metadata.namespace ?? '', metadata.name)
      }
    })
    await this.#held.start((resource, change) => this.#changed(resource, change))
    this.#ready = true
    this.#all()
  }

  /** Writes nothing more; resolves when what was being written is answered. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#off?.()
    for (const work of this.#works.values()) work.timer?.cancel()
    this.#waiting.length = 0
    await Promise.all([this.#held.stop(), this.#maps.stop(), this.#untilIdle()])
  }

  facts(namespace: string, name: string): WaypointFacts | undefined {
    const gateway = this.#options.objects.get(GATEWAYS, namespace, name)
    const work = this.#works.get(keyOf({ namespace, name }))
    if (!gateway || !work) return undefined
    const uid = gateway.metadata.uid ?? ''
    const ours = (plural: string): HeldObject | undefined => {
      const resource = MADE.find((one) => one.plural === plural) as Resource
      const object = this.#held.get(resource, namespace, name)
      return ownershipOf(object?.metadata, { name, uid }).kind === 'ours' ? object : undefined
    }
    const deployment = ours('deployments')
    return {
      namespace,
      name,
      uid,
      generation: gateway.metadata.generation ?? 0,
      addresses: addressesOf(ours('services')),
      ready: deployment?.status?.readyReplicas ?? 0,
      wanted: deployment ? (deployment.spec?.replicas ?? 1) : 0,
      ...(work.problem ? { problem: work.problem } : {}),
    }
  }

  states(): { readonly made: number; readonly problem: number } {
    let made = 0
    let problem = 0
    for (const work of this.#works.values()) {
      if (work.problem) problem++
      else if (work.applied.size > 0) made++
    }
    return { made, problem }
  }

  #changed(resource: Resource, change: Change<HeldObject>): void {
    const { metadata } = change.type === 'set' ? change.object : change.before
    const gateway = gatewayOf(metadata)
    if (!gateway || this.#stopped) return
    const namespace = metadata.namespace ?? ''
    const applied = this.#works.get(keyOf({ namespace, name: gateway.name }))?.applied.get(resource)
    if (applied && change.type === 'delete') applied.gone = true
    this.#look(namespace, gateway.name)
    this.#options.onFacts(namespace, gateway.name)
  }

  #all(): void {
    for (const { metadata } of this.#options.objects.list(GATEWAYS)) this.#look(metadata.namespace ?? '', metadata.name)
    for (const { metadata } of this.#held.all()) {
      const gateway = gatewayOf(metadata)
      if (gateway) this.#look(metadata.namespace ?? '', gateway.name)
    }
  }

  #look(namespace: string, name: string): void {
    if (this.#stopped || !this.#ready) return
    const key = keyOf({ namespace, name })
    let work = this.#works.get(key)
    if (!work) {
      const { random } = this.#options
      const backoff = () => new Backoff({ ...RETRY, ...(random ? { random } : {}) })
      work = {
        namespace,
        name,
        retry: backoff(),
        repair: backoff(),
        timer: undefined,
        running: false,
        again: false,
        applied: new Map(),
        used: new Set(),
        repairedAt: -Infinity,
        quietUntil: -Infinity,
        problem: undefined,
      }
      this.#works.set(key, work)
    }
    this.#plan(work, SETTLE_MS)
  }

  #plan(work: Work, ms: number): void {
    if (this.#stopped) return
    if (work.running) {
      work.again = true
      return
    }
    work.timer?.cancel()
    work.timer = this.#options.clock.after(
      ms,
      () => {
        work.timer = undefined
        work.running = true
        this.#waiting.push(work)
        this.#next()
      },
      true,
    )
  }

  #next(): void {
    while (this.#atOnce < MAX_AT_ONCE) {
      const work = this.#waiting.shift()
      if (!work) break
      this.#atOnce++
      void this.#attend(work).finally(() => {
        this.#atOnce--
        work.running = false
        if (work.again) {
          work.again = false
          this.#plan(work, SETTLE_MS)
        }
        this.#next()
      })
    }
    if (this.#atOnce === 0) for (const resolve of this.#idle.splice(0)) resolve()
  }

  #untilIdle(): Promise<void> {
    return this.#atOnce === 0 ? Promise.resolve() : new Promise((resolve) => this.#idle.push(resolve))
  }

  /** One look at one Gateway. Never rejects: what failed is tried again. */
  async #attend(work: Work): Promise<void> {
    const before = JSON.stringify(work.problem)
    try {
      await this.#make(work)
    } catch (error) {
      this.#failed(work, error)
    }
    if (JSON.stringify(work.problem) !== before) {
      const { namespace, name, problem } = work
      const gateway = `${namespace}/${name}`
      if (problem) this.#options.log.warn({ gateway, code: problem.code, hint: problem.hint }, problem.message)
      else this.#options.log.info({ gateway }, 'the objects of the waypoint are as they should be again')
      if (!this.#stopped) this.#options.onFacts(namespace, name)
    }
  }

  async #make(work: Work): Promise<void> {
    const { objects, image, control } = this.#options
    const { namespace, name } = work
    const gateway = objects.get(GATEWAYS, namespace, name)
    // The garbage collector takes what belonged to it.
    if (!gateway) return this.#forget(work)
    const used = new Set<string>()
    const { gatewayClassName = '' } = ((gateway as { spec?: unknown }).spec ?? {}) as { gatewayClassName?: string }
    const gatewayClass = objects.get(GATEWAY_CLASSES, '', gatewayClassName)
    const parameterMap = this.#maps.get.bind(this.#maps)
    const wish = wishOf(gateway, { image, control, gatewayClass, parameterMap }, used)
    this.#retain(work, used)
    if (wish.kind === 'wait') {
      work.problem = wish.problem
      if (wish.again) this.#later(work)
      return
    }
    const uid = gateway.metadata.uid ?? ''
    const wanted = new Map(
      (wish.kind === 'objects' ? wish.objects : []).map((object) => [
        MADE.find((one) => one.kind === object.kind) as Resource,
        object,
      ]),
    )
    if (!(await this.#applyAll(work, uid, wanted))) return
    for (const resource of MADE) {
      const object = this.#held.get(resource, namespace, name)
      if (wanted.has(resource) || !object || this.#stopped) continue
      if (ownershipOf(object.metadata, { name, uid }).kind !== 'ours') continue
      await remove(this.#options.client, resource, { namespace, name, uid: object.metadata.uid })
      work.applied.delete(resource)
      this.#counts.removed++
      this.#options.log.info({ kind: resource.kind, namespace, name }, 'removed: its Gateway wants it no more')
    }
    work.problem = undefined
    work.retry.reset()
  }

  /** False when it cannot be now: why is in the problem, and it is tried again. */
  async #applyAll(work: Work, uid: string, wanted: ReadonlyMap<Resource, KubernetesObject>): Promise<boolean> {
    const { client, clock } = this.#options
    const { namespace, name } = work
    const due: { resource: Resource; object: KubernetesObject; existing: KubeObject | undefined; drift: boolean }[] = []
    for (const [resource, object] of wanted) {
      const held = this.#held.get(resource, namespace, name)
      const applied = work.applied.get(resource)
      const said = JSON.stringify(object)
      if (applied?.wanted === said && !applied.gone && isAsApplied(held, applied)) continue
      // Without our label it is not among those held.
      const existing = held ?? (await read(client, resource, { namespace, name }))
      const ownership = ownershipOf(existing?.metadata, { name, uid })
      if (ownership.kind === 'foreign') {
        const what = `${resource.kind} ${namespace}/${name}`
        work.problem = {
          kind: 'taken',
          code: 'WAYPOINT_NAME_TAKEN',
          message: `There is a ${what} already, and ${ownership.why}: nothing is made for this Gateway.`,
          hint: 'Give the Gateway another name, or remove the other object.',
        }
        this.#later(work)
        return false
      }
      if (ownership.kind === 'leaving') {
        this.#later(work)
        return false
      }
      due.push({ resource, object, existing, drift: applied?.wanted === said })
    }
    const drifted = due.some((one) => one.drift)
    if (drifted && due.every((one) => one.drift) && clock.monotonic() < work.quietUntil) {
      this.#after(work, work.quietUntil - clock.monotonic())
      return false
    }
    if (drifted) this.#repairing(work)
    for (const { resource, object, existing, drift } of due) {
      if (this.#stopped) return false
      // With the uid: not one that came in its place meanwhile.
      const metadata = { ...object.metadata, ...(existing?.metadata.uid ? { uid: existing.metadata.uid } : {}) }
      const now = await apply(client, resource, { ...object, metadata } as KubeObject)
      const version = now.metadata.resourceVersion ?? ''
      work.applied.set(resource, {
        wanted: JSON.stringify(object),
        seen: fingerprintOf(heldOf(now)),
        version,
        gone: false,
      })
      this.#counts.applied++
      if (drift && version !== existing?.metadata.resourceVersion) this.#counts.repaired++
      this.#options.log.debug({ kind: resource.kind, namespace, name, drift }, 'applied')
    }
    return true
  }

  /** Somebody changed what was applied: at once the first time, ever more slowly with who does it again and again. */
  #repairing(work: Work): void {
    const now = this.#options.clock.monotonic()
    if (now - work.repairedAt > QUIET_MS) work.repair.reset()
    work.repairedAt = now
    work.quietUntil = now + work.repair.next()
  }

  #failed(work: Work, error: unknown): void {
    this.#counts.failed++
    const { namespace, name } = work
    const status = error instanceof KubeError ? error.status : 0
    const refused = error instanceof KubeError && [400, 403, 422].includes(status)
    if (refused) {
      const invalid = status !== 403
      work.problem = {
        kind: invalid && work.used.size > 0 ? 'parameters' : 'refused',
        code: error.code,
        message: `The API server refuses an object of the waypoint: ${error.message}.`.replace('..', '.'),
        hint: error.hint ?? (work.used.size > 0 ? 'Look at the ConfigMap of its parameters.' : ''),
      }
    } else if (work.retry.attempt === 0) {
      this.#options.log.warn(
        { gateway: `${namespace}/${name}`, error: messageOf(error) },
        'the objects of a waypoint could not be written; tried again',
      )
    }
    this.#later(work)
  }

  #later(work: Work): void {
    this.#after(work, work.retry.next())
  }

  /** From inside a run: when it is over, unless something changes sooner. */
  #after(work: Work, ms: number): void {
    this.#options.clock.after(
      0,
      () => {
        if (!work.timer && !work.running) this.#plan(work, ms)
      },
      true,
    )
  }

  #retain(work: Work, used: ReadonlySet<string>): void {
    work.used = used
    this.#maps.retain(new Set([...this.#works.values()].flatMap((one) => [...one.used])))
  }

  #forget(work: Work): void {
    const { namespace, name } = work
    this.#retain(work, new Set())
    this.#works.delete(keyOf(work))
    this.#options.onFacts(namespace, name)
  }
}

/** The watch tells of what was applied a little later: until then there is nothing to compare. */
function isAsApplied(held: HeldObject | undefined, { version, seen }: Applied): boolean {
  return !held || isOlder(held.metadata.resourceVersion ?? '', version) || fingerprintOf(held) === seen
}

function addressesOf(service: HeldObject | undefined): WaypointFacts['addresses'] {
  if (!service) return []
  const addresses: { type: 'IPAddress' | 'Hostname'; value: string }[] = []
  for (const { ip, hostname } of service.status?.loadBalancer?.ingress ?? []) {
    if (ip) addresses.push({ type: 'IPAddress', value: ip })
    else if (hostname) addresses.push({ type: 'Hostname', value: hostname })
  }
  for (const value of service.spec?.clusterIPs ?? []) if (value !== 'None') addresses.push({ type: 'IPAddress', value })
  const { name, namespace } = service.metadata
  return addresses.length > 0 ? addresses : [{ type: 'Hostname', value: `${name}.${namespace}.svc` }]
}
