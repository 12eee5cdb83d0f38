// What is wrong, or worth knowing, about a resource: one finding names its file, line and field and the fix. Findings
// are values, never thrown: one bad document must not hide the others.
// Must not live here: finding them (each kind's file, load.ts, translate.ts), printing in colour (cli/).

export type Severity = 'error' | 'warning' | 'info'

/** Stable codes; dashboards, tests and people match on them, never on the text. */
export type ProblemCode =
  /** A file or folder cannot be read, or is larger than the limits in load.ts. */
  | 'CONFIG_UNREADABLE'
  | 'CONFIG_TOO_LARGE'
  /** Not YAML: syntax, duplicate keys, alias bombs, a document that is not a Kubernetes object. */
  | 'CONFIG_YAML_INVALID'
  | 'CONFIG_UNKNOWN_KIND'
  | 'CONFIG_WRONG_API_VERSION'
  | 'CONFIG_REQUIRED'
  | 'CONFIG_WRONG_TYPE'
  | 'CONFIG_INVALID_VALUE'
  | 'CONFIG_UNKNOWN_FIELD'
  | 'CONFIG_DUPLICATE'
  /** A kind or field that Ambit knows and does not have yet; the message names the feature. */
  | 'CONFIG_NOT_YET'
  /** A kind or field without meaning in a mesh without sidecars. */
  | 'CONFIG_NO_EFFECT'
  | 'CONFIG_DEPRECATED'
  /** References between resources. */
  | 'CONFIG_UNKNOWN_HOST'
  | 'CONFIG_UNKNOWN_PORT'
  | 'CONFIG_UNKNOWN_SUBSET'
  | 'CONFIG_UNKNOWN_GATEWAY'
  | 'CONFIG_UNKNOWN_TARGET'
  | 'CONFIG_NOT_PERMITTED'
  | 'CONFIG_SELECTS_NOTHING'
  | 'CONFIG_UNREACHABLE'
  /** Fine by itself, and not carried out where it points. */
  | 'CONFIG_NOT_ENFORCED'
  | 'CONFIG_NEEDS_WAYPOINT'
  | 'CONFIG_CONFLICT'
  /** Of a waypoint's Gateway: the ConfigMap it names; told by who makes its objects. */
  | 'CONFIG_PARAMETERS_INVALID'
  /** What became of a rejected resource. */
  | 'CONFIG_LAST_GOOD_KEPT'
  | 'CONFIG_DENIES_TARGETS'

export interface ResourceRef {
  /** Of Kubernetes; '' for the core group, absent where it is not known. Two groups have a kind Gateway. */
  readonly group?: string
  readonly kind: string
  /** '' for cluster-scoped kinds. */
  readonly namespace: string
  readonly name: string
}

export interface Problem {
  readonly severity: Severity
  readonly code: ProblemCode
  /** Path of the file; of a resource that came from the Kubernetes API what describeRef says of it, or ''. */
  readonly file: string
  /** 1-based; 0 when there is no file. */
  readonly line: number
  /** Path inside the document, as in `spec.http[0].route[1].weight`; '' for the document itself. */
  readonly field: string
  readonly message: string
  /** What to do, a full sentence; '' when the message says it. */
  readonly hint: string
  readonly resource?: ResourceRef
}

/** `Kind namespace/name`. */
export function describeRef(ref: ResourceRef): string {
  return `${ref.kind} ${ref.namespace ? `${ref.namespace}/` : ''}${ref.name}`
}

/** One line for a person: `file:line: Kind ns/name: field: message [CODE] hint`. From the API, where there is no line, without the place. */
export function describeProblem(problem: Problem): string {
  const resource = problem.resource ? `${describeRef(problem.resource)}: ` : ''
  const where =
    problem.line > 0 ? `${problem.file}:${problem.line}: ` : resource || !problem.file ? '' : `${problem.file}: `
  const field = problem.field ? `${problem.field}: ` : ''
  return `${where}${resource}${field}${problem.message} [${problem.code}]${problem.hint ? ` ${problem.hint}` : ''}`
}

export function hasErrors(problems: readonly Problem[]): boolean {
  return problems.some((problem) => problem.severity === 'error')
}

const RANK: Readonly<Record<Severity, number>> = { error: 0, warning: 1, info: 2 }

/** By file, line, then severity: the order a person works through them. */
export function sortProblems(problems: readonly Problem[]): Problem[] {
  return [...problems].sort(
    (a, b) =>
      compare(a.file, b.file) ||
      a.line - b.line ||
      RANK[a.severity] - RANK[b.severity] ||
      compare(a.field, b.field) ||
      compare(a.message, b.message),
  )
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
