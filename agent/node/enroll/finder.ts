// Pods that are to be in the mesh and that nobody told this agent of, because they were there before it, or while the plugin was
// not chained: looked for among the node's processes when control tells of them, and again now and then. Must not live here: how
// they are found (discover.ts), what becomes of them (enrollment.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { NodePod } from '../../mesh/pod.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { RegisteredPod } from './contract.ts'
import { discoverPods, type Discovery, type SoughtPod } from './discover.ts'

/** A pod that is not found is looked for again after this, growing to the second: a look costs some 30 µs a process. */
const AGAIN = { baseMs: 1_000, maxMs: 120_000 }

/** A pod that should be captured and is not, since it has not been found. */
export interface MissingPod {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly addresses: readonly string[]
  readonly reason: string
}

export interface FinderOptions {
  readonly view: () => MeshView | undefined
  readonly exempt: readonly string[]
  /** Pods that need not be looked for. */
  readonly registered: () => ReadonlyMap<string, RegisteredPod>
  /** Takes a pod that was found. Throws what makes it impossible. */
  readonly register: (pod: RegisteredPod) => void
  readonly clock: Clock
  readonly log: Logger
  /** Default discoverPods. */
  readonly discover?: (sought: readonly SoughtPod[]) => Promise<Discovery>
}

interface Search {
  /** As it was then: one that has changed is looked for at once. */
  readonly pod: NodePod
  readonly backoff: Backoff
  nextAt: number
  reason: string
}

export class Finder {
  readonly #options: FinderOptions
  /** By metadata.uid. */
  readonly #searches = new Map<string, Search>()
  /** Whose network went: control hears of that later. */
  readonly #ended = new WeakSet<NodePod>()
  #running: Promise<void> | undefined

  constructor(options: FinderOptions) {
    this.#options = options
  }

  /** Looks for whom it is time to look for. One look at a time; while one runs, nothing. */
  look(): void {
    if (this.#running) return
    const due = this.#due()
    if (due.length === 0) return
    this.#running = this.#find(due).finally(() => (this.#running = undefined))
  }

  /** The pod's network is gone: it is not looked for until something else is told of it. */
  ended(uid: string): void {
    const pod = this.#options.view()?.pod(uid)
    if (pod) this.#ended.add(pod)
  }

  /** Resolves when no look is running. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running
  }

  /** Those that were looked for twice in vain. */
  missing(): readonly MissingPod[] {
    return [...this.#searches.values()].flatMap(({ pod: { namespace, name, uid, addresses }, reason }) =>
      reason === '' ? [] : [{ namespace, name, uid, addresses, reason }],
    )
  }

  #due(): Search[] {
    const { clock } = this.#options
    const wanted = new Map(this.#sought().map((pod) => [pod.uid, pod]))
    for (const uid of this.#searches.keys()) if (!wanted.has(uid)) this.#searches.delete(uid)
    const due: Search[] = []
    for (const [uid, pod] of wanted) {
      let search = this.#searches.get(uid)
      if (search?.pod !== pod) {
        search = { pod, backoff: search?.backoff ?? new Backoff(AGAIN), nextAt: 0, reason: search?.reason ?? '' }
        this.#searches.set(uid, search)
      }
      if (search.nextAt <= clock.monotonic()) due.push(search)
    }
    return due
  }

  /** Enrolled pods with an address (before that they have no network) that are not registered. */
  #sought(): NodePod[] {
    const { view, exempt, registered } = this.#options
    const known = registered()
    const bySandbox = new Set<string>()
    for (const { uid, sandbox, namespace, name } of known.values()) {
      if (uid === sandbox) bySandbox.add(`${namespace}/${name}`)
    }
    return [...(view()?.pods() ?? [])].filter(
      (pod) =>
        pod.enrolment === 'enrolled' &&
        pod.addresses.length > 0 &&
        !this.#ended.has(pod) &&
        !exempt.includes(pod.namespace) &&
        !known.has(pod.kubeletUid) &&
        !bySandbox.has(`${pod.namespace}/${pod.name}`),
    )
  }

  async #find(due: readonly Search[]): Promise<void> {
    const { discover = discoverPods, register, registered, clock, log } = this.#options
    let result: Discovery
    try {
      result = await discover(
        due.map(({ pod }) => ({ uid: pod.kubeletUid, addresses: pod.addresses, containers: pod.containers })),
      )
    } catch (error) {
      result = { found: new Map(), unclear: new Map(due.map(({ pod }) => [pod.kubeletUid, messageOf(error)])) }
    }
    for (const search of due) {
      const { kubeletUid: uid, namespace, name, addresses } = search.pod
      const found = result.found.get(uid)
      let reason = result.unclear.get(uid) ?? 'No process of it is to be seen on this node.'
      try {
        // Somebody may have told of it meanwhile, and knows its sandbox.
        if (found && !registered().has(uid)) register({ uid, namespace, name, addresses, netns: found.netns })
        if (found) {
          log.info({ uid, pod: `${namespace}/${name}`, netns: found.netns, pid: found.pid }, 'pod: found')
          continue
        }
      } catch (error) {
        reason = messageOf(error)
      }
      const again = search.backoff.attempt > 0
      search.nextAt = clock.monotonic() + search.backoff.next()
      // Told of so early that its plugin's call is still on its way, it is nothing to speak of.
      if (!again) continue
      if (reason !== search.reason) log.warn({ uid, pod: `${namespace}/${name}`, reason }, 'a pod is not found')
      search.reason = reason
    }
  }
}
