// The two halves of delta xDS against each other, over a pipe that encodes and decodes every message; time stands still.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import type { Policy } from '../mesh/policy.ts'
import { MeshState } from '../mesh/state.ts'
import type { Workload } from '../mesh/workload.ts'
import { addressCodec } from './codec/address.ts'
import { authorizationCodec } from './codec/authorization.ts'
import { encodeResource, type EncodedResource } from './encoded.ts'
import { agentKinds, type ResourceChange, type ResourceKind } from './contract.ts'
import { feedState } from './feed.ts'
import {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from './gen/envoy/service/discovery/v3/ads_pb.js'
import { ResourceStore } from './resource-store.ts'
import { typeUrls } from './types.ts'
import { XdsClient, type DeltaStreamEvents } from './xds-client.ts'
import { XdsStream, type ClientScope, type StreamStats } from './xds-stream.ts'

function workload(name: string, extra: Partial<Workload> = {}): Workload {
  return {
    uid: `c//Pod/shop/${name}`,
    name,
    namespace: 'shop',
    serviceAccount: 'default',
    trustDomain: 'cluster.local',
    addresses: [],
    network: '',
    node: 'n1',
    clusterId: 'Kubernetes',
    tunnelProtocol: 'HBONE',
    nativeTunnel: false,
    hostNetwork: false,
    services: {},
    authorizationPolicies: [],
    healthy: true,
    canonicalName: name,
    canonicalRevision: 'latest',
    workloadType: 'pod',
    workloadName: name,
    locality: { region: '', zone: '', subzone: '' },
    capacity: 1,
    sameNode: 'direct',
    labels: {},
    ...extra,
  }
}

function encodedWorkload(name: string, extra: Partial<Workload> = {}): EncodedResource {
  const value = { type: 'workload', workload: workload(name, extra) } as const
  return encodeResource('Address', addressCodec.nameOf(value), addressCodec.encode(value))
}

function policy(name: string): Policy {
  return {
    namespace: 'shop',
    name,
    scope: 'namespace',
    action: 'ALLOW',
    dryRun: false,
    selector: {},
    targets: [],
    rules: [],
    source: { kind: 'AuthorizationPolicy', namespace: 'shop', name },
  }
}

const everything: ClientScope = { kinds: agentKinds, version: () => 0, includes: () => true }

/** A server with one client; `cut` breaks the stream, `slow` makes the socket refuse more until `drain`. */
class Pair {
  readonly clock = new ManualClock(1_000_000)
  readonly state = new MeshState()
  readonly changes: ResourceChange[] = []
  readonly responses: DeltaDiscoveryResponse[] = []
  readonly requests: DeltaDiscoveryRequest[] = []
  readonly stats: StreamStats = { responses: 0, bytes: 0, resources: 0, nacks: 0 }
  readonly client: XdsClient
  opened = 0
  slow = false
  /** When set, responses wait in `held` instead of reaching the client. */
  hold = false
  readonly held: Buffer[] = []
  #events: DeltaStreamEvents | undefined
  stream: XdsStream | undefined
  readonly store: ResourceStore
  readonly scope: ClientScope

  constructor(store = new ResourceStore(), scope = everything) {
    this.store = store
    this.scope = scope
    this.client = new XdsClient({
      kinds: ['MeshSettings', 'Authorization', 'Address'],
      node: { id: 'test' },
      sink: feedState({ state: this.state, onChange: (change) => this.changes.push(change) }),
      clock: this.clock,
      log: silentLog,
      random: () => 0.5,
      open: (events) => this.#open(events),
    })
    store.listen((changed) => this.stream?.onChange(changed))
  }

  #open(events: DeltaStreamEvents) {
    this.opened++
    this.#events = events
    const stream = new XdsStream({
      store: this.store,
      scope: this.scope,
      client: 'test',
      log: silentLog,
      stats: this.stats,
      send: (bytes) => {
        if (this.hold) this.held.push(bytes)
        else queueMicrotask(() => this.deliver(bytes, events))
        return !this.slow
      },
    })
    this.stream = stream
    return {
      send: (request: object) => {
        const bytes = toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, request))
        const decoded = fromBinary(DeltaDiscoveryRequestSchema, bytes)
        this.requests.push(decoded)
        queueMicrotask(() => stream.onRequest(decoded))
      },
      cancel: () => {},
    }
  }

  deliver(bytes: Buffer, events = this.#events): void {
    const response = fromBinary(DeltaDiscoveryResponseSchema, bytes)
    this.responses.push(response)
    events?.onResponse(response)
  }

  cut(error?: Error): void {
    this.stream = undefined
    this.#events?.onEnd(error)
  }

  publish(set: EncodedResource[], remove: { kind: ResourceKind; name: string }[] = []): void {
    this.store.update({ set, remove })
  }
}

/** Lets the pipe's microtasks run. */
async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve()
}

describe('delta xDS', () => {
  it('gives a new client everything and tells it when it has it', async () => {
    const pair = new Pair()
    pair.publish([encodedWorkload('a', { addresses: ['10.0.0.1'] }), encodedWorkload('b')])
    pair.client.start()
    await pair.client.synced()
    expect(pair.state.workloadByAddress('10.0.0.1')?.name).toBe('a')
    expect(pair.client.status().map(({ kind, resources, synced }) => [kind, resources, synced])).toEqual([
      ['MeshSettings', 0, true],
      ['Authorization', 0, true],
      ['Address', 2, true],
    ])
  })

  it('says nothing before control knows its configuration, so that nobody drops what it has', async () => {
    const pair = new Pair()
    pair.client.restore('Address', 'c//Pod/shop/old', { version: 'v', bytes: bodyOf(workload('old')) })
    pair.client.start()
    await settle()
    expect(pair.responses).toEqual([])
    expect(pair.state.workload('c//Pod/shop/old')).toBeDefined()
    pair.publish([encodedWorkload('new')])
    await settle()
    expect(pair.state.workload('c//Pod/shop/old')).toBeUndefined()
    expect(pair.state.workload('c//Pod/shop/new')).toBeDefined()
  })

  it('sends one changed resource for one change, and nothing for an update of equal content', async () => {
    const pair = new Pair()
    pair.publish(Array.from({ length: 100 }, (_, i) => encodedWorkload(`w${i}`)))
    pair.client.start()
    await pair.client.synced()
    const before = pair.responses.length
    pair.publish([encodedWorkload('w7', { healthy: false }), encodedWorkload('w8')])
    await settle()
    expect(pair.responses.slice(before).map((r) => r.resources.map(({ name }) => name))).toEqual([['c//Pod/shop/w7']])
    expect(pair.state.workload('c//Pod/shop/w7')?.healthy).toBe(false)
    pair.publish([encodedWorkload('w7', { healthy: false })])
    await settle()
    expect(pair.responses.length).toBe(before + 1)
  })

  it('asks only for differences after a reconnect: what changed, came and went meanwhile', async () => {
    const pair = new Pair()
    pair.publish(Array.from({ length: 50 }, (_, i) => encodedWorkload(`w${i}`)))
    pair.client.start()
    await pair.client.synced()
    pair.cut(new Error('reset'))
    expect(pair.client.connected).toBe(false)
    pair.publish(
      [encodedWorkload('w1', { healthy: false }), encodedWorkload('extra')],
      [{ kind: 'Address', name: 'c//Pod/shop/w2' }],
    )
    const before = pair.responses.length
    pair.clock.advance(20)
    await settle()
    const addresses = pair.responses.slice(before).filter((r) => r.typeUrl === typeUrls.Address)
    expect(addresses.flatMap((r) => r.resources.map(({ name }) => name)).sort()).toEqual([
      'c//Pod/shop/extra',
      'c//Pod/shop/w1',
    ])
    expect(addresses.flatMap((r) => r.removedResources)).toEqual(['c//Pod/shop/w2'])
    expect(pair.state.workload('c//Pod/shop/w2')).toBeUndefined()
    expect(pair.client.reconnects).toBe(1)
  })

  it('applies the good resources of a response and names the bad ones in the NACK', async () => {
    const pair = new Pair()
    const bad = encodeResource('Address', 'c//Pod/shop/bad', Uint8Array.of(0xff, 0xff, 0xff))
    const lying = encodeResource('Address', 'c//Pod/shop/other', bodyOf(workload('else')))
    pair.publish([encodedWorkload('good'), bad, lying])
    pair.client.start()
    await settle()
    expect(pair.state.workload('c//Pod/shop/good')).toBeDefined()
    expect(pair.state.workload('c//Pod/shop/else')).toBeUndefined()
    const nack = pair.requests.find((request) => request.errorDetail)
    expect(nack?.errorDetail?.message).toContain('c//Pod/shop/bad: ')
    expect(nack?.errorDetail?.message).toContain("its content says 'c//Pod/shop/else'")
    expect(pair.stats.nacks).toBe(1)
    // Not again until it changes, and then it is taken.
    pair.publish([encodedWorkload('bad')])
    await settle()
    expect(pair.state.workload('c//Pod/shop/bad')).toBeDefined()
  })

  it('keeps the last good version of a resource whose new version is refused', async () => {
    const pair = new Pair()
    pair.publish([encodedWorkload('a', { addresses: ['10.0.0.1'] })])
    pair.client.start()
    await settle()
    pair.publish([encodeResource('Address', 'c//Pod/shop/a', Uint8Array.of(0xff))])
    await settle()
    expect(pair.state.workloadByAddress('10.0.0.1')?.name).toBe('a')
  })

  it('denies what an unreadable policy was about while no good version of it is held', async () => {
    const pair = new Pair()
    pair.publish([encodeResource('Authorization', 'shop/p', Uint8Array.of(0xff))])
    pair.client.start()
    await settle()
    expect(pair.state.policy('shop/p')).toMatchObject({ action: 'DENY', scope: 'namespace', rules: [{ clauses: [] }] })
    const good = policy('p')
    pair.publish([encodeResource('Authorization', 'shop/p', authorizationCodec.encode(good))])
    await settle()
    expect(pair.state.policy('shop/p')).toEqual(good)
    pair.publish([encodeResource('Authorization', 'shop/p', Uint8Array.of(0xff))])
    await settle()
    expect(pair.state.policy('shop/p')).toEqual(good)
    pair.publish([], [{ kind: 'Authorization', name: 'shop/p' }])
    await settle()
    expect(pair.state.policy('shop/p')).toBeUndefined()
  })

  it('gathers changes while a response waits for its answer and sends only the newest state', async () => {
    const pair = new Pair()
    pair.publish([encodedWorkload('a')])
    pair.client.start()
    await pair.client.synced()
    pair.hold = true
    for (let i = 0; i < 100; i++) pair.publish([encodedWorkload('a', { node: `n${i}` }), encodedWorkload(`b${i % 3}`)])
    await settle()
    expect(pair.held.length).toBe(1)
    pair.hold = false
    for (const bytes of pair.held.splice(0)) pair.deliver(bytes)
    await settle()
    expect(pair.state.workload('c//Pod/shop/a')?.node).toBe('n99')
    expect(pair.stats.resources).toBeLessThan(8)
  })

  it('sends no workload before the client has acknowledged the policies published with it', async () => {
    const pair = new Pair()
    pair.publish([encodedWorkload('a')])
    pair.client.start()
    await pair.client.synced()
    pair.hold = true
    const good = policy('p')
    pair.publish([
      encodedWorkload('b', { authorizationPolicies: ['shop/p'] }),
      encodeResource('Authorization', 'shop/p', authorizationCodec.encode(good)),
    ])
    await settle()
    expect(pair.held.length).toBe(1)
    pair.hold = false
    for (const bytes of pair.held.splice(0)) pair.deliver(bytes)
    expect(pair.state.policy('shop/p')).toEqual(good)
    expect(pair.state.workload('c//Pod/shop/b')).toBeUndefined()
    await settle()
    expect(pair.state.workload('c//Pod/shop/b')).toBeDefined()
  })

  it('writes nothing more to a socket that is full until it drains', async () => {
    const pair = new Pair()
    pair.publish([encodedWorkload('a')])
    pair.client.start()
    await pair.client.synced()
    const before = pair.stats.responses
    pair.slow = true
    pair.publish([encodedWorkload('a', { node: 'x' })])
    await settle()
    expect(pair.stats.responses).toBe(before + 1)
    for (let i = 0; i < 10; i++) pair.publish([encodedWorkload('a', { node: `y${i}` })])
    await settle()
    expect(pair.stats.responses).toBe(before + 1)
    pair.slow = false
    pair.stream?.onDrain()
    await settle()
    expect(pair.stats.responses).toBe(before + 2)
    expect(pair.state.workload('c//Pod/shop/a')?.node).toBe('y9')
  })

  it('cuts a large state into responses and calls the client synced only after the last', async () => {
    const pair = new Pair()
    const big = 'x'.repeat(100_000)
    pair.publish(Array.from({ length: 100 }, (_, i) => encodedWorkload(`w${i}`, { labels: { big } })))
    pair.client.start()
    let synced = false
    void pair.client.synced('Address').then(() => {
      expect([...pair.state.workloads()].length).toBe(100)
      synced = true
    })
    await settle()
    expect(synced).toBe(true)
    expect(pair.responses.filter((r) => r.typeUrl === typeUrls.Address).length).toBe(17)
  })

  it('gives a client what its scope holds, and takes back what leaves it', async () => {
    let visible = new Set(['c//Pod/shop/a'])
    let version = 0
    const scope: ClientScope = {
      kinds: ['Address'],
      version: () => version,
      includes: (_, name) => visible.has(name),
    }
    const pair = new Pair(new ResourceStore(), scope)
    pair.publish([encodedWorkload('a'), encodedWorkload('b')])
    pair.client.start()
    await settle()
    expect([...pair.state.workloads()].map(({ name }) => name)).toEqual(['a'])
    visible = new Set(['c//Pod/shop/b'])
    version++
    pair.store.touch()
    await settle()
    expect([...pair.state.workloads()].map(({ name }) => name)).toEqual(['b'])
  })

  it('waits longer after each failure, up to two seconds, and at once again after a success', async () => {
    const pair = new Pair()
    pair.client.start()
    const waits: number[] = []
    for (let i = 0; i < 12; i++) {
      const opened = pair.opened
      pair.cut(new Error('refused'))
      let waited = 0
      while (pair.opened === opened) {
        pair.clock.advance(5)
        waited += 5
      }
      waits.push(waited)
    }
    expect(waits[0]).toBeLessThanOrEqual(20)
    expect(waits.at(-1)).toBeGreaterThan(1_000)
    expect(Math.max(...waits)).toBeLessThanOrEqual(2_000)
    pair.publish([encodedWorkload('a')])
    await settle()
    pair.cut(new Error('reset'))
    const opened = pair.opened
    pair.clock.advance(20)
    expect(pair.opened).toBe(opened + 1)
  })

  it('leaves a server that accepts the stream and never answers', async () => {
    const pair = new Pair()
    pair.client.start()
    await settle()
    pair.clock.advance(29_999)
    expect(pair.opened).toBe(1)
    pair.clock.advance(100)
    expect(pair.opened).toBe(2)
    expect(pair.client.error).toBe('no answer within 30000 ms')
  })
})

function bodyOf(value: Workload): Uint8Array {
  return addressCodec.encode({ type: 'workload', workload: value })
}
