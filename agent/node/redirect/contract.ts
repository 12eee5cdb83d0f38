// What the rest of the agent asks of the kernel half: enrol a pod, learn where a captured connection wanted to go, make
// sockets inside a pod's namespace. The implementation (redirect.ts) is the only code of the agent that touches native/bpf.
import type { Endpoint } from '../../io/connection.ts'

/** A pod that can be captured. */
export interface PodHandle {
  /** Pod UID, or any stable unique name. */
  readonly uid: string
  /** Path of the network namespace, as in /proc/<pid>/ns/net or /run/netns/x. */
  readonly netns: string
  /** The pod's own addresses, canonical text form. */
  readonly addresses: readonly string[]
}

/** Listening sockets made inside the pod's namespace; each is owned by Redirect, `io` listens on a duplicate. */
export interface PodListeners {
  /** Captured outbound connections of the pod. */
  readonly outbound: number
  /** Inbound connections to port 15008 of the pod. */
  readonly hbone: number
  /** Inbound connections to any other port that did not come from this agent. */
  readonly plaintext: number
}

/** What a connection to an address of the mesh needs (bpf/lib/workloads.h). */
export interface WorkloadRow {
  readonly address: string
  /** `agent`: a tunnel, a waypoint, a refusal; `direct`: the captured pod `uid` of this node; `plain`: not in the mesh. */
  readonly class: 'agent' | 'direct' | 'plain'
  /** `direct`: the pod's uid, enrolled here. */
  readonly uid?: string
}

/** A service at one address and port (bpf/lib/services.h). */
export interface ServiceRow {
  readonly address: string
  readonly port: number
  /** Endpoints, one of which is chosen, each as often as its weight says; 'agent': the agent knows more. */
  readonly backends: readonly Endpoint[] | 'agent'
  /** Session affinity ClientIP; 0: none. */
  readonly affinitySeconds: number
}

/** One row of a pod's table of verdicts (bpf/lib/policies.h). */
export interface PolicyRow {
  /** Uid of the client pod, enrolled here; undefined: any. */
  readonly client: string | undefined
  /** `head` says where the answer is; `other`: every port without a row. */
  readonly port: number | 'head' | 'other'
  readonly protocol: 'tcp' | 'udp'
  readonly verdict: 'allow' | 'deny' | 'by_port' | 'by_client'
}

/**
 * The kernel's tables of the mesh. Before they are filled, and whenever they have no answer, connections go to the agent.
 * Bounds: 262 144 addresses, 65 536 services, 524 288 endpoints, 65 536 verdicts a pod; beyond them calls reject with a
 * BpfError (E2BIG) and what was there stays. Many rows are written on a worker thread, a batch at a time.
 */
export interface KernelTables {
  setWorkloads(rows: readonly WorkloadRow[]): Promise<void>
  deleteWorkloads(addresses: readonly string[]): Promise<void>
  /** Each service is replaced in one step; who dials meanwhile gets an endpoint of the old or the new list, or the agent. */
  setServices(rows: readonly ServiceRow[]): Promise<void>
  deleteServices(keys: readonly { readonly address: string; readonly port: number }[]): Promise<void>
  /** Tables by uid of the destination, each replaced as a whole; without rows the agent judges. Unknown uids are left out. */
  replacePolicies(tables: ReadonlyMap<string, readonly PolicyRow[]>): Promise<void>
  /** Whether the kernel may decide about what this pod dials: its workload is known and the tables hold for it. */
  setDirect(uid: string, direct: boolean): void
  setSettings(settings: { readonly synced: boolean; readonly passUnknown: boolean }): void
  /** From here on rows are of a new sync; after it, `sweep` takes away what only earlier ones, also of earlier agents, wrote. */
  begin(): void
  sweep(): Promise<void>
}

/** Where a captured connection wanted to go. */
export interface Captured extends Endpoint {
  /** The endpoint the kernel chose, when a service was dialled that it balances: advice that holds while it is usable. */
  readonly chosen?: Endpoint
}

export interface Redirect {
  /** Makes the listeners, attaches sk_lookup to the namespace, marks it enrolled. Idempotent per uid and namespace. Until listeners accept, connections queue. */
  enroll(pod: PodHandle): Promise<PodListeners>
  /** Takes the pod out of the mesh: new connections are plain again; sockets it made are closed. */
  unenroll(uid: string): Promise<void>
  /** Uids whose capture is in the kernel: enrolled here, or left by an earlier agent and refusing connections until enrolled again. */
  enrolled(): readonly string[]
  /** Plaintext to this pod: 'refuse' = RST by the kernel (STRICT on all ports), 'judge' = to the plaintext listener. New pods start as 'judge'. */
  setPlaintext(uid: string, mode: 'refuse' | 'judge'): void
  /** Where a captured outbound connection (accepted from `outbound`) wanted to go; undefined if the socket was not captured: refuse it. */
  originalDestination(fd: number): Captured | undefined
  /**
   * A non-blocking TCP socket inside the pod's namespace, not yet connected, for `Transport.connect({fd})`.
   * `client`: the address the app shall see as its peer (getpeername, accept). `source`: local address to bind.
   */
  socket(uid: string, options: { family: 4 | 6; client?: Endpoint; source?: string }): number
  /** Totals since load, by name: `redirected`, `delivered`, … and `dropped.<reason>`. */
  counters(): Record<string, number>
  /** Feature name → supported, as probed (an override can say no). */
  readonly features: Readonly<Record<string, boolean>>
  /** Closes this process's handles; pinned links stay, so that a dead agent never means open traffic. */
  close(): void
  /** Removes every pin: traffic is plain afterwards. */
  uninstall(): Promise<void>
}

/** The same with the tables that let the kernel decide by itself. */
export interface NodeRedirect extends Redirect {
  readonly tables: KernelTables
}
