// What a security resource speaks about (a selector, targets, a namespace, the mesh), and the denial that stands in for
// one that was rejected while no good version of it is held. Must not live here: what the policies say.
import type { z } from 'zod'
import type { Policy, PolicyScope, TargetRef } from '../mesh/policy.ts'
import type { Source } from '../mesh/source.ts'
import { isRecord } from './check.ts'
import type { Report } from './resource.ts'
import type { targetRef } from './schema.ts'

type TargetSpec = z.infer<typeof targetRef>

/** selector, targetRef and targetRefs exclude each other; what a target may be depends on its kind. */
export function checkAttachment(
  spec: {
    selector?: unknown
    targetRef?: z.infer<typeof targetRef> | undefined
    targetRefs?: readonly z.infer<typeof targetRef>[] | undefined
  },
  namespace: string,
  report: Report,
): void {
  const given = (['selector', 'targetRef', 'targetRefs'] as const).filter((key) => spec[key] !== undefined)
  if (given.length > 1) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path: ['spec'],
      message: `Only one of selector, targetRef and targetRefs may be set, not ${given.join(' and ')}.`,
      hint: 'Split it into two policies.',
    })
  }
  const targets = spec.targetRefs
    ? spec.targetRefs.map((ref, index) => ({ ref, path: ['spec', 'targetRefs', index] }))
    : spec.targetRef
      ? [{ ref: spec.targetRef, path: ['spec', 'targetRef'] }]
      : []
  for (const { ref, path } of targets) {
    if (!ref.name) report({ severity: 'error', code: 'CONFIG_REQUIRED', path, message: 'The field name is missing.' })
    if (ref.namespace !== undefined && ref.namespace !== namespace) {
      report({
        severity: 'error',
        code: 'CONFIG_NOT_PERMITTED',
        path: [...path, 'namespace'],
        message: `A resource of namespace ${namespace} cannot target one of namespace ${ref.namespace}.`,
        hint: 'Put it into the namespace of its target.',
      })
    }
    const kind = ref.kind ?? ''
    const wanted = Object.hasOwn(TARGET_GROUPS, kind) ? TARGET_GROUPS[kind] : undefined
    if (wanted === undefined) {
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: [...path, 'kind'],
        message: `The target's kind must be one of ${Object.keys(TARGET_GROUPS).join(', ')}, not ${JSON.stringify(ref.kind ?? '')}.`,
      })
    } else if ((ref.group ?? '') !== wanted && !(wanted === '' && ref.group === 'core')) {
      report({
        severity: 'error',
        code: 'CONFIG_INVALID_VALUE',
        path: [...path, 'group'],
        message: `The group of ${ref.kind} is ${JSON.stringify(wanted)}, not ${JSON.stringify(ref.group ?? '')}.`,
      })
    }
  }
}

const TARGET_GROUPS: Readonly<Record<string, string>> = {
  Service: '',
  Gateway: 'gateway.networking.k8s.io',
  GatewayClass: 'gateway.networking.k8s.io',
  ServiceEntry: 'networking.istio.io',
}

export interface Attachment {
  readonly scope: PolicyScope
  readonly selector: Readonly<Record<string, string>>
  readonly targets: readonly TargetRef[]
}

/** What a security resource speaks about: a selector, targets, its namespace, or (in the root namespace) the mesh. */
export function attachmentOf(
  spec: {
    selector?: { matchLabels?: Record<string, string> | undefined } | undefined
    targetRef?: TargetSpec | undefined
    targetRefs?: readonly TargetSpec[] | undefined
  },
  namespace: string,
  rootNamespace: string,
): Attachment {
  const refs = spec.targetRefs?.length ? spec.targetRefs : spec.targetRef ? [spec.targetRef] : []
  if (refs.length > 0) {
    const targets = refs.map((ref) => ({
      kind: ref.kind ?? '',
      namespace,
      name: ref.name ?? '',
    }))
    return { scope: 'target', selector: {}, targets }
  }
  const labels = spec.selector?.matchLabels ?? {}
  if (Object.keys(labels).length > 0) return { scope: 'workload', selector: labels, targets: [] }
  return { scope: namespace === rootNamespace ? 'global' : 'namespace', selector: {}, targets: [] }
}

/** A policy that denies everything a rejected security resource speaks about. */
export function denyPolicy(
  kind: string,
  namespace: string,
  name: string,
  attachment: Attachment,
  source: Source,
): Policy {
  return {
    namespace,
    // Underscores and capitals cannot occur in a Kubernetes name: no resource can have this one.
    name: `ambit_rejected_${kind}_${name}`,
    ...attachment,
    action: 'DENY',
    dryRun: false,
    rules: [{ clauses: [] }],
    // Not its own kind: synthetic policies of PeerAuthentications are the agents' only, this one is everybody's.
    source: { ...source, kind: `rejected ${kind}` },
  }
}

/**
 * The attachment of a document that was rejected, read as far as it can be. What cannot be read widens it: a selector
 * that is no map of strings counts as the whole namespace, since denying too much is seen and denying too little is not.
 */
export function attachmentOfRejected(document: unknown, namespace: string, rootNamespace: string): Attachment {
  const spec = isRecord(document) && isRecord(document['spec']) ? document['spec'] : {}
  const refs = spec['targetRefs'] ?? (spec['targetRef'] === undefined ? undefined : [spec['targetRef']])
  if (Array.isArray(refs) && refs.length > 0 && refs.every(isTarget))
    return attachmentOf({ targetRefs: refs }, namespace, rootNamespace)
  const selector = spec['selector']
  const labels = isRecord(selector) && Object.keys(selector).length === 1 ? selector['matchLabels'] : undefined
  if (isRecord(labels) && Object.values(labels).every((value) => typeof value === 'string')) {
    return attachmentOf({ selector: { matchLabels: labels as Record<string, string> } }, namespace, rootNamespace)
  }
  return attachmentOf({}, namespace, rootNamespace)
}

function isTarget(value: unknown): value is { kind: string; name: string; namespace?: string } {
  return (
    isRecord(value) &&
    typeof value['name'] === 'string' &&
    typeof value['kind'] === 'string' &&
    Object.hasOwn(TARGET_GROUPS, value['kind']) &&
    (value['namespace'] === undefined || typeof value['namespace'] === 'string')
  )
}
