// Whose an object is that has the name of a waypoint's. Pure: only its metadata is judged. Must not live here: what is done then
// (operator.ts).
import { MANAGED_BY, MANAGED_LABEL } from '../../config/waypoint.ts'
import type { ObjectMeta } from '../../kube/resource.ts'

export interface OwnerReference {
  readonly apiVersion?: string
  readonly kind?: string
  readonly name?: string
  readonly uid?: string
  readonly controller?: boolean
}

export interface OwnedMeta extends ObjectMeta {
  readonly ownerReferences?: readonly OwnerReference[]
}

export const GATEWAY_NAME_LABEL = 'gateway.networking.k8s.io/gateway-name'

export type Ownership =
  | { readonly kind: 'absent' }
  | { readonly kind: 'ours' }
  /** On its way out: it was ours, or belongs to a Gateway of this name that is gone. Once it is away there is room. */
  | { readonly kind: 'leaving' }
  | { readonly kind: 'foreign'; readonly why: string }

/**
 * Ours is what control made for this very Gateway: by its uid, or, where somebody took the reference off, by both labels. What
 * another controller made for the same Gateway (Istio's, before) stays that one's.
 */
export function ownershipOf(
  meta: OwnedMeta | undefined,
  gateway: { readonly name: string; readonly uid: string },
): Ownership {
  if (!meta) return { kind: 'absent' }
  const owners = meta.ownerReferences ?? []
  const ofGateway = owners.filter((one) => one.kind === 'Gateway' && one.name === gateway.name)
  const here = ofGateway.some((one) => one.uid === gateway.uid)
  const managedBy = meta.labels?.[MANAGED_LABEL]
  if (managedBy !== undefined && managedBy !== MANAGED_BY)
    return { kind: 'foreign', why: `it is managed by ${managedBy}` }
  const other = owners.find((one) => one.controller && !ofGateway.includes(one))
  if (other) return { kind: 'foreign', why: `it belongs to ${other.kind} ${other.name}` }
  if (!here && managedBy === undefined) return { kind: 'foreign', why: 'Ambit did not make it' }
  if (!here && meta.labels?.[GATEWAY_NAME_LABEL] !== gateway.name)
    return { kind: 'foreign', why: 'it was made for another Gateway' }
  // The garbage collector takes it, or has begun to.
  if (meta.deletionTimestamp !== undefined || (!here && ofGateway.length > 0)) return { kind: 'leaving' }
  return { kind: 'ours' }
}

/** The Gateway that an object of ours was made for. */
export function gatewayOf(meta: OwnedMeta): { readonly name: string; readonly uid: string } | undefined {
  const owner = meta.ownerReferences?.find((one) => one.kind === 'Gateway' && one.controller)
  const name = owner?.name ?? meta.labels?.[GATEWAY_NAME_LABEL]
  return name === undefined ? undefined : { name, uid: owner?.uid ?? '' }
}
