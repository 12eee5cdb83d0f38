// The security resources together: policies whole, modes of mutual TLS as synthetic policies, denials for rejected
// resources, and each workload's list of those that select it.
// Must not live here: one kind's fields (authorization-policy*.ts, peer-authentication.ts), decisions (mesh/).
import { effectiveMode, syntheticPolicy, type PeerAuthentication } from '../mesh/peer-authentication.ts'
import type { Policy } from '../mesh/policy.ts'
import type { MeshSettings } from '../mesh/settings.ts'
import type { Workload } from '../mesh/workload.ts'
import { attachmentOfRejected, denyPolicy } from './attachment.ts'
import { authorizationPolicy, type AuthorizationPolicyBody } from './authorization-policy.ts'
import { toPolicy } from './authorization-policy-domain.ts'
import type { Context } from './context.ts'
import { reportEnforcement, reportNoWaypoint } from './enforcement.ts'
import { gateway, gatewayClass, WAYPOINT_CLASSES } from './gateway.ts'
import { LabelIndex } from './label-index.ts'
import type { Memory } from './memory.ts'
import { peerAuthentication } from './peer-authentication.ts'
import { sourceOf, type FieldPath, type Resource } from './resource.ts'
import { service } from './service.ts'
import type { Denial } from './store.ts'

export interface Security {
  readonly policies: readonly Policy[]
  /** Oldest first. */
  readonly peerAuthentications: readonly PeerAuthentication[]
  /** The given workloads with their lists. */
  readonly workloads: readonly Workload[]
}

export function toSecurity(
  context: Context,
  workloads: readonly Workload[],
  denials: readonly Denial[],
  memory: Memory,
): Security {
  const { settings } = context
  const policies: Policy[] = []
  const index = new LabelIndex<Workload>()
  for (const workload of workloads) index.add(workload.namespace, workload.labels, workload)
  for (const one of context.of(authorizationPolicy)) {
    const policy = toPolicy(one, settings.rootNamespace)
    policies.push(policy)
    reportAttachment(context, one, policy)
    if (policy.scope === 'workload' || policy.scope === 'namespace') {
      const home =
        policy.scope === 'workload' && policy.namespace === settings.rootNamespace ? undefined : policy.namespace
      reportEnforcement(context, one, policy, index.find(home, policy.selector))
    }
  }
  const taken = new Set<string>()
  for (const denial of denials) {
    const { kind, namespace, name } = denial.ref
    const attachment = attachmentOfRejected(denial.document, namespace, settings.rootNamespace)
    // Several may have one name, or none that could be read: each must deny what it selects.
    let unique = name
    for (let i = 2; taken.has(`${kind}/${namespace}/${unique}`); i++) unique = `${name}_${i}`
    taken.add(`${kind}/${namespace}/${unique}`)
    policies.push(denyPolicy(kind, namespace, unique, attachment, denial.source))
  }
  const modes = context.of(peerAuthentication).map((one): PeerAuthentication => {
    const { spec } = one.body
    const labels = spec.selector?.matchLabels ?? {}
    const rootOnly = Object.keys(labels).length > 0 && one.metadata.namespace === settings.rootNamespace
    if (rootOnly) {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_NO_EFFECT',
        path: ['spec', 'selector'],
        message: 'A PeerAuthentication with a selector has no effect in the root namespace.',
        hint: 'Put it into the namespace of the workloads.',
      })
    } else reportSelector(context, one, labels, one.metadata.namespace)
    return {
      namespace: one.metadata.namespace,
      name: one.metadata.name,
      selector: labels,
      mode: spec.mtls?.mode ?? 'UNSET',
      portModes: Object.fromEntries(
        Object.entries(spec.portLevelMtls ?? {}).map(([port, value]) => [Number(port), value.mode ?? 'UNSET']),
      ),
      source: sourceOf(one),
    }
  })
  reportShadowed(context)
  const lists = new PolicyLists(policies, modes, settings, index)
  const listed = workloads.map((workload) => {
    const keys = lists.of(workload)
    return keys.length > 0 ? memory.listed(workload, keys) : workload
  })
  return { policies: [...policies, ...lists.synthetic.values()], peerAuthentications: modes, workloads: listed }
}

/** Which policies a workload lists, with what can be answered once per namespace answered once. */
class PolicyLists {
  /** Policies that say a mode of mutual TLS, as far as some workload needs them. */
  readonly synthetic = new Map<string, Policy>()
  readonly #settings: MeshSettings
  readonly #modes: readonly PeerAuthentication[]
  readonly #selecting = new Map<Workload, string[]>()
  /** Namespaces with PeerAuthentications for chosen workloads; in the others all workloads have one mode. */
  readonly #varied: ReadonlySet<string>
  readonly #strict = new Map<string, string | undefined>()

  constructor(
    policies: readonly Policy[],
    modes: readonly PeerAuthentication[],
    settings: MeshSettings,
    index: LabelIndex<Workload>,
  ) {
    this.#settings = settings
    this.#modes = modes
    this.#varied = new Set(modes.filter((one) => Object.keys(one.selector).length > 0).map((one) => one.namespace))
    for (const policy of policies) {
      if (policy.scope !== 'workload') continue
      const everywhere = policy.namespace === settings.rootNamespace
      for (const workload of index.find(everywhere ? undefined : policy.namespace, policy.selector)) {
        const list = this.#selecting.get(workload)
        if (list) list.push(`${policy.namespace}/${policy.name}`)
        else this.#selecting.set(workload, [`${policy.namespace}/${policy.name}`])
      }
    }
  }

  of(workload: Workload): readonly string[] {
    const { namespace, labels } = workload
    const keys = this.#selecting.get(workload) ?? []
    const strict = this.#varied.has(namespace) ? this.#strictFor(namespace, labels) : this.#strictForAll(namespace)
    return strict === undefined ? keys : [...keys, strict]
  }

  #strictForAll(namespace: string): string | undefined {
    if (!this.#strict.has(namespace)) this.#strict.set(namespace, this.#strictFor(namespace, {}))
    return this.#strict.get(namespace)
  }

  #strictFor(namespace: string, labels: Readonly<Record<string, string>>): string | undefined {
    const policy = syntheticPolicy(effectiveMode(this.#modes, this.#settings, namespace, labels), this.#settings)
    if (!policy) return undefined
    const key = `${policy.namespace}/${policy.name}`
    if (!this.synthetic.has(key)) this.synthetic.set(key, policy)
    return key
  }
}

function reportAttachment(context: Context, one: Resource<AuthorizationPolicyBody>, policy: Policy): void {
  const { settings } = context
  if (policy.scope === 'workload') {
    reportSelector(
      context,
      one,
      policy.selector,
      policy.namespace === settings.rootNamespace ? undefined : policy.namespace,
    )
    return
  }
  for (const [index, target] of policy.targets.entries()) {
    const path: FieldPath = one.body.spec.targetRefs?.length ? ['spec', 'targetRefs', index] : ['spec', 'targetRef']
    const exists =
      target.kind === 'Service'
        ? context.has(service, target.namespace, target.name)
        : target.kind === 'Gateway'
          ? context.has(gateway, target.namespace, target.name)
          : target.kind === 'GatewayClass'
            ? WAYPOINT_CLASSES.includes(target.name) || context.has(gatewayClass, '', target.name)
            : true
    const targeted = target.kind === 'Service' ? context.serviceOf(target.namespace, target.name) : undefined
    if (targeted) reportNoWaypoint(context, one, targeted, path)
    if (!exists) {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_UNKNOWN_TARGET',
        path: [...path, 'name'],
        message: `There is no ${target.kind} ${target.namespace}/${target.name}.`,
        hint: 'Check the name; until it exists the policy protects nothing.',
      })
    }
    if (target.kind === 'GatewayClass' && policy.namespace !== settings.rootNamespace) {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_NO_EFFECT',
        path,
        message: `A GatewayClass is targeted from the root namespace (${settings.rootNamespace}) only.`,
        hint: `Move the policy to namespace ${settings.rootNamespace}.`,
      })
    }
  }
}

function reportSelector(
  context: Context,
  one: Resource,
  labels: Readonly<Record<string, string>>,
  namespace: string | undefined,
): void {
  if (Object.keys(labels).length === 0 || context.someWorkload(labels, namespace)) return
  const text = Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
  context.report(one, {
    severity: 'warning',
    code: 'CONFIG_SELECTS_NOTHING',
    path: ['spec', 'selector', 'matchLabels'],
    message: `No workload${namespace === undefined ? '' : ` in namespace ${namespace}`} has the labels ${text}: the resource has no effect.`,
    hint: 'Check the labels and the namespace.',
  })
}

/** At one level the oldest PeerAuthentication counts; the others are named. */
function reportShadowed(context: Context): void {
  const seen = new Map<string, Resource>()
  for (const one of context.of(peerAuthentication)) {
    const labels = one.body.spec.selector?.matchLabels ?? {}
    const key = `${one.metadata.namespace}/${JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))}`
    const first = seen.get(key)
    if (!first) seen.set(key, one)
    else {
      context.report(one, {
        severity: 'warning',
        code: 'CONFIG_CONFLICT',
        path: [],
        message: `${first.metadata.namespace}/${first.metadata.name} is older and speaks about the same workloads: this one has no effect.`,
        hint: 'Remove one of them.',
      })
    }
  }
}
