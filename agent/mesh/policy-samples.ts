// Random policies, pods and connections of one node, for tests that hold two verdicts against each other: small pools of names, ports and
// addresses, so that policies and connections often meet. Must not be imported by anything but tests.
import fc from 'fast-check'
import { effectiveMode, syntheticPolicy, type MtlsMode } from './peer-authentication.ts'
import type { AuthzMatch } from './match.ts'
import type { Clause, IpRange, Match, Policy } from './policy.ts'
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
const ports = few(fc.constantFrom<number>(...namedPorts, 15008))
/** Ranges with all pods of a family, some, one, and one that is none. */
function rangeOver(addressesOf: AddressesOf): fc.Arbitrary<IpRange> {
  const [four, six] = addressesOf(0)
  const [second] = addressesOf(1)
  return fc.constantFrom<IpRange>(
    { address: four, length: 8 },
    { address: four, length: 32 },
    { address: second, length: 31 },
    { address: six, length: 16 },
    { address: six, length: 128 },
    { address: 'nonsense', length: 8 },
  )
}

const matchOver = (range: fc.Arbitrary<IpRange>): fc.Arbitrary<Match> =>
  fc
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

const policy = (name: string, clause: fc.Arbitrary<Clause>): fc.Arbitrary<Policy> =>
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

/** The addresses of a pod by its number: IPv4, IPv6. */
type AddressesOf = (number: number) => readonly [string, string]

const madeUp: AddressesOf = (number) => [`10.0.0.${number + 1}`, `fd00::${number + 1}`]

/** A node of `count` pods under up to four policies. `real`: the addresses of pods there are, all of which have both. */
export function sampleNode(count = 4, real?: AddressesOf): fc.Arbitrary<SampleNode> {
  const addressesOf = real ?? madeUp
  const match = matchOver(rangeOver(addressesOf))
  const clause: fc.Arbitrary<Clause> = fc.record({ matches: fc.array(match, { maxLength: 2 }) })
  const policies = fc
    .tuple(policy('p0', clause), policy('p1', clause), policy('p2', clause), policy('p3', clause))
    .chain((all) => fc.subarray([...all]))
  const pods = fc.tuple(...Array.from({ length: count }, (_, number) => pod(number)))
  return fc.record({ policies, pods }).map(({ policies, pods }) => {
    const state = new MeshState()
    state.settings = settings
    for (const one of policies) state.setPolicy(one)
    const captured = pods.map((given): CapturedPod => {
      const { number, families, mode, portMode, namespace } = given
      const addresses = addressesOf(number).filter((_, at) => real !== undefined || families.includes('46'[at] ?? ''))
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
        sameNode: given.sameNode,
        labels,
        ...(given.waypoint ? { waypoint } : {}),
      })
      state.setWorkload(workload)
      return { uid: `uid-${number}`, addresses, workload }
    })
    return { state, pods: captured }
  })
}
