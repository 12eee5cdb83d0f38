// `npm run gen` writes deploy/reference/errors.md with this: every stable error code of the project, where it comes from,
// what it says and what to try, read from the source that throws it, so that the page cannot rot (test/docs.test.ts).
// Must not live here: the texts themselves.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

interface Code {
  readonly code: string
  readonly file: string
  readonly message: string
  readonly hint: string
}

/** A literal as prose: interpolations become `…`. */
function prose(literal: string): string {
  let out = ''
  let depth = 0
  for (let i = 0; i < literal.length; i++) {
    if (depth === 0 && literal[i] === '$' && literal[i + 1] === '{') {
      depth = 1
      out += '…'
      i++
    } else if (depth > 0) {
      if (literal[i] === '{') depth++
      else if (literal[i] === '}') depth--
    } else if (literal[i] === '\\') {
      i++
      out += literal[i] === 'n' ? ' ' : (literal[i] ?? '')
    } else out += literal[i]
  }
  return out.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll(/\s+/g, ' ').trim()
}

const THROWN =
  /\b(?:AmbitError|BpfError|TunnelError|fail|invalid|refused?|problem|badRequest)\(\s*'([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)'(?:,\s*(?:'((?:[^'\\\n]|\\.)*)'|`((?:[^`\\]|\\.)*)`|"((?:[^"\\\n]|\\.)*)"))?/g
const HINT = /hint:\s*(?:'((?:[^'\\\n]|\\.)*)'|`((?:[^`\\]|\\.)*)`|"((?:[^"\\\n]|\\.)*)")/

/** Every code in agent/ and native/, the first place that says something about it. */
export function collectCodes(): Code[] {
  const found = new Map<string, Code>()
  for (const folder of ['agent', 'native']) {
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name)
      if (!entry.isFile() || !entry.name.endsWith('.ts') || entry.name.endsWith('.test.ts') || path.includes('/gen/'))
        continue
      const text = readFileSync(path, 'utf8')
      for (const match of text.matchAll(THROWN)) {
        const code = match[1] as string
        const message = prose(match[2] ?? match[3] ?? match[4] ?? '')
        const after = text.slice(match.index + match[0].length, match.index + match[0].length + 600)
        const next = after.search(/\b(?:AmbitError|BpfError)\(/)
        const hint = HINT.exec(next < 0 ? after : after.slice(0, next))
        const known = found.get(code)
        if (known && (known.message !== '' || message === '')) continue
        found.set(code, {
          code,
          file: relative(root, path),
          message,
          hint: hint ? prose(hint[1] ?? hint[2] ?? hint[3] ?? '') : '',
        })
      }
    }
  }
  return [...found.values()].sort((a, b) => (a.code < b.code ? -1 : 1))
}

/** The page. */
export function errorsPage(): string {
  const lines = [
    '# Error codes',
    '',
    'Every error has a stable code; match on it, never on the text. `…` stands for what the message names. Made by `npm run gen`.',
    '',
    '| code | says | try | from |',
    '| --- | --- | --- | --- |',
  ]
  for (const { code, file, message, hint } of collectCodes()) {
    lines.push(`| \`${code}\` | ${message || 'what went wrong, in place'} | ${hint} | \`${file}\` |`)
  }
  return `${lines.join('\n')}\n`
}

export const errorsFile = join(root, 'deploy/reference/errors.md')

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(errorsFile, errorsPage())
