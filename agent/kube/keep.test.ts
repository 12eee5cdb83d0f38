import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Interner, keep } from './keep.ts'
import { CONFIG_KINDS, ENDPOINT_SLICES, NAMESPACES, PODS, projectionOf, SERVICES } from './mesh-kinds.ts'
import type { KubeObject } from './resource.ts'
import { same } from './same.ts'

const POD = {
  metadata: {
    name: 'web-1',
    namespace: 'shop',
    uid: 'u',
    resourceVersion: '5',
    labels: { app: 'web' },
    annotations: {
      'kubectl.kubernetes.io/restartedAt': 'now',
      'sidecar.istio.io/status': '{}',
      'ambit.io/dataplane-mode': 'none',
      'prometheus.io/scrape': 'true',
      'notistio.io/x': 'y',
      'kubernetes.io/config.hash': 'hash',
      'kubernetes.io/config.seen': 'now',
    },
    managedFields: [{ manager: 'kubelet' }],
    ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid: 'r', controller: true }],
  },
  spec: {
    nodeName: 'node-1',
    serviceAccountName: 'web',
    volumes: [{ name: 'token' }],
    containers: [
      { name: 'web', image: 'web:1', env: [{ name: 'A', value: 'b' }], ports: [{ name: 'http', containerPort: 8080 }] },
    ],
  },
  status: {
    phase: 'Running',
    podIPs: [{ ip: '10.0.0.1' }],
    startTime: 'now',
    conditions: [
      { type: 'Initialized', status: 'True' },
      { type: 'Ready', status: 'True', lastTransitionTime: 'now' },
    ],
    containerStatuses: [{ restartCount: 3, containerID: 'containerd://c' }],
  },
} as const

describe('what is kept of an object', () => {
  it('is what the mesh reads of a pod, and nothing else', () => {
    expect(projectionOf(PODS)(POD)).toEqual({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: 'web-1',
        namespace: 'shop',
        uid: 'u',
        labels: { app: 'web' },
        annotations: {
          'sidecar.istio.io/status': '{}',
          'ambit.io/dataplane-mode': 'none',
          'kubernetes.io/config.hash': 'hash',
        },
        ownerReferences: [{ kind: 'ReplicaSet', name: 'web', controller: true }],
      },
      spec: {
        nodeName: 'node-1',
        serviceAccountName: 'web',
        containers: [{ name: 'web', ports: [{ name: 'http', containerPort: 8080 }] }],
      },
      status: {
        phase: 'Running',
        podIPs: [{ ip: '10.0.0.1' }],
        conditions: [{ type: 'Ready', status: 'True' }],
        containerStatuses: [{ containerID: 'containerd://c' }],
      },
    })
  })

  it('is the same object for a pod whose status says something else that nobody reads', () => {
    const project = projectionOf(PODS)
    const states = [{ restartCount: 4, ready: true, containerID: 'containerd://c' }]
    const after = { ...POD, status: { ...POD.status, startTime: 'later', containerStatuses: states } }
    expect(same(project(POD), project(after))).toBe(true)
  })

  it('is the whole spec of what people write for the mesh', () => {
    const [virtualService] = CONFIG_KINDS
    const object = {
      metadata: {
        name: 'web',
        generation: 3,
        annotations: { 'kubectl.kubernetes.io/last-applied-configuration': '{…}', note: 'of a person' },
      },
      spec: { hosts: ['web'], http: [{ route: [] }] },
    }
    expect(projectionOf(virtualService!)(object)).toEqual({
      apiVersion: 'networking.istio.io/v1',
      kind: 'VirtualService',
      metadata: { name: 'web', generation: 3, annotations: { note: 'of a person' } },
      spec: object.spec,
    })
  })

  it('is never wrong-shaped, whatever a server sends', () => {
    for (const resource of [PODS, SERVICES, ENDPOINT_SLICES, NAMESPACES, ...CONFIG_KINDS]) {
      const project = projectionOf(resource)
      fc.assert(
        fc.property(
          fc.dictionary(fc.constantFrom('metadata', 'spec', 'status', 'endpoints', 'ports'), fc.jsonValue()),
          (value) => {
            const before = JSON.stringify(value)
            const kept = project(value as unknown as KubeObject)
            expect(kept.kind).toBe(resource.kind)
            expect(JSON.stringify(value)).toBe(before)
          },
        ),
        { numRuns: 100 },
      )
    }
  })

  it('shares equal label sets and strings among objects', () => {
    const project = projectionOf(PODS)
    const copy = (): KubeObject => JSON.parse(JSON.stringify(POD)) as KubeObject
    const [a, b] = [project(copy()), project(copy())]
    expect(a.metadata.labels).toBe(b.metadata.labels)
    expect(a.metadata).not.toBe(b.metadata)
  })

  it('leaves out what nothing is kept of', () => {
    expect(keep({ a: { b: 1 }, c: [] }, { a: { x: true }, c: true })).toEqual({ c: [] })
    expect(keep({ a: { b: 1 } }, { a: { x: true } })).toBeUndefined()
    expect(keep({ list: 'not a list' }, { list: [true] })).toBeUndefined()
    expect(new Interner().record()({})).toBeUndefined()
  })
})

describe('whether two values say the same', () => {
  it('holds exactly when their JSON does, but for the order of fields', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
        expect(same(a, structuredClone(a))).toBe(true)
        expect(same(a, b)).toBe(same(b, a))
        if (JSON.stringify(a) === JSON.stringify(b))
          expect(same(a, b) || Object.is(a, -0) || Object.is(b, -0)).toBe(true)
      }),
    )
    expect(same({ a: 1, b: 2 }, { b: 2, a: 1 })).toBe(true)
    expect(same({ a: undefined }, { b: undefined })).toBe(false)
    expect(same([1], { 0: 1, length: 1 })).toBe(false)
  })
})
