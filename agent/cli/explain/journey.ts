// The way of a connection or request through the mesh, told by the functions that serve it: the client's agent
// (mesh/resolve), the waypoint (waypoint.ts), the destination's agent (mesh/inbound). Must not live here: any rule of its own.
import { joinHostPort } from '../../base/ip.ts'
import { connectionPolicies } from '../../mesh/authorize.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import { authorizeInbound, type InboundVerdict } from '../../mesh/inbound.ts'
import { usableEndpoints, resolveOutbound, type Outbound } from '../../mesh/resolve.ts'
import { addressLike, targetPortOf } from '../../mesh/localize.ts'
import { effectiveMode } from '../../mesh/peer-authentication.ts'
import { PLAINTEXT_REFUSED, plaintextMode } from '../../mesh/plaintext-mode.ts'
import type { Service } from '../../mesh/service.ts'
import type { MeshState } from '../../mesh/state.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import { because, type Because, type Branch, type Explanation, type Result, type Step } from './answer.ts'
import { isWorkload, type Question } from './question.ts'
import { throughWaypoint } from './waypoint.ts'
import type { World } from './world.ts'

/** Endpoints looked at one by one; beyond it the first ones stand for the others. */
const MAX_ENDPOINTS = 64

/** Explains what happens. */
export function explainJourney(world: World, question: Question): Explanation {
  const { source, target, request } = question
  const { steps, branches } = travel(world, question)
  const outcomes = new Set(branches.map((branch) => branch.result.outcome))
  const [only] = outcomes
  const enrolled = isWorkload(source) && source.tunnelProtocol === 'HBONE'
  return {
    source: {
      name: isWorkload(source) ? nameOf(source) : 'outside the mesh',
      address: isWorkload(source) ? (source.addresses[0] ?? '') : source.address,
      ...(enrolled ? { identity: formatIdentity(identityOf(source)) } : {}),
      enrolled,
    },
    destination: {
      name: target.service ? serviceName(target.service) : target.workload ? nameOf(target.workload) : target.address,
      address: target.address,
      port: target.port,
    },
    ...(request ? { request } : {}),
    steps,
    branches,
    verdict: outcomes.size === 1 && only ? only : 'depends',
    assumed: world.assumed,
  }
}

interface Way {
  readonly steps: readonly Step[]
  readonly branches: readonly Branch[]
}

function travel(world: World, question: Question): Way {
  const { source, target } = question
  if (!isWorkload(source) || source.tunnelProtocol !== 'HBONE' || source.nativeTunnel) return plainly(world, question)
  const { state } = world
  const agent = `agent of ${nameOf(source)}`
  const decisions = allOutcomes(state, source, target.address, target.port)
  const [first] = decisions
  if (!first) return { steps: [], branches: [] }
  const step: Step = {
    at: agent,
    says: describeOutbound(first, decisions.length),
    because: waypointBecause(world, first),
  }
  if (first.kind === 'refuse') {
    const result: Result = { outcome: 'refused', client: 'connection reset', details: first.code }
    return { steps: [step], branches: [branch(target.address, [], [], result)] }
  }
  if (first.kind === 'waypoint') {
    const way = throughWaypoint(world, question, source, first)
    return { steps: [step, ...way.steps], branches: way.branches }
  }
  const reached = decisions.map((decision): Branch => {
    if (decision.kind === 'refuse') {
      const result: Result = { outcome: 'refused', client: 'connection reset', details: decision.code }
      return branch(target.address, [], [{ at: agent, says: decision.reason, because: [] }], result)
    }
    if (decision.kind === 'waypoint') {
      const way = throughWaypoint(world, question, source, decision)
      return (
        way.branches[0] ?? branch(decision.address, [], way.steps, { outcome: 'refused', client: 'connection reset' })
      )
    }
    if (decision.kind === 'plain' || !decision.workload) {
      const where = decision.workload ? [nameOf(decision.workload)] : []
      return branch(joinHostPort(decision.address, decision.port), where, [], delivered())
    }
    const app = decision.authority.slice(decision.authority.lastIndexOf(':') + 1)
    return atDestination(state, decision.workload, {
      peerAddress: source.addresses[0] ?? '',
      identity: identityOf(source),
      address: decision.address,
      port: Number(app),
    })
  })
  return { steps: [step], branches: grouped(reached) }
}

/** Every decision that chance can bring: each usable endpoint once. */
function allOutcomes(state: MeshState, source: Workload, address: string, port: number): Outbound[] {
  const endpoints = state
    .servicesByAddress(address)
    .reduce((sum, service) => sum + state.endpoints(`${service.namespace}/${service.hostname}`).length, 0)
  const tries = Math.min(MAX_ENDPOINTS, Math.max(1, endpoints)) * 4
  const found = new Map<string, Outbound>()
  for (let i = 0; i < tries; i++) {
    const decision = resolveOutbound(state, source, address, port, () => (i + 0.5) / tries)
    // Replicas of a waypoint are alike: one stands for all.
    const key =
      decision.kind === 'waypoint'
        ? `waypoint ${decision.authority}`
        : `${decision.kind} ${decision.workload?.uid ?? ''}`
    if (!found.has(key)) found.set(key, decision)
  }
  return [...found.values()]
}

function describeOutbound(decision: Outbound, ways: number): string {
  switch (decision.kind) {
    case 'refuse':
      return `refused: ${decision.reason}`
    case 'plain':
      return `passed on in plain text to ${joinHostPort(decision.address, decision.port)}: ${decision.reason}`
    case 'waypoint':
      return `mutual TLS to the waypoint at ${joinHostPort(decision.address, decision.port)}: ${decision.reason}`
    case 'hbone': {
      const service = decision.service ? `service ${serviceName(decision.service)}, ` : ''
      return ways > 1
        ? `mutual TLS to one of ${ways} endpoints: ${service}without a waypoint`
        : `mutual TLS to ${joinHostPort(decision.address, decision.port)}: ${decision.reason}`
    }
  }
}

function waypointBecause(world: World, decision: Outbound): Because[] {
  const ref =
    decision.service?.waypoint ?? (decision.kind === 'waypoint' ? decision.destination : decision.workload)?.waypoint
  const gateway = ref && world.waypoints.find((one) => one.service === ref.hostname)
  return gateway && (decision.kind === 'waypoint' || decision.kind === 'refuse') ? [because(gateway.source)] : []
}

/** A client that is not captured: plain text, to a pod or to any endpoint of the service, past every waypoint. */
function plainly(world: World, question: Question): Way {
  const { source, target } = question
  const { state } = world
  const address = isWorkload(source) ? (source.addresses[0] ?? '') : source.address
  const step: Step = {
    at: isWorkload(source) ? nameOf(source) : 'client outside the mesh',
    says: 'not in the mesh: connects in plain text, without an identity',
    because: [],
  }
  const { service } = target
  let reached: Branch[]
  if (service) {
    const place = isWorkload(source)
      ? source
      : { network: '', clusterId: '', node: '', locality: { region: '', zone: '', subzone: '' } }
    const { workloads } = usableEndpoints(state, service, target.port, place)
    reached = workloads.slice(0, MAX_ENDPOINTS).map((workload) => {
      const pod = addressLike(workload, target.address) ?? ''
      return plainTo(world, workload, address, pod, targetPortOf(workload, service, target.port))
    })
    if (reached.length === 0) {
      const result: Result = {
        outcome: 'refused',
        client: 'connection refused: the service has no endpoint',
        details: 'no_healthy_upstream',
      }
      reached = [branch(serviceName(service), [], [], result)]
    }
  } else if (target.workload) reached = [plainTo(world, target.workload, address, target.address, target.port)]
  else reached = [branch(joinHostPort(target.address, target.port), [], [], delivered())]
  return { steps: [step], branches: grouped(reached) }
}

function plainTo(world: World, workload: Workload, peerAddress: string, address: string, port: number): Branch {
  if (workload.tunnelProtocol !== 'HBONE' || workload.nativeTunnel) {
    return branch(nameOf(workload), [nameOf(workload)], [], delivered())
  }
  const judged = atDestination(world.state, workload, { peerAddress, identity: undefined, address, port })
  return plaintextMode(world.state, workload) === 'refuse' ? refusedByKernel(world, workload, judged) : judged
}

/** Plaintext where STRICT leaves nothing to judge: the agent is not asked. What it would say is said, where it is something else. */
function refusedByKernel(world: World, workload: Workload, judged: Branch): Branch {
  const { state } = world
  const mode = effectiveMode(world.peerAuthentications, state.settings, workload.namespace, workload.labels)
  const step: Step = {
    at: `kernel of ${nameOf(workload)}`,
    says: 'denied: plaintext is refused, mutual TLS is STRICT',
    because: mode.decidedBy.slice(0, 1).map((one) => because(one.source)),
  }
  const agent = judged.steps[0]
  const required = judged.result.details?.startsWith('waypoint_required') ?? false
  const also = agent && required ? [{ ...agent, says: `not asked; would say ${agent.says}` }] : []
  const result: Result = { outcome: 'denied', client: 'connection refused', details: PLAINTEXT_REFUSED }
  return branch(nameOf(workload), [nameOf(workload)], [step, ...also], result)
}

/** The last hop: the destination's own agent. */
export function atDestination(
  state: MeshState,
  workload: Workload,
  connection: Parameters<typeof authorizeInbound>[2],
): Branch {
  const verdict = authorizeInbound(state, workload, connection)
  const step: Step = {
    at: `agent of ${nameOf(workload)}`,
    says: describeInbound(verdict),
    because: inboundBecause(state, workload, verdict),
  }
  const plain = connection.identity === undefined
  const result: Result = verdict.allowed
    ? delivered()
    : {
        outcome: 'denied',
        client: plain ? 'connection reset' : 'connection closed (the tunnel answers 401)',
        details: verdict.details,
      }
  return branch(nameOf(workload), [nameOf(workload)], [step], result)
}

function describeInbound(verdict: InboundVerdict): string {
  switch (verdict.reason) {
    case 'waypoint':
      return 'allowed: comes from the workload’s waypoint, which has judged the client'
    case 'waypoint_required':
      return 'denied: takes traffic from its waypoint only'
    case 'no_allow_policy':
      return 'allowed: no policy denies it and there is no ALLOW policy'
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
    case 'trust_domain_mismatch':
      return 'denied: the peer is of another trust domain'
    case 'tunnel_port':
      return `denied: ${verdict.details}`
  }
}

function inboundBecause(state: MeshState, workload: Workload, verdict: InboundVerdict): Because[] {
  if (verdict.policy) return [because(verdict.policy.source, rulePart(verdict.policy.source.kind, verdict.rule))]
  if (verdict.reason !== 'not_allowed') return []
  return connectionPolicies(state, workload).allowing.map((one) => because(one.compiled.policy.source))
}

/** `rule 1` of a policy; a PeerAuthentication has no rules of its own. */
export function rulePart(kind: string, rule: number): string | undefined {
  return kind === 'AuthorizationPolicy' ? `rule ${rule}` : undefined
}

export function delivered(): Result {
  return { outcome: 'delivered', client: 'the app answers' }
}

export function branch(
  to: string,
  endpoints: readonly string[],
  steps: readonly Step[],
  result: Result,
  share = 1,
): Branch {
  return { share, to, endpoints, steps, result }
}

/** Endpoints that are treated alike become one branch; shares are those of equal endpoints. */
export function grouped(branches: readonly Branch[]): Branch[] {
  const groups = new Map<string, Branch[]>()
  const total = branches.reduce((sum, one) => sum + one.share, 0)
  for (const one of branches) {
    const key = JSON.stringify([one.steps.map((step) => [step.says, step.because]), one.result])
    const group = groups.get(key)
    if (group) group.push(one)
    else groups.set(key, [one])
  }
  return [...groups.values()].map((group) => {
    const first = group[0] as Branch
    return {
      ...first,
      share: group.reduce((sum, one) => sum + one.share, 0) / (total || 1),
      endpoints: group.flatMap((one) => one.endpoints),
      steps:
        group.length === 1
          ? first.steps
          : first.steps.map((step) => ({ ...step, at: `${step.at} (and ${group.length - 1} like it)` })),
    }
  })
}

export function nameOf(workload: Workload): string {
  return `${workload.namespace}/${workload.name}`
}

export function serviceName(service: Service): string {
  return `${service.namespace}/${service.name}`
}
