// Every kind Ambit knows, and how a document's apiVersion and kind find one, or the reason why not.
import { authorizationPolicy } from './authorization-policy.ts'
import { nearest } from './check.ts'
import { configMap, endpointSlice, namespace, node, serviceAccount } from './core-kinds.ts'
import { destinationRule } from './destination-rule.ts'
import { gateway, gatewayClass, referenceGrant } from './gateway.ts'
import { httpRoute } from './http-route.ts'
import { istioGateway } from './istio-gateway.ts'
import { otherKinds } from './other-kinds.ts'
import { peerAuthentication } from './peer-authentication.ts'
import { deployment, pod } from './pod.ts'
import type { KindDefinition } from './resource.ts'
import { service } from './service.ts'
import { serviceProfile } from './service-profile.ts'
import { telemetry } from './telemetry.ts'
import { virtualService } from './virtual-service.ts'

export const kinds: readonly KindDefinition[] = [
  namespace,
  node,
  serviceAccount,
  endpointSlice,
  configMap,
  service,
  pod,
  deployment,
  virtualService,
  destinationRule,
  istioGateway,
  authorizationPolicy,
  peerAuthentication,
  telemetry,
  gateway,
  gatewayClass,
  httpRoute,
  referenceGrant,
  serviceProfile,
  ...otherKinds,
] as readonly KindDefinition[]

const byName = new Map(kinds.map((definition) => [`${definition.group}/${definition.kind}`, definition]))
const groups = [...new Set(kinds.map((definition) => definition.group))]

export type KindLookup =
  | { readonly type: 'known'; readonly definition: KindDefinition }
  /** The kind is right, its apiVersion is not. */
  | {
      readonly type: 'wrong-version'
      readonly definition: KindDefinition
      readonly message: string
      readonly hint: string
    }
  | { readonly type: 'unknown'; readonly message: string; readonly hint: string }
  /** Of a group that is none of the mesh's business. */
  | { readonly type: 'foreign' }

/** Kinds whose names other groups use too; only a near miss of the group makes them ours. */
const COMMON = [
  'Service',
  'Gateway',
  'Pod',
  'Node',
  'Deployment',
  'Server',
  'Namespace',
  'ConfigMap',
  'Secret',
  'Event',
  'Endpoints',
]

export function findKind(apiVersion: string, kind: string): KindLookup {
  const slash = apiVersion.indexOf('/')
  const group = slash < 0 ? '' : apiVersion.slice(0, slash)
  const version = apiVersion.slice(slash + 1)
  const exact = byName.get(`${group}/${kind}`)
  if (exact) {
    if (exact.versions.includes(version)) return { type: 'known', definition: exact }
    return {
      type: 'wrong-version',
      definition: exact,
      message: `${kind} is not served as ${apiVersion}.`,
      hint: `Write apiVersion: ${apiVersionOf(exact)}.`,
    }
  }
  const knownGroup = groups.includes(group)
  const namesakes = kinds.filter((definition) => definition.kind === kind)
  const nearGroup = nearest(
    group,
    groups.filter((one) => one !== ''),
  )
  const candidates =
    knownGroup || !COMMON.includes(kind) ? namesakes : namesakes.filter((definition) => definition.group === nearGroup)
  const best = candidates.find((definition) => definition.group === nearGroup) ?? candidates[0]
  if (best) {
    const place = group === '' ? 'the core API' : group
    const others =
      candidates.length > 1
        ? `; ${candidates
            .filter((one) => one !== best)
            .map(apiVersionOf)
            .join(', ')} has a kind of that name too`
        : ''
    return {
      type: 'wrong-version',
      definition: best,
      message: `There is no ${kind} in ${place}.`,
      hint: `Write apiVersion: ${apiVersionOf(best)}${others}.`,
    }
  }
  if (!knownGroup && (nearGroup === undefined || group.split('.').length < 2)) {
    // Roles, Jobs, CRDs of other projects: not the mesh's business. A misspelt kind of ours has one of our groups.
    return { type: 'foreign' }
  }
  const near =
    nearest(
      kind,
      kinds.filter((definition) => !knownGroup || definition.group === group).map((one) => one.kind),
    ) ??
    nearest(
      kind,
      kinds.map((one) => one.kind),
    )
  const suggestion =
    near === undefined
      ? undefined
      : (kinds.find((one) => one.kind === near && (!knownGroup || one.group === group)) ??
        kinds.find((one) => one.kind === near))
  return {
    type: 'unknown',
    message: `There is no kind ${kind} in ${apiVersion}.`,
    hint: suggestion
      ? `Did you mean kind: ${suggestion.kind} with apiVersion: ${apiVersionOf(suggestion)}?`
      : 'Check apiVersion and kind.',
  }
}

/** `group/version`, newest; `v1` for the core group. */
export function apiVersionOf(definition: KindDefinition): string {
  const version = definition.versions[0] ?? 'v1'
  return definition.group === '' ? version : `${definition.group}/${version}`
}

/** Versions in which a kind is read, newest first: where a cluster does not serve one, the next has the same fields. */
export function versionsOf(group: string, kind: string): readonly string[] {
  return byName.get(`${group}/${kind}`)?.versions ?? []
}
