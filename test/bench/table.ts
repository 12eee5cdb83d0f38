// Rows of a bench and how they are shown: the median of the rounds with its minimum and maximum, and its ratio to the row that is
// its baseline. Must not live here: measuring.
import type { Target } from './targets.ts'

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

/** What a suite gives back. */
export interface Report {
  readonly rows: readonly Row[]
  /** Lines above the table: what stands where. */
  readonly notes: readonly string[]
  readonly targets: readonly Target[]
  /** The table where it is not simply one line a row. */
  readonly table?: string
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

export function round(value: number): number {
  return Number(value.toPrecision(4))
}

/** One line a row. */
export function plainTable(rows: readonly Row[]): string {
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
  return align(lines)
}

export interface Column {
  /** The last part of a row's name. */
  readonly metric: string
  readonly title: string
  /** Shows minimum and maximum. */
  readonly spread?: boolean
  /** Title of a column beside it with the ratio; absent: none. */
  readonly ratio?: string
}

/** One line for all rows whose names are equal but for what follows the last colon, which is the column. */
export function pivot(rows: readonly Row[], columns: readonly Column[]): string {
  const byLine = new Map<string, Map<string, Row>>()
  for (const row of rows) {
    const at = row.name.lastIndexOf(': ')
    const line = row.name.slice(0, at)
    let cells = byLine.get(line)
    if (!cells) byLine.set(line, (cells = new Map()))
    cells.set(row.name.slice(at + 2), row)
  }
  const lines = [['', ...columns.flatMap(({ title, ratio }) => (ratio === undefined ? [title] : [title, ratio]))]]
  for (const [line, cells] of byLine) {
    lines.push([
      line,
      ...columns.flatMap(({ metric, spread, ratio }) => {
        const row = cells.get(metric)
        const value = row ? `${plain(row.value)}${spread ? ` (${plain(row.min)}–${plain(row.max)})` : ''}` : '-'
        return ratio === undefined ? [value] : [value, row?.ratio == null ? '-' : row.ratio.toFixed(2)]
      }),
    ])
  }
  return align(lines)
}

function plain(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : '-'
}

function align(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] as string[]).map((_, column) =>
    Math.max(...lines.map((line) => (line[column] as string).length)),
  )
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[0] as number) : cell.padStart(widths[column] as number),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
