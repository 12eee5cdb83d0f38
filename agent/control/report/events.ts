// Tells of problems by Events on the objects they are about, where `kubectl describe` and `kubectl get events` show them: once when
// they have lasted a moment, again while they last before the cluster forgets, and never more than a few a second. The leader
// tells. Must not live here: which problems (occasions.ts).
import { createHash } from 'node:crypto'
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { ResourceRef } from '../../config/problem.ts'
import { create, merge } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import {
  CONFIG_KINDS,
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  EVENTS,
  NAMESPACES,
  NODES,
  PODS,
  SERVICES,
} from '../../kube/mesh-kinds.ts'
import { apiVersionOf, type KubeObject, type Resource } from '../../kube/resource.ts'
import type { Snapshot } from '../gather/gather.ts'
import type { ObjectView } from '../gather/objects.ts'
import { isOurs } from '../gather/ours.ts'
import type { Leadership } from '../lead.ts'
import { occasionsOf, type Occasion } from './occasions.ts'
import { WriteQueue } from './queue.ts'

export interface EventsOptions {
  readonly client: KubeClient
  readonly objects: ObjectView
  readonly leadership: Leadership
  /** Pod name of this replica. */
  readonly replica: string
  readonly clock: Clock
  readonly log: Logger
}

/** `source.component` of Ambit's Events of control. */
export const EVENT_SOURCE = 'ambit-control'

/** What is put right as fast is not told: a folder is applied in any order. Twice, from the snapshot to the Event. Milliseconds. */
const SETTLE_MS = 1_000
/** Between two changes of one Event: its text may count pods. */
const CHANGE_MS = 30_000
/** API servers forget Events after an hour. */
const REPEAT_MS = 45 * 60_000
const LOOK_MS = 5 * 60_000
const QUEUE = { perSecond: 2, burst: 50, atOnce: 2, max: 1_000, attempts: 4 }
/** `core/v1` names: a DNS subdomain. */
const MAX_NAME = 253

const KINDS = new Map<string, Resource>(
  [NAMESPACES, NODES, PODS, SERVICES, ENDPOINT_SLICES, CONFIG_MAPS, ...CONFIG_KINDS].map((one) => [
    `${one.group}/${one.kind}`,
    one,
  ]),
)

interface Told {
  readonly uid: string
  readonly message: string
  readonly count: number
  /** Monotonic milliseconds. */
  readonly at: number
}

interface CoreEvent extends KubeObject {
  readonly count?: number
}

export class Events {
  readonly #options: EventsOptions
  readonly #queue: WriteQueue
  readonly #told = new Map<string, Told>()
  #wanted: ReadonlyMap<string, Occasion> = new Map()
  #snapshot: Snapshot | undefined
  #looking: Timer | undefined
  #repeating: Timer | undefined
  #off: (() => void) | undefined
  #full = false

  constructor(options: EventsOptions) {
    this.#options = options
    const { clock, log } = options
    this.#queue = new WriteQueue({
      ...QUEUE,
      clock,
      write: (key) => this.#write(key),
      onFailure: (key, error) => log.warn({ about: key, error: messageOf(error) }, 'an Event could not be written'),
    })
  }

  /** For metrics. */
  get counts(): WriteQueue['counts'] {
    return this.#queue.counts
  }

  start(): void {
    this.#off = this.#options.leadership.onChange((leads) => {
      if (leads) return this.#lookSoon(SETTLE_MS)
      this.#queue.clear()
      this.#told.clear()
    })
    this.#repeatLater()
    this.#lookSoon(SETTLE_MS)
  }

  /** What is thought now; from every replica, so that a new leader knows. */
  take(snapshot: Snapshot): void {
    this.#snapshot = snapshot
    this.#lookSoon(SETTLE_MS)
  }

  stop(): void {
    this.#off?.()
    this.#looking?.cancel()
    this.#repeating?.cancel()
    this.#queue.stop()
  }

  #lookSoon(ms: number): void {
    if (!this.#options.leadership.leads) return
    this.#looking ??= this.#options.clock.after(
      ms,
      () => {
        this.#looking = undefined
        this.#look()
      },
      true,
    )
  }

  #repeatLater(): void {
    this.#repeating = this.#options.clock.after(
      LOOK_MS,
      () => {
        this.#look()
        this.#repeatLater()
      },
      true,
    )
  }

  #look(): void {
    const { leadership, clock, log } = this.#options
    if (!leadership.leads || !this.#snapshot) return
    this.#wanted = occasionsOf(this.#snapshot.problems, (ref) => this.#isOurs(ref))
    for (const key of this.#told.keys())
      if (!this.#wanted.has(key)) {
        this.#told.delete(key)
        this.#queue.delete(key)
      }
    const now = clock.monotonic()
    const { dropped } = this.#queue.counts
    for (const [key, occasion] of this.#wanted) {
      const told = this.#told.get(key)
      const age = told ? now - told.at : Infinity
      const changed = !told || told.uid !== this.#find(occasion)?.metadata.uid || told.message !== occasion.message
      if (changed) this.#queue.add(key, Math.max(SETTLE_MS, told ? CHANGE_MS - age : 0))
      else if (age >= REPEAT_MS) this.#queue.add(key)
    }
    const full = this.#queue.counts.dropped > dropped
    if (full && !this.#full) log.warn({ waiting: this.#queue.size }, 'there is more to tell than Events may be written')
    this.#full = full
  }

  #isOurs(ref: ResourceRef): boolean {
    const object = this.#find({ ref })
    return object !== undefined && isOurs(ref.group ?? '', ref.kind, object, this.#options.objects)
  }

  #find({ ref }: Pick<Occasion, 'ref'>): KubeObject | undefined {
    const resource = KINDS.get(`${ref.group ?? ''}/${ref.kind}`)
    return resource && this.#options.objects.get(resource, ref.namespace, ref.name)
  }

  async #write(key: string): Promise<boolean> {
    const { leadership, clock, client } = this.#options
    const occasion = this.#wanted.get(key)
    const object = occasion && this.#find(occasion)
    const uid = object?.metadata.uid
    if (!leadership.leads || !occasion || !object || uid === undefined) return false
    const told = this.#told.get(key)
    const event = this.#event(occasion, object, uid)
    const place = { namespace: event.metadata.namespace ?? '', name: event.metadata.name }
    const again = { message: event.message, lastTimestamp: event.lastTimestamp }
    let count = told?.uid === uid ? told.count + 1 : 1
    const repeat = async (): Promise<void> => {
      const now = await merge<CoreEvent>(client, EVENTS, place, count > 1 ? { ...again, count } : again)
      count = now.count ?? count
    }
    if (count > 1)
      await repeat().catch(async (error: unknown) => {
        // Forgotten meanwhile.
        if (!(error instanceof KubeError && error.status === 404)) throw error
        count = 1
        await create(client, EVENTS, event)
      })
    else
      await create(client, EVENTS, event).catch(async (error: unknown) => {
        // Told by the leader before, or by this one before it went away and came back.
        if (!(error instanceof KubeError && error.status === 409)) throw error
        await repeat()
      })
    this.#told.set(key, { uid, message: occasion.message, count, at: clock.monotonic() })
    return true
  }

  #event({ ref, reason, message }: Occasion, object: KubeObject, uid: string) {
    const { clock, replica } = this.#options
    const resource = KINDS.get(`${ref.group ?? ''}/${ref.kind}`)!
    // What a namespace is about is looked for in it; other things without one have their Events in `default`.
    const namespace = resource === NAMESPACES ? ref.name : ref.namespace || 'default'
    const involved = resource === NAMESPACES ? ref.name : ref.namespace
    const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')
    const suffix = createHash('sha256').update(`${uid} ${reason}`).digest('hex').slice(0, 16)
    return {
      metadata: { namespace, name: `${ref.name.slice(0, MAX_NAME - 1 - suffix.length)}.${suffix}` },
      involvedObject: {
        apiVersion: apiVersionOf(resource),
        kind: resource.kind,
        ...(involved ? { namespace: involved } : {}),
        name: object.metadata.name,
        uid,
      },
      type: 'Warning',
      reason,
      message,
      count: 1,
      firstTimestamp: now,
      lastTimestamp: now,
      source: { component: EVENT_SOURCE },
      reportingComponent: EVENT_SOURCE,
      reportingInstance: replica,
    }
  }
}
