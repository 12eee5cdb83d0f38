// DestinationRule (networking.istio.io): the schema, and its policies in the domain's words.
// Must not live here: which rules speak about a host and how they merge (destination-rule-upstreams.ts).
// Fields and defaults after istio.io/api networking/v1alpha3/destination_rule.proto.
import { z } from 'zod'
import type { ConnectionPool, OutlierDetection, TrafficPolicy } from '../mesh/upstream.ts'
import { defineKind, type FieldPath, type Report, type Resource } from './resource.ts'
import { count, duration, istioPort, labels, object, percent, positiveDuration, selector } from './schema.ts'

const loadBalancer = object({
  simple: z.enum(['UNSPECIFIED', 'LEAST_REQUEST', 'LEAST_CONN', 'ROUND_ROBIN', 'RANDOM', 'PASSTHROUGH']),
  consistentHash: z.looseObject({}),
  localityLbSetting: z.looseObject({}),
  zoneAwareLbSetting: z.looseObject({}),
  warmup: z.looseObject({}),
  warmupDurationSecs: z.string(),
})

const connectionPool = object({
  tcp: object({
    maxConnections: z.int().min(1),
    connectTimeout: positiveDuration,
    tcpKeepalive: object({ probes: count, time: duration, interval: duration }),
    maxConnectionDuration: duration,
    idleTimeout: duration,
  }),
  http: object({
    http1MaxPendingRequests: count,
    http2MaxRequests: count,
    maxRequestsPerConnection: z.int().min(0).max(536_870_912),
    maxRetries: count,
    idleTimeout: duration,
    h2UpgradePolicy: z.enum(['DEFAULT', 'DO_NOT_UPGRADE', 'UPGRADE']),
    useClientProtocol: z.boolean(),
    maxConcurrentStreams: count,
    http2KeepAlive: object({ interval: duration, timeout: duration }),
  }),
})

const outlierDetection = object({
  consecutive5xxErrors: count,
  consecutiveErrors: count,
  consecutiveGatewayErrors: count,
  splitExternalLocalOriginErrors: z.boolean(),
  consecutiveLocalOriginFailures: count,
  interval: positiveDuration,
  baseEjectionTime: positiveDuration,
  maxEjectionPercent: percent,
  minHealthPercent: percent,
  outlierDetectionHttpErrorCodes: z.unknown(),
})

const tls = object({
  mode: z.enum(['DISABLE', 'SIMPLE', 'MUTUAL', 'ISTIO_MUTUAL']),
  clientCertificate: z.string(),
  privateKey: z.string(),
  caCertificates: z.string(),
  credentialName: z.string(),
  subjectAltNames: z.array(z.string()),
  sni: z.string(),
  insecureSkipVerify: z.boolean(),
  caCrl: z.string(),
})

const portPolicy = { loadBalancer, connectionPool, outlierDetection, tls }
const trafficPolicy = object({
  ...portPolicy,
  portLevelSettings: z.array(object({ ...portPolicy, port: istioPort })),
  tunnel: z.looseObject({}),
  proxyProtocol: z.looseObject({}),
  retryBudget: z.looseObject({}),
})
export type TrafficPolicySpec = z.infer<typeof trafficPolicy>

const schema = z.strictObject({
  spec: z.strictObject({
    host: z.string().min(1),
    trafficPolicy: trafficPolicy.optional(),
    subsets: z
      .array(
        z.strictObject({ name: z.string().min(1), labels: labels.optional(), trafficPolicy: trafficPolicy.optional() }),
      )
      .optional(),
    exportTo: z.array(z.string()).optional(),
    workloadSelector: selector.optional(),
  }),
  status: z.unknown().optional(),
})
export type DestinationRuleBody = z.infer<typeof schema>

/** The notes of a traffic policy hold wherever one stands. */
const POLICY_NOTES = [
  {
    path: 'loadBalancer.consistentHash',
    code: 'CONFIG_NOT_YET',
    feature: 'consistent-hash balancing',
    hint: 'LEAST_REQUEST is used instead.',
  },
  { path: 'loadBalancer.localityLbSetting', code: 'CONFIG_NOT_YET', feature: 'locality-aware balancing' },
  { path: 'loadBalancer.zoneAwareLbSetting', code: 'CONFIG_NOT_YET', feature: 'zone-aware balancing' },
  { path: 'loadBalancer.warmup', code: 'CONFIG_NOT_YET', feature: 'slow start' },
  { path: 'loadBalancer.warmupDurationSecs', code: 'CONFIG_NOT_YET', feature: 'slow start' },
  { path: 'connectionPool.tcp.tcpKeepalive', code: 'CONFIG_NOT_YET', feature: 'TCP keep-alive settings' },
  { path: 'connectionPool.http.http2KeepAlive', code: 'CONFIG_NOT_YET', feature: 'HTTP/2 keep-alive pings' },
  {
    path: 'outlierDetection.outlierDetectionHttpErrorCodes',
    code: 'CONFIG_NOT_YET',
    feature: 'outlier detection by chosen status codes',
  },
  {
    path: 'outlierDetection.consecutiveErrors',
    code: 'CONFIG_DEPRECATED',
    feature: 'read as consecutive5xxErrors',
    hint: 'Write consecutive5xxErrors.',
  },
  { path: 'tunnel', code: 'CONFIG_NOT_YET', feature: 'tunnelling to an HTTP proxy' },
  { path: 'proxyProtocol', code: 'CONFIG_NOT_YET', feature: 'the PROXY protocol towards a service' },
  { path: 'retryBudget', code: 'CONFIG_NOT_YET', feature: 'retry budgets' },
] as const

const POLICY_PLACES = [
  'spec.trafficPolicy',
  'spec.trafficPolicy.portLevelSettings[]',
  'spec.subsets[].trafficPolicy',
  'spec.subsets[].trafficPolicy.portLevelSettings[]',
]

export const destinationRule = defineKind({
  kind: 'DestinationRule',
  group: 'networking.istio.io',
  versions: ['v1', 'v1beta1', 'v1alpha3'],
  schema,
  notes: [
    ...POLICY_PLACES.flatMap((place) => POLICY_NOTES.map((note) => ({ ...note, path: `${place}.${note.path}` }))),
    {
      path: 'spec.workloadSelector',
      code: 'CONFIG_NOT_YET',
      feature: 'DestinationRules for chosen client workloads',
      hint: 'The rule is left out.',
    },
    {
      path: 'spec.subsets[].trafficPolicy.portLevelSettings',
      code: 'CONFIG_NOT_YET',
      feature: 'settings for one port of one subset',
    },
  ],
  mistakes: {
    'spec.hosts': 'The field is called host and is one name.',
    'spec.trafficPolicy.tcp': 'Write it inside connectionPool.',
    'spec.trafficPolicy.http': 'Write it inside connectionPool.',
    'spec.trafficPolicy.connectionPool.maxConnections': 'Write it inside tcp.',
    'spec.trafficPolicy.connectionPool.http1MaxPendingRequests': 'Write it inside http.',
    'spec.trafficPolicy.connectionPool.http.maxPendingRequests': 'The field is called http1MaxPendingRequests.',
    'spec.trafficPolicy.outlierDetection.consecutive5xx': 'The field is called consecutive5xxErrors.',
    'spec.loadBalancer': 'Write it inside trafficPolicy.',
    'spec.connectionPool': 'Write it inside trafficPolicy.',
    'spec.outlierDetection': 'Write it inside trafficPolicy.',
  },
  check,
})

function check(resource: Resource<DestinationRuleBody>, report: Report): void {
  const { spec } = resource.body
  checkPolicy(spec.trafficPolicy, ['spec', 'trafficPolicy'], report)
  const names = new Set<string>()
  for (const [index, subset] of (spec.subsets ?? []).entries()) {
    const path: FieldPath = ['spec', 'subsets', index]
    if (names.has(subset.name)) {
      report({
        severity: 'error',
        code: 'CONFIG_DUPLICATE',
        path: [...path, 'name'],
        message: `The subset ${subset.name} is declared twice.`,
        hint: 'Give each subset its own name.',
      })
    }
    names.add(subset.name)
    if (!subset.labels || Object.keys(subset.labels).length === 0) {
      report({
        severity: 'warning',
        code: 'CONFIG_REQUIRED',
        path,
        message: `The subset ${subset.name} has no labels: it is every endpoint of the service.`,
      })
    }
    checkPolicy(subset.trafficPolicy, [...path, 'trafficPolicy'], report)
  }
}

function checkPolicy(policy: TrafficPolicySpec | undefined, path: FieldPath, report: Report): void {
  if (!policy) return
  const sections = [
    { policy, path },
    ...(policy.portLevelSettings ?? []).map((one, index) => ({
      policy: one,
      path: [...path, 'portLevelSettings', index],
    })),
  ]
  for (const at of sections) {
    if (at.policy.loadBalancer?.simple === 'LEAST_CONN') {
      report({
        severity: 'info',
        code: 'CONFIG_DEPRECATED',
        path: [...at.path, 'loadBalancer', 'simple'],
        message: 'LEAST_CONN is the old name of LEAST_REQUEST, and is read as that.',
        hint: 'Write simple: LEAST_REQUEST.',
      })
    }
    if (at.policy.loadBalancer?.simple !== undefined && at.policy.loadBalancer.consistentHash) {
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: [...at.path, 'loadBalancer'],
        message: 'Only one of simple and consistentHash may be set.',
      })
    }
    checkTls(at.policy.tls?.mode, [...at.path, 'tls', 'mode'], report)
  }
  for (const [index, one] of (policy.portLevelSettings ?? []).entries()) {
    if (one.port?.number === undefined)
      report({
        severity: 'error',
        code: 'CONFIG_REQUIRED',
        path: [...path, 'portLevelSettings', index],
        message: 'The field port.number is missing.',
      })
  }
}

function checkTls(mode: string | undefined, path: FieldPath, report: Report): void {
  if (mode === 'ISTIO_MUTUAL' || mode === 'DISABLE') {
    report({
      severity: 'info',
      code: 'CONFIG_NO_EFFECT',
      path,
      message: `mode: ${mode} has no effect: traffic between workloads of the mesh is always mutual TLS, in the tunnel.`,
      hint:
        mode === 'DISABLE'
          ? 'To leave the mesh, label the workload istio.io/dataplane-mode: none.'
          : 'The field can be left out.',
    })
  } else if (mode !== undefined) {
    report({
      severity: 'warning',
      code: 'CONFIG_NOT_YET',
      path,
      message: `mode: ${mode}: starting TLS towards a service is a feature Ambit does not have yet.`,
    })
  }
}

/** A policy in the domain's words, without its port-level part. Absent sections stay absent, so that they can be merged. */
export function toTrafficPolicy(
  spec: Pick<TrafficPolicySpec, 'loadBalancer' | 'connectionPool' | 'outlierDetection'>,
): TrafficPolicy {
  const simple = spec.loadBalancer?.simple
  const balancer =
    simple === undefined || simple === 'UNSPECIFIED' ? undefined : simple === 'LEAST_CONN' ? 'LEAST_REQUEST' : simple
  return {
    ...(balancer ? { loadBalancer: balancer } : {}),
    ...(spec.connectionPool ? { connectionPool: toConnectionPool(spec.connectionPool) } : {}),
    ...(spec.outlierDetection ? { outlierDetection: toOutlierDetection(spec.outlierDetection) } : {}),
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

function toConnectionPool(spec: NonNullable<TrafficPolicySpec['connectionPool']>): ConnectionPool {
  const { tcp = {}, http = {} } = spec
  const pool: Mutable<ConnectionPool> = {}
  if (tcp.maxConnections !== undefined) pool.maxConnections = tcp.maxConnections
  if (tcp.connectTimeout !== undefined) pool.connectTimeoutMs = tcp.connectTimeout
  if (tcp.maxConnectionDuration) pool.maxConnectionDurationMs = tcp.maxConnectionDuration
  if (tcp.idleTimeout !== undefined) pool.tcpIdleTimeoutMs = tcp.idleTimeout
  // 0 is proto3's way of saying "not set" for the limits that have no meaning at 0.
  if (http.http1MaxPendingRequests) pool.http1MaxPendingRequests = http.http1MaxPendingRequests
  if (http.http2MaxRequests) pool.http2MaxRequests = http.http2MaxRequests
  if (http.maxRequestsPerConnection) pool.maxRequestsPerConnection = http.maxRequestsPerConnection
  if (http.maxRetries) pool.maxRetries = http.maxRetries
  if (http.idleTimeout !== undefined) pool.idleTimeoutMs = http.idleTimeout
  if (http.h2UpgradePolicy !== undefined) pool.h2Upgrade = http.h2UpgradePolicy
  if (http.useClientProtocol !== undefined) pool.useClientProtocol = http.useClientProtocol
  if (http.maxConcurrentStreams) pool.maxConcurrentStreams = http.maxConcurrentStreams
  return pool
}

/** Istio's defaults for what an outlierDetection leaves out. */
function toOutlierDetection(spec: NonNullable<TrafficPolicySpec['outlierDetection']>): OutlierDetection {
  return {
    consecutive5xxErrors: spec.consecutive5xxErrors ?? spec.consecutiveErrors ?? 5,
    consecutiveGatewayErrors: spec.consecutiveGatewayErrors ?? 0,
    splitExternalLocalOriginErrors: spec.splitExternalLocalOriginErrors ?? false,
    consecutiveLocalOriginFailures: spec.consecutiveLocalOriginFailures ?? 5,
    intervalMs: spec.interval ?? 10_000,
    baseEjectionTimeMs: spec.baseEjectionTime ?? 30_000,
    maxEjectionPercent: spec.maxEjectionPercent ?? 10,
    minHealthPercent: spec.minHealthPercent ?? 0,
  }
}
