// `ambit explain`: reads the configuration, resolves the words, prints the explanation. Must not live here: the
// explanation (explain/).
import { loadPaths } from '../../config/folder.ts'
import { describeProblem } from '../../config/problem.ts'
import { explainJourney } from '../explain/journey.ts'
import { findSource, findTarget, parseHeaders, type HttpRequest } from '../explain/question.ts'
import { renderExplanation } from '../explain/text.ts'
import { worldOf } from '../explain/world.ts'
import type { MeshFlags } from '../mesh/flags.ts'
import { readResources, type Resources } from '../mesh/resources.ts'
import type { Place } from '../mesh/source.ts'
import { parseFormat, plural, structured } from '../print.ts'
import type { Terminal } from '../terminal.ts'

export interface ExplainOptions extends MeshFlags {
  readonly source: string
  readonly destination: string
  readonly method: string | undefined
  readonly path: string
  readonly header: readonly string[]
  readonly configDir: readonly string[]
  readonly output: string
}

/** Runs the command; 0 whenever there is an explanation, whatever it says. */
export async function explain(options: ExplainOptions, terminal: Terminal, place: Place = {}): Promise<number> {
  const format = parseFormat(options.output)
  const { loaded, systemNamespace }: Resources =
    options.configDir.length > 0 ? { loaded: loadPaths(options.configDir) } : await readResources(options, place)
  const world = worldOf(loaded, systemNamespace)
  const source = findSource(world.state, inNamespace(options.source, options.namespace))
  const target = findTarget(world.state, options.destination, source)
  const { headers, host } = parseHeaders(options.header)
  const request: HttpRequest | undefined =
    options.method === undefined
      ? undefined
      : { method: options.method, path: options.path, headers, authority: host ?? target.authority }
  const explanation = explainJourney(world, { source, target, request })
  if (format === 'text') terminal.out(renderExplanation(explanation, terminal.colour))
  else terminal.out(structured(explanation, format))
  const errors = world.problems.filter((problem) => problem.severity === 'error')
  // A resource that was rejected is not in the explanation: better said than wondered about.
  if (errors.length > 0) {
    terminal.err(
      `\n${plural(errors.length, 'error')} in the configuration; what has them is left out or kept as it was:\n`,
    )
    for (const problem of errors.slice(0, 10)) terminal.err(`  ${describeProblem(problem)}\n`)
  }
  return 0
}

/** A bare name is looked for in the namespace that was given. */
function inNamespace(source: string, namespace: string | undefined): string {
  return namespace !== undefined && source !== 'outside' && /^[a-z0-9][-a-z0-9]*$/.test(source)
    ? `${namespace}/${source}`
    : source
}
