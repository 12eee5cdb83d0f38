// What the API server asks about a resource that somebody wants to write (admission.k8s.io/v1), and the answer: refused for what
// `ambit analyze` calls an error of the resource itself, with the field and the fix. What it refers to may come later: that is a
// warning. Must not live here: serving it (server.ts), the checks (config/).
import { findKind } from '../../config/kinds.ts'
import { parseObject } from '../../config/load.ts'
import { describeRef, type Problem } from '../../config/problem.ts'
import type { Resource } from '../../config/resource.ts'
import { CONFIG_KINDS } from '../../kube/mesh-kinds.ts'
import { isOurs, type Held } from '../gather/ours.ts'

export interface AdmissionRequest {
  readonly uid: string
  readonly operation?: string
  readonly namespace?: string
  readonly object?: unknown
  readonly oldObject?: unknown
}

export interface AdmissionResponse {
  readonly uid: string
  readonly allowed: boolean
  /** Shown by kubectl; the API server cuts them after 4096 bytes in all. */
  readonly warnings?: readonly string[]
  readonly status?: {
    readonly code: number
    readonly reason: 'Invalid'
    readonly message: string
    readonly details: {
      readonly name: string
      readonly kind: string
      readonly causes: readonly { readonly reason: string; readonly message: string; readonly field: string }[]
    }
  }
}

/** A warning is at most 256 bytes by the API's rule; so many are worth reading. */
const MAX_WARNING = 256
const MAX_WARNINGS = 8
const MAX_CAUSES = 16

/** What the answer depends on besides the resource. */
export interface Knowledge {
  readonly held: Held
  /** What it refers to and is not there. */
  missing(resource: Resource): readonly Problem[]
}

/** Judges one request. Whatever cannot be judged is allowed: the status says later what is wrong with it. */
export function review(request: AdmissionRequest, knowledge: Knowledge): AdmissionResponse {
  const { uid, object: given, oldObject } = request
  const allowed: AdmissionResponse = { uid, allowed: true }
  if (!isRecord(given)) return allowed
  const metadata = isRecord(given['metadata']) ? given['metadata'] : {}
  // On its way out: only finalizers are taken off.
  if (metadata['deletionTimestamp'] !== undefined) return allowed
  const object: Record<string, unknown> = { ...given, metadata: { ...placeOf(request, metadata), ...metadata } }
  if (!isJudged(object, knowledge.held)) return allowed
  const { problems, resources } = parseObject(object)
  const errors = problems.filter((one) => one.severity === 'error')
  const [resource] = resources
  const missing = resource ? knowledge.missing(resource) : []
  const warnings = [...missing, ...problems.filter((one) => one.severity === 'warning')].map(sentence)
  // It is there already, as bad as it is: whoever changes something else of it is not the one to be stopped.
  if (errors.length > 0 && isRecord(oldObject) && sameMeaning(object, oldObject)) {
    return { uid, allowed: true, warnings: cut([...errors.map(sentence), ...warnings]) }
  }
  if (errors.length === 0) return warnings.length > 0 ? { uid, allowed: true, warnings: cut(warnings) } : allowed
  const [first] = errors
  const name = typeof metadata['name'] === 'string' ? metadata['name'] : ''
  return {
    uid,
    allowed: false,
    ...(warnings.length > 0 ? { warnings: cut(warnings) } : {}),
    status: {
      code: 422,
      reason: 'Invalid',
      message: `${first?.resource ? describeRef(first.resource) : name}: ${errors.slice(0, MAX_CAUSES).map(sentence).join('; ')}`,
      details: {
        name,
        kind: String(object['kind']),
        causes: errors.slice(0, MAX_CAUSES).map((one) => ({
          reason: 'FieldValueInvalid',
          message: `${one.message}${one.hint ? ` ${one.hint}` : ''} [${one.code}]`,
          field: one.field,
        })),
      },
    },
  }
}

/** What the API server knows and the object need not say. */
function placeOf({ namespace }: AdmissionRequest, { generateName }: Readonly<Record<string, unknown>>): object {
  return {
    ...(namespace === undefined || namespace === '' ? {} : { namespace }),
    ...(typeof generateName === 'string' ? { name: `${generateName}x` } : {}),
  }
}

/** A kind the mesh reads, in a version it knows, and not one that another controller acts on. */
function isJudged(object: Readonly<Record<string, unknown>>, held: Held): boolean {
  const { apiVersion, kind } = object
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return false
  const found = findKind(apiVersion, kind)
  if (found.type !== 'known') return false
  const { group } = found.definition
  return CONFIG_KINDS.some((one) => one.group === group && one.kind === kind) && isOurs(group, kind, object, held)
}

function sentence({ field, message, hint, code }: Problem): string {
  return `${field ? `${field}: ` : ''}${message}${hint ? ` ${hint}` : ''} [${code}]`
}

function cut(texts: readonly string[]): string[] {
  return texts.slice(0, MAX_WARNINGS).map((text) => {
    if (Buffer.byteLength(text) <= MAX_WARNING) return text
    let short = text.slice(0, MAX_WARNING - 3)
    while (Buffer.byteLength(short) > MAX_WARNING - 3) short = short.slice(0, -1)
    return `${short}…`
  })
}

/** The same spec, labels and annotations. */
function sameMeaning(a: Record<string, unknown>, b: Record<string, unknown>): boolean {
  const meaning = ({ spec, metadata }: Record<string, unknown>): string => {
    const { labels, annotations } = isRecord(metadata) ? metadata : {}
    return JSON.stringify([spec, labels, annotations])
  }
  return meaning(a) === meaning(b)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
