import { describe, expect, it } from 'vitest'
import { loadText } from './folder.ts'
import { parseText } from './load.ts'
import { describeProblem } from './problem.ts'
import { resourcesOf } from './store.ts'
import { translate } from './translate.ts'

const of = (text: string) => translate(resourcesOf(loadText(SERVICE + text, 'f.yaml')))
const SERVICE =
  '---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n'
const HOST = 'a.shop.svc.cluster.local'
const RULE = (name: string, spec: string, namespace = 'shop') =>
  `---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: {${spec}}\n`
const LB = (simple: string) => `trafficPolicy: {loadBalancer: {simple: ${simple}}}`
const seen = (text: string) =>
  Object.fromEntries(of(text).upstreams.map((one) => [one.consumerNamespace, one.policy.loadBalancer ?? 'default']))

describe('a DestinationRule', () => {
  it('becomes the policy of its host, with Istio’s defaults for what outlierDetection leaves out', () => {
    const [upstream] = of(
      RULE(
        'r',
        `host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1, connectTimeout: 30ms, idleTimeout: 1m, maxConnectionDuration: 2h}, http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRequestsPerConnection: 4, maxRetries: 5, idleTimeout: 1h, h2UpgradePolicy: UPGRADE, useClientProtocol: true, maxConcurrentStreams: 6}}, outlierDetection: {}}`,
      ),
    ).upstreams
    expect(upstream).toEqual({
      namespace: 'shop',
      hostname: HOST,
      consumerNamespace: '*',
      policy: {
        connectionPool: {
          maxConnections: 1,
          connectTimeoutMs: 30,
          tcpIdleTimeoutMs: 60_000,
          maxConnectionDurationMs: 7_200_000,
          http1MaxPendingRequests: 2,
          http2MaxRequests: 3,
          maxRequestsPerConnection: 4,
          maxRetries: 5,
          idleTimeoutMs: 3_600_000,
          h2Upgrade: 'UPGRADE',
          useClientProtocol: true,
          maxConcurrentStreams: 6,
        },
        outlierDetection: {
          consecutive5xxErrors: 5,
          consecutiveGatewayErrors: 0,
          splitExternalLocalOriginErrors: false,
          consecutiveLocalOriginFailures: 5,
          intervalMs: 10_000,
          baseEjectionTimeMs: 30_000,
          maxEjectionPercent: 10,
          minHealthPercent: 0,
        },
      },
      portPolicies: {},
      subsets: [],
      sources: [{ kind: 'DestinationRule', namespace: 'shop', name: 'r', place: 'f.yaml:7' }],
    })
  })

  it('takes LEAST_CONN for LEAST_REQUEST and says so', () => {
    expect(seen(RULE('r', `host: a, ${LB('LEAST_CONN')}`))).toEqual({ '*': 'LEAST_REQUEST' })
    expect(
      parseText(RULE('r', `host: a, ${LB('LEAST_CONN')}`), 'f.yaml').problems.map(
        (one) => `${one.severity} ${describeProblem(one)}`,
      ),
    ).toEqual([
      'info f.yaml:5: DestinationRule shop/r: spec.trafficPolicy.loadBalancer.simple: LEAST_CONN is the old name of LEAST_REQUEST, and is read as that. [CONFIG_DEPRECATED] Write simple: LEAST_REQUEST.',
    ])
  })

  it('has policies by port and by subset', () => {
    const [upstream] = of(
      RULE(
        'r',
        `host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 9}}}]}, subsets: [{name: v1, labels: {version: v1}, ${LB('ROUND_ROBIN')}}]`,
      ),
    ).upstreams
    expect(upstream?.portPolicies).toEqual({ 80: { connectionPool: { maxConnections: 9 } } })
    expect(upstream?.subsets).toMatchObject([
      { name: 'v1', labels: { version: 'v1' }, policy: { loadBalancer: 'ROUND_ROBIN' } },
    ])
  })

  it('merges with others of its host: the oldest policy, the subsets of all, the first of a name', () => {
    const text =
      RULE('one', 'host: a, subsets: [{name: v1, labels: {v: "1"}}]') +
      RULE(
        'two',
        `host: ${HOST}, ${LB('RANDOM')}, subsets: [{name: v1, labels: {v: other}}, {name: v2, labels: {v: "2"}}]`,
      ) +
      RULE('three', `host: a, ${LB('ROUND_ROBIN')}`)
    const { upstreams, problems } = of(text)
    expect(upstreams).toHaveLength(1)
    expect(upstreams[0]).toMatchObject({
      policy: { loadBalancer: 'RANDOM' },
      subsets: [
        { name: 'v1', labels: { v: '1' } },
        { name: 'v2', labels: { v: '2' } },
      ],
    })
    expect(upstreams[0]?.sources.map((one) => one.name)).toEqual(['one', 'two', 'three'])
    expect(problems.filter((one) => one.code === 'CONFIG_CONFLICT').map((one) => one.message)).toEqual([
      `The subset v1 of ${HOST} is already declared by shop/one (f.yaml:10); that one counts.`,
      `Has no effect: DestinationRule shop/two (f.yaml:15) is older and sets the policy of ${HOST}.`,
    ])
  })

  it("is looked for in the client's namespace, the service's, then the root namespace", () => {
    expect(seen(RULE('r', `host: ${HOST}, ${LB('RANDOM')}`, 'istio-system'))).toEqual({ '*': 'RANDOM' })
    expect(
      seen(RULE('s', `host: a, ${LB('ROUND_ROBIN')}`) + RULE('r', `host: ${HOST}, ${LB('RANDOM')}`, 'istio-system')),
    ).toEqual({ '*': 'ROUND_ROBIN', 'istio-system': 'RANDOM' })
    expect(
      seen(RULE('s', `host: a, ${LB('ROUND_ROBIN')}`) + RULE('c', `host: ${HOST}, ${LB('RANDOM')}`, 'client')),
    ).toEqual({ '*': 'ROUND_ROBIN', client: 'RANDOM' })
    // Of a namespace that is neither the client's nor the service's it says nothing to others.
    expect(seen(RULE('c', `host: ${HOST}, ${LB('RANDOM')}`, 'client'))).toEqual({ client: 'RANDOM' })
  })

  it('is seen where exportTo lets it be', () => {
    expect(seen(RULE('s', `host: a, exportTo: ["."], ${LB('RANDOM')}`))).toEqual({ shop: 'RANDOM' })
    expect(seen(RULE('s', `host: a, exportTo: [x], ${LB('RANDOM')}`))).toEqual({ x: 'RANDOM' })
  })

  it('with the more specific host counts', () => {
    expect(
      seen(
        RULE('w', `host: "*.local", ${LB('RANDOM')}`) +
          RULE('v', `host: "*.shop.svc.cluster.local", ${LB('ROUND_ROBIN')}`),
      ),
    ).toEqual({ '*': 'ROUND_ROBIN' })
    expect(seen(RULE('w', `host: "*.local", ${LB('RANDOM')}`) + RULE('e', `host: a, ${LB('PASSTHROUGH')}`))).toEqual({
      '*': 'PASSTHROUGH',
    })
  })

  it('names a host that is no service and a subset without endpoints', () => {
    expect(of(RULE('r', 'host: b')).problems.map(describeProblem)).toEqual([
      'f.yaml:10: DestinationRule shop/r: spec.host: b is no service of the mesh: the rule has no effect. [CONFIG_UNKNOWN_HOST] Services of namespace shop: a.',
    ])
    expect(
      of(RULE('r', 'host: a, subsets: [{name: v9, labels: {version: v9}}]'))
        .problems.filter((one) => one.code !== 'CONFIG_NEEDS_WAYPOINT')
        .map(describeProblem),
    ).toEqual([
      `f.yaml:10: DestinationRule shop/r: spec.subsets[0]: The subset v9 of ${HOST} has no endpoint: no workload of the service has the labels version=v9. [CONFIG_SELECTS_NOTHING] Requests sent to it are answered 503. Check the labels.`,
    ])
  })

  it('names what Ambit does not have yet, wherever it stands', () => {
    const text = RULE(
      'r',
      'host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}, tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, connectionPool: {http: {http2KeepAlive: {interval: 1s}}}}]}, workloadSelector: {matchLabels: {a: b}}',
    )
    expect(
      parseText(text, 'f')
        .problems.filter((one) => one.code === 'CONFIG_NOT_YET')
        .map((one) => one.field),
    ).toEqual([
      'spec.trafficPolicy.loadBalancer.consistentHash',
      'spec.trafficPolicy.portLevelSettings[0].connectionPool.http.http2KeepAlive',
      'spec.workloadSelector',
      'spec.trafficPolicy.tls.mode',
    ])
    expect(of(text).upstreams).toEqual([])
  })
})
