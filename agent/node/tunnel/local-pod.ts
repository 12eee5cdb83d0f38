// A captured pod of this node: its listeners and the connections carried for it. Must not live here: how they are carried.
import type { Listener } from '../../io/connection.ts'
import { earlyWorkload, type NodePod } from '../../mesh/pod.ts'
import type { Workload } from '../../mesh/workload.ts'
import { nodePodOf, workloadOf } from '../enroll/wanted.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import type { Direction, RefusalReason } from '../observe/refusals.ts'
import type { Carried } from './carried.ts'
import type { AgentTarget, TunnelContext } from './contract.ts'

/** Refusals of one reason are logged this often. */
const TELL_MS = 1_000

export class LocalPod {
  readonly pod: RegisteredPod
  readonly uid: string
  readonly name: string
  readonly listeners: Listener[] = []
  readonly carried = new Set<Carried>()
  /** Targets of its tunnels by the workload at the other end, each gone with that workload. */
  readonly targets = new WeakMap<Workload, AgentTarget>()
  readonly #context: TunnelContext
  #early: { readonly told: NodePod; readonly workload: Workload } | undefined
  /** When refusals of a reason were logged last, and how many there were since. */
  readonly #told = new Map<RefusalReason, { at: number; since: number }>()
  /** It leaves: nothing new is carried for it. */
  stopped = false

  constructor(context: TunnelContext, pod: RegisteredPod) {
    this.#context = context
    this.pod = pod
    this.uid = pod.uid
    this.name = `${pod.namespace}/${pod.name}`
  }

  /** The pod's workload as known now. */
  get workload(): Workload | undefined {
    const view = this.#context.view()
    return view && workloadOf(view, this.#context.node, this.pod)
  }

  /** Who it dials out as: its workload, or what is known of it before that. */
  get source(): Workload | undefined {
    const known = this.workload
    if (known) return known
    const view = this.#context.view()
    const told = view && nodePodOf(view, this.pod)
    if (!told || told.enrolment !== 'enrolled') return undefined
    // The same object for the same word: tunnels are pooled by it.
    if (this.#early?.told !== told) {
      this.#early = { told, workload: earlyWorkload(told, this.pod.addresses, view.settings) }
    }
    return this.#early.workload
  }

  /**
   * Counts a refusal that is no carried connection's, and logs it: the first of a reason, then at most one line a second, which
   * says how many there were, so that nobody can fill the log from outside.
   */
  refused(direction: Direction, reason: RefusalReason, peer: string, why: string): void {
    const { flows, log, clock } = this.#context
    flows.refusals.count(direction, reason)
    const now = clock.monotonic()
    const told = this.#told.get(reason)
    if (told && now - told.at < TELL_MS) {
      told.since++
      return
    }
    log.warn({ pod: this.name, direction, reason, peer, why, before: told?.since }, 'a connection was refused')
    this.#told.set(reason, { at: now, since: 0 })
  }

  /** The pod's own address in the family of `like`, where it has one. */
  addressLike(like: string): string {
    const six = like.includes(':')
    return this.pod.addresses.find((address) => address.includes(':') === six) ?? this.pod.addresses[0] ?? ''
  }
}
