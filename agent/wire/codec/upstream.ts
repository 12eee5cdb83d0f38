// Upstream ⇄ ambit.v1.Upstream.
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { upstreamKey } from '../../mesh/state.ts'
import type { ConnectionPool, TrafficPolicy, Upstream } from '../../mesh/upstream.ts'
import {
  H2Upgrade,
  LoadBalancer,
  UpstreamSchema,
  type ConnectionPool as WirePool,
  type ConnectionPoolSchema,
  type TrafficPolicy as WirePolicy,
  type TrafficPolicySchema,
} from '../gen/ambit/v1/upstream_pb.js'
import type { Codec } from './codec.ts'
import { checkUint, decodeSource, encodeSource, EnumTable, sorted } from './parts.ts'

const balancers = new EnumTable<NonNullable<TrafficPolicy['loadBalancer']>>('load balancer', {
  ROUND_ROBIN: LoadBalancer.ROUND_ROBIN,
  LEAST_REQUEST: LoadBalancer.LEAST_REQUEST,
  RANDOM: LoadBalancer.RANDOM,
  PASSTHROUGH: LoadBalancer.PASSTHROUGH,
})
const upgrades = new EnumTable<NonNullable<ConnectionPool['h2Upgrade']>>('h2 upgrade policy', {
  DEFAULT: H2Upgrade.DEFAULT,
  DO_NOT_UPGRADE: H2Upgrade.DO_NOT_UPGRADE,
  UPGRADE: H2Upgrade.UPGRADE,
})

const counts = [
  'maxConnections',
  'http1MaxPendingRequests',
  'http2MaxRequests',
  'maxRequestsPerConnection',
  'maxRetries',
  'maxConcurrentStreams',
] as const
const durations = ['connectTimeoutMs', 'idleTimeoutMs', 'tcpIdleTimeoutMs', 'maxConnectionDurationMs'] as const

export const upstreamCodec: Codec<Upstream> = {
  kind: 'Upstream',
  nameOf: upstreamKey,
  encode: (upstream) =>
    toBinary(
      UpstreamSchema,
      create(UpstreamSchema, {
        namespace: upstream.namespace,
        hostname: upstream.hostname,
        consumerNamespace: upstream.consumerNamespace,
        policy: encodePolicy(upstream.policy),
        portPolicies: Object.fromEntries(
          Object.entries(upstream.portPolicies).map(([port, policy]) => [port, encodePolicy(policy)]),
        ),
        subsets: upstream.subsets.map((subset) => ({
          name: subset.name,
          labels: sorted(subset.labels),
          ...(subset.policy ? { policy: encodePolicy(subset.policy) } : {}),
          source: encodeSource(subset.source),
        })),
        sources: upstream.sources.map(encodeSource),
      }),
    ),
  decode(bytes) {
    const wire = fromBinary(UpstreamSchema, bytes)
    return {
      namespace: wire.namespace,
      hostname: wire.hostname,
      consumerNamespace: wire.consumerNamespace,
      policy: wire.policy ? decodePolicy(wire.policy) : {},
      portPolicies: Object.fromEntries(
        Object.entries(wire.portPolicies).map(([port, policy]) => [Number(port), decodePolicy(policy)]),
      ),
      subsets: wire.subsets.map((subset) => ({
        name: subset.name,
        labels: subset.labels,
        ...(subset.policy ? { policy: decodePolicy(subset.policy) } : {}),
        source: decodeSource(subset.source, 'DestinationRule', wire.namespace, ''),
      })),
      sources: wire.sources.map((source) => decodeSource(source, 'DestinationRule', wire.namespace, '')),
    }
  },
}

function encodePolicy(policy: TrafficPolicy): MessageInitShape<typeof TrafficPolicySchema> {
  return {
    ...(policy.loadBalancer === undefined ? {} : { loadBalancer: balancers.wire(policy.loadBalancer) }),
    ...(policy.connectionPool ? { connectionPool: encodePool(policy.connectionPool) } : {}),
    ...(policy.outlierDetection
      ? {
          outlierDetection: {
            ...policy.outlierDetection,
            consecutive5xxErrors: checkUint(policy.outlierDetection.consecutive5xxErrors, 'consecutive5xxErrors'),
          },
        }
      : {}),
  }
}

function decodePolicy(wire: WirePolicy): TrafficPolicy {
  const outlier = wire.outlierDetection
  return {
    ...(wire.loadBalancer === undefined ? {} : { loadBalancer: balancers.text(wire.loadBalancer) }),
    ...(wire.connectionPool ? { connectionPool: decodePool(wire.connectionPool) } : {}),
    ...(outlier
      ? {
          outlierDetection: {
            consecutive5xxErrors: outlier.consecutive5xxErrors,
            consecutiveGatewayErrors: outlier.consecutiveGatewayErrors,
            splitExternalLocalOriginErrors: outlier.splitExternalLocalOriginErrors,
            consecutiveLocalOriginFailures: outlier.consecutiveLocalOriginFailures,
            intervalMs: outlier.intervalMs,
            baseEjectionTimeMs: outlier.baseEjectionTimeMs,
            maxEjectionPercent: outlier.maxEjectionPercent,
            minHealthPercent: outlier.minHealthPercent,
          },
        }
      : {}),
  }
}

function encodePool(pool: ConnectionPool): MessageInitShape<typeof ConnectionPoolSchema> {
  const wire: Record<string, unknown> = {}
  for (const field of counts) if (pool[field] !== undefined) wire[field] = checkUint(pool[field], field)
  for (const field of durations) if (pool[field] !== undefined) wire[field] = pool[field]
  if (pool.h2Upgrade !== undefined) wire['h2Upgrade'] = upgrades.wire(pool.h2Upgrade)
  if (pool.useClientProtocol !== undefined) wire['useClientProtocol'] = pool.useClientProtocol
  return wire as MessageInitShape<typeof ConnectionPoolSchema>
}

function decodePool(wire: WirePool): ConnectionPool {
  const pool: Record<string, unknown> = {}
  for (const field of [...counts, ...durations, 'useClientProtocol'] as const) {
    if (wire[field] !== undefined) pool[field] = wire[field]
  }
  if (wire.h2Upgrade !== undefined) pool['h2Upgrade'] = upgrades.text(wire.h2Upgrade)
  return pool as ConnectionPool
}
