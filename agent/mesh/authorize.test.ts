// The verdict of policies: Istio's order, every field, what cannot be evaluated, and the properties that keep it closed.
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { authorizeConnection, authorizeRequest, compilePolicies, observe } from './authorize.ts'
import { lowerPolicy } from './lower.ts'
import type { AuthzMatch } from './match.ts'
import type { Match, Policy, Rule } from './policy.ts'
import { connectionAttributes, type RequestAttributes } from './request.ts'
import { samplePolicy, sampleRequest, sampleWorkload } from './samples.ts'
import { defaultSettings } from './settings.ts'
import { MeshState } from './state.ts'
import { parseIdentity } from './identity.ts'

const verdict = (policies: Policy[], request: RequestAttributes, settings = defaultSettings) =>
  authorizeRequest(compilePolicies(policies, settings), request)
const exact = (value: string): AuthzMatch => ({ type: 'exact', value })
const matches = (match: Match, request: Parameters<typeof sampleRequest>[0], settings = defaultSettings): boolean =>
  verdict([samplePolicy('ALLOW', match)], sampleRequest(request), settings).allowed

describe('order of evaluation', () => {
  const everything = [{ clauses: [] }]
  it('allows when no policy speaks', () => {
    expect(verdict([], sampleRequest())).toMatchObject({ allowed: true, reason: 'no_allow_policy', details: '' })
  })

  it('denies when an ALLOW policy exists and none matches', () => {
    const policy = samplePolicy('ALLOW', { methods: [exact('PUT')] })
    expect(verdict([policy], sampleRequest())).toMatchObject({
      allowed: false,
      reason: 'not_allowed',
      details: 'rbac_access_denied_matched_policy[none]',
    })
  })

  it('denies everything by an ALLOW policy without rules, allows everything by one empty rule', () => {
    expect(verdict([samplePolicy('ALLOW', [])], sampleRequest()).allowed).toBe(false)
    expect(verdict([samplePolicy('ALLOW', everything)], sampleRequest())).toMatchObject({
      allowed: true,
      reason: 'allow_matched',
      rule: 0,
    })
  })

  it('lets DENY win over ALLOW and names the rule as Istio does', () => {
    const deny = samplePolicy('DENY', [
      { clauses: [{ matches: [{ methods: [exact('PUT')] }] }] },
      { clauses: [{ matches: [{ methods: [exact('GET')] }] }] },
    ])
    expect(verdict([samplePolicy('ALLOW', everything), deny], sampleRequest())).toMatchObject({
      allowed: false,
      reason: 'deny_matched',
      policy: deny,
      rule: 1,
      details: 'rbac_access_denied_matched_policy[ns[default]-policy[deny]-rule[1]]',
    })
  })

  it('denies what a CUSTOM policy matches, before DENY, and nothing else', () => {
    const custom = samplePolicy('CUSTOM', { paths: [{ type: 'prefix', value: '/admin' }] }, { provider: 'opa' })
    const deny = samplePolicy('DENY', everything)
    expect(verdict([deny, custom], sampleRequest({ path: '/admin/x' }))).toMatchObject({
      allowed: false,
      reason: 'custom_unsupported',
      policy: custom,
    })
    expect(verdict([custom], sampleRequest({ path: '/x' })).allowed).toBe(true)
  })

  it('never enforces AUDIT and dry-run policies but reports what they say', () => {
    const audit = samplePolicy('AUDIT', everything)
    const dry = samplePolicy('DENY', everything, { name: 'dry', dryRun: true })
    const compiled = compilePolicies([audit, dry], defaultSettings)
    expect(authorizeRequest(compiled, sampleRequest()).reason).toBe('no_allow_policy')
    expect(observe(compiled, sampleRequest()).map((one) => one.policy.name)).toEqual(['audit', 'dry'])
  })

  it('denies while a referenced policy is unknown', () => {
    const compiled = compilePolicies([samplePolicy('ALLOW', everything)], defaultSettings, ['ns/gone'])
    expect(authorizeRequest(compiled, sampleRequest())).toMatchObject({
      allowed: false,
      reason: 'unknown_policy',
      details: 'unknown_policy[ns/gone]',
    })
  })

  it('gives the same verdict object again, so that judging allocates nothing', () => {
    const compiled = compilePolicies([samplePolicy('DENY', everything)], defaultSettings)
    expect(authorizeRequest(compiled, sampleRequest())).toBe(authorizeRequest(compiled, sampleRequest()))
  })
})

describe('fields', () => {
  const frontend = { principal: 'cluster.local/ns/shop/sa/frontend' }
  it.each<[string, Match, Parameters<typeof sampleRequest>[0], boolean]>([
    ['an exact principal', { principals: [exact('cluster.local/ns/shop/sa/frontend')] }, frontend, true],
    ['a principal prefix', { principals: [{ type: 'prefix', value: 'cluster.local/ns/shop/' }] }, frontend, true],
    ['a principal suffix', { principals: [{ type: 'suffix', value: '/sa/backend' }] }, frontend, false],
    ['any principal', { principals: [{ type: 'presence' }] }, frontend, true],
    ['any principal of plaintext', { principals: [{ type: 'presence' }] }, {}, false],
    ['no principal', { notPrincipals: [{ type: 'presence' }] }, {}, true],
    ['no principal of a peer', { notPrincipals: [{ type: 'presence' }] }, frontend, false],
    ['a namespace', { namespaces: [exact('shop')] }, frontend, true],
    ['a namespace of plaintext', { namespaces: [exact('shop')] }, {}, false],
    ['another namespace', { notNamespaces: [exact('shop')] }, frontend, false],
    ['a service account', { serviceAccounts: [{ namespace: 'shop', name: 'frontend' }] }, frontend, true],
    ['a service account elsewhere', { serviceAccounts: [{ namespace: 'x', name: 'frontend' }] }, frontend, false],
    ['not a service account', { notServiceAccounts: [{ namespace: 'shop', name: 'frontend' }] }, {}, true],
    ['a trust domain', { trustDomains: [exact('cluster.local')] }, frontend, true],
    ['not a trust domain', { notTrustDomains: [{ type: 'suffix', value: '.local' }] }, frontend, false],
    ['a source range', { sourceIps: [{ address: '10.0.0.0', length: 8 }] }, {}, true],
    [
      'a source range of IPv6',
      { sourceIps: [{ address: '2001:db8::', length: 32 }] },
      { sourceAddress: '2001:db8::7' },
      true,
    ],
    ['not a source range', { notSourceIps: [{ address: '10.0.0.0', length: 31 }] }, {}, false],
    ['a remote range', { remoteIps: [{ address: '192.0.2.0', length: 24 }] }, { remoteAddress: '192.0.2.9' }, true],
    [
      'not a remote range',
      { notRemoteIps: [{ address: '192.0.2.0', length: 24 }] },
      { remoteAddress: '192.0.2.9' },
      false,
    ],
    ['a destination range', { destinationIps: [{ address: '10.0.0.2', length: 32 }] }, {}, true],
    ['not a destination range', { notDestinationIps: [{ address: '10.0.0.2', length: 32 }] }, {}, false],
    ['a port', { destinationPorts: [8080, 9090] }, {}, true],
    ['not a port', { notDestinationPorts: [8080] }, {}, false],
    ['a host without regard to case', { hosts: [exact('Backend.Shop')] }, { authority: 'backend.SHOP' }, true],
    ['a host with its port as sent', { hosts: [exact('backend')] }, { authority: 'backend:80' }, false],
    ['a host suffix', { hosts: [{ type: 'suffix', value: '.COM' }] }, { authority: 'a.com' }, true],
    ['not a host', { notHosts: [exact('backend')] }, {}, false],
    ['a method', { methods: [exact('GET'), exact('HEAD')] }, {}, true],
    ['a method in other case', { methods: [exact('get')] }, {}, false],
    ['not a method', { notMethods: [exact('GET')] }, {}, false],
    ['a path without its query', { paths: [exact('/a')] }, { path: '/a?b=/c' }, true],
    ['a path prefix', { paths: [{ type: 'prefix', value: '/api/' }] }, { path: '/api/x' }, true],
    ['a path prefix that is cut off', { paths: [{ type: 'prefix', value: '/api/' }] }, { path: '/api' }, false],
    ['a path suffix before the query', { paths: [{ type: 'suffix', value: '.js' }] }, { path: '/a.js?x.css' }, true],
    ['a path suffix only in the query', { paths: [{ type: 'suffix', value: '.js' }] }, { path: '/a?x.js' }, false],
    ['not a path', { notPaths: [exact('/')] }, { path: '/' }, false],
    ['a header', { headers: [{ key: 'x-a', values: [exact('1')] }] }, { headers: ['x-a', '1'] }, true],
    ['a header that is absent', { headers: [{ key: 'x-a', values: [exact('')] }] }, {}, false],
    [
      'presence of an empty header',
      { headers: [{ key: 'x-a', values: [{ type: 'presence' }] }] },
      { headers: ['x-a', ''] },
      true,
    ],
    [
      'two fields of a header joined',
      { headers: [{ key: 'x-a', values: [exact('1,2')] }] },
      { headers: ['x-a', '1', 'x-a', '2'] },
      true,
    ],
    ['absence of a header value', { notHeaders: [{ key: 'x-a', values: [exact('1')] }] }, {}, true],
    ['not a header value', { notHeaders: [{ key: 'x-a', values: [exact('1')] }] }, { headers: ['x-a', '1'] }, false],
    [
      'both headers of two',
      {
        headers: [
          { key: 'x-a', values: [exact('1')] },
          { key: 'x-b', values: [exact('1')] },
        ],
      },
      { headers: ['x-a', '1'] },
      false,
    ],
    ['a server name', { sni: [exact('a.example')] }, { sni: 'a.example' }, true],
    ['not a server name', { notSni: [exact('a.example')] }, { sni: 'a.example' }, false],
    ['two fields of which one fails', { methods: [exact('GET')], paths: [exact('/no')] }, {}, false],
    ['no field at all', {}, {}, false],
    ['only empty lists', { methods: [] }, {}, false],
  ])('compares %s', (_name, match, request, expected) => {
    expect(matches(match, request)).toBe(expected)
  })

  it.each([
    ['/foo/{*}', '/foo/bar', true],
    ['/foo/{*}', '/foo/', false],
    ['/foo/{*}', '/foo/bar/baz', false],
    ['/foo/{*}/baz', '/foo/bar/baz', true],
    ['/foo/{*}/{*}', '/foo/a/b', true],
    ['/foo/{**}', '/foo/', true],
    ['/foo/{**}', '/foo/a/b.txt', true],
    ['/foo/{**}', '/fo', false],
    ['/foo/{**}/', '/foo/a/b/', true],
    ['/foo/{**}/', '/foo//', true],
    ['/foo/{**}/', '/foo/a', false],
    ['/foo/{**}/', '/foo/', false],
    ['/{*}/x/{**}', '/a/x/', true],
    ['/{*}/x/{**}', '//x/', false],
  ])('holds template %s against %s', (template, path, expected) => {
    expect(matches({ paths: [{ type: 'template', value: template }] }, { path: `${path}?q=/foo/x` })).toBe(expected)
  })

  it('treats principals of the mesh and its aliases alike', () => {
    const settings = { ...defaultSettings, trustDomain: 'new.example', trustDomainAliases: ['old.example'] }
    const match = { principals: [exact('old.example/ns/a/sa/b')] }
    expect(matches(match, { principal: 'new.example/ns/a/sa/b' }, settings)).toBe(true)
    expect(matches(match, { principal: 'other.example/ns/a/sa/b' }, settings)).toBe(false)
    expect(
      matches({ principals: [exact('cluster.local/ns/a/sa/b')] }, { principal: 'new.example/ns/a/sa/b' }, settings),
    ).toBe(true)
  })
})

describe('what cannot be evaluated', () => {
  const blind: [string, Match][] = [
    ['a token principal', { requestPrincipals: [{ type: 'presence' }] }],
    ['no token principal', { notRequestPrincipals: [{ type: 'presence' }] }],
    ['audiences', { audiences: [exact('x')] }],
    ['a presenter', { presenters: [exact('x')] }],
    ['claims', { claims: [{ key: 'group', values: [exact('x')] }] }],
    ['an unsupported attribute', { unsupported: ['experimental.envoy.filters.a'] }],
    ['a malformed range', { sourceIps: [{ address: 'nonsense', length: 8 }] }],
  ]
  it.each(blind)('never lets an ALLOW match: %s', (_name, match) => {
    expect(matches(match, {})).toBe(false)
    expect(matches({ ...match, methods: [exact('GET')] }, {})).toBe(false)
  })

  it.each(blind)('lets a DENY match without it: %s', (_name, match) => {
    const deny = (more: Match) => verdict([samplePolicy('DENY', { ...match, ...more })], sampleRequest()).allowed
    expect(deny({})).toBe(false)
    expect(deny({ methods: [exact('GET')] })).toBe(false)
    expect(deny({ methods: [exact('PUT')] })).toBe(true)
  })
})

describe('connections', () => {
  const workload = sampleWorkload({ name: 'backend', authorizationPolicies: ['default/own'] })
  const from = (principal: string | undefined, port = 8080) =>
    connectionAttributes('10.0.0.1', principal ? parseIdentity(`spiffe://${principal}`) : undefined, '10.0.0.2', port)
  const frontend = 'cluster.local/ns/shop/sa/frontend'

  it('are denied while a policy of the workload is not known, and judged once it arrives', () => {
    const state = new MeshState()
    expect(authorizeConnection(state, workload, from(frontend)).reason).toBe('unknown_policy')
    state.setPolicy(samplePolicy('ALLOW', { principals: [exact(frontend)] }, { name: 'own', scope: 'workload' }))
    expect(authorizeConnection(state, workload, from(frontend)).reason).toBe('allow_matched')
    expect(authorizeConnection(state, workload, from(undefined)).reason).toBe('not_allowed')
    state.removePolicy('default/own')
    expect(authorizeConnection(state, workload, from(frontend)).reason).toBe('unknown_policy')
  })

  it('meet policies of the mesh and of the namespace, not those of other namespaces or targets', () => {
    const state = new MeshState()
    const plain = { ...workload, authorizationPolicies: [] }
    state.setPolicy(samplePolicy('DENY', { destinationPorts: [1] }, { namespace: 'istio-system', scope: 'global' }))
    state.setPolicy(samplePolicy('DENY', { destinationPorts: [2] }, { name: 'n' }))
    state.setPolicy(samplePolicy('DENY', { destinationPorts: [3] }, { namespace: 'other', name: 'o' }))
    state.setPolicy(samplePolicy('DENY', { destinationPorts: [4] }, { name: 't', scope: 'target' }))
    const allowed = [1, 2, 3, 4].map((port) => authorizeConnection(state, plain, from(frontend, port)).allowed)
    expect(allowed).toEqual([false, false, true, true])
  })

  it('are denied by a DENY on a request attribute, by what is left of it', () => {
    const state = new MeshState()
    const plain = { ...workload, authorizationPolicies: [] }
    state.setPolicy(samplePolicy('DENY', { methods: [exact('DELETE')], destinationPorts: [9] }))
    expect(authorizeConnection(state, plain, from(frontend, 9))).toMatchObject({ allowed: false, rule: 0 })
    expect(authorizeConnection(state, plain, from(frontend, 8)).allowed).toBe(true)
    state.setPolicy(samplePolicy('DENY', { methods: [exact('DELETE')] }))
    expect(authorizeConnection(state, plain, from(frontend, 8)).allowed).toBe(false)
  })

  it('are denied by what a CUSTOM policy matches', () => {
    const state = new MeshState()
    const plain = { ...workload, authorizationPolicies: [] }
    state.setPolicy(samplePolicy('CUSTOM', { paths: [exact('/x')] }))
    expect(authorizeConnection(state, plain, from(frontend))).toMatchObject({
      allowed: false,
      reason: 'custom_unsupported',
    })
  })
})

// Random policies over a small world, so that matches are likely.
const text = fc.constantFrom<AuthzMatch>(
  exact('a'),
  exact('b'),
  { type: 'prefix', value: 'a' },
  { type: 'suffix', value: 'b' },
  { type: 'presence' },
)
const texts = fc.option(fc.array(text, { minLength: 1, maxLength: 2 }), { nil: undefined, freq: 1 })
const principalText = fc.constantFrom<AuthzMatch>(
  exact('td/ns/a/sa/x'),
  exact('td/ns/b/sa/x'),
  exact('other/ns/a/sa/x'),
  { type: 'prefix', value: 'td/' },
  { type: 'suffix', value: '/x' },
  { type: 'presence' },
)
const principals = fc.option(fc.array(principalText, { minLength: 1, maxLength: 2 }), { nil: undefined, freq: 1 })
const ports = fc.option(fc.subarray([1, 2], { minLength: 1 }), { nil: undefined, freq: 1 })
const domains = fc.option(
  fc.array(fc.constantFrom<AuthzMatch>(exact('td'), { type: 'prefix', value: 't' }, { type: 'suffix', value: 'd' }), {
    minLength: 1,
    maxLength: 2,
  }),
  { nil: undefined, freq: 3 },
)
const matchOf = fc
  .record({
    principals,
    notPrincipals: principals,
    namespaces: texts,
    trustDomains: domains,
    notTrustDomains: domains,
    destinationPorts: ports,
    notDestinationPorts: ports,
    methods: texts,
    notMethods: texts,
    requestPrincipals: fc.option(fc.array(text, { minLength: 1, maxLength: 1 }), { nil: undefined, freq: 9 }),
  })
  .map((fields) => {
    // Keep two or three fields at most, else nothing ever matches.
    const kept = Object.entries(fields).filter(([, value]) => value !== undefined)
    return Object.fromEntries(kept.slice(0, 3)) as Match
  })
const ruleOf: fc.Arbitrary<Rule> = fc.record({
  clauses: fc.array(fc.record({ matches: fc.array(matchOf, { maxLength: 2 }) }), { maxLength: 2 }),
})
const policyOf = fc
  .record({
    action: fc.constantFrom('ALLOW' as const, 'DENY' as const, 'CUSTOM' as const),
    rules: fc.array(ruleOf, { maxLength: 2 }),
  })
  .map(({ action, rules }) => samplePolicy(action, rules))
const requestOf = fc
  .record({
    principal: fc.constantFrom(undefined, 'td/ns/a/sa/x', 'td/ns/b/sa/x', 'other/ns/a/sa/x', 'td/ns/a/sa/b'),
    destinationPort: fc.constantFrom(1, 2),
    method: fc.constantFrom('a', 'b', 'ab', ''),
  })
  .map(({ principal, ...rest }) => sampleRequest({ ...rest, ...(principal ? { principal } : {}) }))

describe('properties', () => {
  const settings = { ...defaultSettings, trustDomain: 'td' }

  it('agrees with the plain reading of the specification', () => {
    const textMatches = (match: AuthzMatch, value: string): boolean =>
      match.type === 'exact'
        ? value === match.value
        : match.type === 'prefix'
          ? value.startsWith(match.value)
          : match.type === 'suffix'
            ? value.endsWith(match.value)
            : value !== ''
    const holds = (match: Match, request: RequestAttributes, denies: boolean): boolean => {
      if (Object.keys(match).length === 0) return false
      if (match.requestPrincipals && !denies) return false
      const { identity } = request
      const principal = identity ? `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}` : ''
      const some = (values: readonly AuthzMatch[] | undefined, value: string, negate = false): boolean =>
        values === undefined || values.some((one) => textMatches(one, value)) !== negate
      return (
        some(match.principals, principal) &&
        some(match.notPrincipals, principal, true) &&
        some(match.namespaces, identity?.namespace ?? '') &&
        some(match.trustDomains, identity?.trustDomain ?? '') &&
        some(match.notTrustDomains, identity?.trustDomain ?? '', true) &&
        some(match.methods, request.method) &&
        some(match.notMethods, request.method, true) &&
        (match.destinationPorts?.includes(request.destinationPort) ?? true) &&
        !(match.notDestinationPorts?.includes(request.destinationPort) ?? false)
      )
    }
    const hit = (policy: Policy, request: RequestAttributes): boolean =>
      policy.rules.some((rule) =>
        rule.clauses.every(
          (clause) =>
            clause.matches.length === 0 ||
            clause.matches.some((match) => holds(match, request, policy.action !== 'ALLOW')),
        ),
      )
    fc.assert(
      fc.property(fc.array(policyOf, { maxLength: 4 }), requestOf, (policies, request) => {
        const refused = policies.some((policy) => policy.action !== 'ALLOW' && hit(policy, request))
        const allows = policies.filter((policy) => policy.action === 'ALLOW')
        const expected = !refused && (allows.length === 0 || allows.some((policy) => hit(policy, request)))
        expect(verdict(policies, request, settings).allowed).toBe(expected)
      }),
      { numRuns: 1500 },
    )
  })

  it('never allows a connection whose requests the whole policies would refuse', () => {
    let allowed = 0
    fc.assert(
      fc.property(fc.array(policyOf, { minLength: 1, maxLength: 3 }), requestOf, (policies, request) => {
        const lowered = policies.map((policy) => lowerPolicy(policy, settings)).filter((policy) => policy !== undefined)
        if (!verdict(lowered, request, settings).allowed) return
        allowed++
        expect(verdict(policies, request, settings).allowed).toBe(true)
      }),
      { numRuns: 3000 },
    )
    expect(allowed).toBeGreaterThan(100)
  })

  it('lowers to attributes of a connection only, and lowering again changes nothing', () => {
    fc.assert(
      fc.property(policyOf, (policy) => {
        const lowered = lowerPolicy(policy, settings) as Policy
        const fields = new Set(
          lowered.rules.flatMap((rule) =>
            rule.clauses.flatMap((clause) => clause.matches.flatMap((match) => Object.keys(match))),
          ),
        )
        for (const field of fields) {
          expect(['principals', 'notPrincipals', 'namespaces', 'destinationPorts', 'notDestinationPorts']).toContain(
            field,
          )
        }
        const again = lowerPolicy(lowered, settings) as Policy
        expect(lowerPolicy(again, settings)).toEqual(again)
        expect(lowered.rules.length).toBe(policy.rules.length)
      }),
    )
  })
})
