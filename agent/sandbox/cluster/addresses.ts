// Who gets which address: slots of pods on a node, virtual addresses of services. An address that became free is not given
// out again at once, so that nobody who remembers it reaches someone else. Must not live here: subnets (layout.ts).
import { AmbitError } from '../../base/errors.ts'
import { MAX_PODS_PER_NODE, serviceAddresses, type Layout } from '../layout.ts'
import type { ServiceWish } from './desired.ts'
import type { AddressedService } from './endpoints.ts'

/** The first slot: .1 is the gateway. */
const FIRST_SLOT = 2

/** The slots of one node, handed out in a circle. */
export class Slots {
  readonly #taken = new Set<number>()
  #next = FIRST_SLOT

  /** Throws SANDBOX_NODE_FULL. */
  take(): number {
    for (let tries = 0; tries < MAX_PODS_PER_NODE; tries++) {
      const slot = this.#next
      this.#next = slot + 1 > FIRST_SLOT + MAX_PODS_PER_NODE - 1 ? FIRST_SLOT : slot + 1
      if (this.#taken.has(slot)) continue
      this.#taken.add(slot)
      return slot
    }
    throw new AmbitError('SANDBOX_NODE_FULL', `a node has ${MAX_PODS_PER_NODE} pods already`, {
      hint: 'Start the sandbox with more nodes (--nodes).',
    })
  }

  free(slot: number): void {
    this.#taken.delete(slot)
  }
}

/** Service addresses: the one written in the YAML, else the same one as long as the service's name exists. */
export class ServiceAddresses {
  readonly #layout: Layout
  readonly #indexes = new Map<string, number>()
  #next = 0

  constructor(layout: Layout) {
    this.#layout = layout
  }

  assign(service: ServiceWish): AddressedService {
    const { spec } = service
    if (spec.type === 'ExternalName' || spec.clusterIP === 'None' || spec.clusterIPs?.[0] === 'None')
      return { ...service, clusterIps: [] }
    const written = spec.clusterIPs?.length ? spec.clusterIPs : spec.clusterIP ? [spec.clusterIP] : []
    if (written.length > 0) return { ...service, clusterIps: written }
    const key = `${service.namespace}/${service.name}`
    let index = this.#indexes.get(key)
    if (index === undefined) {
      index = this.#next++
      this.#indexes.set(key, index)
    }
    const { v4, v6 } = serviceAddresses(this.#layout, index)
    const sixFirst = spec.ipFamilies?.[0] === 'IPv6'
    const both =
      spec.ipFamilyPolicy === 'PreferDualStack' ||
      spec.ipFamilyPolicy === 'RequireDualStack' ||
      (spec.ipFamilies?.length ?? 0) > 1
    const order = sixFirst ? [v6, v4] : [v4, v6]
    return { ...service, clusterIps: both ? order : order.slice(0, 1) }
  }
}
