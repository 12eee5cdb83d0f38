// The mesh's roots in every namespace, as the ConfigMap that pods mount: made within a moment in a new namespace, put right when
// somebody changes or removes it. The leader writes. Must not live here: the roots (kube-authority.ts).
import { messageOf } from '../../base/errors.ts'
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import { apply } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { KubeError } from '../../kube/errors.ts'
import { CONFIG_MAPS, NAMESPACES } from '../../kube/mesh-kinds.ts'
import { Reflector } from '../../kube/reflector.ts'
import type { KubeObject } from '../../kube/resource.ts'
import type { ObjectView } from '../gather/objects.ts'
import type { Leadership } from '../lead.ts'

export const TRUST_BUNDLE = 'ambit-root-cert'
export const TRUST_BUNDLE_KEY = 'root-cert.pem'

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

export interface TrustBundleOptions {
  readonly client: KubeClient
  readonly objects: ObjectView
  readonly leadership: Leadership
  /** PEM. */
  roots(): string
  readonly clock: Clock
  readonly log: Logger
}

/** Writes at one time: a cluster with thousands of namespaces must not be flooded at a rotation. */
const CONCURRENCY = 8

export class TrustBundles {
  readonly #options: TrustBundleOptions
  readonly #reflector: Reflector<ConfigMap>
  readonly #wanted = new Set<string>()
  /** To be tried again when the next wait is over. */
  readonly #failed = new Set<string>()
  readonly #backoff = new Backoff({ baseMs: 500, maxMs: 30_000 })
  #running = 0
  #retry: Timer | undefined
  #stopped = false
  #offs: (() => void)[] = []
  /** Written since the start, and failures, for metrics. */
  readonly counts = { written: 0, failed: 0 }

  constructor(options: TrustBundleOptions) {
    this.#options = options
    const { client, clock, log } = options
    this.#reflector = new Reflector<ConfigMap>({
      client,
      clock,
      log,
      resource: CONFIG_MAPS,
      fieldSelector: `metadata.name=${TRUST_BUNDLE}`,
      project: ({ metadata: { name, namespace }, ...rest }) => ({
        metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
        data: (rest as ConfigMap).data ?? {},
      }),
    })
  }

  start(): void {
    const { objects, leadership } = this.#options
    this.#offs.push(
      objects.onChange((resource, changes) => {
        if (resource !== NAMESPACES) return
        for (const change of changes) if (change.type === 'set') this.#want(change.key)
      }),
      leadership.onChange((leads) => leads && this.lookAtAll()),
    )
    this.#reflector.start((changes) => {
      for (const change of changes) this.#want(change.key.split('/')[0] ?? '')
    })
    void this.#reflector.synced.then(() => this.lookAtAll())
  }

  /** The roots are others, or this replica leads now. */
  lookAtAll(): void {
    for (const { metadata } of this.#options.objects.list(NAMESPACES)) this.#want(metadata.name)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#retry?.cancel()
    for (const off of this.#offs) off()
    await this.#reflector.stop()
  }

  #want(namespace: string): void {
    this.#wanted.add(namespace)
    this.#work()
  }

  #work(): void {
    const { leadership } = this.#options
    if (!leadership.leads || this.#stopped || !this.#reflector.isSynced) return
    for (const namespace of this.#wanted) {
      if (this.#running >= CONCURRENCY) return
      this.#wanted.delete(namespace)
      if (!this.#isMissing(namespace)) continue
      this.#running++
      void this.#write(namespace).finally(() => {
        this.#running--
        this.#work()
      })
    }
  }

  #isMissing(name: string): boolean {
    const { objects, roots } = this.#options
    const namespace = objects.get(NAMESPACES, '', name)
    // In a namespace that is going away nothing can be made.
    if (!namespace || namespace.metadata.deletionTimestamp !== undefined) return false
    return this.#reflector.get(`${name}/${TRUST_BUNDLE}`)?.data?.[TRUST_BUNDLE_KEY] !== roots()
  }

  async #write(namespace: string): Promise<void> {
    const { client, clock, log, roots } = this.#options
    try {
      await apply<ConfigMap>(client, CONFIG_MAPS, {
        metadata: {
          namespace,
          name: TRUST_BUNDLE,
          labels: { 'app.kubernetes.io/managed-by': 'ambit-control' },
        },
        data: { [TRUST_BUNDLE_KEY]: roots() },
      })
      this.counts.written++
      if (this.#failed.size === 0) this.#backoff.reset()
    } catch (error) {
      // The namespace went away meanwhile, or is about to.
      if (error instanceof KubeError && (error.status === 404 || error.status === 403) && !this.#isMissing(namespace))
        return
      this.counts.failed++
      log.warn({ namespace, error: messageOf(error) }, "the mesh's roots could not be written into a namespace")
      // It waits by itself: one namespace that takes no ConfigMap must not keep the roots from the others.
      this.#failed.add(namespace)
      this.#retry ??= clock.after(this.#backoff.next(), () => {
        this.#retry = undefined
        for (const one of this.#failed) this.#wanted.add(one)
        this.#failed.clear()
        this.#work()
      })
    }
  }
}
