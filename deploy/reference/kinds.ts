// Makes deploy/reference/kinds.md: which kinds and fields of Kubernetes resources Ambit reads, from the very definitions it
// reads them by. Must not live here: the definitions (agent/config).
import { z } from 'zod'
import { kinds } from '../../agent/config/kinds.ts'
import { meshConfig } from '../../agent/config/mesh-config.ts'
import type { FieldNote, KindDefinition } from '../../agent/config/resource.ts'

interface Schema {
  readonly type?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly $ref?: string
}

/** Paths of a schema's fields that hold no further named ones, as `spec.http[].timeout`. */
function leaves(schema: Schema, path: string): string[] {
  if (schema.items) return leaves(schema.items, `${path}[]`)
  const { properties } = schema
  if (!properties || Object.keys(properties).length === 0) return [path]
  return Object.entries(properties).flatMap(([name, field]) => leaves(field, path ? `${path}.${name}` : name))
}

const apiVersion = (group: string, version: string): string => (group ? `${group}/${version}` : version)
const versionsOf = ({ group, versions }: KindDefinition): string =>
  versions.map((version) => `\`${apiVersion(group, version)}\``).join(' ')

/** Groups whose fields are listed one by one; of Kubernetes' own kinds it is said what they are for. */
const LISTED = ['networking.istio.io', 'security.istio.io', 'gateway.networking.k8s.io', 'mesh.istio.io']

function fieldsOf(definition: KindDefinition): string[] {
  const schema = z.toJSONSchema(definition.schema, { unrepresentable: 'any', io: 'input', reused: 'inline' }) as Schema
  const noted = definition.notes.filter((note) => note.code !== 'CONFIG_DEPRECATED').map((note) => note.path)
  return leaves(schema, '').filter(
    (path) =>
      path !== 'status' &&
      !noted.some((one) => path === one || path.startsWith(`${one}.`) || path.startsWith(`${one}[`)),
  )
}

/** Fields with one note, together: `a`, `b` (why). */
function notes(definition: KindDefinition, code: FieldNote['code']): string {
  const byFeature = new Map<string, string[]>()
  for (const note of definition.notes) {
    if (note.code !== code) continue
    // Of a MeshConfig's field the feature is its name again.
    const feature = note.feature.startsWith(`${definition.kind}.`) ? '' : note.feature
    byFeature.set(feature, [...(byFeature.get(feature) ?? []), `\`${note.path}\``])
  }
  return [...byFeature].map(([feature, paths]) => paths.join(', ') + (feature ? ` (${feature})` : '')).join('; ')
}

function section(definition: KindDefinition): string[] {
  const lines = ['', `### ${definition.kind} (${definition.group})`, '', versionsOf(definition), '']
  lines.push(
    `Taken: ${fieldsOf(definition)
      .map((path) => `\`${path}\``)
      .join(', ')}.`,
  )
  const notYet = notes(definition, 'CONFIG_NOT_YET')
  if (notYet) lines.push('', `Not yet: ${notYet}.`)
  const noEffect = notes(definition, 'CONFIG_NO_EFFECT')
  if (noEffect) lines.push('', `No effect: ${noEffect}.`)
  const deprecated = notes(definition, 'CONFIG_DEPRECATED')
  if (deprecated) lines.push('', `Old names: ${deprecated}.`)
  return lines
}

/** The page. */
export function kindsPage(): string {
  const all = [...kinds, meshConfig as KindDefinition]
  const used = all.filter((definition) => definition.support === 'used')
  const listed = used.filter((definition) => LISTED.includes(definition.group))
  const core = used.filter((definition) => !LISTED.includes(definition.group))
  const table = (support: KindDefinition['support']): string[] => [
    '| kind | apiVersion | why |',
    '| --- | --- | --- |',
    ...all
      .filter((definition) => definition.support === support)
      .map((definition) => `| ${definition.kind} | ${versionsOf(definition)} | ${definition.feature} |`),
  ]
  return [
    '# Kinds and fields',
    '',
    'Which resources Ambit reads, from the definitions it reads them by; made by `npm run gen`. A field that stands nowhere here is an error',
    '(`CONFIG_UNKNOWN_FIELD`); of Kubernetes’ own kinds, which grow fields, it is a warning. What is taken is a field; a value of it, or two fields',
    'together, can still be wrong or not there yet (a JWT attribute in a `when`, `mode: MUTUAL`): `ambit analyze` tells with file and line.',
    '',
    '## In force',
    ...listed.flatMap(section),
    '',
    '## Kubernetes’ own, read for what is running',
    '',
    '| kind | apiVersion |',
    '| --- | --- |',
    ...core.map((definition) => `| ${definition.kind} | ${versionsOf(definition)} |`),
    '',
    '## Known, and not there yet',
    '',
    'Such a resource is reported by name. One that would protect something protects nothing yet, which the report says.',
    '',
    ...table('not-yet'),
    '',
    '## Known, and without a meaning here',
    '',
    ...table('no-effect'),
    '',
  ].join('\n')
}
