// The shape of an explanation: what -o json gives. Steps in the order they happen, then one branch per way it can go on.
// Must not live here: finding it out (journey.ts), printing it (text.ts).
import { describeSource, type Source } from '../../mesh/source.ts'

/** A resource that decides, or takes part in deciding. */
export interface Because {
  /** `Kind namespace/name`. */
  readonly resource: string
  /** `file:line`; absent for a resource that came from a cluster. */
  readonly place?: string
  /** Which part of it, as in `rule 0`. */
  readonly part?: string
}

export interface Step {
  /** Where it happens: `agent of shop/frontend`, `waypoint shop/waypoint` … */
  readonly at: string
  /** What happens there, a phrase; of one that decides it begins with `allowed`, `denied` or `refused`. */
  readonly says: string
  readonly because: readonly Because[]
}

export type Outcome =
  /** The destination's app gets it. */
  | 'delivered'
  /** A policy says no. */
  | 'denied'
  /** It cannot go on, whatever the policies: no waypoint, no endpoint, no route. */
  | 'refused'
  /** The waypoint answers in the app's place: redirect, direct response. */
  | 'answered'

export interface Result {
  readonly outcome: Outcome
  /** What the client sees, a phrase. */
  readonly client: string
  /** HTTP status the client sees; absent for connections and when the app answers. */
  readonly status?: number
  /** As in the access log's response_code_details, or the refusal's code. */
  readonly details?: string
}

/** One way it can go on: a weighted destination, or endpoints that are treated alike. */
export interface Branch {
  /** Of requests, 0–1. */
  readonly share: number
  readonly to: string
  readonly endpoints: readonly string[]
  readonly steps: readonly Step[]
  readonly result: Result
}

export interface Explanation {
  readonly source: {
    readonly name: string
    readonly address: string
    readonly identity?: string
    readonly enrolled: boolean
  }
  readonly destination: { readonly name: string; readonly address: string; readonly port: number }
  readonly request?: {
    readonly method: string
    readonly path: string
    readonly authority: string
    readonly headers: readonly string[]
  }
  readonly steps: readonly Step[]
  readonly branches: readonly Branch[]
  /** One outcome if all branches share it, else `depends`. */
  readonly verdict: Outcome | 'depends'
  readonly assumed: readonly string[]
}

export function because(source: Source, part?: string): Because {
  const { place, ...rest } = source
  return { resource: describeSource(rest), ...(place ? { place } : {}), ...(part ? { part } : {}) }
}

/** The step that stops what is explained, in the first of its branches, or the last one that had to allow it. */
export function decidingStep(explanation: Explanation): Step | undefined {
  const steps = [...explanation.steps, ...(explanation.branches[0]?.steps ?? [])]
  const stops = steps.find((step) => /^(denied|refused)/.test(step.says))
  return stops ?? steps.findLast((step) => step.says.startsWith('allowed') && step.because.length > 0)
}
