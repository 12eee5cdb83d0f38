// The pods' listening sockets: made anew, or taken back from the holder, which keeps them while there is no agent. A holder that
// is away costs only that: pods are captured all the same. Must not live here: the protocol (holder.ts), where the kernel
// finds them (pods.ts).
import { BpfError, closeFd, socketNetns } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'
import type { PodListeners } from './contract.ts'
import { PATIENCE_MS, type Holder } from './holder.ts'
import { makeListeners } from './pods.ts'

/** Between looks whether the holder still has everything. */
const LOOK_MS = 5_000

export interface ListenersOptions {
  /** Undefined: nothing is kept. */
  readonly holder: Holder | undefined
  /** Part of every name, so that sockets of two schemas never mix: an accepted connection's note is of one schema. */
  readonly schema: number
  /** False: another agent says what is kept. */
  readonly leads: () => boolean
  /** The holder failed; said again only after it worked in between. */
  readonly onProblem: (problem: AmbitError) => void
}

export class Listeners {
  readonly #options: ListenersOptions
  /** What the holder is to keep, by name. */
  readonly #kept = new Map<string, PodListeners>()
  readonly #timer: NodeJS.Timeout | undefined
  /** The holder's run that has everything; undefined: not known. */
  #instance: bigint | undefined
  #told = false

  constructor(options: ListenersOptions) {
    this.#options = options
    if (options.holder) this.#timer = setInterval(() => void this.look(), LOOK_MS).unref()
  }

  /** The listeners of a namespace, those of an earlier agent where the holder has them. Owned by the caller. */
  async of(cookie: bigint, netns: number): Promise<PodListeners> {
    const listeners = (await this.take(this.#options.schema, cookie)) ?? makeListeners(netns)
    await this.keep(cookie, listeners)
    return listeners
  }

  /** Has the holder keep these, in place of those it has of that namespace. */
  async keep(cookie: bigint, listeners: PodListeners): Promise<void> {
    const name = nameOf(this.#options.schema, cookie)
    this.#kept.set(name, listeners)
    await this.#try((holder) => holder.put(name, fdsOf(listeners)))
  }

  /** What the holder has of a namespace under a schema; owned by the caller. */
  async take(schema: number, cookie: bigint): Promise<PodListeners | undefined> {
    const fds = await this.#try((holder) => holder.get(nameOf(schema, cookie)))
    if (!fds) return undefined
    const [outbound, hbone, plaintext] = fds
    if (outbound !== undefined && hbone !== undefined && plaintext !== undefined && areOf(fds, cookie))
      return { outbound, hbone, plaintext }
    // Not what an agent puts there.
    fds.forEach(closeFd)
    return undefined
  }

  /** The pod is gone: nothing is kept of it. */
  async forget(cookie: bigint, schema = this.#options.schema): Promise<void> {
    const name = nameOf(schema, cookie)
    this.#kept.delete(name)
    await this.#try((holder) => holder.drop(name))
  }

  /** Has the holder forget what no pod of `cookies` has: it would keep namespaces alive that nobody knows. */
  async forgetOthers(cookies: ReadonlySet<bigint>): Promise<void> {
    const prefix = `v${this.#options.schema}/`
    for (const name of (await this.#try((holder) => holder.list(prefix))) ?? []) {
      const cookie = /^v\d+\/(\d+)$/.exec(name)?.[1]
      if (cookie !== undefined && cookies.has(BigInt(cookie))) continue
      await this.#try((holder) => holder.drop(name))
    }
  }

  /** Nothing of that schema is kept any more. */
  async forgetSchema(schema: number): Promise<void> {
    await this.#try((holder) => holder.dropAll(`v${schema}/`))
  }

  /** Puts again what the holder lost, as one that was started anew has. */
  async look(): Promise<void> {
    if (!this.#options.leads()) return
    const status = await this.#try((holder) => holder.status())
    if (!status || status.instance === this.#instance) return
    const there = await this.#try((holder) => holder.list(''))
    if (!there) return
    const known = new Set(there)
    for (const [name, listeners] of this.#kept) {
      if (known.has(name)) continue
      if ((await this.#try(async (holder) => (await holder.put(name, fdsOf(listeners)), true))) !== true) return
    }
    this.#instance = status.instance
  }

  /** Stops looking. What is kept stays. */
  close(): void {
    clearInterval(this.#timer)
  }

  async #try<T>(use: (holder: Holder) => Promise<T>): Promise<T | undefined> {
    const { holder, onProblem } = this.#options
    if (!holder) return undefined
    try {
      const value = await use(holder)
      this.#told = false
      holder.patienceMs = PATIENCE_MS
      return value
    } catch (error) {
      if (!(error instanceof AmbitError)) throw error
      // It may come back empty: then everything is to be put again.
      this.#instance = undefined
      if (!this.#told) onProblem(error)
      this.#told = true
      // Pods are not to wait for one that is away, each anew.
      holder.patienceMs = 0
      return undefined
    }
  }
}

function nameOf(schema: number, cookie: bigint): string {
  return `v${schema}/${cookie}`
}

function fdsOf({ outbound, hbone, plaintext }: PodListeners): number[] {
  return [outbound, hbone, plaintext]
}

/** True if all are sockets of the namespace with this cookie. */
function areOf(fds: readonly number[], cookie: bigint): boolean {
  try {
    return fds.length === 3 && fds.every((fd) => socketNetns(fd) === cookie)
  } catch (error) {
    if (error instanceof BpfError) return false
    throw error
  }
}
