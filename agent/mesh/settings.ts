// Mesh-wide settings: what Istio's MeshConfig says, reduced to what the data plane needs. `ambit.v1.MeshSettings` on the wire.

export interface MeshSettings {
  readonly trustDomain: string
  readonly trustDomainAliases: readonly string[]
  readonly rootNamespace: string
  readonly clusterDomain: string
  readonly outboundTrafficPolicy: 'ALLOW_ANY' | 'REGISTRY_ONLY'
  readonly pathNormalization: 'NONE' | 'BASE' | 'MERGE_SLASHES' | 'DECODE_AND_MERGE_SLASHES'
  /** `ambit`: a policy of a workload behind a waypoint is evaluated whole at the waypoint. `istio`: selector policies at L4 only. */
  readonly l7Selector: 'ambit' | 'istio'
  /** Workload.sameNode where neither pod nor namespace says. */
  readonly sameNode: 'direct' | 'tunnel'
  /** Namespaces with the opt-in label: their new pods are captured even while control is away. */
  readonly enrolledNamespaces: readonly string[]
  /** PEM roots that the mesh trusts; '' from a control plane that does not tell them so. */
  readonly trustBundle: string
}

/** Istio's defaults. */
export const defaultSettings: MeshSettings = {
  trustDomain: 'cluster.local',
  trustDomainAliases: [],
  rootNamespace: 'istio-system',
  clusterDomain: 'cluster.local',
  outboundTrafficPolicy: 'ALLOW_ANY',
  pathNormalization: 'BASE',
  l7Selector: 'ambit',
  sameNode: 'direct',
  enrolledNamespaces: [],
  trustBundle: '',
}
