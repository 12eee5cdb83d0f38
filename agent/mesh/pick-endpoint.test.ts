// Balancing, ejection, merging of policies, retries, weights.
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { grpcToHttpStatus, OutlierDetector } from './outlier.ts'
import { Balancer, listCandidates, type Algorithm, type Candidate, type HostStates } from './pick-endpoint.ts'
import { compileRetry, retriesStatus, retryDelay } from './retry.ts'
import { sampleService, sampleSource, sampleUpstream, sampleWorkload } from './samples.ts'
import { MeshState } from './state.ts'
import { subsetOf, trafficPolicyOf } from './traffic-policy.ts'
import type { OutlierDetection } from './upstream.ts'
import { compileWeights, pickWeighted } from './weighted.ts'

const hosts = (count: number, given: (i: number) => Partial<Candidate> = () => ({})): Candidate[] =>
  Array.from({ length: count }, (_, i) => ({
    workload: sampleWorkload({ name: `w${i}` }),
    address: `10.0.0.${i}`,
    port: 8080,
    weight: 1,
    rank: 0,
    ...given(i),
  }))
const all: HostStates = { usable: () => true, active: () => 0 }
/** A fixed sequence of random numbers, so that tests repeat. */
function sequence(seed = 1): () => number {
  let state = seed
  return () => (state = (state * 16807) % 2147483647) / 2147483647
}

describe('Balancer', () => {
  it('goes round', () => {
    const balancer = new Balancer('ROUND_ROBIN', hosts(3))
    expect([1, 2, 3, 4].map(() => balancer.pick(all, sequence()))).toEqual([0, 1, 2, 0])
  })

  it('goes round by weight, smoothly', () => {
    const balancer = new Balancer(
      'ROUND_ROBIN',
      hosts(2, (i) => ({ weight: i === 0 ? 3 : 1 })),
    )
    expect(Array.from({ length: 8 }, () => balancer.pick(all, sequence())).join('')).toBe('00100010')
  })

  it('takes the less loaded of two', () => {
    const balancer = new Balancer('LEAST_REQUEST', hosts(2))
    const random = sequence()
    const counts = [0, 0]
    for (let i = 0; i < 400; i++) {
      const chosen = balancer.pick({ usable: () => true, active: (j) => (j === 0 ? 10 : 0) }, random)
      counts[chosen] = (counts[chosen] as number) + 1
    }
    // The loaded one only when both draws hit it: a quarter.
    expect(counts[0]).toBeGreaterThan(60)
    expect(counts[0]).toBeLessThan(140)
  })

  it('spreads at random by weight', () => {
    const balancer = new Balancer(
      'RANDOM',
      hosts(2, (i) => ({ weight: i === 0 ? 4 : 1 })),
    )
    const random = sequence(7)
    let first = 0
    for (let i = 0; i < 5000; i++) if (balancer.pick(all, random) === 0) first++
    // 5 sigma of a binomial with p = 0.8 and n = 5000.
    expect(Math.abs(first - 4000)).toBeLessThan(5 * Math.sqrt(5000 * 0.8 * 0.2))
  })

  it('leaves the nearest only while none of them is usable', () => {
    const balancer = new Balancer(
      'RANDOM',
      hosts(4, (i) => ({ rank: i < 2 ? 0 : 1 })),
    )
    const random = sequence(3)
    for (let i = 0; i < 50; i++) expect(balancer.pick(all, random)).toBeLessThan(2)
    for (let i = 0; i < 50; i++) expect(balancer.pick({ ...all, usable: (j) => j >= 1 }, random)).toBe(1)
    for (let i = 0; i < 50; i++) expect(balancer.pick({ ...all, usable: (j) => j >= 2 }, random)).toBeGreaterThan(1)
  })

  it('avoids hosts that were tried, unless there is no other', () => {
    const balancer = new Balancer('ROUND_ROBIN', hosts(2))
    expect(balancer.pick(all, sequence(), [0])).toBe(1)
    const one = new Balancer('ROUND_ROBIN', hosts(1))
    expect(one.pick(all, sequence(), [0])).toBe(0)
  })

  it('gives a usable host whenever there is one, and −1 otherwise', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Algorithm>('ROUND_ROBIN', 'LEAST_REQUEST', 'RANDOM', 'PASSTHROUGH'),
        fc.array(fc.record({ usable: fc.boolean(), weight: fc.integer({ min: 1, max: 5 }), rank: fc.nat(2) }), {
          maxLength: 8,
        }),
        fc.integer({ min: 1, max: 1_000_000 }),
        (algorithm, given, seed) => {
          const sorted = [...given].sort((a, b) => a.rank - b.rank)
          const balancer = new Balancer(
            algorithm,
            hosts(sorted.length, (i) => ({ ...sorted[i] })),
          )
          const state: HostStates = { usable: (i) => sorted[i]?.usable ?? false, active: (i) => i }
          const random = sequence(seed)
          for (let i = 0; i < 5; i++) {
            const chosen = balancer.pick(state, random)
            const first = sorted.find((host) => host.usable)
            if (!first) expect(chosen).toBe(-1)
            else expect(sorted[chosen]).toMatchObject({ usable: true, rank: first.rank })
          }
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('candidates', () => {
  const key = 'default/backend.default.svc.cluster.local'
  const pod = (name: string, given = {}) =>
    sampleWorkload({ name, addresses: [`10.0.0.${name.length}`], services: { [key]: { 80: 9000 } }, ...given })
  it('are healthy, of the subset, near first', () => {
    const state = new MeshState()
    const service = sampleService({ name: 'backend', routingPreference: ['NODE'], loadBalancing: 'FAILOVER' })
    state.setService(service)
    state.setWorkload(pod('a', { labels: { version: 'v1' }, node: 'far' }))
    state.setWorkload(pod('bb', { labels: { version: 'v1' } }))
    state.setWorkload(pod('ccc', { labels: { version: 'v2' } }))
    state.setWorkload(pod('dddd', { labels: { version: 'v1' }, healthy: false }))
    const client = sampleWorkload({ name: 'wp' })
    const list = listCandidates(state, service, 80, { subset: { version: 'v1' }, client })
    expect(list.map((one) => [one.workload.name, one.port, one.rank])).toEqual([
      ['bb', 9000, 0],
      ['a', 9000, 1],
    ])
    expect(listCandidates(state, service, 80, { subset: { version: 'v9' }, client })).toEqual([])
    const strict = { ...service, loadBalancing: 'STRICT' as const }
    expect(
      listCandidates(state, strict, 80, { subset: { version: 'v1' }, client }).map((one) => one.workload.name),
    ).toEqual(['bb'])
  })
})

describe('OutlierDetector', () => {
  const settings: OutlierDetection = {
    consecutive5xxErrors: 3,
    consecutiveGatewayErrors: 0,
    splitExternalLocalOriginErrors: false,
    consecutiveLocalOriginFailures: 5,
    intervalMs: 10_000,
    baseEjectionTimeMs: 30_000,
    maxEjectionPercent: 50,
    minHealthPercent: 0,
  }
  const detector = (given: Partial<OutlierDetection> = {}, count = 4) => {
    const made = new OutlierDetector({ ...settings, ...given })
    made.sync(Array.from({ length: count }, (_, i) => `h${i}`))
    const host = (i: number) => made.host(`h${i}`) as NonNullable<ReturnType<typeof made.host>>
    const fail = (i: number, times: number, now = 0, status = 500) => {
      let ejected = false
      for (let n = 0; n < times; n++) ejected = made.onResponse(host(i), status, now)
      return ejected
    }
    return { made, host, fail }
  }

  it('ejects at the threshold of consecutive errors; a success starts the count again', () => {
    const { made, host, fail } = detector()
    expect(fail(0, 2)).toBe(false)
    made.onResponse(host(0), 200, 0)
    expect(fail(0, 2)).toBe(false)
    expect(fail(0, 1)).toBe(true)
    expect(made.usable(host(0))).toBe(false)
    expect(made.usable(host(1))).toBe(true)
  })

  it('takes a host back after its time, which grows with every ejection and shrinks while it is healthy', () => {
    const { made, host, fail } = detector()
    fail(0, 3, 0)
    expect(made.sweep(29_999)).toEqual([])
    expect(made.sweep(30_000)).toEqual(['h0'])
    fail(0, 3, 40_000)
    expect(made.sweep(99_999)).toEqual([])
    expect(made.sweep(100_000)).toEqual(['h0'])
    made.sweep(110_000)
    made.sweep(120_000)
    expect(host(0).ejections).toBe(0)
    fail(0, 3, 130_000)
    expect(made.sweep(160_000)).toEqual(['h0'])
  })

  it('ejects no more than the share, but one in any case', () => {
    const { made, fail } = detector({ maxEjectionPercent: 50 })
    expect([fail(0, 3), fail(1, 3), fail(2, 3)]).toEqual([true, true, false])
    expect(made.ejected).toBe(2)
    expect(detector({ maxEjectionPercent: 10 }).fail(0, 3)).toBe(true)
    expect(detector({ maxEjectionPercent: 0 }, 1).fail(0, 3)).toBe(true)
  })

  it('can have all hosts out, unless minHealthPercent sets it aside', () => {
    const { made, host, fail } = detector({ maxEjectionPercent: 100 }, 2)
    fail(0, 3)
    fail(1, 3)
    expect([made.usable(host(0)), made.usable(host(1))]).toEqual([false, false])
    const low = detector({ maxEjectionPercent: 100, minHealthPercent: 60 }, 2)
    low.fail(0, 3)
    expect(low.made.usable(low.host(0))).toBe(true)
  })

  it('counts gateway errors by themselves', () => {
    const { fail } = detector({ consecutive5xxErrors: 0, consecutiveGatewayErrors: 2 })
    expect(fail(0, 5, 0, 500)).toBe(false)
    expect(fail(0, 1, 0, 503)).toBe(false)
    expect(fail(0, 1, 0, 500)).toBe(false)
    expect(fail(0, 2, 0, 502)).toBe(true)
  })

  it('counts what did not answer as 5xx, or apart where it is told so', () => {
    const { made, host } = detector()
    expect([1, 2, 3].map(() => made.onLocalFailure(host(0), 'connect', 0))).toEqual([false, false, true])
    const split = detector({ splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2 })
    expect(split.made.onLocalFailure(split.host(0), 'timeout', 0)).toBe(false)
    split.made.onResponse(split.host(0), 200, 0)
    expect(split.made.onLocalFailure(split.host(0), 'reset', 0)).toBe(false)
    expect(split.made.onLocalFailure(split.host(0), 'reset', 0)).toBe(true)
  })

  it('forgets hosts that are gone and keeps the others', () => {
    const { made, fail } = detector()
    fail(0, 3)
    fail(1, 3)
    made.sync(['h1', 'h9'])
    expect(made.ejected).toBe(1)
    expect(made.host('h0')).toBeUndefined()
    expect(made.host('h1')?.ejected).toBe(true)
  })

  it('never ejects more than the share allows, whatever comes', () => {
    const event = fc.record({ host: fc.nat(9), status: fc.constantFrom(200, 500, 503), wait: fc.nat(20_000) })
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200 }), fc.integer({ min: 0, max: 100 }), (events, percent) => {
        const { made, host } = detector({ consecutive5xxErrors: 1, maxEjectionPercent: percent }, 10)
        let now = 0
        for (const { host: i, status, wait } of events) {
          now += wait
          made.onResponse(host(i), status, now)
          if (wait > 10_000) made.sweep(now)
          expect(made.ejected).toBeLessThanOrEqual(Math.max(1, Math.floor(percent / 10)))
        }
      }),
    )
  })

  it('maps gRPC statuses as Envoy does', () => {
    expect([0, 1, 4, 5, 7, 8, 12, 14, 16, 99].map(grpcToHttpStatus)).toEqual([
      200, 499, 504, 404, 403, 429, 501, 503, 401, 500,
    ])
  })
})

describe('trafficPolicyOf', () => {
  const upstream = sampleUpstream({
    policy: { loadBalancer: 'RANDOM', connectionPool: { maxConnections: 1 } },
    portPolicies: { 81: { connectionPool: { maxConnections: 2 } } },
    subsets: [{ name: 'v1', labels: {}, policy: { loadBalancer: 'ROUND_ROBIN' }, source: sampleSource }],
  })
  it('lets a port replace the whole and a subset override by section', () => {
    expect(trafficPolicyOf(upstream, undefined, 80)).toBe(upstream.policy)
    expect(trafficPolicyOf(upstream, undefined, 81)).toEqual({ connectionPool: { maxConnections: 2 } })
    expect(trafficPolicyOf(upstream, subsetOf(upstream, 'v1'), 80)).toEqual({
      loadBalancer: 'ROUND_ROBIN',
      connectionPool: { maxConnections: 1 },
    })
    expect(trafficPolicyOf(undefined, undefined, 80)).toEqual({})
    expect(subsetOf(upstream, 'v2')).toBeUndefined()
  })
})

describe('retries', () => {
  const policy = (retryOn: string[], given = {}) =>
    compileRetry({ attempts: 3, retryOn, statusCodes: [], backoffMs: 25, ignorePreviousHosts: true, ...given })

  it('are Istio’s by default: twice, never on a plain status', () => {
    const retry = compileRetry(undefined)
    expect(retry).toMatchObject({ attempts: 2, backoffMs: 25, ignorePreviousHosts: true })
    expect(retry.failures).toEqual({
      connect: true,
      refused: true,
      reset: false,
      'reset-before-request': false,
      timeout: false,
    })
    expect([500, 503].map((status) => retriesStatus(retry, status, -1, false))).toEqual([false, false])
    expect([1, 14, 13].map((code) => retriesStatus(retry, 200, code, false))).toEqual([true, true, false])
  })

  it.each<[string, number, number, boolean, boolean]>([
    ['5xx', 500, -1, false, true],
    ['5xx', 499, -1, false, false],
    ['gateway-error', 503, -1, false, true],
    ['gateway-error', 500, -1, false, false],
    ['retriable-4xx', 409, -1, false, true],
    ['retriable-4xx', 404, -1, false, false],
    ['503', 503, -1, false, true],
    ['5xx', 503, -1, true, false],
    ['envoy-ratelimited', 429, -1, true, true],
    ['deadline-exceeded', 200, 4, false, true],
    ['resource-exhausted', 200, 8, false, true],
    ['internal', 200, 13, false, true],
  ])('on %s: status %i, gRPC %i, rate limited %s', (word, status, grpc, limited, expected) => {
    expect(retriesStatus(policy([word]), status, grpc, limited)).toBe(expected)
  })

  it('cover every failure without an answer under 5xx and reset', () => {
    for (const word of ['5xx', 'reset']) expect(Object.values(policy([word]).failures).every(Boolean)).toBe(true)
    expect(policy(['connect-failure']).failures).toMatchObject({ connect: true, refused: false, reset: false })
  })

  it('wait at random within a step that doubles up to ten times the base', () => {
    expect([1, 2, 3, 4, 50].map((n) => retryDelay(25, n, () => 1))).toEqual([25, 75, 175, 250, 250])
    expect(retryDelay(25, 3, () => 0)).toBe(0)
  })
})

describe('weights', () => {
  it('choose by share', () => {
    const weights = compileWeights([80, 0, 20])
    expect([0, 0.79, 0.8, 0.999].map((at) => pickWeighted(weights, () => at))).toEqual([0, 0, 2, 2])
  })

  it('do not matter for a single destination, and choose none when all are zero', () => {
    expect(pickWeighted(compileWeights([0]), () => 0.5)).toBe(0)
    expect(pickWeighted(compileWeights([0, 0]), () => 0.5)).toBe(-1)
    expect(pickWeighted(compileWeights([]), () => 0.5)).toBe(-1)
  })
})
