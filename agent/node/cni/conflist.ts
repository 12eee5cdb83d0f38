// A CNI network configuration with this agent's entry in it or not: text in, text out, everything of others left byte for byte.
// Must not live here: files (network.ts), when it is done (keeper.ts).
import { isDeepStrictEqual } from 'node:util'
import { AmbitError } from '../../base/errors.ts'
import { elementsOf, membersOf, rootOf, type Span } from './spans.ts'

/** Type of the entry, which is the name of the program that the runtime runs (native/cni). */
export const PLUGIN_TYPE = 'ambit-cni'

/** Versions of CNI that the plugin serves (native/cni/config.c): in a list of another, it would make every pod fail. */
const VERSIONS: readonly string[] = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']

/** What the entry tells the plugin. */
export interface Entry {
  /** The agent's local API, as the runtime sees it. */
  readonly socket: string
  readonly exemptNamespaces: readonly string[]
}

interface List {
  readonly plugins: Readonly<Record<string, unknown>>[]
  /** Where each of them stands in the text. */
  readonly spans: readonly Span[]
  /** The opening bracket. */
  readonly start: number
}

/**
 * The text with the entry in it exactly once, behind another plugin, as it should be; the same text if it is so already. A new one
 * goes to the end; one that is there stays where it is, so that two programs that both want to be last do not fight.
 * Throws CNI_CONFIG, CNI_VERSION.
 */
export function chain(text: string, entry: Entry): string {
  const list = parseList(text)
  const wanted = { type: PLUGIN_TYPE, ...entry }
  const mine = indexesOfMine(list)
  const [kept, ...further] = mine.filter((index) => index > 0)
  if (mine.length === list.plugins.length) {
    throw new AmbitError('CNI_CONFIG', 'The list has no plugin that makes an interface.')
  }
  // One at a time, and from the text anew: places move.
  const surplus = further[0] ?? (mine[0] === 0 ? 0 : undefined)
  if (surplus !== undefined) return chain(without(text, list, surplus), entry)
  if (kept === undefined) return append(text, list, wanted)
  if (isDeepStrictEqual(list.plugins[kept], wanted)) return text
  const { start, end } = list.spans[kept]!
  return text.slice(0, start) + written(wanted, gapBefore(text, list, kept)) + text.slice(end)
}

/** The text without the entry; the same text if it is not there. Throws CNI_CONFIG. */
export function unchain(text: string): string {
  const list = parseList(text, false)
  const [first] = indexesOfMine(list)
  return first === undefined ? text : unchain(without(text, list, first))
}

/** True if the entry is in the text as it should be. */
export function isChained(text: string, entry: Entry): boolean {
  try {
    return chain(text, entry) === text
  } catch {
    return false
  }
}

/** True if the plugin is in the list in whatever form. Throws CNI_CONFIG. */
export function hasEntry(text: string): boolean {
  return indexesOfMine(parseList(text, false)).length > 0
}

/**
 * A list of the one plugin that a configuration of the old form (`.conf`) describes (CNI 1.0, section 1: runtimes take the one as the
 * other). `former` is the list made of it earlier: what others chained there stays. Throws CNI_CONFIG.
 */
export function listOf(conf: string, former?: string): string {
  const { cniVersion, name, type } = parseObject(conf)
  if (typeof name !== 'string' || typeof type !== 'string') {
    throw new AmbitError('CNI_CONFIG', 'The configuration has no name or no type.')
  }
  const fresh = [
    '{',
    ...(cniVersion === undefined ? [] : [`  "cniVersion": ${JSON.stringify(cniVersion)},`]),
    `  "name": ${JSON.stringify(name)},`,
    '  "plugins": [',
    `    ${conf.trim()}`,
    '  ]',
    '}',
    '',
  ].join('\n')
  if (former === undefined) return fresh
  try {
    const { cniVersion: formerVersion, name: formerName } = parseObject(former)
    const { plugins, spans } = parseList(former)
    if (formerVersion !== cniVersion || formerName !== name) return fresh
    if (isDeepStrictEqual(plugins[0], parseObject(conf))) return former
    return former.slice(0, spans[0]!.start) + conf.trim() + former.slice(spans[0]!.end)
  } catch {
    return fresh
  }
}

/** True if a list says no more than the configuration it was made of, and perhaps this agent's entry. */
export function isOnlyListOf(list: string, conf: string): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(unchain(list)), JSON.parse(listOf(conf)))
  } catch {
    return false
  }
}

function indexesOfMine({ plugins }: List): number[] {
  return plugins.flatMap(({ type }, index) => (type === PLUGIN_TYPE ? [index] : []))
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // Said below.
  }
  throw new AmbitError('CNI_CONFIG', 'It is no object of JSON.')
}

function parseList(text: string, checkVersion = true): List {
  const { plugins, cniVersion, cniVersions = [] } = parseObject(text)
  if (!Array.isArray(plugins) || plugins.length === 0 || !plugins.every(isPlugin)) {
    throw new AmbitError('CNI_CONFIG', "It has no list of plugins, each with a 'type'.")
  }
  const listed: readonly unknown[] = Array.isArray(cniVersions) ? cniVersions : []
  const versions = cniVersion === undefined && listed.length > 0 ? listed : [cniVersion, ...listed]
  // Of several the runtime takes the newest that it knows itself.
  const foreign = versions.filter((version) => typeof version !== 'string' || !VERSIONS.includes(version))
  if (checkVersion && foreign.length > 0) {
    throw new AmbitError('CNI_VERSION', `The list is of CNI version ${JSON.stringify(foreign[0] ?? null)}.`, {
      hint: `The plugin serves ${VERSIONS.join(', ')}.`,
    })
  }
  const array = membersOf(text, rootOf(text)).findLast(({ key }) => key === 'plugins')!
  return { plugins, spans: elementsOf(text, array), start: array.start }
}

function isPlugin(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string'
}

/** The exact reverse of `append`, wherever the element stands. */
function without(text: string, { spans, start }: List, index: number): string {
  const before = index > 0 ? spans[index - 1]!.end : start + 1
  // Of the first one the comma is behind it.
  const end = index === 0 && spans[1] ? spans[1].start : spans[index]!.end
  return text.slice(0, index === 0 ? spans[0]!.start : before) + text.slice(end)
}

function append(text: string, list: List, value: object): string {
  const last = list.spans.length - 1
  const { end } = list.spans[last]!
  const gap = gapBefore(text, list, last)
  return `${text.slice(0, end)},${gap}${written(value, gap)}${text.slice(end)}`
}

/** The white space before an element. */
function gapBefore(text: string, { spans }: List, index: number): string {
  const { start } = spans[index]!
  let from = start
  while (' \n\r\t'.includes(text[from - 1]!)) from--
  return text.slice(from, start)
}

/** As the list is written: over several lines where its elements begin lines. */
function written(value: object, gap: string): string {
  const newline = gap.lastIndexOf('\n')
  if (newline < 0) return JSON.stringify(value)
  return JSON.stringify(value, undefined, 2).replaceAll('\n', `\n${gap.slice(newline + 1)}`)
}
