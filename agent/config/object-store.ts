// The resources of the Kubernetes API in force, each in its newest good version, by the rules of store.ts: one object at a
// time, so that what an object did not change is neither parsed nor sorted again. Must not live here: following the API
// (control/gather), meaning (translate.ts).
import { SYSTEM_NAMESPACE } from './labels.ts'
import { parseObject } from './load.ts'
import { describeRef, type Problem } from './problem.ts'
import { byAge, resourceKey, type KindDefinition, type Resource } from './resource.ts'
import { fateOf, type Denial, type StoreState } from './store.ts'

/** What is held of one object. */
interface Held {
  /** By key: an object can hold two (a ConfigMap and the MeshConfig in it). */
  readonly good: ReadonlyMap<string, Resource>
  readonly denials: readonly Denial[]
  readonly problems: readonly Problem[]
}

/** The resources of a kind, oldest first but for what came and went since they were last asked for. */
interface Shelf {
  sorted: readonly Resource[]
  readonly fresh: Set<Resource>
  readonly gone: Set<Resource>
}

export class ObjectStore {
  readonly #systemNamespace: string
  readonly #exempt: readonly string[] | undefined
  readonly #held = new Map<string, Held>()
  /** Those of which there is something to say. */
  readonly #troubled = new Map<string, Held>()
  readonly #shelves = new Map<KindDefinition, Shelf>()

  /** `exempt`: as ResourceSet.exemptNamespaces. */
  constructor(systemNamespace = SYSTEM_NAMESPACE, exempt?: readonly string[]) {
    this.#systemNamespace = systemNamespace
    this.#exempt = exempt
  }

  /** A new or changed object. `id` is the same for all versions of it: its group, kind, namespace and name. */
  set(id: string, object: unknown): void {
    const before = this.#held.get(id)
    const { resources, rejected, problems } = parseObject(object, undefined, this.#systemNamespace)
    const good = new Map(resources.map((one) => [resourceKey(one), one]))
    const denials: Denial[] = []
    const found = [...problems]
    for (const one of rejected) {
      const last = one.key === undefined ? undefined : before?.good.get(one.key)
      if (last && one.key !== undefined) good.set(one.key, last)
      const { denial, problem } = fateOf(one, last !== undefined)
      if (denial) denials.push(denial)
      if (problem) found.push(problem)
    }
    this.#put(id, { good, denials, problems: found }, before)
  }

  /** The object is gone, and with it whatever was kept of it. */
  delete(id: string): void {
    this.#put(id, undefined, this.#held.get(id))
  }

  /** Everything in force now. What did not change since the last call is the same object again. */
  state(): StoreState {
    const resources: Resource[] = []
    for (const shelf of this.#shelves.values()) for (const one of sorted(shelf)) resources.push(one)
    const denials: Denial[] = []
    const problems: Problem[] = []
    for (const held of this.#troubled.values()) {
      denials.push(...held.denials)
      problems.push(...held.problems)
    }
    // Replicas hear of objects in different orders and must say the same.
    denials.sort((a, b) => (describeRef(a.ref) < describeRef(b.ref) ? -1 : 1))
    const own = { systemNamespace: this.#systemNamespace }
    return { resources, denials, problems, ...own, ...(this.#exempt ? { exemptNamespaces: this.#exempt } : {}) }
  }

  /** Those in force of some kinds, without what goes with `state`. */
  some(definitions: readonly KindDefinition[]): Resource[] {
    return definitions.flatMap((definition) => [...sorted(this.#shelf({ definition }))])
  }

  #put(id: string, held: Held | undefined, before: Held | undefined): void {
    for (const [key, one] of before?.good ?? []) if (held?.good.get(key) !== one) this.#drop(one)
    for (const [key, one] of held?.good ?? []) if (before?.good.get(key) !== one) this.#shelf(one).fresh.add(one)
    if (held) this.#held.set(id, held)
    else this.#held.delete(id)
    if (held && (held.problems.length > 0 || held.denials.length > 0)) this.#troubled.set(id, held)
    else this.#troubled.delete(id)
  }

  #drop(one: Resource): void {
    const shelf = this.#shelf(one)
    if (!shelf.fresh.delete(one)) shelf.gone.add(one)
  }

  #shelf({ definition }: Pick<Resource, 'definition'>): Shelf {
    let shelf = this.#shelves.get(definition)
    if (!shelf) this.#shelves.set(definition, (shelf = { sorted: [], fresh: new Set(), gone: new Set() }))
    return shelf
  }
}

/** Nearly sorted already, which is what the sort is fast with. */
function sorted(shelf: Shelf): readonly Resource[] {
  const { fresh, gone } = shelf
  if (fresh.size === 0 && gone.size === 0) return shelf.sorted
  const kept = gone.size === 0 ? shelf.sorted : shelf.sorted.filter((one) => !gone.has(one))
  shelf.sorted = [...kept, ...fresh].sort(byAge)
  fresh.clear()
  gone.clear()
  return shelf.sorted
}
