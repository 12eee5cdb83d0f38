// Environment variables as typed values. A value that does not parse is refused by name instead of becoming a default.
// Must not live here: which variables exist (each program documents its own).
import { AmbitError } from './errors.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** The value, or `fallback` when unset or empty. */
export function envString(name: string, fallback: string, env: Environment = process.env): string {
  return env[name] || fallback
}

/** A decimal integer within [min, max]; throws ENV_INVALID. */
export function envInteger(
  name: string,
  fallback: number,
  range: { readonly min: number; readonly max: number },
  env: Environment = process.env,
): number {
  const text = env[name]
  if (!text) return fallback
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < range.min || value > range.max) {
    throw new AmbitError('ENV_INVALID', `${name}='${text}' is not a whole number from ${range.min} to ${range.max}.`, {
      hint: `Unset ${name} for the default, ${fallback}.`,
    })
  }
  return value
}

/** true/false, 1/0, yes/no, on/off in any case; throws ENV_INVALID. */
export function envFlag(name: string, fallback: boolean, env: Environment = process.env): boolean {
  const text = env[name]?.toLowerCase()
  if (!text) return fallback
  if (text === 'true' || text === '1' || text === 'yes' || text === 'on') return true
  if (text === 'false' || text === '0' || text === 'no' || text === 'off') return false
  throw new AmbitError('ENV_INVALID', `${name}='${text}' is neither true nor false.`, {
    hint: `Unset ${name} for the default, ${fallback}.`,
  })
}
