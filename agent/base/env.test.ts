import { describe, expect, it } from 'vitest'
import { envFlag, envInteger, envString } from './env.ts'

describe('environment variables', () => {
  const range = { min: 1, max: 10 }
  it('fall back when unset or empty', () => {
    expect(envString('X', 'd', {})).toBe('d')
    expect(envString('X', 'd', { X: '' })).toBe('d')
    expect(envInteger('X', 3, range, {})).toBe(3)
    expect(envFlag('X', true, { X: '' })).toBe(true)
  })

  it('are read', () => {
    expect(envString('X', 'd', { X: 'v' })).toBe('v')
    expect(envInteger('X', 3, range, { X: '7' })).toBe(7)
    expect(envFlag('X', true, { X: 'Off' })).toBe(false)
  })

  it.each(['0', '11', '1.5', 'x', 'Infinity'])('refuse %j as a number from 1 to 10', (text) => {
    expect(() => envInteger('X', 3, range, { X: text })).toThrow(expect.objectContaining({ code: 'ENV_INVALID' }))
  })

  it('refuse what is neither true nor false', () => {
    expect(() => envFlag('X', true, { X: 'maybe' })).toThrow(/neither true nor false/)
  })
})
