// The choice among weighted destinations of a rule.

export interface Weights {
  /** Running totals; the last is the sum. */
  readonly totals: readonly number[]
}

/** Compiles weights (whole numbers from 0). A single destination is taken whatever its weight (VirtualService). */
export function compileWeights(weights: readonly number[]): Weights {
  let total = 0
  const totals = weights.map((weight) => (total += Math.max(0, weight)))
  return { totals: weights.length === 1 && total === 0 ? [1] : totals }
}

/** Index of the chosen one, or −1 if all weights are zero or there is none. `random` in [0,1). */
export function pickWeighted(weights: Weights, random: () => number): number {
  const { totals } = weights
  const sum = totals[totals.length - 1]
  if (sum === undefined || sum === 0) return -1
  if (totals.length === 1) return 0
  const at = random() * sum
  for (let i = 0; i < totals.length; i++) if (at < (totals[i] as number)) return i
  return -1
}
