// Route ⇄ ambit.v1.Route.
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import type {
  Destination,
  HeaderOps,
  RetryPolicy,
  Route,
  RouteAction,
  RouteMatch,
  RouteRule,
} from '../../mesh/route.ts'
import { routeKey } from '../../mesh/state.ts'
import {
  DerivePort,
  RouteDialect,
  RouteSchema,
  type Destination as WireDestination,
  type DestinationSchema,
  type HeaderOps as WireHeaderOps,
  type HeaderOpsSchema,
  type RetryPolicy as WireRetry,
  type RouteMatchSchema,
  type RouteMatch as WireMatch,
  type RouteRule as WireRule,
  type RouteRuleSchema,
} from '../gen/ambit/v1/route_pb.js'
import type { Codec } from './codec.ts'
import { decodeRewrite, encodeRewrite, pick } from './rewrite.ts'
import { decodeNamed, decodePath, decodeString, encodeNamed, encodePath, encodeString } from './route-match.ts'
import { checkPort, checkUint, decodeSource, encodeSource, EnumTable, invalid, sorted } from './parts.ts'

const dialects = new EnumTable<Route['dialect']>('route dialect', {
  VirtualService: RouteDialect.VIRTUAL_SERVICE,
  HTTPRoute: RouteDialect.HTTP_ROUTE,
})
const derivePorts = new EnumTable<'FROM_PROTOCOL_DEFAULT' | 'FROM_REQUEST_PORT'>('derivePort', {
  FROM_PROTOCOL_DEFAULT: DerivePort.FROM_PROTOCOL_DEFAULT,
  FROM_REQUEST_PORT: DerivePort.FROM_REQUEST_PORT,
})

export const routeCodec: Codec<Route> = {
  kind: 'Route',
  nameOf: routeKey,
  encode: (route) =>
    toBinary(
      RouteSchema,
      create(RouteSchema, {
        dialect: dialects.wire(route.dialect),
        namespace: route.namespace,
        hostname: route.hostname,
        consumerNamespace: route.consumerNamespace,
        rules: route.rules.map(encodeRule),
        tcp: route.tcp.map((rule) => ({
          port: checkPort(rule.port),
          destinations: rule.destinations.map(encodeDestination),
          source: encodeSource(rule.source),
        })),
        source: encodeSource(route.source),
      }),
    ),
  decode(bytes) {
    const wire = fromBinary(RouteSchema, bytes)
    const dialect = dialects.text(wire.dialect)
    const source = decodeSource(wire.source, dialect, wire.namespace, wire.hostname)
    return {
      dialect,
      namespace: wire.namespace,
      hostname: wire.hostname,
      consumerNamespace: wire.consumerNamespace,
      rules: wire.rules.map((rule) => decodeRule(rule, dialect, wire.namespace)),
      tcp: wire.tcp.map((rule) => ({
        port: checkPort(rule.port),
        destinations: rule.destinations.map(decodeDestination),
        source: decodeSource(rule.source, dialect, wire.namespace, ''),
      })),
      source,
    }
  },
}

function encodeRule(rule: RouteRule): MessageInitShape<typeof RouteRuleSchema> {
  return {
    name: rule.name,
    matches: rule.matches.map(encodeMatch),
    action: encodeAction(rule.action),
    ...pick(rule, ['timeoutMs']),
    ...(rule.retry ? { retry: encodeRetry(rule.retry) } : {}),
    ...(rule.rewrite ? { rewrite: encodeRewrite(rule.rewrite) } : {}),
    ...encodeHeaders(rule),
    unsupported: [...rule.unsupported],
    source: encodeSource(rule.source),
  }
}

function decodeRule(wire: WireRule, kind: string, namespace: string): RouteRule {
  return {
    name: wire.name,
    matches: wire.matches.map(decodeMatch),
    action: decodeAction(wire.action),
    ...pick(wire, ['timeoutMs']),
    ...(wire.retry ? { retry: decodeRetry(wire.retry) } : {}),
    ...(wire.rewrite ? { rewrite: decodeRewrite(wire.rewrite) } : {}),
    ...decodeHeaders(wire),
    unsupported: wire.unsupported,
    source: decodeSource(wire.source, kind, namespace, ''),
  }
}

function encodeMatch(match: RouteMatch): MessageInitShape<typeof RouteMatchSchema> {
  return {
    name: match.name,
    ...(match.path ? { path: encodePath(match.path) } : {}),
    ...(match.method ? { method: encodeString(match.method) } : {}),
    ...(match.scheme ? { scheme: encodeString(match.scheme) } : {}),
    ...(match.authority ? { authority: encodeString(match.authority) } : {}),
    headers: match.headers.map(encodeNamed),
    withoutHeaders: match.withoutHeaders.map(encodeNamed),
    queryParams: match.queryParams.map(encodeNamed),
    port: checkPort(match.port),
    sourceNamespace: match.sourceNamespace,
    sourceLabels: sorted(match.sourceLabels),
  }
}

function decodeMatch(wire: WireMatch): RouteMatch {
  return {
    name: wire.name,
    ...(wire.path ? { path: decodePath(wire.path) } : {}),
    ...(wire.method ? { method: decodeString(wire.method) } : {}),
    ...(wire.scheme ? { scheme: decodeString(wire.scheme) } : {}),
    ...(wire.authority ? { authority: decodeString(wire.authority) } : {}),
    headers: wire.headers.map(decodeNamed),
    withoutHeaders: wire.withoutHeaders.map(decodeNamed),
    queryParams: wire.queryParams.map(decodeNamed),
    port: checkPort(wire.port),
    sourceNamespace: wire.sourceNamespace,
    sourceLabels: wire.sourceLabels,
  }
}

function encodeAction(action: RouteAction): NonNullable<MessageInitShape<typeof RouteRuleSchema>['action']> {
  switch (action.type) {
    case 'forward':
      return { case: 'forward', value: { destinations: action.destinations.map(encodeDestination) } }
    case 'respond':
      return { case: 'respond', value: { status: checkUint(action.status, 'status'), body: action.body } }
    case 'redirect': {
      const { redirect } = action
      return {
        case: 'redirect',
        value: {
          status: checkUint(redirect.status, 'status'),
          ...pick(redirect, ['scheme', 'authority', 'path', 'prefixPath']),
          ...(redirect.port === undefined ? {} : { port: checkPort(redirect.port) }),
          ...(redirect.derivePort === undefined ? {} : { derivePort: derivePorts.wire(redirect.derivePort) }),
        },
      }
    }
  }
}

function decodeAction(wire: WireRule['action']): RouteAction {
  switch (wire.case) {
    case 'forward':
      return { type: 'forward', destinations: wire.value.destinations.map(decodeDestination) }
    case 'respond':
      return { type: 'respond', status: wire.value.status, body: wire.value.body }
    case 'redirect':
      return {
        type: 'redirect',
        redirect: {
          status: wire.value.status,
          ...pick(wire.value, ['scheme', 'authority', 'path', 'prefixPath', 'port']),
          ...(wire.value.derivePort === undefined ? {} : { derivePort: derivePorts.text(wire.value.derivePort) }),
        },
      }
    case undefined:
      throw invalid('a route action that is not known to this version')
  }
}

function encodeDestination(destination: Destination): MessageInitShape<typeof DestinationSchema> {
  return {
    service: destination.service,
    host: destination.host,
    subset: destination.subset,
    port: checkPort(destination.port),
    weight: checkUint(destination.weight, 'weight'),
    ...encodeHeaders(destination),
  }
}

function decodeDestination(wire: WireDestination): Destination {
  return {
    service: wire.service,
    host: wire.host,
    subset: wire.subset,
    port: checkPort(wire.port),
    weight: wire.weight,
    ...decodeHeaders(wire),
  }
}

interface WithHeaders<T> {
  readonly requestHeaders?: T | undefined
  readonly responseHeaders?: T | undefined
}

function encodeHeaders(from: WithHeaders<HeaderOps>) {
  const encode = (ops: HeaderOps): MessageInitShape<typeof HeaderOpsSchema> => ({
    set: sorted(ops.set),
    add: sorted(ops.add),
    remove: [...ops.remove],
  })
  return {
    ...(from.requestHeaders ? { requestHeaders: encode(from.requestHeaders) } : {}),
    ...(from.responseHeaders ? { responseHeaders: encode(from.responseHeaders) } : {}),
  }
}

function decodeHeaders(wire: WithHeaders<WireHeaderOps>) {
  const decode = (ops: WireHeaderOps): HeaderOps => ({ set: ops.set, add: ops.add, remove: ops.remove })
  return {
    ...(wire.requestHeaders ? { requestHeaders: decode(wire.requestHeaders) } : {}),
    ...(wire.responseHeaders ? { responseHeaders: decode(wire.responseHeaders) } : {}),
  }
}

function encodeRetry(retry: RetryPolicy) {
  return {
    attempts: checkUint(retry.attempts, 'attempts'),
    ...pick(retry, ['perTryTimeoutMs']),
    retryOn: [...retry.retryOn],
    statusCodes: retry.statusCodes.map((status) => checkUint(status, 'status')),
    backoffMs: retry.backoffMs,
    ignorePreviousHosts: retry.ignorePreviousHosts,
  }
}

function decodeRetry(wire: WireRetry): RetryPolicy {
  return {
    attempts: wire.attempts,
    ...pick(wire, ['perTryTimeoutMs']),
    retryOn: wire.retryOn,
    statusCodes: wire.statusCodes,
    backoffMs: wire.backoffMs,
    ignorePreviousHosts: wire.ignorePreviousHosts,
  }
}
