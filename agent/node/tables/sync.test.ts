// The kernel's tables follow the state: whole at first, then by what changed, in an order in which nothing is believed early.
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { ManualClock } from '../../base/clock.ts'
import { openLog } from '../../base/log.ts'
import { samplePolicy, sampleService, sampleWorkload } from '../../mesh/samples.ts'
import { MeshState } from '../../mesh/state.ts'
import type { Workload } from '../../mesh/workload.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { TableSync } from './sync.ts'
import { BookTables } from './testing.ts'

const log = openLog({ program: 'test', level: 'silent' })
const API = 'default/api.default.svc.cluster.local'
const service = sampleService({ name: 'api', addresses: ['10.96.0.1', 'fd96::1'] })

function podOf(workload: Workload): RegisteredPod {
  const { name, namespace, addresses } = workload
  return { uid: `uid-${name}`, netns: `/run/netns/${name}`, namespace, name, addresses }
}

const here = (name: string, host: number, given: Partial<Workload> = {}): Workload =>
  sampleWorkload({ name, addresses: [`10.0.0.${host}`], node: 'here', ...given })
const far = (name: string, host: number, given: Partial<Workload> = {}): Workload =>
  sampleWorkload({ name, addresses: [`10.0.1.${host}`], node: 'far', services: { [API]: { 80: 8080 } }, ...given })

class World {
  readonly state = new MeshState()
  readonly books = new BookTables()
  readonly clock = new ManualClock()
  known = true
  readonly sync = new TableSync({
    node: 'here',
    writer: this.books,
    view: () => (this.known ? this.state : undefined),
    clock: this.clock,
    log,
  })

  capture(workload: Workload): void {
    this.sync.addPod(podOf(workload))
  }

  async settle(): Promise<void> {
    this.sync.changed()
    await this.sync.settled()
    this.books.log.length = 0
  }

  classOf(address: string): string | undefined {
    return this.books.addresses.get(address)?.class
  }

  backends(port = 80, address = '10.96.0.1'): string[] | undefined {
    return this.books.services.get(`${address} ${port}`)?.backends.map((one) => `${one.address}:${one.port}`)
  }
}

let world: World
const client = here('client', 1)
const server = here('server', 2, { services: { [API]: { 80: 8080 } } })

beforeEach(async () => {
  world = new World()
  world.state.setWorkload(client)
  world.state.setWorkload(server)
  world.state.setWorkload(far('other', 1))
  world.state.setWorkload(sampleWorkload({ name: 'legacy', addresses: ['10.0.2.1'], tunnelProtocol: 'NONE' }))
  world.state.setService(service)
  world.capture(client)
  world.capture(server)
  await world.settle()
})

describe('the first sync', () => {
  it('says of each address what becomes of a connection to it', () => {
    expect(world.books.addresses.get('10.0.0.2')).toEqual({ address: '10.0.0.2', class: 'direct', pod: 'uid-server' })
    expect(world.classOf('10.0.1.1')).toBe('agent')
    expect(world.classOf('10.0.2.1')).toBe('plain')
    expect([world.classOf('10.96.0.1'), world.classOf('fd96::1')]).toEqual(['agent', 'agent'])
    expect(world.backends()).toEqual(['10.0.1.1:8080', '10.0.0.2:8080'])
    expect(world.books.policies.get('uid-server')).toEqual({ head: 'allow', rows: [], udpRefused: [] })
    expect(Object.fromEntries(world.books.direct)).toEqual({ 'uid-client': true, 'uid-server': true })
    expect(world.books.settings).toEqual({ synced: true, passUnknown: true })
    expect(world.sync.status()).toMatchObject({ synced: true, direct: 2, failures: 0 })
  })

  it('writes verdicts first and believes in nothing before the end', async () => {
    const fresh = new World()
    fresh.state.setWorkload(client)
    fresh.state.setWorkload(server)
    fresh.state.setService(service)
    fresh.books.leave({ address: '10.0.9.9', class: 'plain' })
    fresh.capture(client)
    fresh.capture(server)
    await fresh.sync.settled()
    expect(fresh.books.log).toEqual([])
    fresh.sync.changed()
    await fresh.sync.settled()
    expect(fresh.books.log).toEqual([
      'policies 2',
      'addresses 6',
      'services 2',
      'sweep',
      'direct uid-client true',
      'direct uid-server true',
      'synced true pass true',
    ])
    // What an earlier agent left and nobody wrote again is gone.
    expect(fresh.classOf('10.0.9.9')).toBeUndefined()
  })

  it('waits for a state', async () => {
    const fresh = new World()
    fresh.known = false
    fresh.capture(client)
    fresh.state.setWorkload(client)
    fresh.sync.changed()
    await fresh.sync.settled()
    expect(fresh.books.log).toEqual([])
    fresh.known = true
    await fresh.settle()
    expect(fresh.books.settings.synced).toBe(true)
  })
})

describe('a change', () => {
  it('of one endpoint costs its address and its services', async () => {
    for (let i = 2; i < 40; i++) world.state.setWorkload(far(`other${i}`, i, { services: {} }))
    await world.settle()
    world.state.setWorkload(far('other', 1, { healthy: false }))
    await world.sync.settled()
    expect(world.books.log).toEqual(['addresses 1', 'services 2'])
    expect(world.backends()).toEqual(['10.0.0.2:8080'])
  })

  it('that leaves no endpoint leaves the service to the agent', async () => {
    world.state.removeWorkload(server.uid)
    world.state.removeWorkload(far('other', 1).uid)
    await world.sync.settled()
    expect(world.backends()).toBeUndefined()
    expect(world.classOf('10.96.0.1')).toBe('agent')
    expect(world.classOf('10.0.0.2')).toBeUndefined()
    expect(world.books.policies.has('uid-server')).toBe(false)
    expect(world.books.direct.get('uid-server')).toBe(false)
  })

  it('of a service takes its old ports and addresses out', async () => {
    const ports = [{ port: 81, targetPort: 8080, name: 'http', protocol: 'http' as const }]
    world.state.setService({ ...service, addresses: ['10.96.0.2'], ports })
    await world.sync.settled()
    expect(world.books.services.size).toBe(1)
    expect(world.backends(81, '10.96.0.2')).toEqual(['10.0.1.1:8080', '10.0.0.2:8080'])
    expect([world.classOf('10.96.0.1'), world.classOf('10.96.0.2')]).toEqual([undefined, 'agent'])
    world.state.removeService(API)
    await world.sync.settled()
    expect(world.books.services.size).toBe(0)
  })

  it('of a policy replaces the tables it is about, and no others', async () => {
    world.state.setPolicy(samplePolicy('DENY', [{ clauses: [] }], { namespace: 'elsewhere' }))
    await world.sync.settled()
    expect(world.books.log).toEqual([])
    world.state.setPolicy(samplePolicy('DENY', [{ clauses: [] }], { scope: 'workload', name: 'mine' }))
    await world.sync.settled()
    expect(world.books.log).toEqual([])
    world.state.setWorkload({ ...server, authorizationPolicies: ['default/mine'] })
    await world.sync.settled()
    expect(world.books.policies.get('uid-server')?.head).toBe('deny')
    expect(world.books.policies.get('uid-client')?.head).toBe('allow')
    expect(world.books.log).toContain('policies 1')
  })

  it('of a client’s identity takes it out of the fast path until tables know it by the new one', async () => {
    world.state.setWorkload({ ...client, serviceAccount: 'another' })
    await world.sync.settled()
    const [first, ...rest] = world.books.log
    expect(first).toBe('direct uid-client false')
    expect(rest.at(-1)).toBe('direct uid-client true')
  })

  it('to REGISTRY_ONLY takes effect before anything else is written, back at the end', async () => {
    const { settings } = world.state
    world.state.settings = { ...settings, outboundTrafficPolicy: 'REGISTRY_ONLY', trustDomain: 'other' }
    await world.sync.settled()
    expect(world.books.log[0]).toBe('synced true pass false')
    expect(world.books.policies.get('uid-server')?.head).toBe('deny')
    world.books.log.length = 0
    world.state.settings = settings
    await world.sync.settled()
    expect(world.books.log.at(-1)).toBe('synced true pass true')
  })
})

describe('who is left to the agent', () => {
  it('is behind a waypoint, or asked for tunnels', async () => {
    const waypoint = { hostname: 'default/wp.default.svc.cluster.local', port: 15008 }
    world.state.setWorkload({ ...server, waypoint })
    world.state.setService({ ...service, waypoint })
    await world.sync.settled()
    expect(world.classOf('10.0.0.2')).toBe('agent')
    expect(world.books.policies.get('uid-server')?.head).toBe('agent')
    expect(world.backends()).toBeUndefined()
    world.state.setWorkload({ ...server, sameNode: 'tunnel' })
    world.state.setService(service)
    await world.sync.settled()
    expect(world.classOf('10.0.0.2')).toBe('agent')
    expect(world.books.policies.get('uid-server')?.head).toBe('agent')
    expect(world.backends()).toEqual(['10.0.1.1:8080', '10.0.0.2:8080'])
    // It is still a pod whose dials the kernel may decide about: to what is outside, to other nodes.
    expect(world.books.direct.get('uid-server')).toBe(true)
    expect(world.books.policies.get('uid-client')).toMatchObject({
      head: 'by_client',
      rows: [{ client: 'uid-client' }],
    })
  })

  it('shares an address with another service, keeps the dialled address, or is on another network', async () => {
    world.state.setService(sampleService({ name: 'twin', namespace: 'b', addresses: ['10.96.0.1'] }))
    await world.sync.settled()
    expect([world.backends(), world.backends(80, 'fd96::1')]).toEqual([undefined, ['10.0.1.1:8080', '10.0.0.2:8080']])
    world.state.removeService('b/twin.b.svc.cluster.local')
    world.state.setService({ ...service, loadBalancing: 'PASSTHROUGH' })
    world.state.setWorkload(far('other', 1, { network: 'abroad', tunnelProtocol: 'NONE' }))
    await world.sync.settled()
    expect(world.backends()).toBeUndefined()
    expect(world.classOf('10.0.1.1')).toBe('agent')
  })

  it('is a pod that is not captured, or not known', async () => {
    world.sync.removePod('uid-server')
    await world.sync.settled()
    expect(world.classOf('10.0.0.2')).toBe('agent')
    world.capture(server)
    await world.sync.settled()
    expect(world.classOf('10.0.0.2')).toBe('direct')
    world.capture(here('stranger', 7))
    await world.sync.settled()
    expect(world.books.direct.get('uid-stranger')).toBe(false)
    expect(world.books.policies.has('uid-stranger')).toBe(false)
    world.state.setWorkload(here('stranger', 7))
    await world.sync.settled()
    expect(world.books.direct.get('uid-stranger')).toBe(true)
  })

  it('is elsewhere than the other pods of the node', async () => {
    const stray = here('stray', 8, { locality: { region: 'x', zone: 'y', subzone: '' } })
    world.state.setWorkload(stray)
    world.capture(stray)
    await world.sync.settled()
    expect(world.books.direct.get('uid-stray')).toBe(false)
    expect(world.classOf('10.0.0.8')).toBe('agent')
  })
})

describe('the endpoints of a service', () => {
  it('are those next to this node, by the service’s preference', async () => {
    world.state.setService({ ...service, routingPreference: ['NODE'], loadBalancing: 'FAILOVER' })
    await world.sync.settled()
    expect(world.backends()).toEqual(['10.0.0.2:8080'])
    world.state.setWorkload({ ...server, healthy: false })
    await world.sync.settled()
    expect(world.backends()).toEqual(['10.0.1.1:8080'])
    // internalTrafficPolicy Local: no other node’s.
    world.state.setService({ ...service, routingPreference: ['NODE'], loadBalancing: 'STRICT' })
    await world.sync.settled()
    expect(world.backends()).toBeUndefined()
  })

  it('have slots by their weight, and no more than fit', async () => {
    world.state.setWorkload(far('other', 1, { capacity: 4 }))
    world.state.setWorkload({ ...server, capacity: 2 })
    await world.sync.settled()
    expect(world.backends()).toEqual(['10.0.1.1:8080', '10.0.1.1:8080', '10.0.0.2:8080'])
    world.state.setWorkload(far('other', 1, { capacity: 0 }))
    await world.sync.settled()
    expect(world.backends()).toEqual(['10.0.0.2:8080'])
    world.state.setWorkload(far('other', 1, { capacity: 99_991 }))
    await world.sync.settled()
    expect(world.backends()).toBeUndefined()
  })

  it('carry the session affinity', async () => {
    world.state.setService({ ...service, sessionAffinitySeconds: 60 })
    await world.sync.settled()
    expect(world.books.services.get('10.96.0.1 80')?.affinitySeconds).toBe(60)
  })
})

describe('a table without room', () => {
  it('puts all of them out of force, until everything was written again', async () => {
    world.books.failures = 1
    world.state.removeWorkload(far('other', 1).uid)
    world.state.setWorkload(far('new', 3))
    await world.sync.settled()
    expect(world.books.settings).toEqual({ synced: false, passUnknown: true })
    expect(world.sync.status()).toMatchObject({ synced: false, failures: 1 })
    // A change does not hurry it.
    world.state.setWorkload(far('newer', 4))
    await world.sync.settled()
    expect(world.books.settings.synced).toBe(false)
    world.clock.advance(250)
    await world.sync.settled()
    expect(world.books.settings).toEqual({ synced: true, passUnknown: true })
    // What was to be taken out when it failed is out.
    expect([...world.books.addresses.keys()].filter((address) => address.startsWith('10.0.1.'))).toEqual([
      '10.0.1.3',
      '10.0.1.4',
    ])
  })
})

describe('any sequence of changes', () => {
  const number = fc.integer({ min: 1, max: 4 })
  const usual = fc.oneof(
    fc.record({
      do: fc.constant('workload' as const),
      number,
      node: fc.constantFrom('here', 'here', 'far'),
      healthy: fc.boolean(),
      protocol: fc.constantFrom('HBONE' as const, 'HBONE' as const, 'NONE' as const),
      // Addresses move from pod to pod.
      host: number,
      account: fc.constantFrom('x', 'y'),
      behind: fc.constantFrom(false, false, false, true),
      sameNode: fc.constantFrom('direct' as const, 'direct' as const, 'tunnel' as const),
      serves: fc.boolean(),
    }),
    fc.record({ do: fc.constant('no workload' as const), number }),
    fc.record({
      do: fc.constant('service' as const),
      number: fc.constantFrom(1, 2),
      address: fc.constantFrom('10.96.0.1', '10.96.0.2', '10.0.0.1'),
      affinity: fc.constantFrom(0, 60),
      local: fc.boolean(),
    }),
    fc.record({ do: fc.constant('no service' as const), number: fc.constantFrom(1, 2) }),
    fc.record({
      do: fc.constant('policy' as const),
      account: fc.constantFrom('x', 'y'),
      port: fc.constantFrom(80, 81),
    }),
    fc.record({ do: fc.constant('no policy' as const) }),
    fc.record({ do: fc.constant('settings' as const), any: fc.boolean() }),
    fc.record({ do: fc.constant('capture' as const), number, host: number }),
    fc.record({ do: fc.constant('release' as const), number }),
    ...[1, 2, 3].map(() => fc.record({ do: fc.constant('settle' as const), whole: fc.boolean() })),
  )
  // Rare, since all is written anew after it.
  const change = fc.oneof(
    { weight: 100, arbitrary: usual },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('fail' as const) }) },
  )
  const key = (one: number) => `default/s${one}.default.svc.cluster.local`

  it('ends at the tables that a sync of the last state alone writes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 30, size: 'max' }), async (changes) => {
        const lived = new World()
        const captured = new Map<number, RegisteredPod>()
        const capture = (number: number, addresses: readonly string[]): void => {
          const pod = { uid: `u${number}`, netns: 'n', namespace: 'default', name: `w${number}`, addresses }
          captured.set(number, pod)
          lived.books.namespaces.set(pod.uid, (lived.books.namespaces.get(pod.uid) ?? 0) + 1)
          lived.sync.addPod(pod)
        }
        for (const number of [1, 2, 3, 4]) {
          const node = number < 4 ? 'here' : 'far'
          const services = { [key(1)]: { 80: 8080 } }
          lived.state.setWorkload(
            sampleWorkload({ name: `w${number}`, addresses: [`10.0.0.${number}`], node, services }),
          )
          if (number < 3) capture(number, [`10.0.0.${number}`])
        }
        lived.state.setService(sampleService({ name: 's1', addresses: ['10.96.0.1'] }))
        await lived.settle()
        for (const one of changes) {
          const { state } = lived
          if (one.do === 'workload') {
            const waypoint = { hostname: 'default/wp', port: 15008 }
            state.setWorkload(
              sampleWorkload({
                name: `w${one.number}`,
                addresses: [`10.0.0.${one.host}`],
                node: one.node,
                healthy: one.healthy,
                tunnelProtocol: one.protocol,
                serviceAccount: one.account,
                sameNode: one.sameNode,
                services: one.serves ? { [key(1)]: { 80: 8080 }, [key(2)]: { 80: 81 } } : {},
                ...(one.behind ? { waypoint } : {}),
              }),
            )
          } else if (one.do === 'no workload') state.removeWorkload(`c//Pod/default/w${one.number}`)
          else if (one.do === 'service')
            state.setService(
              sampleService({
                name: `s${one.number}`,
                addresses: [one.address],
                sessionAffinitySeconds: one.affinity,
                ...(one.local ? { routingPreference: ['NODE'], loadBalancing: 'STRICT' } : {}),
              }),
            )
          else if (one.do === 'no service') state.removeService(key(one.number))
          else if (one.do === 'policy') {
            const principals = [{ type: 'exact' as const, value: `cluster.local/ns/default/sa/${one.account}` }]
            state.setPolicy(samplePolicy('ALLOW', { principals, destinationPorts: [one.port] }))
          } else if (one.do === 'no policy') state.removePolicy('default/allow')
          else if (one.do === 'settings')
            state.settings = { ...state.settings, outboundTrafficPolicy: one.any ? 'ALLOW_ANY' : 'REGISTRY_ONLY' }
          else if (one.do === 'capture') {
            const known = state.workload(`c//Pod/default/w${one.number}`)
            const addresses = known?.addresses ?? [`10.0.0.${one.host}`]
            capture(one.number, addresses)
          } else if (one.do === 'release') {
            const pod = captured.get(one.number)
            captured.delete(one.number)
            lived.sync.removePod(`u${one.number}`)
            // With its namespace.
            if (pod) lived.books.policies.delete(pod.uid)
            if (pod) lived.books.direct.delete(pod.uid)
          } else if (one.do === 'fail') lived.books.failures = 1
          else if (one.whole) await lived.sync.settled()
          else await new Promise((resolve) => setImmediate(resolve))
        }
        lived.books.failures = 0
        await lived.sync.settled()
        lived.clock.advance(60_000)
        await lived.sync.settled()
        for (const uid of lived.books.policies.keys())
          if (!captured.has(Number(uid.slice(1)))) lived.books.policies.delete(uid)

        const books = new BookTables()
        for (const [uid, number] of lived.books.namespaces) books.namespaces.set(uid, number)
        const fresh = new TableSync({ node: 'here', writer: books, view: () => lived.state, clock: lived.clock, log })
        for (const pod of captured.values()) fresh.addPod(pod)
        fresh.changed()
        await fresh.settled()
        const said = ({ addresses, services, policies, direct, settings }: BookTables) => ({
          addresses: Object.fromEntries(addresses),
          services: Object.fromEntries(services),
          policies: Object.fromEntries(policies),
          direct: Object.fromEntries(direct),
          settings,
        })
        expect(said(lived.books)).toEqual(said(books))
        await Promise.all([lived.sync.close(), fresh.close()])
      }),
      { numRuns: 500 },
    )
  })
})
