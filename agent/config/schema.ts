// The words that schemas of many kinds share: ports, durations, labels, selectors, string matches. One schema gives
// the TypeScript type, the check and (its input side) the CRD.
// Must not live here: any one kind; turning a failed check into a message (check.ts).
import { z } from 'zod'
import type { AmbitError } from '../base/errors.ts'
import { compileRegex, compileRewrite } from '../base/regex.ts'
import type { RouteStringMatch } from '../mesh/match.ts'
import type { FieldPath, Report } from './resource.ts'

/** An object all of whose fields may be absent; unknown fields are refused by name. */
export function object<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  return z.strictObject(shape).partial()
}

/** Fields of Kubernetes' own kinds that the mesh does not read: known, so that a misspelt one stands out. */
export function unread<Names extends string>(names: string): Record<Names, z.ZodUnknown> {
  return Object.fromEntries(names.split(' ').map((name) => [name, z.unknown()])) as Record<Names, z.ZodUnknown>
}

export const port = z.int().min(1).max(65535)
export const count = z.int().min(0).max(4_294_967_295)
export const percent = z.int().min(0).max(100)
export const labels = z.record(z.string(), z.string())

const UNITS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 0.001,
  µs: 0.001,
  ns: 0.000001,
}

/** Milliseconds of a Go duration (`1h30m`, `0.5s`, `10ms`); undefined if it is none. Negative ones are none. */
export function parseDuration(text: string): number | undefined {
  if (text === '0') return 0
  if (text.length === 0 || text.length > 40) return undefined
  let rest = text
  let total = 0
  while (rest) {
    const part = /^(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/.exec(rest)
    const unit = part ? UNITS[part[2] as string] : undefined
    if (!part || unit === undefined) return undefined
    total += Number(part[1]) * unit
    rest = rest.slice(part[0].length)
  }
  return Number.isFinite(total) ? total : undefined
}

/** A duration as text; its value is milliseconds. */
export const duration = z.string().transform((text, context) => {
  const value = parseDuration(text)
  if (value !== undefined) return value
  context.addIssue({
    code: 'custom',
    message: `${JSON.stringify(text)} is not a duration.`,
    params: { hint: 'Write a number with its unit, as in 10s, 250ms or 1h30m.' },
  })
  return z.NEVER
})

/** A duration of at least 1 ms, as Istio demands of everything but disabled timeouts. */
export const positiveDuration = duration.superRefine((value, context) => {
  if (value < 1)
    context.addIssue({
      code: 'custom',
      message: 'A duration here is at least 1ms.',
      params: { hint: 'Leave the field out for the default.' },
    })
})

export const stringMatch = object({ exact: z.string(), prefix: z.string(), regex: z.string() })
export type StringMatch = z.infer<typeof stringMatch>

export const selector = object({ matchLabels: labels })
export const istioPort = object({ number: port })
/** Either a number or the name of a container port. */
export const intOrName = z.union([port, z.string().min(1)])

export const targetRef = object({
  group: z.string(),
  kind: z.string(),
  name: z.string(),
  namespace: z.string(),
  sectionName: z.string(),
})

/** Reports a StringMatch that says two things, or whose regex RE2 does not take. */
export function checkStringMatch(match: StringMatch, path: FieldPath, report: Report): void {
  const given = (['exact', 'prefix', 'regex'] as const).filter((key) => match[key] !== undefined)
  if (given.length > 1) {
    report({
      severity: 'error',
      code: 'CONFIG_INVALID_VALUE',
      path,
      message: `Only one of exact, prefix and regex may be set, not ${given.join(' and ')}.`,
      hint: 'Use two matches for an OR.',
    })
  }
  if (match.regex !== undefined) checkRegex(match.regex, [...path, 'regex'], report)
}

/** Users' regular expressions are RE2: linear time, no look-around, no back-references. */
export function checkRegex(regex: string, path: FieldPath, report: Report): void {
  checkRewrite(regex, undefined, path, report)
}

/** A regex with its replacement, whose group numbers must exist. */
export function checkRewrite(regex: string, rewrite: string | undefined, path: FieldPath, report: Report): void {
  try {
    const compiled = compileRegex(regex)
    if (rewrite !== undefined) compileRewrite(rewrite, compiled)
  } catch (error) {
    const { message, hint } = error as AmbitError
    report({ severity: 'error', code: 'CONFIG_INVALID_VALUE', path, message, hint: hint ?? '' })
  }
}

/**
 * The domain's match of a checked StringMatch. An empty one, and the regex `*` of old Istio files, mean presence.
 * Names after istio.networking.v1.StringMatch.
 */
export function toRouteMatch(match: StringMatch, ignoreCase = false): RouteStringMatch {
  if (match.exact !== undefined) return { type: 'exact', value: match.exact, ...(ignoreCase ? { ignoreCase } : {}) }
  if (match.prefix !== undefined) return { type: 'prefix', value: match.prefix, ...(ignoreCase ? { ignoreCase } : {}) }
  if (match.regex !== undefined && match.regex !== '*') return { type: 'regex', value: match.regex }
  return { type: 'present' }
}
