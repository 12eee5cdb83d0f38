// The ConfigMaps that Gateways and their classes name as parameters, each followed by itself: a cluster has thousands of others.
// Must not live here: what is in them (config/waypoint-parameters.ts).
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import type { KubeClient } from '../../kube/client.ts'
import { CONFIG_MAPS } from '../../kube/mesh-kinds.ts'
import { Reflector } from '../../kube/reflector.ts'
import { keyOf, type KubeObject } from '../../kube/resource.ts'

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

/** Followed at once: each is a watch, that is a connection's stream and a goroutine of the API server. */
const MAX_MAPS = 500

export type ParameterMap =
  /** Not answered yet; with why, where the API server refuses. */
  | { readonly kind: 'waiting'; readonly why?: string }
  | { readonly kind: 'absent' }
  | { readonly kind: 'too-many' }
  | { readonly kind: 'there'; readonly data: Readonly<Record<string, string>> }

export class ParameterMaps {
  readonly #options: { readonly client: KubeClient; readonly clock: Clock; readonly log: Logger }
  readonly #onChange: () => void
  readonly #reflectors = new Map<string, Reflector<ConfigMap>>()

  /** `onChange`: one of them changed, or was answered for the first time. */
  constructor(options: { client: KubeClient; clock: Clock; log: Logger }, onChange: () => void) {
    this.#options = options
    this.#onChange = onChange
  }

  /** Follows it from now on. */
  get(namespace: string, name: string): ParameterMap {
    const key = keyOf({ namespace, name })
    let reflector = this.#reflectors.get(key)
    if (!reflector) {
      if (this.#reflectors.size >= MAX_MAPS) return { kind: 'too-many' }
      reflector = new Reflector<ConfigMap>({
        ...this.#options,
        resource: CONFIG_MAPS,
        namespace,
        fieldSelector: `metadata.name=${name}`,
        project: ({ metadata, data }: ConfigMap) => ({
          metadata: { name: metadata.name, namespace },
          data: data ?? {},
        }),
      })
      this.#reflectors.set(key, reflector)
      reflector.start(() => this.#onChange())
      void reflector.synced.then(() => this.#onChange())
    }
    if (!reflector.isSynced)
      return { kind: 'waiting', ...(reflector.problem ? { why: reflector.problem.message } : {}) }
    const found = reflector.get(key)
    return found ? { kind: 'there', data: found.data ?? {} } : { kind: 'absent' }
  }

  /** Lets go of all that nobody names any more. */
  retain(keys: ReadonlySet<string>): void {
    for (const [key, reflector] of this.#reflectors) {
      if (keys.has(key)) continue
      this.#reflectors.delete(key)
      void reflector.stop()
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#reflectors.values()].map((one) => one.stop()))
  }
}
