// What `ambit explain` says of the folder that is shown: the demo gives no reasons of its own. Must not live here: the
// explanation (cli/explain), what was seen (demo.ts).
import { relative } from 'node:path'
import { decidingStep, type Because, type Explanation } from '../cli/explain/answer.ts'
import { explainJourney } from '../cli/explain/journey.ts'
import { findSource, findTarget } from '../cli/explain/question.ts'
import { worldOf, type World } from '../cli/explain/world.ts'
import { loadPaths } from '../config/folder.ts'

export interface Answer {
  readonly verdict: Explanation['verdict']
  /** What decided and why, with the resource and its line: a phrase. */
  readonly why: string
  readonly explanation: Explanation
}

/** Answers about a folder of resources, as `ambit explain … --config-dir` would. */
export class Why {
  readonly #world: World

  constructor(dir: string) {
    this.#world = worldOf(loadPaths([dir]))
  }

  /** A request, or without a method a connection. Throws as `ambit explain` where the folder knows no such client or destination. */
  ask(client: string, destination: string, method?: string, path = '/'): Answer {
    const { state } = this.#world
    const source = findSource(state, client)
    const target = findTarget(state, destination, source)
    const request = method === undefined ? undefined : { method, path, headers: [], authority: target.authority }
    const explanation = explainJourney(this.#world, { source, target, request })
    const step = decidingStep(explanation)
    const why = step ? [step.says, ...step.because.map(named)].join(', ') : explanation.verdict
    return { verdict: explanation.verdict, why, explanation }
  }
}

/** `Kind namespace/name rule 0 (file:line)`. */
export function named(one: Because): string {
  const place = one.place === undefined ? '' : ` (${relative(process.cwd(), one.place)})`
  return `${one.resource}${one.part ? ` ${one.part}` : ''}${place}`
}
