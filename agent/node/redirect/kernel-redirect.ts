// The Redirect of contract.ts on the kernel programs of bpf/: enrols pods, answers what the agent asks of a socket, and leads
// over from agents of other schemas. Must not live here: how it comes to be in place (redirect.ts), which pods are to be
// enrolled, policy.
import {
  BpfError,
  closeFd,
  dupFd,
  netnsCookie,
  openNetns,
  socketIn,
  type SocketInOptions,
} from '../../../native/bpf/index.ts'
import type { Socket } from '../../../native/bpf/gen/connect.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { checkNode, checkPod } from './checkup.ts'
import type { Checkup, KubeletState, Repair } from './checks.ts'
import type {
  Captured,
  GuardReport,
  JudgedOpen,
  KernelEdge,
  KernelFlow,
  KernelTelemetry,
  NodeRedirect,
  OlderConnection,
  PodHandle,
  PodListeners,
  SocketOptions,
} from './contract.ts'
import { readCounters } from './counters.ts'
import { closeListeners, closeQuietly } from './descriptors.ts'
import { Edges } from './edges.ts'
import { listenToFlows } from './flows.ts'
import { guardInterfaces } from './guards.ts'
import { judgeOpen } from './judge.ts'
import { Kubelet } from './kubelet.ts'
import type { Keeping } from './keeping.ts'
import type { Lease } from './lease.ts'
import { LeasedTables } from './leased-tables.ts'
import type { Listeners } from './listeners.ts'
import { noteCanary, noteOnBehalf, noteTunnel, originalDestinationOf } from './notes.ts'
import type { OlderPins } from './older.ts'
import { checkUid, install, parsePin, setAddresses, setRefusePlaintext, uninstall, type Enrolled } from './pods.ts'
import { podPins, type NodePrograms } from './programs.ts'
import type { RedirectOptions } from './redirect.ts'
import { Tables } from './tables.ts'
import { uninstallNode } from './uninstall.ts'
import type { Vault } from './vault.ts'

/** Pods whose namespace is remembered, those of this node and some that are gone. */
const NAMES_KEPT = 8_192

/** What is in place, and how it was to be. */
export interface Parts extends RedirectOptions {
  readonly programs: NodePrograms
  /** Folder of this schema's pins, in `pinRoot`. */
  readonly pins: string
  readonly features: Readonly<Record<string, boolean>>
  readonly lease: Lease
  readonly keeping: Keeping
  readonly listeners: Listeners
  readonly vault: Vault
  readonly older: readonly OlderPins[]
  readonly onProblem: (problem: Error) => void
}

export class KernelRedirect implements NodeRedirect {
  readonly features: Readonly<Record<string, boolean>>
  readonly tables: LeasedTables
  readonly vault: Vault
  readonly #lease: Lease
  readonly #keeping: Keeping
  readonly #listeners: Listeners
  /** Not yet removed. */
  #older: readonly OlderPins[]
  readonly #root: string
  readonly #holder: string | undefined
  readonly #onProblem: (problem: Error) => void
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

  constructor(parts: Parts) {
    const { programs, pins, pinRoot, agentCgroupIds, features, lease, keeping, listeners, older, onProblem } = parts
    this.#programs = programs
    this.#pinRoot = pins
    this.#root = pinRoot
    this.#holder = parts.holder
    this.#agents = agentCgroupIds
    if (parts.kubelet !== false) {
      this.#kubelet = new Kubelet(programs.kubelet, pins, parts.cgroup, parts.kubelet ?? {})
      this.#kubelet.look()
    }
    this.features = features
    this.vault = parts.vault
    this.#lease = lease
    this.#keeping = keeping
    this.#listeners = listeners
    this.#older = older
    this.#onProblem = onProblem
    const tables = new Tables(programs.maps, (uid) => this.#pods.get(uid)?.cookie)
    this.tables = new LeasedTables(tables, lease, (uids) => this.#refuseDatagrams(uids))
    const podOf = (cookie: bigint): string | undefined => this.#names.get(cookie)
    const edges = new Edges(programs.telemetry, podOf, () => performance.now())
    this.telemetry = {
      edges: (): Iterable<KernelEdge> => edges.read(),
      sweep: () => (lease.leads() ? edges.sweep((uid) => this.#pods.has(uid)) : []),
      onFlows: (listener: (flows: readonly KernelFlow[]) => void) => {
        this.#flows?.close()
        this.#flows = listenToFlows(programs.flowLog, podOf, listener)
      },
    }
    this.#finishOlder()
  }

  leads(): boolean {
    return !this.#closed && this.#lease.leads()
  }

  enroll(pod: PodHandle): Promise<PodListeners> {
    return this.#inTurn(() => {
      this.#mustLead()
      return this.#enroll(pod)
    })
  }

  unenroll(uid: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#mustLead()
      await this.#unenroll(uid)
    })
  }

  enrolled(): readonly string[] {
    const uids = new Set(this.#pods.keys())
    for (const name of podPins(this.#pinRoot)) {
      const pin = parsePin(name)
      if (pin) uids.add(pin.uid)
    }
    for (const older of this.#older) for (const { uid } of older.pods()) uids.add(uid)
    return [...uids]
  }

  setPlaintext(uid: string, mode: 'refuse' | 'judge'): void {
    const pod = this.#known(uid)
    if (this.#lease.leads()) setRefusePlaintext(this.#programs, pod, mode === 'refuse')
  }

  guard(uid: string): Promise<GuardReport> {
    return this.#inTurn(async () => {
      const { cookie, netns, refusesDatagrams = false } = this.#known(uid)
      if (!this.#guards || !this.#lease.leads()) return { guarded: [], added: [] }
      return guardInterfaces(this.#pinRoot, cookie, netns, { datagrams: refusesDatagrams })
    })
  }

  async judgeOpen(uid: string, allowed: (older: OlderConnection) => boolean): Promise<JudgedOpen | undefined> {
    const { netns } = this.#known(uid)
    const { judge } = this.#programs
    // The newer agent judges by now; what it notes, one of an older schema cannot read.
    if (!judge || !this.#lease.leads()) return undefined
    // The pod may leave meanwhile, and its descriptor with it.
    const held = dupFd(netns)
    try {
      return await judgeOpen(judge, held, allowed)
    } finally {
      closeFd(held)
    }
  }

  /** sk_lookup refuses what is for the pod alone; what is for a group needs a guard at the entry. */
  async #refuseDatagrams(uids: readonly string[]): Promise<void> {
    for (const uid of uids) {
      const pod = this.#pods.get(uid)
      if (!pod || pod.refusesDatagrams === true) continue
      pod.refusesDatagrams = true
      // What fails here, the next look at the pod tries again.
      await this.guard(uid).catch((error: unknown) => this.#onProblem(error as Error))
    }
  }

  originalDestination(fd: number): Captured | undefined {
    try {
      const socket = this.#programs.maps.ambit_notes.get(fd)
      const known = socket && originalDestinationOf(socket)
      if (known || this.#older.length === 0) return known
      for (const older of this.#older) {
        const found = older.originalDestination(fd)
        if (found) return found
      }
      return undefined
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
    if (!this.#lease.leads()) return 'succeeded'
    const repairs = checkNode(this.#programs, this.#pinRoot, this.#agents)
    return repairs === 'succeeded' ? repairs : [...repairs, ...(this.#kubelet?.look() ?? [])]
  }

  get kubelet(): KubeletState {
    return this.#kubelet?.state ?? { state: 'missing', cgroup: '', detail: 'Not looked for.' }
  }

  checkPod(uid: string): Promise<Checkup> {
    return this.#inTurn(async () => {
      const pod = this.#known(uid)
      if (!this.#lease.leads()) return { repairs: [], listeners: pod.listeners }
      const checkup = await checkPod(this.#programs, this.#pinRoot, pod, this.#guards)
      if (checkup.repairs.includes('listener')) await this.#listeners.keep(pod.cookie, checkup.listeners)
      return checkup
    })
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
    this.#keeping.close()
    this.vault.close()
    for (const older of this.#older) older.close()
    this.#lease.close()
    this.#programs.close()
  }

  uninstall(): Promise<void> {
    return this.#inTurn(async () => {
      await uninstallNode(this.#root, this.#holder)
      this.close()
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
        if (this.#guards)
          await guardInterfaces(this.#pinRoot, cookie, old.netns, { datagrams: old.refusesDatagrams === true })
        closeFd(netns)
        old.addresses = pod.addresses
        return old.listeners
      }
      this.#checkNamespace(pod, cookie)
      if (old) await this.#unenroll(pod.uid)
      const listeners = await this.#listeners.of(cookie, netns)
      try {
        const held = await install(this.#programs, this.#pinRoot, pod, cookie, netns, listeners, this.#guards)
        const older = await this.#supersede(cookie)
        if (older) held.listeners = { ...listeners, older }
        this.#pods.set(pod.uid, held)
        this.#remember(cookie, pod.uid)
        return held.listeners
      } catch (error) {
        // Half enrolled stays refused or passing as it was; the next attempt starts over.
        closeListeners(listeners)
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

  /** This agent's programs are on the namespace: those of other schemas go, but who waits at their listeners stays. */
  async #supersede(cookie: bigint): Promise<PodListeners | undefined> {
    let waiting: PodListeners | undefined
    for (const older of this.#older) {
      if (!older.pods().some((pod) => pod.cookie === cookie)) continue
      if (older.readable) waiting ??= await this.#listeners.take(older.schema, cookie)
      await older.release(cookie)
    }
    this.#finishOlder()
    return waiting
  }

  #finishOlder(): void {
    for (const older of this.#older) {
      older.finish((problem) => {
        if (problem instanceof Error) this.#onProblem(problem)
        this.#older = this.#older.filter((one) => one !== older)
        void this.#listeners.forgetSchema(older.schema)
      })
    }
  }

  #mustLead(): void {
    if (this.#lease.leads()) return
    throw new AmbitError('REDIRECT_SUPERSEDED', 'Another agent of this node has taken over the kernel tables.', {
      hint: 'Ask that one: it answers at the local socket by now.',
    })
  }

  async #unenroll(uid: string): Promise<void> {
    const enrolled = this.#pods.get(uid)
    if (enrolled) {
      uninstall(this.#programs, this.#pinRoot, enrolled.cookie, enrolled.held.link)
      this.#pods.delete(uid)
      letGo(enrolled)
      await this.#listeners.forget(enrolled.cookie)
    }
    // What an earlier agent, or an earlier namespace of this pod, left.
    for (const name of podPins(this.#pinRoot)) {
      const pin = parsePin(name)
      if (pin?.uid !== uid) continue
      uninstall(this.#programs, this.#pinRoot, pin.cookie, undefined)
      await this.#listeners.forget(pin.cookie)
    }
    for (const older of this.#older) {
      for (const pod of older.pods()) {
        if (pod.uid !== uid) continue
        await older.release(pod.cookie)
        await this.#listeners.forget(pod.cookie, older.schema)
      }
    }
    this.#finishOlder()
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
  closeListeners(enrolled.listeners)
  closeQuietly(enrolled.netns)
}
