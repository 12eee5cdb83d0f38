// Path normalisation: the expectations of Istio's security tests, and properties that keep policies from being walked round.
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { normalizePath, type PathNormalization } from './normalize-path.ts'

// input, NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES
const rows: readonly [string, string, string, string, string][] = [
  ['/', '/', '/', '/', '/'],
  ['/app#foo', '/app', '/app', '/app', '/app'],
  ['/app/', '/app/', '/app/', '/app/', '/app/'],
  ['/app/../admin', '/app/../admin', '/admin', '/admin', '/admin'],
  ['/app', '/app', '/app', '/app', '/app'],
  ['/app//', '/app//', '/app//', '/app/', '/app/'],
  ['/app/%2f', '/app/%2f', '/app/%2f', '/app/%2f', '/app/'],
  ['/app%2f/', '/app%2f/', '/app%2f/', '/app%2f/', '/app/'],
  ['/xyz%30..//abc', '/xyz%30..//abc', '/xyz0..//abc', '/xyz0../abc', '/xyz0../abc'],
  ['/app/%2E./admin', '/app/%2E./admin', '/admin', '/admin', '/admin'],
  ['/app\\admin', '/app\\admin', '/app/admin', '/app/admin', '/app/admin'],
  ['/app/\\/\\/\\admin', '/app/\\/\\/\\admin', '/app//////admin', '/app/admin', '/app/admin'],
  [
    '/%2Fapp%5cadmin%5Cabc',
    '/%2Fapp%5cadmin%5Cabc',
    '/%2Fapp%5cadmin%5Cabc',
    '/%2Fapp%5cadmin%5Cabc',
    '/app/admin/abc',
  ],
  [
    '/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc',
    '/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\\abc',
    '/%5Capp%2f%5c%2F..%2fadmin%5c/abc',
    '/%5Capp%2f%5c%2F..%2fadmin%5c/abc',
    '/app/admin/abc',
  ],
  ['/app//../admin', '/app//../admin', '/app/admin', '/app/admin', '/app/admin'],
  ['/app//../../admin', '/app//../../admin', '/admin', '/admin', '/admin'],
]
const modes: readonly PathNormalization[] = ['NONE', 'BASE', 'MERGE_SLASHES', 'DECODE_AND_MERGE_SLASHES']

describe('normalizePath', () => {
  for (const [input, ...expected] of rows) {
    for (const [i, mode] of modes.entries()) {
      it(`makes of ${input} under ${mode}: ${expected[i]}`, () => {
        expect(normalizePath(input, mode)).toBe(expected[i])
      })
    }
  }

  it.each([
    ['/%c0%2e%c0%2e/admin', '/%c0.%c0./admin'],
    ['/%c0%2fadmin', '/%c0/admin'],
  ])('decodes %s to %s', (input, expected) => {
    expect(normalizePath(input, 'DECODE_AND_MERGE_SLASHES')).toBe(expected)
  })

  it.each([
    '/0x2e0x2e/admin',
    '/0x2f0x2fadmin',
    '/%25c0%25ae%25c1%259cadmin',
    '/%252e%252e/admin',
    '/%252e%252e%252fadmin',
    '/%c1%9cadmin',
    '/%c0%ae%c0%ae/admin',
    '/.../admin',
    '/..../admin',
    '/..;/admin',
    '/;/admin',
    '/admin;a=b/xyz',
    '/admin,a=b/xyz',
    '/Admin',
    '/a%zz%4',
  ])('leaves %s as it is', (input) => {
    expect(normalizePath(input, 'DECODE_AND_MERGE_SLASHES')).toBe(input)
  })

  it('decodes exactly the unreserved characters and slashes', () => {
    for (let i = 1; i < 256; i++) {
      const escaped = `%${i.toString(16).padStart(2, '0')}`
      const char = String.fromCharCode(i)
      const expected = /[A-Za-z0-9._~/\\-]/.test(char) ? char.replace('\\', '/') : escaped
      expect(normalizePath(`/admin${escaped}`, 'DECODE_AND_MERGE_SLASHES')).toBe(`/admin${expected}`)
    }
  })

  it('refuses an encoded NUL and what is no path', () => {
    expect(normalizePath('/admin%00', 'BASE')).toBeUndefined()
    expect(normalizePath('admin', 'BASE')).toBeUndefined()
    expect(normalizePath('http://a/b', 'NONE')).toBeUndefined()
  })

  it('passes the forms without a path', () => {
    expect(normalizePath('*', 'BASE')).toBe('*')
    expect(normalizePath('', 'BASE')).toBe('')
  })

  it('never touches the query', () => {
    expect(normalizePath('/a/../b?x=/../%2e%2e//\\%00', 'DECODE_AND_MERGE_SLASHES')).toBe('/b?x=/../%2e%2e//\\%00')
  })

  const piece = fc.constantFrom(
    '/',
    '//',
    '.',
    '..',
    '%2e',
    '%2E',
    '%2f',
    '%5c',
    '\\',
    'a',
    'admin',
    '%61',
    '%25',
    ';',
    '%c0',
  )
  const path = fc.array(piece, { maxLength: 12 }).map((parts) => `/${parts.join('')}`)

  it('leaves no dot segment behind', () => {
    fc.assert(
      fc.property(path, fc.constantFrom(...modes.slice(1)), (input, mode) => {
        const out = normalizePath(input, mode) as string
        expect(out.startsWith('/')).toBe(true)
        expect(out.split('/').some((segment) => segment === '.' || segment === '..')).toBe(false)
        expect(out).not.toMatch(/\\/)
        if (mode !== 'BASE') expect(out).not.toMatch(/\/\//)
      }),
      { numRuns: 1000 },
    )
  })

  it('gives a normal form: once more changes nothing', () => {
    fc.assert(
      fc.property(path, fc.constantFrom('NONE' as const, 'BASE' as const), (input, mode) => {
        const once = normalizePath(input, mode) as string
        expect(normalizePath(once, mode)).toBe(once)
      }),
      { numRuns: 1000 },
    )
  })
})
