// What of the kernel's tables a change of the state makes stale: so that a changed endpoint costs its services, not the mesh.
// Must not live here: compiling (compile.ts) and writing rows (sync.ts).
import type { Policy } from '../../mesh/policy.ts'
import type { Service } from '../../mesh/service.ts'
import type { MeshChange, MeshView } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'

export class Dirty {
  /** Everything. */
  full = false
  /** Which captured pods have which workload. */
  pods = false
  /** Settings beside policy. */
  settings = false
  /** Addresses whose row is stale. */
  readonly addresses = new Set<string>()
  /** Addresses whose services' ports are. */
  readonly serviceAddresses = new Set<string>()
  /** Services, by key, whose endpoints changed. */
  readonly services = new Set<string>()
  #allPolicies = false
  readonly #namespaces = new Set<string>()
  readonly #policies = new Set<string>()

  get any(): boolean {
    return (
      this.full ||
      this.pods ||
      this.settings ||
      this.policies ||
      this.addresses.size > 0 ||
      this.services.size > 0 ||
      this.serviceAddresses.size > 0
    )
  }

  /** Some table of verdicts is. */
  get policies(): boolean {
    return this.#allPolicies || this.#namespaces.size > 0 || this.#policies.size > 0
  }

  /** `isLocal`: the workload may be that of a captured pod. */
  note(change: MeshChange, isLocal: (workload: Workload) => boolean): void {
    switch (change.kind) {
      case 'workload':
        for (const workload of [change.before, change.after, ...change.displaced]) {
          if (workload) this.#workload(workload, isLocal)
        }
        break
      case 'service':
        for (const service of [change.before, change.after]) if (service) this.#service(service)
        break
      case 'policy':
        for (const policy of [change.before, change.after]) if (policy) this.#policy(policy)
        break
      case 'settings':
        this.settings = true
        this.#allPolicies = true
        break
    }
  }

  /** True if the table of verdicts of this workload is stale. */
  table(workload: Workload): boolean {
    return (
      this.full ||
      this.pods ||
      this.#allPolicies ||
      this.#namespaces.has(workload.namespace) ||
      workload.authorizationPolicies.some((key) => this.#policies.has(key))
    )
  }

  /** Makes stale what is in another. */
  add(other: Dirty): void {
    this.full ||= other.full
    this.pods ||= other.pods
    this.settings ||= other.settings
    this.#allPolicies ||= other.#allPolicies
    for (const address of other.addresses) this.addresses.add(address)
    for (const address of other.serviceAddresses) this.serviceAddresses.add(address)
    for (const key of other.services) this.services.add(key)
    for (const namespace of other.#namespaces) this.#namespaces.add(namespace)
    for (const key of other.#policies) this.#policies.add(key)
  }

  /** All addresses whose services' rows are stale, as the state is now. */
  *serviceAddressesIn(view: MeshView): Generator<string> {
    const told = new Set(this.serviceAddresses)
    for (const key of this.services) for (const address of view.service(key)?.addresses ?? []) told.add(address)
    yield* told
  }

  #workload(workload: Workload, isLocal: (workload: Workload) => boolean): void {
    for (const address of workload.addresses) this.addresses.add(address)
    for (const key of Object.keys(workload.services)) this.services.add(key)
    if (isLocal(workload)) this.pods = true
  }

  #service(service: Service): void {
    for (const address of service.addresses) {
      this.addresses.add(address)
      this.serviceAddresses.add(address)
    }
  }

  #policy(policy: Policy): void {
    if (policy.scope === 'global') this.#allPolicies = true
    else if (policy.scope === 'namespace') this.#namespaces.add(policy.namespace)
    else if (policy.scope === 'workload') this.#policies.add(`${policy.namespace}/${policy.name}`)
  }
}
