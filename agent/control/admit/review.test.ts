import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Problem } from '../../config/problem.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { review as judge, type AdmissionRequest, type AdmissionResponse, type Knowledge } from './review.ts'

const held = {
  get: (resource: Resource, _: string, name: string): KubeObject | undefined =>
    resource.kind === 'GatewayClass' && name === 'istio-waypoint'
      ? ({ metadata: { name }, spec: { controllerName: 'istio.io/mesh-controller' } } as KubeObject)
      : undefined,
}
const nothing: Knowledge = { held, missing: () => [] }
const review = (request: AdmissionRequest, knowledge = nothing): AdmissionResponse => judge(request, knowledge)

const service = (destination: object, more: object = {}): object => ({
  apiVersion: 'networking.istio.io/v1',
  kind: 'VirtualService',
  metadata: { name: 'reviews', namespace: 'shop', ...more },
  spec: { hosts: ['reviews'], http: [{ route: [{ destination }] }] },
})

describe('an admission review', () => {
  it('allows what is good, also when it refers to what is not there yet', () => {
    expect(review({ uid: 'u', object: service({ host: 'not-there-yet' }) })).toEqual({ uid: 'u', allowed: true })
  })

  it('refuses what is bad, with the field and the fix, in the message and as causes', () => {
    const { allowed, status } = review({ uid: 'u', object: service({ hots: 'reviews' }) })
    expect(allowed).toBe(false)
    expect(status).toMatchObject({ code: 422, reason: 'Invalid', details: { name: 'reviews', kind: 'VirtualService' } })
    expect(status?.message).toMatch(/^VirtualService shop\/reviews: spec\.http\[0\]\.route\[0\]\.destination/)
    expect(status?.details.causes.map((one) => one.field)).toContain('spec.http[0].route[0].destination.hots')
  })

  it('warns of what has no effect', () => {
    const object = {
      ...service({ host: 'reviews' }),
      spec: {
        hosts: ['reviews'],
        exportTo: ['.'],
        http: [{ route: [{ destination: { host: 'reviews' } }], mirror: { host: 'x' } }],
      },
    }
    const answer = review({ uid: 'u', object })
    expect(answer.allowed).toBe(true)
    expect(answer.warnings?.join('\n')).toMatch(/spec\.http\[0\]\.mirror/)
    for (const one of answer.warnings ?? []) expect(Buffer.byteLength(one)).toBeLessThanOrEqual(256)
  })

  it('lets a bad one that is there already be touched otherwise, and be deleted', () => {
    const bad = service({ hots: 'reviews' })
    const touched = service({ hots: 'reviews' }, { finalizers: ['a'] })
    expect(review({ uid: 'u', object: touched, oldObject: bad })).toMatchObject({ allowed: true })
    const going = service({ hots: 'reviews' }, { deletionTimestamp: '2030-01-01T00:00:00Z' })
    expect(review({ uid: 'u', object: going, oldObject: service({ host: 'reviews' }) })).toMatchObject({
      allowed: true,
    })
  })

  it.each<[string, string, string, object]>([
    ['kinds that are none of the mesh', 'example.com/v1', 'Thing', {}],
    ['kinds of its groups that it does not read', 'networking.istio.io/v1alpha3', 'EnvoyFilter', { spec: 3 }],
    ['routes that another controller has', 'gateway.networking.k8s.io/v1', 'GRPCRoute', { spec: 3 }],
    ['versions it does not know', 'gateway.networking.k8s.io/v1alpha2', 'HTTPRoute', { spec: 3 }],
    ['classes of others', 'gateway.networking.k8s.io/v1', 'GatewayClass', { spec: { controllerName: 'a/b', new: 1 } }],
    ['Gateways of others', 'gateway.networking.k8s.io/v1', 'Gateway', { spec: { gatewayClassName: 'nginx', new: 1 } }],
    [
      'waypoints of a class that is Istio’s here',
      'gateway.networking.k8s.io/v1',
      'Gateway',
      { spec: { gatewayClassName: 'istio-waypoint', new: 1 } },
    ],
    [
      'routes of others’ Gateways',
      'gateway.networking.k8s.io/v1',
      'HTTPRoute',
      { spec: { parentRefs: [{ name: 'web', namespace: 'edge' }], new: 1 } },
    ],
  ])('has nothing to say of %s', (_, apiVersion, kind, more) => {
    const object = { apiVersion, kind, metadata: { name: 'x', namespace: 'shop' }, ...more }
    expect(review({ uid: 'u', object })).toEqual({ uid: 'u', allowed: true })
  })

  it.each<[string, string, string, object, string]>([
    ['a policy', 'security.istio.io/v1', 'AuthorizationPolicy', { spec: { action: 'ALOW' } }, 'spec.action'],
    [
      'one in an older version',
      'security.istio.io/v1beta1',
      'PeerAuthentication',
      { spec: { mtls: { mode: 'ON' } } },
      'spec.mtls.mode',
    ],
    ['a rule', 'networking.istio.io/v1', 'DestinationRule', { spec: {} }, 'spec.host'],
    [
      'a route of a Service',
      'gateway.networking.k8s.io/v1',
      'HTTPRoute',
      {
        spec: {
          parentRefs: [{ group: '', kind: 'Service', name: 'a' }],
          rules: [{ matches: [{ path: { value: 'x' } }] }],
        },
      },
      'spec.rules[0].matches[0].path.value',
    ],
    [
      'a waypoint',
      'gateway.networking.k8s.io/v1',
      'Gateway',
      { spec: { gatewayClassName: 'ambit-waypoint', listeners: [{ name: 'mesh', port: 15_009, protocol: 'HBONE' }] } },
      'spec.listeners[0].port',
    ],
    [
      'a profile',
      'linkerd.io/v1alpha2',
      'ServiceProfile',
      { spec: { routes: [{ name: 'a', condition: { pathRegex: '(' } }] } },
      'spec.routes[0].condition.pathRegex',
    ],
  ])('refuses %s by its field', (_, apiVersion, kind, more, field) => {
    const object = { apiVersion, kind, metadata: { name: 'x', namespace: 'shop' }, ...more }
    const { allowed, status } = review({ uid: 'u', object })
    expect(allowed).toBe(false)
    expect(status?.details.causes.map((one) => one.field)).toContain(field)
    expect(status?.message).toContain(`${field}: `)
  })

  it('takes name and namespace from the request where the object does not have them yet', () => {
    const object = { ...service({ host: 'reviews' }), metadata: { generateName: 'reviews-' } }
    const asked: string[] = []
    const missing: Knowledge['missing'] = ({ metadata }) => (asked.push(`${metadata.namespace}/${metadata.name}`), [])
    expect(review({ uid: 'u', namespace: 'shop', object }, { held, missing })).toEqual({ uid: 'u', allowed: true })
    expect(asked).toEqual(['shop/reviews-x'])
  })

  it('warns of what is referred to and is not there, and refuses nothing for it', () => {
    const missing: readonly Problem[] = [
      {
        severity: 'error',
        code: 'CONFIG_UNKNOWN_HOST',
        file: '',
        line: 0,
        field: 'spec.http[0].route[0].destination.host',
        message: 'There is none.',
        hint: 'Did you mean reviews?',
      },
    ]
    const answer = review({ uid: 'u', object: service({ host: 'revews' }) }, { held, missing: () => missing })
    expect(answer).toEqual({
      uid: 'u',
      allowed: true,
      warnings: ['spec.http[0].route[0].destination.host: There is none. Did you mean reviews? [CONFIG_UNKNOWN_HOST]'],
    })
  })

  it('answers anything at all, and keeps the uid', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (object, oldObject) => {
        const ours = {
          apiVersion: 'gateway.networking.k8s.io/v1',
          kind: 'HTTPRoute',
          metadata: object,
          spec: oldObject,
        }
        for (const one of [object, ours]) expect(review({ uid: 'u', object: one, oldObject }).uid).toBe('u')
      }),
    )
  })
})
