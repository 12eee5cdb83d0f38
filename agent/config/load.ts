// Documents to resources: the kind is found, the schema run, the kind's own rules checked. Whatever is wrong becomes a
// problem and the document a rejected one; nothing here throws, and one bad document never hides the others.
// Must not live here: files and folders (folder.ts), what to keep of earlier versions (store.ts).
import { checkBody, isRecord } from './check.ts'
import type { ConfigMapBody } from './core-kinds.ts'
import { readDocuments, type RawDocument } from './document.ts'
import { apiVersionOf, findKind } from './kinds.ts'
import { checkMeshConfig, isMeshConfigMap, meshConfig, readMeshConfigMap } from './mesh-config.ts'
import { SYSTEM_NAMESPACE } from './labels.ts'
import { readMetadata } from './metadata.ts'
import { hasErrors, type Problem, type ResourceRef } from './problem.ts'
import {
  formatPath,
  keyOf,
  problemOf,
  type FieldPath,
  type Finding,
  type KindDefinition,
  type Metadata,
  type Origin,
  type Resource,
} from './resource.ts'

/** A document that is not used. */
export interface Rejected {
  /** As resourceKey; undefined when kind or name cannot be read. */
  readonly key: string | undefined
  readonly ref: ResourceRef | undefined
  readonly security: boolean
  /** The document as far as it could be read: a rejected security resource denies what it selects. */
  readonly document: unknown
  readonly origin: Origin
}

export interface Parsed {
  readonly resources: readonly Resource[]
  readonly rejected: readonly Rejected[]
  readonly problems: readonly Problem[]
}

interface Draft {
  readonly resources: Resource[]
  readonly rejected: Rejected[]
  readonly problems: Problem[]
  readonly systemNamespace?: string
}

/** Reads a text of Kubernetes documents. `file` names it in problems. */
export function parseText(text: string, file: string): Parsed {
  const draft: Draft = { resources: [], rejected: [], problems: [] }
  for (const document of readDocuments(text, file)) parseDocument(document, draft)
  return draft
}

/** Reads a file mesh.yaml: one MeshConfig without apiVersion and kind. */
export function parseMeshFile(text: string, file: string): Parsed {
  const draft: Draft = { resources: [], rejected: [], problems: [] }
  const [document, second] = readDocuments(text, file)
  if (!document) return draft
  if (isRecord(document.value) && 'apiVersion' in document.value && 'kind' in document.value)
    return parseText(text, file)
  if (second) {
    draft.problems.push({
      severity: 'error',
      code: 'CONFIG_YAML_INVALID',
      file,
      line: second.origin.line([]),
      field: '',
      message: 'mesh.yaml holds one MeshConfig; this is a second document.',
      hint: 'Remove it.',
    })
  }
  draft.problems.push(...document.problems)
  const checked =
    document.problems.length > 0 ? { body: undefined, problems: [] } : checkMeshConfig(document.value, document.origin)
  addMeshConfig(checked, { namespace: '', name: 'default' }, document.origin, document.value, draft)
  return draft
}

/** Reads one object as the Kubernetes API gives it. */
export function parseObject(value: unknown, origin: Origin = API_ORIGIN, systemNamespace = SYSTEM_NAMESPACE): Parsed {
  const draft: Draft = { resources: [], rejected: [], problems: [], systemNamespace }
  parseValue(value, origin, draft)
  return draft
}

const API_ORIGIN: Origin = { file: '', line: () => 0 }

function parseDocument(document: RawDocument, draft: Draft): void {
  if (document.problems.length === 0) {
    parseValue(document.value, document.origin, draft)
    return
  }
  const identity = identify(document.value)
  const { ref } = identity
  draft.problems.push(...document.problems.map((problem) => (ref ? { ...problem, resource: ref } : problem)))
  draft.rejected.push({ ...identity, document: document.value, origin: document.origin })
}

function parseValue(value: unknown, origin: Origin, draft: Draft): void {
  const refuse = (problem: Pick<Problem, 'code' | 'message' | 'hint'> & { path?: FieldPath }) => {
    const { path = [], ...rest } = problem
    const identity = identify(value)
    draft.problems.push({
      severity: 'error',
      file: origin.file,
      line: origin.line(path),
      field: formatPath(path),
      ...(identity.ref ? { resource: identity.ref } : {}),
      ...rest,
    })
    draft.rejected.push({ ...identity, document: value, origin })
  }
  if (!isRecord(value)) {
    refuse({
      code: 'CONFIG_YAML_INVALID',
      message: 'This document is no Kubernetes object.',
      hint: 'An object has apiVersion, kind and metadata.',
    })
    return
  }
  const { apiVersion, kind } = value
  for (const [key, found] of [
    ['apiVersion', apiVersion],
    ['kind', kind],
  ] as const) {
    if (typeof found === 'string' && found !== '') continue
    refuse({
      path: found === undefined ? [] : [key],
      code: 'CONFIG_REQUIRED',
      message: `The document has no ${key}.`,
      hint: 'An object has apiVersion, kind and metadata.',
    })
    return
  }
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return
  if (kind.endsWith('List') && Array.isArray(value['items'])) {
    for (const [index, item] of value['items'].entries()) {
      const prefix: FieldPath = ['items', index]
      parseValue(item, { file: origin.file, line: (path) => origin.line([...prefix, ...path]) }, draft)
    }
    return
  }
  const lookup = findKind(apiVersion, kind)
  switch (lookup.type) {
    case 'foreign':
      draft.problems.push({
        severity: 'info',
        code: 'CONFIG_NO_EFFECT',
        file: origin.file,
        line: origin.line(['kind']),
        field: 'kind',
        message: `${kind} (${apiVersion}) is none of the kinds a mesh reads.`,
        hint: '',
      })
      return
    case 'unknown':
      refuse({ path: ['kind'], code: 'CONFIG_UNKNOWN_KIND', message: lookup.message, hint: lookup.hint })
      return
    case 'wrong-version':
      refuse({ path: ['apiVersion'], code: 'CONFIG_WRONG_API_VERSION', message: lookup.message, hint: lookup.hint })
      // The other mistakes of the document are told at once, by the kind it meant to be.
      parseKnown({ ...value, apiVersion: apiVersionOf(lookup.definition) }, lookup.definition, origin, {
        resources: [],
        rejected: [],
        problems: draft.problems,
      })
      return
    case 'known':
      parseKnown(value, lookup.definition, origin, draft)
  }
}

function parseKnown(value: Record<string, unknown>, definition: KindDefinition, origin: Origin, draft: Draft): void {
  const identity = identify(value, definition)
  const problems: Problem[] = []
  const add = (finding: Finding) =>
    problems.push({
      severity: finding.severity,
      code: finding.code,
      file: origin.file,
      line: origin.line(finding.path),
      field: formatPath(finding.path),
      message: finding.message,
      hint: finding.hint ?? '',
      ...(identity.ref ? { resource: identity.ref } : {}),
    })
  const metadata = readMetadata(value['metadata'], definition, add)
  const { apiVersion, kind, metadata: _metadata, ...rest } = value
  const body = checkBody(definition, withoutNulls(rest) as Record<string, unknown>, add)
  if (metadata && body !== undefined) {
    const resource: Resource = {
      definition,
      kind: String(kind),
      apiVersion: String(apiVersion),
      metadata,
      body,
      origin,
    }
    definition.check?.(resource, (finding) => problems.push(problemOf(resource, finding)))
    if (!hasErrors(problems)) {
      draft.problems.push(...problems, ...supportProblems(resource))
      draft.resources.push(resource)
      if (definition.kind === 'ConfigMap') readSettings(resource as Resource<ConfigMapBody>, draft)
      return
    }
  }
  draft.problems.push(...problems)
  draft.rejected.push({ ...identity, document: value, origin })
}

/** The MeshConfig inside Istio's ConfigMap becomes a resource of its own, so that its last good version is kept too. */
function readSettings(resource: Resource<ConfigMapBody>, draft: Draft): void {
  if (isMeshConfigMap(resource, draft.systemNamespace ?? SYSTEM_NAMESPACE))
    addMeshConfig(readMeshConfigMap(resource), resource.metadata, resource.origin, undefined, draft)
}

function addMeshConfig(
  checked: ReturnType<typeof checkMeshConfig>,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  origin: Origin,
  document: unknown,
  draft: Draft,
): void {
  draft.problems.push(...checked.problems)
  const key = keyOf(meshConfig, namespace, name)
  const ref = { kind: namespace ? 'ConfigMap' : meshConfig.kind, namespace, name }
  if (checked.body === undefined) {
    draft.rejected.push({ key, ref, security: false, document, origin })
    return
  }
  const metadata: Metadata = {
    name,
    namespace,
    labels: {},
    annotations: {},
    generation: undefined,
    createdAt: undefined,
    uid: '',
    deleting: false,
    owners: [],
  }
  const definition = meshConfig as KindDefinition
  draft.resources.push({
    definition,
    kind: meshConfig.kind,
    apiVersion: apiVersionOf(definition),
    metadata,
    body: checked.body,
    origin,
  })
}

function supportProblems(resource: Resource): Problem[] {
  const { support, feature } = resource.definition
  if (support === 'not-yet') {
    return [
      problemOf(resource, {
        severity: 'warning',
        code: 'CONFIG_NOT_YET',
        path: ['kind'],
        message: `${resource.kind} has no effect yet. The feature Ambit does not have: ${feature}.`,
      }),
    ]
  }
  if (support === 'no-effect') {
    return [
      problemOf(resource, {
        severity: 'info',
        code: 'CONFIG_NO_EFFECT',
        path: ['kind'],
        message: `${resource.kind} has no effect: ${feature}.`,
      }),
    ]
  }
  return []
}

/** Kubernetes drops null fields of maps; so a key without a value is a field that is not there. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (!isRecord(value)) return value
  const result: Record<string, unknown> = {}
  for (const [key, item] of Object.entries(value)) {
    // Set as a field, __proto__ would change what the object is.
    if (item !== null && key !== '__proto__') result[key] = withoutNulls(item)
  }
  return result
}

/** Kind, namespace and name of a document, however broken, as far as they can be read. */
function identify(value: unknown, known?: KindDefinition): Pick<Rejected, 'key' | 'ref' | 'security'> {
  if (!isRecord(value) || typeof value['kind'] !== 'string') return { key: undefined, ref: undefined, security: false }
  const lookup = findKind(typeof value['apiVersion'] === 'string' ? value['apiVersion'] : '', value['kind'])
  const definition = known ?? ('definition' in lookup ? lookup.definition : undefined)
  const metadata = isRecord(value['metadata']) ? value['metadata'] : {}
  const name = typeof metadata['name'] === 'string' ? metadata['name'] : ''
  const namespace =
    definition?.scope === 'Cluster'
      ? ''
      : typeof metadata['namespace'] === 'string' && metadata['namespace']
        ? metadata['namespace']
        : 'default'
  const ref: ResourceRef = {
    ...(definition ? { group: definition.group } : {}),
    kind: value['kind'],
    namespace,
    name: name || '(unnamed)',
  }
  return {
    key: definition && name ? keyOf(definition, namespace, name) : undefined,
    ref,
    security: definition?.security ?? false,
  }
}
