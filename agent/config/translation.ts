// What a set of resources says, in the domain's words: the hand-over from config to control, sandbox and CLI.
// Must not live here: how it is computed (translate.ts and each kind's file).
import type { PeerAuthentication } from '../mesh/peer-authentication.ts'
import type { NodePod } from '../mesh/pod.ts'
import type { Policy } from '../mesh/policy.ts'
import type { Route } from '../mesh/route.ts'
import type { Service } from '../mesh/service.ts'
import type { MeshSettings } from '../mesh/settings.ts'
import type { Source } from '../mesh/source.ts'
import type { Upstream } from '../mesh/upstream.ts'
import type { Workload } from '../mesh/workload.ts'
import type { Problem } from './problem.ts'

/** A waypoint as its Gateway asks for it. */
export interface WaypointGateway {
  readonly namespace: string
  readonly name: string
  readonly className: string
  /** `istio.io/waypoint-for`; Ambit's default is `all`. */
  readonly waypointFor: 'service' | 'workload' | 'all' | 'none'
  /** Its Service, `namespace/hostname`. */
  readonly service: string
  readonly serviceAccount: string
  /** Namespaces whose resources may use it: '*' = all. */
  readonly allowedNamespaces: readonly string[]
  readonly source: Source
}

export interface Translation {
  readonly settings: MeshSettings
  readonly workloads: readonly Workload[]
  /** Each for the agent of its node only. */
  readonly pods: readonly NodePod[]
  readonly services: readonly Service[]
  /**
   * AuthorizationPolicies whole (L7 attributes too), the synthetic STRICT policies of PeerAuthentications (referenced
   * from Workload.authorizationPolicies) and a DENY for each rejected security resource of which no good version is held.
   */
  readonly policies: readonly Policy[]
  /** As written, oldest first: what the synthetic policies were made of, for who explains them. */
  readonly peerAuthentications: readonly PeerAuthentication[]
  readonly routes: readonly Route[]
  readonly upstreams: readonly Upstream[]
  readonly waypoints: readonly WaypointGateway[]
  /** About references between resources; those of single documents come from the store. */
  readonly problems: readonly Problem[]
}
