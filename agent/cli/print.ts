// How the command line shows things: tables as kubectl prints them, JSON, YAML, a little colour. Must not live here:
// what is shown (commands/).
import { stringify } from 'yaml'
import { AmbitError } from '../base/errors.ts'

export type Format = 'text' | 'json' | 'yaml'

/** Parses `-o`; throws CLI_FORMAT_UNKNOWN. */
export function parseFormat(text: string | undefined): Format {
  if (text === undefined || text === 'text') return 'text'
  if (text === 'json' || text === 'yaml') return text
  throw new AmbitError('CLI_FORMAT_UNKNOWN', `'${text}' is no output format.`, { hint: 'Formats: text, json, yaml.' })
}

/** A value as JSON or YAML, with a line feed at the end. */
export function structured(value: unknown, format: Exclude<Format, 'text'>): string {
  if (format === 'json') return `${JSON.stringify(value, undefined, 2)}\n`
  // Through JSON first, so that both formats leave out the same things.
  return stringify(JSON.parse(JSON.stringify(value)), { lineWidth: 0 })
}

/** Columns three blanks apart, headings in capitals, no blanks at line ends. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [headings.map((heading) => heading.toUpperCase()), ...rows]
  const widths = headings.map((_, i) => Math.max(...all.map((row) => displayWidth(row[i] ?? ''))))
  return all
    .map((row) =>
      row
        .map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - displayWidth(cell)))
        .join('   ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('')
}

const ESCAPES = /\u001b\[[0-9;]*m/g

function displayWidth(text: string): number {
  return Array.from(text.replaceAll(ESCAPES, '')).length
}

const CODES = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const
export type Colour = keyof typeof CODES

/** Text in colour where the terminal shows it. */
export function paint(text: string, colour: Colour, enabled: boolean): string {
  return enabled ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text
}

/** `1 error`, `2 errors`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
