// The policy that holds for one subset and port of an upstream, merged as Istio merges a DestinationRule: a port's
// policy replaces the service's whole (what it leaves out returns to the defaults), a subset's overrides section by section.
import type { Subset, TrafficPolicy, Upstream } from './upstream.ts'

const DEFAULTS: TrafficPolicy = Object.freeze({})

/** The subset by name; undefined if there is none: then a destination that names it has no healthy host (503 UH). */
export function subsetOf(upstream: Upstream | undefined, name: string): Subset | undefined {
  return upstream?.subsets.find((subset) => subset.name === name)
}

/** Merged policy; absent sections mean Istio's defaults. */
export function trafficPolicyOf(
  upstream: Upstream | undefined,
  subset: Subset | undefined,
  port: number,
): TrafficPolicy {
  if (!upstream) return DEFAULTS
  const base = upstream.portPolicies[port] ?? upstream.policy
  return subset?.policy ? { ...base, ...subset.policy } : base
}
