import { describe, expect, it } from 'vitest'
import type { Translation } from '../../config/translation.ts'
import { samplePod, sampleSource, sampleWorkload } from '../../mesh/samples.ts'
import { defaultSettings } from '../../mesh/settings.ts'
import type { Caller } from './authenticator.ts'
import { authorizeIssue, authorizeStream } from './authorize.ts'

const translation: Translation = {
  settings: { ...defaultSettings, trustDomain: 'td' },
  workloads: [
    sampleWorkload({ name: 'web', namespace: 'shop', node: 'n1' }),
    sampleWorkload({ name: 'far', namespace: 'shop', node: 'n2' }),
    sampleWorkload({ name: 'host', namespace: 'shop', node: 'n1', hostNetwork: true }),
    sampleWorkload({ name: 'waypoint', namespace: 'shop', node: 'n1', nativeTunnel: true }),
  ],
  pods: [
    samplePod({ name: 'starting', namespace: 'shop', node: 'n1', serviceAccount: 'starting' }),
    samplePod({ name: 'elsewhere', namespace: 'shop', node: 'n2', serviceAccount: 'elsewhere' }),
    samplePod({ name: 'gw', namespace: 'shop', node: 'n1', serviceAccount: 'gw', enrolment: 'own_tunnel' }),
  ],
  services: [],
  policies: [],
  peerAuthentications: [],
  routes: [],
  upstreams: [],
  waypoints: [
    {
      namespace: 'shop',
      name: 'gw',
      className: 'ambit-waypoint',
      waypointFor: 'all',
      service: 'shop/gw.shop.svc.cluster.local',
      serviceAccount: 'waypoint',
      allowedNamespaces: ['shop'],
      source: sampleSource,
    },
  ],
  problems: [],
}
const agent: Caller = { namespace: 'ambit-system', serviceAccount: 'ambit-agent', pod: 'a', node: 'n1' }
const waypoint: Caller = { namespace: 'shop', serviceAccount: 'waypoint', pod: 'w', node: 'n1' }
const uri = (name: string, trustDomain = 'td'): string => `spiffe://${trustDomain}/ns/shop/sa/${name}`

describe('certificates', () => {
  it('go to the agent of the node where a pod of the service account runs', () => {
    expect(authorizeIssue(agent, uri('web'), translation)).toEqual({
      trustDomain: 'td',
      namespace: 'shop',
      serviceAccount: 'web',
    })
  })

  it('go to it also for a pod that is about to start there', () => {
    expect(authorizeIssue(agent, uri('starting'), translation)).toMatchObject({ serviceAccount: 'starting' })
  })

  it.each([
    ['a pod that is about to start elsewhere', agent, uri('elsewhere'), 'no pod of node n1 runs as'],
    ['a waypoint that is about to start', agent, uri('gw'), 'no pod of node n1 runs as'],
    ['another node', agent, uri('far'), 'no pod of node n1 runs as service account shop/far'],
    ['a host-network pod', agent, uri('host'), 'no pod of node n1'],
    ['a waypoint, which holds its own key', agent, uri('waypoint'), 'no pod of node n1'],
    ['nobody at all', agent, uri('ghost'), 'no pod of node n1'],
    ['another trust domain', agent, uri('web', 'other'), "this mesh's trust domain is td"],
    ['a token without node', { ...agent, node: '' }, uri('web'), 'the token is not bound to a node'],
    ['a waypoint that asks for a pod', waypoint, uri('web'), 'only an agent'],
    [
      'a pod that is no waypoint',
      { ...waypoint, serviceAccount: 'web' },
      '',
      'no waypoint Gateway runs as this service account',
    ],
    ['an agent account of another namespace', { ...agent, namespace: 'shop' }, uri('web'), 'only an agent'],
  ])('are refused for %s', (_what, caller, identity, message) => {
    expect(() => authorizeIssue(caller, identity, translation)).toThrow(
      expect.objectContaining({ code: 'CONTROL_DENIED', message: expect.stringContaining(message) as string }) as Error,
    )
  })

  it('are refused as a bad request when the identity is missing or none', () => {
    for (const identity of ['', 'shop/web', 'spiffe://td/ns/shop/sa/web/x']) {
      expect(() => authorizeIssue(agent, identity, translation)).toThrow(
        expect.objectContaining({ code: 'CONTROL_BAD_REQUEST' }) as Error,
      )
    }
  })

  it('go to a waypoint for itself, asked for by name or not', () => {
    const own = { trustDomain: 'td', namespace: 'shop', serviceAccount: 'waypoint' }
    expect(authorizeIssue(waypoint, '', translation)).toEqual(own)
    expect(authorizeIssue(waypoint, uri('waypoint'), translation)).toEqual(own)
  })
})

describe('configuration streams', () => {
  const node = { type: 'agent', address: '', name: 'a', namespace: 'ambit-system', node: 'n1' } as const
  const gateway = { type: 'waypoint', address: '', name: 'w', namespace: 'shop', node: 'n1', gateway: 'gw' } as const

  it('are for agents on the node of their token and for waypoints of their own Gateway', () => {
    expect(() => authorizeStream(agent, node, translation)).not.toThrow()
    expect(() => authorizeStream(waypoint, gateway, translation)).not.toThrow()
    expect(() => authorizeStream(agent, { ...node, node: 'n2' }, translation)).toThrow('the token is for node n1')
    expect(() => authorizeStream(waypoint, node, translation)).toThrow('it is not ambit-system/ambit-agent')
    expect(() => authorizeStream(waypoint, { ...gateway, gateway: 'x' }, translation)).toThrow('shop/x')
    expect(() => authorizeStream(agent, gateway, translation)).toThrow('is not the service account of waypoint shop/gw')
  })
})
