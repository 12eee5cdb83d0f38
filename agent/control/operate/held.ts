// The objects of waypoints as the API server has them: those that carry the label, of each kind that control makes. Must not live
// here: what they ought to be (config/waypoint.ts), making them so (term.ts).
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import { MANAGED_BY, MANAGED_LABEL } from '../../config/waypoint.ts'
import type { KubeClient } from '../../kube/client.ts'
import { keep } from '../../kube/keep.ts'
import { DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES } from '../../kube/mesh-kinds.ts'
import { Reflector, type Change } from '../../kube/reflector.ts'
import { keyOf, type KubeObject, type Resource } from '../../kube/resource.ts'
import type { OwnedMeta } from './owner.ts'

export const BUDGETS: Resource = {
  group: 'policy',
  version: 'v1',
  plural: 'poddisruptionbudgets',
  kind: 'PodDisruptionBudget',
  namespaced: true,
}
export const AUTOSCALERS: Resource = {
  group: 'autoscaling',
  version: 'v2',
  plural: 'horizontalpodautoscalers',
  kind: 'HorizontalPodAutoscaler',
  namespaced: true,
}

/** In the order in which they are made. */
export const MADE: readonly Resource[] = [SERVICE_ACCOUNTS, SERVICES, DEPLOYMENTS, BUDGETS, AUTOSCALERS]

export interface HeldObject extends KubeObject {
  readonly metadata: OwnedMeta
  readonly spec?: { readonly replicas?: number; readonly clusterIPs?: readonly string[] }
  readonly status?: {
    readonly readyReplicas?: number
    readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string; readonly hostname?: string }[] }
  }
}

/** Written by the Deployment controller at each rollout. */
const REVISION = 'deployment.kubernetes.io/revision'

/** What is kept of an object, held or answered. */
export function heldOf(object: KubeObject): HeldObject {
  return keep(object, {
    metadata: {
      name: true,
      namespace: true,
      uid: true,
      resourceVersion: true,
      generation: true,
      deletionTimestamp: true,
      labels: true,
      annotations: (all) => {
        const rest = { ...(all as Record<string, string>) }
        delete rest[REVISION]
        return rest
      },
      ownerReferences: true,
    },
    spec: true,
    status: { readyReplicas: true, loadBalancer: true },
    automountServiceAccountToken: true,
  }) as HeldObject
}

/** Changes with everything that somebody may have written into it, not with what controllers report. */
export function fingerprintOf(object: HeldObject): string {
  const metadata = { ...object.metadata, generation: 0, resourceVersion: '' }
  return JSON.stringify({ ...object, metadata, status: undefined })
}

export class Held {
  readonly #reflectors: ReadonlyMap<Resource, Reflector<HeldObject>>

  constructor({ client, clock, log }: { client: KubeClient; clock: Clock; log: Logger }) {
    const labelSelector = `${MANAGED_LABEL}=${MANAGED_BY}`
    this.#reflectors = new Map(
      MADE.map((resource) => [
        resource,
        new Reflector({ client, clock, log, resource, labelSelector, project: heldOf }),
      ]),
    )
  }

  /** Resolves when all are listed. `onChange` hears of each object that is new, different or gone, also of the first ones. */
  async start(onChange: (resource: Resource, change: Change<HeldObject>) => void): Promise<void> {
    for (const [resource, reflector] of this.#reflectors)
      reflector.start((changes) => {
        for (const change of changes) onChange(resource, change)
      })
    await Promise.all([...this.#reflectors.values()].map((one) => one.synced))
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#reflectors.values()].map((one) => one.stop()))
  }

  get(resource: Resource, namespace: string, name: string): HeldObject | undefined {
    return this.#reflectors.get(resource)?.get(keyOf({ namespace, name }))
  }

  *all(): IterableIterator<HeldObject> {
    for (const reflector of this.#reflectors.values()) yield* reflector.values()
  }
}
