// Rows of a bench and how they are shown: the median of the rounds with its minimum and maximum, and its ratio to the row that is
// its baseline. Must not live here: measuring.

export interface Row {
  readonly name: string
  /** Median over the rounds. */
  readonly value: number
  readonly unit: string
  readonly min: number
  readonly max: number
  /** Name of the row this one is compared with, '' for a baseline. */
  readonly baseline: string
  /** value / baseline's value; null for a baseline. */
  readonly ratio: number | null
}

/** Collects samples by name, over all rounds. */
export class Samples {
  readonly #samples = new Map<string, { unit: string; baseline: string; values: number[] }>()

  /** `baseline`: name of the row to compare with, '' for none. */
  add(name: string, value: number, unit: string, baseline: string): void {
    let entry = this.#samples.get(name)
    if (!entry) this.#samples.set(name, (entry = { unit, baseline, values: [] }))
    if (Number.isFinite(value)) entry.values.push(value)
  }

  rows(): Row[] {
    const rows: Row[] = []
    for (const [name, { unit, baseline, values }] of this.#samples) {
      const value = median(values)
      const other = baseline === '' ? undefined : this.#samples.get(baseline)
      const base = other ? median(other.values) : Number.NaN
      rows.push({
        name,
        value: round(value),
        unit,
        min: round(Math.min(...values)),
        max: round(Math.max(...values)),
        baseline,
        ratio: Number.isFinite(base) && base !== 0 ? round(value / base) : null,
      })
    }
    return rows
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

function round(value: number): number {
  return Number(value.toPrecision(4))
}

export function printTable(rows: readonly Row[]): void {
  const lines = [['NAME', 'MEDIAN', 'MIN', 'MAX', 'UNIT', 'RATIO', 'TO']]
  for (const row of rows) {
    lines.push([
      row.name,
      String(row.value),
      String(row.min),
      String(row.max),
      row.unit,
      row.ratio === null ? '-' : row.ratio.toFixed(2),
      row.baseline || '-',
    ])
  }
  const widths = (lines[0] as string[]).map((_, column) =>
    Math.max(...lines.map((line) => (line[column] as string).length)),
  )
  for (const line of lines)
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] as number))
        .join('  ')
        .trimEnd(),
    )
}
