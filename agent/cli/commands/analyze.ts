// `ambit analyze`: the loader's, the schemas' and the translation's findings about files, or about what a cluster has, or
// about files as if they were applied to it, in the order a person works through them. Computed by the very code that serves. Must not live here: finding anything (config/).
import { loadPaths, loadText, type Loaded } from '../../config/folder.ts'
import { describeRef, hasErrors, sortProblems, type Problem, type Severity } from '../../config/problem.ts'
import { resourcesOf } from '../../config/store.ts'
import { translate } from '../../config/translate.ts'
import type { MeshFlags } from '../mesh/flags.ts'
import { readResources, type Resources } from '../mesh/resources.ts'
import type { Place } from '../mesh/source.ts'
import { paint, parseFormat, plural, structured, type Colour } from '../print.ts'
import type { Terminal } from '../terminal.ts'

export interface AnalyzeOptions extends MeshFlags {
  readonly allNamespaces?: boolean
  readonly output: string
}

export interface Analysis {
  readonly resources: number
  readonly problems: readonly Problem[]
}

/** Everything there is to say about what was loaded. */
export function analysisOf(loaded: Loaded, systemNamespace?: string): Analysis {
  const set = { ...resourcesOf(loaded), ...(systemNamespace === undefined ? {} : { systemNamespace }) }
  const problems = sortProblems([...set.problems, ...translate(set).problems])
  return { resources: set.resources.length + set.denials.length, problems }
}

/** Runs the command; 1 if there are errors. */
export async function analyze(
  paths: readonly string[],
  options: AnalyzeOptions,
  terminal: Terminal,
  place: Place = {},
): Promise<number> {
  const format = parseFormat(options.output)
  const { loaded, namespace, systemNamespace } = await load(paths, options, terminal, place)
  const analysis = analysisOf(loaded, systemNamespace)
  const { resources } = analysis
  const problems =
    options.allNamespaces || namespace === undefined
      ? analysis.problems
      : analysis.problems.filter((problem) => isAbout(problem, namespace))
  if (format !== 'text') terminal.out(structured({ resources, problems }, format))
  else {
    for (const problem of problems) terminal.out(`${line(problem, terminal.colour)}\n`)
    terminal.out(`${problems.length > 0 ? '\n' : ''}${summary(resources, problems)}\n`)
  }
  return hasErrors(problems) ? 1 : 0
}

/** What files say, what a cluster or sandbox has where there are none, or the one over the other where both are named. */
async function load(
  paths: readonly string[],
  options: AnalyzeOptions,
  terminal: Terminal,
  place: Place,
): Promise<Resources> {
  const live = options.kubeconfig !== undefined || options.context !== undefined || options.name !== undefined
  const under = live || paths.length === 0 ? await readResources(options, place) : undefined
  if (under && paths.length === 0) return under
  const texts = paths.includes('-') ? [loadText(await terminal.read(), '<stdin>')] : []
  const over = joined([loadPaths(paths.filter((path) => path !== '-')), ...texts])
  return under ? { ...under, loaded: joined([under.loaded, over]) } : { loaded: over }
}

/** What concerns a namespace: it is of it, of no namespace, or from a file that was named. */
function isAbout({ resource, file }: Problem, namespace: string): boolean {
  return file !== '' || !resource?.namespace || resource.namespace === namespace
}

/** Several loads as one; each keeps its own root, so that a later one overlays an earlier one. */
export function joined(all: readonly Loaded[]): Loaded {
  let root = 0
  const files = all.flatMap((one) => {
    const from = root
    root += 1 + Math.max(-1, ...one.files.map((file) => file.root))
    return one.files.map((file) => ({ ...file, root: file.root + from }))
  })
  return {
    files,
    folders: all.flatMap((one) => one.folders),
    unreadable: all.flatMap((one) => one.unreadable),
    problems: all.flatMap((one) => one.problems),
  }
}

const COLOURS: Readonly<Record<Severity, Colour>> = { error: 'red', warning: 'yellow', info: 'dim' }

/** `file:line: severity: Kind ns/name: field: message [CODE] hint`. */
function line(problem: Problem, colour: boolean): string {
  const where = problem.file ? `${problem.file}:${problem.line}: ` : ''
  const resource = problem.resource ? `${describeRef(problem.resource)}: ` : ''
  const field = problem.field ? `${problem.field}: ` : ''
  const severity = paint(problem.severity, COLOURS[problem.severity], colour)
  return `${where}${severity}: ${resource}${field}${problem.message} [${problem.code}]${problem.hint ? ` ${problem.hint}` : ''}`
}

function summary(resources: number, problems: readonly Problem[]): string {
  const count = (severity: Severity): number => problems.filter((problem) => problem.severity === severity).length
  return `${plural(resources, 'resource')}: ${plural(count('error'), 'error')}, ${plural(count('warning'), 'warning')}, ${count('info')} info`
}
