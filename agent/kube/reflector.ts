// Follows all objects of a kind: lists them once, then watches; goes on where a cut watch stopped; lists again when the server
// forgot that place (410 Gone), without letting go of what it holds. Holds only the projection of each object. Must not live
// here: which fields those are (keep.ts), what follows from a change (control/).
import { Backoff } from '../base/backoff.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { KubeClient } from './client.ts'
import { KubeError } from './errors.ts'
import { list } from './list.ts'
import { isOlder, keyOf, pathOf, type KubeObject, type Resource } from './resource.ts'
import { same } from './same.ts'
import { watch, type Scope, type WatchEvent } from './watch.ts'

export interface ReflectorOptions<T> extends Scope {
  readonly client: KubeClient
  readonly log: Logger
  /** What is kept of an object; undefined: it is none of ours. */
  readonly project: (object: KubeObject) => T | undefined
  /** Where the server does not serve the resource's version, these are tried in turn. */
  readonly otherVersions?: readonly string[]
  readonly clock?: Clock
  /** In [0,1). */
  readonly random?: () => number
  /** Objects a page. Default 500. */
  readonly pageSize?: number
  /** A watch without a word for so long is taken for dead, in milliseconds; default 150 000 (bookmarks come every minute). */
  readonly idleMs?: number
  /** Hears why nothing new comes, and undefined when it comes again; without it both are logged. */
  readonly onProblem?: (problem: KubeError | undefined) => void
  /** The server ends a watch after this many seconds, up to twice as many; default 300, as client-go. */
  readonly watchSeconds?: number
}

export type Change<T> =
  | { readonly type: 'set'; readonly key: string; readonly object: T; readonly before: T | undefined }
  | { readonly type: 'delete'; readonly key: string; readonly before: T }

interface Held<T> {
  version: string
  readonly object: T
}

/** Waiting times between attempts. */
const BACKOFF = { baseMs: 250, maxMs: 10_000 }
/** A watch that lived so long was a good one. */
const GOOD_WATCH_MS = 5_000
/** So many failures without a word between them, and the list is taken anew. */
const RELIST_AFTER = 5
/** A kind that is not served (404) is asked for again this often, and its objects are believed gone after this long. */
const ABSENT_MS = 10_000

export class Reflector<T> {
  readonly #options: ReflectorOptions<T>
  readonly #clock: Clock
  readonly #random: () => number
  readonly #backoff: Backoff
  readonly #held = new Map<string, Held<T>>()
  readonly #stop = new AbortController()
  readonly #synced = Promise.withResolvers<void>()
  #onChanges: (changes: readonly Change<T>[]) => void = () => undefined
  #version: string | undefined
  #running: Promise<void> | undefined
  #isSynced = false
  #absentSince: number | undefined
  #problem: KubeError | undefined
  #heard = -Infinity
  #failuresInARow = 0
  /** In the version that is served, as far as one is. */
  #resource: Resource
  #notServedInARow = 0
  /** For metrics. */
  readonly counts = { lists: 0, watches: 0, events: 0, bookmarks: 0, gone: 0, failures: 0 }

  constructor(options: ReflectorOptions<T>) {
    this.#options = options
    this.#resource = options.resource
    this.#clock = options.clock ?? systemClock
    this.#random = options.random ?? Math.random
    this.#backoff = new Backoff({ ...BACKOFF, random: this.#random })
  }

  /** Begins. `onChanges` hears of each object that is new, different or gone, in batches; also of all those of the first list. */
  start(onChanges: (changes: readonly Change<T>[]) => void): void {
    this.#onChanges = onChanges
    this.#running ??= this.#run()
  }

  /** Ends; nothing is told any more. What is held stays readable. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  /** Resolves when the first list is complete, or the server says that it does not serve the kind. */
  get synced(): Promise<void> {
    return this.#synced.promise
  }

  get isSynced(): boolean {
    return this.#isSynced
  }

  get size(): number {
    return this.#held.size
  }

  get(key: string): T | undefined {
    return this.#held.get(key)?.object
  }

  *values(): IterableIterator<T> {
    for (const { object } of this.#held.values()) yield object
  }

  /** The kind in the version it is followed in: what is written to it goes there too. */
  get served(): Resource {
    return this.#resource
  }

  /** Why nothing new comes, while nothing does. */
  get problem(): KubeError | undefined {
    return this.#problem
  }

  /** Milliseconds since the server last said something about this kind; Infinity before the first time. */
  get silentMs(): number {
    return this.#clock.monotonic() - this.#heard
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    let goneInARow = 0
    while (!signal.aborted) {
      const began = this.#clock.monotonic()
      try {
        if (this.#version === undefined) await this.#list()
        goneInARow++
        await this.#watch(this.#version!, () => (goneInARow = 0))
        if (this.#clock.monotonic() - began < 1_000) await this.#pause(this.#backoff.next())
      } catch (error) {
        if (signal.aborted) return
        const problem = error instanceof KubeError ? error : new KubeError('KUBE_SERVER_ERROR', messageOf(error))
        if (problem.status === 410) {
          this.counts.gone++
          this.#version = undefined
          // The very version just listed is too old already: the server is in trouble.
          if (goneInARow > 1) await this.#pause(this.#backoff.next())
          continue
        }
        await this.#failed(problem)
      }
    }
  }

  async #failed(problem: KubeError): Promise<void> {
    this.counts.failures++
    if (problem.status === 404) {
      this.#version = undefined
      return this.#otherVersion() ? undefined : this.#absent(problem)
    }
    // Once for each reason: it is tried again until it works.
    if (this.#problem?.code !== problem.code) {
      if (this.#options.onProblem) this.#options.onProblem(problem)
      else
        this.#options.log.warn(
          { code: problem.code, path: pathOf(this.#options.resource, this.#options.namespace), held: this.#held.size },
          `${problem.message}; what is known stays in force`,
        )
    }
    this.#problem = problem
    // Perhaps it is the place that we want to go on from; a list is always possible.
    if (++this.#failuresInARow % RELIST_AFTER === 0) this.#version = undefined
    await this.#pause(Math.max(problem.retryAfterMs ?? 0, this.#backoff.next()))
  }

  /** Goes on to the next version that may be served; false when all were tried. */
  #otherVersion(): boolean {
    const { resource, otherVersions = [] } = this.#options
    const versions = [resource.version, ...otherVersions]
    const at = (versions.indexOf(this.#resource.version) + 1) % versions.length
    this.#resource = { ...resource, version: versions[at] as string }
    if (++this.#notServedInARow < versions.length) return true
    this.#notServedInARow = 0
    return false
  }

  /**
   * The kind is not served. A server that is only starting answers 503 until it knows all kinds (since Kubernetes 1.23), so
   * a first 404 counts; objects that are held are let go only when it says so again.
   */
  async #absent(problem: KubeError): Promise<void> {
    const now = this.#clock.monotonic()
    this.#absentSince ??= now
    if (!this.#isSynced || (now - this.#absentSince >= ABSENT_MS && this.#held.size > 0)) {
      const changes = [...this.#held].map(([key, { object }]): Change<T> => ({ type: 'delete', key, before: object }))
      this.#held.clear()
      this.#heard = now
      this.#tell(changes)
      this.#markSynced()
    }
    if (this.#held.size > 0) this.#problem = problem
    await this.#pause(ABSENT_MS)
  }

  async #list(): Promise<void> {
    const unseen = new Set(this.#held.keys())
    this.counts.lists++
    const version = await list(this.#options.client, {
      ...this.#options,
      resource: this.#resource,
      pageSize: this.#options.pageSize ?? 500,
      signal: this.#stop.signal,
      onPage: (items) => {
        this.#hear()
        const changes: Change<T>[] = []
        for (const item of items) {
          unseen.delete(keyOf(item.metadata))
          this.#take(item, changes, true)
        }
        this.#tell(changes)
      },
    })
    // Only now is it certain what is not there any more.
    const gone: Change<T>[] = []
    for (const key of unseen) this.#drop(key, gone)
    this.#tell(gone)
    this.#version = version
    this.#markSynced()
  }

  #markSynced(): void {
    this.#isSynced = true
    this.#synced.resolve()
  }

  async #watch(resourceVersion: string, onGood: () => void): Promise<void> {
    const { watchSeconds = 300, idleMs = 150_000 } = this.#options
    this.counts.watches++
    const began = this.#clock.monotonic()
    try {
      await watch(this.#options.client, {
        ...this.#options,
        resource: this.#resource,
        resourceVersion,
        // Not all at once.
        timeoutSeconds: Math.ceil(watchSeconds * (1 + this.#random())),
        idleMs,
        signal: this.#stop.signal,
        onOpen: () => this.#hear(),
        onEvents: (events) => {
          this.#hear()
          this.#backoff.reset()
          onGood()
          this.#apply(events)
        },
      })
    } finally {
      if (this.#clock.monotonic() - began > GOOD_WATCH_MS) {
        this.#backoff.reset()
        onGood()
      }
    }
  }

  #hear(): void {
    this.#heard = this.#clock.monotonic()
    this.#absentSince = undefined
    this.#failuresInARow = 0
    this.#notServedInARow = 0
    if (!this.#problem) return
    this.#problem = undefined
    const { onProblem, log, resource, namespace } = this.#options
    if (onProblem) onProblem(undefined)
    else log.info({ path: pathOf(resource, namespace) }, 'the API server answers again')
  }

  #apply(events: readonly WatchEvent[]): void {
    const changes: Change<T>[] = []
    for (const { type, object } of events) {
      const version = object.metadata.resourceVersion
      if (type === 'BOOKMARK') {
        this.counts.bookmarks++
        // A server that was put back to an older state would tell nothing until it has caught up with ours.
        if (version && isOlder(version, this.#version ?? version))
          throw new KubeError('KUBE_GONE', 'the API server has gone back to an older state', { status: 410 })
      } else {
        this.counts.events++
        if (type === 'DELETED') this.#drop(keyOf(object.metadata), changes, version)
        else this.#take(object, changes, false)
      }
      if (version) this.#version = version
    }
    this.#tell(changes)
  }

  #take(object: KubeObject, changes: Change<T>[], listed: boolean): void {
    const key = keyOf(object.metadata)
    const version = object.metadata.resourceVersion ?? ''
    const held = this.#held.get(key)
    // After a list that took two states, a watch tells again what it saw already. What is listed is so, even if it is older:
    // the server may have been restored from a backup.
    if (!listed && held && (held.version === version || isOlder(version, held.version))) return
    const kept = this.#options.project(object)
    if (kept === undefined) return this.#drop(key, changes)
    if (held && same(held.object, kept)) {
      held.version = version
      return
    }
    this.#held.set(key, { version, object: kept })
    changes.push({ type: 'set', key, object: kept, before: held?.object })
  }

  #drop(key: string, changes: Change<T>[], version?: string): void {
    const held = this.#held.get(key)
    if (!held || (version !== undefined && isOlder(version, held.version))) return
    this.#held.delete(key)
    changes.push({ type: 'delete', key, before: held.object })
  }

  #tell(changes: readonly Change<T>[]): void {
    if (changes.length === 0 || this.#stop.signal.aborted) return
    try {
      this.#onChanges(changes)
    } catch (error) {
      // A fault of ours must not end the following.
      this.#options.log.error({ error: messageOf(error) }, 'a change could not be taken over')
    }
  }

  #pause(ms: number): Promise<void> {
    const { signal } = this.#stop
    return new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const done = (): void => {
        timer.cancel()
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = this.#clock.after(ms, done)
      signal.addEventListener('abort', done)
    })
  }
}
