// The status of Gateway API's GatewayClass, Gateway and HTTPRoute, with its exact condition types and reasons
// (gateway-api apis/v1 *_types.go). Pure. Must not live here: writing it (reporter.ts), making waypoints (operate/).
import type { Problem } from '../../config/problem.ts'
import type { WaypointFacts } from '../operate/facts.ts'
import { messageOf, withTimes, type Condition, type Verdict } from './conditions.ts'

/** What GatewayClasses name whose Gateways Ambit runs, and entries of status.parents that are Ambit's. */
export const CONTROLLER_NAME = 'ambit.io/gateway-controller'
const GROUP = 'gateway.networking.k8s.io'

const verdict = (type: string, good: boolean, reason: string, message: string): Verdict => ({
  type,
  status: good ? 'True' : 'False',
  reason,
  message,
})

export interface GatewayClassStatus {
  readonly conditions: readonly Condition[]
}

export function gatewayClassStatus(
  before: { readonly conditions?: unknown } | undefined,
  generation: number | undefined,
  now: string,
): GatewayClassStatus {
  const accepted = verdict('Accepted', true, 'Accepted', 'Gateways of this class are waypoints, run by Ambit.')
  return { conditions: withTimes([accepted], before?.conditions, generation, now) }
}

interface ListenerSpec {
  readonly name: string
  readonly protocol: string
}

export interface GatewayStatus {
  readonly addresses: readonly { readonly type: string; readonly value: string }[]
  readonly conditions: readonly Condition[]
  readonly listeners: readonly unknown[]
}

/** Of a waypoint's Gateway. `facts` are unknown before its objects were looked at. */
export function gatewayStatus(
  gateway: {
    readonly generation: number | undefined
    readonly listeners: readonly ListenerSpec[]
    readonly before: { readonly conditions?: unknown; readonly listeners?: unknown } | undefined
  },
  problems: readonly Problem[],
  facts: WaypointFacts | undefined,
  now: string,
): GatewayStatus {
  const { generation, listeners, before } = gateway
  const errors = problems.filter((one) => one.severity === 'error')
  const parameters = facts?.problem?.kind === 'parameters' ? facts.problem : undefined
  const trouble = facts?.problem && !parameters ? facts.problem : undefined
  const accepted = parameters
    ? verdict('Accepted', false, 'InvalidParameters', `${parameters.message} ${parameters.hint}`)
    : errors.length > 0
      ? verdict('Accepted', false, 'Invalid', messageOf(errors))
      : verdict('Accepted', true, 'Accepted', 'The waypoint is accepted.')
  const old = new Map(
    (Array.isArray(before?.listeners) ? (before.listeners as { name?: unknown; conditions?: unknown }[]) : []).map(
      (one) => [one.name, one.conditions],
    ),
  )
  return {
    addresses: facts?.addresses ?? [],
    conditions: withTimes([accepted, programmed(accepted, facts, trouble)], before?.conditions, generation, now),
    listeners: listeners.map(({ name, protocol }) => ({
      name,
      // What reaches a waypoint is bound to Services and namespaces, never to its listener.
      attachedRoutes: 0,
      supportedKinds: [],
      conditions: withTimes(
        protocol === 'HBONE'
          ? [
              verdict('Accepted', true, 'Accepted', ''),
              verdict('Conflicted', false, 'NoConflicts', ''),
              verdict('ResolvedRefs', true, 'ResolvedRefs', ''),
              verdict('Programmed', (facts?.ready ?? 0) > 0, (facts?.ready ?? 0) > 0 ? 'Programmed' : 'Pending', ''),
            ]
          : [
              verdict('Accepted', false, 'UnsupportedProtocol', 'A waypoint has a listener of protocol HBONE only.'),
              verdict('Programmed', false, 'Invalid', ''),
            ],
        old.get(name),
        generation,
        now,
      ),
    })),
  }
}

function programmed(accepted: Verdict, facts: WaypointFacts | undefined, trouble: WaypointFacts['problem']): Verdict {
  if (accepted.status === 'False') return verdict('Programmed', false, 'Invalid', 'The Gateway is not accepted.')
  if (!facts) return { type: 'Programmed', status: 'Unknown', reason: 'Pending', message: 'Its objects are looked at.' }
  if (facts.ready > 0 && facts.addresses.length > 0) {
    const rest = trouble ? ` ${trouble.message} ${trouble.hint}` : ''
    return verdict('Programmed', true, 'Programmed', `${facts.ready} of ${facts.wanted} replicas are ready.${rest}`)
  }
  if (trouble) return verdict('Programmed', false, 'NoResources', `${trouble.message} ${trouble.hint}`)
  if (facts.addresses.length === 0)
    return verdict('Programmed', false, 'AddressNotAssigned', 'Its Service has no address yet.')
  return verdict('Programmed', false, 'Pending', `None of ${facts.wanted} replicas is ready.`)
}

export interface ParentRef {
  readonly group?: string
  readonly kind?: string
  readonly namespace?: string
  readonly name: string
  readonly sectionName?: string
  readonly port?: number
}

export interface ParentStatus {
  readonly parentRef: ParentRef
  readonly controllerName: string
  readonly conditions: readonly Condition[]
}

/**
 * status.parents of an HTTPRoute: Ambit's entries, one for each parentRef that is Ambit's to judge (Services, and Gateways of
 * its classes), after those of other controllers, which stay as they are.
 */
export function routeParents(
  route: {
    readonly generation: number | undefined
    readonly parentRefs: readonly ParentRef[]
    readonly rules: number
    readonly before: unknown
  },
  problems: readonly Problem[],
  isOurGateway: (parent: ParentRef) => boolean,
  now: string,
): readonly ParentStatus[] {
  const { generation, parentRefs, rules, before } = route
  const old = (Array.isArray(before) ? before : []) as readonly ParentStatus[]
  const others = old.filter((one) => one.controllerName !== CONTROLLER_NAME)
  const ours = parentRefs.flatMap((parentRef, index): ParentStatus[] => {
    const service = parentRef.kind === 'Service'
    if (!service && !((parentRef.kind ?? 'Gateway') === 'Gateway' && isOurGateway(parentRef))) return []
    const last = old.find((one) => one.controllerName === CONTROLLER_NAME && sameParent(one.parentRef, parentRef))
    const wanted = service
      ? verdictsOf(problems, index, rules)
      : [
          verdict(
            'Accepted',
            false,
            'NotAllowedByListeners',
            'A waypoint takes routes by their Service: write it as parent.',
          ),
          resolved(problems),
        ]
    return [
      {
        parentRef,
        controllerName: CONTROLLER_NAME,
        conditions: withTimes(wanted, last?.conditions, generation, now),
      },
    ]
  })
  return [...others, ...ours]
}

function verdictsOf(problems: readonly Problem[], parent: number, rules: number): Verdict[] {
  const at = (one: Problem, path: string): boolean => one.field === path || one.field.startsWith(`${path}.`)
  const ofParent = problems.filter((one) => at(one, `spec.parentRefs[${parent}]`) && one.severity === 'error')
  const ofDocument = problems.filter(
    (one) => one.severity === 'error' && !one.field.startsWith('spec.parentRefs[') && !isReference(one),
  )
  const unsupported = problems.filter((one) => one.code === 'CONFIG_NOT_YET' && one.field.startsWith('spec.rules['))
  const touched = new Set(unsupported.map((one) => /^spec\.rules\[(\d+)\]/.exec(one.field)?.[1])).size
  const accepted =
    ofParent.length > 0
      ? verdict('Accepted', false, 'NoMatchingParent', messageOf(ofParent))
      : ofDocument.length > 0
        ? verdict('Accepted', false, 'UnsupportedValue', messageOf(ofDocument))
        : unsupported.length > 0 && touched >= rules
          ? verdict('Accepted', false, 'UnsupportedValue', messageOf(unsupported))
          : verdict('Accepted', true, 'Accepted', acceptedMessage(problems, parent))
  const partly = accepted.status === 'True' && unsupported.length > 0
  return [
    accepted,
    resolved(problems),
    ...(partly
      ? [verdict('PartiallyInvalid', true, 'UnsupportedValue', `Dropped Rule: ${messageOf(unsupported)}`)]
      : []),
  ]
}

/** Warnings about this parent, as that no waypoint carries the route out. */
function acceptedMessage(problems: readonly Problem[], parent: number): string {
  const told = problems.filter(
    (one) => one.severity === 'warning' && one.field.startsWith(`spec.parentRefs[${parent}]`),
  )
  return told.length > 0 ? messageOf(told) : 'The route is accepted.'
}

const REFERENCE_REASONS: Readonly<Record<string, string>> = {
  CONFIG_NOT_PERMITTED: 'RefNotPermitted',
  CONFIG_UNKNOWN_TARGET: 'InvalidKind',
  CONFIG_UNKNOWN_HOST: 'BackendNotFound',
  CONFIG_UNKNOWN_PORT: 'BackendNotFound',
}

function isReference(one: Problem): boolean {
  return one.field.includes('.backendRefs[') && REFERENCE_REASONS[one.code] !== undefined
}

function resolved(problems: readonly Problem[]): Verdict {
  const broken = problems.filter(isReference)
  const reason = broken[0] && REFERENCE_REASONS[broken[0].code]
  return reason
    ? verdict('ResolvedRefs', false, reason, messageOf(broken))
    : verdict('ResolvedRefs', true, 'ResolvedRefs', 'All references are resolved.')
}

/** As the API has it: absent fields are their defaults. */
function sameParent(a: ParentRef, b: ParentRef): boolean {
  return (
    (a.group ?? GROUP) === (b.group ?? GROUP) &&
    (a.kind ?? 'Gateway') === (b.kind ?? 'Gateway') &&
    a.namespace === b.namespace &&
    a.name === b.name &&
    a.sectionName === b.sectionName &&
    a.port === b.port
  )
}
