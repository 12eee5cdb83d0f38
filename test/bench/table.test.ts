import { describe, expect, it } from 'vitest'
import { pivot, Samples } from './table.ts'
import { judge, targetsText } from './targets.ts'

function rows() {
  const samples = new Samples()
  for (const value of [100, 300, 200]) samples.add('H1, 1 connection: nginx: requests', value, '1/s', '')
  for (const value of [240, 250])
    samples.add('H1, 1 connection: Ambit: requests', value, '1/s', 'H1, 1 connection: nginx: requests')
  samples.add('H1, 1 connection: Ambit: p99', 4.5678, 'ms', '')
  return samples.rows()
}

describe('the table of a suite', () => {
  it('has one line for the metrics of one subject, with ratios beside them', () => {
    const lines = pivot(rows(), [
      { metric: 'requests', title: 'requests/s', spread: true, ratio: 'to nginx' },
      { metric: 'p99', title: 'p99 ms' },
    ]).split('\n')
    expect(lines.map((line) => line.trim().split(/ {2,}/))).toEqual([
      ['requests/s', 'to nginx', 'p99 ms'],
      ['H1, 1 connection: nginx', '200 (100–300)', '-', '-'],
      ['H1, 1 connection: Ambit', '245 (240–250)', '1.23', '4.57'],
    ])
  })

  it('says of each target whether it is met, missed or not measured', () => {
    const row = 'H1, 1 connection: Ambit: requests'
    const baseline = 'H1, 1 connection: nginx: requests'
    const targets = judge(
      [
        { row, baseline, limit: 1.2, atMost: false, reference: 'ztunnel: 0.2' },
        { row, baseline, limit: 1.2, atMost: true },
        { row: 'nothing', baseline, limit: 1, atMost: false },
      ],
      rows(),
    )
    expect(targets.map(({ met, ratio }) => [met, ratio])).toEqual([
      [true, 1.225],
      [false, 1.225],
      [null, null],
    ])
    const text = targetsText(targets).split('\n')
    expect(text[0]).toMatch(/^met .*≥ 1\.2.*\[ztunnel: 0\.2\]$/)
    expect(text[1]).toMatch(/^MISSED .*≤ 1\.2/)
    expect(text[2]).toMatch(/^not measured/)
  })
})
