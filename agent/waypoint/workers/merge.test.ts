import { describe, expect, it } from 'vitest'
import { Metrics } from '../../telemetry/exposition.ts'
import { MergedMetrics, parseExposition } from './merge.ts'

async function exposition(requests: number, active: number, durations: readonly number[]): Promise<string> {
  const metrics = new Metrics('waypoint', 'test')
  metrics
    .counter({ name: 'a_total', help: 'A.', labels: ['x'] })
    .with(['one two'])
    .add(requests)
  metrics.gauge({ name: 'b', help: 'B.', labels: [] }).with([]).value = active
  const histogram = metrics.histogram({ name: 'c', help: 'C.', labels: [], bounds: [1, 10] }).with([])
  for (const duration of durations) histogram.observe(duration)
  return await metrics.text()
}

describe('the metrics of many workers', () => {
  it('are summed: counters, gauges, and histograms by bucket', async () => {
    const merged = new MergedMetrics().merge([await exposition(3, 1, [0.5]), await exposition(4, 2, [5, 50])])
    expect(merged).toContain('a_total{x="one two"} 7\n')
    expect(merged).toContain('\nb 3\n')
    expect(merged).toContain('c_bucket{le="1"} 1\nc_bucket{le="10"} 2\nc_bucket{le="+Inf"} 3\nc_sum 55.5\nc_count 3\n')
    expect(merged.match(/# TYPE a_total counter/g)).toHaveLength(1)
  })

  it('say once what one program would say once', async () => {
    const merged = parseExposition(new MergedMetrics().merge([await exposition(0, 0, []), await exposition(0, 0, [])]))
    expect([...(merged.get('istio_build')?.samples.values() ?? [])]).toEqual([1])
    const started = [...(merged.get('process_start_time_seconds')?.samples.values() ?? [])]
    expect(started[0]).toBeLessThan(Date.now() / 1000 + 1)
  })

  it('never fall when a worker is gone, but its gauges do', async () => {
    const merged = new MergedMetrics()
    merged.retire(await exposition(100, 5, [2]))
    merged.retire(await exposition(10, 5, []))
    const text = merged.merge([await exposition(1, 1, [])])
    expect(text).toContain('a_total{x="one two"} 111\n')
    expect(text).toContain('\nb 1\n')
    expect(text).toContain('c_count 1\n')
  })

  it('are read back as they were written', async () => {
    const text = await exposition(3, 1, [0.5])
    expect(parseExposition(new MergedMetrics().merge([text]))).toEqual(parseExposition(text))
  })
})
