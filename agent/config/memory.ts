// What one translation remembers for the next: what was made of each pod and Service, good for as long as everything it was
// made from is the same object. With ten thousand pods one that changes costs one, and what did not change stays the same
// object, which whoever compares translations sees at a glance. Must not live here: what is made (each kind's file).
import { isDeepStrictEqual } from 'node:util'
import type { NodePod } from '../mesh/pod.ts'
import type { Service } from '../mesh/service.ts'
import type { MeshSettings } from '../mesh/settings.ts'
import type { Workload } from '../mesh/workload.ts'
import type { Context, Reported } from './context.ts'
import type { Link, PortMap } from './endpoints.ts'
import type { Resource } from './resource.ts'
import type { WaypointGateway } from './translation.ts'

interface Made<Value> {
  readonly inputs: readonly unknown[]
  readonly value: Value
  /** What making it found wrong: it is wrong still. */
  readonly reports: readonly Reported[]
}

/** Values made of single resources. */
export class Derived<Value> {
  readonly #made = new WeakMap<Resource, Made<Value>>()

  /** `inputs` are all that `make` looks at besides the resource, each compared by identity. */
  of(context: Context, resource: Resource, inputs: readonly unknown[], make: () => Value): Value {
    const known = this.#made.get(resource)
    if (known && sameInputs(known.inputs, inputs)) {
      for (const one of known.reports) context.repeat(one)
      return known.value
    }
    const { value, reports } = context.recording(make)
    this.#made.set(resource, { inputs, value, reports })
    return value
  }
}

export class Memory {
  readonly services = new Derived<Service | undefined>()
  readonly workloads = new Derived<Workload>()
  readonly pods = new Derived<NodePod>()
  readonly #links = new WeakMap<Resource, { readonly of: Resource; readonly link: Link }>()
  readonly #listed = new WeakMap<Workload, Workload>()
  #frame: { readonly settings: MeshSettings; readonly waypoints: readonly WaypointGateway[] } | undefined

  /** An object that is the same while mesh-wide settings and waypoints say the same. */
  frame(settings: MeshSettings, waypoints: readonly WaypointGateway[]): object {
    // Which namespaces are enrolled is asked of each namespace.
    const now = { settings: { ...settings, enrolledNamespaces: [] }, waypoints }
    if (!this.#frame || !isDeepStrictEqual(this.#frame, now)) this.#frame = now
    return this.#frame
  }

  /** What a slice says of its service, as the same object while both are. */
  link(slice: Resource, service: Resource, key: string, ports: () => PortMap): Link {
    const known = this.#links.get(slice)
    if (known?.of === service && known.link.service === key) return known.link
    const link = { service: key, ports: ports() }
    this.#links.set(slice, { of: service, link })
    return link
  }

  /** The workload with its list of policies, as the same object while the list says the same. */
  listed(workload: Workload, policies: readonly string[]): Workload {
    const known = this.#listed.get(workload)
    if (known && sameInputs(known.authorizationPolicies, policies)) return known
    const listed = { ...workload, authorizationPolicies: policies }
    this.#listed.set(workload, listed)
    return listed
  }
}

function sameInputs(a: readonly unknown[], b: readonly unknown[]): boolean {
  if (a.length !== b.length) return false
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false
  return true
}
