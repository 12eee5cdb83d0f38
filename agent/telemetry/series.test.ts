// Series and their text: what Prometheus reads back is what was counted.
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Metrics } from './exposition.ts'
import { parseExposition } from './samples.ts'
import { CounterFamily, GaugeFamily, HistogramFamily } from './series.ts'

const render = (family: { render(out: string[]): void }) => {
  const out: string[] = []
  family.render(out)
  return parseExposition(out.join(''))
}

describe('families', () => {
  it('count by labels, and find a series again', () => {
    const family = new CounterFamily({ name: 'a_total', help: 'A.', labels: ['x', 'y'] })
    family.with(['1', '2']).add(2)
    family.with(['1', '2']).value++
    family.with(['2', '1']).add(5)
    expect(family.with(['1', '2'])).toBe(family.with(['1', '2']))
    expect(render(family)).toEqual({
      samples: [
        { name: 'a_total', labels: { x: '1', y: '2' }, value: 3 },
        { name: 'a_total', labels: { x: '2', y: '1' }, value: 5 },
      ],
      types: new Map([['a_total', 'counter']]),
    })
  })

  it('carry any label value through the text', () => {
    const hostile = fc.string({ unit: fc.constantFrom('a', '"', '\\', '\n', 'é', '{', '}', ',', '='), maxLength: 12 })
    fc.assert(
      fc.property(fc.uniqueArray(hostile, { maxLength: 8 }), (values) => {
        const family = new GaugeFamily({ name: 'g', help: 'a\\b\nc', labels: ['v'] })
        for (const [i, value] of values.entries()) family.with([value]).value = i
        expect(render(family).samples).toEqual(values.map((v, value) => ({ name: 'g', labels: { v }, value })))
      }),
    )
  })

  it('render histograms cumulatively, bounds included', () => {
    const family = new HistogramFamily({ name: 'h', help: 'H.', labels: ['x'], bounds: [1, 10] })
    for (const value of [0.5, 1, 2, 10, 11]) family.with(['a']).observe(value)
    const { samples } = render(family)
    expect(samples.map(({ name, labels, value }) => [name, labels['le'], value])).toEqual([
      ['h_bucket', '1', 2],
      ['h_bucket', '10', 4],
      ['h_bucket', '+Inf', 5],
      ['h_sum', undefined, 24.5],
      ['h_count', undefined, 5],
    ])
    const bare = new HistogramFamily({ name: 'h', help: 'H.', labels: [], bounds: [1] })
    bare.with().observe(2)
    expect(render(bare).samples[1]).toEqual({ name: 'h_bucket', labels: { le: '+Inf' }, value: 1 })
  })

  it('are bounded: what is beyond the limit is counted together and the refusals are counted', () => {
    const family = new CounterFamily({ name: 'a_total', help: 'A.', labels: ['x'], limit: 2 })
    for (const x of ['1', '2', '3', '4', '3']) family.with([x]).add(1)
    expect(family.size).toBe(2)
    expect(family.overflowed).toBe(3)
    expect(render(family).samples).toContainEqual({ name: 'a_total', labels: { x: 'overflow' }, value: 3 })
  })

  it('forget series and have room again', () => {
    const family = new CounterFamily({ name: 'a_total', help: 'A.', labels: ['x'], limit: 1 })
    family.with(['old']).add(1)
    family.forget(([x]) => x === 'old')
    family.with(['new']).add(1)
    expect(render(family).samples).toEqual([{ name: 'a_total', labels: { x: 'new' }, value: 1 }])
  })
})

describe('Metrics', () => {
  it('render process metrics, the build and hot families as one text', async () => {
    const metrics = new Metrics('agent', '1.2.3')
    metrics.counter({ name: 'a_total', help: 'A.', labels: [] }).with().add(4)
    const full = metrics.counter({ name: 'b_total', help: 'B.', labels: ['x'], limit: 0 })
    full.with(['1']).add(1)
    let scraped = 0
    const gauge = metrics.gauge({ name: 'c', help: 'C.', labels: [] }).with()
    metrics.beforeScrape(() => (gauge.value = ++scraped))
    const { samples, types } = parseExposition(await metrics.text())
    const value = (name: string) => samples.find((sample) => sample.name === name)?.value
    expect(samples).toContainEqual({ name: 'istio_build', labels: { component: 'agent', tag: '1.2.3' }, value: 1 })
    expect(value('process_resident_memory_bytes')).toBeGreaterThan(1e6)
    expect(value('a_total')).toBe(4)
    expect(value('c')).toBe(1)
    expect(samples).toContainEqual({ name: 'ambit_series_overflow_total', labels: { family: 'b_total' }, value: 1 })
    expect(types.get('a_total')).toBe('counter')
  })

  it('have no gauge that is called like a counter', async () => {
    const { types } = parseExposition(await new Metrics('agent', '1.2.3').text())
    expect([...types].filter(([name, type]) => name.endsWith('_total') !== (type === 'counter'))).toEqual([])
  })

  it('refuse two families of one name', () => {
    const metrics = new Metrics('agent', 'x')
    metrics.counter({ name: 'a_total', help: 'A.', labels: [] })
    expect(() => metrics.gauge({ name: 'a_total', help: 'A.', labels: [] })).toThrow(/exists already/)
  })
})
