import { describe, expect, it } from 'vitest'
import type { Translation, WaypointGateway } from '../../config/translation.ts'
import type { Policy } from '../../mesh/policy.ts'
import {
  samplePolicy,
  sampleRoute,
  sampleService,
  sampleSource,
  sampleUpstream,
  sampleWorkload,
} from '../../mesh/samples.ts'
import { defaultSettings } from '../../mesh/settings.ts'
import { agentScope, neededBy, WaypointScopes } from './scope.ts'

const gateway = (namespace: string): WaypointGateway => ({
  namespace,
  name: 'waypoint',
  className: 'ambit-waypoint',
  waypointFor: 'all',
  service: `${namespace}/waypoint.${namespace}.svc.cluster.local`,
  serviceAccount: 'waypoint',
  allowedNamespaces: [namespace],
  source: sampleSource,
})
const behind = (namespace: string) => ({ hostname: gateway(namespace).service, port: 15_008 })
const key = (name: string, namespace: string): string => `${namespace}/${name}.${namespace}.svc.cluster.local`
const policy = (name: string, given: Partial<Policy>): Policy => samplePolicy('DENY', {}, { name, ...given })

/** `a` and its route to `far` in another namespace, which has a waypoint of its own. */
const world: Translation = {
  pods: [],
  settings: defaultSettings,
  peerAuthentications: [],
  waypoints: [gateway('shop'), gateway('far')],
  services: [
    sampleService({ name: 'a', namespace: 'shop', waypoint: behind('shop') }),
    sampleService({ name: 'plain', namespace: 'shop' }),
    sampleService({ name: 'waypoint', namespace: 'shop' }),
    sampleService({ name: 'far', namespace: 'far', waypoint: behind('far') }),
    sampleService({ name: 'waypoint', namespace: 'far' }),
    sampleService({ name: 'unrelated', namespace: 'far' }),
  ],
  workloads: [
    sampleWorkload({
      name: 'a-1',
      namespace: 'shop',
      waypoint: behind('shop'),
      services: { [key('a', 'shop')]: { 80: 8080 } },
    }),
    sampleWorkload({
      name: 'far-1',
      namespace: 'far',
      tunnelProtocol: 'NONE',
      services: { [key('far', 'far')]: { 80: 80 } },
    }),
    sampleWorkload({
      name: 'far-waypoint',
      namespace: 'far',
      tunnelProtocol: 'NONE',
      services: { [key('waypoint', 'far')]: { 15_008: 15_008 } },
    }),
    sampleWorkload({ name: 'client', namespace: 'clients' }),
    sampleWorkload({ name: 'outsider', namespace: 'clients', tunnelProtocol: 'NONE' }),
  ],
  routes: [
    sampleRoute(
      [
        {
          name: '',
          matches: [],
          action: {
            type: 'forward',
            destinations: [{ service: key('far', 'far'), host: 'far.far', subset: '', port: 0, weight: 100 }],
          },
          unsupported: [],
          source: sampleSource,
        },
      ],
      { namespace: 'shop', hostname: 'a.shop.svc.cluster.local' },
    ),
    sampleRoute([], { namespace: 'far', hostname: 'unrelated.far.svc.cluster.local' }),
  ],
  upstreams: [
    sampleUpstream({ namespace: 'far', hostname: 'far.far.svc.cluster.local' }),
    sampleUpstream({ namespace: 'far', hostname: 'unrelated.far.svc.cluster.local' }),
  ],
  policies: [
    policy('mesh', { namespace: 'istio-system', scope: 'global' }),
    policy('own', { namespace: 'shop' }),
    policy('rooted', { namespace: 'istio-system', scope: 'workload', selector: { app: 'a' } }),
    policy('theirs', { namespace: 'far' }),
    policy('at-gateway', {
      namespace: 'shop',
      scope: 'target',
      targets: [{ kind: 'Gateway', namespace: 'shop', name: 'waypoint' }],
    }),
    policy('at-service', {
      namespace: 'shop',
      scope: 'target',
      targets: [{ kind: 'Service', namespace: 'shop', name: 'a' }],
    }),
    policy('at-plain', {
      namespace: 'shop',
      scope: 'target',
      targets: [{ kind: 'Service', namespace: 'shop', name: 'plain' }],
    }),
  ],
  problems: [],
}

it('is, for an agent, everything but the pods of other nodes', () => {
  const scope = agentScope('one')
  expect(scope.includes('Address', 'c//Pod/far/far-1')).toBe(true)
  expect(scope.includes('Pod', 'one/uid')).toBe(true)
  expect(scope.includes('Pod', 'two/uid')).toBe(false)
  expect(scope.includes('Pod', 'one-more/uid')).toBe(false)
})

describe('what a waypoint needs', () => {
  const names = neededBy(world, 'shop/waypoint')
  const sorted = (kind: 'Address' | 'Policy' | 'Route' | 'Upstream'): string[] => [...(names.get(kind) ?? [])].sort()

  it('is its services, where their routes lead, the waypoints on that way, and every possible client', () => {
    expect(sorted('Address')).toEqual([
      'c//Pod/clients/client',
      'c//Pod/far/far-1',
      'c//Pod/far/far-waypoint',
      'c//Pod/shop/a-1',
      key('far', 'far'),
      key('waypoint', 'far'),
      key('a', 'shop'),
      key('waypoint', 'shop'),
    ])
  })

  it('is the routes of its services and the upstreams of every destination', () => {
    expect(sorted('Route')).toEqual(['VirtualService/shop/a.shop.svc.cluster.local/*'])
    expect(sorted('Upstream')).toEqual(['far/far.far.svc.cluster.local/*'])
  })

  it('is the policies that can speak about its services and workloads', () => {
    expect(sorted('Policy')).toEqual([
      'istio-system/mesh',
      'istio-system/rooted',
      'shop/at-gateway',
      'shop/at-service',
      'shop/own',
    ])
  })

  it('is nothing for a waypoint without Gateway', () => {
    expect(neededBy(world, 'shop/other').size).toBe(0)
  })
})

describe('the scope of a connected waypoint', () => {
  it('stays the same value while nothing it needs changed, so that streams do not look through everything', () => {
    const scopes = new WaypointScopes()
    scopes.update(world)
    const scope = scopes.of('shop', 'waypoint')
    const before = scope.version()
    scopes.update({ ...world, services: [...world.services, sampleService({ name: 'new', namespace: 'far' })] })
    expect(scope.version()).toBe(before)
    scopes.update({
      ...world,
      services: [...world.services, sampleService({ name: 'new', namespace: 'shop', waypoint: behind('shop') })],
    })
    expect(scope.version()).not.toBe(before)
    expect(scope.includes('Address', key('new', 'shop'))).toBe(true)
  })

  it('keeps a policy for as long as it exists, and everything when the Gateway goes', () => {
    const scopes = new WaypointScopes()
    scopes.update(world)
    const scope = scopes.of('shop', 'waypoint')
    const moved = world.services.map((service) =>
      service.name === 'a' ? sampleService({ name: 'a', namespace: 'shop' }) : service,
    )
    scopes.update({ ...world, services: moved, workloads: [] })
    expect(scope.includes('Address', key('a', 'shop'))).toBe(false)
    expect(scope.includes('Policy', 'shop/at-service')).toBe(true)
    scopes.update({ ...world, waypoints: [] })
    expect(scope.includes('Policy', 'shop/own')).toBe(true)
  })
})
