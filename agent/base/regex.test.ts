// RE2: whole-string matching, bounds, rewrites.
import { describe, expect, it } from 'vitest'
import { compileRegex, compileRewrite, MAX_PATTERN } from './regex.ts'

describe('compileRegex', () => {
  it('matches the whole text only', () => {
    const regex = compileRegex('/v[0-9]+')
    expect(regex.matches('/v12')).toBe(true)
    expect(regex.matches('/v12/x')).toBe(false)
    expect(regex.matches('x/v12')).toBe(false)
  })

  it('takes the longest alternative needed for the whole text', () => {
    expect(compileRegex('a|ab').matches('ab')).toBe(true)
    expect(compileRegex('.*?/x').matches('/a/x')).toBe(true)
  })

  it('stays linear where a backtracking engine explodes', () => {
    const started = performance.now()
    expect(compileRegex('(a+)+$').matches(`${'a'.repeat(5000)}b`)).toBe(false)
    expect(performance.now() - started).toBeLessThan(2000)
  })

  it.each(['(', 'a**', '\\1', '(?=a)', '[z-a]'])('refuses %j', (pattern) => {
    expect(() => compileRegex(pattern)).toThrow(expect.objectContaining({ code: 'REGEX_INVALID' }))
  })

  it('refuses patterns that are too long or too costly', () => {
    const tooLarge = expect.objectContaining({ code: 'REGEX_TOO_LARGE' })
    expect(() => compileRegex('a'.repeat(MAX_PATTERN + 1))).toThrow(tooLarge)
    expect(() => compileRegex('(?:abcdefghijklmnopqrstuvwxyz){1000}')).toThrow(tooLarge)
  })
})

describe('rewrites', () => {
  const rewrite = (pattern: string, template: string, text: string): string => {
    const regex = compileRegex(pattern)
    return regex.replaceAll(text, compileRewrite(template, regex))
  }

  it('replaces groups and the whole match', () => {
    expect(rewrite('^/service/([^/]+)(/.*)$', '\\2/instance/\\1', '/service/foo/v1/api')).toBe('/v1/api/instance/foo')
    expect(rewrite('one', '[\\0]', '/xxx/one/yyy/one/zzz')).toBe('/xxx/[one]/yyy/[one]/zzz')
    expect(rewrite('(x)?b', '<\\1>', 'ab')).toBe('a<>')
    expect(rewrite('b', '\\\\', 'abc')).toBe('a\\c')
  })

  it('leaves a text without a match as it is', () => {
    expect(rewrite('zzz', 'y', '/abc')).toBe('/abc')
  })

  it('refuses groups the pattern does not have', () => {
    expect(() => rewrite('(a)', '\\2', 'a')).toThrow(expect.objectContaining({ code: 'REGEX_REWRITE_INVALID' }))
    expect(() => rewrite('(a)', 'x\\', 'a')).toThrow(expect.objectContaining({ code: 'REGEX_REWRITE_INVALID' }))
  })
})
