// Writes what the mesh thinks of each resource into its status, while this replica leads: after every snapshot those that changed,
// a few at a time. Must not live here: what is thought (istio-status.ts, gateway-status.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { WAYPOINT_CLASSES } from '../../config/gateway.ts'
import type { Problem } from '../../config/problem.ts'
import { apply, read, replaceStatus } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import type { KubeObject, ObjectMeta, Resource } from '../../kube/resource.ts'
import { same } from '../../kube/same.ts'
import type { Snapshot } from '../gather/gather.ts'
import type { ObjectView } from '../gather/objects.ts'
import type { Leadership } from '../lead.ts'
import type { WaypointView } from '../operate/facts.ts'
import { listOf, type Condition } from './conditions.ts'
import {
  CONTROLLER_NAME,
  gatewayClassStatus,
  gatewayStatus,
  routeParents,
  type ParentRef,
  type ParentStatus,
} from './gateway-status.ts'
import { istioStatus } from './istio-status.ts'

export interface ReporterOptions {
  readonly client: KubeClient
  readonly objects: ObjectView
  readonly leadership: Leadership
  readonly waypoints: WaypointView
  readonly clock: Clock
  readonly log: Logger
  /** Writes a second once the first hundred are through; default 20. */
  readonly perSecond?: number
}

interface Configured extends KubeObject {
  readonly spec?: Readonly<Record<string, unknown>>
  readonly status?: Readonly<Record<string, unknown>>
}

/** Without one: grants say nothing back, and ServiceProfile has no status. */
const SILENT = ['ReferenceGrant', 'ServiceProfile']
const GATEWAY_API = 'gateway.networking.k8s.io'
const CONCURRENCY = 4
/** So many may be written at once after a quiet time: a person's `kubectl apply -f folder`. */
const BURST = 100
const NONE: readonly Problem[] = []

export class Reporter {
  readonly #options: ReporterOptions
  readonly #kinds = CONFIG_KINDS.filter((one) => !SILENT.includes(one.kind))
  readonly #backoff = new Backoff({ baseMs: 500, maxMs: 30_000 })
  readonly #waiting = new Map<
    string,
    { readonly resource: Resource; readonly namespace: string; readonly name: string }
  >()
  #problems = new Map<string, Problem[]>()
  /** Generations the snapshot is about: of a newer one nothing is known yet. */
  readonly #judged = new Map<string, number | undefined>()
  #snapshot: Snapshot | undefined
  #running = 0
  #tokens = BURST
  #tokensAt: number
  #timer: Timer | undefined
  #stopped = false
  #offs: (() => void)[] = []
  /** For metrics. */
  readonly counts = { written: 0, failed: 0 }

  constructor(options: ReporterOptions) {
    this.#options = options
    this.#tokensAt = options.clock.monotonic()
  }

  start(): void {
    const { leadership, objects, waypoints } = this.#options
    this.#offs.push(
      leadership.onChange((leads) => leads && this.#lookAtAll()),
      // Somebody overwrote a status, or an object of the same meaning came: the snapshot stays as it is.
      objects.onChange((resource, changes) => {
        if (!this.#kinds.includes(resource)) return
        for (const change of changes) if (change.type === 'set') this.#look(resource, change.object)
        this.#work()
      }),
      waypoints.onChange((namespace, name) => {
        const resource = this.#kinds.find((one) => one.group === GATEWAY_API && one.kind === 'Gateway')!
        const object = objects.get(resource, namespace, name)
        if (object) this.#look(resource, object)
        this.#work()
      }),
    )
  }

  /** What is thought now; from every replica, so that a new leader knows. */
  take(snapshot: Snapshot): void {
    this.#snapshot = snapshot
    const problems = new Map<string, Problem[]>()
    for (const one of snapshot.problems) {
      if (!one.resource) continue
      const key = problemKey(one.resource.group, one.resource.kind, one.resource.namespace, one.resource.name)
      const list = problems.get(key)
      if (list) list.push(one)
      else problems.set(key, [one])
    }
    this.#problems = problems
    // A snapshot is told in the turn it was taken: what is held now is what it is about.
    this.#judged.clear()
    for (const resource of this.#kinds)
      for (const { metadata } of this.#options.objects.list(resource))
        this.#judged.set(keyOf(resource, metadata), metadata.generation)
    this.#lookAtAll()
  }

  stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    for (const off of this.#offs) off()
    this.#waiting.clear()
    return Promise.resolve()
  }

  #lookAtAll(): void {
    if (!this.#options.leadership.leads || !this.#snapshot) return
    for (const resource of this.#kinds)
      for (const object of this.#options.objects.list(resource)) this.#look(resource, object)
    this.#work()
  }

  /** Notes an object whose status is not what is thought of it. */
  #look(resource: Resource, object: KubeObject): void {
    if (!this.#options.leadership.leads || !this.#snapshot) return
    const { namespace = '', name } = object.metadata
    const key = keyOf(resource, object.metadata)
    if (this.#statusFor(resource, object as Configured) === undefined) this.#waiting.delete(key)
    else this.#waiting.set(key, { resource, namespace, name })
  }

  #isJudged(resource: Resource, { metadata }: KubeObject): boolean {
    const key = keyOf(resource, metadata)
    return this.#judged.has(key) && this.#judged.get(key) === metadata.generation
  }

  #problemsOf(resource: Resource, { metadata }: KubeObject): readonly Problem[] {
    return this.#problems.get(keyOf(resource, metadata)) ?? NONE
  }

  /** The status to write; undefined when it stands there already, or none is Ambit's to write. */
  #statusFor(resource: Resource, object: Configured): unknown {
    const { metadata, spec = {}, status = {} } = object
    if (!this.#isJudged(resource, object)) return undefined
    const now = new Date(this.#options.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')
    const problems = this.#problemsOf(resource, object)
    if (resource.group !== GATEWAY_API) {
      const next = istioStatus(problems, status, metadata.generation, now)
      return same(pick(status, next), next) && (next.validationMessages || !status['validationMessages'])
        ? undefined
        : next
    }
    switch (resource.kind) {
      case 'GatewayClass': {
        if (spec['controllerName'] !== CONTROLLER_NAME) return undefined
        const next = gatewayClassStatus(status, metadata.generation, now)
        return same(pick(status, next), next) ? undefined : next
      }
      case 'Gateway': {
        if (!WAYPOINT_CLASSES.includes(String(spec['gatewayClassName']))) return undefined
        const listeners = Array.isArray(spec['listeners'])
          ? (spec['listeners'] as { name: string; protocol: string }[])
          : []
        const facts = this.#options.waypoints.facts(metadata.namespace ?? '', metadata.name)
        const known = facts?.uid === metadata.uid ? facts : undefined
        const next = gatewayStatus({ generation: metadata.generation, listeners, before: status }, problems, known, now)
        return same(pick(status, next), next) ? undefined : next
      }
      case 'HTTPRoute': {
        const parents = this.#parentsOf(object, status['parents'], now)
        return same(status['parents'] ?? [], parents) ? undefined : { parents }
      }
      default:
        return undefined
    }
  }

  #parentsOf(object: Configured, before: unknown, now: string): readonly ParentStatus[] {
    const { metadata, spec = {} } = object
    const resource = this.#kinds.find((one) => one.kind === 'HTTPRoute')!
    const gateways = this.#kinds.find((one) => one.group === GATEWAY_API && one.kind === 'Gateway')!
    return routeParents(
      {
        generation: metadata.generation,
        parentRefs: Array.isArray(spec['parentRefs']) ? (spec['parentRefs'] as ParentRef[]) : [],
        rules: Array.isArray(spec['rules']) ? spec['rules'].length : 1,
        before,
      },
      this.#problemsOf(resource, object),
      (parent) => {
        const found = this.#options.objects.get(gateways, parent.namespace ?? metadata.namespace ?? '', parent.name)
        return WAYPOINT_CLASSES.includes(String((found as Configured | undefined)?.spec?.['gatewayClassName']))
      },
      now,
    )
  }

  #work(): void {
    if (this.#stopped || this.#timer || !this.#options.leadership.leads) return
    for (const [key, { resource, namespace, name }] of this.#waiting) {
      if (this.#running >= CONCURRENCY) return
      if (!this.#takeToken()) return
      this.#waiting.delete(key)
      const object = this.#options.objects.get(resource, namespace, name) as Configured | undefined
      const status = object && this.#statusFor(resource, object)
      if (!object || status === undefined) continue
      this.#running++
      void this.#write(resource, object, status, key).finally(() => {
        this.#running--
        this.#work()
      })
    }
  }

  /** A bucket: a snapshot that touches thousands must not take the API server's time from others. */
  #takeToken(): boolean {
    const { clock, perSecond = 20 } = this.#options
    const now = clock.monotonic()
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#tokensAt) / 1_000) * perSecond)
    this.#tokensAt = now
    if (this.#tokens < 1) {
      this.#wait(1_000 / perSecond)
      return false
    }
    this.#tokens--
    return true
  }

  #wait(ms: number): void {
    this.#timer ??= this.#options.clock.after(ms, () => {
      this.#timer = undefined
      this.#work()
    })
  }

  async #write(resource: Resource, object: Configured, status: unknown, key: string): Promise<void> {
    const { client, log } = this.#options
    const { namespace, name } = object.metadata
    const place = { ...(namespace === undefined ? {} : { namespace }), name }
    try {
      if (resource.kind === 'HTTPRoute') await this.#writeParents(resource, place)
      else await apply(client, resource, { metadata: place, status } as KubeObject, { sub: 'status' })
      this.counts.written++
      this.#backoff.reset()
    } catch (error) {
      // Gone meanwhile.
      if (error instanceof KubeError && error.status === 404) return
      this.counts.failed++
      log.warn({ resource: `${resource.kind} ${key}`, error: messageOf(error) }, 'a status could not be written')
      this.#waiting.set(key, { resource, namespace: namespace ?? '', name })
      this.#wait(this.#backoff.next())
    }
  }

  /** The list is replaced whole (it is atomic in the API), so it is read first: other controllers' entries are in it. */
  async #writeParents(resource: Resource, place: { namespace?: string; name: string }): Promise<void> {
    const { client, clock } = this.#options
    const fresh = await read<Configured>(client, resource, place)
    if (!fresh || !this.#isJudged(resource, fresh)) return
    const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')
    const parents = this.#parentsOf(fresh, fresh.status?.['parents'], now)
    if (same(fresh.status?.['parents'] ?? [], parents)) return
    await replaceStatus(client, resource, { ...fresh, status: { ...fresh.status, parents } } as KubeObject)
  }
}

function keyOf({ group, kind }: Resource, { namespace, name }: ObjectMeta): string {
  return problemKey(group, kind, namespace ?? '', name)
}

function problemKey(group: string | undefined, kind: string, namespace: string, name: string): string {
  return `${group ?? ''}/${kind}/${namespace}/${name}`
}

/** The fields of `next` as they stand in a status; of conditions only those of its types, since others may add their own. */
function pick(status: Readonly<Record<string, unknown>>, next: { readonly conditions: readonly Condition[] }): unknown {
  const types = next.conditions.map((one) => one.type)
  const conditions = listOf(status['conditions']).filter((one) => types.includes(one.type))
  return { ...Object.fromEntries(Object.keys(next).map((key) => [key, status[key]])), conditions }
}
