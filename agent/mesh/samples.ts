// Sample domain objects for tests: whole objects with the fields a test cares about given. Must not be imported by
// anything but tests.
import { parseIdentity } from './identity.ts'
import type { NodePod } from './pod.ts'
import type { Match, Policy, PolicyAction } from './policy.ts'
import { emptyRequest, type RequestAttributes } from './request.ts'
import type { Route, RouteMatch, RouteRule } from './route.ts'
import type { Service } from './service.ts'
import type { Source } from './source.ts'
import type { Upstream } from './upstream.ts'
import type { Workload } from './workload.ts'

export const sampleSource: Source = { kind: 'Test', namespace: 'default', name: 'sample' }

export function sampleWorkload(given: Partial<Workload> & { name: string }): Workload {
  const namespace = given.namespace ?? 'default'
  return {
    uid: `c//Pod/${namespace}/${given.name}`,
    namespace,
    serviceAccount: given.name,
    trustDomain: 'cluster.local',
    addresses: [],
    network: '',
    node: 'node1',
    clusterId: 'c',
    tunnelProtocol: 'HBONE',
    nativeTunnel: false,
    hostNetwork: false,
    services: {},
    authorizationPolicies: [],
    healthy: true,
    canonicalName: given.name,
    canonicalRevision: 'latest',
    workloadType: 'deployment',
    workloadName: given.name,
    locality: { region: '', zone: '', subzone: '' },
    capacity: 1,
    sameNode: 'direct',
    labels: { app: given.name },
    ...given,
  }
}

export function sampleService(given: Partial<Service> & { name: string }): Service {
  const namespace = given.namespace ?? 'default'
  return {
    namespace,
    hostname: `${given.name}.${namespace}.svc.cluster.local`,
    addresses: [],
    ports: [{ port: 80, targetPort: 8080, name: 'http', protocol: 'http' }],
    subjectAltNames: [],
    routingPreference: [],
    loadBalancing: 'UNSPECIFIED',
    allowUnhealthy: false,
    sessionAffinitySeconds: 0,
    ...given,
  }
}

/** A policy with one rule of one clause of one match, or of the given rules. */
export function samplePolicy(
  action: PolicyAction,
  match: Match | Policy['rules'],
  given: Partial<Policy> = {},
): Policy {
  return {
    namespace: 'default',
    name: action.toLowerCase(),
    scope: 'namespace',
    action,
    dryRun: false,
    selector: {},
    targets: [],
    rules: Array.isArray(match) ? match : [{ clauses: [{ matches: [match as Match] }] }],
    source: sampleSource,
    ...given,
  }
}

export function sampleRequest(given: Partial<RequestAttributes> & { principal?: string } = {}): RequestAttributes {
  const { principal, ...rest } = given
  return {
    ...emptyRequest(),
    sourceAddress: '10.0.0.1',
    remoteAddress: '10.0.0.1',
    destinationAddress: '10.0.0.2',
    destinationPort: 8080,
    authority: 'backend',
    servicePort: 80,
    ...(principal === undefined ? {} : { identity: parseIdentity(`spiffe://${principal}`) }),
    ...rest,
  }
}

export function sampleMatch(given: Partial<RouteMatch> = {}): RouteMatch {
  return {
    name: '',
    headers: [],
    withoutHeaders: [],
    queryParams: [],
    port: 0,
    sourceNamespace: '',
    sourceLabels: {},
    ...given,
  }
}

export function sampleRule(name: string, matches: readonly RouteMatch[], given: Partial<RouteRule> = {}): RouteRule {
  return {
    name,
    matches,
    action: { type: 'respond', status: 200, body: name },
    unsupported: [],
    source: sampleSource,
    ...given,
  }
}

export function sampleRoute(rules: readonly RouteRule[], given: Partial<Route> = {}): Route {
  return {
    dialect: 'VirtualService',
    namespace: 'default',
    hostname: 'backend.default.svc.cluster.local',
    consumerNamespace: '*',
    rules,
    tcp: [],
    source: sampleSource,
    ...given,
  }
}

export function sampleUpstream(given: Partial<Upstream> = {}): Upstream {
  return {
    namespace: 'default',
    hostname: 'backend.default.svc.cluster.local',
    consumerNamespace: '*',
    policy: {},
    portPolicies: {},
    subsets: [],
    sources: [sampleSource],
    ...given,
  }
}

export function samplePod(given: Partial<NodePod> = {}): NodePod {
  const { name = 'app', uid = `uid-of-${name}` } = given
  return {
    uid,
    kubeletUid: uid,
    namespace: 'default',
    name,
    node: 'node1',
    serviceAccount: 'default',
    addresses: [],
    containers: [],
    hostNetwork: false,
    stage: 'Running',
    enrolment: 'enrolled',
    ...given,
  }
}
