import { describe, expect, it } from 'vitest'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import { GATEWAY_API, isOurs } from './ours.ts'

const held = {
  get: (resource: Resource, namespace: string, name: string): KubeObject | undefined =>
    (
      ({
        'GatewayClass/istio-waypoint': { spec: { controllerName: 'istio.io/mesh-controller' } },
        'GatewayClass/nginx': { spec: { controllerName: 'nginx.org/gateway' } },
        'Gateway/shop/waypoint': { spec: { gatewayClassName: 'ambit-waypoint' } },
        'Gateway/shop/of-istio': { spec: { gatewayClassName: 'istio-waypoint' } },
        'Gateway/edge/web': { spec: { gatewayClassName: 'nginx' } },
      }) as unknown as Record<string, KubeObject>
    )[[resource.kind, ...(namespace ? [namespace] : []), name].join('/')],
}

const route = (...parentRefs: object[]) => ({ metadata: { namespace: 'shop', name: 'r' }, spec: { parentRefs } })

describe('an object of Gateway API is Ambit’s to judge', () => {
  it.each<[string, string, object, boolean]>([
    ['a class of its controller', 'GatewayClass', { spec: { controllerName: 'ambit.io/gateway-controller' } }, true],
    ['not: a class of another', 'GatewayClass', { spec: { controllerName: 'nginx.org/gateway' } }, false],
    ['not: a class of nobody', 'GatewayClass', {}, false],
    ['a waypoint', 'Gateway', { spec: { gatewayClassName: 'ambit-waypoint' } }, true],
    [
      'not: a waypoint of a class that is Istio’s here',
      'Gateway',
      { spec: { gatewayClassName: 'istio-waypoint' } },
      false,
    ],
    ['not: a Gateway of another class', 'Gateway', { spec: { gatewayClassName: 'nginx' } }, false],
    ['not: what is no Gateway at all', 'Gateway', { spec: 3 }, false],
    ['a route of a Service', 'HTTPRoute', route({ group: '', kind: 'Service', name: 'reviews' }), true],
    [
      'a route of a Service and of others',
      'HTTPRoute',
      route({ name: 'web', namespace: 'edge' }, { kind: 'Service' }),
      true,
    ],
    ['a route of a waypoint', 'HTTPRoute', route({ name: 'waypoint' }), true],
    ['not: a route of an ingress', 'HTTPRoute', route({ name: 'web', namespace: 'edge' }), false],
    ['not: a route of a waypoint of Istio', 'HTTPRoute', route({ name: 'of-istio' }), false],
    ['not: a route of a Gateway that is not there', 'HTTPRoute', route({ name: 'x' }), false],
    ['not: a route of nothing', 'HTTPRoute', { metadata: {}, spec: { parentRefs: [null, 3] } }, false],
    ['a grant', 'ReferenceGrant', {}, true],
  ])('%s', (_, kind, object, wanted) => {
    expect(isOurs(GATEWAY_API, kind, object, held)).toBe(wanted)
  })

  it('and so is all that Istio and Linkerd have', () => {
    expect(isOurs('networking.istio.io', 'Gateway', {}, held)).toBe(true)
  })
})
