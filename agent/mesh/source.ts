// Where a domain object came from: carried beside every route, policy and upstream so that a log line, a metric or
// `ambit explain` can name the resource that decided.

export interface Source {
  readonly kind: string
  readonly namespace: string
  readonly name: string
  readonly generation?: number
  /** `path:line` of the document when it was read from files. */
  readonly place?: string
}

/** `Kind namespace/name (path:line)`. */
export function describeSource(source: Source): string {
  const name = source.namespace ? `${source.namespace}/${source.name}` : source.name
  return `${source.kind} ${name}${source.place ? ` (${source.place})` : ''}`
}
