// Runs a kind's schema over a document and says what is wrong in words a person can act on: the field, what it holds,
// what it should hold, and the nearest right name for a misspelt one.
// Must not live here: rules of one kind (their `check`), reading files (document.ts).
import type { z } from 'zod'
import type { FieldNote, FieldPath, Finding, KindDefinition, Report } from './resource.ts'
import { formatPath } from './resource.ts'

/** Findings of one document that are told; the rest are counted. */
const MAX_FINDINGS = 20

/** The checked body, or undefined if an error was reported. `value` is the document without its null fields. */
export function checkBody<Body>(
  definition: KindDefinition<Body>,
  value: Record<string, unknown>,
  report: Report,
): Body | undefined {
  let result = definition.schema.safeParse(value)
  if (!result.success && definition.lenient) {
    // Unknown fields of Kubernetes' own kinds: say so and read the rest.
    const pruned = structuredClone(value)
    const unknown = result.error.issues.filter((issue) => issue.code === 'unrecognized_keys')
    for (const issue of unknown) {
      const parent = valueAt(pruned, issue.path as FieldPath)
      if (isRecord(parent)) for (const key of issue.keys) delete parent[key]
    }
    if (unknown.length > 0) {
      const second = definition.schema.safeParse(pruned)
      for (const issue of unknown)
        for (const finding of unknownFields(definition, issue)) report({ ...finding, severity: 'warning' })
      result = second
    }
  }
  if (result.success) {
    reportNotes(definition.notes, result.data, report)
    return result.data
  }
  const findings = result.error.issues.flatMap((issue) => explain(definition, issue, value))
  for (const finding of findings.slice(0, MAX_FINDINGS)) report(finding)
  if (findings.length > MAX_FINDINGS) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path: [],
      message: `${findings.length - MAX_FINDINGS} more errors in this document.`,
    })
  }
  return undefined
}

function explain(definition: KindDefinition, issue: z.core.$ZodIssue, value: unknown): Finding[] {
  const path = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step))
  const found = valueAt(value, path)
  const error = (code: Finding['code'], message: string, hint = ''): Finding[] => [
    { severity: 'error', code, path, message, hint },
  ]
  // A few codes have words of their own, the others zod's.
  // oxlint-disable-next-line typescript/switch-exhaustiveness-check
  switch (issue.code) {
    case 'unrecognized_keys':
      return unknownFields(definition, issue)
    case 'invalid_type': {
      const wanted = TYPE_NAMES[issue.expected] ?? issue.expected
      if (found === undefined)
        return error('CONFIG_REQUIRED', `The field is missing; it must be ${wanted}.`, requiredHint(path))
      return error(
        'CONFIG_WRONG_TYPE',
        `Must be ${wanted}, not ${describeValue(found)}.`,
        typeHint(issue.expected, found, path),
      )
    }
    case 'invalid_union':
      return error('CONFIG_WRONG_TYPE', `Must be a port number or a name, not ${describeValue(found)}.`)
    case 'invalid_value':
      if (found === undefined)
        return error('CONFIG_REQUIRED', `The field is missing; it must be one of ${issue.values.join(', ')}.`)
      return error(
        'CONFIG_INVALID_VALUE',
        `Must be one of ${issue.values.join(', ')}, not ${describeValue(found)}.`,
        nearestHint(found, issue.values),
      )
    case 'too_small':
      return error(
        'CONFIG_INVALID_VALUE',
        issue.origin === 'number' || issue.origin === 'int'
          ? `Must be at least ${issue.minimum}, not ${describeValue(found)}.`
          : `Must not be empty.`,
      )
    case 'too_big':
      return error(
        'CONFIG_INVALID_VALUE',
        issue.origin === 'number' || issue.origin === 'int'
          ? `Must be at most ${issue.maximum}, not ${describeValue(found)}.`
          : `Must not be longer than ${issue.maximum}.`,
      )
    case 'custom':
      return error(
        'CONFIG_INVALID_VALUE',
        issue.message,
        typeof issue.params?.['hint'] === 'string' ? issue.params['hint'] : '',
      )
    default:
      return error('CONFIG_INVALID_VALUE', issue.message)
  }
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a map',
  record: 'a map',
  array: 'a list',
}

function describeValue(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'a map'
  const text = JSON.stringify(value) ?? typeof value
  const short = text.length > 60 ? `${text.slice(0, 57)}…` : text
  return typeof value === 'string' ? `the string ${short}` : short
}

function requiredHint(path: FieldPath): string {
  return path.length === 1 && path[0] === 'spec' ? 'Add `spec:`; check that the fields below it are indented.' : ''
}

function typeHint(expected: string, found: unknown, path: FieldPath): string {
  const name = path.at(-1)
  const key = typeof name === 'string' ? name : 'the value'
  if ((expected === 'number' || expected === 'int') && typeof found === 'string' && /^-?\d+$/.test(found))
    return `Write ${key}: ${found} without quotes.`
  if (expected === 'boolean' && typeof found === 'string') return `Write ${key}: true or ${key}: false without quotes.`
  if (expected === 'string' && (typeof found === 'number' || typeof found === 'boolean')) {
    return typeof name === 'string' ? `Write ${name}: "${found}" with quotes.` : `Write "${found}" with quotes.`
  }
  if (expected === 'array' && found !== undefined) return `Begin each item of ${key} with a dash.`
  if (expected === 'object' && Array.isArray(found)) return `Write the fields of ${key} without dashes.`
  return ''
}

function unknownFields(definition: KindDefinition, issue: z.core.$ZodIssueUnrecognizedKeys): Finding[] {
  const parent = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step))
  const known = keysAt(definition.schema, parent)
  return issue.keys.map((key) => {
    const path = [...parent, key]
    const written = pattern(path)
    const mistake = Object.hasOwn(definition.mistakes, written) ? definition.mistakes[written] : undefined
    const near = nearest(key, known)
    const where = parent.length === 0 ? definition.kind : formatPath(parent)
    const hint =
      mistake ??
      (near
        ? `Did you mean ${near}?`
        : known.length > 0 && known.length <= 30
          ? `Fields here: ${known.join(', ')}.`
          : '')
    return {
      severity: 'error' as const,
      code: 'CONFIG_UNKNOWN_FIELD' as const,
      path,
      message: `${where} has no field "${key}".`,
      hint,
    }
  })
}

/** `spec.http[].route[].weight`: a path without its indexes. */
export function pattern(path: FieldPath): string {
  return formatPath(path).replace(/\[\d+\]/g, '[]')
}

/** Field names an object schema knows at the path; empty where it is no object. */
function keysAt(schema: z.ZodType, path: FieldPath): string[] {
  let node: z.core.$ZodType | undefined = unwrap(schema)
  for (const step of path) {
    const def = node?._zod.def as
      | {
          type: string
          shape?: Record<string, z.core.$ZodType>
          element?: z.core.$ZodType
          valueType?: z.core.$ZodType
        }
      | undefined
    if (!def) return []
    if (def.type === 'object') node = unwrap(def.shape?.[String(step)])
    else if (def.type === 'array') node = unwrap(def.element)
    else if (def.type === 'record') node = unwrap(def.valueType)
    else return []
  }
  const def = node?._zod.def as { type: string; shape?: Record<string, unknown> } | undefined
  return def?.type === 'object' ? Object.keys(def.shape ?? {}) : []
}

function unwrap(schema: z.core.$ZodType | undefined): z.core.$ZodType | undefined {
  let node = schema
  for (let i = 0; node && i < 8; i++) {
    const def = node._zod.def as { innerType?: z.core.$ZodType; in?: z.core.$ZodType }
    const inner = def.innerType ?? def.in
    if (!inner) break
    node = inner
  }
  return node
}

/** Warnings for fields that are present and do nothing. */
export function reportNotes(notes: readonly FieldNote[], value: unknown, report: Report): void {
  for (const note of notes) {
    for (const path of matchPaths(value, note.path)) {
      const name = formatPath(path)
      const message =
        note.code === 'CONFIG_NOT_YET'
          ? `${note.feature}: Ambit does not have this yet.`
          : note.code === 'CONFIG_DEPRECATED'
            ? `${path.at(-1)} is deprecated: ${note.feature}.`
            : `${name.split('.').at(-1)} has no effect: ${note.feature}.`
      report({
        severity: note.code === 'CONFIG_NOT_YET' ? 'warning' : 'info',
        code: note.code,
        path,
        message,
        hint: note.hint ?? '',
      })
    }
  }
}

/** Every present field that a pattern (`spec.http[].fault`, `*` = any key) names. */
export function matchPaths(value: unknown, text: string): FieldPath[] {
  let found: { path: FieldPath; value: unknown }[] = [{ path: [], value }]
  for (const step of text.split(/\.|(?=\[\])/)) {
    found = found.flatMap((at): { path: FieldPath; value: unknown }[] => {
      if (step === '[]')
        return Array.isArray(at.value)
          ? at.value.map((item, index) => ({ path: [...at.path, index], value: item as unknown }))
          : []
      if (!isRecord(at.value)) return []
      if (step === '*') return Object.entries(at.value).map(([key, item]) => ({ path: [...at.path, key], value: item }))
      return at.value[step] === undefined ? [] : [{ path: [...at.path, step], value: at.value[step] }]
    })
  }
  return found.map((at) => at.path)
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function valueAt(value: unknown, path: FieldPath): unknown {
  let node = value
  for (const step of path) {
    if (Array.isArray(node)) node = typeof step === 'number' ? node[step] : undefined
    else if (isRecord(node)) node = Object.hasOwn(node, step) ? node[step] : undefined
    else return undefined
  }
  return node
}

function nearestHint(found: unknown, values: readonly unknown[]): string {
  const near = typeof found === 'string' ? nearest(found, values.map(String)) : undefined
  return near ? `Did you mean ${near}?` : ''
}

/** The candidate within a third of the word's length in edits, ignoring case. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), bestDistance)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** Insertions, deletions, changes and swaps of neighbours (optimal string alignment), up to the limit. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit || a.length > 100) return limit
  let before: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + change)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1)
      row.push(cost)
    }
    before = previous
    previous = row
  }
  return previous[b.length] ?? limit
}
