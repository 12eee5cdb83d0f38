// Which problems are worth an Event, and about which object: what is written for the mesh and is rejected or not in force, a label
// of a namespace that says nothing, and kinds without a status. Pure. Must not live here: telling them (events.ts).
import type { Problem, ResourceRef } from '../../config/problem.ts'
import { linesOf } from './conditions.ts'
import { camelCase } from './istio-status.ts'

/** One Event: all problems of one code of one object. */
export interface Occasion {
  readonly ref: ResourceRef
  /** `ConfigUnknownField`. */
  readonly reason: string
  readonly message: string
}

/** By the API's rule for Events. */
const MAX_MESSAGE = 1_024
const MAX_LINES = 4
/** Of one kind in one namespace for one reason: a label in a pod template makes the same mistake a thousand times. */
const MAX_ALIKE = 10

/** Kinds that say something about the mesh only in labels and annotations, besides errors that reject them. */
const OTHERS = new Set(['Service', 'Pod', 'Node', 'EndpointSlice', 'Deployment', 'ServiceAccount'])

/** By key; equal problems give equal keys. `isOurs`: whether Ambit has a say about the object at all. */
export function occasionsOf(
  problems: readonly Problem[],
  isOurs: (ref: ResourceRef) => boolean = () => true,
): Map<string, Occasion> {
  const byKey = new Map<string, Problem[]>()
  const alike = new Map<string, number>()
  for (const one of problems) {
    if (!one.resource || !isTold(one) || !isOurs(one.resource)) continue
    const { group, kind, namespace, name } = one.resource
    const key = `${group ?? ''}/${kind}/${namespace}/${name}/${one.code}`
    const list = byKey.get(key)
    if (list) {
      list.push(one)
      continue
    }
    const crowd = `${kind}/${namespace}/${one.code}`
    const count = (alike.get(crowd) ?? 0) + 1
    if (count > MAX_ALIKE && OTHERS.has(kind)) continue
    alike.set(crowd, count)
    byKey.set(key, [one])
  }
  const occasions = new Map<string, Occasion>()
  for (const [key, list] of byKey) {
    const [first] = list
    if (first?.resource)
      occasions.set(key, {
        ref: first.resource,
        reason: camelCase(first.code),
        message: linesOf(list, MAX_LINES, MAX_MESSAGE),
      })
  }
  return occasions
}

function isTold({ severity, code, field, resource }: Problem): boolean {
  if (severity === 'info') return false
  // Another controller's part of a route that is also the mesh's.
  if (code === 'CONFIG_NOT_YET' && field.startsWith('spec.parentRefs')) return false
  if (resource?.name === '(unnamed)') return false
  if (!OTHERS.has(resource?.kind ?? '')) return true
  return field.startsWith('metadata.labels') || field.startsWith('metadata.annotations') || severity === 'error'
}
