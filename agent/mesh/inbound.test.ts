// The destination's verdict: waypoint required, whom `forwarded` is believed from, PeerAuthentication on the wire.
import { describe, expect, it } from 'vitest'
import { authorizeInbound, waypointTarget } from './inbound.ts'
import { effectiveMode, syntheticPolicy, type PeerAuthentication } from './peer-authentication.ts'
import { policyGroups, waypointPolicies } from './applicable.ts'
import { samplePolicy, sampleService, sampleSource, sampleWorkload } from './samples.ts'
import { defaultSettings } from './settings.ts'
import { MeshState } from './state.ts'
import { parseIdentity } from './identity.ts'
import type { Workload } from './workload.ts'

const id = (text: string) => parseIdentity(`spiffe://cluster.local/ns/${text}`)
const ref = { hostname: 'default/wp.default.svc.cluster.local', port: 15008 }
const wp = sampleWorkload({ name: 'wp', addresses: ['10.0.2.1'], services: { [ref.hostname]: { 15008: 15008 } } })
const ask = (state: MeshState, workload: Workload, given: Partial<Parameters<typeof authorizeInbound>[2]> = {}) =>
  authorizeInbound(state, workload, {
    peerAddress: '10.0.0.1',
    identity: id('default/sa/client'),
    address: '10.0.0.9',
    port: 8080,
    ...given,
  })

describe('a workload behind a waypoint', () => {
  const workload = sampleWorkload({ name: 'backend', waypoint: ref })

  it('takes traffic from that waypoint only', () => {
    const state = new MeshState()
    state.setWorkload(wp)
    expect(ask(state, workload)).toMatchObject({ allowed: false, reason: 'waypoint_required' })
    expect(ask(state, workload, { identity: undefined })).toMatchObject({ allowed: false, reason: 'waypoint_required' })
    expect(ask(state, workload, { identity: id('default/sa/wp') })).toMatchObject({ allowed: true, reason: 'waypoint' })
    expect(ask(state, workload, { identity: id('other/sa/wp') }).allowed).toBe(false)
  })

  it('takes none while the waypoint is not known', () => {
    expect(ask(new MeshState(), workload, { identity: id('default/sa/wp') }).allowed).toBe(false)
  })

  it('believes the original client the waypoint names, and no other peer', () => {
    const state = new MeshState()
    state.setWorkload(wp)
    const forwardedFor = '::ffff:192.0.2.7'
    expect(ask(state, workload, { identity: id('default/sa/wp'), forwardedFor })).toMatchObject({
      client: '192.0.2.7',
      forwarded: true,
    })
    expect(ask(state, sampleWorkload({ name: 'plain' }), { forwardedFor })).toMatchObject({
      client: '10.0.0.1',
      forwarded: false,
    })
    expect(ask(state, workload, { identity: id('default/sa/wp'), forwardedFor: 'nonsense' })).toMatchObject({
      client: '10.0.0.1',
      forwarded: false,
    })
  })

  it('is judged by its own policies too under l7Selector istio, with the client that is believed', () => {
    const state = new MeshState()
    state.setWorkload(wp)
    state.setPolicy(samplePolicy('DENY', { sourceIps: [{ address: '192.0.2.0', length: 24 }] }))
    const from = { identity: id('default/sa/wp'), forwardedFor: '192.0.2.7' }
    expect(ask(state, workload, from).allowed).toBe(true)
    state.settings = { ...defaultSettings, l7Selector: 'istio' }
    expect(ask(state, workload, from)).toMatchObject({ allowed: false, reason: 'deny_matched' })
    expect(ask(state, workload, { identity: id('default/sa/wp') }).allowed).toBe(true)
  })
})

it('refuses peers of another trust domain, and the tunnel port as a destination', () => {
  const state = new MeshState()
  const workload = sampleWorkload({ name: 'w' })
  const foreign = parseIdentity('spiffe://evil/ns/default/sa/client')
  expect(ask(state, workload, { identity: foreign })).toMatchObject({ allowed: false, reason: 'trust_domain_mismatch' })
  state.settings = { ...defaultSettings, trustDomainAliases: ['evil'] }
  expect(ask(state, workload, { identity: foreign }).allowed).toBe(true)
  expect(ask(state, workload, { port: 15008 })).toMatchObject({ allowed: false, reason: 'tunnel_port' })
})

describe('PeerAuthentication', () => {
  const peer = (given: Partial<PeerAuthentication>): PeerAuthentication => ({
    namespace: 'default',
    name: 'p',
    selector: {},
    mode: 'STRICT',
    portModes: {},
    source: { ...sampleSource, kind: 'PeerAuthentication' },
    ...given,
  })
  const mode = (all: PeerAuthentication[], labels: Record<string, string> = { app: 'a' }) =>
    effectiveMode(all, defaultSettings, 'default', labels)
  const root = (given: Partial<PeerAuthentication>) => peer({ namespace: 'istio-system', ...given })

  it('is PERMISSIVE unless something says otherwise', () => {
    expect(mode([])).toEqual({ strict: false, exceptions: [], decidedBy: [] })
    expect(syntheticPolicy(mode([]), defaultSettings)).toBeUndefined()
  })

  it.each<[string, PeerAuthentication[], boolean]>([
    ['the mesh', [root({})], true],
    ['the namespace over the mesh', [root({}), peer({ mode: 'PERMISSIVE' })], false],
    ['the workload over the namespace', [peer({}), peer({ selector: { app: 'a' }, mode: 'PERMISSIVE' })], false],
    ['UNSET inherits', [root({}), peer({ mode: 'UNSET' })], true],
    ['DISABLE counts as PERMISSIVE', [root({}), peer({ mode: 'DISABLE' })], false],
    ['the oldest of a level', [peer({ name: 'old' }), peer({ name: 'new', mode: 'PERMISSIVE' })], true],
    ['a selector that does not select', [peer({ selector: { app: 'b' } })], false],
    ['a selector in the root namespace counts for nothing', [root({ selector: { app: 'a' } })], false],
    ['another namespace', [peer({ namespace: 'other' })], false],
  ])('takes %s', (_name, all, strict) => {
    expect(mode(all).strict).toBe(strict)
  })

  it('refuses plaintext and nothing else', () => {
    const state = new MeshState()
    const policy = syntheticPolicy(mode([peer({})]), defaultSettings)
    expect(policy).toMatchObject({ namespace: 'istio-system', name: 'istio_converted_static_strict' })
    state.setPolicy(policy as NonNullable<typeof policy>)
    const workload = sampleWorkload({
      name: 'w',
      authorizationPolicies: ['istio-system/istio_converted_static_strict'],
    })
    expect(ask(state, workload).allowed).toBe(true)
    expect(ask(state, workload, { identity: undefined })).toMatchObject({ allowed: false, reason: 'deny_matched' })
  })

  it.each<[PeerAuthentication['mode'], PeerAuthentication['mode'], boolean, boolean]>([
    ['STRICT', 'PERMISSIVE', true, false],
    ['PERMISSIVE', 'STRICT', false, true],
    ['UNSET', 'STRICT', false, true],
  ])('has exceptions by port: %s but %s on 9090', (base, port, plain9090, plain8080) => {
    const state = new MeshState()
    const all = [peer({ name: 'x', selector: { app: 'a' }, mode: base, portModes: { 9090: port } })]
    const policy = syntheticPolicy(mode(all), defaultSettings)
    expect(policy?.name).toBe('converted_peer_authentication_x')
    state.setPolicy(policy as NonNullable<typeof policy>)
    const workload = sampleWorkload({ name: 'w', authorizationPolicies: ['default/converted_peer_authentication_x'] })
    expect(ask(state, workload, { identity: undefined, port: 9090 }).allowed).toBe(plain9090)
    expect(ask(state, workload, { identity: undefined, port: 8080 }).allowed).toBe(plain8080)
    expect(ask(state, workload, { port: 9090 }).allowed).toBe(true)
  })

  it('refuses plaintext under PERMISSIVE too when an ALLOW policy names principals', () => {
    const state = new MeshState()
    state.setPolicy(samplePolicy('ALLOW', { principals: [{ type: 'presence' }] }))
    expect(ask(state, sampleWorkload({ name: 'w' }), { identity: undefined })).toMatchObject({
      allowed: false,
      reason: 'not_allowed',
    })
  })
})

describe('policies at a waypoint', () => {
  const name = { namespace: 'default', name: 'wp' }
  const service = sampleService({ name: 'backend' })
  const v1 = sampleWorkload({
    name: 'v1',
    labels: { app: 'backend', version: 'v1' },
    services: { 'default/backend.default.svc.cluster.local': { 80: 8080 } },
  })
  const v2 = { ...v1, uid: 'c//Pod/default/v2', name: 'v2', labels: { app: 'backend', version: 'v2' } }
  function world(): MeshState {
    const state = new MeshState()
    state.setService(service)
    state.setWorkload(v1)
    state.setWorkload(v2)
    state.setPolicy(samplePolicy('DENY', {}, { name: 'ns' }))
    state.setPolicy(samplePolicy('DENY', {}, { name: 'mesh', namespace: 'istio-system', scope: 'global' }))
    state.setPolicy(samplePolicy('DENY', {}, { name: 'sel', scope: 'workload', selector: { app: 'backend' } }))
    state.setPolicy(
      samplePolicy(
        'DENY',
        {},
        { name: 'root-sel', namespace: 'istio-system', scope: 'workload', selector: { app: 'backend' } },
      ),
    )
    state.setPolicy(
      samplePolicy(
        'DENY',
        {},
        { name: 'elsewhere', namespace: 'other', scope: 'workload', selector: { app: 'backend' } },
      ),
    )
    const target = (given: string, kind: string, targetName: string, namespace = 'default') =>
      state.setPolicy(
        samplePolicy(
          'DENY',
          {},
          { name: given, namespace, scope: 'target', targets: [{ kind, namespace, name: targetName }] },
        ),
      )
    target('gw', 'Gateway', 'wp')
    target('svc', 'Service', 'backend')
    target('other-gw', 'Gateway', 'nope')
    target('class', 'GatewayClass', 'istio-waypoint', 'istio-system')
    target('class-elsewhere', 'GatewayClass', 'istio-waypoint', 'default')
    return state
  }
  const names = (list: readonly { name: string }[]) => list.map((policy) => policy.name)

  it('are all of the workload and its targets', () => {
    expect(names(waypointPolicies(world(), name, service, v1))).toEqual([
      'gw',
      'ns',
      'sel',
      'svc',
      'class',
      'mesh',
      'root-sel',
    ])
  })

  it('are those with targets only under l7Selector istio', () => {
    const state = world()
    state.settings = { ...defaultSettings, l7Selector: 'istio' }
    expect(names(waypointPolicies(state, name, service, v1))).toEqual(['gw', 'svc', 'class'])
  })

  it('do not depend on a service when a pod was dialled', () => {
    expect(names(waypointPolicies(world(), name, undefined, v1))).toEqual([
      'gw',
      'ns',
      'sel',
      'class',
      'mesh',
      'root-sel',
    ])
  })

  it('are grouped by the endpoints that share them', () => {
    const state = world()
    expect(policyGroups(state, name, service)).toHaveLength(1)
    state.setPolicy(samplePolicy('DENY', {}, { name: 'v2-only', scope: 'workload', selector: { version: 'v2' } }))
    const groups = policyGroups(state, name, service)
    expect(groups.map((group) => group.workloads.map((workload) => workload.name))).toEqual([['v1'], ['v2']])
    expect(policyGroups(new MeshState(), name, service)).toEqual([{ policies: [], workloads: [] }])
  })
})

describe('what a CONNECT to a waypoint may ask for', () => {
  const key = ref.hostname
  const service = sampleService({ name: 'backend', addresses: ['10.96.0.1'], waypoint: ref })
  const pod = sampleWorkload({ name: 'b', addresses: ['10.0.0.9'], waypoint: ref })
  const state = new MeshState()
  state.setService(service)
  state.setService(sampleService({ name: 'stranger', addresses: ['10.96.0.2'] }))
  state.setWorkload(pod)
  state.setWorkload(sampleWorkload({ name: 's', addresses: ['10.0.0.8'] }))
  it.each([
    ['a service', '10.96.0.1', 80, 'service'],
    ['a service at a port it has not', '10.96.0.1', 81, 'refuse'],
    ['a service of no waypoint', '10.96.0.2', 80, 'refuse'],
    ['a pod', '10.0.0.9', 1234, 'workload'],
    ['the tunnel port of a pod', '10.0.0.9', 15008, 'refuse'],
    ['a pod of no waypoint', '10.0.0.8', 80, 'refuse'],
    ['a stranger', '192.0.2.1', 80, 'refuse'],
    ['loopback', '127.0.0.1', 15000, 'refuse'],
  ])('%s', (_name, address, port, kind) => {
    expect(waypointTarget(state, key, address, port).kind).toBe(kind)
  })

  it('nothing of another waypoint', () => {
    expect(waypointTarget(state, 'default/other', '10.96.0.1', 80).kind).toBe('refuse')
  })
})
