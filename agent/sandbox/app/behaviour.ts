// How the echo app misbehaves on purpose: delay, failures, a fixed status. Flags set the start, a request's query
// overrides it for itself (`?status=503&delay=100&bytes=1000000`), and `PUT /-/behaviour` from the pod's own loopback
// changes it while it runs, so that a test can break an endpoint and mend it. Must not live here: HTTP itself.
import { AmbitError } from '../../base/errors.ts'

export interface Behaviour {
  /** Milliseconds before an answer. */
  delay: number
  /** Status of an answer that does not fail. */
  status: number
  /** Share of requests, 0 to 1, answered with `failStatus`. */
  failRate: number
  failStatus: number
}

export const goodBehaviour: Readonly<Behaviour> = { delay: 0, status: 200, failRate: 0, failStatus: 503 }

export interface Wish {
  readonly status: number
  readonly delay: number
  /** Answer with this many bytes of the test pattern instead of JSON. */
  readonly bytes: number | undefined
}

function numberIn(text: string | null, low: number, high: number): number | undefined {
  if (text === null || !/^\d{1,12}$/.test(text)) return undefined
  const value = Number(text)
  return value >= low && value <= high ? value : undefined
}

/** What one request gets, from the running behaviour and its own query. `dice` is a number in [0, 1). */
export function wishOf(behaviour: Behaviour, target: string, dice: number): Wish {
  const at = target.indexOf('?')
  const query = at < 0 ? undefined : new URLSearchParams(target.slice(at + 1))
  const failing = dice < behaviour.failRate
  return {
    status: numberIn(query?.get('status') ?? null, 200, 599) ?? (failing ? behaviour.failStatus : behaviour.status),
    delay: numberIn(query?.get('delay') ?? null, 0, 600_000) ?? behaviour.delay,
    bytes: numberIn(query?.get('bytes') ?? null, 0, 1e11),
  }
}

/** Applies a JSON change such as `{"failRate":1}`; refuses unknown names and values that are no numbers in range. */
export function changeBehaviour(behaviour: Behaviour, json: string): void {
  let change: unknown
  try {
    change = JSON.parse(json)
  } catch (error) {
    throw new AmbitError('APP_BEHAVIOUR_INVALID', 'the new behaviour is not JSON', { cause: error })
  }
  if (typeof change !== 'object' || change === null)
    throw new AmbitError('APP_BEHAVIOUR_INVALID', 'the new behaviour is not an object')
  const limits: Record<keyof Behaviour, [number, number]> = {
    delay: [0, 600_000],
    status: [200, 599],
    failRate: [0, 1],
    failStatus: [200, 599],
  }
  const next: Behaviour = { ...behaviour }
  for (const [name, value] of Object.entries(change)) {
    const range = Object.hasOwn(limits, name) ? limits[name as keyof Behaviour] : undefined
    if (!range || typeof value !== 'number' || !(value >= range[0] && value <= range[1]))
      throw new AmbitError('APP_BEHAVIOUR_INVALID', `'${name}' is unknown or out of range`, {
        hint: 'Known: delay (ms), status, failRate (0 to 1), failStatus.',
      })
    next[name as keyof Behaviour] = value
  }
  Object.assign(behaviour, next)
}
