// Keeps the kernel's tables in step with the state: all of them once, then what changes made stale. In an order in which what is
// half written is never believed: verdicts before the addresses that lead to them, endpoints before the pods that may use them,
// all of it before the word that the tables are whole. Must not live here: rows (compile.ts), verdicts (mesh/tabulate.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Endpoint } from '../../io/connection.ts'
import type { MeshState } from '../../mesh/state.ts'
import { Tabulation } from '../../mesh/tabulate.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import type { AddressRow, PolicyTable, ServiceRow, TableWriter } from '../redirect/contract.ts'
import { addressRow, serviceRows } from './compile.ts'
import { digestOf } from './digest.ts'
import { Dirty } from './dirty.ts'
import { Neighbours, sameClient, samePlace } from './here.ts'

/** A failed write is tried again after this, growing to the second; the tables are not believed meanwhile. */
const RETRY = { baseMs: 250, maxMs: 30_000 }
/** Tables are made for this long before the event loop gets a turn. */
const TURN_MS = 5

export interface TablesOptions {
  /** Name of this node, as in Workload.node. */
  readonly node: string
  readonly writer: TableWriter
  /** The mesh as known now; undefined as long as this agent never had a state: nothing is written then. */
  readonly view: () => MeshState | undefined
  readonly clock: Clock
  readonly log: Logger
  /** The verdicts on direct connections to these pods were replaced. */
  readonly onPolicies?: (uids: readonly string[]) => void
}

/** What was written, for metrics and the status page. */
export interface TablesStatus {
  /** The tables hold the mesh, and the kernel decides by them. */
  readonly synced: boolean
  /** Rows written since the start, by table. */
  readonly written: Readonly<Record<'addresses' | 'services' | 'policies', number>>
  /** Pods whose dials the kernel may decide about. */
  readonly direct: number
  /** Milliseconds the last whole sync took, and the last of changes. */
  readonly fullMs: number
  readonly changeMs: number
  /** Writes that failed. */
  readonly failures: number
}

export class TableSync {
  readonly #options: TablesOptions
  readonly #captured = new Map<string, RegisteredPod>()
  #state: MeshState | undefined
  #stopWatching: (() => void) | undefined
  #dirty = new Dirty()
  /** What is being written. */
  #work: Dirty | undefined
  #here: Neighbours | undefined
  /** Ports that may be in the kernel, by service address: what is not among the next rows is taken out. */
  readonly #ports = new Map<string, Set<number>>()
  /** Digests of the tables in the kernel, by the pod's uid; undefined where it is not known what is there. */
  readonly #tables = new Map<string, string | undefined>()
  /** Grows when a uid comes to mean another pod than before, or none. */
  #epoch = 0
  /** Pods the kernel may decide for, as it was told; a pod that is not in here was not told of. */
  readonly #direct = new Map<string, boolean>()
  #passUnknown = false
  #synced = false
  #swept = false
  #running: Promise<void> | undefined
  #retry: Timer | undefined
  readonly #backoff = new Backoff(RETRY)
  #told = ''
  #closed = false
  readonly #written = { addresses: 0, services: 0, policies: 0 }
  #fullMs = 0
  #changeMs = 0
  #failures = 0

  constructor(options: TablesOptions) {
    this.#options = options
    this.#dirty.full = true
  }

  /** The state may have become known. Cheap; calls coalesce. */
  changed(): void {
    const state = this.#options.view()
    if (state !== this.#state) {
      this.#stopWatching?.()
      this.#state = state
      this.#dirty.full = true
      this.#stopWatching = state?.watch((change) => {
        this.#dirty.note(change, ({ node }) => node === this.#options.node)
        this.#wake()
      })
    }
    this.#wake()
  }

  /** A pod was captured: its neighbours may dial it and it them. */
  addPod(pod: RegisteredPod): void {
    this.removePod(pod.uid)
    this.#captured.set(pod.uid, pod)
    // An earlier agent may have left one.
    this.#tables.set(pod.uid, undefined)
    this.#touch(pod)
  }

  /** A pod leaves. What the kernel keeps about it goes with its namespace. */
  removePod(uid: string): void {
    const pod = this.#captured.get(uid)
    if (!pod) return
    this.#captured.delete(uid)
    this.#direct.delete(uid)
    // What names it by another namespace than its next one is written anew.
    this.#tables.delete(uid)
    for (const [other, digest] of this.#tables) if (digest?.startsWith('by_client')) this.#tables.set(other, undefined)
    this.#touch(pod)
  }

  #touch(pod: RegisteredPod): void {
    this.#epoch++
    this.#dirty.pods = true
    for (const address of pod.addresses) this.#dirty.addresses.add(address)
    this.#wake()
  }

  status(): TablesStatus {
    let direct = 0
    for (const allowed of this.#direct.values()) if (allowed) direct++
    return {
      synced: this.#synced,
      written: { ...this.#written },
      direct,
      fullMs: this.#fullMs,
      changeMs: this.#changeMs,
      failures: this.#failures,
    }
  }

  /** Resolves when nothing is being written or due at once. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running
  }

  /** Ends after what is being written. The tables stay in force, as the pods stay captured. */
  async close(): Promise<void> {
    this.#closed = true
    this.#stopWatching?.()
    this.#retry?.cancel()
    await this.settled()
  }

  #wake(): void {
    if (this.#closed || this.#running || this.#retry || !this.#state || !this.#dirty.any) return
    // In a turn of its own, so that a burst of changes is one run.
    this.#running = Promise.resolve().then(() => this.#run())
  }

  async #run(): Promise<void> {
    const { clock } = this.#options
    try {
      while (this.#dirty.any && this.#state && !this.#closed) {
        const work = this.#dirty
        this.#dirty = new Dirty()
        const started = clock.monotonic()
        this.#work = work
        await this.#write(this.#state, work)
        this.#work = undefined
        const ms = clock.monotonic() - started
        if (work.full) this.#fullMs = ms
        else this.#changeMs = ms
        this.#backoff.reset()
        this.#told = ''
      }
    } catch (error) {
      this.#failed(error)
    } finally {
      this.#running = undefined
    }
    this.#wake()
  }

  /** What failed half-way is not known to be right: the agent takes everything until all of it was written again. */
  #failed(error: unknown): void {
    const { clock, log, writer } = this.#options
    this.#failures++
    if (this.#work) this.#dirty.add(this.#work)
    this.#work = undefined
    this.#dirty.full = true
    this.#synced = false
    try {
      writer.setSettings({ synced: false, passUnknown: this.#passUnknown })
    } catch (second) {
      log.error({ error: messageOf(second) }, "the kernel's tables cannot be put out of force")
    }
    const message = messageOf(error)
    if (message !== this.#told) {
      const code = error instanceof AmbitError ? error.code : undefined
      log.error({ code, error: message }, "the kernel's tables are not written, everything goes through the agent")
    }
    this.#told = message
    this.#retry = clock.after(
      this.#backoff.next(),
      () => {
        this.#retry = undefined
        this.#wake()
      },
      true,
    )
  }

  async #write(state: MeshState, work: Dirty): Promise<void> {
    const { writer } = this.#options
    this.#restrict(state, work)
    const here = this.#look(state, work)
    await this.#writePolicies(state, here, work)
    const gone: string[] = []
    await writer.setAddresses(this.#addressRows(state, here, addressesOf(state, work), gone))
    await this.#writeServices(state, here, work.full ? this.#serviceAddresses(state) : work.serviceAddressesIn(state))
    if (gone.length > 0) await writer.deleteAddresses(gone)
    if (work.full && !this.#swept) {
      await writer.sweep()
      this.#swept = true
    }
    const local = new Set(here.pods.map(({ uid }) => uid))
    for (const uid of this.#captured.keys()) this.#allow(uid, local.has(uid))
    this.#setSettings(true, passUnknown(state))
  }

  /** What takes a right away comes first. */
  #restrict(state: MeshState, work: Dirty): void {
    if (this.#synced && work.settings && !passUnknown(state)) this.#setSettings(true, false)
  }

  /** The pods and where they are, looked at again where that may have changed; what depends on it becomes stale with it. */
  #look(state: MeshState, work: Dirty): Neighbours {
    const before = this.#here
    if (before && !work.pods && !work.full) return before
    const here = new Neighbours(state, this.#options.node, this.#captured.values())
    this.#here = here
    if (!samePlace(before?.place, here.place)) work.full = true
    const workloads = new Map<string, Workload>(before?.pods.map(({ uid, workload }) => [uid, workload]))
    for (const { uid, addresses, workload } of here.pods) {
      const old = workloads.get(uid)
      workloads.delete(uid)
      if (old === workload) continue
      for (const address of [...addresses, ...workload.addresses]) work.addresses.add(address)
      // Until the tables know whom to call by its name now, it may not go by them.
      if (old && !sameClient(old, workload)) this.#allow(uid, false)
    }
    for (const [uid, { addresses }] of workloads) {
      for (const address of addresses) work.addresses.add(address)
      if (this.#captured.has(uid)) this.#allow(uid, false)
    }
    work.pods = true
    return here
  }

  async #writePolicies(state: MeshState, here: Neighbours, work: Dirty): Promise<void> {
    const { clock, writer } = this.#options
    const changed: (readonly [string, PolicyTable | undefined])[] = []
    const digests = new Map<string, string>()
    const tabulation = new Tabulation(state, here.pods)
    const local = new Set<string>()
    const epoch = this.#epoch
    let turn = clock.monotonic()
    for (const pod of here.pods) {
      local.add(pod.uid)
      if (!work.table(pod.workload)) continue
      const table = tabulation.table(pod)
      const digest = digestOf(table)
      if (this.#tables.get(pod.uid) === digest) continue
      digests.set(pod.uid, digest)
      changed.push([pod.uid, table])
      if (clock.monotonic() - turn < TURN_MS) continue
      await new Promise((resolve) => setImmediate(resolve))
      turn = clock.monotonic()
    }
    for (const uid of this.#tables.keys()) if (!local.has(uid)) changed.push([uid, undefined])
    if (changed.length === 0) return
    await writer.replacePolicies(changed)
    this.#options.onPolicies?.(changed.map(([uid]) => uid))
    for (const [uid, table] of changed) {
      // Who left or came meanwhile may be in it under the wrong namespace.
      const known = this.#epoch === epoch
      if (!this.#captured.has(uid) || (known && !table)) this.#tables.delete(uid)
      else this.#tables.set(uid, known ? digests.get(uid) : undefined)
      this.#written.policies += table ? table.rows.length + 1 : 0
    }
  }

  *#addressRows(
    state: MeshState,
    here: Neighbours,
    addresses: Iterable<string>,
    gone: string[],
  ): Generator<AddressRow> {
    for (const address of addresses) {
      const row = addressRow(state, here, address)
      if (row) {
        this.#written.addresses++
        yield row
      } else gone.push(address)
    }
  }

  async #writeServices(state: MeshState, here: Neighbours, addresses: Iterable<string>): Promise<void> {
    const { writer } = this.#options
    const gone: Endpoint[] = []
    await writer.setServices(this.#serviceRows(state, here, addresses, gone))
    if (gone.length === 0) return
    await writer.deleteServices(gone)
    for (const { address, port } of gone) {
      const ports = this.#ports.get(address)
      ports?.delete(port)
      if (ports?.size === 0) this.#ports.delete(address)
    }
  }

  /** Of the services there are, and of those that may still be in the kernel. */
  #serviceAddresses(state: MeshState): ReadonlySet<string> {
    const all = new Set(this.#ports.keys())
    for (const { addresses } of state.services()) for (const address of addresses) all.add(address)
    return all
  }

  *#serviceRows(
    state: MeshState,
    here: Neighbours,
    addresses: Iterable<string>,
    gone: Endpoint[],
  ): Generator<ServiceRow> {
    for (const address of addresses) {
      const rows = serviceRows(state, here, address)
      const before = this.#ports.get(address)
      for (const port of before ?? []) if (!rows.some((row) => row.port === port)) gone.push({ address, port })
      if (rows.length > 0) this.#ports.set(address, new Set([...(before ?? []), ...rows.map(({ port }) => port)]))
      this.#written.services += rows.length
      yield* rows
    }
  }

  #allow(uid: string, direct: boolean): void {
    if (this.#direct.get(uid) === direct) return
    this.#options.writer.setDirect(uid, direct)
    this.#direct.set(uid, direct)
  }

  #setSettings(synced: boolean, pass: boolean): void {
    if (this.#synced === synced && this.#passUnknown === pass) return
    this.#options.writer.setSettings({ synced, passUnknown: pass })
    this.#synced = synced
    this.#passUnknown = pass
  }
}

function passUnknown(state: MeshState): boolean {
  return state.settings.outboundTrafficPolicy === 'ALLOW_ANY'
}

function* addressesOf(state: MeshState, work: Dirty): Generator<string> {
  if (work.full) {
    for (const { addresses } of state.workloads()) yield* addresses
    for (const { addresses } of state.services()) yield* addresses
  }
  yield* work.addresses
}
