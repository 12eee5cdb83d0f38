// What the agent may ask of the kernel half to be sure of it: is all there, and does it work. Types only; the looks and repairs
// are in checkup.ts. Must not live here: anything that runs.
import type { PodListeners } from './contract.ts'

/** What a look at the kernel half can find wrong, and puts right. */
export type Repair =
  | 'node_link' // a program was not on the node's cgroup
  | 'kubelet_link' // the program that knows probes was not on the kubelet's cgroup
  | 'pod_link' // the sk_lookup program was not on the pod's namespace
  | 'guard' // an interface of the pod had no guard
  | 'pin' // a link or map would have ended with this process
  | 'agent_entry' // the agent's cgroup was not exempt
  | 'pod_entry' // the pod's entry was missing or another
  | 'address_entry' // an address of the pod was not known as its own
  | 'listener' // a listening socket was closed
  | 'listener_entry' // a listening socket was not the one the kernel would choose

/** Whether probes of this node's kubelet pass where plaintext is refused. */
export interface KubeletState {
  /**
   * `exempt`: they do. `missing`: no kubelet was found. `shared`: its cgroup is shared by others, so that policy judges its
   * plaintext like anybody's.
   */
  readonly state: 'exempt' | 'missing' | 'shared'
  /** Its cgroup, '' if not known. */
  readonly cgroup: string
  /** Why, one sentence. */
  readonly detail: string
}

/** What was found at one look. */
export interface Checkup {
  readonly repairs: readonly Repair[]
  /** Those in use from now on; others than before where `repairs` has `listener`. */
  readonly listeners: PodListeners
}

/** Looks at what is in the kernel, puts right what is not as it was left, and makes sockets that prove it. */
export interface Checks {
  /** The node's links, pins and entries. `succeeded`: a newer agent took over, nothing here is this one's any more. */
  checkNode(): readonly Repair[] | 'succeeded'
  /** As found at the last look at the node. */
  readonly kubelet: KubeletState
  /** The same for one pod. Throws REDIRECT_NOT_ENROLLED, BpfError for what cannot be put right. */
  checkPod(uid: string): Promise<Checkup>
  /** As Redirect.socket, but what it connects to is captured as if an app of the pod had dialled it. */
  canary(uid: string, family: 4 | 6): number
}
