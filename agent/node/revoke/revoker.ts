// Ends open connections that policy does not allow, where the agent carries none of their bytes: plaintext that came to a pod
// before it was captured, and direct connections between pods of the node whose verdict has changed. Those the agent carries it
// judges again itself (tunnel/). Must not live here: rules (mesh/), sockets (redirect/judge.ts).
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { authorizeInbound } from '../../mesh/inbound.ts'
import type { MeshView } from '../../mesh/state.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { workloadOf } from '../enroll/wanted.ts'
import type { Refusals } from '../observe/refusals.ts'
import type { NodeRedirect, OlderConnection } from '../redirect/contract.ts'

/** Changes of the state are gathered this long before older connections are judged again. */
const GATHER_MS = 20

export interface RevokerOptions {
  /** Name of this node, as in Workload.node. */
  readonly node: string
  readonly redirect: Pick<NodeRedirect, 'judgeOpen'>
  /** The mesh as known now; undefined while this agent never had a state: nothing is judged then. */
  readonly view: () => MeshView | undefined
  readonly refusals: Pick<Refusals, 'count'>
  readonly clock: Clock
  readonly log: Logger
}

interface Judged {
  readonly pod: RegisteredPod
  /** Older connections that were allowed when last judged, or could not be judged yet: a change may concern them. */
  older: boolean
}

/** One pod at a time, on a worker thread: a run takes milliseconds, whatever the pod has open. */
export class Revoker {
  readonly #options: RevokerOptions
  readonly #pods = new Map<string, Judged>()
  readonly #due = new Set<string>()
  #running: Promise<void> | undefined
  #gather: Timer | undefined
  #closed = false
  #told = false
  /** Older connections ended, since the start. */
  ended = 0

  constructor(options: RevokerOptions) {
    this.#options = options
  }

  /** A pod was captured: what is open of before is judged. */
  addPod(pod: RegisteredPod): void {
    this.#pods.set(pod.uid, { pod, older: true })
    this.#wake([pod.uid])
  }

  removePod(uid: string): void {
    this.#pods.delete(uid)
    this.#due.delete(uid)
  }

  /** The kernel's verdicts on direct connections to these pods are others now. */
  tablesReplaced(uids: Iterable<string>): void {
    this.#wake(uids)
  }

  /** Something in the state changed. Cheap; calls coalesce, and only pods with older connections are looked at. */
  changed(): void {
    if (this.#closed) return
    this.#gather ??= this.#options.clock.after(
      GATHER_MS,
      () => {
        this.#gather = undefined
        this.#wake([...this.#pods.values()].filter(({ older }) => older).map(({ pod }) => pod.uid))
      },
      true,
    )
  }

  /** Resolves when nothing is being judged or due at once. */
  async settled(): Promise<void> {
    while (this.#running) await this.#running
  }

  /** Ends after what is being judged. */
  async close(): Promise<void> {
    this.#closed = true
    this.#gather?.cancel()
    this.#due.clear()
    await this.settled()
  }

  #wake(uids: Iterable<string>): void {
    if (this.#closed) return
    for (const uid of uids) if (this.#pods.has(uid)) this.#due.add(uid)
    if (this.#due.size > 0) this.#running ??= this.#run()
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        const [uid] = this.#due
        if (uid === undefined) return
        this.#due.delete(uid)
        const judged = this.#pods.get(uid)
        if (judged) await this.#judge(judged)
      }
    } finally {
      this.#running = undefined
    }
  }

  async #judge(judged: Judged): Promise<void> {
    const { node, redirect, view, log, refusals } = this.#options
    const { pod } = judged
    const state = view()
    const workload = state && workloadOf(state, node, pod)
    const name = `${pod.namespace}/${pod.name}`
    const refused = (older: OlderConnection): boolean => {
      // Nothing is known of the pod yet: what it is judged by comes with a change.
      if (!state || !workload) return false
      const verdict = authorizeInbound(state, workload, {
        peerAddress: older.client.address,
        identity: undefined,
        address: older.local.address,
        port: older.local.port,
        forwardedFor: undefined,
      })
      if (!verdict.allowed) refusals.count('inbound', verdict.reason)
      return !verdict.allowed
    }
    try {
      const found = await redirect.judgeOpen(pod.uid, (older) => !refused(older))
      if (!found) {
        judged.older = false
        this.#tellMissing()
        return
      }
      judged.older = found.left > 0 || !workload
      this.ended += found.ended
      if (found.ended > 0) log.info({ pod: name, ended: found.ended }, 'connections older than the capture were ended')
    } catch (error) {
      // It left meanwhile.
      if (this.#pods.get(pod.uid) !== judged) return
      judged.older = true
      log.error({ pod: name, error: messageOf(error) }, 'open connections were not judged; the next change tries again')
    }
  }

  #tellMissing(): void {
    if (this.#told) return
    this.#told = true
    const message = 'this kernel cannot end open connections: those that policy refuses by now are left alone'
    this.#options.log.warn({ feature: 'kfunc:bpf_sock_destroy' }, message)
  }
}
