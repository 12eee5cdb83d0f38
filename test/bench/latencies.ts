// Percentiles of measured times. Must not live here: measuring them.

export interface Latencies {
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Percentiles of microseconds by nearest rank; NaN of none. Sorts a copy. */
export function latencies(micros: readonly number[]): Latencies {
  const sorted = Float64Array.from(micros).sort()
  const at = (share: number): number => (sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN) / 1000
  return { p50Ms: at(0.5), p99Ms: at(0.99) }
}
