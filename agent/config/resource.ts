// A resource as people write it, after its schema accepted it, and the definition of a kind. The same shape comes from
// a folder of YAML (load.ts) and from the Kubernetes API.
// Must not live here: any one kind (its own file), the domain it becomes (mesh/).
import type { Source } from '../mesh/source.ts'
import type { z } from 'zod'
import type { Problem, ProblemCode, ResourceRef, Severity } from './problem.ts'

/** A step inside a document: a key or an index. */
export type FieldPath = readonly (string | number)[]

/** Where a resource was read. For one from the Kubernetes API `file` is '' and every line 0. */
export interface Origin {
  readonly file: string
  /** Line of the field, or of its nearest existing parent. 1-based. */
  line(path: FieldPath): number
}

export interface Metadata {
  readonly name: string
  /** `default` where a namespaced resource names none; '' for cluster-scoped kinds. */
  readonly namespace: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly generation: number | undefined
  /** Milliseconds since the epoch; undefined in a folder, where age is path, then document order. */
  readonly createdAt: number | undefined
  readonly uid: string
  /** Somebody deleted it, and it is on its way out (a pod: within its grace period). */
  readonly deleting: boolean
  readonly owners: readonly { readonly kind: string; readonly name: string }[]
}

/** `Body` is the document without apiVersion, kind and metadata: `{ spec }` for most kinds. */
export interface Resource<Body = unknown> {
  readonly definition: KindDefinition<Body>
  readonly kind: string
  readonly apiVersion: string
  readonly metadata: Metadata
  readonly body: Body
  readonly origin: Origin
}

/** `used`: it changes what the mesh does. `not-yet`: a feature to come. `no-effect`: sidecar-only. `foreign`: nothing to do with a mesh. */
export type Support = 'used' | 'not-yet' | 'no-effect' | 'foreign'

/** A field that is accepted by the schema and does nothing yet, or never will. */
export interface FieldNote {
  /** As `spec.http[].fault`: `[]` for any index, `*` for any key. */
  readonly path: string
  readonly code: 'CONFIG_NOT_YET' | 'CONFIG_NO_EFFECT' | 'CONFIG_DEPRECATED'
  /** The feature's name, or what replaces the field. */
  readonly feature: string
  readonly hint?: string
}

export interface KindDefinition<Body = unknown> {
  readonly kind: string
  /** '' for the core group. */
  readonly group: string
  /** Newest first. */
  readonly versions: readonly string[]
  readonly scope: 'Namespaced' | 'Cluster'
  readonly schema: z.ZodType<Body>
  readonly support: Support
  /** What it is for, in a few words: named when support is not `used`. */
  readonly feature: string
  /** Rejected with no good version held: its targets are denied. */
  readonly security: boolean
  /** Unknown fields are warnings: the kind is Kubernetes' own and newer versions add fields. */
  readonly lenient: boolean
  readonly notes: readonly FieldNote[]
  /** For a field people write by mistake: its name → what to write. Keys as in FieldNote.path. */
  readonly mistakes: Readonly<Record<string, string>>
  /** Rules that a schema cannot say. Errors reject the resource. */
  check?(resource: Resource<Body>, report: Report): void
}

export interface Finding {
  readonly severity: Severity
  readonly code: ProblemCode
  readonly path: FieldPath
  readonly message: string
  readonly hint?: string
}

export type Report = (finding: Finding) => void

/** Declares a kind; the inferred type of the schema becomes the type of its resources. */
export function defineKind<Body>(
  definition: Pick<KindDefinition<Body>, 'kind' | 'group' | 'versions' | 'schema'> & Partial<KindDefinition<Body>>,
): KindDefinition<Body> {
  return {
    scope: 'Namespaced',
    support: 'used',
    feature: '',
    security: false,
    lenient: false,
    notes: [],
    mistakes: {},
    ...definition,
  }
}

export function refOf(resource: Pick<Resource, 'definition' | 'kind' | 'metadata'>): ResourceRef {
  return {
    group: resource.definition.group,
    kind: resource.kind,
    namespace: resource.metadata.namespace,
    name: resource.metadata.name,
  }
}

/**
 * Oldest first. Without a time of creation (a folder) the order of path and document stays: sorting is stable. Equal times,
 * which have whole seconds, go by name, so that every replica comes to the same order.
 */
export function byAge(a: Pick<Resource, 'metadata'>, b: Pick<Resource, 'metadata'>): number {
  const { createdAt: left } = a.metadata
  const { createdAt: right } = b.metadata
  if (left !== right || left === undefined) return (left ?? 0) - (right ?? 0)
  return compare(a.metadata.namespace, b.metadata.namespace) || compare(a.metadata.name, b.metadata.name)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** `group/Kind/namespace/name`: one resource, whatever version it was written in. */
export function resourceKey(resource: Resource): string {
  return keyOf(resource.definition, resource.metadata.namespace, resource.metadata.name)
}

export function keyOf(definition: Pick<KindDefinition, 'group' | 'kind'>, namespace: string, name: string): string {
  return `${definition.group}/${definition.kind}/${namespace}/${name}`
}

/** The source that domain objects carry, at the line of `path`. */
export function sourceOf(resource: Resource, path: FieldPath = []): Source {
  const { generation, namespace, name } = resource.metadata
  return {
    kind: resource.kind,
    namespace,
    name,
    ...(generation === undefined ? {} : { generation }),
    ...(resource.origin.file ? { place: `${resource.origin.file}:${resource.origin.line(path)}` } : {}),
  }
}

/** Turns a finding about a resource into a problem with its place. */
export function problemOf(resource: Resource, finding: Finding): Problem {
  return {
    severity: finding.severity,
    code: finding.code,
    file: resource.origin.file,
    line: resource.origin.line(finding.path),
    field: formatPath(finding.path),
    message: finding.message,
    hint: finding.hint ?? '',
    resource: refOf(resource),
  }
}

/** `spec.http[0].route[1].weight`; keys that are no plain words are bracketed. */
export function formatPath(path: FieldPath): string {
  let text = ''
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`
    else if (/^[A-Za-z_][\w-]*$/.test(step)) text += text ? `.${step}` : step
    else text += `["${step}"]`
  }
  return text
}
