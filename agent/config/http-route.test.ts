import { describe, expect, it } from 'vitest'
import { loadText } from './folder.ts'
import { parseText } from './load.ts'
import { describeProblem } from './problem.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const of = (text: string) => translate(resourcesOf(loadText(text, 'f.yaml')))
const SERVICE = (name: string, namespace = 'shop') =>
  `---\napiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: {ports: [{name: http, port: 80}, {name: alt, port: 81}]}\n`
const PARENT = 'parentRefs: [{group: "", kind: Service, name: a}]'
const ROUTE = (rules: string, { parent = PARENT, name = 'r', namespace = 'shop', metadata = '' } = {}) =>
  `---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: ${name}, namespace: ${namespace}${metadata}}\nspec: {${parent}, rules: [${rules}]}\n`
const BACK = 'backendRefs: [{name: a, port: 80}]'
const rules = (text: string) => of(SERVICE('a') + SERVICE('b') + ROUTE(text)).routes[0]?.rules ?? []
const told = (text: string) =>
  of(text)
    .problems.filter((one) => one.code !== 'CONFIG_NEEDS_WAYPOINT')
    .map((one) => `${one.severity} ${describeProblem(one)}`)

describe('an HTTPRoute', () => {
  it('sorts its matches most specific first, across all routes of one service', () => {
    const one = ROUTE(
      `{name: all, ${BACK}}, {name: long, matches: [{path: {type: PathPrefix, value: /foo/bar}}], ${BACK}}, {name: short, matches: [{path: {type: PathPrefix, value: /foo/}}, {path: {type: Exact, value: /f}}], ${BACK}},
       {name: headers, matches: [{path: {value: /foo}, headers: [{name: X, value: y}]}], ${BACK}}, {name: method, matches: [{path: {value: /foo}, method: GET}], ${BACK}}, {name: query, matches: [{path: {value: /foo}, queryParams: [{name: q, value: v}]}], ${BACK}}`,
    )
    const two = ROUTE(`{name: older, matches: [{path: {value: /foo/bar}}], ${BACK}}`, {
      name: 'z',
      metadata: ', creationTimestamp: "1970-01-01T00:00:00Z"',
    })
    const three = ROUTE(`{name: byName, matches: [{path: {value: /foo/bar}}], ${BACK}}`, { name: 'a' })
    const { routes } = of(SERVICE('a') + one + two + three)
    expect(routes).toHaveLength(1)
    expect(routes[0]?.rules.map((rule) => rule.name)).toEqual([
      'short',
      'byName',
      'long',
      'older',
      'method',
      'headers',
      'query',
      'short',
      'all',
    ])
  })

  it('matches by path elements, exact values and the first of repeated headers', () => {
    expect(
      rules(
        `{matches: [{path: {value: /x}, method: POST, headers: [{name: X-A, value: b}, {name: x-a, value: c}], queryParams: [{name: Q, type: RegularExpression, value: a+}]}], ${BACK}}`,
      )[0]?.matches,
    ).toEqual([
      {
        name: '',
        path: { type: 'elements', value: '/x' },
        method: { type: 'exact', value: 'POST' },
        headers: [{ name: 'x-a', match: { type: 'exact', value: 'b' } }],
        withoutHeaders: [],
        queryParams: [{ name: 'Q', match: { type: 'regex', value: 'a+' } }],
        port: 0,
        sourceNamespace: '',
        sourceLabels: {},
      },
    ])
  })

  it('is for one port when its parent names one', () => {
    const port = (parent: string) =>
      of(SERVICE('a') + ROUTE(`{${BACK}}`, { parent: `parentRefs: [{group: "", kind: Service, name: a, ${parent}}]` }))
        .routes[0]?.rules[0]?.matches[0]?.port
    expect(port('port: 81')).toBe(81)
    expect(port('sectionName: alt')).toBe(81)
    expect(port('port: 82')).toBeUndefined()
  })

  it('is for every client in the namespace of its service, and for its own clients elsewhere', () => {
    const text =
      SERVICE('a') +
      SERVICE('c', 'client') +
      ROUTE('{backendRefs: [{name: c, port: 80}]}', {
        namespace: 'client',
        parent: 'parentRefs: [{group: "", kind: Service, name: a, namespace: shop}]',
      })
    expect(of(text).routes).toMatchObject([
      { dialect: 'HTTPRoute', namespace: 'shop', hostname: 'a.shop.svc.cluster.local', consumerNamespace: 'client' },
    ])
  })

  it('carries filters, timeouts and retries', () => {
    expect(
      rules(
        `{timeouts: {request: 10s, backendRequest: 2s}, retry: {codes: [503], attempts: 4, backoff: 100ms}, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}, {type: URLRewrite, urlRewrite: {hostname: h, path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}}}], ${BACK}}`,
      )[0],
    ).toMatchObject({
      timeoutMs: 10_000,
      retry: { attempts: 4, perTryTimeoutMs: 2000, statusCodes: [503], backoffMs: 100 },
      requestHeaders: { set: { a: 'b' }, add: {}, remove: ['c'] },
      rewrite: { authority: 'h', prefixPath: '/y' },
      unsupported: [],
    })
    expect(
      rules(
        '{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: h, statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /n}}}]}',
      )[0]?.action,
    ).toEqual({
      type: 'redirect',
      redirect: { status: 301, scheme: 'https', authority: 'h', path: '/n' },
    })
  })

  it('names the filters it needs that are not there', () => {
    expect(
      rules(
        `{filters: [{type: RequestMirror, requestMirror: {}}, {type: CORS, cors: {}}], sessionPersistence: {}, ${BACK}}`,
      )[0]?.unsupported,
    ).toEqual(['traffic mirroring', 'CORS', 'session persistence'])
  })

  it('gives an invalid backend its share, so that it is answered 500', () => {
    const shares = (text: string) => {
      const action = rules(`{backendRefs: ${text}}`)[0]?.action
      return action?.type === 'forward' ? action.destinations.map((one) => [one.service, one.weight]) : undefined
    }
    expect(shares('[{name: a, port: 80, weight: 3}, {name: gone, port: 80}]')).toEqual([
      ['shop/a.shop.svc.cluster.local', 3],
      ['', 1],
    ])
    expect(shares('[]')).toEqual([['', 1]])
    expect(shares('[{name: a, port: 80, weight: 0}]')).toEqual([['', 1]])
    expect(shares('[{name: a}]')).toEqual([['', 1]])
    expect(shares('[{kind: Pod, name: a, port: 80}]')).toEqual([['', 1]])
  })

  it('needs a ReferenceGrant for a backend of another namespace', () => {
    const grant =
      '---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Service, name: b}]}\n'
    const text = SERVICE('a') + SERVICE('b', 'other') + ROUTE('{backendRefs: [{name: b, namespace: other, port: 80}]}')
    expect(of(text).routes[0]?.rules[0]?.action).toMatchObject({ destinations: [{ service: '' }] })
    expect(told(text)).toEqual([
      'error f.yaml:15: HTTPRoute shop/r: spec.rules[0].backendRefs[0]: No ReferenceGrant in namespace other allows HTTPRoutes of shop to use Service b. Its share of requests is answered 500. [CONFIG_NOT_PERMITTED] Add one to namespace other.',
    ])
    expect(of(text + grant).routes[0]?.rules[0]?.action).toMatchObject({
      destinations: [{ service: 'other/b.other.svc.cluster.local' }],
    })
  })

  it('names a parent that does not exist', () => {
    expect(
      told(SERVICE('a') + ROUTE(`{${BACK}}`, { parent: 'parentRefs: [{group: "", kind: Service, name: x}]' })),
    ).toEqual([
      'error f.yaml:10: HTTPRoute shop/r: spec.parentRefs[0].name: There is no Service shop/x. [CONFIG_UNKNOWN_HOST] Services of namespace shop: a.',
    ])
    expect(told(SERVICE('a') + ROUTE(`{${BACK}}`, { parent: 'parentRefs: [{name: gw}]' }))[0]).toContain(
      'There is no Gateway shop/gw. [CONFIG_UNKNOWN_GATEWAY]',
    )
  })

  it('names a backend that does not exist once, whichever of its parents are there', () => {
    const broken = '{backendRefs: [{name: nobody, port: 80}]}'
    for (const names of [['a'], ['a', 'b'], ['x', 'a'], ['x', 'a', 'b']]) {
      const parent = `parentRefs: [${names.map((name) => `{group: "", kind: Service, name: ${name}}`).join(', ')}]`
      const problems = told(SERVICE('a') + SERVICE('b') + ROUTE(broken, { parent }))
      expect(problems.filter((one) => one.includes('There is no Service shop/nobody.'))).toHaveLength(1)
    }
  })

  it('is refused when filters contradict each other or lack their part', () => {
    const refusal = (text: string) =>
      parseText(ROUTE(text), 'f')
        .problems.filter((one) => one.severity === 'error')
        .map((one) => one.message)
    expect(
      refusal('{filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]}'),
    ).toEqual(['RequestRedirect and URLRewrite do not go together in one rule.'])
    expect(refusal('{filters: [{type: URLRewrite}]}')).toEqual(['A filter of type URLRewrite needs urlRewrite.'])
    expect(refusal('{filters: [{type: CORS, cors: {}}, {type: CORS, cors: {}}]}')).toEqual([
      'The filter CORS may appear once in a rule.',
    ])
    expect(
      refusal(
        '{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}',
      ),
    ).toEqual(['ReplacePrefixMatch only goes with PathPrefix matches.'])
    expect(refusal('{matches: [{path: {value: a}}]}')).toEqual(['A path begins with a slash, not "a".'])
    expect(refusal('{timeouts: {request: 1s, backendRequest: 2s}}')).toEqual([
      'backendRequest must not be longer than request.',
    ])
  })
})
