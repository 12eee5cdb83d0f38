// The resources of a folder in force: each in its newest good version. A rejected resource keeps its last good version; a rejected
// security resource of which none is held denies its targets. A broken file takes nothing away that it held before.
// Must not live here: reading (folder.ts, load.ts), meaning (translate.ts), those of the Kubernetes API (object-store.ts).
import type { Loaded } from './folder.ts'
import type { Rejected } from './load.ts'
import { describeRef, sortProblems, type Problem, type ResourceRef } from './problem.ts'
import { formatPath, refOf, resourceKey, type Origin, type Resource } from './resource.ts'
import type { Source } from '../mesh/source.ts'

/** A rejected security resource without a good version. */
export interface Denial {
  readonly ref: ResourceRef
  /** The document as far as it could be read. */
  readonly document: unknown
  readonly source: Source
}

/** What translate.ts reads. Resources are in order of path and document. */
export interface ResourceSet {
  readonly resources: readonly Resource[]
  readonly denials: readonly Denial[]
  /** Ambit's own namespace. */
  readonly systemNamespace?: string
  /** Besides it, namespaces whose pods are never captured. */
  readonly exemptNamespaces?: readonly string[]
}

export interface StoreState extends ResourceSet {
  /** Of files, documents, and what became of the rejected ones; sorted by place. */
  readonly problems: readonly Problem[]
}

interface Held {
  readonly resource: Resource
  readonly root: number
}

export class ResourceStore {
  #good = new Map<string, Held>()

  /** Takes a new look at everything; what is gone is forgotten, what is broken is kept as it was. */
  update(loaded: Loaded): StoreState {
    const next = new Map<string, Held>()
    const problems: Problem[] = [...loaded.problems]
    const rejected: (Rejected & { readonly root: number })[] = []
    const doubtful = new Set<string>()
    for (const { file, root, parsed } of loaded.files) {
      if (!parsed) {
        doubtful.add(file)
        continue
      }
      problems.push(...parsed.problems)
      for (const resource of parsed.resources) {
        const key = resourceKey(resource)
        const other = next.get(key)
        if (other && other.root === root) problems.push(duplicate(resource, other.resource))
        else next.set(key, { resource, root })
      }
      for (const one of parsed.rejected) {
        // Nobody can tell what it was: whatever the file held before may be it.
        if (one.key === undefined) doubtful.add(file)
        rejected.push({ ...one, root })
      }
    }
    const denials: Denial[] = []
    for (const one of rejected) this.#settle(one, next, denials, problems)
    this.#keepDoubtful(doubtful, loaded.unreadable, next, problems)
    this.#good = next
    return { resources: [...next.values()].map((held) => held.resource), denials, problems: sortProblems(problems) }
  }

  #settle(
    one: Rejected & { readonly root: number },
    next: Map<string, Held>,
    denials: Denial[],
    problems: Problem[],
  ): void {
    const inForce = one.key === undefined ? undefined : next.get(one.key)
    // A good document of the same name in the same or a later folder is in force anyway.
    if (inForce && inForce.root >= one.root) return
    const last = one.key === undefined ? undefined : this.#good.get(one.key)
    if (last && one.key !== undefined) next.set(one.key, last)
    const { denial, problem } = fateOf(one, last !== undefined)
    if (denial) denials.push(denial)
    if (problem) problems.push(problem)
  }

  #keepDoubtful(
    files: ReadonlySet<string>,
    folders: readonly string[],
    next: Map<string, Held>,
    problems: Problem[],
  ): void {
    const kept = new Map<string, number>()
    for (const [key, held] of this.#good) {
      const { file } = held.resource.origin
      const doubtful =
        files.has(file) || folders.some((folder) => file === folder || file.startsWith(`${folder.replace(/\/$/, '')}/`))
      if (!doubtful || next.has(key)) continue
      next.set(key, held)
      kept.set(file, (kept.get(file) ?? 0) + 1)
    }
    for (const [file, count] of kept) {
      problems.push({
        severity: 'warning',
        code: 'CONFIG_LAST_GOOD_KEPT',
        file,
        line: 1,
        field: '',
        message: `${count} ${count === 1 ? 'resource' : 'resources'} of this file cannot be found in it any more, and stay in force as they were.`,
        hint: 'Correct the file.',
      })
    }
  }
}

/** What becomes of a rejected resource: its last good version stays, or its targets are denied, or it is only left out. */
export function fateOf(one: Rejected, lastGood: boolean): { readonly denial?: Denial; readonly problem?: Problem } {
  if (lastGood)
    return { problem: outcome(one, 'warning', 'CONFIG_LAST_GOOD_KEPT', 'The last good version stays in force.', '') }
  if (!one.security || !one.ref) return {}
  return {
    denial: { ref: one.ref, document: one.document, source: { ...one.ref, ...placeOf(one.origin) } },
    problem: outcome(
      one,
      'warning',
      'CONFIG_DENIES_TARGETS',
      `No good version of ${describeRef(one.ref)} is held: traffic to everything it selects is denied.`,
      'Correct the resource or remove it.',
    ),
  }
}

/** Without an earlier state: for `ambit analyze` and tests. */
export function resourcesOf(loaded: Loaded): StoreState {
  return new ResourceStore().update(loaded)
}

function duplicate(resource: Resource, first: Resource): Problem {
  const path = ['metadata', 'name']
  return {
    severity: 'error',
    code: 'CONFIG_DUPLICATE',
    file: resource.origin.file,
    line: resource.origin.line(path),
    field: formatPath(path),
    message: `${describeRef(refOf(resource))} is already declared at ${first.origin.file}:${first.origin.line([])}; that one counts.`,
    hint: 'Rename or remove one of them.',
    resource: refOf(resource),
  }
}

function outcome(
  one: Rejected,
  severity: Problem['severity'],
  code: Problem['code'],
  message: string,
  hint: string,
): Problem {
  return {
    severity,
    code,
    file: one.origin.file,
    line: one.origin.line([]),
    field: '',
    message,
    hint,
    ...(one.ref ? { resource: one.ref } : {}),
  }
}

function placeOf(origin: Origin): { place?: string } {
  return origin.file ? { place: `${origin.file}:${origin.line([])}` } : {}
}
