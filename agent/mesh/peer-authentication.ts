// PeerAuthentication reduced to what agents enforce: the effective mode of a workload and of its ports, and the
// synthetic DENY policies that say it on the wire (reference: ambient, PeerAuthentication). DISABLE cannot switch HBONE
// off and counts as PERMISSIVE. Must not live here: parsing (config/).
import type { Match, Policy } from './policy.ts'
import { selects } from './applicable.ts'
import type { MeshSettings } from './settings.ts'
import type { Source } from './source.ts'

export type MtlsMode = 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT'

export interface PeerAuthentication {
  readonly namespace: string
  readonly name: string
  /** Empty: the whole namespace, or the mesh in the root namespace. */
  readonly selector: Readonly<Record<string, string>>
  readonly mode: MtlsMode
  /** By port of the workload; only with a selector. */
  readonly portModes: Readonly<Record<number, MtlsMode>>
  readonly source: Source
}

export interface EffectiveMode {
  readonly strict: boolean
  /** Ports whose mode differs from it. */
  readonly exceptions: readonly number[]
  /** The resources the mode comes from, most specific first; empty: the default, PERMISSIVE. */
  readonly decidedBy: readonly PeerAuthentication[]
}

/** Name of the policy that refuses plaintext on every port; lives in the root namespace. */
export const STATIC_STRICT = 'istio_converted_static_strict'
/** Begin of the names of policies that refuse it on some ports. */
const CONVERTED = 'converted_peer_authentication_'

/** The mode of a workload. `all` oldest first: at one level the oldest wins. Selectors in the root namespace count for nothing (ambient). */
export function effectiveMode(
  all: readonly PeerAuthentication[],
  settings: MeshSettings,
  namespace: string,
  labels: Readonly<Record<string, string>>,
): EffectiveMode {
  const root = settings.rootNamespace
  const whole = (one: PeerAuthentication): boolean => Object.keys(one.selector).length === 0
  const mesh = all.find((one) => one.namespace === root && whole(one))
  const wide = namespace === root ? undefined : all.find((one) => one.namespace === namespace && whole(one))
  const own = all.find(
    (one) => one.namespace === namespace && namespace !== root && !whole(one) && selects(one.selector, labels),
  )
  let strict = false
  const decidedBy: PeerAuthentication[] = []
  for (const level of [mesh, wide, own]) {
    if (!level || level.mode === 'UNSET') continue
    strict = level.mode === 'STRICT'
    decidedBy.unshift(level)
  }
  const exceptions: number[] = []
  for (const [port, mode] of Object.entries(own?.portModes ?? {})) {
    if (mode !== 'UNSET' && (mode === 'STRICT') !== strict) exceptions.push(Number(port))
  }
  if (own && exceptions.length > 0 && !decidedBy.includes(own)) decidedBy.unshift(own)
  return { strict, exceptions: exceptions.sort((a, b) => a - b), decidedBy }
}

const PLAINTEXT: Match = { notPrincipals: [{ type: 'presence' }] }

/** The policy that says an effective mode, or undefined for PERMISSIVE on every port. Workloads list it by `namespace/name`. */
export function syntheticPolicy(mode: EffectiveMode, settings: MeshSettings): Policy | undefined {
  const { strict, exceptions, decidedBy } = mode
  const [first] = decidedBy
  if (!first || (!strict && exceptions.length === 0)) return undefined
  if (exceptions.length === 0) return denyPlaintext(settings.rootNamespace, STATIC_STRICT, {}, first.source)
  const ports: Match = strict ? { notDestinationPorts: exceptions } : { destinationPorts: exceptions }
  return denyPlaintext(first.namespace, `${CONVERTED}${first.name}`, ports, first.source)
}

/** True for what syntheticPolicy made, here or in another control plane: Istio's says so by the name only. */
export function isSynthetic(policy: Policy): boolean {
  if (policy.action !== 'DENY' || policy.scope !== 'workload') return false
  return (
    policy.source.kind === 'PeerAuthentication' || policy.name === STATIC_STRICT || policy.name.startsWith(CONVERTED)
  )
}

function denyPlaintext(namespace: string, name: string, ports: Match, source: Source): Policy {
  const clauses = [{ matches: [PLAINTEXT] }]
  if (Object.keys(ports).length > 0) clauses.push({ matches: [ports] })
  return {
    namespace,
    name,
    scope: 'workload',
    action: 'DENY',
    dryRun: false,
    selector: {},
    targets: [],
    rules: [{ clauses }],
    source,
  }
}
