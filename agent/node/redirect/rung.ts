// How much of the kernel half this kernel can bear, as one step of a ladder: by what was probed, never by a version. Pure. Must
// not live here: probing (features.ts).
import type { FeatureName } from '../../../native/bpf/index.ts'

interface Step {
  /** Name of the rung that lacks it, for metrics and people. */
  readonly rung: string
  readonly feature: FeatureName
  /** What is not to be had without it. */
  readonly lacking: string
}

/** From the newest kernels down: a kernel stands on the rung of the last step it lacks. */
const steps: readonly Step[] = [
  {
    rung: 'no_explicit_order',
    feature: 'link:cgroup_before',
    lacking: 'a place before the programs of others on the same cgroup (those of child cgroups run first anyway)',
  },
  {
    rung: 'no_guard',
    feature: 'link:tcx',
    lacking: 'the guard of pods’ exits: raw sockets and programs of other cgroups get round the mesh',
  },
  {
    rung: 'no_sock_destroy',
    feature: 'kfunc:bpf_sock_destroy',
    lacking: 'the end of open connections that policy refuses by now',
  },
  {
    rung: 'no_live_counts',
    feature: 'iterator:task_file',
    lacking: 'the figures of connections that are still open',
  },
]

export interface Rung {
  /** `full`, or what is missing first of all. */
  readonly name: string
  readonly lacks: readonly { readonly feature: string; readonly lacking: string }[]
}

/** Names a kernel may stand on, for the metric. */
export const rungs: readonly string[] = ['full', ...steps.map(({ rung }) => rung)]

/** By feature name → supported; what is not in there counts as missing. */
export function rungOf(features: Readonly<Record<string, boolean>>): Rung {
  const missing = steps.filter(({ feature }) => features[feature] !== true)
  const lacks = missing.map(({ feature, lacking }) => ({ feature, lacking }))
  return { name: missing.at(-1)?.rung ?? 'full', lacks }
}
