// The names of the kernel's counters, in the order of enum counter in bpf/lib/counters.h (a kernel test holds the two
// together). Must not live here: rates, metrics.
import type { PerCpuMap } from '../../../native/bpf/index.ts'

/** Index in the kernel's map → name in `Redirect.counters()`. Append only: the pinned map outlives the agent. */
export const counterNames = [
  'redirected',
  'passed.local',
  'passed.agent',
  'captured',
  'tunnelled',
  'judged',
  'delivered',
  'self',
  'dropped.no_memory',
  'dropped.flow_not_filed',
  'dropped.note_lost',
  'dropped.no_outbound_listener',
  'dropped.no_hbone_listener',
  'dropped.no_plaintext_listener',
  'dropped.plaintext_refused',
  'dropped.listener_dialled',
  'dropped.unknown_namespace',
  'dropped.assign_failed',
] as const

export type CounterName = (typeof counterNames)[number]

/** Totals over all processors since the map was made. */
export function readCounters(map: PerCpuMap<number, bigint>): Record<string, number> {
  const totals: Record<string, number> = {}
  counterNames.forEach((name, index) => {
    totals[name] = Number(map.sum(index) ?? 0n)
  })
  return totals
}
