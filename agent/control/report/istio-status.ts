// The status of Istio's kinds (istio.io/api meta/v1alpha1 IstioStatus): one condition that says whether the mesh does what the
// resource says, and the problems one by one as validationMessages. Pure. Must not live here: writing it (reporter.ts).
import type { Problem, Severity } from '../../config/problem.ts'
import { messageOf, withTimes, type Condition, type Verdict } from './conditions.ts'

export interface IstioStatus {
  readonly observedGeneration?: number
  readonly conditions: readonly Condition[]
  /** istio.analysis.v1alpha1 AnalysisMessageBase. */
  readonly validationMessages?: readonly {
    readonly type: { readonly name: string; readonly code: string }
    readonly level: 'ERROR' | 'WARNING' | 'INFO'
    readonly message: string
  }[]
}

const LEVELS: Readonly<Record<Severity, 'ERROR' | 'WARNING' | 'INFO'>> = {
  error: 'ERROR',
  warning: 'WARNING',
  info: 'INFO',
}
const MAX_MESSAGES = 32

const REASONS: Readonly<Record<string, string>> = {
  CONFIG_NEEDS_WAYPOINT: 'NeedsWaypoint',
  CONFIG_NOT_ENFORCED: 'NotEnforced',
  CONFIG_NOT_YET: 'NotSupported',
}

/** Reconciled: True when all of it is in force; False names what is not, and what is in force instead. */
export function istioStatus(
  problems: readonly Problem[],
  before: { readonly conditions?: unknown } | undefined,
  generation: number | undefined,
  now: string,
): IstioStatus {
  return {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    conditions: withTimes([verdictOf(problems)], before?.conditions, generation, now),
    ...(problems.length === 0
      ? {}
      : {
          validationMessages: problems.slice(0, MAX_MESSAGES).map((one) => ({
            type: { name: camelCase(one.code), code: one.code },
            level: LEVELS[one.severity],
            message: messageOf([one]),
          })),
        }),
  }
}

/** One reason for all of a resource's problems: the worst thing that became of it. */
export function verdictOf(problems: readonly Problem[]): Verdict {
  const type = 'Reconciled'
  const rejected = problems.filter((one) => one.severity === 'error')
  const denies = problems.some((one) => one.code === 'CONFIG_DENIES_TARGETS')
  const kept = problems.some((one) => one.code === 'CONFIG_LAST_GOOD_KEPT')
  if (denies) return { type, status: 'False', reason: 'DeniesTargets', message: messageOf(problems) }
  if (kept) return { type, status: 'False', reason: 'LastGoodKept', message: messageOf(problems) }
  if (rejected.length > 0) return { type, status: 'False', reason: 'Invalid', message: messageOf(problems) }
  // Fine by itself, and the mesh does not do it, or not all of it.
  const idle = problems.filter((one) => REASONS[one.code] !== undefined)
  const [first] = idle
  if (first) return { type, status: 'False', reason: REASONS[first.code] ?? '', message: messageOf(idle) }
  const warnings = problems.filter((one) => one.severity === 'warning')
  return {
    type,
    status: 'True',
    reason: 'Reconciled',
    message: warnings.length > 0 ? messageOf(warnings) : 'The mesh does what this resource says.',
  }
}

/** `CONFIG_UNKNOWN_HOST` → `ConfigUnknownHost`: as reasons of conditions and Events are written. */
export function camelCase(code: string): string {
  return code
    .toLowerCase()
    .split('_')
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join('')
}
