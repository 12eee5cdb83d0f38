// Where connections go: every branch of the outbound decision, and that what is unsure is refused.
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { resolveOutbound, type Outbound } from './resolve.ts'
import { sampleService, sampleWorkload } from './samples.ts'
import { defaultSettings } from './settings.ts'
import { MeshState } from './state.ts'
import type { Workload } from './workload.ts'

const client = sampleWorkload({ name: 'client', namespace: 'shop', addresses: ['10.0.0.1'] })
const waypointRef = { hostname: 'shop/wp.shop.svc.cluster.local', port: 15008 }
const backendService = 'shop/backend.shop.svc.cluster.local'

function backend(name: string, given: Partial<Workload> = {}): Workload {
  return sampleWorkload({
    name,
    namespace: 'shop',
    serviceAccount: 'backend',
    services: { [backendService]: { 80: 8080 } },
    ...given,
  })
}

function waypoint(name: string, given: Partial<Workload> = {}): Workload {
  return sampleWorkload({
    name,
    namespace: 'shop',
    serviceAccount: 'wp',
    nativeTunnel: true,
    services: { [waypointRef.hostname]: { 15008: 15008 } },
    ...given,
  })
}

function world(): MeshState {
  const state = new MeshState()
  state.setWorkload(client)
  state.setService(sampleService({ name: 'backend', namespace: 'shop', addresses: ['10.96.0.1', 'fd00::1'] }))
  state.setWorkload(backend('b1', { addresses: ['10.0.1.1', 'fd01::1'], node: 'node2' }))
  return state
}

const resolve = (state: MeshState, address: string, port: number, random = 0): Outbound =>
  resolveOutbound(state, client, address, port, () => random)

describe('an endpoint that the kernel chose', () => {
  const chosen = (state: MeshState, endpoint: string, port: number, dialled = '10.96.0.1', service = 80): Outbound =>
    resolveOutbound(state, client, dialled, service, () => 0, { address: endpoint, port })
  function two(given: Partial<Workload> = {}): MeshState {
    const state = world()
    state.setWorkload(backend('b2', { addresses: ['10.0.1.2'], ...given }))
    return state
  }

  it('is taken while it is one of the service', () => {
    expect(resolve(two(), '10.96.0.1', 80)).toMatchObject({ address: '10.0.1.1' })
    expect(chosen(two(), '10.0.1.2', 8080)).toMatchObject({ kind: 'hbone', authority: '10.0.1.2:8080' })
    // The other family than the one dialled, as the kernel may have had to choose.
    expect(chosen(two(), 'fd01::1', 8080)).toMatchObject({ kind: 'hbone', authority: '[fd01::1]:8080' })
    // An endpoint farther away than others: a session that stays.
    const state = two({ node: 'far' })
    state.setService(
      sampleService({ name: 'backend', namespace: 'shop', addresses: ['10.96.0.1'], routingPreference: ['NODE'] }),
    )
    expect(chosen(state, '10.0.1.2', 8080)).toMatchObject({ address: '10.0.1.2' })
  })

  it('is passed over when it is none, is not healthy any more, or has another port', () => {
    const ordinary = { kind: 'hbone', authority: '10.0.1.1:8080' }
    expect(chosen(two(), '10.0.1.3', 8080)).toMatchObject(ordinary)
    expect(chosen(two(), '10.0.1.2', 9090)).toMatchObject(ordinary)
    expect(chosen(two({ healthy: false }), '10.0.1.2', 8080)).toMatchObject(ordinary)
    expect(chosen(two({ services: {} }), '10.0.1.2', 8080)).toMatchObject(ordinary)
  })

  it('does not lead around a waypoint, a refusal or the tunnel port', () => {
    const state = two({ waypoint: waypointRef })
    expect(chosen(state, '10.0.1.2', 8080)).toMatchObject({ kind: 'refuse', code: 'waypoint_missing' })
    state.setWorkload(waypoint('wp', { addresses: ['10.0.2.1'] }))
    expect(chosen(state, '10.0.1.2', 8080)).toMatchObject({ kind: 'waypoint', authority: '10.0.1.2:8080' })
    expect(chosen(two(), '10.0.1.2', 8080, '10.96.0.1', 81)).toMatchObject({ kind: 'refuse', code: 'port_unknown' })
    const tunnelPort = two({ services: { [backendService]: { 80: 15008 } } })
    expect(chosen(tunnelPort, '10.0.1.2', 15008)).toMatchObject({ kind: 'refuse', code: 'tunnel_port' })
  })

  it('means nothing where a workload was dialled', () => {
    expect(chosen(two(), '10.0.1.2', 8080, '10.0.1.1', 8080)).toMatchObject({ authority: '10.0.1.1:8080' })
  })
})

describe('a service without a waypoint', () => {
  it('goes to an endpoint by mutual TLS, at the port it listens on', () => {
    expect(resolve(world(), '10.96.0.1', 80)).toMatchObject({
      kind: 'hbone',
      address: '10.0.1.1',
      port: 15008,
      authority: '10.0.1.1:8080',
      identities: ['spiffe://cluster.local/ns/shop/sa/backend'],
    })
  })

  it('keeps the family that was dialled', () => {
    expect(resolve(world(), 'fd00::1', 80)).toMatchObject({ address: 'fd01::1', authority: '[fd01::1]:8080' })
  })

  it('accepts the names the service gives its servers', () => {
    const state = world()
    state.setService(
      sampleService({
        name: 'backend',
        namespace: 'shop',
        addresses: ['10.96.0.1'],
        subjectAltNames: ['spiffe://x/ns/a/sa/b'],
      }),
    )
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({
      identities: ['spiffe://cluster.local/ns/shop/sa/backend', 'spiffe://x/ns/a/sa/b'],
    })
  })

  it('is refused at a port it has not', () => {
    expect(resolve(world(), '10.96.0.1', 81)).toMatchObject({ kind: 'refuse', code: 'port_unknown' })
  })

  it('is refused without a healthy endpoint, never passed through', () => {
    const state = world()
    state.setWorkload(backend('b1', { addresses: ['10.0.1.1'], healthy: false }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ kind: 'refuse', code: 'no_healthy_upstream' })
    state.setService(
      sampleService({ name: 'backend', namespace: 'shop', addresses: ['10.96.0.1'], allowUnhealthy: true }),
    )
    expect(resolve(state, '10.96.0.1', 80).kind).toBe('hbone')
  })

  it('is refused when the endpoints do not serve the port', () => {
    const state = world()
    state.setService(
      sampleService({
        name: 'backend',
        namespace: 'shop',
        addresses: ['10.96.0.1'],
        ports: [{ port: 81, targetPort: 0, name: 'named', protocol: 'http' }],
      }),
    )
    expect(resolve(state, '10.96.0.1', 81)).toMatchObject({ kind: 'refuse', code: 'port_unknown' })
  })

  it('goes plainly to an endpoint outside the mesh', () => {
    const state = world()
    state.setWorkload(backend('b1', { addresses: ['10.0.1.1'], tunnelProtocol: 'NONE' }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ kind: 'plain', address: '10.0.1.1', port: 8080 })
  })

  it('prefers what is near and falls back when nothing near is healthy', () => {
    const state = world()
    state.setService(
      sampleService({
        name: 'backend',
        namespace: 'shop',
        addresses: ['10.96.0.1'],
        routingPreference: ['NODE'],
        loadBalancing: 'FAILOVER',
      }),
    )
    state.setWorkload(backend('b2', { addresses: ['10.0.0.2'], node: 'node1' }))
    for (const random of [0, 0.5, 0.999])
      expect(resolve(state, '10.96.0.1', 80, random)).toMatchObject({ address: '10.0.0.2' })
    state.setWorkload(backend('b2', { addresses: ['10.0.0.2'], node: 'node1', healthy: false }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ address: '10.0.1.1' })
  })

  it('never leaves the preference under STRICT', () => {
    const state = world()
    state.setService(
      sampleService({
        name: 'backend',
        namespace: 'shop',
        addresses: ['10.96.0.1'],
        routingPreference: ['NODE'],
        loadBalancing: 'STRICT',
      }),
    )
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ kind: 'refuse', code: 'no_healthy_upstream' })
  })

  it('spreads by capacity', () => {
    const state = world()
    state.setWorkload(backend('b2', { addresses: ['10.0.1.2'], capacity: 3 }))
    const chosen = [0, 0.2, 0.3, 0.99].map((random) => resolve(state, '10.96.0.1', 80, random))
    expect(chosen.map((one) => (one.kind === 'hbone' ? one.address : ''))).toEqual([
      '10.0.1.1',
      '10.0.1.1',
      '10.0.1.2',
      '10.0.1.2',
    ])
  })

  it('belongs to the namespace of the client when several share the address', () => {
    const state = world()
    state.setService(sampleService({ name: 'aaa', namespace: 'other', addresses: ['10.96.0.1'] }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ service: { namespace: 'shop' } })
  })
})

describe('a destination with a waypoint', () => {
  function behind(): MeshState {
    const state = world()
    state.setService(
      sampleService({ name: 'backend', namespace: 'shop', addresses: ['10.96.0.1'], waypoint: waypointRef }),
    )
    state.setWorkload(backend('b1', { addresses: ['10.0.1.1'], waypoint: waypointRef }))
    return state
  }

  it('is refused while the waypoint is missing or unready', () => {
    const state = behind()
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ kind: 'refuse', code: 'waypoint_missing' })
    expect(resolve(state, '10.0.1.1', 8080)).toMatchObject({ kind: 'refuse', code: 'waypoint_missing' })
    state.setWorkload(waypoint('wp1', { addresses: ['10.0.2.1'], healthy: false }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({ kind: 'refuse', code: 'waypoint_unready' })
  })

  it('is reached through it, with what was dialled as the authority', () => {
    const state = behind()
    state.setWorkload(waypoint('wp1', { addresses: ['10.0.2.1'] }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({
      kind: 'waypoint',
      address: '10.0.2.1',
      port: 15008,
      authority: '10.96.0.1:80',
      identities: ['spiffe://cluster.local/ns/shop/sa/wp'],
    })
    expect(resolve(state, '10.0.1.1', 8080)).toMatchObject({ kind: 'waypoint', authority: '10.0.1.1:8080' })
  })

  it('takes the waypoint on its own node, then in its zone', () => {
    const state = behind()
    const zone = { region: 'r', zone: 'z', subzone: '' }
    const here = { ...client, locality: zone }
    state.setWorkload(waypoint('far', { addresses: ['10.0.2.1'], node: 'node9' }))
    state.setWorkload(waypoint('zone', { addresses: ['10.0.2.2'], node: 'node8', locality: zone }))
    expect(resolveOutbound(state, here, '10.96.0.1', 80, () => 0.99)).toMatchObject({ address: '10.0.2.2' })
    state.setWorkload(waypoint('node', { addresses: ['10.0.2.3'], node: 'node1', locality: zone }))
    expect(resolveOutbound(state, here, '10.96.0.1', 80, () => 0.01)).toMatchObject({ address: '10.0.2.3' })
  })

  it('is reached through the waypoint of the endpoint where only that has one', () => {
    const state = behind()
    state.setService(sampleService({ name: 'backend', namespace: 'shop', addresses: ['10.96.0.1'] }))
    state.setWorkload(waypoint('wp1', { addresses: ['10.0.2.1'] }))
    expect(resolve(state, '10.96.0.1', 80)).toMatchObject({
      kind: 'waypoint',
      authority: '10.0.1.1:8080',
      destination: { name: 'b1' },
    })
  })

  it('is reached directly by the waypoint itself', () => {
    const state = behind()
    const wp = waypoint('wp1', { addresses: ['10.0.2.1'] })
    state.setWorkload(wp)
    expect(resolveOutbound(state, wp, '10.0.1.1', 8080, () => 0)).toMatchObject({
      kind: 'hbone',
      authority: '10.0.1.1:8080',
    })
  })
})

describe('other destinations', () => {
  it('are passed through, or refused under REGISTRY_ONLY', () => {
    const state = world()
    expect(resolve(state, '192.0.2.1', 443)).toMatchObject({ kind: 'plain', address: '192.0.2.1', port: 443 })
    state.settings = { ...defaultSettings, outboundTrafficPolicy: 'REGISTRY_ONLY' }
    expect(resolve(state, '192.0.2.1', 443)).toMatchObject({ kind: 'refuse', code: 'registry_only' })
    expect(resolve(state, '10.0.1.1', 8080).kind).toBe('hbone')
  })

  it('do not include the tunnel port of a pod', () => {
    expect(resolve(world(), '10.0.1.1', 15008)).toMatchObject({ kind: 'refuse', code: 'tunnel_port' })
  })

  it('do not include pods of another network', () => {
    const state = world()
    state.setWorkload(backend('b1', { addresses: ['10.0.1.1'], network: 'far' }))
    expect(resolve(state, '10.0.1.1', 8080)).toMatchObject({ kind: 'refuse', code: 'other_network' })
  })
})

it('never sends plain text to a workload of the mesh, nor round a waypoint, in any state', () => {
  const flag = fc.boolean()
  const arbitrary = fc.record({
    serviceWaypoint: flag,
    podWaypoint: flag,
    waypointKnown: flag,
    waypointHealthy: flag,
    healthy: flag,
    meshed: flag,
    registryOnly: flag,
    dialsService: flag,
    port: fc.constantFrom(80, 8080, 15008, 1),
    random: fc.double({ min: 0, max: 0.9999, noNaN: true }),
  })
  fc.assert(
    fc.property(arbitrary, (given) => {
      const state = new MeshState()
      state.settings = { ...defaultSettings, outboundTrafficPolicy: given.registryOnly ? 'REGISTRY_ONLY' : 'ALLOW_ANY' }
      state.setService(
        sampleService({
          name: 'backend',
          namespace: 'shop',
          addresses: ['10.96.0.1'],
          ...(given.serviceWaypoint ? { waypoint: waypointRef } : {}),
        }),
      )
      state.setWorkload(
        backend('b1', {
          addresses: ['10.0.1.1'],
          healthy: given.healthy,
          tunnelProtocol: given.meshed ? 'HBONE' : 'NONE',
          ...(given.podWaypoint ? { waypoint: waypointRef } : {}),
        }),
      )
      if (given.waypointKnown)
        state.setWorkload(waypoint('wp', { addresses: ['10.0.2.1'], healthy: given.waypointHealthy }))
      const decision = resolve(state, given.dialsService ? '10.96.0.1' : '10.0.1.1', given.port, given.random)
      const wanted = given.podWaypoint || (given.dialsService && given.serviceWaypoint)
      if (wanted) expect(['waypoint', 'refuse']).toContain(decision.kind)
      if (decision.kind === 'plain') expect(given.meshed).toBe(false)
      if (decision.kind === 'waypoint') expect(given.waypointKnown && given.waypointHealthy).toBe(true)
    }),
    { numRuns: 500 },
  )
})
