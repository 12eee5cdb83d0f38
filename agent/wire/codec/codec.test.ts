// Every domain object comes back from the wire as it went in, and equal objects give equal bytes.
import { create, toBinary } from '@bufbuild/protobuf'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatCidr, formatIp, parseCidr } from '../../base/ip.ts'
import type { AuthzMatch, RouteStringMatch } from '../../mesh/match.ts'
import type { NodePod } from '../../mesh/pod.ts'
import type { KeyedMatch, Match, Policy } from '../../mesh/policy.ts'
import type { HeaderOps, PathMatch, Redirect, Rewrite, Route, RouteAction } from '../../mesh/route.ts'
import type { Service } from '../../mesh/service.ts'
import type { MeshSettings } from '../../mesh/settings.ts'
import type { Source } from '../../mesh/source.ts'
import type { Upstream } from '../../mesh/upstream.ts'
import type { GatewayRef, Workload } from '../../mesh/workload.ts'
import { AuthorizationSchema, type Action } from '../gen/istio/security/authorization_pb.js'
import { AddressSchema } from '../gen/istio/workload/workload_pb.js'
import { addressCodec } from './address.ts'
import { authorizationCodec } from './authorization.ts'
import type { Codec } from './codec.ts'
import { policyCodec } from './policy.ts'
import { podCodec } from './pod.ts'
import { routeCodec } from './route.ts'
import { settingsCodec } from './settings.ts'
import { upstreamCodec } from './upstream.ts'

const text = fc.string({ maxLength: 12 })
const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,10}$/)
const port = fc.integer({ min: 0, max: 65_535 })
const uint = fc.nat({ max: 0xffff_ffff })
const millis = fc.oneof(fc.nat(), fc.double({ min: 0, max: 1e9, noNaN: true })).map((value) => value + 0)
const ip = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map(formatIp),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map(formatIp),
)
const labels = fc.dictionary(name, text, { maxKeys: 4, noNullPrototype: true })
const strings = fc.array(text, { maxLength: 3 })

/** A record whose optional fields are sometimes absent (never `undefined`). */
function record<T>(required: object, optional: object = {}): fc.Arbitrary<T> {
  return fc.record({ ...required, ...optional } as Record<string, fc.Arbitrary<unknown>>, {
    requiredKeys: Object.keys(required),
    noNullPrototype: true,
  }) as fc.Arbitrary<T>
}

const source = record<Source>(
  { kind: name, namespace: name, name },
  { generation: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }), place: text },
)
const gateway: fc.Arbitrary<GatewayRef> = fc.oneof(
  record<GatewayRef>({ hostname: fc.tuple(name, text).map(([ns, host]) => `${ns}/${host}`), port }),
  record<GatewayRef>({ address: ip, port }),
)

const pod = record<NodePod>({
  uid: name,
  kubeletUid: name,
  namespace: name,
  name,
  node: name,
  serviceAccount: text,
  addresses: fc.array(ip, { maxLength: 2 }),
  containers: fc.array(name, { maxLength: 3 }),
  hostNetwork: fc.boolean(),
  stage: fc.constantFrom('Pending', 'Running', 'Unknown'),
  enrolment: fc.constantFrom('enrolled', 'not_enrolled', 'exempt', 'host_network', 'sidecar', 'own_tunnel'),
})

const workload = record<Workload>(
  {
    uid: text.filter((uid) => uid !== ''),
    name: text,
    namespace: text,
    serviceAccount: name,
    trustDomain: name,
    addresses: fc.array(ip, { maxLength: 3 }),
    network: text,
    node: text,
    clusterId: text,
    tunnelProtocol: fc.constantFrom('NONE', 'HBONE'),
    nativeTunnel: fc.boolean(),
    hostNetwork: fc.boolean(),
    services: fc.dictionary(name, fc.dictionary(port.map(String), port, { noNullPrototype: true }), {
      maxKeys: 3,
      noNullPrototype: true,
    }),
    authorizationPolicies: strings,
    healthy: fc.boolean(),
    canonicalName: text,
    canonicalRevision: text,
    workloadType: fc.constantFrom('deployment', 'pod', 'Deployment', 'StatefulSet', 'cronjob', 'job', ''),
    workloadName: text,
    locality: record({ region: text, zone: text, subzone: text }),
    capacity: uint,
    sameNode: fc.constantFrom('direct', 'tunnel'),
    labels,
  },
  { waypoint: gateway },
)

const service = record<Service>(
  {
    name: text,
    namespace: name,
    hostname: name,
    addresses: fc.array(ip, { maxLength: 3 }),
    ports: fc.array(
      record<Service['ports'][number]>({
        port,
        targetPort: port,
        name: text,
        protocol: fc.constantFrom('http', 'http2', 'grpc', 'tcp', 'tls', 'unknown'),
      }),
      { maxLength: 3 },
    ),
    subjectAltNames: strings,
    routingPreference: fc.array(fc.constantFrom('REGION', 'ZONE', 'SUBZONE', 'NODE', 'CLUSTER', 'NETWORK')),
    loadBalancing: fc.constantFrom('UNSPECIFIED', 'STRICT', 'FAILOVER', 'PASSTHROUGH'),
    allowUnhealthy: fc.boolean(),
    sessionAffinitySeconds: uint,
  },
  { waypoint: gateway },
)

const stringMatch: fc.Arbitrary<AuthzMatch> = fc.oneof(
  fc.record({ type: fc.constantFrom('exact', 'prefix', 'suffix'), value: text }, { noNullPrototype: true }),
  fc.constant<AuthzMatch>({ type: 'presence' }),
)
const template: fc.Arbitrary<AuthzMatch> = text.map((value) => ({ type: 'template', value }))
const some = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(value, { minLength: 1, maxLength: 3 })
const both = (fields: Record<string, fc.Arbitrary<unknown>>): Record<string, fc.Arbitrary<unknown>> =>
  Object.fromEntries(
    Object.entries(fields).flatMap(([field, value]) => [
      [field, value],
      [`not${field.charAt(0).toUpperCase()}${field.slice(1)}`, value],
    ]),
  )
const range = fc.tuple(ip, fc.nat({ max: 32 })).map(([address, length]) => {
  const canonical = formatCidr(parseCidr(`${address}/${length}`) ?? { bytes: new Uint8Array(4), length: 0 })
  const slash = canonical.indexOf('/')
  return { address: canonical.slice(0, slash), length: Number(canonical.slice(slash + 1)) }
})
const keyed = record<KeyedMatch>({ key: text, values: fc.array(stringMatch, { maxLength: 3 }) })
const l4 = {
  ...both({
    principals: some(stringMatch),
    namespaces: some(stringMatch),
    serviceAccounts: some(record({ namespace: text, name: text })),
    sourceIps: some(range),
    destinationIps: some(range),
    destinationPorts: some(port),
  }),
}
const l7 = both({
  trustDomains: some(stringMatch),
  remoteIps: some(range),
  hosts: some(stringMatch),
  methods: some(stringMatch),
  paths: some(fc.oneof(stringMatch, template)),
  headers: some(keyed),
  requestPrincipals: some(stringMatch),
  audiences: some(stringMatch),
  presenters: some(stringMatch),
  claims: some(keyed),
  sni: some(stringMatch),
})
const rulesOf = (match: fc.Arbitrary<Match>) =>
  fc.array(
    record<Policy['rules'][number]>({
      clauses: fc.array(record({ matches: fc.array(match, { maxLength: 2 }) }), { maxLength: 3 }),
    }),
    { maxLength: 3 },
  )
const policy = record<Policy>(
  {
    namespace: name,
    name,
    scope: fc.constantFrom('global', 'namespace', 'workload', 'target'),
    action: fc.constantFrom('ALLOW', 'DENY', 'AUDIT', 'CUSTOM'),
    dryRun: fc.boolean(),
    selector: labels,
    targets: fc.array(record({ kind: text, namespace: text, name: text }), { maxLength: 2 }),
    rules: rulesOf(record<Match>({}, { ...l4, ...l7, unsupported: some(text) })),
    source,
  },
  { provider: text },
)
const l4Policy = record<Policy>({
  namespace: name,
  name,
  scope: fc.constantFrom('global', 'namespace', 'workload'),
  action: fc.constantFrom('ALLOW', 'DENY'),
  dryRun: fc.boolean(),
  selector: labels,
  targets: fc.constant([]),
  rules: rulesOf(record<Match>({}, l4)),
  source,
})

const routeString: fc.Arbitrary<RouteStringMatch> = fc.oneof(
  record<RouteStringMatch>({ type: fc.constantFrom('exact', 'prefix'), value: text }, { ignoreCase: fc.boolean() }),
  record<RouteStringMatch>({ type: fc.constant('regex'), value: text }),
  fc.constant<RouteStringMatch>({ type: 'present' }),
)
const path: fc.Arbitrary<PathMatch> = fc.oneof(
  record<PathMatch>({ type: fc.constantFrom('exact', 'prefix'), value: text, ignoreCase: fc.boolean() }),
  record<PathMatch>({ type: fc.constantFrom('elements', 'regex'), value: text }),
)
const named = fc.array(record<{ name: string; match: RouteStringMatch }>({ name: text, match: routeString }), {
  maxLength: 2,
})
const headers = record<HeaderOps>({ set: labels, add: labels, remove: strings })
const destination = record<Route['tcp'][number]['destinations'][number]>(
  { service: text, host: text, subset: text, port, weight: uint },
  { requestHeaders: headers, responseHeaders: headers },
)
const redirect = record<Redirect>(
  { status: fc.integer({ min: 300, max: 399 }) },
  {
    scheme: text,
    authority: text,
    port,
    derivePort: fc.constantFrom('FROM_PROTOCOL_DEFAULT', 'FROM_REQUEST_PORT'),
    path: text,
    prefixPath: text,
  },
)
const action: fc.Arbitrary<RouteAction> = fc.oneof(
  record<RouteAction>({ type: fc.constant('forward'), destinations: fc.array(destination, { maxLength: 3 }) }),
  record<RouteAction>({ type: fc.constant('redirect'), redirect }),
  record<RouteAction>({ type: fc.constant('respond'), status: fc.nat({ max: 599 }), body: text }),
)
const rewrite = record<Rewrite>(
  {},
  { uri: text, fullPath: text, prefixPath: text, authority: text, regex: record({ match: text, rewrite: text }) },
)
const rule = record<Route['rules'][number]>(
  {
    name: text,
    matches: fc.array(
      record<Route['rules'][number]['matches'][number]>(
        {
          name: text,
          headers: named,
          withoutHeaders: named,
          queryParams: named,
          port,
          sourceNamespace: text,
          sourceLabels: labels,
        },
        { path, method: routeString, scheme: routeString, authority: routeString },
      ),
      { maxLength: 2 },
    ),
    action,
    unsupported: strings,
    source,
  },
  {
    timeoutMs: millis,
    retry: record(
      {
        attempts: uint,
        retryOn: strings,
        statusCodes: fc.array(fc.nat({ max: 599 }), { maxLength: 2 }),
        backoffMs: millis,
        ignorePreviousHosts: fc.boolean(),
      },
      { perTryTimeoutMs: millis },
    ),
    rewrite,
    requestHeaders: headers,
    responseHeaders: headers,
  },
)
const route = record<Route>({
  dialect: fc.constantFrom('VirtualService', 'HTTPRoute'),
  namespace: name,
  hostname: name,
  consumerNamespace: fc.oneof(name, fc.constant('*')),
  rules: fc.array(rule, { maxLength: 3 }),
  tcp: fc.array(record({ port, destinations: fc.array(destination, { maxLength: 2 }), source }), { maxLength: 2 }),
  source,
})

const trafficPolicy = record<Upstream['policy']>(
  {},
  {
    loadBalancer: fc.constantFrom('ROUND_ROBIN', 'LEAST_REQUEST', 'RANDOM', 'PASSTHROUGH'),
    connectionPool: record(
      {},
      {
        maxConnections: uint,
        connectTimeoutMs: millis,
        http1MaxPendingRequests: uint,
        http2MaxRequests: uint,
        maxRequestsPerConnection: uint,
        maxRetries: uint,
        idleTimeoutMs: millis,
        tcpIdleTimeoutMs: millis,
        maxConnectionDurationMs: millis,
        maxConcurrentStreams: uint,
        h2Upgrade: fc.constantFrom('DEFAULT', 'DO_NOT_UPGRADE', 'UPGRADE'),
        useClientProtocol: fc.boolean(),
      },
    ),
    outlierDetection: record({
      consecutive5xxErrors: uint,
      consecutiveGatewayErrors: uint,
      splitExternalLocalOriginErrors: fc.boolean(),
      consecutiveLocalOriginFailures: uint,
      intervalMs: millis,
      baseEjectionTimeMs: millis,
      maxEjectionPercent: fc.nat({ max: 100 }),
      minHealthPercent: fc.nat({ max: 100 }),
    }),
  },
)
const upstream = record<Upstream>({
  namespace: name,
  hostname: name,
  consumerNamespace: name,
  policy: trafficPolicy,
  portPolicies: fc.dictionary(port.map(String), trafficPolicy, { maxKeys: 2, noNullPrototype: true }),
  subsets: fc.array(record({ name: text, labels, source }, { policy: trafficPolicy }), { maxLength: 2 }),
  sources: fc.array(source, { maxLength: 2 }),
})

const settings = record<MeshSettings>({
  trustDomain: name,
  trustDomainAliases: strings,
  rootNamespace: text,
  clusterDomain: text,
  outboundTrafficPolicy: fc.constantFrom('ALLOW_ANY', 'REGISTRY_ONLY'),
  pathNormalization: fc.constantFrom('NONE', 'BASE', 'MERGE_SLASHES', 'DECODE_AND_MERGE_SLASHES'),
  l7Selector: fc.constantFrom('ambit', 'istio'),
  sameNode: fc.constantFrom('direct', 'tunnel'),
  enrolledNamespaces: strings,
  trustBundle: text,
})

/** Shuffles the keys of every object, deeply: the same value, built in another order. */
function reordered<T>(value: T): T {
  if (Array.isArray(value)) return value.map(reordered) as T
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, inner]) => [key, reordered(inner)]),
  ) as T
}

function roundTrips<T>(codec: Codec<T>, values: fc.Arbitrary<T>): void {
  it(`carries every ${codec.kind} without loss`, () => {
    fc.assert(
      fc.property(values, (value) => {
        expect(codec.decode(codec.encode(value))).toEqual(value)
      }),
    )
  })
  it(`gives equal ${codec.kind} objects equal bytes, whatever order they were built in`, () => {
    fc.assert(
      fc.property(values, (value) => {
        expect(codec.encode(reordered(value))).toEqual(codec.encode(value))
      }),
    )
  })
  it(`answers arbitrary bytes for a ${codec.kind} with an object or an error, never a hang`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          codec.decode(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(Error)
        }
      }),
    )
  })
}

describe('codecs', () => {
  roundTrips(
    addressCodec,
    fc.oneof(
      workload.map((value) => ({ type: 'workload', workload: value }) as const),
      service.map((value) => ({ type: 'service', service: value }) as const),
    ),
  )
  roundTrips(policyCodec, policy)
  roundTrips(podCodec, pod)
  roundTrips(authorizationCodec, l4Policy)
  roundTrips(routeCodec, route)
  roundTrips(upstreamCodec, upstream)
  roundTrips(settingsCodec, settings)

  const denyAll: Policy = {
    namespace: 'shop',
    name: 'p',
    scope: 'namespace',
    action: 'DENY',
    dryRun: false,
    selector: {},
    targets: [],
    rules: [],
    source: { kind: 'AuthorizationPolicy', namespace: 'shop', name: 'p' },
  }
  const withMatch = (match: Match): Policy => ({ ...denyAll, rules: [{ clauses: [{ matches: [match] }] }] })

  it('refuses to send agents an attribute that they could not evaluate', () => {
    for (const match of [
      { methods: [{ type: 'exact', value: 'GET' }] },
      { notPaths: [{ type: 'presence' }] },
      { remoteIps: [{ address: '10.0.0.0', length: 8 }] },
      { trustDomains: [{ type: 'exact', value: 'td' }] },
      { unsupported: ['experimental.x'] },
    ] as const) {
      expect(() => authorizationCodec.encode(withMatch(match))).toThrow('no agent can evaluate it')
    }
  })

  it('refuses policies that no agent enforces', () => {
    expect(() => authorizationCodec.encode({ ...denyAll, action: 'AUDIT' })).toThrow('AUDIT')
    expect(() => authorizationCodec.encode({ ...denyAll, scope: 'target' })).toThrow('bound to targets')
  })

  it('carries an empty value list as the absent one, which means the same', () => {
    const match: Match = { principals: [], notPaths: [], destinationPorts: [80] }
    for (const codec of [authorizationCodec, policyCodec]) {
      expect(codec.decode(codec.encode(withMatch(match)))).toEqual(withMatch({ destinationPorts: [80] }))
    }
  })

  it('refuses enum values from a newer version instead of reading them as the default', () => {
    const bytes = toBinary(
      AuthorizationSchema,
      create(AuthorizationSchema, { name: 'a', namespace: 'b', action: 7 as Action }),
    )
    expect(() => authorizationCodec.decode(bytes)).toThrow('authorization action 7')
    const unknownMatch = toBinary(
      AuthorizationSchema,
      create(AuthorizationSchema, { rules: [{ clauses: [{ matches: [{ principals: [{}] }] }] }] }),
    )
    expect(() => authorizationCodec.decode(unknownMatch)).toThrow('string match of a kind')
  })

  it('reads what istiod elides: default trust domain and service account, no extensions', () => {
    const bytes = toBinary(
      AddressSchema,
      create(AddressSchema, {
        type: {
          case: 'workload',
          value: { uid: 'c//Pod/ns/a', addresses: [Uint8Array.of(10, 0, 0, 1)], tunnelProtocol: 1 },
        },
      }),
    )
    expect(addressCodec.decode(bytes)).toMatchObject({
      workload: {
        trustDomain: 'cluster.local',
        serviceAccount: 'default',
        capacity: 1,
        sameNode: 'direct',
        labels: {},
        addresses: ['10.0.0.1'],
      },
    })
  })

  it('refuses an address of five bytes', () => {
    const bytes = toBinary(
      AddressSchema,
      create(AddressSchema, { type: { case: 'workload', value: { uid: 'x', addresses: [new Uint8Array(5)] } } }),
    )
    expect(() => addressCodec.decode(bytes)).toThrow('5 bytes')
  })

  it('writes the field numbers of Istio that a stock ztunnel reads', () => {
    const bytes = addressCodec.encode({
      type: 'service',
      service: {
        name: '',
        namespace: '',
        hostname: 'h',
        addresses: ['1.2.3.4'],
        ports: [{ port: 80, targetPort: 8080, name: '', protocol: 'unknown' }],
        subjectAltNames: [],
        routingPreference: [],
        loadBalancing: 'UNSPECIFIED',
        allowUnhealthy: false,
        sessionAffinitySeconds: 0,
      },
    })
    // Address.service = 2 { hostname = 3, addresses = 4 { address = 2 }, ports = 5 { service_port = 1, target_port = 2 } }
    const expected = [0x12, 18, 0x1a, 1, 0x68, 0x22, 6, 0x12, 4, 1, 2, 3, 4, 0x2a, 5, 0x08, 80, 0x10, 0x90, 0x3f]
    expect([...bytes]).toEqual(expected)
  })
})
