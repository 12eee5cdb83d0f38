// What the API server has of every kind the mesh reads, held by one reflector each: for the translation (kube.ts) and for the
// parts that write (statuses, waypoints, trust bundles), which look here and never ask the server what is there. Must not live
// here: what the objects mean, writing any.
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { versionsOf } from '../../config/kinds.ts'
import { meshConfigMaps } from '../../config/mesh-config.ts'
import type { KubeClient } from '../../kube/client.ts'
import type { KubeError } from '../../kube/errors.ts'
import { meshScopes, projectionOf } from '../../kube/mesh-kinds.ts'
import { Reflector, type Change } from '../../kube/reflector.ts'
import { keyOf, type KubeObject, type Resource } from '../../kube/resource.ts'
import type { Scope } from '../../kube/watch.ts'

/** What is held, by kind; the objects are projections (kube/mesh-kinds.ts). */
export interface ObjectView {
  /** Every list is in once. */
  readonly complete: boolean
  list(resource: Resource): Iterable<KubeObject>
  /** `namespace` is '' for what has none. */
  get(resource: Resource, namespace: string, name: string): KubeObject | undefined
  /** The kind in the version this cluster serves it in, for writing. */
  served(resource: Resource): Resource
  /** Hears of changes in batches, after they are held. Returns the end of hearing. */
  onChange(listener: (resource: Resource, changes: readonly Change<KubeObject>[]) => void): () => void
}

export interface ObjectsOptions {
  readonly client: KubeClient
  /** Where the MeshConfig's ConfigMap is. */
  readonly systemNamespace: string
  readonly clock: Clock
  readonly log: Logger
}

interface Followed {
  readonly scope: Scope
  readonly reflector: Reflector<KubeObject>
}

/** Trouble comes to all kinds at nearly one time, and is told of together. Milliseconds. */
const TELL_AFTER_MS = 500
/** How often it is said what is waited for before everything is listed. */
const TELL_EVERY_MS = 15_000

export class Objects implements ObjectView {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #followed: readonly Followed[]
  readonly #byResource = new Map<Resource, Followed[]>()
  #telling: Timer | undefined
  #waiting: Timer | undefined
  /** Code of the trouble that was told of last; '' while all is well. */
  #told = ''
  readonly #listeners = new Set<(resource: Resource, changes: readonly Change<KubeObject>[]) => void>()

  constructor({ client, systemNamespace, clock, log }: ObjectsOptions) {
    this.#clock = clock
    this.#log = log
    const own = meshConfigMaps(systemNamespace).filter(({ namespace }) => namespace === systemNamespace)
    this.#followed = meshScopes(own).map((scope) => ({
      scope,
      reflector: new Reflector({
        ...scope,
        client,
        clock,
        log,
        project: projectionOf(scope.resource),
        otherVersions: versionsOf(scope.resource.group, scope.resource.kind).filter(
          (one) => one !== scope.resource.version,
        ),
        onProblem: () => this.#tellSoon(),
      }),
    }))
    for (const one of this.#followed) {
      const same = this.#byResource.get(one.scope.resource)
      if (same) same.push(one)
      else this.#byResource.set(one.scope.resource, [one])
    }
  }

  get kinds(): readonly Resource[] {
    return [...this.#byResource.keys()]
  }

  get complete(): boolean {
    return this.#followed.every(({ reflector }) => reflector.isSynced)
  }

  /** Kinds of which the first list is not in yet, with why. */
  get missing(): { readonly kind: string; readonly why: string }[] {
    return this.#followed
      .filter(({ reflector }) => !reflector.isSynced)
      .map(({ scope, reflector }) => ({
        kind: scope.resource.kind,
        why: reflector.problem?.message ?? 'not answered yet',
      }))
  }

  /** Why nothing new comes of some kinds just now. */
  get problems(): readonly { readonly kind: string; readonly problem: KubeError }[] {
    return this.#followed.flatMap(({ scope, reflector: { problem } }) =>
      problem ? [{ kind: scope.resource.kind, problem }] : [],
    )
  }

  /** Sums over all kinds, for metrics. */
  get counts(): Reflector<KubeObject>['counts'] {
    const sum = { lists: 0, watches: 0, events: 0, bookmarks: 0, gone: 0, failures: 0 }
    for (const { reflector } of this.#followed)
      for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += reflector.counts[key]
    return sum
  }

  size(resource: Resource): number {
    return (this.#byResource.get(resource) ?? []).reduce((sum, { reflector }) => sum + reflector.size, 0)
  }

  *list(resource: Resource): IterableIterator<KubeObject> {
    for (const { reflector } of this.#byResource.get(resource) ?? []) yield* reflector.values()
  }

  get(resource: Resource, namespace: string, name: string): KubeObject | undefined {
    const key = keyOf({ namespace, name })
    for (const { reflector } of this.#byResource.get(resource) ?? []) {
      const found = reflector.get(key)
      if (found) return found
    }
    return undefined
  }

  served(resource: Resource): Resource {
    return this.#byResource.get(resource)?.[0]?.reflector.served ?? resource
  }

  onChange(listener: (resource: Resource, changes: readonly Change<KubeObject>[]) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Begins to follow; resolves when all first lists are in, however long the server is away. */
  async start(): Promise<void> {
    for (const { scope, reflector } of this.#followed)
      reflector.start((changes) => {
        for (const listener of this.#listeners) {
          try {
            listener(scope.resource, changes)
          } catch (error) {
            // One part's fault is not to keep the others from hearing.
            this.#log.error({ error: messageOf(error) }, 'a change could not be taken over')
          }
        }
      })
    this.#tellWaiting()
    await Promise.all(this.#followed.map(({ reflector }) => reflector.synced))
    this.#waiting?.cancel()
  }

  async stop(): Promise<void> {
    this.#waiting?.cancel()
    this.#telling?.cancel()
    await Promise.all(this.#followed.map(({ reflector }) => reflector.stop()))
  }

  #tellSoon(): void {
    this.#telling ??= this.#clock.after(TELL_AFTER_MS, () => {
      this.#telling = undefined
      this.#tell()
    })
  }

  #tell(): void {
    const { problems } = this
    const [first] = problems
    if (!first) {
      if (this.#told !== '') this.#log.info('the API server answers again')
      this.#told = ''
      return
    }
    const kinds = problems.map(({ kind }) => kind)
    const told = `${first.problem.code} ${kinds.join(' ')}`
    if (told === this.#told) return
    this.#told = told
    this.#log.warn(
      { code: first.problem.code, kinds },
      `nothing new is heard of ${kinds.length} of ${this.#followed.length} kinds: ${first.problem.message}; what is known stays in force`,
    )
  }

  #tellWaiting(): void {
    this.#waiting = this.#clock.after(TELL_EVERY_MS, () => {
      const { missing } = this
      this.#log.warn(
        { kinds: missing.map(({ kind }) => kind) },
        `not ready: ${missing.length} of ${this.#followed.length} kinds are not listed yet: ${missing[0]?.why ?? ''}`,
      )
      this.#tellWaiting()
    })
  }
}
