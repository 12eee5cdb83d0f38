// What tests of this folder share: objects that the test says are held, and who leads. Must not live here: expectations.
import type { Change } from '../../kube/reflector.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import type { Problem } from '../../config/problem.ts'
import type { Translation } from '../../config/translation.ts'
import type { Snapshot } from '../gather/gather.ts'
import type { ObjectView } from '../gather/objects.ts'
import type { Leadership } from '../lead.ts'

type Listener = (resource: Resource, changes: readonly Change<KubeObject>[]) => void

/** As the reflectors hold and tell. */
export class HeldObjects implements ObjectView {
  readonly complete = true
  readonly #held = new Map<string, { readonly resource: Resource; readonly object: KubeObject }>()
  readonly #listeners = new Set<Listener>()
  version: string | undefined

  set(resource: Resource, object: KubeObject): void {
    const { namespace = '', name } = object.metadata
    const key = `${resource.group}/${resource.kind}/${namespace}/${name}`
    const before = this.#held.get(key)?.object
    this.#held.set(key, { resource, object })
    for (const listener of this.#listeners) listener(resource, [{ type: 'set', key, object, before }])
  }

  *list(resource: Resource): IterableIterator<KubeObject> {
    for (const one of this.#held.values()) if (one.resource === resource) yield one.object
  }

  get(resource: Resource, namespace: string, name: string): KubeObject | undefined {
    return this.#held.get(`${resource.group}/${resource.kind}/${namespace}/${name}`)?.object
  }

  served(resource: Resource): Resource {
    return this.version === undefined ? resource : { ...resource, version: this.version }
  }

  onChange(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }
}

export class GivenLeadership implements Leadership {
  readonly holder = 'here'
  readonly #listeners = new Set<(leads: boolean) => void>()
  #leads = true

  get leads(): boolean {
    return this.#leads
  }

  set leads(leads: boolean) {
    this.#leads = leads
    for (const listener of this.#listeners) listener(leads)
  }

  onChange(listener: (leads: boolean) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }
}

/** Only its problems are read here. */
export function snapshot(...problems: readonly Problem[]): Snapshot {
  return { version: 1, problems, translation: {} as Translation }
}
