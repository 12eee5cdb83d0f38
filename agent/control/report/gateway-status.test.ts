import { describe, expect, it } from 'vitest'
import type { Problem, ProblemCode, Severity } from '../../config/problem.ts'
import type { WaypointFacts } from '../operate/facts.ts'
import {
  CONTROLLER_NAME,
  gatewayClassStatus,
  gatewayStatus,
  routeParents,
  type ParentRef,
  type ParentStatus,
} from './gateway-status.ts'

const NOW = '2030-01-01T00:00:00Z'
const problem = (severity: Severity, code: ProblemCode, field: string): Problem => ({
  severity,
  code,
  file: '',
  line: 0,
  field,
  message: 'm.',
  hint: '',
})
/** `Type=Status/Reason` */
const short = (conditions: readonly { type: string; status: string; reason: string }[] = []): string[] =>
  conditions.map((one) => `${one.type}=${one.status}/${one.reason}`)

describe('a GatewayClass', () => {
  it.each([
    ['ambit-waypoint', 'Accepted=True/Accepted'],
    ['istio-waypoint', 'Accepted=True/Accepted'],
    ['of-mine', 'Accepted=False/Unsupported'],
  ])('%s has %s', (name, wanted) => {
    expect(short(gatewayClassStatus(name, undefined, 1, NOW).conditions)).toEqual([wanted])
  })
})

const facts = (more: Partial<WaypointFacts> = {}): WaypointFacts => ({
  namespace: 'shop',
  name: 'waypoint',
  uid: 'u',
  generation: 1,
  addresses: [{ type: 'IPAddress', value: '10.96.0.9' }],
  ready: 1,
  wanted: 2,
  ...more,
})
const HBONE = { name: 'mesh', protocol: 'HBONE', port: 15_008 }
const trouble = (kind: 'parameters' | 'taken' | 'refused') => ({ kind, code: 'X', message: 'It is.', hint: 'Do.' })

describe('a waypoint’s Gateway', () => {
  const of = (problems: readonly Problem[], known: WaypointFacts | undefined, listeners = [HBONE]) =>
    gatewayStatus({ generation: 4, listeners, before: undefined }, problems, known, NOW)

  it.each<[string, readonly Problem[], WaypointFacts | undefined, string, string]>([
    ['not looked at yet', [], undefined, 'Accepted=True/Accepted', 'Programmed=Unknown/Pending'],
    ['that runs', [], facts(), 'Accepted=True/Accepted', 'Programmed=True/Programmed'],
    [
      'without an address',
      [],
      facts({ addresses: [] }),
      'Accepted=True/Accepted',
      'Programmed=False/AddressNotAssigned',
    ],
    ['of which no replica is ready', [], facts({ ready: 0 }), 'Accepted=True/Accepted', 'Programmed=False/Pending'],
    [
      'with parameters that do not fit',
      [],
      facts({ problem: trouble('parameters') }),
      'Accepted=False/InvalidParameters',
      'Programmed=False/Invalid',
    ],
    [
      'whose name somebody has',
      [],
      facts({ ready: 0, problem: trouble('taken') }),
      'Accepted=True/Accepted',
      'Programmed=False/NoResources',
    ],
    [
      'that runs on while a change of it is refused',
      [],
      facts({ problem: trouble('refused') }),
      'Accepted=True/Accepted',
      'Programmed=True/Programmed',
    ],
    [
      'with a mistake in a label',
      [problem('error', 'CONFIG_INVALID_VALUE', 'metadata.labels["istio.io/waypoint-for"]')],
      facts(),
      'Accepted=False/Invalid',
      'Programmed=False/Invalid',
    ],
    [
      'without a listener',
      [problem('error', 'CONFIG_REQUIRED', 'spec')],
      facts(),
      'Accepted=False/ListenersNotValid',
      'Programmed=False/Invalid',
    ],
    [
      'with parameters of another kind',
      [problem('error', 'CONFIG_INVALID_VALUE', 'spec.infrastructure.parametersRef.kind')],
      facts(),
      'Accepted=False/InvalidParameters',
      'Programmed=False/Invalid',
    ],
  ])('%s', (_, problems, known, accepted, programmed) => {
    expect(short(of(problems, known).conditions)).toEqual([accepted, programmed])
  })

  it('has the addresses of its Service, and says of which generation it speaks', () => {
    const status = of([], facts())
    expect(status.addresses).toEqual([{ type: 'IPAddress', value: '10.96.0.9' }])
    expect(status.conditions.map((one) => one.observedGeneration)).toEqual([4, 4])
  })

  it.each<[string, readonly { name: string; protocol: string; port: number }[], readonly Problem[], string[][]]>([
    [
      'one of HBONE',
      [HBONE],
      [],
      [
        [
          'Accepted=True/Accepted',
          'Conflicted=False/NoConflicts',
          'ResolvedRefs=True/ResolvedRefs',
          'Programmed=True/Programmed',
        ],
      ],
    ],
    [
      'one of HTTP beside it',
      [HBONE, { name: 'web', protocol: 'HTTP', port: 80 }],
      [],
      [
        [
          'Accepted=True/Accepted',
          'Conflicted=False/NoConflicts',
          'ResolvedRefs=True/ResolvedRefs',
          'Programmed=True/Programmed',
        ],
        [
          'Accepted=False/UnsupportedProtocol',
          'Conflicted=False/NoConflicts',
          'ResolvedRefs=True/ResolvedRefs',
          'Programmed=False/Invalid',
        ],
      ],
    ],
    [
      'one on another port',
      [{ ...HBONE, port: 80 }],
      [problem('error', 'CONFIG_INVALID_VALUE', 'spec.listeners[0].port')],
      [
        [
          'Accepted=False/PortUnavailable',
          'Conflicted=False/NoConflicts',
          'ResolvedRefs=True/ResolvedRefs',
          'Programmed=False/Invalid',
        ],
      ],
    ],
    [
      'two on one port',
      [HBONE, { ...HBONE, name: 'again' }],
      [],
      [
        [
          'Accepted=True/Accepted',
          'Conflicted=False/NoConflicts',
          'ResolvedRefs=True/ResolvedRefs',
          'Programmed=True/Programmed',
        ],
        [
          'Accepted=True/Accepted',
          'Conflicted=True/HostnameConflict',
          'ResolvedRefs=True/ResolvedRefs',
          'Programmed=False/Invalid',
        ],
      ],
    ],
  ])('says of each listener how it is: %s', (_, listeners, problems, wanted) => {
    const status = gatewayStatus({ generation: 1, listeners, before: undefined }, problems, facts(), NOW)
    const found = status.listeners as { name: string; attachedRoutes: number; conditions: never[] }[]
    expect(found.map((one) => short(one.conditions))).toEqual(wanted)
    expect(found.map((one) => [one.name, one.attachedRoutes])).toEqual(listeners.map((one) => [one.name, 0]))
  })

  it('is accepted for the sake of the mesh’s listener when another is refused', () => {
    const listeners = [HBONE, { name: 'web', protocol: 'HTTP', port: 80 }]
    expect(short(of([], facts(), listeners).conditions)[0]).toBe('Accepted=True/ListenersNotValid')
  })
})

const SERVICE: ParentRef = { group: '', kind: 'Service', name: 'reviews' }
const OURS: ParentRef = { name: 'waypoint' }
const THEIRS: ParentRef = { name: 'nginx' }

describe('an HTTPRoute', () => {
  const of = (parentRefs: readonly ParentRef[], problems: readonly Problem[], before?: unknown, rules = 1) =>
    routeParents(
      { generation: 2, parentRefs, rules, before },
      problems,
      (one) => one.kind === 'Service' || one.name === 'waypoint',
      NOW,
    )

  it.each<[string, ParentRef, readonly Problem[], number, string[]]>([
    ['that is fine', SERVICE, [], 1, ['Accepted=True/Accepted', 'ResolvedRefs=True/ResolvedRefs']],
    [
      'of a Service that is not there',
      SERVICE,
      [problem('error', 'CONFIG_UNKNOWN_HOST', 'spec.parentRefs[0].name')],
      1,
      ['Accepted=False/NoMatchingParent', 'ResolvedRefs=True/ResolvedRefs'],
    ],
    [
      'of a port that is not there',
      SERVICE,
      [problem('error', 'CONFIG_UNKNOWN_PORT', 'spec.parentRefs[0]')],
      1,
      ['Accepted=False/NoMatchingParent', 'ResolvedRefs=True/ResolvedRefs'],
    ],
    [
      'whose document is wrong',
      SERVICE,
      [problem('error', 'CONFIG_UNKNOWN_FIELD', 'spec.rules[0].route')],
      1,
      ['Accepted=False/UnsupportedValue', 'ResolvedRefs=True/ResolvedRefs'],
    ],
    [
      'with a filter Ambit has not, in its only rule',
      SERVICE,
      [problem('warning', 'CONFIG_NOT_YET', 'spec.rules[0].filters[0].cors')],
      1,
      ['Accepted=False/UnsupportedValue', 'ResolvedRefs=True/ResolvedRefs'],
    ],
    [
      'with such a filter in one of two rules',
      SERVICE,
      [problem('warning', 'CONFIG_NOT_YET', 'spec.rules[1].filters[0].cors')],
      2,
      ['Accepted=True/Accepted', 'ResolvedRefs=True/ResolvedRefs', 'PartiallyInvalid=True/UnsupportedValue'],
    ],
    [
      'to a backend that is not there',
      SERVICE,
      [problem('error', 'CONFIG_UNKNOWN_HOST', 'spec.rules[0].backendRefs[0]')],
      1,
      ['Accepted=True/Accepted', 'ResolvedRefs=False/BackendNotFound'],
    ],
    [
      'to a backend that may not be used from here',
      SERVICE,
      [problem('error', 'CONFIG_NOT_PERMITTED', 'spec.rules[0].backendRefs[0]')],
      1,
      ['Accepted=True/Accepted', 'ResolvedRefs=False/RefNotPermitted'],
    ],
    [
      'to a backend that is no Service',
      SERVICE,
      [problem('error', 'CONFIG_UNKNOWN_TARGET', 'spec.rules[0].backendRefs[0]')],
      1,
      ['Accepted=True/Accepted', 'ResolvedRefs=False/InvalidKind'],
    ],
    ['of a waypoint', OURS, [], 1, ['Accepted=False/NotAllowedByListeners', 'ResolvedRefs=True/ResolvedRefs']],
  ])('%s', (_, parent, problems, rules, wanted) => {
    const [entry, ...more] = of([parent], problems, undefined, rules)
    expect(more).toEqual([])
    expect(entry).toMatchObject({ parentRef: parent, controllerName: CONTROLLER_NAME })
    expect(short(entry?.conditions)).toEqual(wanted)
    expect(entry?.conditions.every((one) => one.observedGeneration === 2)).toBe(true)
  })

  it('is judged for each parent by itself', () => {
    const parents = of(
      [SERVICE, { ...SERVICE, name: 'x' }],
      [problem('error', 'CONFIG_UNKNOWN_HOST', 'spec.parentRefs[1].name')],
    )
    expect(parents.map((one) => short(one.conditions)[0])).toEqual([
      'Accepted=True/Accepted',
      'Accepted=False/NoMatchingParent',
    ])
    // parentRefs[1] is no prefix of parentRefs[10].
    const many = Array.from({ length: 11 }, (_, at) => ({ ...SERVICE, name: `s${at}` }))
    const judged = of(many, [problem('error', 'CONFIG_UNKNOWN_HOST', 'spec.parentRefs[10].name')])
    expect(judged.map((one) => one.conditions[0]?.status).indexOf('False')).toBe(10)
  })

  it('has nothing of Ambit’s for parents of others, whose entries stay as they are', () => {
    const theirs: ParentStatus = { parentRef: THEIRS, controllerName: 'nginx.org/gateway', conditions: [] }
    expect(of([THEIRS], [], [theirs])).toEqual([theirs])
    expect(of([THEIRS, SERVICE], [], [theirs])).toMatchObject([theirs, { parentRef: SERVICE }])
  })

  it('loses Ambit’s entries of parents it has no more', () => {
    const before = of([SERVICE, { ...SERVICE, name: 'gone' }], [])
    expect(of([SERVICE], [], before).map((one) => one.parentRef.name)).toEqual(['reviews'])
    expect(of([THEIRS], [], before)).toEqual([])
  })

  it('keeps the time of an entry whose parent the API filled with defaults', () => {
    const old = of([SERVICE], []).map((one) => ({
      ...one,
      conditions: one.conditions.map((each) => ({ ...each, lastTransitionTime: 'T1' })),
    }))
    expect(of([SERVICE], [], old)[0]?.conditions[0]?.lastTransitionTime).toBe('T1')
    const gateway = of([OURS], []).map((one) => ({
      ...one,
      parentRef: { ...one.parentRef, group: 'gateway.networking.k8s.io', kind: 'Gateway' },
      conditions: one.conditions.map((each) => ({ ...each, lastTransitionTime: 'T1' })),
    }))
    expect(of([OURS], [], gateway)[0]?.conditions[0]?.lastTransitionTime).toBe('T1')
  })
})
