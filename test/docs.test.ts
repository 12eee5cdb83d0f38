// What the documents say is held to what is there: links, commands and their flags, files, error codes, metrics, fields.
// Must not live here: the texts, and how the facts are read from the source (deploy/reference/).
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { HttpMetrics, TcpMetrics, type Edge } from '../agent/telemetry/istio.ts'
import { Metrics } from '../agent/telemetry/exposition.ts'
import { everyHelp, type Help } from '../deploy/reference/cli.ts'
import { collectCodes, errorPageProblems } from '../deploy/reference/errors.ts'
import { GENERATED, generate } from '../deploy/reference/gen.ts'
import { PLAINTEXT_REFUSED } from '../agent/mesh/plaintext-mode.ts'
import { explainedLabels, explainedMetrics, registeredMetrics } from '../deploy/reference/metrics.ts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const markdown = (folder: string): string[] =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(folder, name))
const pages = [
  ...markdown('.'),
  ...markdown('deploy/reference'),
  ...markdown('deploy/examples'),
  'native/bpf/README.md',
  'bpf/README.md',
]
const text = (page: string): string => readFileSync(join(root, page), 'utf8')

/** As GitHub makes them: lower case, no punctuation, spaces to dashes. */
function anchors(page: string): string[] {
  return [...text(page).matchAll(/^#+ (.+)$/gm)].map((match) =>
    (match[1] as string)
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

describe('the documents', () => {
  it('link only to what exists, and to headings that exist', () => {
    const broken: string[] = []
    let links = 0
    for (const page of pages) {
      for (const [, link = ''] of text(page).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(link)) continue
        links++
        const [path = '', anchor] = link.split('#')
        const target = path ? join(dirname(page), path) : page
        if (!existsSync(join(root, target))) broken.push(`${page}: ${link}`)
        else if (anchor !== undefined && !anchors(target).includes(anchor))
          broken.push(`${page}: ${link} has no heading`)
      }
    }
    expect(links).toBeGreaterThan(10)
    expect(broken).toEqual([])
  })

  it('name only npm scripts that exist', () => {
    const scripts = Object.keys((JSON.parse(text('package.json')) as { scripts: Record<string, string> }).scripts)
    const named = pages.flatMap((page) =>
      [...text(page).matchAll(/npm (?:run ([a-z-]+)|(start|test)\b)/g)].map((match) => match[1] ?? match[2] ?? ''),
    )
    expect(named.length).toBeGreaterThan(0)
    expect(named.filter((name) => !scripts.includes(name))).toEqual([])
  })

  it('name only files that exist', () => {
    const path = /`((?:agent|native|bpf|deploy|test|\.ci)\/[A-Za-z0-9_./-]+)`/g
    const named = pages.flatMap((page) => [...text(page).matchAll(path)].map((match) => [page, match[1] as string]))
    expect(named.length).toBeGreaterThan(0)
    const missing = named.filter(
      ([page = '', file = '']) => !existsSync(join(root, file)) && !existsSync(join(root, dirname(page), file)),
    )
    expect(missing).toEqual([])
  })
})

describe('the commands in the documents', () => {
  let commands: Help[]
  beforeAll(async () => void (commands = await everyHelp()), 120_000)

  /** What stands after `ambit` on a line of a code block or in backticks, up to a pipe, a comment or `--`. */
  function* uses(): Generator<{ page: string; words: string[] }> {
    for (const page of pages) {
      // A command run inside a pod is a use of its own.
      for (const line of text(page).replaceAll(' -- ambit ', '\nambit ').split(/[\n`]/)) {
        const [, use] = /^(?:.*[$(&|] ?)?\s*(?:agent\/bin\/)?ambit ([a-z].*)$/.exec(line) ?? []
        if (use !== undefined)
          yield {
            page,
            words: use
              .split(/ (?:#|\||&&|--(?= |$))/)[0]!
              .trim()
              .split(/\s+/),
          }
      }
    }
  }

  /** The longest command the words begin with. */
  const commandOf = (words: readonly string[]): Help | undefined =>
    commands.find(({ command }) => command === words.slice(0, 2).join(' ')) ??
    commands.find(({ command }) => command === words[0])

  it('exist', () => {
    const all = [...uses()]
    expect(all.length).toBeGreaterThan(20)
    const groups = commands.map(({ command }) => command.split(' ')).filter((words) => words.length > 1)
    const unknown = all.filter(({ words }) => {
      const command = commandOf(words)?.command
      if (command === undefined) return true
      // `ambit sandbox nonsense` is no use of `ambit sandbox`.
      return groups.some(([group]) => group === command) && /^[a-z]+$/.test(words[1] ?? '')
    })
    expect(unknown.map(({ page, words }) => `${page}: ambit ${words.join(' ')}`)).toEqual([])
  })

  it('have the flags they are shown with', () => {
    let flags = 0
    const unknown: string[] = []
    for (const { page, words } of uses()) {
      const help = commandOf(words)
      for (const word of words) {
        const flag = /^\[?(--?[a-z][a-z-]*)/i.exec(word)?.[1]
        if (!flag || !help) continue
        flags++
        if (!new RegExp(`(^|[\\s,])${flag}\\b`).test(help.text)) unknown.push(`${page}: ambit ${help.command} ${flag}`)
      }
    }
    expect(flags).toBeGreaterThan(5)
    expect(unknown).toEqual([])
  })

  it('each have an example', () => {
    const groups = ['', 'sandbox', 'app']
    const without = commands.filter(
      ({ command, text: help }) => !groups.includes(command) && !help.includes('Example:'),
    )
    expect(without.map(({ command }) => command)).toEqual([])
  })
})

describe('the reference', () => {
  it('is what `npm run gen` makes of the programs', { timeout: 120_000 }, async () => {
    const out = mkdtempSync(join(tmpdir(), 'ambit-reference-'))
    try {
      await generate(out)
      expect(GENERATED.length).toBeGreaterThan(0)
      for (const name of GENERATED)
        expect(text(join('deploy/reference', name)), `${name}: run \`npm run gen\``).toBe(
          readFileSync(join(out, name), 'utf8'),
        )
    } finally {
      rmSync(out, { recursive: true })
    }
  })

  it('explains every error code of the source, each once and in its room, and no other', () => {
    const codes = [...collectCodes().keys()]
    // Of each way to give a code: thrown, through a helper, out of a table, by a condition, by a base class.
    for (const code of [
      'IO_TLS',
      'CONFIG_UNKNOWN_SUBSET',
      'IO_UNREACHABLE',
      'ADMIN_PORT_IN_USE',
      'TUNNEL_REFUSED',
      'LAYOUT',
    ])
      expect(codes, code).toContain(code)
    for (const none of ['APP_NAME', 'TLS_FAILURE', 'ENOENT', 'ROUND_ROBIN']) expect(codes, none).not.toContain(none)
    expect(errorPageProblems()).toEqual([])
  })

  it('explains every code that a problem of the configuration can have', () => {
    const declared = [...text('agent/config/problem.ts').matchAll(/^ {2}\| '([A-Z_]+)'/gm)].map(
      (match) => match[1] as string,
    )
    expect(declared.length).toBeGreaterThan(20)
    expect([...collectCodes().keys()].filter((code) => code.startsWith('CONFIG_')).sort()).toEqual(declared.toSorted())
  })

  it('explains every reason of a refusal', () => {
    const union = (file: string, after: string): string[] => {
      const source = text(file)
      const from = source.slice(source.indexOf(after) + after.length)
      return [...from.slice(0, from.indexOf('\n\n')).matchAll(/\| '([a-z_]+)'/g)].map((match) => match[1] as string)
    }
    const reasons = new Set([
      ...union('agent/mesh/resolve.ts', 'export type RefuseReason ='),
      ...union('agent/mesh/authorize.ts', 'export type VerdictReason ='),
      ...union('agent/mesh/inbound.ts', 'readonly allowed: boolean'),
      ...union('agent/node/observe/refusals.ts', 'export type RefusalReason ='),
      PLAINTEXT_REFUSED,
    ])
    const section = text('deploy/reference/errors.md')
      .split('\n## ')
      .find((part) => part.startsWith('Why a connection'))
    const explained = [...(section ?? '').matchAll(/^\| `([a-z_]+)`/gm)].map((match) => match[1] as string)
    expect(reasons.size).toBeGreaterThan(10)
    expect(explained.toSorted()).toEqual([...reasons].toSorted())
  })

  it('explains every flag of a refused request', () => {
    const flags = new Set<string>()
    for (const file of ['reply.ts', 'forward.ts', 'pipeline.ts', 'listen/opaque.ts']) {
      for (const line of text(`agent/waypoint/${file}`).split('\n')) {
        if (!/flags|RESET_FLAGS|^ {2}'[a-z ]+': '[A-Z]+',$/.test(line)) continue
        for (const [, flag = ''] of line.matchAll(/['`,]([A-Z]{2,3})['`]/g)) flags.add(flag)
      }
    }
    const section = text('deploy/reference/errors.md')
      .split('\n## ')
      .find((part) => part.startsWith('Why a request'))
    const explained = [...(section ?? '').matchAll(/^\| `([A-Z]+)`/gm)].map((match) => match[1] as string)
    expect(flags.size).toBeGreaterThan(8)
    expect(explained.toSorted()).toEqual([...flags].toSorted())
  })

  it('explains every metric family with its type and labels', () => {
    const registered = registeredMetrics()
    const explained = explainedMetrics()
    expect(registered.length).toBeGreaterThan(30)
    expect(explained.map(({ name, type }) => `${name} ${type}`)).toEqual(
      registered.map(({ name, type }) => `${name} ${type}`),
    )
    for (const { name, labels } of registered)
      expect(explained.find((one) => one.name === name)?.labels?.toSorted(), name).toEqual(labels?.toSorted())
  })

  it('explains every label of Istio’s families, as a scrape shows them', async () => {
    const metrics = new Metrics('test', '0')
    const nobody: Edge = {
      reporter: 'waypoint',
      source: undefined,
      sourceIdentity: undefined,
      destination: undefined,
      destinationIdentity: undefined,
      service: undefined,
      security: 'none',
    }
    new TcpMetrics(metrics).edge(nobody).opened.add(1)
    new HttpMetrics(metrics).edge(nobody, 'http').record(200, '', '-', 1, 1, 1)
    const scrape = await metrics.text()
    const labels = (family: string): string[] => {
      const [, list = ''] = new RegExp(`^${family}\\{(.*)\\} `, 'm').exec(scrape) ?? []
      return [...list.matchAll(/([a-z_]+)="/g)].map((match) => match[1] as string).sort()
    }
    expect(explainedLabels('connections')).toEqual(labels('istio_tcp_connections_opened_total'))
    expect(explainedLabels('requests')).toEqual(labels('istio_requests_total'))
  })
})
