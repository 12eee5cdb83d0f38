// Enrolment as the rest of the agent sees it: which pods are registered on this node, which are captured, and who is told.
// Must not live here: decisions (wanted.ts, plan.ts), sockets of the local API (api.ts), the kernel (../redirect).
import type { Clock } from '../../base/clock.ts'
import type { Logger } from '../../base/log.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { Discovery, SoughtPod } from './discover.ts'
import type { MissingPod } from './finder.ts'
import type { PodHandle, PodListeners, Redirect } from '../redirect/contract.ts'

/** A pod somebody (the sandbox, a CNI plugin) told this agent about. */
export interface RegisteredPod extends PodHandle {
  readonly namespace: string
  readonly name: string
  /**
   * The container that holds its namespaces, where a CNI plugin told of it: a pod whose sandbox failed gets another one, and
   * what is said of the former must not end the latter's capture.
   */
  readonly sandbox?: string
}

/**
 * Where a registered pod stands.
 * `captured`: enrolled, listeners handed over. `out`: known to stay outside the mesh, its traffic is plain.
 * `pending`: to be captured, not there yet or failed and tried again; its traffic is refused once enrolment has begun.
 * `unknown`: this agent has no state to decide by; nothing was changed.
 */
export type PodPhase = 'captured' | 'out' | 'pending' | 'unknown'

export interface PodStatus {
  readonly pod: RegisteredPod
  readonly phase: PodPhase
  /** Why it is in this phase, one sentence; for `pending` the last error. */
  readonly reason: string
}

/** What enrolment needs and whom it tells. */
export interface EnrollmentOptions {
  /** Name of this node, as in Workload.node. */
  readonly node: string
  readonly redirect: Redirect
  /** The mesh as known now; undefined as long as this agent never had a state (then `add` is refused, and nothing is changed). */
  readonly view: () => MeshView | undefined
  /** Unix socket of the local API; made with mode 0600, an old one at this path is replaced. */
  readonly socketPath: string
  /** Holds `pods.json`, the registry that survives a restart. Made if missing (0700). */
  readonly stateDir: string
  readonly log: Logger
  readonly clock: Clock
  /** True while control tells of this node's pods, so that `add` is worth waiting for its word. Default: never. */
  readonly hearsOfPods?: () => boolean
  /** Default discoverPods. */
  readonly discover?: (sought: readonly SoughtPod[]) => Promise<Discovery>
  /** False once a newer agent has taken over: its pods are that one's then. Default: always true. */
  readonly leads?: () => boolean
  /** Namespaces whose pods are never captured; default ambit-system and kube-system. */
  readonly exemptNamespaces?: readonly string[]
  /**
   * A pod has been captured: accept on its listeners. Called again (after onUnenrolled) when it is enrolled anew.
   * `add` answers only after the promise resolved; a rejection is logged and the pod enrolled again later.
   */
  readonly onEnrolled: (pod: RegisteredPod, listeners: PodListeners) => void | Promise<void>
  /** The pod leaves: stop accepting, end its connections. Called before the kernel lets go of it. */
  readonly onUnenrolled: (pod: RegisteredPod) => void | Promise<void>
}

export interface Enrollment {
  /** Something the decision depends on changed (a workload, the settings): look again soon. Cheap; calls coalesce. */
  changed(): void
  /** Registers a pod; resolves once it is captured or known to stay out. Throws AmbitError ENROLL_*. */
  add(pod: RegisteredPod): Promise<PodStatus>
  /**
   * Forgets a pod and takes it out of the mesh. False if it was not registered; with `sandbox`, also if it was not registered
   * with that one, and then nothing is changed.
   */
  del(uid: string, sandbox?: string): Promise<boolean>
  status(uid: string): PodStatus | undefined
  list(): readonly PodStatus[]
  /** Pods that should be captured, and that are not found on this node. */
  missing(): readonly MissingPod[]
  /** Resolves when no reconcile and no search for pods is running or due at once (failed pods wait for their backoff). */
  settled(): Promise<void>
  /** Closes the socket. Pods stay captured. */
  close(): Promise<void>
}
