// Configuration from the Kubernetes API: every object is read once for each version of it, a change brings a new snapshot
// after a short wait for its companions. Must not live here: following the server (objects.ts, kube/), the rules of
// documents and what becomes of bad ones (config/).
import { messageOf } from '../../base/errors.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import { parseObject, type Parsed } from '../../config/load.ts'
import { sortProblems } from '../../config/problem.ts'
import { ResourceStore } from '../../config/store.ts'
import { translate } from '../../config/translate.ts'
import type { Change } from '../../kube/reflector.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import type { Gather, Snapshot } from './gather.ts'
import type { Objects } from './objects.ts'
import { ProblemLog } from './problem-log.ts'

/** Changes come in crowds: a Deployment's rollout is dozens of objects. Milliseconds. */
const SETTLE_MS = 10
/** Crowds that never end are read after this long all the same. */
const MAX_SETTLE_MS = 100

export interface KubeGatherOptions {
  readonly objects: Objects
  readonly clock: Clock
  readonly log: Logger
}

export class KubeGather implements Gather {
  readonly #options: KubeGatherOptions
  readonly #store = new ResourceStore()
  readonly #told: ProblemLog
  /** What was read of each object, by kind and key, in the order they came. */
  readonly #parsed = new Map<Resource, Map<string, Parsed>>()
  #onSnapshot: ((snapshot: Snapshot) => void) | undefined
  #version = 0
  #settling: Timer | undefined
  #firstChange = 0
  #off: (() => void) | undefined
  /** Of the last translation, in milliseconds. */
  translateMs = 0

  constructor(options: KubeGatherOptions) {
    this.#options = options
    this.#told = new ProblemLog(options.log)
  }

  /** Resolves when everything was listed and told once. */
  async start(onSnapshot: (snapshot: Snapshot) => void): Promise<void> {
    const { objects } = this.#options
    let complete = false
    this.#off = objects.onChange((resource, changes) => {
      this.#read(resource, changes)
      if (complete) this.#changed()
    })
    await objects.start()
    complete = true
    this.#onSnapshot = onSnapshot
    this.#take()
  }

  async stop(): Promise<void> {
    this.#onSnapshot = undefined
    this.#off?.()
    this.#settling?.cancel()
    await this.#options.objects.stop()
  }

  #read(resource: Resource, changes: readonly Change<KubeObject>[]): void {
    let ofKind = this.#parsed.get(resource)
    if (!ofKind) this.#parsed.set(resource, (ofKind = new Map()))
    for (const change of changes) {
      if (change.type === 'delete') ofKind.delete(change.key)
      else ofKind.set(change.key, parseObject(change.object))
    }
  }

  #changed(): void {
    const { clock } = this.#options
    if (this.#settling) {
      if (clock.monotonic() - this.#firstChange > MAX_SETTLE_MS) return
      this.#settling.cancel()
    } else this.#firstChange = clock.monotonic()
    this.#settling = clock.after(SETTLE_MS, () => {
      this.#settling = undefined
      this.#take()
    })
  }

  #take(): void {
    const { clock, log } = this.#options
    const began = clock.monotonic()
    let snapshot: Snapshot
    try {
      const files = [...this.#parsed.values()].flatMap((ofKind) =>
        [...ofKind.values()].map((parsed) => ({ file: '', root: 0, parsed, empty: false })),
      )
      const state = this.#store.update({ files, folders: [], unreadable: [], problems: [] })
      const translation = translate(state)
      const problems = sortProblems([...state.problems, ...translation.problems])
      snapshot = { version: ++this.#version, translation, problems }
    } catch (error) {
      // A fault of ours; what ran keeps running.
      log.error({ error: messageOf(error) }, 'the configuration could not be translated; the last one stays in force')
      return
    }
    this.translateMs = clock.monotonic() - began
    this.#told.tell(snapshot.problems)
    this.#onSnapshot?.(snapshot)
  }
}
