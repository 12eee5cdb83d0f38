// What the rest of the agent asks of the kernel half: enrol a pod, learn where a captured connection wanted to go, make
// sockets inside a pod's namespace. The implementation (redirect.ts) is the only code of the agent that touches native/bpf.
import type { Endpoint } from '../../io/connection.ts'
import type { Checks } from './checks.ts'

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
  /** Those of an agent of another schema, kept by the holder: who still waits there is served, too. */
  readonly older?: PodListeners
}

export type ListenerKind = 'outbound' | 'hbone' | 'plaintext'

/** Where a captured connection wanted to go. */
export interface Captured extends Endpoint {
  /** The endpoint the kernel chose, when a service was dialled that it balances: advice that holds while it is usable. */
  readonly chosen?: Endpoint
}

/**
 * What a connection to one address needs. `direct`: the captured pod `pod` of this node takes connections from its neighbours
 * itself, by its policy table. `plain`: not in the mesh. `agent`: the agent knows. An address without a row is outside the mesh.
 */
export type AddressRow =
  | { readonly address: string; readonly class: 'agent' | 'plain' }
  | { readonly address: string; readonly class: 'direct'; readonly pod: string }

/** One port of a service's address. `agent`: the agent resolves it. */
export interface ServiceRow {
  /** Canonical text form. */
  readonly address: string
  readonly port: number
  /** Each as likely as the others: who shall get more is in here more often. Empty where `kind` is `agent`. */
  readonly kind: 'agent' | 'balanced'
  readonly backends: readonly Endpoint[]
  /** Session affinity by client; 0: none. */
  readonly affinitySeconds: number
}

/** A verdict in a policy table. What has none is the agent's. */
export interface PolicyRow {
  /** Uid of the client's pod; undefined in a table `by_port`. */
  readonly client: string | undefined
  /** Undefined: all ports without a row of their own (for this client). */
  readonly port: number | undefined
  readonly verdict: 'allow' | 'deny'
}

/** The verdicts on connections from captured pods of this node to one of them. */
export interface PolicyTable {
  /** `allow`, `deny`: whoever asks, for any port. `agent`: the table says nothing of TCP. */
  readonly head: 'allow' | 'deny' | 'by_port' | 'by_client' | 'agent'
  /** Empty unless `by_port` or `by_client`; at most one for each client and port. */
  readonly rows: readonly PolicyRow[]
  /** Ports whose UDP is refused. */
  readonly udpRefused: readonly number[]
}

/**
 * Writer of the kernel's tables of the mesh. One writer, one operation at a time (each promise is awaited before the next
 * call). Whatever is iterated may be produced on the way: between batches of entries the event loop goes on. Rows found from
 * an earlier writer stay in force until they are overwritten or swept. Throws AmbitError REDIRECT_TABLE_FULL where the kernel
 * has no room; what was written before stays.
 */
export interface TableWriter {
  /** Adds rows or puts them in the place of older ones. `direct` of a pod that is not enrolled is written as `agent`. */
  setAddresses(rows: Iterable<AddressRow>): Promise<void>
  /** Those without a row are passed over. */
  deleteAddresses(addresses: Iterable<string>): Promise<void>
  /** Puts each service's list in the place of the older one: who looks in between finds one or the other, or the agent. */
  setServices(rows: Iterable<ServiceRow>): Promise<void>
  deleteServices(keys: Iterable<Endpoint>): Promise<void>
  /**
   * The tables of these pods (by uid), each replaced as a whole, all in one wait of the kernel; undefined takes it away. Pods
   * and clients that are not enrolled are left out. When it resolves no program uses an old one any more.
   */
  replacePolicies(tables: Iterable<readonly [pod: string, table: PolicyTable | undefined]>): Promise<void>
  /** Whether the kernel may decide what becomes of what a pod dials (POD_DIRECT). Nothing for a pod that is not enrolled. */
  setDirect(pod: string, direct: boolean): void
  /** `synced`: the tables hold the whole mesh. Else everything goes to the agent. `passUnknown`: addresses without a row pass. */
  setSettings(settings: { readonly synced: boolean; readonly passUnknown: boolean }): void
  /** Removes the address and service rows that an earlier writer left and this one has not written, and slots of no list. */
  sweep(): Promise<void>
  /** Entries in the kernel, by table. */
  sizes(): Readonly<Record<'addresses' | 'services' | 'backends' | 'policies', number>>
}

/** The guards of a pod's interfaces: they refuse TCP that goes round the mesh. */
export interface GuardReport {
  /** Names of the interfaces that are guarded now: all but loopback. Empty where the kernel has no tcx. */
  readonly guarded: readonly string[]
  /** Of these, those that were not before. */
  readonly added: readonly string[]
}

/** Plaintext that came to a pod before the pod was captured, and is still open. */
export interface OlderConnection {
  readonly client: Endpoint
  readonly local: Endpoint
}

/** Older connections of a pod after they were judged. */
export interface JudgedOpen {
  readonly left: number
  readonly ended: number
}

/** Who talks to whom, as the kernel counts it. What the agent carries is not in here, but for its tunnels. */
export interface KernelEdge {
  readonly direction: 'outbound' | 'inbound'
  /** `same_node`: plain, both ends attested by the kernel. `none`: plain. `tunnel`: the agent's own, outbound. */
  readonly security: 'same_node' | 'none' | 'tunnel'
  /** Uid of the pod whose sockets are counted; undefined if it was gone before this agent came. */
  readonly pod: string | undefined
  /** Inbound: uid of the pod of this node that dialled. */
  readonly peer: string | undefined
  /** Outbound: address of the endpoint; inbound without a peer: of the client. Undefined when it is in no table. */
  readonly remote: string | undefined
  /** What was dialled, where it is not the endpoint itself. */
  readonly service: Endpoint | undefined
  /** Of the server; 0: of no service, and nobody answered. */
  readonly port: number
  /** Takes what there was no room for. */
  readonly overflow: boolean
  /** Grows when the totals do. */
  readonly version: number
  /** Grow only, as long as the edge is held. */
  readonly totals: EdgeTotals
}

/** Bytes are those of the apps, each once. */
export interface EdgeTotals {
  readonly opened: number
  readonly closed: number
  /** Dialled, and nobody answered. */
  readonly failed: number
  readonly refused: Readonly<Record<KernelRefusal, number>>
  /** By the counted socket. */
  readonly sent: number
  readonly received: number
  /** Segments. */
  readonly retransmits: number
  /** Smoothed round-trip times, one when a connection ends and every ten seconds or more while it is read. */
  readonly rttSumUs: number
  /** Samples up to `rttBoundsUs[i]`; the last one: all else. */
  readonly rtt: Float64Array
}

/** Why the kernel refused: a policy, no verdict in the table, plaintext where only the mesh is let in. */
export type KernelRefusal = 'policy' | 'no_verdict' | 'plaintext'

/** A connection that the kernel handled alone, when it has ended, failed or been refused; told by the side that dialled. */
export interface KernelFlow {
  /** Uid of the pod that dialled. */
  readonly pod: string | undefined
  readonly security: KernelEdge['security']
  readonly source: Endpoint
  /** Where it went, or was to go. */
  readonly destination: Endpoint
  readonly dialled: Endpoint
  readonly durationMs: number
  readonly sent: number
  readonly received: number
  readonly retransmits: number
  /** It never opened. */
  readonly failed: boolean
  /** Name of the errno it ended with, '' for a clean end. */
  readonly error: string
  readonly refusal: KernelRefusal | undefined
}

/** What the kernel counts and tells of connections it handles alone. */
export interface KernelTelemetry {
  /** All edges, read now. The objects stay the same from call to call. */
  edges(): Iterable<KernelEdge>
  /** Forgets edges that nothing has happened on for long, soon for pods that are gone; gives those it forgot. */
  sweep(): readonly KernelEdge[]
  /** The flow log from now on, some at a time. What is beyond its budget is counted in `counters`. */
  onFlows(listener: (flows: readonly KernelFlow[]) => void): void
}

/** A socket in a pod's namespace. */
export interface SocketOptions {
  readonly family: 4 | 6
  readonly client?: Endpoint
  readonly source?: string
  readonly tunnel?: Endpoint
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
   * `client`: the address the app shall see as its peer (getpeername, accept). `source`: local address to bind. `tunnel`: it is
   * to be a tunnel to there, whose round-trip times and retransmits are counted.
   */
  socket(uid: string, options: SocketOptions): number
  /** Totals since load, by name: `redirected`, `delivered`, … and `dropped.<reason>`. */
  counters(): Record<string, number>
  /** Feature name → supported, as probed (an override can say no). */
  readonly features: Readonly<Record<string, boolean>>
  /** Closes this process's handles; pinned links stay, so that a dead agent never means open traffic. */
  close(): void
  /** Removes every pin, of all schemas, and what the holder keeps: traffic is plain afterwards. */
  uninstall(): Promise<void>
}

/** What this node's next agent finds again, and no disk ever has: memory that the holder keeps, for root and its own user only. */
export interface SecretMemory {
  /** What was saved last, by this agent or one before it; undefined if there is nothing, or no holder. */
  load(): Promise<Buffer | undefined>
  /** Replaces it; undefined: nothing is kept. At most 16 MiB. Does nothing once another agent leads. A holder that is away is told later. */
  save(bytes: Uint8Array | undefined): Promise<void>
}

/** The same with the tables that let the kernel decide by itself, the guards, and what the kernel then counts. */
export interface NodeRedirect extends Redirect, Checks {
  /** Brings the guards up to date with the interfaces the pod has by now. Cheap where nothing has changed: for a reconciler. */
  guard(uid: string): Promise<GuardReport>
  /**
   * Ends direct connections to this pod that its table does not allow, and older ones that are not `allowed`. Undefined where
   * the kernel cannot (kfunc:bpf_sock_destroy), or another agent leads: all are left alone. Milliseconds, on a worker thread.
   */
  judgeOpen(uid: string, allowed: (older: OlderConnection) => boolean): Promise<JudgedOpen | undefined>
  readonly tables: TableWriter
  readonly telemetry: KernelTelemetry
  readonly vault: SecretMemory
  /**
   * False once a newer agent has taken over, or all was uninstalled: this one carries what it has, and changes nothing. What
   * would change something does nothing then, but enroll and unenroll, which throw REDIRECT_SUPERSEDED.
   */
  leads(): boolean
}
