// What the API server has of every kind the mesh reads, held by one reflector each: for the translation (kube.ts) and for the
// parts that write (statuses, waypoints, trust bundles), which look here and never ask the server what is there. Must not live
// here: what the objects mean, writing any.
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import type { KubeClient } from '../../kube/client.ts'
import {
  CONFIG_KINDS,
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  NAMESPACES,
  NODES,
  PODS,
  projectionOf,
  SERVICES,
} from '../../kube/mesh-kinds.ts'
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

export class Objects implements ObjectView {
  readonly #reflectors = new Map<Resource, Reflector<KubeObject>>()
  readonly #listeners = new Set<(resource: Resource, changes: readonly Change<KubeObject>[]) => void>()

  constructor({ client, systemNamespace, clock, log }: ObjectsOptions) {
    const scopes: Scope[] = [
      ...[NAMESPACES, NODES, PODS, SERVICES, ENDPOINT_SLICES, ...CONFIG_KINDS].map((resource) => ({ resource })),
      // Only Istio's: clusters have thousands of others.
      { resource: CONFIG_MAPS, namespace: systemNamespace, fieldSelector: 'metadata.name=istio' },
    ]
    for (const scope of scopes) {
      const project = projectionOf(scope.resource)
      this.#reflectors.set(scope.resource, new Reflector({ ...scope, client, clock, log, project }))
    }
  }

  get kinds(): readonly Resource[] {
    return [...this.#reflectors.keys()]
  }

  get complete(): boolean {
    return [...this.#reflectors.values()].every((one) => one.isSynced)
  }

  /** Kinds of which the first list is not in yet, with why. */
  get missing(): { readonly kind: string; readonly why: string }[] {
    return [...this.#reflectors]
      .filter(([, one]) => !one.isSynced)
      .map(([{ kind }, one]) => ({ kind, why: one.problem?.message ?? 'not answered yet' }))
  }

  /** Of one kind's following. */
  reflector(resource: Resource): Reflector<KubeObject> | undefined {
    return this.#reflectors.get(resource)
  }

  list(resource: Resource): Iterable<KubeObject> {
    return this.#reflectors.get(resource)?.values() ?? []
  }

  get(resource: Resource, namespace: string, name: string): KubeObject | undefined {
    return this.#reflectors.get(resource)?.get(keyOf({ namespace, name }))
  }

  onChange(listener: (resource: Resource, changes: readonly Change<KubeObject>[]) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Begins to follow; resolves when all first lists are in. */
  async start(): Promise<void> {
    for (const [resource, reflector] of this.#reflectors)
      reflector.start((changes) => {
        for (const listener of this.#listeners) listener(resource, changes)
      })
    await Promise.all([...this.#reflectors.values()].map((one) => one.synced))
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#reflectors.values()].map((one) => one.stop()))
  }
}
