// The pods' listening sockets: made anew, or taken back from the holder, which keeps them while there is no agent. A holder that
// is away costs only that: pods are captured all the same. Must not live here: how the holder is kept up to date (keeping.ts),
// where the kernel finds them (pods.ts).
import { BpfError, closeFd, socketNetns } from '../../../native/bpf/index.ts'
import type { PodListeners } from './contract.ts'
import type { Keeping } from './keeping.ts'
import { makeListeners } from './pods.ts'

export class Listeners {
  readonly #keeping: Keeping
  /** Part of every name, so that sockets of two schemas never mix: an accepted connection's note is of one schema. */
  readonly #schema: number

  constructor(keeping: Keeping, schema: number) {
    this.#keeping = keeping
    this.#schema = schema
  }

  /** The listeners of a namespace, those of an earlier agent where the holder has them. Owned by the caller. */
  async of(cookie: bigint, netns: number): Promise<PodListeners> {
    const listeners = (await this.take(this.#schema, cookie)) ?? makeListeners(netns)
    await this.keep(cookie, listeners)
    return listeners
  }

  /** Has the holder keep these, in place of those it has of that namespace. */
  async keep(cookie: bigint, { outbound, hbone, plaintext }: PodListeners): Promise<void> {
    await this.#keeping.put(nameOf(this.#schema, cookie), [outbound, hbone, plaintext])
  }

  /** What the holder has of a namespace under a schema; owned by the caller. */
  async take(schema: number, cookie: bigint): Promise<PodListeners | undefined> {
    const fds = await this.#keeping.get(nameOf(schema, cookie))
    if (!fds) return undefined
    const [outbound, hbone, plaintext] = fds
    if (outbound !== undefined && hbone !== undefined && plaintext !== undefined && areOf(fds, cookie))
      return { outbound, hbone, plaintext }
    // Not what an agent puts there.
    fds.forEach(closeFd)
    return undefined
  }

  /** The pod is gone: nothing is kept of it. */
  async forget(cookie: bigint, schema = this.#schema): Promise<void> {
    await this.#keeping.drop(nameOf(schema, cookie))
  }

  /** Has the holder forget what no pod of `cookies` has: it would keep namespaces alive that nobody knows. */
  async forgetOthers(cookies: ReadonlySet<bigint>): Promise<void> {
    for (const name of await this.#keeping.list(`v${this.#schema}/`)) {
      const cookie = /^v\d+\/(\d+)$/.exec(name)?.[1]
      if (cookie !== undefined && cookies.has(BigInt(cookie))) continue
      await this.#keeping.drop(name)
    }
  }

  /** Nothing of that schema is kept any more. */
  async forgetSchema(schema: number): Promise<void> {
    await this.#keeping.dropAll(`v${schema}/`)
  }
}

function nameOf(schema: number, cookie: bigint): string {
  return `v${schema}/${cookie}`
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
