// Puts the kernel half in place, or adopts what an earlier agent left of it: options, order, who is exempt. The only door of
// the agent to native/bpf together with what it gives (kernel-redirect.ts). Must not live here: what is asked of it then.
import { checkAgentCgroup, checkCgroup } from './cgroup.ts'
import type { NodeRedirect } from './contract.ts'
import { probeNeeds, requireNeeds } from './features.ts'
import { Holder } from './holder.ts'
import { KernelRedirect } from './kernel-redirect.ts'
import { checkKubelet, type KubeletOptions } from './kubelet.ts'
import { Keeping } from './keeping.ts'
import { Lease } from './lease.ts'
import { Listeners } from './listeners.ts'
import { olderPins } from './older.ts'
import { parsePin, purge } from './pods.ts'
import { openPrograms, podPins, type NodePrograms } from './programs.ts'
import { SCHEMA, pinFolder } from './schema.ts'
import { Vault } from './vault.ts'

export interface RedirectOptions {
  /** The node's cgroup: parent of the pods' and of the agent's own, path under the cgroup2 mount. */
  readonly cgroup: string
  /** Cgroup ids of this agent (and of one that drains beside it): their sockets are never captured. */
  readonly agentCgroupIds: readonly bigint[]
  /** Folder on bpffs, this node's alone; the schema's version becomes a folder in it. */
  readonly pinRoot: string
  /** Path of the holder's socket; without it listeners end with the agent. */
  readonly holder?: string
  /** Something failed that needs no answer: the holder is away, an older schema's pins cannot be removed. */
  readonly onProblem?: (problem: Error) => void
  /** Default SCHEMA. Tests meet the next one with it. */
  readonly schema?: number
  /** How long an agent of another schema may drain beside this one, ms. Default LINGER_MS. */
  readonly lingerMs?: number
  /** Feature name → false: pretend the kernel lacks it. */
  readonly features?: Readonly<Record<string, boolean>>
  /** Events of the flow log a second, FLOW_LOG_PER_SECOND; 0: none. */
  readonly flowLogPerSecond?: number
  /** Whose probes pass where plaintext is refused; `false`: nobody's. Default: found by its name. */
  readonly kubelet?: KubeletOptions | false
}

/** A line costs the agent some ten microseconds: a hundredth of a core at most. */
export const FLOW_LOG_PER_SECOND = 1_000

/** Agents remembered as exempt before stale ones are dropped; the map holds 64. */
const AGENTS_KEPT = 16

/**
 * Puts the kernel half in place, or adopts what an earlier agent pinned: its pods stay captured, and refuse connections
 * until they are enrolled again. Throws AmbitError REDIRECT_*.
 */
export async function openRedirect(options: RedirectOptions): Promise<NodeRedirect> {
  const features = probeNeeds(options.features)
  requireNeeds(features)
  checkCgroup(options.cgroup)
  checkAgentCgroup(options.cgroup, options.agentCgroupIds)
  if (options.kubelet) checkKubelet(options.kubelet)
  const schema = options.schema ?? SCHEMA
  const older = olderPins(options.pinRoot, schema, options.lingerMs)
  const pins = pinFolder(options.pinRoot, schema)
  const programs = await openPrograms(options.cgroup, pins, {
    setsockopt: features['helper:cgroup_sockopt/get_netns_cookie'] === true,
    flowLogPerSecond: options.flowLogPerSecond ?? FLOW_LOG_PER_SECOND,
    guard: features['link:tcx'] === true,
    judge: features['kfunc:bpf_sock_destroy'] === true,
  })
  const lease = Lease.take(options.pinRoot)
  // Before the first connection of this agent, and before the first of an older one meets this one's programs.
  exempt(programs, options.agentCgroupIds, lease.since)
  for (const one of older) {
    one.exempt(options.agentCgroupIds)
    exempt(programs, one.agents(), lease.since - 1)
  }
  purge(programs, pins)
  const onProblem = options.onProblem ?? (() => undefined)
  const holder = options.holder === undefined ? undefined : new Holder(options.holder)
  const keeping = new Keeping({ holder, leads: () => lease.leads(), onProblem })
  const listeners = new Listeners(keeping, schema)
  await listeners.forgetOthers(new Set(podPins(pins).flatMap((name) => parsePin(name)?.cookie ?? [])))
  const vault = new Vault({ keeping, leads: () => lease.leads() })
  return new KernelRedirect({
    ...options,
    programs,
    pins,
    features,
    lease,
    keeping,
    listeners,
    vault,
    older,
    onProblem,
  })
}

/**
 * Adds agents' cgroups, with the time they began. A restarted pod has a new one, so those of agents long gone are dropped now
 * and then, the oldest first: the one before this may be draining.
 */
function exempt(programs: NodePrograms, ids: readonly bigint[], since: number): void {
  const { ambit_agents } = programs.maps
  for (const id of ids) ambit_agents.set(id, since)
  const known = [...ambit_agents.entries()].sort(([, a], [, b]) => b - a)
  for (const [id] of known.slice(AGENTS_KEPT)) ambit_agents.delete(id)
}
