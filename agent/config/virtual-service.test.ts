import { describe, expect, it } from 'vitest'
import { loadText } from './folder.ts'
import { parseText } from './load.ts'
import { describeProblem } from './problem.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const of = (text: string) => translate(resourcesOf(loadText(text, 'f.yaml')))
const told = (text: string) =>
  of(text)
    .problems.filter((one) => one.resource?.kind === 'VirtualService' && one.code !== 'CONFIG_NEEDS_WAYPOINT')
    .map((one) => `${one.severity} ${describeProblem(one)}`)

const SERVICE = (name: string, namespace = 'shop', ports = '[{port: 80}]') =>
  `---\napiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: {ports: ${ports}}\n`
const ROUTES = (spec: string, metadata = 'name: v, namespace: shop') =>
  `---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {${metadata}}\nspec:\n  {${spec}}\n`
const TO = (host: string) => `route: [{destination: {host: ${host}}}]`
const rule = (text: string) =>
  of(SERVICE('a') + SERVICE('b') + ROUTES(`hosts: [a], http: [${text}]`)).routes[0]?.rules[0]
const refusal = (text: string) =>
  parseText(ROUTES(`hosts: [a], http: [${text}]`), 'f')
    .problems.filter((one) => one.severity === 'error')
    .map((one) => `${one.field}: ${one.message}`)

describe('a VirtualService', () => {
  it('keeps its rules in order, with the line of each', () => {
    const text = `${SERVICE('a')}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: shop}
spec:
  hosts: [a]
  http:
  - name: first
    match: [{uri: {prefix: /x}}]
    route: [{destination: {host: a}}]
  - route: [{destination: {host: a}}]
`
    expect(of(text).routes[0]?.rules.map((one) => [one.name, one.source.place])).toEqual([
      ['first', 'f.yaml:13'],
      ['', 'f.yaml:16'],
    ])
  })

  it('matches what its fields say, names of headers in lower case', () => {
    expect(
      rule(`{match: [{name: m, uri: {prefix: /x}, ignoreUriCase: true, method: {exact: GET}, headers: {X-User: {regex: a+}, X-Any: {}, X-Old: {regex: "*"}},
        withoutHeaders: {X-No: {exact: y}}, queryParams: {Q: {exact: "1"}}, port: 80, sourceNamespace: dev, sourceLabels: {app: c}, authority: {exact: a}, scheme: {exact: http}}], ${TO('a')}}`)
        ?.matches,
    ).toEqual([
      {
        name: 'm',
        path: { type: 'prefix', value: '/x', ignoreCase: true },
        method: { type: 'exact', value: 'GET' },
        scheme: { type: 'exact', value: 'http' },
        authority: { type: 'exact', value: 'a' },
        headers: [
          { name: 'x-user', match: { type: 'regex', value: 'a+' } },
          { name: 'x-any', match: { type: 'present' } },
          { name: 'x-old', match: { type: 'present' } },
        ],
        withoutHeaders: [{ name: 'x-no', match: { type: 'exact', value: 'y' } }],
        queryParams: [{ name: 'Q', match: { type: 'exact', value: '1' } }],
        port: 80,
        sourceNamespace: 'dev',
        sourceLabels: { app: 'c' },
      },
    ])
  })

  it('weighs destinations: one needs no weight, among several 0 takes nothing', () => {
    const weights = (route: string) => {
      const action = rule(`{route: ${route}}`)?.action
      return action?.type === 'forward' ? action.destinations.map((one) => [one.service, one.weight]) : undefined
    }
    expect(weights('[{destination: {host: a}}]')).toEqual([['shop/a.shop.svc.cluster.local', 1]])
    expect(weights('[{destination: {host: a}, weight: 0}]')).toEqual([['shop/a.shop.svc.cluster.local', 1]])
    expect(weights('[{destination: {host: a}, weight: 3}, {destination: {host: b}}]')).toEqual([
      ['shop/a.shop.svc.cluster.local', 3],
    ])
    expect(refusal('{route: [{destination: {host: a}}, {destination: {host: b}}]}')).toEqual([
      'spec.http[0].route: The total destination weight is 0.',
    ])
  })

  it('carries timeouts, retries, rewrites, redirects, answers and headers', () => {
    expect(
      rule(
        `{timeout: 1.5s, retries: {attempts: 3, perTryTimeout: 250ms, retryOn: "5xx, 409,reset"}, rewrite: {uri: /y, authority: h}, headers: {request: {set: {a: b}, remove: [c]}}, ${TO('a')}}`,
      ),
    ).toMatchObject({
      timeoutMs: 1500,
      retry: {
        attempts: 3,
        perTryTimeoutMs: 250,
        retryOn: ['5xx', 'reset', 'retriable-status-codes'],
        statusCodes: [409],
        backoffMs: 25,
        ignorePreviousHosts: true,
      },
      rewrite: { uri: '/y', authority: 'h' },
      requestHeaders: { set: { a: 'b' }, add: {}, remove: ['c'] },
    })
    expect(rule(`{timeout: 0s, ${TO('a')}}`)).not.toHaveProperty('timeoutMs')
    expect(rule(`{retries: {attempts: 0}, ${TO('a')}}`)?.retry?.attempts).toBe(0)
    expect(rule(TO('a').replace(/^/, '{').concat('}'))).not.toHaveProperty('retry')
    expect(rule('{redirect: {uri: /n, redirectCode: 307, derivePort: FROM_REQUEST_PORT}}')?.action).toEqual({
      type: 'redirect',
      redirect: { status: 307, path: '/n', derivePort: 'FROM_REQUEST_PORT' },
    })
    expect(rule('{redirect: {scheme: https}}')?.action).toEqual({
      type: 'redirect',
      redirect: { status: 301, scheme: 'https' },
    })
    expect(rule('{directResponse: {status: 418, body: {bytes: aGk=}}}')?.action).toEqual({
      type: 'respond',
      status: 418,
      body: 'hi',
    })
  })

  it('names the features a rule needs that are not there, so that it is not served half', () => {
    expect(
      rule(
        `{fault: {abort: {httpStatus: 500}}, mirror: {host: b}, corsPolicy: {}, match: [{headers: {"@request.auth.claims.x": {exact: y}}}], ${TO('a')}}`,
      )?.unsupported,
    ).toEqual(['fault injection', 'traffic mirroring', 'CORS', 'routing by claims of a JSON Web Token'])
  })

  it('applies in the mesh only when gateways is absent or names mesh', () => {
    expect(of(SERVICE('a') + ROUTES(`hosts: [a], gateways: [gw], http: [{${TO('a')}}]`)).routes).toEqual([])
    expect(of(SERVICE('a') + ROUTES(`hosts: [a], gateways: [gw, mesh], http: [{${TO('a')}}]`)).routes).toHaveLength(1)
    // A rule whose matches are all for gateways does not become one that matches everything.
    expect(
      of(SERVICE('a') + ROUTES(`hosts: [a], gateways: [gw, mesh], http: [{match: [{gateways: [gw]}], ${TO('a')}}]`))
        .routes[0]?.rules,
    ).toEqual([])
    expect(told(SERVICE('a') + ROUTES(`hosts: [a], gateways: [gw], http: [{${TO('a')}}]`))).toEqual([
      'error f.yaml:11: VirtualService shop/v: spec.gateways[0]: There is no Gateway shop/gw (networking.istio.io). [CONFIG_UNKNOWN_GATEWAY] Declare it, or remove gateways so that the rules apply in the mesh.',
      'warning f.yaml:11: VirtualService shop/v: spec.gateways: The rules are for ingress gateways, a feature Ambit does not have yet; they do not apply in the mesh. [CONFIG_NOT_YET] Add mesh to gateways to have them in the mesh.',
    ])
  })

  it('is for every client in the namespace of its service, and for its own clients elsewhere', () => {
    const consumers = (spec: string, namespace: string) =>
      of(
        SERVICE('a') +
          ROUTES(
            `hosts: [a.shop.svc.cluster.local], ${spec} http: [{${TO('a.shop.svc.cluster.local')}}]`,
            `name: v, namespace: ${namespace}`,
          ),
      ).routes.map((one) => one.consumerNamespace)
    expect(consumers('', 'shop')).toEqual(['*'])
    expect(consumers('exportTo: ["."],', 'shop')).toEqual(['shop'])
    expect(consumers('exportTo: [x, y],', 'shop')).toEqual(['x', 'y'])
    expect(consumers('', 'client')).toEqual(['client'])
    expect(consumers('exportTo: [other],', 'client')).toEqual([])
  })

  it('with an exact host counts before one with a wildcard; several of one host follow each other, oldest first', () => {
    const two =
      SERVICE('a') +
      SERVICE('b') +
      ROUTES(`hosts: ["*.shop.svc.cluster.local"], http: [{name: wild, ${TO('a')}}]`, 'name: w, namespace: shop') +
      ROUTES(`hosts: [a], http: [{name: exact, ${TO('a')}}]`)
    expect(of(two).routes.map((one) => [one.hostname, one.rules.map((each) => each.name)])).toEqual([
      ['a.shop.svc.cluster.local', ['exact']],
      ['b.shop.svc.cluster.local', ['wild']],
    ])
    const same =
      SERVICE('a') +
      ROUTES(
        `hosts: [a], http: [{name: n1, ${TO('a')}}]`,
        'name: v2, namespace: shop, creationTimestamp: "2026-03-01T00:00:00Z"',
      ) +
      ROUTES(
        `hosts: [a], http: [{name: n2, match: [{uri: {exact: /}}], ${TO('a')}}]`,
        'name: v1, namespace: shop, creationTimestamp: "2026-02-01T00:00:00Z"',
      )
    expect(of(same).routes.map((one) => one.rules.map((each) => each.name))).toEqual([['n2', 'n1']])
  })

  it('names destinations that do not exist: host, port, subset', () => {
    expect(told(SERVICE('a') + ROUTES('hosts: [a], http: [{route: [{destination: {host: aa}}]}]'))).toEqual([
      'error f.yaml:11: VirtualService shop/v: spec.http[0].route[0].destination.host: aa is no service of the mesh: requests sent there are answered 503. [CONFIG_UNKNOWN_HOST] Services of namespace shop: a.',
    ])
    expect(
      told(
        SERVICE('a') +
          ROUTES('hosts: [a], http: [{route: [{destination: {host: a, subset: v1, port: {number: 81}}}]}]'),
      ),
    ).toEqual([
      'error f.yaml:11: VirtualService shop/v: spec.http[0].route[0].destination.port.number: a.shop.svc.cluster.local has no port 81. [CONFIG_UNKNOWN_PORT] Its ports: 80.',
      'error f.yaml:11: VirtualService shop/v: spec.http[0].route[0].destination.subset: a.shop.svc.cluster.local has no subset v1: requests sent there are answered 503. [CONFIG_UNKNOWN_SUBSET] Declare it in a DestinationRule with host: a.shop.svc.cluster.local.',
    ])
    expect(
      told(
        SERVICE('a', 'shop', '[{name: x, port: 80}, {name: y, port: 81}]') + ROUTES(`hosts: [a], http: [{${TO('a')}}]`),
      )[0],
    ).toContain('several ports and the destination names none')
    expect(told(SERVICE('a', 'other') + ROUTES('hosts: [a.shop], http: [{redirect: {uri: /}}]'))[0]).toContain(
      'Did you mean a.other.svc.cluster.local?',
    )
  })

  it('names a rule that is never reached', () => {
    expect(
      told(SERVICE('a') + ROUTES(`hosts: [a], http: [{match: [{uri: {prefix: /}}], ${TO('a')}}, {${TO('a')}}]`))[0],
    ).toContain('spec.http[1]: The rule is never reached: http[0] matches everything. [CONFIG_UNREACHABLE]')
  })

  it('routes TCP by port', () => {
    expect(
      of(SERVICE('a') + ROUTES('hosts: [a], tcp: [{match: [{port: 80}], route: [{destination: {host: a}}]}]')).routes[0]
        ?.tcp,
    ).toMatchObject([{ port: 80, destinations: [{ service: 'shop/a.shop.svc.cluster.local', weight: 1 }] }])
  })

  it('is refused when a rule does nothing, or two things', () => {
    expect(refusal('{match: [{uri: {exact: /}}]}')).toEqual([
      'spec.http[0]: The rule needs one of route, redirect and directResponse.',
    ])
    expect(refusal(`{redirect: {uri: /}, ${TO('a')}}`)).toEqual([
      'spec.http[0]: The rule may have only one of route, redirect, directResponse and delegate, not route and redirect.',
    ])
    expect(refusal(`{match: [{uri: {exact: /, prefix: /}}], ${TO('a')}}`)).toEqual([
      'spec.http[0].match[0].uri: Only one of exact, prefix and regex may be set, not exact and prefix.',
    ])
    expect(refusal(`{match: [{uri: {regex: "(?=a)"}}], ${TO('a')}}`)[0]).toMatch(
      /^spec\.http\[0\]\.match\[0\]\.uri\.regex: /,
    )
    expect(refusal(`{rewrite: {uriRegexRewrite: {match: "a(b)", rewrite: '\\2'}}, ${TO('a')}}`)[0]).toMatch(
      /names no group/,
    )
    expect(refusal(`{timeout: 5, ${TO('a')}}`)).toEqual(['spec.http[0].timeout: Must be a string, not 5.'])
    expect(refusal(`{timeout: 5 s, ${TO('a')}}`)).toEqual(['spec.http[0].timeout: "5 s" is not a duration.'])
    expect(refusal(`{retries: {attempts: 1, retryOn: 5xxx}, ${TO('a')}}`)).toEqual([
      'spec.http[0].retries.retryOn: "5xxx" is no retry condition.',
    ])
    expect(refusal('{redirect: {redirectCode: 200}}')).toEqual([
      'spec.http[0].redirect.redirectCode: Must be one of 301, 302, 303, 307, 308, not 200.',
    ])
    expect(refusal('{directResponse: {status: 100}}')).toEqual([
      'spec.http[0].directResponse.status: Must be at least 200, not 100.',
    ])
  })
})
