// A translation that remembers the one before says the same as one that knows nothing, whatever changed in between.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Memory } from './memory.ts'
import { ObjectStore } from './object-store.ts'
import { translate } from './translate.ts'

const NAMESPACES = ['shop', 'other'] as const
const NAMES = ['a', 'b', 'wp'] as const

interface Edit {
  readonly id: string
  /** undefined: it is gone. */
  readonly object: object | undefined
}

const namespace = fc.constantFrom(...NAMESPACES)
const name = fc.constantFrom(...NAMES)
const some = <T>(...values: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...values)

/** Labels that steer the mesh, good and bad. */
const steering = fc
  .record({
    'istio.io/dataplane-mode': some('ambient', 'none', 'wrong', undefined),
    'istio.io/use-waypoint': some('wp', 'none', 'missing', undefined),
    'ambit.io/same-node': some('tunnel', 'wrong', undefined),
    app: some(...NAMES, undefined),
  })
  .map((labels) => Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== undefined)))

function edit(
  apiVersion: string,
  kind: string,
  place: fc.Arbitrary<readonly [string, string]>,
  labels: fc.Arbitrary<object>,
  body: fc.Arbitrary<object>,
): fc.Arbitrary<Edit> {
  return fc.tuple(place, labels, body, fc.integer({ min: 0, max: 4 })).map(([[where, called], has, rest, gone]) => ({
    id: `${kind}/${where}/${called}`,
    object:
      gone === 0
        ? undefined
        : {
            apiVersion,
            kind,
            metadata: {
              ...(where ? { namespace: where } : {}),
              name: called,
              uid: `${kind}-${where}-${called}`,
              labels: has,
              creationTimestamp: '2026-01-01T00:00:00Z',
            },
            ...rest,
          },
  }))
}
const placed = fc.tuple(namespace, name)
const none = fc.constant({})
const POD_ADDRESS: Readonly<Record<string, number>> = { a: 1, b: 2, wp: 3 }

const edits = fc.oneof(
  {
    weight: 2,
    arbitrary: edit(
      'v1',
      'Namespace',
      namespace.map((one) => ['', one] as const),
      steering,
      none,
    ),
  },
  {
    weight: 1,
    arbitrary: edit(
      'v1',
      'Node',
      some('n1', 'n2').map((one) => ['', one] as const),
      some('x', 'y').map((zone) => ({ 'topology.kubernetes.io/zone': zone })),
      none,
    ),
  },
  {
    weight: 6,
    arbitrary: edit(
      'v1',
      'Pod',
      placed,
      steering,
      fc
        .record({ node: some('n1', 'n2'), ready: fc.boolean(), phase: some('Running', 'Failed'), ip: name })
        .map(({ node, ready, phase, ip }) => ({
          spec: { nodeName: node, containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 8080 }] }] },
          status: {
            phase,
            podIPs: [{ ip: `10.0.0.${POD_ADDRESS[ip]}` }],
            conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
          },
        })),
    ),
  },
  {
    weight: 4,
    arbitrary: edit(
      'v1',
      'Service',
      placed,
      steering,
      fc
        .record({
          app: some(...NAMES, undefined),
          port: some(80, 81),
          target: some<string | number>('http', 8080, 'none'),
        })
        .map(({ app, port, target }) => ({
          spec: {
            clusterIP: '10.1.0.1',
            ports: [{ name: 'http', port, targetPort: target }],
            ...(app ? { selector: { app } } : {}),
          },
        })),
    ),
  },
  {
    weight: 4,
    arbitrary: fc.tuple(placed, name).chain(([[where, called], of]) =>
      edit(
        'discovery.k8s.io/v1',
        'EndpointSlice',
        fc.constant([where, called] as const),
        fc.constant({ 'kubernetes.io/service-name': of }),
        fc.tuple(some('http', 'other'), fc.array(fc.tuple(name, fc.boolean()), { maxLength: 3 })).map(([port, to]) => ({
          addressType: 'IPv4',
          ports: [{ name: port, port: 8080 }],
          endpoints: to.map(([pod, refers]) => ({
            addresses: [`10.0.0.${POD_ADDRESS[pod]! + (refers ? 0 : 7 * (pod === 'a' ? 1 : 0))}`],
            ...(refers ? { targetRef: { kind: 'Pod', name: pod, namespace: where } } : {}),
          })),
        })),
      ),
    ),
  },
  {
    weight: 2,
    arbitrary: edit(
      'gateway.networking.k8s.io/v1',
      'Gateway',
      namespace.map((where) => [where, 'wp'] as const),
      some('service', 'workload', 'all').map((value) => ({ 'istio.io/waypoint-for': value })),
      some('All', 'Same').map((from) => ({
        spec: {
          gatewayClassName: 'istio-waypoint',
          listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE', allowedRoutes: { namespaces: { from } } }],
        },
      })),
    ),
  },
  {
    weight: 2,
    arbitrary: edit(
      'security.istio.io/v1',
      'AuthorizationPolicy',
      placed,
      none,
      fc.tuple(some('DENY', 'ALLOW', 'AUDIT', 'WRONG'), some(...NAMES)).map(([action, app]) => ({
        spec: { action, selector: { matchLabels: { app } }, rules: [{ to: [{ operation: { ports: ['80'] } }] }] },
      })),
    ),
  },
  {
    weight: 1,
    arbitrary: edit(
      'security.istio.io/v1',
      'PeerAuthentication',
      placed,
      none,
      some('STRICT', 'PERMISSIVE').map((mode) => ({ spec: { mtls: { mode } } })),
    ),
  },
  {
    weight: 1,
    arbitrary: edit(
      'v1',
      'ConfigMap',
      fc.constant(['ambit-system', 'istio'] as const),
      none,
      some('trustDomain: a.example', 'sameNode: tunnel', 'trustDomain: [').map((mesh) => ({ data: { mesh } })),
    ),
  },
)

describe('a translation with a memory', () => {
  it('says what one without would say, after every change', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(edits, { minLength: 1, maxLength: 3 }), { minLength: 5, maxLength: 40 }),
        (batches) => {
          const store = new ObjectStore()
          const memory = new Memory()
          for (const batch of batches) {
            for (const { id, object } of batch)
              if (object) store.set(id, object)
              else store.delete(id)
            const state = store.state()
            expect(translate(state, memory)).toEqual(translate(state))
          }
        },
      ),
      { numRuns: 150 },
    )
  })

  it('gives the same objects for what did not change', () => {
    const store = new ObjectStore()
    const memory = new Memory()
    const meta = (where: string, called: string, labels: object = {}) => ({
      namespace: where,
      name: called,
      uid: called,
      labels,
    })
    const pod = (called: string, phase: string, labels: object) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: meta('shop', called, labels),
      spec: { nodeName: 'n1', containers: [{ name: 'c' }] },
      status: { phase, podIPs: [{ ip: `10.0.0.${called.length}` }] },
    })
    store.set('ns', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } })
    store.set('svc', {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: meta('shop', 'web'),
      spec: { ports: [{ port: 80 }], selector: { app: 'web' } },
    })
    store.set('slice', {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: meta('shop', 'web-1', { 'kubernetes.io/service-name': 'web' }),
      addressType: 'IPv4',
      ports: [{ port: 8080 }],
      endpoints: [{ addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', name: 'a' } }],
    })
    store.set('policy', {
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: meta('shop', 'p'),
      spec: { selector: { matchLabels: { app: 'web' } } },
    })
    store.set('a', pod('a', 'Running', { app: 'web' }))
    store.set('bb', pod('bb', 'Running', { app: 'web' }))
    const before = translate(store.state(), memory)
    store.set('bb', pod('bb', 'Pending', { app: 'web' }))
    const after = translate(store.state(), memory)
    expect(before.workloads[0]).toMatchObject({ name: 'a', authorizationPolicies: ['shop/p'] })
    expect(after.workloads[0]).toBe(before.workloads[0])
    expect(after.workloads[1]).not.toBe(before.workloads[1])
    expect(after.pods[0]).toBe(before.pods[0])
    expect(after.services[0]).toBe(before.services[0])
  })
})
