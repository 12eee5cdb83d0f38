import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toMatch } from './authorization-policy-domain.ts'
import { loadText } from './folder.ts'
import { parseText } from './load.ts'
import { describeProblem } from './problem.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const of = (text: string) => translate(resourcesOf(loadText(text, 'f.yaml')))
const POLICY = (spec: string, metadata = 'name: p, namespace: shop') =>
  `---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {${metadata}}\nspec: {${spec}}\n`
const PEER = (name: string, namespace: string, spec: string) =>
  `---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: {${spec}}\n`
const POD = (name: string, namespace: string, labels = `app: ${name}`) =>
  `---\napiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: ${namespace}, labels: {${labels}}}\nspec: {containers: [{name: c}]}\nstatus: {podIP: 10.0.0.1}\n`

const policy = (spec: string, metadata?: string) => of(POLICY(spec, metadata)).policies[0]
const refusal = (spec: string) =>
  parseText(POLICY(spec), 'f.yaml')
    .problems.filter((one) => one.severity === 'error')
    .map((one) => `${one.field}: ${one.message}`)

describe('an AuthorizationPolicy', () => {
  it("becomes a policy with one clause for from, one for to and one for each 'when'", () => {
    const spec = `selector: {matchLabels: {app: a}}, action: DENY, rules: [{
      from: [{source: {principals: ["cluster.local/ns/x/sa/y", "*"], notNamespaces: [dev-*]}}, {source: {ipBlocks: ["10.1.2.3/8", "::1"], serviceAccounts: [y, x/z]}}],
      to: [{operation: {methods: [GET], paths: [/api/*, "*.html", "/a/{*}/b/{**}"], ports: ["8080"], hosts: [Example.COM]}}],
      when: [{key: "request.headers[X-Token]", values: [a*], notValues: ["*"]}, {key: source.ip, notValues: [10.0.0.1]}, {key: destination.port, values: ["80"]}]}]`
    expect(policy(spec)).toEqual({
      namespace: 'shop',
      name: 'p',
      scope: 'workload',
      selector: { app: 'a' },
      targets: [],
      action: 'DENY',
      dryRun: false,
      rules: [
        {
          clauses: [
            {
              matches: [
                {
                  principals: [{ type: 'exact', value: 'cluster.local/ns/x/sa/y' }, { type: 'presence' }],
                  notNamespaces: [{ type: 'prefix', value: 'dev-' }],
                },
                {
                  serviceAccounts: [
                    { namespace: 'shop', name: 'y' },
                    { namespace: 'x', name: 'z' },
                  ],
                  sourceIps: [
                    { address: '10.0.0.0', length: 8 },
                    { address: '::1', length: 128 },
                  ],
                },
              ],
            },
            {
              matches: [
                {
                  hosts: [{ type: 'exact', value: 'example.com' }],
                  destinationPorts: [8080],
                  methods: [{ type: 'exact', value: 'GET' }],
                  paths: [
                    { type: 'prefix', value: '/api/' },
                    { type: 'suffix', value: '.html' },
                    { type: 'template', value: '/a/{*}/b/{**}' },
                  ],
                },
              ],
            },
            {
              matches: [
                {
                  headers: [{ key: 'x-token', values: [{ type: 'prefix', value: 'a' }] }],
                  notHeaders: [{ key: 'x-token', values: [{ type: 'presence' }] }],
                },
              ],
            },
            { matches: [{ notSourceIps: [{ address: '10.0.0.1', length: 32 }] }] },
            { matches: [{ destinationPorts: [80] }] },
          ],
        },
      ],
      source: { kind: 'AuthorizationPolicy', namespace: 'shop', name: 'p', place: 'f.yaml:2' },
    })
  })

  it('speaks about its selector, its targets, its namespace, or the mesh from the root namespace', () => {
    expect(policy('{}'.slice(1, -1))).toMatchObject({ scope: 'namespace', action: 'ALLOW', rules: [] })
    expect(policy('rules: [{}]', 'name: p, namespace: istio-system')).toMatchObject({
      scope: 'global',
      rules: [{ clauses: [] }],
    })
    expect(
      policy(
        'targetRefs: [{kind: Service, group: "", name: api}, {kind: Gateway, group: gateway.networking.k8s.io, name: wp}]',
      ),
    ).toMatchObject({
      scope: 'target',
      targets: [
        { kind: 'Service', namespace: 'shop', name: 'api' },
        { kind: 'Gateway', namespace: 'shop', name: 'wp' },
      ],
    })
    expect(policy('selector: {matchLabels: {}}')).toMatchObject({ scope: 'namespace' })
  })

  it('can be a dry run, and can ask for an external authoriser', () => {
    expect(policy('rules: [{}]', 'name: p, namespace: shop, annotations: {istio.io/dry-run: "true"}')?.dryRun).toBe(
      true,
    )
    expect(policy('action: CUSTOM, provider: {name: oauth}, rules: [{}]')).toMatchObject({
      action: 'CUSTOM',
      provider: 'oauth',
    })
    expect(of(POLICY('action: CUSTOM, provider: {name: oauth}, rules: [{}]')).problems).toEqual([])
    expect(
      parseText(POLICY('action: CUSTOM, provider: {name: oauth}, rules: [{}]'), 'f').problems.map((one) => one.message),
    ).toEqual(['external authorisation (action CUSTOM): Ambit does not have this yet.'])
  })

  it('keeps token attributes and names what cannot be evaluated', () => {
    expect(
      policy(
        'rules: [{from: [{source: {requestPrincipals: ["*"]}}], when: [{key: "request.auth.claims[a][b]", values: [x]}, {key: experimental.envoy.filters.x, values: [y]}]}]',
      )?.rules,
    ).toEqual([
      {
        clauses: [
          { matches: [{ requestPrincipals: [{ type: 'presence' }] }] },
          { matches: [{ claims: [{ key: 'a\u001fb', values: [{ type: 'exact', value: 'x' }] }] }] },
          { matches: [{ unsupported: ['experimental.envoy.filters.x'] }] },
        ],
      },
    ])
  })

  it('is refused when it says nothing or contradicts itself', () => {
    expect(refusal('selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: x}')).toEqual([
      'spec: Only one of selector, targetRef and targetRefs may be set, not selector and targetRef.',
    ])
    expect(refusal('action: CUSTOM')).toEqual(['spec: action: CUSTOM needs provider.name.'])
    expect(refusal('rules: [{from: []}]')).toEqual(['spec.rules[0].from: from must not be an empty list.'])
    expect(refusal('rules: [{from: [{source: {}}]}]')).toEqual([
      'spec.rules[0].from[0].source: source must have at least one field.',
    ])
    expect(refusal('rules: [{to: [{operation: {ports: ["0"]}}]}]')).toEqual([
      'spec.rules[0].to[0].operation.ports[0]: "0" is no port between 1 and 65535.',
    ])
    expect(refusal('rules: [{to: [{operation: {ports: [80]}}]}]')).toEqual([
      'spec.rules[0].to[0].operation.ports[0]: Must be a string, not 80.',
    ])
    expect(refusal('rules: [{to: [{operation: {paths: ["/a/{**}/b"]}}]}]')).toEqual([
      'spec.rules[0].to[0].operation.paths[0]: {**} must be the last segment of "/a/{**}/b".',
    ])
    expect(refusal('rules: [{from: [{source: {ipBlocks: [10.0.0.256]}}]}]')).toEqual([
      'spec.rules[0].from[0].source.ipBlocks[0]: "10.0.0.256" is no IP address or range.',
    ])
    expect(refusal('rules: [{from: [{source: {principals: ["spiffe://td/ns/a/sa/b"]}}]}]')).toEqual([
      'spec.rules[0].from[0].source.principals[0]: A principal is written without spiffe://.',
    ])
    expect(refusal('rules: [{from: [{source: {serviceAccounts: ["*"]}}]}]')).toEqual([
      'spec.rules[0].from[0].source.serviceAccounts[0]: "*" is not of the form name or namespace/name.',
    ])
    expect(refusal('rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]')).toEqual([
      'spec.rules[0].from[0].source: serviceAccounts does not go with principals or namespaces.',
    ])
    expect(refusal('rules: [{when: [{key: source.ip}]}]')).toEqual([
      'spec.rules[0].when[0]: A condition needs values or notValues.',
    ])
    expect(refusal('rules: [{when: [{key: constructor, values: [a]}]}]')).toEqual([
      'spec.rules[0].when[0].key: "constructor" is no attribute.',
    ])
    expect(refusal('targetRef: {kind: Service, name: x, namespace: other}')).toEqual([
      'spec.targetRef.namespace: A resource of namespace shop cannot target one of namespace other.',
    ])
    expect(refusal('targetRef: {kind: Pod, name: x}')).toEqual([
      'spec.targetRef.kind: The target\'s kind must be one of Service, Gateway, GatewayClass, ServiceEntry, not "Pod".',
    ])
  })

  it('is told when it selects nothing or its target is missing', () => {
    expect(of(POLICY('selector: {matchLabels: {app: none}}')).problems.map(describeProblem)).toEqual([
      'f.yaml:5: AuthorizationPolicy shop/p: spec.selector.matchLabels: No workload in namespace shop has the labels app=none: the resource has no effect. [CONFIG_SELECTS_NOTHING] Check the labels and the namespace.',
    ])
    expect(of(POLICY('targetRef: {kind: Service, name: x}')).problems.map(describeProblem)).toEqual([
      'f.yaml:5: AuthorizationPolicy shop/p: spec.targetRef.name: There is no Service shop/x. [CONFIG_UNKNOWN_TARGET] Check the name; until it exists the policy protects nothing.',
    ])
  })

  it('reads any value as exactly one of presence, prefix, suffix and literal', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), (text) => {
        const match = toMatch(text)
        const written =
          match.type === 'presence'
            ? '*'
            : match.type === 'prefix'
              ? `${match.value}*`
              : match.type === 'suffix'
                ? `*${match.value}`
                : match.value
        expect(written).toBe(text)
      }),
    )
  })
})

describe("a workload's list of policies", () => {
  const lists = (text: string) =>
    Object.fromEntries(of(text).workloads.map((one) => [`${one.namespace}/${one.name}`, one.authorizationPolicies]))

  it('has those whose selector it meets, from its own and the root namespace', () => {
    expect(
      lists(
        POD('a', 'shop') +
          POD('b', 'shop') +
          POD('a', 'other') +
          POLICY('selector: {matchLabels: {app: a}}') +
          POLICY('selector: {matchLabels: {app: a}}', 'name: r, namespace: istio-system') +
          POLICY('rules: []', 'name: wide, namespace: shop'),
      ),
    ).toEqual({ 'shop/a': ['shop/p', 'istio-system/r'], 'shop/b': [], 'other/a': ['istio-system/r'] })
  })

  it('has the STRICT policy where mutual TLS is required', () => {
    const text =
      POD('a', 'shop') +
      POD('b', 'open') +
      PEER('default', 'istio-system', 'mtls: {mode: STRICT}') +
      PEER('default', 'open', 'mtls: {mode: PERMISSIVE}')
    expect(lists(text)).toEqual({ 'shop/a': ['istio-system/istio_converted_static_strict'], 'open/b': [] })
    expect(of(text).policies).toMatchObject([
      {
        namespace: 'istio-system',
        name: 'istio_converted_static_strict',
        action: 'DENY',
        scope: 'workload',
        rules: [{ clauses: [{ matches: [{ notPrincipals: [{ type: 'presence' }] }] }] }],
      },
    ])
  })

  it('has a policy of its own where ports differ', () => {
    const text =
      POD('a', 'shop') +
      PEER('ns', 'shop', 'mtls: {mode: STRICT}') +
      PEER('a', 'shop', 'selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: PERMISSIVE}}')
    expect(lists(text)).toEqual({ 'shop/a': ['shop/converted_peer_authentication_a'] })
    expect(of(text).policies[0]?.rules).toEqual([
      {
        clauses: [
          { matches: [{ notPrincipals: [{ type: 'presence' }] }] },
          { matches: [{ notDestinationPorts: [8080] }] },
        ],
      },
    ])
  })

  it('follows the oldest of two PeerAuthentications of one level, and names the other', () => {
    const text =
      POD('a', 'shop') + PEER('one', 'shop', 'mtls: {mode: STRICT}') + PEER('two', 'shop', 'mtls: {mode: PERMISSIVE}')
    expect(lists(text)['shop/a']).toEqual(['istio-system/istio_converted_static_strict'])
    expect(of(text).problems.map((one) => one.message)).toEqual([
      'shop/one is older and speaks about the same workloads: this one has no effect.',
    ])
    const older = text
      .replace('name: two, namespace: shop', 'name: two, namespace: shop, creationTimestamp: "2026-01-01T00:00:00Z"')
      .replace('name: one, namespace: shop', 'name: one, namespace: shop, creationTimestamp: "2026-02-01T00:00:00Z"')
    expect(lists(older)['shop/a']).toEqual([])
  })

  it('refuses portLevelMtls without a selector', () => {
    expect(
      parseText(PEER('a', 'shop', 'portLevelMtls: {80: {mode: STRICT}}'), 'f').problems.map((one) => one.message),
    ).toEqual(['portLevelMtls needs a selector.'])
  })
})
