import fc from 'fast-check'
import { expect, it } from 'vitest'
import { sameValue } from './same.ts'

it('finds a value the same as its copy, and as itself with fields in another order', () => {
  const reversed = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(reversed)
      : typeof value === 'object' && value !== null
        ? Object.fromEntries(
            Object.entries(value)
              .reverse()
              .map(([key, inner]) => [key, reversed(inner)]),
          )
        : value
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      expect(sameValue(value, structuredClone(value))).toBe(true)
      expect(sameValue(value, reversed(value))).toBe(true)
    }),
  )
})

it('tells apart whatever JSON tells apart', () => {
  const ordered = (value: unknown): string =>
    JSON.stringify(value, (_key, inner: unknown) =>
      typeof inner === 'object' && inner !== null && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    )
  const value = fc.jsonValue({ maxDepth: 2 }).map((one) => JSON.parse(JSON.stringify(one)) as unknown)
  fc.assert(
    fc.property(value, value, (a, b) => {
      expect(sameValue(a, b)).toBe(ordered(a) === ordered(b))
    }),
    { numRuns: 1_000 },
  )
})

it('takes an undefined field for an absent one', () => {
  expect(sameValue({ a: 1, b: undefined }, { a: 1 })).toBe(true)
  expect(sameValue({ a: 1 }, { a: 1, b: undefined })).toBe(true)
  expect(sameValue({ a: 1 }, { a: 1, b: null })).toBe(false)
})
