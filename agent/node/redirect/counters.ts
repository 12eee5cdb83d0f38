// The kernel's counters under names for people and dashboards, made from enum counter of bpf/lib/counters.h: COUNT_JUDGED →
// `judged`, COUNT_PASSED_LOCAL → `passed.local`, COUNT_DROP_NO_MEMORY → `dropped.no_memory`. Must not live here: rates, metrics.
import type { PerCpuMap } from '../../../native/bpf/index.ts'
import { Counter } from '../../../native/bpf/gen/connect.ts'

/** Index in the kernel's map → name in `Redirect.counters()`. */
export const counterNames: readonly string[] = Object.entries(Counter)
  .filter(([constant]) => constant !== 'COUNTERS')
  .sort(([, a], [, b]) => a - b)
  .map(([constant]) => nameOf(constant))

function nameOf(constant: string): string {
  return constant
    .replace(/^COUNT_/, '')
    .toLowerCase()
    .replace(/^drop_/, 'dropped.')
    .replace(/^passed_/, 'passed.')
}

/** Totals over all processors since the map was made. */
export function readCounters(map: PerCpuMap<number, bigint>): Record<string, number> {
  const totals: Record<string, number> = {}
  counterNames.forEach((name, index) => {
    totals[name] = Number(map.sum(index) ?? 0n)
  })
  return totals
}
