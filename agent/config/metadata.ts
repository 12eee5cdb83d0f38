// metadata of any resource: name, namespace, labels, annotations, age, owners.
// Must not live here: what a label means (labels.ts).
import { isRecord } from './check.ts'
import type { FieldPath, Finding, KindDefinition, Metadata } from './resource.ts'

const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/** Reads a document's metadata; undefined if an error was reported. */
export function readMetadata(
  value: unknown,
  definition: KindDefinition,
  add: (finding: Finding) => void,
): Metadata | undefined {
  if (!isRecord(value)) {
    add({
      severity: 'error',
      code: value === undefined || value === null ? 'CONFIG_REQUIRED' : 'CONFIG_WRONG_TYPE',
      path: value === undefined ? [] : ['metadata'],
      message: 'The document has no metadata with a name.',
      hint: 'Add metadata: {name: …}.',
    })
    return undefined
  }
  let good = true
  const fail = (code: Finding['code'], path: FieldPath, message: string, hint = '') => {
    good = false
    add({ severity: 'error', code, path: ['metadata', ...path], message, hint })
  }
  const { name, namespace } = value
  if (name === undefined || name === null || name === '')
    fail('CONFIG_REQUIRED', [], 'The field name is missing.', 'Add metadata: {name: …}.')
  else if (typeof name !== 'string')
    fail('CONFIG_WRONG_TYPE', ['name'], `Must be a string, not ${JSON.stringify(name)}.`, quoted('name', name))
  // Names of Kubernetes' role kinds may hold colons and capitals; those the mesh reads may not.
  else if (definition.support !== 'foreign' && !NAME.test(name))
    fail(
      'CONFIG_INVALID_VALUE',
      ['name'],
      `${JSON.stringify(name)} is no Kubernetes name.`,
      'Use lower-case letters, digits, dashes and dots.',
    )
  if (namespace !== undefined && namespace !== null && namespace !== '') {
    if (typeof namespace !== 'string')
      fail('CONFIG_WRONG_TYPE', ['namespace'], `Must be a string, not ${JSON.stringify(namespace)}.`)
    else if (!LABEL.test(namespace))
      fail(
        'CONFIG_INVALID_VALUE',
        ['namespace'],
        `${JSON.stringify(namespace)} is no namespace name.`,
        'Use lower-case letters, digits and dashes.',
      )
  }
  const labels = readStrings(value['labels'], 'labels', fail)
  const annotations = readStrings(value['annotations'], 'annotations', fail)
  if (!good) return undefined
  const created = typeof value['creationTimestamp'] === 'string' ? Date.parse(value['creationTimestamp']) : Number.NaN
  return {
    name: name as string,
    namespace:
      definition.scope === 'Cluster' ? '' : typeof namespace === 'string' && namespace !== '' ? namespace : 'default',
    labels,
    annotations,
    generation: typeof value['generation'] === 'number' ? value['generation'] : undefined,
    createdAt: Number.isNaN(created) ? undefined : created,
    uid: typeof value['uid'] === 'string' ? value['uid'] : '',
    deleting: typeof value['deletionTimestamp'] === 'string',
    owners: Array.isArray(value['ownerReferences'])
      ? value['ownerReferences']
          .filter(isRecord)
          .map((owner) => ({ kind: String(owner['kind']), name: String(owner['name']) }))
      : [],
  }
}

/** What to write for a number or boolean that should have been a string. */
function quoted(key: string, value: unknown): string {
  return typeof value === 'number' || typeof value === 'boolean' ? `Write ${key}: "${value}" with quotes.` : ''
}

function readStrings(
  value: unknown,
  key: string,
  fail: (code: Finding['code'], path: FieldPath, message: string, hint?: string) => void,
): Record<string, string> {
  if (value === undefined || value === null) return {}
  if (!isRecord(value)) {
    fail('CONFIG_WRONG_TYPE', [key], `${key} must be a map.`)
    return {}
  }
  const result: Record<string, string> = {}
  for (const [name, text] of Object.entries(value)) {
    if (typeof text === 'string') result[name] = text
    else if (text === null) result[name] = ''
    else fail('CONFIG_WRONG_TYPE', [key, name], `Must be a string, not ${JSON.stringify(text)}.`, quoted(name, text))
  }
  return result
}
