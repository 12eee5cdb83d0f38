// Conditions (meta/v1): what they have in common, whoever's they are. Pure. Must not live here: which ones a kind has.
import { describeProblem, type Problem } from '../../config/problem.ts'

export type Truth = 'True' | 'False' | 'Unknown'

export interface Condition {
  readonly type: string
  readonly status: Truth
  /** CamelCase, at most 1024 characters. */
  readonly reason: string
  readonly message: string
  readonly observedGeneration?: number
  /** RFC 3339: of the last change of `status`. */
  readonly lastTransitionTime: string
}

export type Verdict = Omit<Condition, 'lastTransitionTime' | 'observedGeneration'>

/** The API server takes 32 KiB. */
const MAX_MESSAGE = 4_096
/** What a person reads at once. */
const MAX_PROBLEMS = 8

/**
 * The conditions of an object: those wanted, in their order. A condition whose status stays keeps its time, and where nothing
 * at all changes the list is the same value for value, so that it is not written again.
 */
export function withTimes(
  wanted: readonly Verdict[],
  before: unknown,
  generation: number | undefined,
  now: string,
): readonly Condition[] {
  const old = new Map(listOf(before).map((one) => [one.type, one]))
  return wanted.map((verdict) => {
    const last = old.get(verdict.type)
    const lastTransitionTime =
      last?.status === verdict.status && last.lastTransitionTime ? last.lastTransitionTime : now
    return { ...verdict, ...(generation === undefined ? {} : { observedGeneration: generation }), lastTransitionTime }
  })
}

/** What an object has for conditions, as far as they are such. */
export function listOf(value: unknown): readonly Condition[] {
  return Array.isArray(value)
    ? value.filter((one): one is Condition => typeof (one as { type?: unknown } | null)?.type === 'string')
    : []
}

/** Several problems in one message: field, what is wrong, what to do. */
export function messageOf(problems: readonly Problem[]): string {
  return linesOf(problems, MAX_PROBLEMS, MAX_MESSAGE)
}

/** One problem a line, without the object, which is known where this is read; at most so many lines and characters. */
export function linesOf(problems: readonly Problem[], maxLines: number, maxLength: number): string {
  const lines = problems
    .slice(0, maxLines)
    .map(({ resource: _resource, ...problem }) => describeProblem({ ...problem, file: '', line: 0 }))
  if (problems.length > maxLines) lines.push(`${problems.length - maxLines} more.`)
  const text = lines.join('\n')
  return text.length <= maxLength ? text : `${text.slice(0, maxLength - 1)}…`
}
