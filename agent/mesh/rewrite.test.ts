// Rewrites, redirects, header operations: the tables of the resources' documentation.
import { describe, expect, it } from 'vitest'
import { applyHeaderOps, compileHeaderOps } from './header-ops.ts'
import { redirectLocation } from './redirect.ts'
import { compileRewritePath, prefixReplacer } from './rewrite.ts'
import type { PathMatch, Redirect, Rewrite } from './route.ts'

describe('ReplacePrefixMatch', () => {
  it.each([
    ['/foo/bar', '/foo', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo', '/xyz/', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz/', '/xyz/bar'],
    ['/foo', '/foo', '/xyz', '/xyz'],
    ['/foo/', '/foo', '/xyz', '/xyz/'],
    ['/foo/bar', '/foo', '', '/bar'],
    ['/foo/', '/foo', '', '/'],
    ['/foo', '/foo', '', '/'],
    ['/foo/', '/foo', '/', '/'],
    ['/foo', '/foo', '/', '/'],
    ['/a/b', '/', '/xyz', '/xyz/a/b'],
    ['/foo/bar?q=1', '/foo', '/xyz', '/xyz/bar?q=1'],
    ['/foo?q=1', '/foo', '/', '/?q=1'],
  ])('makes of %s with prefix %s and replacement %j: %s', (path, prefix, replacement, expected) => {
    expect(prefixReplacer(prefix, replacement)(path)).toBe(expected)
  })
})

describe('rewrite', () => {
  const prefix: PathMatch = { type: 'prefix', value: '/api', ignoreCase: false }
  const rewrite = (given: Rewrite, match: PathMatch | undefined, path: string, dialect = 'VirtualService' as const) =>
    compileRewritePath(given, match, dialect)?.(path)

  it('replaces the raw prefix of a VirtualService', () => {
    expect(rewrite({ uri: '/v1' }, prefix, '/api/x?q')).toBe('/v1/x?q')
    expect(rewrite({ uri: '/' }, prefix, '/api/x')).toBe('//x')
    expect(rewrite({ uri: '/v1/' }, undefined, '/x')).toBe('/v1/x')
  })

  it('replaces the whole path of exact and regex matches', () => {
    expect(rewrite({ uri: '/n' }, { type: 'exact', value: '/api', ignoreCase: false }, '/api?q')).toBe('/n?q')
    expect(rewrite({ uri: '/n' }, { type: 'regex', value: '/a.*' }, '/api')).toBe('/n')
  })

  it('replaces by regular expression with groups, the query untouched', () => {
    const regex = { match: '^/service/([^/]+)(/.*)$', rewrite: '\\2/instance/\\1' }
    expect(rewrite({ regex }, prefix, '/service/foo/v1?x=/service/y')).toBe('/v1/instance/foo?x=/service/y')
  })

  it('replaces the full path of an HTTPRoute', () => {
    expect(compileRewritePath({ fullPath: '/one' }, { type: 'elements', value: '/a' }, 'HTTPRoute')?.('/a/b?c')).toBe(
      '/one?c',
    )
    expect(compileRewritePath({ prefixPath: '/one' }, { type: 'elements', value: '/a' }, 'HTTPRoute')?.('/a/b?c')).toBe(
      '/one/b?c',
    )
  })

  it('leaves the path when only the authority is rewritten', () => {
    expect(compileRewritePath({ authority: 'x' }, prefix, 'VirtualService')).toBeUndefined()
    expect(compileRewritePath(undefined, prefix, 'VirtualService')).toBeUndefined()
  })
})

describe('redirect', () => {
  const request = { scheme: 'http', authority: 'shop:8080', path: '/a/b?q=1', port: 8080 }
  const to = (redirect: Partial<Redirect>, dialect: 'VirtualService' | 'HTTPRoute', given = {}, match?: PathMatch) =>
    redirectLocation({ status: 302, ...redirect }, match, dialect, { ...request, ...given })

  it.each<[string, Partial<Redirect>, 'VirtualService' | 'HTTPRoute', string]>([
    ['path keeps the query', { path: '/new' }, 'VirtualService', 'http://shop:8080/new?q=1'],
    ['path with its own query', { path: '/new?x' }, 'VirtualService', 'http://shop:8080/new?x'],
    ['authority of a VirtualService', { authority: 'other' }, 'VirtualService', 'http://other/a/b?q=1'],
    ['authority with port', { authority: 'other:81' }, 'VirtualService', 'http://other:81/a/b?q=1'],
    ['explicit port', { port: 9 }, 'VirtualService', 'http://shop:9/a/b?q=1'],
    ['port of the scheme is left out', { scheme: 'https', port: 443 }, 'VirtualService', 'https://shop/a/b?q=1'],
    [
      'derived from the protocol',
      { scheme: 'https', derivePort: 'FROM_PROTOCOL_DEFAULT' },
      'VirtualService',
      'https://shop/a/b?q=1',
    ],
    [
      'derived from the request',
      { authority: 'o', derivePort: 'FROM_REQUEST_PORT' },
      'VirtualService',
      'http://o:8080/a/b?q=1',
    ],
    [
      'hostname of an HTTPRoute keeps the port of the request',
      { authority: 'other' },
      'HTTPRoute',
      'http://other:8080/a/b?q=1',
    ],
    ['scheme of an HTTPRoute brings its port', { scheme: 'https' }, 'HTTPRoute', 'https://shop/a/b?q=1'],
    ['scheme and port of an HTTPRoute', { scheme: 'https', port: 8443 }, 'HTTPRoute', 'https://shop:8443/a/b?q=1'],
    ['full path of an HTTPRoute', { path: '/x' }, 'HTTPRoute', 'http://shop:8080/x?q=1'],
  ])('%s', (_name, redirect, dialect, expected) => {
    expect(to(redirect, dialect)).toBe(expected)
  })

  it('replaces a prefix', () => {
    expect(to({ prefixPath: '/z' }, 'HTTPRoute', {}, { type: 'elements', value: '/a' })).toBe(
      'http://shop:8080/z/b?q=1',
    )
  })

  it('drops the old port of the scheme when a VirtualService changes the scheme', () => {
    expect(to({ scheme: 'https' }, 'VirtualService', { authority: 'shop:80' })).toBe('https://shop/a/b?q=1')
    expect(to({ path: '/' }, 'HTTPRoute', { authority: '[::1]:80', port: 80 })).toBe('http://[::1]/?q=1')
  })
})

describe('header operations', () => {
  const run = (headers: string[], ops: Parameters<typeof compileHeaderOps>[0]): string[] => {
    const compiled = compileHeaderOps(ops)
    if (compiled) applyHeaderOps(headers, compiled)
    return headers
  }

  it('remove, then set, then add', () => {
    expect(
      run(['a', '1', 'b', '2', 'a', '3', 'c', '4'], {
        remove: ['B'],
        set: { A: 'x', c: 'y' },
        add: { b: 'z', A: 'w' },
      }),
    ).toEqual(['a', 'x', 'c', 'y', 'b', 'z', 'a', 'w'])
  })

  it('take the host for the authority and leave pseudo-headers alone', () => {
    const compiled = compileHeaderOps({ remove: [':path', 'Host'], set: { Host: 'new', ':method': 'PUT' }, add: {} })
    expect(compiled).toMatchObject({ authority: 'new', set: [], add: [] })
    expect(compiled?.remove.size).toBe(0)
  })

  it('are nothing when they say nothing', () => {
    expect(compileHeaderOps({ remove: [], set: {}, add: {} })).toBeUndefined()
  })
})
