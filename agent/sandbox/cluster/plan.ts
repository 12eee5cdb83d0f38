// From wishes and what runs to what is to be done: pods to make, pods to end, and where. Pure. Must not live here: doing
// it (../sandbox.ts), reading YAML (desired.ts).
import type { PodSet } from './desired.ts'

/** A pod as the plan sees it. */
export interface PlannedPod {
  readonly uid: string
  readonly set: string
  readonly hash: string
  readonly namespace: string
  readonly name: string
  readonly node: string
  readonly ready: boolean
  readonly ending: boolean
  /** Order of making; larger = younger. */
  readonly age: number
}

export interface Creation {
  readonly set: PodSet
  readonly name: string
  readonly node: string
}

export interface Plan {
  readonly create: readonly Creation[]
  readonly end: readonly string[]
}

/**
 * Rolls a changed set over: new pods first, the old ones end when all new ones are ready. A bare Pod has one name, so the
 * old one ends first. Nodes fill evenly: fewest pods of the same set, then fewest pods, then the first node.
 * `suffix` makes the random part of a name.
 */
export function planPods(
  sets: readonly PodSet[],
  pods: readonly PlannedPod[],
  nodes: readonly string[],
  suffix: () => string,
): Plan {
  const create: Creation[] = []
  const end: string[] = []
  const load = new Map(nodes.map((node) => [node, 0]))
  const setLoad = new Map<string, number>()
  const place = (set: string, node: string): void => {
    load.set(node, (load.get(node) ?? 0) + 1)
    setLoad.set(`${set} ${node}`, (setLoad.get(`${set} ${node}`) ?? 0) + 1)
  }
  for (const pod of pods) if (!pod.ending) place(pod.set, pod.node)
  const choose = (set: PodSet): string => {
    const wanted = set.spec.nodeName ?? set.spec.nodeSelector?.['kubernetes.io/hostname']
    if (wanted !== undefined && load.has(wanted)) return wanted
    const cost = (node: string): number => (setLoad.get(`${set.key} ${node}`) ?? 0) * 1e6 + (load.get(node) ?? 0)
    return nodes.reduce((best, node) => (cost(node) < cost(best) ? node : best))
  }

  const known = new Map(sets.map((set) => [set.key, set]))
  for (const pod of pods) if (!pod.ending && !known.has(pod.set)) end.push(pod.uid)

  for (const set of sets) {
    const living = pods.filter((pod) => pod.set === set.key && !pod.ending)
    const current = living.filter((pod) => pod.hash === set.hash)
    const old = living.filter((pod) => pod.hash !== set.hash)
    if (set.owner === 'Pod') {
      end.push(...old.map((pod) => pod.uid))
      const taken = pods.some((pod) => pod.namespace === set.namespace && pod.name === set.name)
      if (current.length === 0 && !taken) {
        const node = choose(set)
        place(set.key, node)
        create.push({ set, name: set.name, node })
      }
      continue
    }
    // Not ready ones go first, then the youngest, as a ReplicaSet does.
    const surplus = [...current]
      .sort((a, b) => Number(a.ready) - Number(b.ready) || b.age - a.age)
      .slice(0, Math.max(0, current.length - set.replicas))
    end.push(...surplus.map((pod) => pod.uid))
    for (let count = current.length; count < set.replicas; count++) {
      const node = choose(set)
      place(set.key, node)
      create.push({ set, name: `${set.name}-${set.hash}-${suffix()}`, node })
    }
    const readyNow = current.filter((pod) => pod.ready).length
    if (readyNow >= set.replicas) end.push(...old.map((pod) => pod.uid))
  }
  return { create, end }
}
