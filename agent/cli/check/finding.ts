// What a check finds, and how many of what kind. Must not live here: finding (the other files), asking.

export type Severity = 'ok' | 'warning' | 'error'

export interface Finding {
  readonly severity: Severity
  /** Stable: CHECK_…, or what a node's own probe says. */
  readonly code: string
  /** `cluster`, `node/NAME`, `control`, `waypoint/NAMESPACE/NAME` … */
  readonly about: string
  readonly message: string
  /** What to try; '' when there is nothing to. */
  readonly hint: string
}

export function ok(code: string, about: string, message: string): Finding {
  return { severity: 'ok', code, about, message, hint: '' }
}

export function warning(code: string, about: string, message: string, hint: string): Finding {
  return { severity: 'warning', code, about, message, hint }
}

export function error(code: string, about: string, message: string, hint: string): Finding {
  return { severity: 'error', code, about, message, hint }
}

/** `a, b, c and 4 more`. */
export function some(names: readonly string[], shown = 5): string {
  const more = names.length - shown
  return more > 0 ? `${names.slice(0, shown).join(', ')} and ${more} more` : names.join(', ')
}
