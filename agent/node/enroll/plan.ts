// From what is wanted, registered and captured to what is to be done: a pure function, run again whenever anything changed
// (level-triggered: no event is ever lost, because none is needed). Must not live here: doing it (enrollment.ts).
import type { RegisteredPod } from './contract.ts'
import type { Wanted } from './wanted.ts'

export interface Known {
  /** Pods somebody told this agent about, by uid. */
  readonly registered: ReadonlyMap<string, RegisteredPod>
  /** Pods whose listeners this process has handed over, by uid, as they were then. */
  readonly captured: ReadonlyMap<string, RegisteredPod>
  /** Uids whose capture is in the kernel, also those an earlier agent left. */
  readonly inKernel: ReadonlySet<string>
  /** Uids that were asked to go. */
  readonly released: ReadonlySet<string>
  /** False if the pod's namespace no longer exists. */
  readonly alive: (pod: RegisteredPod) => boolean
  readonly wanted: (pod: RegisteredPod) => Wanted
}

export type Step =
  | { readonly do: 'enroll'; readonly pod: RegisteredPod; readonly reason: string }
  /** `pod` is what was captured, for those who must be told; undefined for what an earlier agent left. */
  | { readonly do: 'unenroll'; readonly uid: string; readonly pod: RegisteredPod | undefined; readonly reason: string }
  | { readonly do: 'forget'; readonly uid: string; readonly reason: string }

/**
 * The steps, those that take away first. What is in the kernel but neither registered nor asked to go is left alone: it
 * refuses connections until its pod is registered again or its namespace is gone; releasing it because a file got lost would open it.
 */
export function plan(known: Known): Step[] {
  const away: Step[] = []
  const added: Step[] = []
  for (const [uid, pod] of known.captured) {
    if (!known.registered.has(uid)) away.push({ do: 'unenroll', uid, pod, reason: 'The pod was removed.' })
  }
  for (const uid of known.released) {
    if (known.registered.has(uid) || known.captured.has(uid) || !known.inKernel.has(uid)) continue
    away.push({ do: 'unenroll', uid, pod: undefined, reason: 'The pod was removed.' })
  }
  for (const [uid, pod] of known.registered) {
    const captured = known.captured.get(uid)
    if (!known.alive(pod)) {
      const reason = `Its network namespace ${pod.netns} is gone.`
      if (captured || known.inKernel.has(uid)) away.push({ do: 'unenroll', uid, pod: captured, reason })
      away.push({ do: 'forget', uid, reason })
      continue
    }
    const { verdict, reason } = known.wanted(pod)
    if (verdict === 'out' && (captured || known.inKernel.has(uid))) {
      away.push({ do: 'unenroll', uid, pod: captured, reason })
    }
    if (verdict === 'in' && !captured) added.push({ do: 'enroll', pod, reason })
    if (verdict === 'in' && captured && !samePod(captured, pod)) {
      if (captured.netns !== pod.netns) {
        away.push({ do: 'unenroll', uid, pod: captured, reason: 'The pod has a new network namespace.' })
      }
      added.push({ do: 'enroll', pod, reason: 'The pod changed.' })
    }
  }
  return [...away, ...added]
}

/** True if nothing that capture depends on differs. */
export function samePod(a: RegisteredPod, b: RegisteredPod): boolean {
  return (
    a.netns === b.netns &&
    a.namespace === b.namespace &&
    a.name === b.name &&
    a.addresses.length === b.addresses.length &&
    a.addresses.every((address) => b.addresses.includes(address))
  )
}
