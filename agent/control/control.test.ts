// Control and its clients over real gRPC and TLS on loopback; snapshots come from the test, the rest is what runs.
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { X509Certificate } from 'node:crypto'
import { SignJWT } from 'jose'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ManualClock, systemClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import type { Translation, WaypointGateway } from '../config/translation.ts'
import type { Identity } from '../mesh/identity.ts'
import { samplePod, samplePolicy, sampleRoute, sampleService, sampleWorkload } from '../mesh/samples.ts'
import { defaultSettings } from '../mesh/settings.ts'
import { MeshState } from '../mesh/state.ts'
import { openAuthority } from '../pki/authority.ts'
import { makeRequest } from '../pki/csr.ts'
import { CertificateManager } from '../pki/manager.ts'
import { connectControl } from '../wire/connect-control.ts'
import {
  agentKinds,
  waypointKinds,
  type ClientNode,
  type ConnectControlOptions,
  type ControlConnection,
} from '../wire/contract.ts'
import { Control } from './control.ts'
import type { Gather, Snapshot } from './gather/gather.ts'
import { JwtAuthenticator } from './issue/jwt.ts'

/** Hands over what the test says. */
class GivenGather implements Gather {
  #take: ((snapshot: Snapshot) => void) | undefined
  #version = 0
  translation: Translation

  constructor(translation: Translation) {
    this.translation = translation
  }

  start(onSnapshot: (snapshot: Snapshot) => void): Promise<void> {
    this.#take = onSnapshot
    this.give(this.translation)
    return Promise.resolve()
  }

  give(translation: Translation): void {
    this.translation = translation
    this.#take?.({ version: ++this.#version, translation, problems: [] })
  }

  stop(): Promise<void> {
    this.#take = undefined
    return Promise.resolve()
  }
}

const waypoint: WaypointGateway = {
  namespace: 'shop',
  name: 'waypoint',
  className: 'ambit-waypoint',
  waypointFor: 'all',
  service: 'shop/waypoint.shop.svc.cluster.local',
  serviceAccount: 'waypoint',
  allowedNamespaces: ['shop'],
  source: { kind: 'Gateway', namespace: 'shop', name: 'waypoint' },
}
const behind = { hostname: waypoint.service, port: 15_008 }
const backendKey = 'shop/backend.shop.svc.cluster.local'

function shop(): Translation {
  return {
    settings: defaultSettings,
    workloads: [
      sampleWorkload({ name: 'frontend', namespace: 'shop', node: 'n1', addresses: ['10.0.1.1'] }),
      sampleWorkload({
        name: 'backend',
        namespace: 'shop',
        node: 'n2',
        addresses: ['10.0.2.1'],
        waypoint: behind,
        services: { [backendKey]: { 80: 8080 } },
        authorizationPolicies: ['shop/audit'],
      }),
      sampleWorkload({ name: 'waypoint', namespace: 'shop', node: 'n2', nativeTunnel: true }),
      sampleWorkload({ name: 'stranger', namespace: 'other', node: 'n1', tunnelProtocol: 'NONE' }),
    ],
    pods: [samplePod({ name: 'frontend', node: 'n1' }), samplePod({ name: 'backend', node: 'n2' })],
    services: [
      sampleService({ name: 'backend', namespace: 'shop', waypoint: behind }),
      sampleService({ name: 'waypoint', namespace: 'shop' }),
      sampleService({ name: 'else', namespace: 'other' }),
    ],
    policies: [
      samplePolicy('ALLOW', { methods: [{ type: 'exact', value: 'GET' }] }, { namespace: 'shop', name: 'get' }),
      samplePolicy('DENY', {}, { namespace: 'other', name: 'far' }),
      samplePolicy('AUDIT', {}, { namespace: 'shop', name: 'audit', scope: 'workload', selector: { app: 'backend' } }),
    ],
    routes: [sampleRoute([], { namespace: 'shop', hostname: 'backend.shop.svc.cluster.local' })],
    upstreams: [],
    waypoints: [waypoint],
    peerAuthentications: [],
    problems: [],
  }
}

const frontend: Identity = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'frontend' }
const backend: Identity = { ...frontend, serviceAccount: 'backend' }

describe('control', () => {
  let folder: string
  let signer: KeyObject
  let control: Control
  let gather: GivenGather
  let port = 0
  const open: ControlConnection[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ambit-control-'))
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    signer = pair.privateKey
    const jwk = { ...pair.publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'ES256', use: 'sig' }
    await writeFile(join(folder, 'keys.jwks'), JSON.stringify({ keys: [jwk] }))
    gather = new GivenGather(shop())
    port = 0
    await startControl()
  })

  afterEach(async () => {
    await Promise.all(open.splice(0).map((connection) => connection.close()))
    await control.stop(200)
    await rm(folder, { recursive: true, force: true })
  })

  async function startControl(): Promise<void> {
    control = new Control({
      gather,
      openAuthority: (trustDomain) => openAuthority(join(folder, 'state'), trustDomain, systemClock),
      authenticator: new JwtAuthenticator({ keyFile: join(folder, 'keys.jwks'), clock: systemClock }),
      listen: `127.0.0.1:${port}`,
      clock: systemClock,
      log: silentLog,
    })
    await control.start()
    port = Number(control.address.split(':')[1])
  }

  interface TokenOptions {
    readonly account?: string
    readonly node?: string
    readonly audience?: string
    readonly expires?: number
    readonly key?: KeyObject
  }

  async function token(options: TokenOptions = {}): Promise<string> {
    const [namespace = '', name = ''] = (options.account ?? 'ambit-system/ambit-agent').split('/')
    const node = options.node === undefined ? {} : { node: { name: options.node } }
    return await new SignJWT({ 'kubernetes.io': { namespace, serviceaccount: { name }, ...node } })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
      .setIssuer('ambit-sandbox')
      .setAudience(options.audience ?? 'istio-ca')
      .setSubject(`system:serviceaccount:${namespace}:${name}`)
      .setExpirationTime(options.expires ?? Math.floor(Date.now() / 1_000) + 3_600)
      .sign(options.key ?? signer)
  }

  const agentNode = (node: string): ClientNode => ({
    type: 'agent',
    address: '',
    name: `agent-${node}`,
    namespace: 'ambit-system',
    node,
  })
  const waypointNode: ClientNode = {
    type: 'waypoint',
    address: '',
    name: 'waypoint-1',
    namespace: 'shop',
    node: 'n2',
    gateway: 'waypoint',
  }

  async function connect(bearer: string, options: Partial<ConnectControlOptions> = {}) {
    const tokenFile = join(folder, `token-${open.length}`)
    await writeFile(tokenFile, bearer)
    const state = options.state ?? new MeshState()
    const connection = await connectControl({
      address: `127.0.0.1:${port}`,
      rootCertFile: join(folder, 'state', 'root-cert.pem'),
      tokenFile,
      kinds: agentKinds,
      node: agentNode('n1'),
      state,
      clock: systemClock,
      log: silentLog,
      ...options,
    })
    open.push(connection)
    return { connection, state }
  }

  async function until(what: string, done: () => boolean, ms = 5_000): Promise<number> {
    const start = performance.now()
    while (!done()) {
      if (performance.now() - start > ms) throw new Error(`not within ${ms} ms: ${what}`)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    return performance.now() - start
  }

  async function askFor(connection: ControlConnection, identity: Identity): Promise<readonly string[]> {
    const { csr } = await makeRequest(identity)
    return await connection.sign({ csr, identity, validitySeconds: 86_400 })
  }

  it('gives an agent every workload, service and L4 policy, and a change within 200 ms', async () => {
    const { connection, state } = await connect(await token({ node: 'n1' }))
    await connection.synced()
    expect([...state.workloads()].map(({ name }) => name).sort()).toEqual([
      'backend',
      'frontend',
      'stranger',
      'waypoint',
    ])
    expect([...state.services()].length).toBe(3)
    // An ALLOW by method never lets a connection through at L4, and agents never see AUDIT.
    expect(state.policy('shop/get')?.rules).toEqual([{ clauses: [{ matches: [{}] }] }])
    expect(state.policy('shop/audit')).toBeUndefined()
    expect(state.workload('c//Pod/shop/backend')?.authorizationPolicies).toEqual([])
    expect(state.route(backendKey, 'shop')).toBeUndefined()
    const before = control.xds.stats.resources
    const now = shop()
    const [first, ...rest] = now.workloads
    gather.give({ ...now, workloads: [{ ...first!, healthy: false }, ...rest] })
    const ms = await until('the change', () => state.workload('c//Pod/shop/frontend')?.healthy === false)
    expect(ms).toBeLessThan(200)
    expect(control.xds.stats.resources - before).toBe(1)
  })

  it('issues certificates for service accounts of pods on the node of the token, and for no other', async () => {
    const { connection } = await connect(await token({ node: 'n1' }))
    const [leaf = '', trust = ''] = await askFor(connection, frontend)
    expect(new X509Certificate(leaf).subjectAltName).toBe('URI:spiffe://cluster.local/ns/shop/sa/frontend')
    expect(new X509Certificate(leaf).verify(new X509Certificate(trust).publicKey)).toBe(true)
    await expect(askFor(connection, backend)).rejects.toMatchObject({
      code: 'CONTROL_DENIED',
      message: expect.stringContaining('no pod of node n1 runs as service account shop/backend') as string,
    })
    const other = await connect(await token({ node: 'n2' }), { node: agentNode('n2') })
    await expect(askFor(other.connection, frontend)).rejects.toThrow('no pod of node n2 runs as')
    // Waypoints keep their own keys: their node's agent gets no certificate in their name.
    await expect(askFor(other.connection, { ...frontend, serviceAccount: 'waypoint' })).rejects.toThrow(
      'no pod of node n2',
    )
    await expect(askFor(connection, { ...frontend, trustDomain: 'evil' })).rejects.toThrow(
      'trust domain is cluster.local',
    )
    // The pod leaves, the right leaves with it.
    const now = shop()
    gather.give({ ...now, workloads: now.workloads.filter(({ name }) => name !== 'frontend') })
    await expect(askFor(connection, frontend)).rejects.toThrow('no pod of node n1')
    expect(control.issued).toBe(1)
  })

  it('keeps a manager supplied over the wire', async () => {
    const { connection } = await connect(await token({ node: 'n1' }))
    const manager = new CertificateManager({
      sign: (request) => connection.sign(request),
      clock: systemClock,
      log: silentLog,
      roots: '',
    })
    const pair = await manager.keyPair(frontend)
    expect(new X509Certificate(pair.certificate).checkIssued(new X509Certificate(manager.trust()))).toBe(true)
    manager.close()
  })

  it('says clearly what is wrong with a token', async () => {
    const foreign = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
    const cases: [string, string][] = [
      [await token({ node: 'n1', expires: 1_000_000_000 }), 'the token expired at 2001-09-09T01:46:40.000Z'],
      [await token({ node: 'n1', key: foreign }), 'signed by a key this control does not know'],
      [await token({ node: 'n1', audience: 'vault' }), "for another audience, not 'istio-ca'"],
      ['not.a.jwt', 'the token is not a signed JWT'],
      ['', 'there is no bearer token'],
      [await token({}), 'is not bound to a node'],
      [await token({ node: 'n2' }), "the token is for node n2, and the agent says it runs on 'n1'"],
      [await token({ account: 'shop/frontend', node: 'n1' }), 'it is not ambit-system/ambit-agent'],
    ]
    for (const [bearer, message] of cases) {
      const { connection, state } = await connect(bearer)
      await until(message, () => connection.status().error.includes(message))
      expect([...state.workloads()]).toEqual([])
      await expect(askFor(connection, frontend), message).rejects.toMatchObject({
        code: expect.stringMatching(/CONTROL_(UNAUTHENTICATED|DENIED)/) as string,
      })
      await connection.close()
    }
  })

  it('does not talk to a server that the root does not know', async () => {
    const root = join(folder, 'other-root.pem')
    const other = await openAuthority(join(folder, 'other'), 'x', systemClock)
    await writeFile(root, other.trustBundle)
    const { connection } = await connect(await token({ node: 'n1' }), { rootCertFile: root })
    await until('a refusal', () => /certificate/i.test(connection.status().error))
    // The right root is written: read again at the next attempt.
    await writeFile(
      root,
      await import('node:fs/promises').then((fs) => fs.readFile(join(folder, 'state', 'root-cert.pem'))),
    )
    await connection.synced()
  })

  it('names a root or token file that is not there', async () => {
    const { connection } = await connect('x', { rootCertFile: join(folder, 'nowhere.pem') })
    await until('the message', () => connection.status().error.includes('nowhere.pem'))
  })

  it('sends only differences to an agent that comes back, also after a restart of control', async () => {
    const { connection, state } = await connect(await token({ node: 'n1' }))
    await connection.synced()
    await control.stop(200)
    await until('the cut', () => !connection.status().connected)
    expect(state.workload('c//Pod/shop/frontend')).toBeDefined()
    const now = shop()
    gather.translation = { ...now, services: now.services.slice(0, 2) }
    await startControl()
    await until('the reconnect', () => connection.status().connected, 10_000)
    await until('the removal', () => [...state.services()].length === 2)
    expect(control.xds.stats.resources).toBe(1)
    // The restarted control signs with the same root.
    await expect(askFor(connection, frontend)).resolves.toHaveLength(2)
  })

  it('tells an agent of the pods of its own node only, whatever it asks for, and of each change of them', async () => {
    const { connection, state } = await connect(await token({ node: 'n1' }))
    await connection.synced('Pod')
    expect([...state.pods()].map(({ name }) => name)).toEqual(['frontend'])
    const now = shop()
    const opted = samplePod({ name: 'frontend', node: 'n1', enrolment: 'not_enrolled' })
    const responses = control.xds.stats.responses
    gather.give({ ...now, pods: [opted, samplePod({ name: 'backend', node: 'n2', addresses: ['10.0.2.1'] })] })
    await until('its pod', () => state.pod('uid-of-frontend')?.enrolment === 'not_enrolled')
    expect(control.xds.stats.responses).toBe(responses + 1)
    gather.give({ ...now, pods: [opted, samplePod({ name: 'backend', node: 'n2', addresses: ['10.0.2.2'] })] })
    gather.give({ ...now, pods: [] })
    await until('it to go', () => [...state.pods()].length === 0)
    expect(connection.status().kinds.find(({ kind }) => kind === 'Pod')?.responses).toBe(3)
  })

  it('lets an agent that restarts while control is away go on with its last good state', async () => {
    const lastGoodFile = join(folder, 'agent', 'last-good')
    const first = await connect(await token({ node: 'n1' }), { lastGoodFile })
    await first.connection.synced()
    await first.connection.close()
    await control.stop(200)
    const second = await connect(await token({ node: 'n1' }), { lastGoodFile })
    expect(second.connection.restored).toBe(true)
    expect(second.state.workloadByAddress('10.0.2.1')?.name).toBe('backend')
    expect(second.state.policy('shop/get')?.action).toBe('ALLOW')
    expect(second.connection.status().kinds.every(({ synced }) => !synced)).toBe(true)
    await startControl()
    await second.connection.synced()
    expect(control.xds.stats.resources).toBe(0)
  })

  it('lets an agent go on that cannot write its last good state, says so once, and writes it when it can', async () => {
    const lastGoodFile = join(folder, 'full', 'last-good')
    // A file where its folder is to be: nothing can be written, whoever tries.
    await writeFile(join(folder, 'full'), '')
    const clock = new ManualClock(Date.now())
    const said: string[] = []
    const log = { ...silentLog, warn: (_: unknown, text: string) => said.push(text) } as unknown as typeof silentLog
    const { connection, state } = await connect(await token({ node: 'n1' }), { lastGoodFile, clock, log })
    await connection.synced()
    for (let i = 0; i < 3; i++) {
      clock.advance(30_000)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(state.workloadByAddress('10.0.2.1')?.name).toBe('backend')
    expect(said.filter((text) => text.includes('not written'))).toEqual(['last good state not written'])
    await rm(join(folder, 'full'))
    clock.advance(30_000)
    await until('the file', () => existsSync(lastGoodFile))
  })

  it('gives a waypoint what its namespace needs, whole policies, and its own certificate only', async () => {
    const { connection, state } = await connect(await token({ account: 'shop/waypoint' }), {
      kinds: waypointKinds,
      node: waypointNode,
    })
    await connection.synced()
    expect([...state.services()].map(({ name }) => name).sort()).toEqual(['backend', 'waypoint'])
    expect(state.policy('shop/get')?.rules[0]?.clauses[0]?.matches[0]?.methods).toEqual([
      { type: 'exact', value: 'GET' },
    ])
    expect(state.policy('other/far')).toBeUndefined()
    expect(state.policy('shop/audit')?.action).toBe('AUDIT')
    expect(state.route(backendKey, 'shop')).toBeDefined()
    expect(state.endpoints(backendKey).map(({ name }) => name)).toEqual(['backend'])
    expect([...state.workloads()].map(({ name }) => name)).not.toContain('stranger')
    await expect(askFor(connection, { ...frontend, serviceAccount: 'waypoint' })).resolves.toHaveLength(2)
    await expect(askFor(connection, frontend)).rejects.toMatchObject({ code: 'CONTROL_BAD_REQUEST' })
    // A service comes under the waypoint: it and its policies appear.
    const now = shop()
    const [a, b, c] = now.services
    gather.give({ ...now, services: [a!, b!, { ...c!, waypoint: behind }] })
    await until('the new service', () => [...state.services()].length === 3)
    await until('its policy', () => state.policy('other/far') !== undefined)
    gather.give(now)
    await until('it to go again', () => [...state.services()].length === 2)
    // A policy stays for as long as it exists: it must not go before what it guards.
    expect(state.policy('other/far')).toBeDefined()
    gather.give({ ...now, policies: now.policies.filter(({ name }) => name !== 'far') })
    await until('its policy to go', () => state.policy('other/far') === undefined)
  })

  it('refuses a waypoint stream to anyone but its service account', async () => {
    for (const account of ['shop/frontend', 'other/waypoint']) {
      const { connection } = await connect(await token({ account }), { kinds: waypointKinds, node: waypointNode })
      await until('a refusal', () => connection.status().error.includes('is not the service account of waypoint'))
    }
  })

  it('publishes a DENY in place of a policy that cannot be carried', async () => {
    const { connection, state } = await connect(await token({ node: 'n1' }))
    await connection.synced()
    const now = shop()
    const broken = samplePolicy(
      'ALLOW',
      { sourceIps: [{ address: 'nonsense', length: 8 }] },
      { namespace: 'shop', name: 'bad' },
    )
    gather.give({ ...now, policies: [...now.policies, broken] })
    await until('the denial', () => state.policy('shop/bad') !== undefined)
    expect(state.policy('shop/bad')).toMatchObject({ action: 'DENY', scope: 'namespace', rules: [{ clauses: [] }] })
    expect(control.publisher.unpublished[0]).toMatchObject({
      name: 'shop/bad',
      reason: expect.stringContaining('nonsense') as string,
    })
  })
})
