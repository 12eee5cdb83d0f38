// Kinds as the API server names them, and the paths of their objects. Pure. Must not live here: which kinds the mesh reads
// (mesh-kinds.ts), asking for them (client.ts).

/** One kind in one version. */
export interface Resource {
  /** '' for the core group. */
  readonly group: string
  readonly version: string
  /** `pods`, as in the path. */
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
}

export interface ObjectMeta {
  readonly name: string
  readonly namespace?: string
  readonly uid?: string
  readonly resourceVersion?: string
  readonly generation?: number
  readonly creationTimestamp?: string
  readonly deletionTimestamp?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}

/** Any object, as it comes. */
export interface KubeObject {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: ObjectMeta
}

/** Namespace and name of an object. */
export interface Place {
  readonly namespace?: string | undefined
  readonly name: string
}

export function apiVersionOf(resource: Resource): string {
  return resource.group === '' ? resource.version : `${resource.group}/${resource.version}`
}

/** The path of all objects, of a namespace's, or of one; `sub` as in `status`. */
export function pathOf(resource: Resource, namespace?: string, name?: string, sub?: string): string {
  const root = resource.group === '' ? '/api' : `/apis/${resource.group}`
  return [
    `${root}/${resource.version}`,
    ...(resource.namespaced && namespace !== undefined ? ['namespaces', encodeURIComponent(namespace)] : []),
    resource.plural,
    ...(name === undefined ? [] : [encodeURIComponent(name)]),
    ...(sub === undefined ? [] : [sub]),
  ].join('/')
}

/** `namespace/name`; `name` for what has no namespace. Neither may contain a slash. */
export function keyOf(meta: Place): string {
  return meta.namespace ? `${meta.namespace}/${meta.name}` : meta.name
}

/**
 * Whether version `a` of an object is older than `b`. They are decimal numbers that grow (promised since Kubernetes 1.35,
 * KEP 5504; true of etcd ever since); of what is not a number nothing is said.
 */
export function isOlder(a: string, b: string): boolean {
  if (!/^\d+$/.test(a) || !/^\d+$/.test(b)) return false
  return a.length === b.length ? a < b : a.length < b.length
}
