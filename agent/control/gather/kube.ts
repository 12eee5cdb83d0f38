// Configuration from the Kubernetes API: every object is read once for each version of it, and changes that come together are
// translated together. Nothing is told before every kind is listed: half a state would take away what is only not known yet.
// Must not live here: following the server (objects.ts, kube/), the rules of documents and what becomes of bad ones (config/).
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import { Memory } from '../../config/memory.ts'
import { ObjectStore } from '../../config/object-store.ts'
import { describeRef, sortProblems, type Problem } from '../../config/problem.ts'
import type { KindDefinition, Resource as Configured } from '../../config/resource.ts'
import { translate } from '../../config/translate.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import type { Change } from '../../kube/reflector.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { same } from '../../kube/same.ts'
import type { Gather, Snapshot } from './gather.ts'
import type { Objects } from './objects.ts'
import { ProblemLog } from './problem-log.ts'

/** From a first change to the translation: an edit seldom comes alone. Milliseconds. */
const SETTLE_MS = 5
/**
 * Without pause between changes control must still answer: after a translation it rests as long as that took, up to this.
 * So changes without end cost half a core, and each is in force after twice the time of one translation.
 */
const MAX_REST_MS = 500

export interface KubeGatherOptions {
  readonly objects: Pick<Objects, 'onChange' | 'start' | 'stop'>
  readonly systemNamespace: string
  /** Besides it, namespaces whose pods are never captured. */
  readonly exemptNamespaces?: readonly string[]
  readonly clock: Clock
  readonly log: Logger
}

export class KubeGather implements Gather {
  readonly #options: KubeGatherOptions
  readonly #store: ObjectStore
  readonly #memory = new Memory()
  readonly #told: ProblemLog
  readonly #stopped = Promise.withResolvers<never>()
  #onSnapshot: ((snapshot: Snapshot) => void) | undefined
  #version = 0
  #settling: Timer | undefined
  #restUntil = 0
  #off: (() => void) | undefined
  /** Of the last translation with all that followed from it, in milliseconds. */
  translateMs = 0
  /** Objects read, and translations made, since the start. */
  readonly counts = { read: 0, translations: 0 }

  constructor(options: KubeGatherOptions) {
    this.#options = options
    this.#store = new ObjectStore(options.systemNamespace, options.exemptNamespaces)
    this.#told = new ProblemLog(options.log)
    this.#stopped.promise.catch(() => undefined)
  }

  /** Resolves when everything was listed and told once, however long that takes. Rejects with CONTROL_UNAVAILABLE when stopped before. */
  async start(onSnapshot: (snapshot: Snapshot) => void): Promise<void> {
    const { objects } = this.#options
    this.#off = objects.onChange((resource, changes) => this.#take(resource, changes))
    await Promise.race([objects.start(), this.#stopped.promise])
    this.#onSnapshot = onSnapshot
    this.#translate()
  }

  /** Resources of some kinds, as they are in force. */
  inForce(definitions: readonly KindDefinition[]): Configured[] {
    return this.#store.some(definitions)
  }

  async stop(): Promise<void> {
    this.#onSnapshot = undefined
    this.#off?.()
    this.#settling?.cancel()
    this.#stopped.reject(new AmbitError('CONTROL_UNAVAILABLE', 'stopped before the Kubernetes API had told everything'))
    await this.#options.objects.stop()
  }

  #take(resource: Resource, changes: readonly Change<KubeObject>[]): void {
    const { clock } = this.#options
    let changed = false
    for (const change of changes) {
      const id = `${resource.group}/${resource.kind}/${change.key}`
      if (change.type === 'delete') this.#store.delete(id)
      else if (change.before && onlyStatus(resource, change.before, change.object)) continue
      else {
        this.#store.set(id, change.object)
        this.counts.read++
      }
      changed = true
    }
    if (!changed || !this.#onSnapshot) return
    // Counted from the first change, so that others cannot put it off.
    const rest = this.#restUntil - clock.monotonic()
    this.#settling ??= clock.after(Math.max(SETTLE_MS, rest), () => {
      this.#settling = undefined
      this.#translate()
    })
  }

  #translate(): void {
    const { clock, log } = this.#options
    const began = clock.monotonic()
    this.counts.translations++
    try {
      const state = this.#store.state()
      const translation = translate(state, this.#memory)
      const problems = sortProblems([...state.problems, ...translation.problems].map(placed))
      this.#told.tell(problems)
      this.#onSnapshot?.({ version: ++this.#version, translation, problems })
    } catch (error) {
      // A fault of ours; what ran keeps running.
      log.error({ error: messageOf(error) }, 'the configuration could not be translated; the last one stays in force')
    }
    const now = clock.monotonic()
    this.translateMs = now - began
    this.#restUntil = now + Math.min(this.translateMs, MAX_REST_MS)
  }
}

/** Status of what people write is ours and other controllers' word on it; nothing is translated from it. */
function onlyStatus(resource: Resource, before: KubeObject, after: KubeObject): boolean {
  return CONFIG_KINDS.includes(resource) && same({ ...before, status: undefined }, { ...after, status: undefined })
}

/** Where a person looks for it: the object stands in the place of a file. */
function placed(problem: Problem): Problem {
  return problem.resource ? { ...problem, file: describeRef(problem.resource) } : problem
}
