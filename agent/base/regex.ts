// Users' regular expressions: RE2 syntax through re2js, linear in the text whatever the pattern, compiled once.
// A user's pattern never becomes a JavaScript RegExp. Must not live here: what is matched (mesh/match-route.ts).
import { RE2JS } from 're2js'
import { AmbitError } from './errors.ts'

/** Longest pattern taken, in characters; Istio's limit for a StringMatch. */
export const MAX_PATTERN = 1024
/** Instructions of a compiled pattern: what one pattern may cost in memory (`a{1000}{100}` is refused). */
export const MAX_PROGRAM = 20_000

export interface Regex {
  readonly pattern: string
  readonly groups: number
  /** True if the whole text matches. */
  matches(text: string): boolean
  /** Replaces every match; see compileRewrite for the template. */
  replaceAll(text: string, template: RegexTemplate): string
}

/** A parsed replacement: literals between group numbers (−1 marks a literal). */
export interface RegexTemplate {
  readonly groups: readonly number[]
  readonly literals: readonly string[]
}

class Re2Regex implements Regex {
  readonly pattern: string
  readonly groups: number
  readonly #compiled: RE2JS

  constructor(pattern: string, compiled: RE2JS) {
    this.pattern = pattern
    this.groups = compiled.groupCount()
    this.#compiled = compiled
  }

  matches(text: string): boolean {
    return this.#compiled.testExact(text)
  }

  replaceAll(text: string, template: RegexTemplate): string {
    const matcher = this.#compiled.matcher(text)
    let out = ''
    let from = 0
    while (matcher.find()) {
      out += text.slice(from, matcher.start())
      for (let i = 0; i < template.groups.length; i++) {
        const group = template.groups[i] as number
        out += group < 0 ? (template.literals[i] as string) : (matcher.group(group) ?? '')
      }
      from = matcher.end()
    }
    return from === 0 && out === '' ? text : out + text.slice(from)
  }
}

/** Compiles a pattern in RE2 syntax; throws REGEX_INVALID or REGEX_TOO_LARGE. */
export function compileRegex(pattern: string): Regex {
  if (pattern.length > MAX_PATTERN) {
    throw new AmbitError('REGEX_TOO_LARGE', `The regular expression has ${pattern.length} characters.`, {
      hint: `At most ${MAX_PATTERN} are taken: split it into several matches.`,
    })
  }
  let compiled: RE2JS
  try {
    compiled = RE2JS.compile(pattern)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new AmbitError('REGEX_INVALID', `'${pattern}' is not a regular expression in RE2 syntax: ${why}.`, {
      hint: 'RE2 has no backreferences and no look-around; see github.com/google/re2/wiki/Syntax.',
      cause: error,
    })
  }
  const size = compiled.programSize()
  if (size > MAX_PROGRAM) {
    throw new AmbitError('REGEX_TOO_LARGE', `'${pattern}' compiles to ${size} instructions.`, {
      hint: `At most ${MAX_PROGRAM} are taken: use smaller repetition counts.`,
    })
  }
  return new Re2Regex(pattern, compiled)
}

/** Parses a replacement in RE2's form: `\0` the whole match, `\1`–`\9` groups, `\\` a backslash; throws REGEX_REWRITE_INVALID. */
export function compileRewrite(template: string, regex: Regex): RegexTemplate {
  const groups: number[] = []
  const literals: string[] = []
  let literal = ''
  const flush = (): void => {
    if (literal === '') return
    groups.push(-1)
    literals.push(literal)
    literal = ''
  }
  for (let i = 0; i < template.length; i++) {
    const char = template[i] as string
    if (char !== '\\') {
      literal += char
      continue
    }
    const next = template[++i]
    if (next === '\\') literal += '\\'
    else if (next !== undefined && next >= '0' && next <= '9' && Number(next) <= regex.groups) {
      flush()
      groups.push(Number(next))
      literals.push('')
    } else {
      throw new AmbitError('REGEX_REWRITE_INVALID', `'\\${next ?? ''}' in the rewrite '${template}' names no group.`, {
        hint: `The pattern '${regex.pattern}' has ${regex.groups} groups; write \\\\ for a backslash.`,
      })
    }
  }
  flush()
  return { groups, literals }
}
