// What a waypoint does with a request or connection: target, path, policies, route, destinations, endpoints, each by the
// function that serves it (the order is that of waypoint/pipeline.ts). Must not live here: the hops around it (journey.ts).
import { AmbitError, messageOf } from '../../base/errors.ts'
import { policyGroups, waypointPolicies, type WaypointName } from '../../mesh/applicable.ts'
import { authorizeRequest, compilePolicies, observe, type Verdict } from '../../mesh/authorize.ts'
import { waypointTarget } from '../../mesh/inbound.ts'
import { lowerPolicy } from '../../mesh/lower.ts'
import { compileRoute, matchRoute, type RouteMatched } from '../../mesh/match-route.ts'
import { normalizePath } from '../../mesh/normalize-path.ts'
import { listCandidates } from '../../mesh/pick-endpoint.ts'
import type { Policy } from '../../mesh/policy.ts'
import { redirectLocation } from '../../mesh/redirect.ts'
import { emptyRequest, type RequestAttributes } from '../../mesh/request.ts'
import type { Outbound } from '../../mesh/resolve.ts'
import type { Destination, TcpRule } from '../../mesh/route.ts'
import type { AppProtocol, Service } from '../../mesh/service.ts'
import { subsetOf, trafficPolicyOf } from '../../mesh/traffic-policy.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import { because, type Because, type Branch, type Result, type Step } from './answer.ts'
import { atDestination, branch, delivered, grouped, nameOf, rulePart, serviceName } from './journey.ts'
import type { Question } from './question.ts'
import type { World } from './world.ts'

export interface WaypointWay {
  readonly steps: readonly Step[]
  readonly branches: readonly Branch[]
}

/** Everything about one passage that does not change along it. */
interface Passage {
  readonly world: World
  readonly client: Workload
  readonly waypoint: Workload
  readonly name: WaypointName
  readonly at: string
  /** False: judged and routed as a connection. */
  readonly http: boolean
  readonly attributes: RequestAttributes
  readonly port: number
  /** The service that was dialled: its targetRefs count for whatever endpoint is chosen. */
  readonly dialled: Service | undefined
  /** Names of the policies that were judged before routing; undefined if none were. */
  readonly judged: string | undefined
}

/** Follows a request or connection through the waypoint that the client's agent chose. */
export function throughWaypoint(
  world: World,
  question: Question,
  client: Workload,
  decision: Extract<Outbound, { kind: 'waypoint' }>,
): WaypointWay {
  const ref = decision.service?.waypoint ?? decision.destination?.waypoint
  const gateway = world.waypoints.find((one) => one.service === ref?.hostname)
  const name: WaypointName = gateway ?? { namespace: decision.workload.namespace, name: decision.workload.workloadName }
  const at = `waypoint ${name.namespace}/${name.name}`
  const asked = decision.authority.lastIndexOf(':')
  const address = decision.authority.slice(0, asked).replace(/^\[|\]$/g, '')
  const port = Number(decision.authority.slice(asked + 1))
  const target = waypointTarget(world.state, ref?.hostname ?? '', address, port)
  if (target.kind === 'refuse') {
    const step: Step = { at, says: `refused: ${target.reason}`, because: [] }
    return stop(step, { outcome: 'refused', client: 'connection reset', details: 'waypoint_target' })
  }
  const protocol: AppProtocol =
    target.kind === 'service'
      ? (target.service.ports.find((one) => one.port === port)?.protocol ?? 'unknown')
      : 'unknown'
  const http = question.request !== undefined && protocol !== 'tcp' && protocol !== 'tls'
  const steps: Step[] = []
  const attributes = describe(question, client, address, port)
  if (http) {
    const path = normalizePath(attributes.path, world.state.settings.pathNormalization)
    if (path === undefined) {
      const step: Step = { at, says: 'answers 400: the path cannot be normalised', because: [] }
      return stop(step, { outcome: 'answered', client: '400', status: 400, details: 'path_normalization_failed' })
    }
    if (path !== attributes.path) steps.push({ at, says: `normalises the path to ${path}`, because: [] })
    attributes.path = path
  } else if (question.request) {
    steps.push({ at, says: `port ${port} is ${protocol}: the request is not looked at`, because: [] })
  }
  const dialled = target.kind === 'service' ? target.service : undefined
  const passage: Passage = {
    world,
    client,
    waypoint: decision.workload,
    name,
    at,
    http,
    attributes,
    port,
    dialled,
    judged: undefined,
  }
  const way = target.kind === 'service' ? toService(passage, target.service) : toPod(passage, target.workload, address)
  return { steps: [...steps, ...way.steps], branches: way.branches }
}

function describe(question: Question, client: Workload, address: string, port: number): RequestAttributes {
  const { request } = question
  const source = client.addresses[0] ?? ''
  return {
    ...emptyRequest(),
    sourceAddress: source,
    remoteAddress: source,
    identity: identityOf(client),
    destinationAddress: address,
    destinationPort: port,
    servicePort: port,
    sourceNamespace: client.namespace,
    sourceLabels: client.labels,
    ...(request
      ? { method: request.method, path: request.path, headers: request.headers, authority: request.authority }
      : {}),
  }
}

function toService(passage: Passage, service: Service): WaypointWay {
  const groups = policyGroups(passage.world.state, passage.name, service)
  const [only, second] = groups
  const steps: Step[] = []
  const common = only && !second
  if (common) {
    const judged = judge(passage, only.policies)
    steps.push(...judged.steps)
    if (judged.result) return { steps, branches: [branch(serviceName(service), [], [], judged.result)] }
  } else {
    steps.push({ at: passage.at, says: 'policies differ among the endpoints: judged once one is chosen', because: [] })
  }
  const on: Passage = common ? { ...passage, judged: namesOf(only.policies) } : passage
  const way = on.http ? routeRequest(on, service) : routeConnection(on, service)
  return { steps: [...steps, ...way.steps], branches: way.branches }
}

function toPod(passage: Passage, workload: Workload, address: string): WaypointWay {
  const judged = judge(passage, waypointPolicies(passage.world.state, passage.name, undefined, workload))
  const steps: Step[] = [...judged.steps]
  if (judged.result) return { steps, branches: [branch(nameOf(workload), [], [], judged.result)] }
  steps.push({ at: passage.at, says: 'a pod was dialled by its own address: no routes apply', because: [] })
  return { steps, branches: [lastHop(passage, workload, address, passage.port)] }
}

function namesOf(policies: readonly Policy[]): string {
  return policies.map((policy) => `${policy.namespace}/${policy.name}`).join(' ')
}

/** The verdict of policies on what is at hand; a result if they stop it. */
function judge(passage: Passage, policies: readonly Policy[]): { steps: Step[]; result: Result | undefined } {
  const { settings } = passage.world.state
  const forms = passage.http
    ? policies
    : policies
        .map((policy) => lowerPolicy({ ...policy, scope: 'workload' }, settings))
        .filter((policy) => policy !== undefined)
  const compiled = compilePolicies(forms, settings)
  const verdict = authorizeRequest(compiled, passage.attributes)
  const steps: Step[] = observe(compiled, passage.attributes).map(({ policy, rule }) => ({
    at: passage.at,
    says: policy.dryRun ? `dry run only: would ${policy.action === 'DENY' ? 'deny' : 'allow'}` : 'marked for audit',
    because: [because(policy.source, rulePart(policy.source.kind, rule))],
  }))
  steps.push({
    at: passage.at,
    says: describeVerdict(verdict, policies.length),
    because: verdictBecause(verdict, policies),
  })
  if (verdict.allowed) return { steps, result: undefined }
  const result: Result = passage.http
    ? { outcome: 'denied', client: '403 RBAC: access denied', status: 403, details: verdict.details }
    : { outcome: 'denied', client: 'connection closed', details: verdict.details }
  return { steps, result }
}

function describeVerdict(verdict: Verdict, count: number): string {
  switch (verdict.reason) {
    case 'no_allow_policy':
      return count === 0
        ? 'allowed: no policy speaks about it'
        : 'allowed: no policy denies it and there is no ALLOW policy'
    case 'allow_matched':
      return 'allowed'
    case 'deny_matched':
      return 'denied'
    case 'custom_unsupported':
      return 'denied: a CUSTOM policy matches, and external authorisation is not there yet'
    case 'not_allowed':
      return 'denied: there are ALLOW policies and none of them matches'
    case 'unknown_policy':
      return `denied: ${verdict.details} is not known`
  }
}

function verdictBecause(verdict: Verdict, policies: readonly Policy[]): Because[] {
  if (verdict.policy) return [because(verdict.policy.source, rulePart(verdict.policy.source.kind, verdict.rule))]
  if (verdict.reason !== 'not_allowed') return []
  return policies
    .filter((policy) => policy.action === 'ALLOW' && !policy.dryRun)
    .map((policy) => because(policy.source))
}

function routeRequest(passage: Passage, service: Service): WaypointWay {
  const { world, at, attributes, port } = passage
  const route = world.state.route(`${service.namespace}/${service.hostname}`, passage.client.namespace)
  if (!route || route.rules.length === 0) {
    const step: Step = { at, says: 'no route: goes to the service as it is', because: [] }
    return { steps: [step], branches: toDestination(passage, service, port, '', 1) }
  }
  let matched: RouteMatched | undefined
  try {
    matched = matchRoute(compileRoute(route), attributes)
  } catch (error) {
    if (!(error instanceof AmbitError)) throw error
    const step: Step = {
      at,
      says: `answers 500: the route does not compile: ${messageOf(error)}`,
      because: [because(route.source)],
    }
    return stop(step, { outcome: 'answered', client: '500', status: 500, details: 'unsupported_route_rule' })
  }
  if (!matched) {
    const step: Step = { at, says: 'answers 404: no rule of the route matches', because: [because(route.source)] }
    return stop(step, { outcome: 'refused', client: '404', status: 404, details: 'route_not_found' })
  }
  return act(passage, matched, route.dialect)
}

function act(passage: Passage, matched: RouteMatched, dialect: 'VirtualService' | 'HTTPRoute'): WaypointWay {
  const { at, attributes, port, world } = passage
  const { rule, compiled } = matched
  const part = `rule ${compiled.index}${matched.matchIndex >= 0 ? `, match ${matched.matchIndex}` : ''}`
  const why = [because(rule.source, part)]
  if (rule.unsupported.length > 0) {
    const step: Step = { at, says: `answers 500: Ambit does not have ${rule.unsupported.join(', ')} yet`, because: why }
    return stop(step, { outcome: 'answered', client: '500', status: 500, details: 'unsupported_route_rule' })
  }
  const { action } = rule
  if (action.type === 'respond') {
    const step: Step = { at, says: `answers ${action.status} itself`, because: why }
    return stop(step, {
      outcome: 'answered',
      client: String(action.status),
      status: action.status,
      details: 'direct_response',
    })
  }
  if (action.type === 'redirect') {
    const location = redirectLocation(action.redirect, matched.match?.path, dialect, { ...attributes, port })
    const { status } = action.redirect
    const step: Step = { at, says: `redirects to ${location}`, because: why }
    return stop(step, {
      outcome: 'answered',
      client: `${status}, location ${location}`,
      status,
      details: 'direct_response',
    })
  }
  const steps: Step[] = [{ at, says: describeForward(matched, attributes), because: why }]
  const weights = action.destinations.map((destination) => (action.destinations.length === 1 ? 1 : destination.weight))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  if (total === 0) {
    return {
      steps,
      branches: [
        branch('nowhere', [], [], { outcome: 'refused', client: '500', status: 500, details: 'invalid_backend' }),
      ],
    }
  }
  const branches = action.destinations.flatMap((destination, i): Branch[] => {
    const share = (weights[i] ?? 0) / total
    if (share === 0) return []
    const service = world.state.service(destination.service)
    if (!service) {
      const status = dialect === 'HTTPRoute' ? 500 : 503
      const details = dialect === 'HTTPRoute' ? 'invalid_backend' : 'cluster_not_found'
      const step: Step = { at, says: `answers ${status}: there is no service ${destination.host}`, because: why }
      return [
        branch(destination.host, [], [step], { outcome: 'refused', client: String(status), status, details }, share),
      ]
    }
    return toDestination(passage, service, portOf(destination, service, port), destination.subset, share)
  })
  return { steps, branches }
}

function describeForward(matched: RouteMatched, attributes: RequestAttributes): string {
  const { rule, compiled } = matched
  const destinations = compiled.destinations.map(({ destination }) => {
    const weight = compiled.destinations.length > 1 ? `${destination.weight} ` : ''
    return `${weight}${destination.host}${destination.subset ? ` subset ${destination.subset}` : ''}`
  })
  const path = matched.rewritePath?.(attributes.path)
  const extras = [
    path !== undefined && path !== attributes.path ? `path becomes ${path}` : '',
    rule.rewrite?.authority === undefined ? '' : `host becomes ${rule.rewrite.authority}`,
    rule.timeoutMs ? `timeout ${rule.timeoutMs} ms` : '',
    rule.retry === undefined ? '' : rule.retry.attempts === 0 ? 'no retries' : `up to ${rule.retry.attempts} retries`,
    compiled.requestHeaders || compiled.responseHeaders ? 'headers are changed' : '',
  ].filter((extra) => extra !== '')
  return `routed to ${destinations.join(', ')}${extras.length > 0 ? ` (${extras.join('; ')})` : ''}`
}

function portOf(destination: Destination, service: Service, asked: number): number {
  return destination.port || (service.ports.length === 1 ? service.ports[0]?.port : undefined) || asked
}

function routeConnection(passage: Passage, service: Service): WaypointWay {
  const { world, at, port } = passage
  const route = world.state.route(`${service.namespace}/${service.hostname}`, passage.client.namespace)
  const rule: TcpRule | undefined = route?.tcp.find((one) => one.port === 0 || one.port === port)
  if (!rule) {
    const step: Step = { at, says: 'no route for connections: goes to the service as it is', because: [] }
    return { steps: [step], branches: toDestination(passage, service, port, '', 1) }
  }
  const total = rule.destinations.reduce((sum, destination) => sum + destination.weight, 0)
  const branches = rule.destinations.flatMap((destination): Branch[] => {
    const target = world.state.service(destination.service)
    const share = destination.weight / (total || 1)
    if (!target)
      return [
        branch(
          destination.host,
          [],
          [],
          { outcome: 'refused', client: 'connection closed', details: 'cluster_not_found' },
          share,
        ),
      ]
    return toDestination(passage, target, portOf(destination, target, port), destination.subset, share)
  })
  return { steps: [{ at, says: 'routed by its tcp rule', because: [because(rule.source)] }], branches }
}

/** Balancing and the last hop, for one destination. */
function toDestination(passage: Passage, service: Service, port: number, subsetName: string, share: number): Branch[] {
  const { world, at, http } = passage
  const key = `${service.namespace}/${service.hostname}`
  const upstream = world.state.upstream(key, passage.client.namespace)
  const subset = subsetName === '' ? undefined : subsetOf(upstream, subsetName)
  const to = `${serviceName(service)}:${port}${subsetName ? ` subset ${subsetName}` : ''}`
  const rules = upstream?.sources.map((source) => because(source)) ?? []
  const unavailable = (says: string): Branch[] => {
    const result: Result = http
      ? { outcome: 'refused', client: '503 no healthy upstream', status: 503, details: 'no_healthy_upstream' }
      : { outcome: 'refused', client: 'connection closed', details: 'no_healthy_upstream' }
    return [branch(to, [], [{ at, says, because: rules }], result, share)]
  }
  if (subsetName !== '' && !subset) return unavailable(`there is no subset ${subsetName} of ${serviceName(service)}`)
  const candidates = listCandidates(world.state, service, port, {
    subset: subset?.labels,
    client: passage.waypoint,
    like: service.addresses[0] ?? '',
  })
  const nearest = candidates.filter((one) => one.rank === candidates[0]?.rank)
  if (nearest.length === 0) return unavailable(`${to} has no healthy endpoint`)
  const policy = trafficPolicyOf(upstream, subset, port)
  const limits = [
    policy.connectionPool ? 'connection limits' : '',
    policy.outlierDetection ? 'outlier detection' : '',
  ].filter((text) => text !== '')
  const balanced: Step = {
    at,
    says: `balanced by ${policy.loadBalancer ?? 'LEAST_REQUEST'} over ${nearest.length} endpoint${nearest.length === 1 ? '' : 's'}${limits.length > 0 ? `, with ${limits.join(' and ')}` : ''}`,
    because: rules,
  }
  const reached = nearest.map((candidate) => {
    const policies = waypointPolicies(world.state, passage.name, passage.dialled, candidate.workload)
    const judged = namesOf(policies) === passage.judged ? { steps: [], result: undefined } : judge(passage, policies)
    if (judged.result)
      return branch(to, [nameOf(candidate.workload)], [balanced, ...judged.steps], judged.result, share)
    const last = lastHop(passage, candidate.workload, candidate.address, candidate.port)
    return { ...last, to, share, steps: [balanced, ...judged.steps, ...last.steps] }
  })
  return grouped(reached).map((one) => ({ ...one, share: one.share * share }))
}

/** From the waypoint to the workload, with the waypoint's own identity and the client named in `forwarded`. */
function lastHop(passage: Passage, workload: Workload, address: string, port: number): Branch {
  if (workload.tunnelProtocol !== 'HBONE') return branch(nameOf(workload), [nameOf(workload)], [], delivered())
  return atDestination(passage.world.state, workload, {
    peerAddress: passage.waypoint.addresses[0] ?? '',
    identity: identityOf(passage.waypoint),
    address,
    port,
    forwardedFor: passage.client.addresses[0],
  })
}

function stop(step: Step, result: Result): WaypointWay {
  return { steps: [step], branches: [branch(step.at, [], [], result)] }
}
