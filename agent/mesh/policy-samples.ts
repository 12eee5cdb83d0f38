// Random policies, pods and connections of one node, for tests that hold two verdicts against each other: small pools of names, ports and
// addresses, so that policies and connections often meet. Must not be imported by anything but tests.
import fc from 'fast-check'
import { effectiveMode, syntheticPolicy, type MtlsMode } from './peer-authentication.ts'
import type { AuthzMatch } from './match.ts'
import type { Clause, Match, Policy } from './policy.ts'
import { sampleSource, sampleWorkload } from './samples.ts'
import { defaultSettings, type MeshSettings } from './settings.ts'
import { MeshState } from './state.ts'
import type { CapturedPod } from './tabulate.ts'
import type { Workload } from './workload.ts'

const namespaces = ['a', 'b']
const accounts = ['one', 'two', 'three']
/** Ports that policies name; 15008 and 0 are no app's. */
export const namedPorts = [80, 443, 8080, 9090] as const
const domains = ['cluster.local', 'old.example', 'foreign.example']
const settings: MeshSettings = { ...defaultSettings, trustDomainAliases: ['old.example'] }

const few = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(value, { minLength: 1, maxLength: 2 })

function texts(values: readonly string[]): fc.Arbitrary<AuthzMatch> {
  return fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...values).map((value): AuthzMatch => ({ type: 'exact', value })) },
    {
      weight: 2,
      arbitrary: fc.constantFrom(...values).map((value): AuthzMatch => ({ type: 'prefix', value: value.slice(0, 12) })),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(...values).map((value): AuthzMatch => ({ type: 'suffix', value: value.slice(-3) })),
    },
    { weight: 1, arbitrary: fc.constant<AuthzMatch>({ type: 'presence' }) },
  )
}

const principal = texts(
  domains.flatMap((domain) => namespaces.flatMap((ns) => accounts.map((sa) => `${domain}/ns/${ns}/sa/${sa}`))),
)
const range = fc.constantFrom(
  { address: '10.0.0.0', length: 8 },
  { address: '10.0.0.1', length: 32 },
  { address: '10.0.0.2', length: 31 },
  { address: 'fd00::', length: 16 },
  { address: 'fd00::1', length: 128 },
  { address: 'nonsense', length: 8 },
)
const ports = few(fc.constantFrom<number>(...namedPorts, 15008))
const match: fc.Arbitrary<Match> = fc
  .record(
    {
      principals: few(principal),
      notPrincipals: few(principal),
      namespaces: few(texts(namespaces)),
      notNamespaces: few(texts(namespaces)),
      serviceAccounts: few(
        fc.record({ namespace: fc.constantFrom(...namespaces), name: fc.constantFrom(...accounts) }),
      ),
      trustDomains: few(texts(domains)),
      notTrustDomains: few(texts(domains)),
      sourceIps: few(range),
      notSourceIps: few(range),
      destinationIps: few(range),
      notDestinationIps: few(range),
      destinationPorts: ports,
      notDestinationPorts: ports,
      methods: few(texts(['GET'])),
      unsupported: fc.constant(['something']),
    },
    { requiredKeys: [] },
  )
  // Most policies say one or two things.
  .chain((whole) => fc.subarray(Object.keys(whole), { maxLength: 2 }).map((kept) => pick(whole, kept)))

function pick(whole: Match, kept: readonly string[]): Match {
  return Object.fromEntries(Object.entries(whole).filter(([key]) => kept.includes(key)))
}

const clause: fc.Arbitrary<Clause> = fc.record({ matches: fc.array(match, { maxLength: 2 }) })
const policy = (name: string): fc.Arbitrary<Policy> =>
  fc.record({
    namespace: fc.constantFrom(...namespaces),
    name: fc.constant(name),
    scope: fc.constantFrom('global', 'namespace', 'namespace', 'workload', 'workload', 'target'),
    action: fc.constantFrom('ALLOW', 'ALLOW', 'ALLOW', 'DENY', 'DENY', 'CUSTOM', 'AUDIT'),
    dryRun: fc.oneof({ weight: 7, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
    selector: fc.constant({}),
    targets: fc.constant([]),
    rules: fc.array(fc.record({ clauses: fc.array(clause, { maxLength: 2 }) }), { maxLength: 2 }),
    source: fc.constant(sampleSource),
  })

const waypoint = { hostname: 'a/wp.a.svc.cluster.local', port: 15008 }
const mode = fc.constantFrom<MtlsMode>('UNSET', 'PERMISSIVE', 'STRICT', 'STRICT')
const pod = (number: number) =>
  fc
    .record({
      namespace: fc.constantFrom(...namespaces),
      serviceAccount: fc.constantFrom(...accounts),
      trustDomain: fc.oneof(
        { weight: 8, arbitrary: fc.constant('cluster.local') },
        { weight: 1, arbitrary: fc.constantFrom(...domains) },
      ),
      families: fc.constantFrom('4', '46', '46', '6'),
      waypoint: fc.boolean().filter((yes) => !yes || number % 4 === 3),
      sameNode: fc.oneof(
        { weight: 6, arbitrary: fc.constant<'direct'>('direct') },
        { weight: 1, arbitrary: fc.constant<'tunnel'>('tunnel') },
      ),
      mode,
      portMode: mode,
      selected: fc.array(fc.constantFrom('p0', 'p1', 'p2', 'p3'), { maxLength: 2 }),
      missing: fc.oneof({ weight: 12, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
    })
    .map((given) => ({ ...given, number }))

export interface SampleNode {
  readonly state: MeshState
  readonly pods: readonly CapturedPod[]
}

/**
 * A node of `count` pods under up to four policies. `simple`: without what keeps a pod out of the tables (waypoints, tunnels), for
 * tests that want connections.
 */
export function sampleNode(count = 4, simple = false): fc.Arbitrary<SampleNode> {
  const policies = fc
    .tuple(policy('p0'), policy('p1'), policy('p2'), policy('p3'))
    .chain((all) => fc.subarray([...all]))
  const pods = fc.tuple(...Array.from({ length: count }, (_, number) => pod(number)))
  return fc.record({ policies, pods }).map(({ policies, pods }) => {
    const state = new MeshState()
    state.settings = settings
    for (const one of policies) state.setPolicy(one)
    const captured = pods.map((given): CapturedPod => {
      const { number, families, mode, portMode, namespace } = given
      const addresses = [`10.0.0.${number + 1}`, `fd00::${number + 1}`].filter((_, at) =>
        families.includes('46'[at] ?? ''),
      )
      const authentication = {
        namespace,
        name: `pa${number}`,
        selector: { app: `pod${number}` },
        mode,
        portModes: { 8080: portMode },
        source: { ...sampleSource, kind: 'PeerAuthentication' },
      }
      const labels = { app: `pod${number}` }
      const synthetic = syntheticPolicy(effectiveMode([authentication], settings, namespace, labels), settings)
      if (synthetic) state.setPolicy(synthetic)
      const selected = given.selected
        .map((name) => policies.find((one) => one.name === name && one.scope === 'workload'))
        .filter((one) => one !== undefined)
      const workload: Workload = sampleWorkload({
        name: `pod${number}`,
        namespace,
        serviceAccount: given.serviceAccount,
        trustDomain: given.trustDomain,
        addresses,
        services: { 'a/svc.a.svc.cluster.local': { 80: 8080, 81: 9090 } },
        authorizationPolicies: [...selected, ...(synthetic ? [synthetic] : [])]
          .map((one) => `${one.namespace}/${one.name}`)
          .concat(given.missing ? ['a/missing'] : []),
        sameNode: simple ? 'direct' : given.sameNode,
        labels,
        ...(given.waypoint && !simple ? { waypoint } : {}),
      })
      state.setWorkload(workload)
      return { uid: `uid-${number}`, addresses, workload }
    })
    return { state, pods: captured }
  })
}
