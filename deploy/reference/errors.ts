// Which error codes the source has, and which of them deploy/reference/errors.md explains: read from the source that throws
// them, so that the page cannot rot (test/docs.test.ts). `npm run gen` ends with it and fails for a code nobody explained.
// Must not live here: what the codes mean (errors.md, written by hand).
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export const errorsFile = join(root, 'deploy/reference/errors.md')

/** Literals that share a family's first word with error codes and are none: environment, flags of access logs, HTTP/2's names. */
const NO_ERRORS = new Set([
  'APP_NAME',
  'APP_VERSION',
  'CERT_REVOKED',
  'HTTP_1_1_REQUIRED',
  'IDENTITY_ERROR',
  'TLS_FAILURE',
])

/** A code given straight to an error's constructor: such a code founds a family. */
const THROWN = /\b(?:new \w*Error|super)\(\s*'([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)'/g
/** A code on its way through a helper, a table or a condition: known by its family. */
const LITERAL = /'([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)'/g
/** The kernel's own names, which are documented by the kernel. */
const ERRNO = /^E[A-Z0-9]+$/

const familyOf = (code: string): string => code.slice(0, code.indexOf('_'))

/** Every `.ts` below a folder that is neither a test nor generated. Paths relative to the root. */
export function sourceFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !path.includes('/gen/') && !path.includes('node_modules'))
    .sort()
}

/** Every error code → the files that have it. */
export function collectCodes(): Map<string, string[]> {
  const texts = new Map<string, string>()
  for (const folder of ['agent', 'native'])
    for (const path of sourceFiles(folder)) texts.set(path, readFileSync(join(root, path), 'utf8'))
  const codes = new Map<string, string[]>()
  const families = new Set<string>()
  const add = (code: string, path: string): void => {
    const paths = codes.get(code) ?? []
    if (!paths.includes(path)) codes.set(code, [...paths, path])
  }
  for (const [path, text] of texts) {
    for (const [, code = ''] of text.matchAll(THROWN)) {
      if (ERRNO.test(code) && !code.includes('_')) continue
      add(code, path)
      // The binding's codes are too plain to be families (NOT_, NO_, BAD_).
      if (path.startsWith('agent/') && code.includes('_')) families.add(familyOf(code))
    }
  }
  for (const [path, text] of texts) {
    for (const [, code = ''] of text.matchAll(LITERAL)) {
      const known = codes.has(code) || (path.startsWith('agent/') && families.has(familyOf(code)))
      if (known && !NO_ERRORS.has(code)) add(code, path)
    }
  }
  return codes
}

export interface Explained {
  readonly code: string
  /** The room its section speaks of, as in `agent/io`; '' for a section without one. */
  readonly room: string
  readonly meaning: string
  readonly advice: string
}

/** The rows of the tables whose headings name a room. */
export function explainedCodes(): Explained[] {
  const rows: Explained[] = []
  let room = ''
  for (const line of readFileSync(errorsFile, 'utf8').split('\n')) {
    const heading = /^## [^(]*(?:\(`([^`]+)`\))?/.exec(line)
    if (heading) room = heading[1] ?? ''
    const row = /^\| `([A-Z][A-Z0-9_]*)` +\| (.*?) +\| (.*?) *\|$/.exec(line)
    if (row && room) rows.push({ code: row[1] ?? '', room, meaning: row[2] ?? '', advice: row[3] ?? '' })
  }
  return rows
}

/** What is wrong between source and page, a line each; empty when all is well. */
export function errorPageProblems(): string[] {
  const codes = collectCodes()
  const rows = explainedCodes()
  const seen = new Map<string, number>()
  for (const { code } of rows) seen.set(code, (seen.get(code) ?? 0) + 1)
  return [
    ...[...codes].filter(([code]) => !seen.has(code)).map(([code, at]) => `${code} (${at[0]}) is not explained`),
    ...rows.filter(({ code }) => !codes.has(code)).map(({ code }) => `${code} is explained and nowhere in the source`),
    ...[...seen].filter(([, times]) => times > 1).map(([code]) => `${code} is explained twice`),
    ...rows
      .filter(({ code, room }) => codes.has(code) && !codes.get(code)?.some((path) => path.startsWith(`${room}/`)))
      .map(({ code, room }) => `${code} is not of ${room}: ${codes.get(code)?.join(', ')}`),
    ...rows
      .filter(({ meaning, advice }) => meaning.length < 15 || !advice)
      .map(({ code }) => `${code} lacks a sentence`),
  ]
}

if (import.meta.main) {
  const problems = errorPageProblems()
  for (const problem of problems) console.error(`deploy/reference/errors.md: ${problem}.`)
  process.exitCode = problems.length > 0 ? 1 : 0
}
