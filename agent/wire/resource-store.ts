// What control publishes, encoded, by kind and name; streams hear of changes by name and fetch at their own pace.
// Must not live here: where resources come from (control/publish), streams (xds-stream.ts).
import type { ResourceKind } from './contract.ts'
import type { EncodedResource } from './encoded.ts'

export interface StoreUpdate {
  readonly set: readonly EncodedResource[]
  readonly remove: readonly { readonly kind: ResourceKind; readonly name: string }[]
}

export type StoreListener = (changed: ReadonlyMap<ResourceKind, ReadonlySet<string>>) => void

export class ResourceStore {
  readonly #kinds = new Map<ResourceKind, Map<string, EncodedResource>>()
  readonly #listeners = new Set<StoreListener>()
  /** Grows with every update that changed something. */
  revision = 0
  /** False until the first update: an empty store that is not ready must not tell clients to remove all they have. */
  ready = false

  get(kind: ResourceKind, name: string): EncodedResource | undefined {
    return this.#kinds.get(kind)?.get(name)
  }

  names(kind: ResourceKind): Iterable<string> {
    return this.#kinds.get(kind)?.keys() ?? []
  }

  size(kind: ResourceKind): number {
    return this.#kinds.get(kind)?.size ?? 0
  }

  /** Applies an update and tells the listeners which names really changed (a set of equal content is no change). */
  update(update: StoreUpdate): void {
    const changed = new Map<ResourceKind, Set<string>>()
    const note = (kind: ResourceKind, name: string): void => {
      const names = changed.get(kind)
      if (names) names.add(name)
      else changed.set(kind, new Set([name]))
    }
    for (const { kind, name } of update.remove) if (this.#kinds.get(kind)?.delete(name)) note(kind, name)
    for (const resource of update.set) {
      let resources = this.#kinds.get(resource.kind)
      if (!resources) this.#kinds.set(resource.kind, (resources = new Map()))
      if (resources.get(resource.name)?.version === resource.version) continue
      resources.set(resource.name, resource)
      note(resource.kind, resource.name)
    }
    if (changed.size > 0) this.revision++
    const first = !this.ready
    this.ready = true
    if (first || changed.size > 0) for (const listener of this.#listeners) listener(changed)
  }

  /** Tells every stream to look at its scope again although no resource changed. */
  touch(): void {
    for (const listener of this.#listeners) listener(new Map())
  }

  /** Returns how to stop listening. */
  listen(listener: StoreListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
