import { describe, expect, it } from 'vitest'
import { changesOf, show } from './differences.ts'

describe('differences', () => {
  it('are told by path, down to the value', () => {
    expect(changesOf({ a: 1, b: [{ c: 'x' }, 2], d: null }, { a: 1, b: [{ c: 'y' }], e: 3 })).toEqual([
      { path: 'b[0].c', from: 'x', to: 'y' },
      { path: 'b[1]', from: 2, to: undefined },
      { path: 'd', from: null, to: undefined },
      { path: 'e', from: undefined, to: 3 },
    ])
    expect(changesOf([1], { 0: 1 })).toHaveLength(1)
    expect(changesOf('a', 'a')).toEqual([])
  })

  it('are bounded, in number and in width', () => {
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [at, at]))
    expect(changesOf(many, {})).toHaveLength(50)
    expect(show('x'.repeat(1000))).toHaveLength(118)
    expect(show(undefined)).toBe('nothing')
  })
})
