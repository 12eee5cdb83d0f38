// Writes what the mesh thinks of each resource into its status, while this replica leads: after every snapshot those that changed,
// a few at a time. Must not live here: what is thought (istio-status.ts, gateway-status.ts), when (queue.ts).
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Problem } from '../../config/problem.ts'
import { apply, read, replaceStatus } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import type { KubeObject, ObjectMeta, Resource } from '../../kube/resource.ts'
import { same } from '../../kube/same.ts'
import type { Snapshot } from '../gather/gather.ts'
import type { ObjectView } from '../gather/objects.ts'
import {
  GATEWAY_API,
  GATEWAY_CLASSES,
  GATEWAYS,
  isOurClass,
  isOurGateway,
  isOurParent,
  ROUTES,
} from '../gather/ours.ts'
import type { Leadership } from '../lead.ts'
import type { WaypointView } from '../operate/facts.ts'
import { gatewayClassStatus, gatewayStatus, routeParents, type ListenerSpec, type ParentRef } from './gateway-status.ts'
import { istioStatus } from './istio-status.ts'
import { mergeStatus, speaksOf } from './merge-status.ts'
import { WriteQueue } from './queue.ts'

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
const CONCURRENCY = 4
/** So many may be written at once after a quiet time: a person's `kubectl apply -f folder`. */
const BURST = 100
/** Snapshots that come close together are looked at together, and not in the turn that brings them to the agents. */
const SETTLE_MS = 10
/** Writes about one generation after which somebody is taken to write against us, and each further one waits twice as long. */
const PATIENCE = 5
const QUIET_MS = 120_000
const MAX_FIGHT_MS = 60_000
const NONE: readonly Problem[] = []

/** What was written about one object. */
interface Written {
  readonly uid: string | undefined
  readonly generation: number | undefined
  readonly at: number
  readonly times: number
}

export class Reporter {
  readonly #options: ReporterOptions
  readonly #kinds = CONFIG_KINDS.filter((one) => !SILENT.includes(one.kind))
  readonly #queue: WriteQueue
  readonly #places = new Map<
    string,
    { readonly resource: Resource; readonly namespace: string; readonly name: string }
  >()
  readonly #written = new Map<string, Written>()
  #problems = new Map<string, Problem[]>()
  /** Generations the snapshot is about: of a newer one nothing is known yet. */
  readonly #judged = new Map<string, number | undefined>()
  /** As it was when nothing had to be written about it. */
  readonly #settled = new Map<string, { readonly object: KubeObject; readonly problems: readonly Problem[] }>()
  #snapshot: Snapshot | undefined
  #looking: Timer | undefined
  #offs: (() => void)[] = []

  constructor(options: ReporterOptions) {
    this.#options = options
    const { clock, log, perSecond = 20 } = options
    this.#queue = new WriteQueue({
      clock,
      perSecond,
      burst: BURST,
      atOnce: CONCURRENCY,
      write: (key) => this.#write(key),
      onFailure: (key, error) => log.warn({ resource: key, error: messageOf(error) }, 'a status could not be written'),
    })
  }

  /** For metrics. */
  get counts(): WriteQueue['counts'] {
    return this.#queue.counts
  }

  /** Objects whose status is not what is thought of them, just now. */
  get waiting(): number {
    return this.#queue.size
  }

  start(): void {
    const { leadership, objects, waypoints } = this.#options
    this.#offs.push(
      leadership.onChange((leads) => {
        this.#settled.clear()
        if (leads) this.#lookSoon()
        else this.#queue.clear()
      }),
      // Somebody overwrote a status, or an object of the same meaning came: the snapshot stays as it is.
      objects.onChange((resource, changes) => {
        if (!this.#kinds.includes(resource)) return
        for (const change of changes) {
          if (change.type === 'set') this.#look(resource, change.object)
          else this.#forget(keyOf(resource, change.before.metadata))
        }
      }),
      waypoints.onChange((namespace, name) => {
        const object = objects.get(GATEWAYS, namespace, name)
        if (object) this.#look(GATEWAYS, object)
      }),
    )
    this.#lookSoon()
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
    this.#lookSoon()
  }

  stop(): void {
    this.#looking?.cancel()
    for (const off of this.#offs) off()
    this.#queue.stop()
  }

  #lookSoon(): void {
    const { leadership, clock } = this.#options
    if (!leadership.leads || !this.#snapshot) return
    this.#looking ??= clock.after(SETTLE_MS, () => {
      this.#looking = undefined
      for (const resource of this.#kinds)
        for (const object of this.#options.objects.list(resource)) this.#look(resource, object)
    })
  }

  /** Notes an object whose status is not what is thought of it. */
  #look(resource: Resource, object: KubeObject): void {
    if (!this.#options.leadership.leads || !this.#snapshot) return
    const key = keyOf(resource, object.metadata)
    const problems = this.#problems.get(key) ?? NONE
    // Those of Gateway API also depend on each other, and on how a waypoint runs.
    if (resource.group !== GATEWAY_API) {
      const settled = this.#settled.get(key)
      if (settled?.object === object && same(settled.problems, problems)) return
    }
    if (!this.#isJudged(resource, object)) return
    if (this.#statusFor(resource, object as Configured) === undefined) {
      this.#settled.set(key, { object, problems })
      this.#queue.delete(key)
      return
    }
    this.#settled.delete(key)
    const { namespace = '', name } = object.metadata
    this.#places.set(key, { resource, namespace, name })
    const last = this.#written.get(key)
    if (last && isAbout(last, object)) this.#queue.add(key, this.#patience(last))
    else this.#queue.hurry(key)
  }

  #forget(key: string): void {
    this.#settled.delete(key)
    this.#written.delete(key)
    this.#places.delete(key)
    this.#queue.delete(key)
  }

  /** How long to wait before the same is said again: two who write against each other must not do it all day. */
  #patience({ times, at }: Written): number {
    if (times < PATIENCE) return 0
    const until = at + Math.min(MAX_FIGHT_MS, 500 * 2 ** (times - PATIENCE))
    return Math.max(0, until - this.#options.clock.monotonic())
  }

  #isJudged(resource: Resource, { metadata }: KubeObject): boolean {
    const key = keyOf(resource, metadata)
    return this.#judged.has(key) && this.#judged.get(key) === metadata.generation
  }

  #problemsOf(resource: Resource, { metadata }: KubeObject): readonly Problem[] {
    return this.#problems.get(keyOf(resource, metadata)) ?? NONE
  }

  /** What Ambit has to say in the status; undefined when it stands there already, or none is Ambit's to write. */
  #statusFor(resource: Resource, object: Configured): Readonly<Record<string, unknown>> | undefined {
    const status = object.status ?? {}
    const next = this.#wantedStatus(resource, object, status)
    return next && !same(speaksOf(status, next), next) ? next : undefined
  }

  #wantedStatus(
    resource: Resource,
    object: Configured,
    status: Readonly<Record<string, unknown>>,
  ): Readonly<Record<string, unknown>> | undefined {
    const { metadata, spec = {} } = object
    const { generation } = metadata
    const now = new Date(this.#options.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')
    const problems = this.#problemsOf(resource, object)
    switch (resource) {
      case GATEWAY_CLASSES:
        return isOurClass(object) ? { ...gatewayClassStatus(metadata.name, status, generation, now) } : undefined
      case GATEWAYS: {
        if (!isOurGateway(object, this.#options.objects)) return undefined
        const listeners = Array.isArray(spec['listeners']) ? (spec['listeners'] as ListenerSpec[]) : []
        const facts = this.#options.waypoints.facts(metadata.namespace ?? '', metadata.name)
        const known = facts?.uid === metadata.uid ? facts : undefined
        return { ...gatewayStatus({ generation, listeners, before: status }, problems, known, now) }
      }
      case ROUTES: {
        const parents = routeParents(
          {
            generation,
            parentRefs: Array.isArray(spec['parentRefs']) ? (spec['parentRefs'] as ParentRef[]) : [],
            rules: Array.isArray(spec['rules']) ? spec['rules'].length : 1,
            before: status['parents'],
          },
          problems,
          (parent) => isOurParent(parent, metadata.namespace ?? '', this.#options.objects),
          now,
        )
        return parents.length === 0 && status['parents'] === undefined ? undefined : { parents }
      }
      default:
        return { ...istioStatus(problems, status, generation, now) }
    }
  }

  async #write(key: string): Promise<boolean> {
    const { client, objects, leadership, clock } = this.#options
    const place = this.#places.get(key)
    const object = place && (objects.get(place.resource, place.namespace, place.name) as Configured | undefined)
    if (!place || !object || !leadership.leads || !this.#isJudged(place.resource, object)) return false
    const { resource } = place
    const status = this.#statusFor(resource, object)
    if (status === undefined) return false
    const { uid, generation } = object.metadata
    const last = this.#written.get(key)
    const now = clock.monotonic()
    const times = last && isAbout(last, object) && now - last.at < QUIET_MS ? last.times + 1 : 1
    this.#written.set(key, { uid, generation, at: now, times })
    const at = { ...(resource.namespaced ? { namespace: place.namespace } : {}), name: place.name }
    // Lists that others write into too are replaced as a whole (they are atomic in the API), and what is to go can be theirs.
    if (resource !== ROUTES && !mergeStatus(object.status, status).others) {
      const after = await apply<Configured>(client, objects.served(resource), { metadata: at, status } as Configured, {
        sub: 'status',
      })
      if (after.metadata.generation !== generation || this.#statusFor(resource, after) === undefined) return true
    }
    return await this.#replace(resource, at)
  }

  /** Reads it first, and writes only onto what was read: a conflict is tried again. */
  async #replace(resource: Resource, at: { readonly namespace?: string; readonly name: string }): Promise<boolean> {
    const { client, objects } = this.#options
    const served = objects.served(resource)
    const fresh = await read<Configured>(client, served, at)
    if (!fresh || !this.#isJudged(resource, fresh)) return false
    const next = this.#statusFor(resource, fresh)
    if (next === undefined) return false
    await replaceStatus(client, served, { ...fresh, status: mergeStatus(fresh.status, next).status } as Configured)
    return true
  }
}

function isAbout({ uid, generation }: Written, { metadata }: KubeObject): boolean {
  return uid === metadata.uid && generation === metadata.generation
}

function keyOf({ group, kind }: Resource, { namespace, name }: ObjectMeta): string {
  return problemKey(group, kind, namespace ?? '', name)
}

function problemKey(group: string | undefined, kind: string, namespace: string, name: string): string {
  return `${group ?? ''}/${kind}/${namespace}/${name}`
}
