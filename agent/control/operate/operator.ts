// Waypoints of a cluster: makes and keeps the objects of each waypoint Gateway while this replica leads, and tells how they are.
// Must not live here: a term's work (term.ts), statuses (report/).
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { KubeClient } from '../../kube/client.ts'
import type { ObjectView } from '../gather/objects.ts'
import type { Leadership } from '../lead.ts'
import type { WaypointFacts, WaypointView } from './facts.ts'
import { Term, type TermCounts } from './term.ts'

export interface OperatorOptions {
  readonly client: KubeClient
  readonly objects: ObjectView
  readonly leader: Leadership
  readonly clock: Clock
  readonly log: Logger
  /** In [0,1). */
  readonly random?: () => number
  /** Of waypoints; without one none are made, and their Gateways say so. */
  readonly image: string | undefined
  /** `host:port` of control, as waypoints reach it. */
  readonly control: string
}

export class Operator implements WaypointView {
  readonly #options: OperatorOptions
  readonly #listeners = new Set<(namespace: string, name: string) => void>()
  readonly counts: TermCounts = { applied: 0, repaired: 0, removed: 0, failed: 0 }
  #term: Term | undefined
  /** Ends one after the other: a new term begins when the old one writes no more. */
  #turn: Promise<void> = Promise.resolve()
  #off: (() => void) | undefined

  constructor(options: OperatorOptions) {
    this.#options = options
  }

  start(): void {
    const { leader } = this.#options
    this.#off = leader.onChange((leads) => this.#lead(leads))
    if (leader.leads) this.#lead(true)
  }

  /** Writes nothing more once it resolves. */
  async stop(): Promise<void> {
    this.#off?.()
    this.#lead(false)
    await this.#turn
  }

  facts(namespace: string, name: string): WaypointFacts | undefined {
    return this.#term?.facts(namespace, name)
  }

  /** Gateways by whether their objects are as they want them. */
  states(): { readonly made: number; readonly problem: number } {
    return this.#term?.states() ?? { made: 0, problem: 0 }
  }

  onChange(listener: (namespace: string, name: string) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  #lead(leads: boolean): void {
    if (leads === (this.#term !== undefined)) return
    const { leader: _, ...options } = this.#options
    const old = this.#term
    const term = leads
      ? new Term({ ...options, onFacts: (namespace, name) => this.#tell(namespace, name) }, this.counts)
      : undefined
    this.#term = term
    const stopped = old?.stop()
    this.#turn = this.#turn
      .then(() => stopped)
      .then(() => {
        // Not awaited: a list that never comes must not hold up the end of the term.
        if (term && this.#term === term)
          void term
            .start()
            .catch((error: unknown) => options.log.error({ error: messageOf(error) }, 'waypoints cannot be followed'))
      })
  }

  #tell(namespace: string, name: string): void {
    for (const listener of this.#listeners)
      try {
        listener(namespace, name)
      } catch (error) {
        this.#options.log.error({ error: messageOf(error) }, 'the facts of a waypoint could not be taken over')
      }
  }
}
