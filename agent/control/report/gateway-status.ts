// The status of Gateway API's GatewayClass, Gateway and HTTPRoute, with its exact condition types and reasons
// (gateway-api apis/v1 *_types.go). Pure. Must not live here: writing it (reporter.ts), making waypoints (operate/).
import { WAYPOINT_CLASSES } from '../../config/gateway.ts'
import type { Problem } from '../../config/problem.ts'
import type { WaypointFacts } from '../operate/facts.ts'
import { CONTROLLER_NAME } from '../operate/wishes.ts'
import { messageOf, withTimes, type Condition, type Verdict } from './conditions.ts'

/** In GatewayClasses whose Gateways Ambit runs, and in entries of status.parents that are Ambit's. */
export { CONTROLLER_NAME } from '../operate/wishes.ts'
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

/** Of a class whose controller Ambit is: those it knows are waypoints, by their names; others it has none of. */
export function gatewayClassStatus(
  name: string,
  before: { readonly conditions?: unknown } | undefined,
  generation: number | undefined,
  now: string,
): GatewayClassStatus {
  const accepted = WAYPOINT_CLASSES.includes(name)
    ? verdict('Accepted', true, 'Accepted', 'Gateways of this class are waypoints, run by Ambit.')
    : verdict(
        'Accepted',
        false,
        'Unsupported',
        `Ambit's classes are ${WAYPOINT_CLASSES.join(' and ')}, by these names.`,
      )
  return { conditions: withTimes([accepted], before?.conditions, generation, now) }
}

export interface ListenerSpec {
  readonly name: string
  readonly protocol: string
  readonly port?: number
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
  const parameters = facts?.problem?.kind === 'parameters' ? facts.problem : undefined
  const trouble = facts?.problem && !parameters ? facts.problem : undefined
  const own = listeners.map((one, index) => listenerVerdicts(one, index, listeners, problems, facts))
  const accepted = gatewayAccepted(problems, parameters, own)
  const old = new Map(
    (Array.isArray(before?.listeners) ? (before.listeners as { name?: unknown; conditions?: unknown }[]) : []).map(
      (one) => [one.name, one.conditions],
    ),
  )
  return {
    addresses: facts?.addresses ?? [],
    conditions: withTimes([accepted, programmed(accepted, facts, trouble)], before?.conditions, generation, now),
    listeners: listeners.map(({ name }, index) => ({
      name,
      // What reaches a waypoint is bound to Services and namespaces, never to its listener.
      attachedRoutes: 0,
      supportedKinds: [],
      conditions: withTimes(own[index] ?? [], old.get(name), generation, now),
    })),
  }
}

function gatewayAccepted(
  problems: readonly Problem[],
  parameters: WaypointFacts['problem'],
  listeners: readonly (readonly Verdict[])[],
): Verdict {
  const errors = problems.filter((one) => one.severity === 'error')
  if (errors.length > 0) {
    const ofListeners = errors.every((one) => one.field.startsWith('spec.listeners') || one.field === 'spec')
    const ofParameters = errors.every((one) => one.field.startsWith('spec.infrastructure.parametersRef'))
    const reason = ofListeners ? 'ListenersNotValid' : ofParameters ? 'InvalidParameters' : 'Invalid'
    return verdict('Accepted', false, reason, messageOf(errors))
  }
  if (parameters) return verdict('Accepted', false, 'InvalidParameters', `${parameters.message} ${parameters.hint}`)
  const refused = listeners.some((one) => one.some(({ type, status }) => type === 'Accepted' && status === 'False'))
  // Accepted all the same: the listener of the mesh serves.
  return refused
    ? verdict('Accepted', true, 'ListenersNotValid', 'The waypoint is accepted, but not all of its listeners.')
    : verdict('Accepted', true, 'Accepted', 'The waypoint is accepted.')
}

function listenerVerdicts(
  listener: ListenerSpec,
  index: number,
  all: readonly ListenerSpec[],
  problems: readonly Problem[],
  facts: WaypointFacts | undefined,
): Verdict[] {
  const own = problems.filter((one) => one.severity === 'error' && one.field.startsWith(`spec.listeners[${index}]`))
  const twin = all.findIndex((one) => one.protocol === 'HBONE' && one.port === listener.port) < index
  const conflicted = listener.protocol === 'HBONE' && twin
  const ready = facts?.ready ?? 0
  const refused =
    listener.protocol !== 'HBONE'
      ? verdict('Accepted', false, 'UnsupportedProtocol', 'A waypoint has a listener of protocol HBONE only.')
      : own.length > 0
        ? verdict(
            'Accepted',
            false,
            own.every((one) => one.field.endsWith('.port')) ? 'PortUnavailable' : 'Invalid',
            messageOf(own),
          )
        : undefined
  return [
    refused ?? verdict('Accepted', true, 'Accepted', 'The listener is accepted.'),
    conflicted
      ? verdict('Conflicted', true, 'HostnameConflict', 'An HBONE listener before this one has the same port.')
      : verdict('Conflicted', false, 'NoConflicts', ''),
    verdict('ResolvedRefs', true, 'ResolvedRefs', ''),
    refused || conflicted
      ? verdict('Programmed', false, 'Invalid', 'The listener is not served.')
      : verdict('Programmed', ready > 0, ready > 0 ? 'Programmed' : 'Pending', ''),
  ]
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
  isOurs: (parent: ParentRef) => boolean,
  now: string,
): readonly ParentStatus[] {
  const { generation, parentRefs, rules, before } = route
  const old = (Array.isArray(before) ? before : []) as readonly ParentStatus[]
  const others = old.filter((one) => one.controllerName !== CONTROLLER_NAME)
  const ours = parentRefs.flatMap((parentRef, index): ParentStatus[] => {
    const service = parentRef.kind === 'Service'
    if (!isOurs(parentRef)) return []
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
