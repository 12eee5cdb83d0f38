// The labels and annotations that steer the mesh, each under two prefixes: istio.io/ for what people already have, and
// ambit.io/, which wins where both are given. Must not live here: what follows from them.

/** `dataplane-mode`, `use-waypoint`, `waypoint-for` …: the value and the key it stood under. */
export function meshLabel(
  labels: Readonly<Record<string, string>>,
  name: string,
): { readonly key: string; readonly value: string } | undefined {
  for (const prefix of ['ambit.io/', 'istio.io/']) {
    const key = `${prefix}${name}`
    const value = labels[key]
    if (value !== undefined && value !== '') return { key, value }
  }
  return undefined
}

/** What `same-node` may say. */
export const SAME_NODE = ['direct', 'tunnel'] as const

/** The Gateway a pod or Service was made for (Gateway API's own label; Istio's older one). */
export function gatewayName(labels: Readonly<Record<string, string>>): string | undefined {
  return labels['gateway.networking.k8s.io/gateway-name'] ?? labels['istio.io/gateway-name']
}

/** Where Ambit itself runs, unless it is told otherwise. */
export const SYSTEM_NAMESPACE = 'ambit-system'

/** Namespaces whose pods are never captured, besides Ambit's own, unless others are named: without them nothing could start. */
export const EXEMPT_NAMESPACES: readonly string[] = ['kube-system']

/** A pod with a sidecar is one that has been given one; the wish alone (`inject: "true"`) excludes nothing. */
export function hasSidecar(annotations: Readonly<Record<string, string>>): boolean {
  return annotations['sidecar.istio.io/status'] !== undefined
}
