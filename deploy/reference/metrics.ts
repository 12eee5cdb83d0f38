// Which metric families the programs expose, read from the places that register them, and which of them
// deploy/reference/metrics.md explains. Must not live here: what they mean (metrics.md, written by hand).
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sourceFiles } from './errors.ts'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const page = join(root, 'deploy/reference/metrics.md')

export interface MetricFamily {
  readonly name: string
  readonly type: string
  /** Undefined when they are not written where the family is registered: Istio's, which are read back from a scrape. */
  readonly labels: readonly string[] | undefined
}

/** Names of the mesh's own vocabulary that look like metrics and are none: a policy, kernel programs' names. */
const NO_METRICS = new Set(['istio_converted_static_strict'])

/** `counter({ name: 'x', …, labels: […] })`, also as `new Counter({…})` and `new CounterFamily({…})`. */
const REGISTERED =
  /\b(counter|gauge|histogram)(?:family)?\(\s*\{\s*name: (?:'([a-z_]+)'|`([a-z_]*)\$\{name\}([a-z_]*)`)/gi
/** `const streams = gauge('x', 'help', ['label'])`: a helper named after the type. */
const SHORT = /\b(counter|gauge|histogram)\('([a-z_]+)',\s*'(?:[^'\\]|\\.)*'(?:,\s*\[([^\]]*)\])?/g
const NAME = /['"`]((?:istio|ambit)_[a-z_]+)['"`]/g

const words = (list: string): string[] => [...list.matchAll(/'([^']+)'/g)].map((match) => match[1] as string)

/** Every family that the agent's rooms register; throws for a name that looks like one and could not be read. */
export function registeredMetrics(): MetricFamily[] {
  const found = new Map<string, MetricFamily>()
  const add = (name: string, type: string, labels: readonly string[] | undefined): void => {
    found.set(name, { name, type: type.toLowerCase(), labels })
  }
  const mentioned = new Set<string>()
  for (const path of sourceFiles('agent')) {
    const text = readFileSync(join(root, path), 'utf8')
    // Names there are those of kernel maps and programs.
    const kernel = path.startsWith('agent/node/redirect/')
    if (!kernel) for (const [, name = ''] of text.matchAll(NAME)) mentioned.add(name)
    for (const match of text.matchAll(REGISTERED)) {
      const [, type = '', name, before = '', after = ''] = match
      const options = text.slice(match.index, text.indexOf('})', match.index))
      const list = /\blabel(?:s|Names): \[([^\]]*)\]/.exec(options)
      const labels = list ? words(list[1] ?? '') : undefined
      if (name) add(name, type, labels)
      else for (const [, part = ''] of text.matchAll(/\bfamily\('([a-z_]+)'/g)) add(before + part + after, type, labels)
    }
    for (const [, type = '', name = '', labels = ''] of text.matchAll(SHORT)) add(name, type, words(labels))
  }
  const unread = [...mentioned].filter((name) => !found.has(name) && !NO_METRICS.has(name))
  if (unread.length > 0) throw new Error(`How are these registered? ${unread.join(', ')}`)
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

const rows = (): string[][] =>
  readFileSync(page, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .slice(1, -1)
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim()),
    )

const quoted = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] as string)

/** The families of the page. Labels `of connections` and `of requests` are left undefined. */
export function explainedMetrics(): MetricFamily[] {
  return rows()
    .filter((cells) => /^(counter|gauge|histogram)$/.test(cells[1] ?? ''))
    .map(([name = '', type = '', labels = '']) => ({
      name: quoted(name)[0] ?? '',
      type,
      labels: labels.startsWith('of ') ? undefined : quoted(labels),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** The page's labels of Istio's families. */
export function explainedLabels(of: 'connections' | 'requests'): string[] {
  return rows()
    .filter(([, cell]) => cell === 'both' || cell === of)
    .flatMap(([names = '']) => quoted(names))
    .sort()
}
