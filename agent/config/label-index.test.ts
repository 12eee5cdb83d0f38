import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { selects } from '../mesh/applicable.ts'
import { LabelIndex } from './label-index.ts'

describe('an index over labels', () => {
  it('finds exactly what a look at each would find, in the same order', () => {
    const labels = fc.dictionary(fc.constantFrom('app', 'version', 'tier'), fc.constantFrom('a', 'b', ''))
    const thing = fc.record({ namespace: fc.constantFrom('x', 'y'), labels })
    fc.assert(
      fc.property(
        fc.array(thing, { maxLength: 20 }),
        labels,
        fc.constantFrom('x', 'y', 'z', undefined),
        (things, wanted, namespace) => {
          const index = new LabelIndex<number>()
          const sorted =
            namespace === undefined
              ? things.toSorted(
                  (a, b) => Number(a.namespace !== things[0]?.namespace) - Number(b.namespace !== things[0]?.namespace),
                )
              : things
          for (const [number, one] of sorted.entries()) index.add(one.namespace, one.labels, number)
          const expected = [...sorted.entries()]
            .filter(
              ([, one]) => (namespace === undefined || one.namespace === namespace) && selects(wanted, one.labels),
            )
            .map(([number]) => number)
          expect(index.find(namespace, wanted)).toEqual(expected)
          expect(index.some(namespace, wanted)).toBe(expected.length > 0)
        },
      ),
    )
  })
})
