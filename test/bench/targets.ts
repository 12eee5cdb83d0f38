// What a suite is held against: a row's ratio to another row of the same run, and whether it is what was asked for. Nothing fails on it.
// Must not live here: the targets of a suite.
import { round, type Row } from './table.ts'

export interface TargetSpec {
  /** Name of a row. */
  readonly row: string
  /** Name of the row it is divided by; '' holds the row's own value against the limit. */
  readonly baseline: string
  readonly limit: number
  /** True: at most `limit`, else at least. */
  readonly atMost: boolean
  /** Shown beside it, for instance what another mesh reaches. */
  readonly reference?: string
}

export interface Target extends TargetSpec {
  /** Of the medians; null where one of the rows is missing. */
  readonly ratio: number | null
  readonly met: boolean | null
}

export function judge(specs: readonly TargetSpec[], rows: readonly Row[]): Target[] {
  const valueOf = (name: string): number | undefined => rows.find((row) => row.name === name)?.value
  return specs.map((spec) => {
    const value = valueOf(spec.row)
    const base = spec.baseline === '' ? 1 : valueOf(spec.baseline)
    if (value === undefined || base === undefined || !(base > 0)) return { ...spec, ratio: null, met: null }
    const ratio = value / base
    return { ...spec, ratio: round(ratio), met: spec.atMost ? ratio <= spec.limit : ratio >= spec.limit }
  })
}

export function targetsText(targets: readonly Target[]): string {
  return targets
    .map(({ row, baseline, limit, atMost, ratio, met, reference }) => {
      const verdict = met === null ? 'not measured' : met ? 'met' : 'MISSED'
      const beside = reference === undefined ? '' : ` [${reference}]`
      return `${verdict.padEnd(12)}  ${ratio === null ? '-' : ratio.toFixed(2)} (${atMost ? '≤' : '≥'} ${limit})  ${row}${baseline === '' ? '' : `  to  ${baseline}`}${beside}`
    })
    .join('\n')
}
