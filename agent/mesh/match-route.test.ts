// Matching in both dialects, query parameters, and rewrites of what matched.
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileRoute, matchRoute, stringTest } from './match-route.ts'
import { queryValue } from './request.ts'
import { sampleMatch, sampleRequest, sampleRoute, sampleRule } from './samples.ts'
import type { RouteMatch } from './route.ts'

const hits = (match: Partial<RouteMatch>, request: Parameters<typeof sampleRequest>[0]): boolean =>
  matchRoute(compileRoute(sampleRoute([sampleRule('r', [sampleMatch(match)])])), sampleRequest(request)) !== undefined

describe('a single match', () => {
  const prefix = (value: string, ignoreCase = false): Partial<RouteMatch> => ({
    path: { type: 'prefix', value, ignoreCase },
  })
  const exact = (value: string, ignoreCase = false): Partial<RouteMatch> => ({
    path: { type: 'exact', value, ignoreCase },
  })
  const elements = (value: string): Partial<RouteMatch> => ({ path: { type: 'elements', value } })
  it.each<[string, Partial<RouteMatch>, Parameters<typeof sampleRequest>[0], boolean]>([
    ['VirtualService prefix is raw text', prefix('/foo'), { path: '/foobar' }, true],
    ['prefix does not look into the query', prefix('/foo?a'), { path: '/foo?a=1' }, false],
    ['prefix with ignored case', prefix('/Foo', true), { path: '/fOO/x' }, true],
    ['exact ignores the query', exact('/foo'), { path: '/foo?x=1' }, true],
    ['exact is exact', exact('/foo'), { path: '/foo/' }, false],
    ['exact with ignored case', exact('/Foo', true), { path: '/fOO' }, true],
    ['regex is the whole path', { path: { type: 'regex', value: '/v[12]' } }, { path: '/v1?x' }, true],
    ['regex is not a search', { path: { type: 'regex', value: '/v[12]' } }, { path: '/v1/x' }, false],
    ['elements match the element', elements('/foo'), { path: '/foo?x' }, true],
    ['elements match below', elements('/foo'), { path: '/foo/bar' }, true],
    ['elements never match within an element', elements('/foo'), { path: '/foobar' }, false],
    ['a trailing slash of elements counts for nothing', elements('/foo/'), { path: '/foo' }, true],
    ['the root matches all', elements('/'), { path: '/anything' }, true],
    ['method', { method: { type: 'exact', value: 'GET' } }, { method: 'get' }, false],
    ['scheme', { scheme: { type: 'exact', value: 'https' } }, { scheme: 'https' }, true],
    ['authority as sent', { authority: { type: 'prefix', value: 'a.' } }, { authority: 'a.b:80' }, true],
    ['port', { port: 81 }, {}, false],
    ['port of the service', { port: 80 }, {}, true],
    ['source namespace', { sourceNamespace: 'shop' }, { sourceNamespace: 'shop' }, true],
    ['source namespace unknown', { sourceNamespace: 'shop' }, {}, false],
    ['source labels', { sourceLabels: { app: 'a' } }, { sourceLabels: { app: 'a', v: '1' } }, true],
    ['source labels missing', { sourceLabels: { app: 'a' } }, {}, false],
    ['header', { headers: [{ name: 'x-a', match: { type: 'prefix', value: '1' } }] }, { headers: ['x-a', '12'] }, true],
    ['header absent', { headers: [{ name: 'x-a', match: { type: 'prefix', value: '' } }] }, {}, false],
    ['header present', { headers: [{ name: 'x-a', match: { type: 'present' } }] }, { headers: ['x-a', ''] }, true],
    ['without a header that is absent', { withoutHeaders: [{ name: 'x-a', match: { type: 'present' } }] }, {}, true],
    [
      'without a header of another value',
      { withoutHeaders: [{ name: 'x-a', match: { type: 'exact', value: '1' } }] },
      { headers: ['x-a', '2'] },
      true,
    ],
    [
      'without a header that matches',
      { withoutHeaders: [{ name: 'x-a', match: { type: 'exact', value: '1' } }] },
      { headers: ['x-a', '1'] },
      false,
    ],
    [
      'query parameter',
      { queryParams: [{ name: 'a', match: { type: 'exact', value: '1' } }] },
      { path: '/x?b=2&a=1' },
      true,
    ],
    [
      'first query parameter of a name',
      { queryParams: [{ name: 'a', match: { type: 'exact', value: '1' } }] },
      { path: '/x?a=2&a=1' },
      false,
    ],
    [
      'query parameter regex',
      { queryParams: [{ name: 'a', match: { type: 'regex', value: '[0-9]+' } }] },
      { path: '/?a=12' },
      true,
    ],
    ['query parameter present', { queryParams: [{ name: 'a', match: { type: 'present' } }] }, { path: '/?ab&a' }, true],
    ['query parameter absent', { queryParams: [{ name: 'a', match: { type: 'present' } }] }, { path: '/?ab=1' }, false],
    [
      'all of several conditions',
      { port: 80, method: { type: 'exact', value: 'GET' }, ...exact('/no') },
      { path: '/x' },
      false,
    ],
  ])('%s', (_name, match, request, expected) => {
    expect(hits(match, request)).toBe(expected)
  })

  it('agrees about elements with splitting the path', () => {
    const path = fc.array(fc.constantFrom('a', 'ab', 'b', ''), { maxLength: 4 }).map((parts) => `/${parts.join('/')}`)
    fc.assert(
      fc.property(path, path, (value, target) => {
        const wanted = value.replace(/\/$/, '').split('/')
        const got = target.split('/')
        expect(hits({ path: { type: 'elements', value } }, { path: target })).toBe(
          wanted.every((part, i) => part === got[i]),
        )
      }),
    )
  })

  it('agrees about query values with URLSearchParams for plain characters', () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', '1', '-'), maxLength: 3 })
    const pair = fc.tuple(word, fc.option(word, { nil: undefined }))
    fc.assert(
      fc.property(
        fc.array(pair, { maxLength: 5 }),
        word.filter((name) => name !== ''),
        (pairs, name) => {
          const query = pairs.map(([key, value]) => (value === undefined ? key : `${key}=${value}`)).join('&')
          expect(queryValue(`/x?${query}`, name)).toBe(new URLSearchParams(query).get(name) ?? undefined)
        },
      ),
    )
  })

  it('refuses a regular expression that is none, by name', () => {
    expect(() => stringTest({ type: 'regex', value: '(' })).toThrow(expect.objectContaining({ code: 'REGEX_INVALID' }))
  })
})

describe('a route', () => {
  const compiled = compileRoute(
    sampleRoute([
      sampleRule('first', [
        sampleMatch({ name: 'a', path: { type: 'prefix', value: '/a', ignoreCase: false } }),
        sampleMatch({ name: 'b', path: { type: 'prefix', value: '/b', ignoreCase: false } }),
      ]),
      sampleRule('second', [sampleMatch({ path: { type: 'prefix', value: '/ab', ignoreCase: false } })]),
      sampleRule('', []),
    ]),
  )

  it('takes the first rule in order, and says which of its matches held', () => {
    const matched = matchRoute(compiled, sampleRequest({ path: '/bx' }))
    expect([matched?.compiled.index, matched?.matchIndex, matched?.name]).toEqual([0, 1, 'first.b'])
    expect(matchRoute(compiled, sampleRequest({ path: '/abc' }))?.compiled.index).toBe(0)
  })

  it('matches everything with a rule without matches', () => {
    const matched = matchRoute(compiled, sampleRequest({ path: '/zzz' }))
    expect([matched?.compiled.index, matched?.matchIndex]).toEqual([2, -1])
  })

  it('gives nothing when no rule matches', () => {
    const one = compileRoute(sampleRoute([sampleRule('r', [sampleMatch({ port: 1 })])]))
    expect(matchRoute(one, sampleRequest())).toBeUndefined()
    expect(matchRoute(compileRoute(sampleRoute([])), sampleRequest())).toBeUndefined()
  })

  it('gives the same object for the same match, so that matching allocates nothing', () => {
    expect(matchRoute(compiled, sampleRequest({ path: '/a1' }))).toBe(
      matchRoute(compiled, sampleRequest({ path: '/a2' })),
    )
  })
})
