// Strategic merge of a partial object over a whole one, as `kubectl patch` does it: maps by field, the lists that have a key by
// that key, other lists whole; null takes a field away. Pure. Must not live here: which objects are merged (waypoint-parameters.ts).

type Fields = Readonly<Record<string, unknown>>

/**
 * Lists whose items have a name, by the field that holds them (k8s.io/api: patchMergeKey). A field with several keys is told
 * apart by the first one that all its items have.
 */
const KEYS: ReadonlyMap<string, readonly string[]> = new Map(
  Object.entries({
    containers: ['name'],
    initContainers: ['name'],
    ephemeralContainers: ['name'],
    volumes: ['name'],
    env: ['name'],
    imagePullSecrets: ['name'],
    secrets: ['name'],
    resourceClaims: ['name'],
    volumeMounts: ['mountPath'],
    volumeDevices: ['devicePath'],
    hostAliases: ['ip'],
    topologySpreadConstraints: ['topologyKey'],
    // Of a container, of a service.
    ports: ['containerPort', 'port'],
  }),
)

/** In a map: how it is merged. In an item of a keyed list: `delete` takes the item with this key away. */
const DIRECTIVE = '$patch'
/** Deeper than any Kubernetes object: whoever goes beyond it wants the stack to overflow. */
const MAX_DEPTH = 64

/** `base` with `patch` laid over it; neither is changed. Throws RangeError beyond 64 levels. */
export function strategicMerge(base: unknown, patch: unknown): unknown {
  return merge(base, patch, 0)
}

function merge(base: unknown, patch: unknown, depth: number): unknown {
  if (depth > MAX_DEPTH) throw new RangeError(`more than ${MAX_DEPTH} levels`)
  if (!isMap(patch)) return patch
  const { [DIRECTIVE]: directive, ...fields } = patch
  // Into nothing: only to lose the directives and the nulls in it.
  const merged: Record<string, unknown> = isMap(base) && directive !== 'replace' ? { ...base } : {}
  for (const [field, value] of Object.entries(fields)) {
    if (value === null || (isMap(value) && value[DIRECTIVE] === 'delete')) delete merged[field]
    else {
      // Own ones only: `__proto__` is a name like any other in YAML.
      const before = Object.hasOwn(merged, field) ? merged[field] : undefined
      const after = Array.isArray(value)
        ? mergeList(before, value, KEYS.get(field) ?? [], depth + 1)
        : merge(before, value, depth + 1)
      Object.defineProperty(merged, field, { value: after, writable: true, enumerable: true, configurable: true })
    }
  }
  return merged
}

function mergeList(base: unknown, patch: readonly unknown[], keys: readonly string[], depth: number): unknown {
  const items = patch.filter((item) => !isMap(item) || item[DIRECTIVE] !== 'replace' || Object.keys(item).length > 1)
  const replaces = items.length < patch.length
  const key = keys.find((name) => items.every((item) => isMap(item) && item[name] !== undefined))
  if (key === undefined || replaces) {
    return items
      .filter((item) => !isMap(item) || item[DIRECTIVE] !== 'delete')
      .map((item) => merge(undefined, item, depth))
  }
  const merged: unknown[] = Array.isArray(base) ? [...(base as unknown[])] : []
  for (const item of items as Fields[]) {
    const at = merged.findIndex((one) => isMap(one) && one[key] === item[key])
    if (item[DIRECTIVE] === 'delete') {
      if (at >= 0) merged.splice(at, 1)
    } else if (at >= 0) merged[at] = merge(merged[at], item, depth)
    else merged.push(merge(undefined, item, depth))
  }
  return merged
}

function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
