// A captured pod of this node: its listeners and the connections carried for it. Must not live here: how they are carried.
import type { Listener } from '../../io/connection.ts'
import type { Workload } from '../../mesh/workload.ts'
import { workloadOf } from '../enroll/wanted.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import type { Carried } from './carried.ts'
import type { AgentTarget, TunnelContext } from './contract.ts'

export class LocalPod {
  readonly pod: RegisteredPod
  readonly uid: string
  readonly name: string
  readonly listeners: Listener[] = []
  readonly carried = new Set<Carried>()
  /** Targets of its tunnels by the workload at the other end, each gone with that workload. */
  readonly targets = new WeakMap<Workload, AgentTarget>()
  readonly #context: TunnelContext
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

  /** The pod's own address in the family of `like`, where it has one. */
  addressLike(like: string): string {
    const six = like.includes(':')
    return this.pod.addresses.find((address) => address.includes(':') === six) ?? this.pod.addresses[0] ?? ''
  }
}
