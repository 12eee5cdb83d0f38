// DestinationRules as the domain's upstreams: which rules hold for a service and a client's namespace, merged.
// Lookup as Istio does it: the client's namespace, then the service's, then the root namespace; within one the most
// specific host; rules of one host merge oldest first (reference: l7, DestinationRule).
// Must not live here: the schema (destination-rule.ts), choosing for a request (mesh/traffic-policy.ts).
import type { Service } from '../mesh/service.ts'
import type { Subset, TrafficPolicy, Upstream } from '../mesh/upstream.ts'
import type { Context } from './context.ts'
import {
  destinationRule,
  toTrafficPolicy,
  type DestinationRuleBody,
  type TrafficPolicySpec,
} from './destination-rule.ts'
import { reportNoWaypoint } from './enforcement.ts'
import { sourceOf, type Resource } from './resource.ts'

type DestinationRule = Resource<DestinationRuleBody>

interface Claim {
  readonly rule: DestinationRule
  /** Length of the host pattern; exact hosts are Infinity. */
  readonly specific: number
}

export function toUpstreams(context: Context): Upstream[] {
  const claims = new Map<Service, Claim[]>()
  for (const rule of context.of(destinationRule)) {
    const { spec } = rule.body
    if (spec.workloadSelector) continue
    const pattern = context.host(spec.host, rule)
    const services = context.servicesMatching(pattern)
    if (services.length === 0) {
      context.report(rule, {
        severity: 'warning',
        code: 'CONFIG_UNKNOWN_HOST',
        path: ['spec', 'host'],
        message: `${spec.host} is no service of the mesh: the rule has no effect.`,
        hint: context.hostHint(pattern, rule),
      })
    }
    for (const service of services) {
      if (!pattern.startsWith('*')) reportNoWaypoint(context, rule, service, ['spec', 'host'])
      const list = claims.get(service)
      const claim = { rule, specific: pattern.startsWith('*') ? pattern.length : Number.POSITIVE_INFINITY }
      if (list) list.push(claim)
      else claims.set(service, [claim])
    }
    reportSubsets(context, rule, services)
  }
  const upstreams: Upstream[] = []
  const told = new Set<string>()
  for (const [service, list] of claims) {
    const everyone = chosen(context, service, list, '*')
    if (everyone.length > 0) upstreams.push(merge(context, service, '*', everyone, told))
    for (const consumer of consumers(list)) {
      const own = chosen(context, service, list, consumer)
      if (own.length > 0 && !sameList(own, everyone)) upstreams.push(merge(context, service, consumer, own, told))
    }
  }
  return upstreams
}

/** Namespaces for which the rules may differ: where one lives, or is exported to by name. */
function consumers(list: readonly Claim[]): Set<string> {
  const names = new Set<string>()
  for (const { rule } of list) {
    names.add(rule.metadata.namespace)
    for (const text of rule.body.spec.exportTo ?? []) if (text !== '*' && text !== '.' && text !== '~') names.add(text)
  }
  return names
}

function isVisible(rule: DestinationRule, consumer: string): boolean {
  const own = rule.metadata.namespace
  const exportTo = rule.body.spec.exportTo ?? ['*']
  return exportTo.some(
    (text) => text === '*' || (consumer !== '*' && (text === consumer || (text === '.' && own === consumer))),
  )
}

function chosen(
  context: Context,
  service: Service,
  list: readonly Claim[],
  consumer: string,
): readonly DestinationRule[] {
  const levels = [consumer, service.namespace, context.settings.rootNamespace]
  for (const level of levels) {
    const here = list.filter(({ rule }) => rule.metadata.namespace === level && isVisible(rule, consumer))
    if (here.length === 0) continue
    const specific = Math.max(...here.map((claim) => claim.specific))
    return here.filter((claim) => claim.specific === specific).map((claim) => claim.rule)
  }
  return []
}

function sameList(a: readonly DestinationRule[], b: readonly DestinationRule[]): boolean {
  return a.length === b.length && a.every((rule, index) => rule === b[index])
}

/** The top-level policy is the oldest rule's that has one; subsets are those of all, the first of a name counts. */
function merge(
  context: Context,
  service: Service,
  consumer: string,
  rules: readonly DestinationRule[],
  told: Set<string>,
): Upstream {
  const withPolicy = rules.filter((rule) => rule.body.spec.trafficPolicy)
  const [decisive, ...others] = withPolicy
  for (const rule of others) {
    const once = `${rule.metadata.namespace}/${rule.metadata.name}`
    if (told.has(once) || !decisive) continue
    told.add(once)
    context.report(rule, {
      severity: 'warning',
      code: 'CONFIG_CONFLICT',
      path: ['spec', 'trafficPolicy'],
      message: `Has no effect: DestinationRule ${decisive.metadata.namespace}/${decisive.metadata.name} (${sourceOf(decisive, ['spec', 'trafficPolicy']).place ?? 'older'}) is older and sets the policy of ${service.hostname}.`,
      hint: 'Put the settings of one host into one DestinationRule.',
    })
  }
  const subsets = new Map<string, Subset>()
  for (const rule of rules) {
    for (const [index, spec] of (rule.body.spec.subsets ?? []).entries()) {
      const first = subsets.get(spec.name)
      if (first) {
        const once = `${rule.metadata.namespace}/${rule.metadata.name}/${spec.name}`
        if (told.has(once)) continue
        told.add(once)
        context.report(rule, {
          severity: 'warning',
          code: 'CONFIG_CONFLICT',
          path: ['spec', 'subsets', index],
          message: `The subset ${spec.name} of ${service.hostname} is already declared by ${first.source.namespace}/${first.source.name}${first.source.place ? ` (${first.source.place})` : ''}; that one counts.`,
          hint: 'Remove one of them.',
        })
        continue
      }
      subsets.set(spec.name, {
        name: spec.name,
        labels: spec.labels ?? {},
        ...(spec.trafficPolicy ? { policy: toTrafficPolicy(spec.trafficPolicy) } : {}),
        source: sourceOf(rule, ['spec', 'subsets', index]),
      })
    }
  }
  const policy: TrafficPolicySpec = decisive?.body.spec.trafficPolicy ?? {}
  return {
    namespace: service.namespace,
    hostname: service.hostname,
    consumerNamespace: consumer,
    policy: toTrafficPolicy(policy),
    portPolicies: portPolicies(policy),
    subsets: [...subsets.values()],
    sources: rules.map((rule) => sourceOf(rule)),
  }
}

function portPolicies(policy: TrafficPolicySpec): Record<number, TrafficPolicy> {
  const result: Record<number, TrafficPolicy> = {}
  for (const one of policy.portLevelSettings ?? [])
    if (one.port?.number !== undefined) result[one.port.number] = toTrafficPolicy(one)
  return result
}

/** A subset without endpoints answers 503: say so where it is declared. */
function reportSubsets(context: Context, rule: DestinationRule, services: readonly Service[]): void {
  const [service] = services
  // Behind a wildcard a subset need not exist in every service.
  if (!service || services.length > 1) return
  for (const [index, subset] of (rule.body.spec.subsets ?? []).entries()) {
    const labels = subset.labels ?? {}
    if (context.someWorkload({ ...context.selectorOf(service), ...labels }, service.namespace)) continue
    context.report(rule, {
      severity: 'warning',
      code: 'CONFIG_SELECTS_NOTHING',
      path: ['spec', 'subsets', index],
      message: `The subset ${subset.name} of ${service.hostname} has no endpoint: no workload of the service has the labels ${Object.entries(
        labels,
      )
        .map(([key, value]) => `${key}=${value}`)
        .join(',')}.`,
      hint: 'Requests sent to it are answered 503. Check the labels.',
    })
  }
}
