// What a resource that somebody wants to write refers to and is not there (yet): only ever a warning, since things may be applied in
// any order. Found by the translation itself, over the few kinds that are referred to. Must not live here: the answer (review.ts).
import type { Clock } from '../../base/clock.ts'
import { namespace } from '../../config/core-kinds.ts'
import { destinationRule } from '../../config/destination-rule.ts'
import { gateway, gatewayClass, referenceGrant } from '../../config/gateway.ts'
import { istioGateway } from '../../config/istio-gateway.ts'
import { meshConfig } from '../../config/mesh-config.ts'
import type { Problem, ProblemCode } from '../../config/problem.ts'
import { resourceKey, type KindDefinition, type Resource } from '../../config/resource.ts'
import { service } from '../../config/service.ts'
import { translate } from '../../config/translate.ts'

const COMMON = [
  namespace,
  service,
  gateway,
  gatewayClass,
  referenceGrant,
  istioGateway,
  meshConfig,
] as readonly KindDefinition[]
const WITH_SUBSETS = [...COMMON, destinationRule] as readonly KindDefinition[]

const MISSING: readonly ProblemCode[] = [
  'CONFIG_UNKNOWN_HOST',
  'CONFIG_UNKNOWN_PORT',
  'CONFIG_UNKNOWN_SUBSET',
  'CONFIG_UNKNOWN_GATEWAY',
  'CONFIG_UNKNOWN_TARGET',
  'CONFIG_NOT_PERMITTED',
]

/** Milliseconds of a second that may go into this: control has the mesh to serve, and the status tells it too. */
const BUDGET_MS = 200

export interface ReferencesOptions {
  /** As they are in force. */
  inForce(definitions: readonly KindDefinition[]): Resource[]
  readonly systemNamespace: string
  readonly clock: Pick<Clock, 'monotonic'>
}

export class References {
  readonly #options: ReferencesOptions
  #spent = 0
  #at = 0
  /** Reviews that went without, for metrics. */
  skipped = 0

  constructor(options: ReferencesOptions) {
    this.#options = options
  }

  /** Problems of the resource alone; none while there is no time for it. */
  of(resource: Resource): readonly Problem[] {
    const { inForce, systemNamespace, clock } = this.#options
    const began = clock.monotonic()
    this.#spent = Math.max(0, this.#spent - ((began - this.#at) / 1_000) * BUDGET_MS)
    this.#at = began
    if (this.#spent > BUDGET_MS) {
      this.skipped++
      return []
    }
    const key = resourceKey(resource)
    const others = inForce(resource.kind === 'VirtualService' ? WITH_SUBSETS : COMMON)
    const resources = [...others.filter((one) => resourceKey(one) !== key), resource]
    const { problems } = translate({ resources, denials: [], systemNamespace })
    const { kind, metadata } = resource
    const found = problems.filter(
      ({ code, resource: of }) =>
        MISSING.includes(code) && of?.kind === kind && of.name === metadata.name && of.namespace === metadata.namespace,
    )
    this.#spent += clock.monotonic() - began
    return found
  }
}
