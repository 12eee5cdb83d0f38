// The Redirect of contract.ts on the kernel programs of bpf/: opens or adopts them, enrols pods, answers what the agent asks
// of a socket. The only door of the agent to native/bpf. Must not live here: which pods are to be enrolled, policy.
import { BpfError, closeFd, netnsCookie, openNetns, socketIn, type SocketInOptions } from '../../../native/bpf/index.ts'
import type { Socket } from '../../../native/bpf/gen/connect.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { checkAgentCgroup, checkCgroup } from './cgroup.ts'
import { checkNode, checkPod } from './checkup.ts'
import type { Checkup, KubeletState, Repair } from './checks.ts'
import type {
  Captured,
  GuardReport,
  KernelEdge,
  KernelFlow,
  KernelTelemetry,
  NodeRedirect,
  PodHandle,
  PodListeners,
  SocketOptions,
} from './contract.ts'
import { readCounters } from './counters.ts'
import { Edges } from './edges.ts'
import { checkKubelet, Kubelet, type KubeletOptions } from './kubelet.ts'
import { probeNeeds, requireNeeds } from './features.ts'
import { listenToFlows } from './flows.ts'
import { guardInterfaces } from './guards.ts'
import { noteCanary, noteOnBehalf, noteTunnel, originalDestinationOf } from './notes.ts'
import {
  checkUid,
  install,
  makeListeners,
  parsePin,
  purge,
  setAddresses,
  setRefusePlaintext,
  uninstall,
  type Enrolled,
} from './pods.ts'
import { Tables } from './tables.ts'
import { openPrograms, podPins, removePins, type NodePrograms } from './programs.ts'

export interface RedirectOptions {
  /** The node's cgroup: parent of the pods' and of the agent's own, path under the cgroup2 mount. */
  readonly cgroup: string
  /** Cgroup ids of this agent (and of one that drains beside it): their sockets are never captured. */
  readonly agentCgroupIds: readonly bigint[]
  /** Folder on bpffs, this node's alone, with the schema's version as its last part. */
  readonly pinRoot: string
  /** Feature name → false: pretend the kernel lacks it. */
  readonly features?: Readonly<Record<string, boolean>>
  /** Events of the flow log a second, FLOW_LOG_PER_SECOND; 0: none. */
  readonly flowLogPerSecond?: number
  /** Whose probes pass where plaintext is refused; `false`: nobody's. Default: found by its name. */
  readonly kubelet?: KubeletOptions | false
}

/** A line costs the agent some ten microseconds: a hundredth of a core at most. */
export const FLOW_LOG_PER_SECOND = 1_000

/** Pods whose namespace is remembered, those of this node and some that are gone. */
const NAMES_KEPT = 8_192

/** Agents remembered as exempt before stale ones are dropped; the map holds 64. */
const AGENTS_KEPT = 16

/**
 * Puts the kernel half in place, or adopts what an earlier agent pinned: its pods stay captured, and refuse connections
 * until they are enrolled again. Throws AmbitError REDIRECT_*.
 */
export async function openRedirect(options: RedirectOptions): Promise<NodeRedirect> {
  const features = probeNeeds(options.features)
  requireNeeds(features)
  checkCgroup(options.cgroup)
  checkAgentCgroup(options.cgroup, options.agentCgroupIds)
  if (options.kubelet) checkKubelet(options.kubelet)
  const programs = await openPrograms(options.cgroup, options.pinRoot, {
    setsockopt: features['helper:cgroup_sockopt/get_netns_cookie'] === true,
    flowLogPerSecond: options.flowLogPerSecond ?? FLOW_LOG_PER_SECOND,
    guard: features['link:tcx'] === true,
  })
  exempt(programs, options.agentCgroupIds)
  purge(programs, options.pinRoot)
  return new KernelRedirect(programs, options, features)
}

/** Adds this agent's cgroups. A restarted pod has a new one, so those of agents long gone are dropped now and then. */
function exempt(programs: NodePrograms, ids: readonly bigint[]): void {
  const { ambit_agents } = programs.maps
  const known = [...ambit_agents.keys()]
  if (known.length > AGENTS_KEPT) for (const id of known) if (!ids.includes(id)) ambit_agents.delete(id)
  for (const id of ids) ambit_agents.set(id, 1)
}

class KernelRedirect implements NodeRedirect {
  readonly features: Readonly<Record<string, boolean>>
  readonly tables: Tables
  readonly telemetry: KernelTelemetry
  /** Cookie of a namespace → uid, also of pods that are gone: their last connections have yet to be counted. */
  readonly #names = new Map<bigint, string>()
  #flows: { close(): void } | undefined
  readonly #programs: NodePrograms
  readonly #pinRoot: string
  readonly #agents: readonly bigint[]
  readonly #kubelet: Kubelet | undefined
  readonly #pods = new Map<string, Enrolled>()
  /** Enrolments run one after the other: each is a few milliseconds, and two of one pod must never meet. */
  #tail: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(programs: NodePrograms, options: RedirectOptions, features: Readonly<Record<string, boolean>>) {
    this.#programs = programs
    this.#pinRoot = options.pinRoot
    this.#agents = options.agentCgroupIds
    if (options.kubelet !== false) {
      this.#kubelet = new Kubelet(programs.kubelet, options.pinRoot, options.cgroup, options.kubelet ?? {})
      this.#kubelet.look()
    }
    this.features = features
    this.tables = new Tables(programs.maps, (uid) => this.#pods.get(uid)?.cookie)
    const podOf = (cookie: bigint): string | undefined => this.#names.get(cookie)
    const edges = new Edges(programs.telemetry, podOf, () => performance.now())
    this.telemetry = {
      edges: (): Iterable<KernelEdge> => edges.read(),
      sweep: () => edges.sweep((uid) => this.#pods.has(uid)),
      onFlows: (listener: (flows: readonly KernelFlow[]) => void) => {
        this.#flows?.close()
        this.#flows = listenToFlows(programs.flowLog, podOf, listener)
      },
    }
  }

  enroll(pod: PodHandle): Promise<PodListeners> {
    return this.#inTurn(() => this.#enroll(pod))
  }

  unenroll(uid: string): Promise<void> {
    return this.#inTurn(async () => this.#unenroll(uid))
  }

  enrolled(): readonly string[] {
    const uids = new Set(this.#pods.keys())
    for (const name of podPins(this.#pinRoot)) {
      const pin = parsePin(name)
      if (pin) uids.add(pin.uid)
    }
    return [...uids]
  }

  setPlaintext(uid: string, mode: 'refuse' | 'judge'): void {
    setRefusePlaintext(this.#programs, this.#known(uid), mode === 'refuse')
  }

  guard(uid: string): Promise<GuardReport> {
    return this.#inTurn(async () => {
      const { cookie, netns } = this.#known(uid)
      if (!this.#guards) return { guarded: [], added: [] }
      return guardInterfaces(this.#pinRoot, cookie, netns, false)
    })
  }

  originalDestination(fd: number): Captured | undefined {
    try {
      const socket = this.#programs.maps.ambit_notes.get(fd)
      return socket && originalDestinationOf(socket)
    } catch (error) {
      // Closed meanwhile, or no socket: nothing is known of it, and the caller refuses.
      if (error instanceof BpfError) return undefined
      throw error
    }
  }

  socket(uid: string, options: SocketOptions): number {
    const { netns, cookie } = this.#known(uid)
    const wanted: SocketInOptions = {
      family: options.family,
      ...(options.source === undefined ? {} : { bind: { address: options.source } }),
    }
    const fd = socketIn(netns, wanted)
    const { client, tunnel } = options
    if (client !== undefined) return this.#noted(fd, noteOnBehalf(client))
    return tunnel === undefined ? fd : this.#noted(fd, noteTunnel(cookie, tunnel))
  }

  canary(uid: string, family: 4 | 6): number {
    return this.#noted(socketIn(this.#known(uid).netns, { family }), noteCanary())
  }

  checkNode(): readonly Repair[] | 'succeeded' {
    const repairs = checkNode(this.#programs, this.#pinRoot, this.#agents)
    return repairs === 'succeeded' ? repairs : [...repairs, ...(this.#kubelet?.look() ?? [])]
  }

  get kubelet(): KubeletState {
    return this.#kubelet?.state ?? { state: 'missing', cgroup: '', detail: 'Not looked for.' }
  }

  checkPod(uid: string): Promise<Checkup> {
    return this.#inTurn(async () => checkPod(this.#programs, this.#pinRoot, this.#known(uid), this.#guards))
  }

  /** The socket with a note on it; closed where that fails. */
  #noted(fd: number, note: Socket): number {
    try {
      this.#programs.maps.ambit_notes.set(fd, note)
      return fd
    } catch (error) {
      closeFd(fd)
      throw error
    }
  }

  counters(): Record<string, number> {
    return readCounters(this.#programs.maps.ambit_counters)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#flows?.close()
    for (const enrolled of this.#pods.values()) {
      enrolled.held.link.close()
      letGo(enrolled)
    }
    this.#pods.clear()
    this.#kubelet?.close()
    this.#programs.close()
  }

  async uninstall(): Promise<void> {
    for (const uid of this.enrolled()) await this.unenroll(uid)
    await this.#inTurn(async () => {
      this.close()
      removePins(this.#pinRoot)
    })
  }

  async #enroll(pod: PodHandle): Promise<PodListeners> {
    checkUid(pod.uid)
    const netns = openNamespace(pod)
    try {
      const cookie = netnsCookie(netns)
      const old = this.#pods.get(pod.uid)
      if (old?.cookie === cookie) {
        setAddresses(this.#programs, cookie, pod.addresses)
        if (this.#guards) await guardInterfaces(this.#pinRoot, cookie, old.netns, false)
        closeFd(netns)
        old.addresses = pod.addresses
        return old.listeners
      }
      this.#checkNamespace(pod, cookie)
      if (old) this.#unenroll(pod.uid)
      const listeners = makeListeners(netns)
      try {
        const held = await install(this.#programs, this.#pinRoot, pod, cookie, netns, listeners, this.#guards)
        this.#pods.set(pod.uid, held)
        this.#remember(cookie, pod.uid)
        return listeners
      } catch (error) {
        // Half enrolled stays refused or passing as it was; the next attempt starts over.
        for (const fd of Object.values(listeners)) closeFd(fd as number)
        throw error
      }
    } catch (error) {
      if (this.#pods.get(pod.uid)?.netns !== netns) closeQuietly(netns)
      if (error instanceof AmbitError) throw error
      throw new AmbitError('REDIRECT_ENROLL_FAILED', `Pod ${pod.uid} cannot be captured: ${messageOf(error)}.`, {
        cause: error,
      })
    }
  }

  #remember(cookie: bigint, uid: string): void {
    this.#names.delete(cookie)
    this.#names.set(cookie, uid)
    const [oldest] = this.#names.keys()
    if (this.#names.size > NAMES_KEPT && oldest !== undefined) this.#names.delete(oldest)
  }

  /** A namespace belongs to one pod, and never to the node: capturing the node's traffic would capture everything. */
  #checkNamespace(pod: PodHandle, cookie: bigint): void {
    if (cookie === netnsCookie('/proc/self/ns/net')) {
      throw new AmbitError('REDIRECT_HOST_NAMESPACE', `${pod.netns} of pod ${pod.uid} is the agent's own namespace.`, {
        hint: 'Pods on the host network are never captured.',
      })
    }
    for (const [uid, other] of this.#pods) {
      if (other.cookie !== cookie || uid === pod.uid) continue
      throw new AmbitError(
        'REDIRECT_NAMESPACE_TAKEN',
        `${pod.netns} of pod ${pod.uid} belongs to pod ${uid} already.`,
        {
          hint: `Unenrol ${uid} first.`,
        },
      )
    }
  }

  #unenroll(uid: string): void {
    const enrolled = this.#pods.get(uid)
    if (enrolled) {
      uninstall(this.#programs, this.#pinRoot, enrolled.cookie, enrolled.held.link)
      this.#pods.delete(uid)
      letGo(enrolled)
    }
    // What an earlier agent, or an earlier namespace of this pod, left.
    for (const name of podPins(this.#pinRoot)) {
      const pin = parsePin(name)
      if (pin?.uid === uid) uninstall(this.#programs, this.#pinRoot, pin.cookie, undefined)
    }
  }

  get #guards(): boolean {
    return this.features['link:tcx'] === true
  }

  #known(uid: string): Enrolled {
    const enrolled = this.#pods.get(uid)
    if (enrolled) return enrolled
    throw new AmbitError('REDIRECT_NOT_ENROLLED', `Pod ${uid} is not enrolled.`)
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(() => {
      if (this.#closed) throw new AmbitError('REDIRECT_CLOSED', 'The redirection was closed.')
      return task()
    })
    this.#tail = run.catch(() => undefined)
    return run
  }
}

function openNamespace(pod: PodHandle): number {
  try {
    return openNetns(pod.netns)
  } catch (error) {
    throw new AmbitError('REDIRECT_NO_NAMESPACE', `Pod ${pod.uid} has no namespace: ${messageOf(error)}.`, {
      hint: 'Its path must be that of a network namespace, as /proc/<pid>/ns/net or /run/netns/<name>.',
      cause: error,
    })
  }
}

function letGo(enrolled: Enrolled): void {
  for (const fd of Object.values(enrolled.listeners)) closeQuietly(fd as number)
  closeQuietly(enrolled.netns)
}

/** On ways out, where a descriptor may be closed already and nothing is to be done about it. */
function closeQuietly(fd: number): void {
  try {
    closeFd(fd)
  } catch (error) {
    if (!(error instanceof BpfError)) throw error
  }
}
