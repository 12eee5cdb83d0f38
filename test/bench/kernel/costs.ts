// What each kernel program costs, from the kernel's own statistics: runs and time of every program that is attached by a pinned link, copies of one
// program added up. Must not live here: the load meanwhile (suite.ts).
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { openPinnedLink, openProgramById, type Program } from '../../../native/bpf/index.ts'

/** Of all copies of a program. */
export interface Cost {
  runs: number
  nanoseconds: number
}

export class AttachedPrograms {
  readonly #programs: Program[] = []

  /** Opens the programs behind the links that are pinned in folders below `pinRoot` (the maps lie in it itself). */
  constructor(pinRoot: string) {
    for (const entry of readdirSync(pinRoot, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || entry.parentPath === pinRoot) continue
      using link = openPinnedLink(join(entry.parentPath, entry.name))
      if (!readlinkSync(`/proc/self/fd/${link.fd}`).match(/bpf[-_]link/)) continue
      this.#programs.push(openProgramById(link.info().programId))
    }
  }

  /** By name, since the programs were loaded; they are counted only while somebody enabled it. */
  costs(): Map<string, Cost> {
    const costs = new Map<string, Cost>()
    for (const program of this.#programs) {
      const { runs, nanoseconds } = program.statistics
      const cost = costs.get(program.name) ?? { runs: 0, nanoseconds: 0 }
      cost.runs += Number(runs)
      cost.nanoseconds += Number(nanoseconds)
      costs.set(program.name, cost)
    }
    return costs
  }

  close(): void {
    for (const program of this.#programs) program.close()
  }
}

/** What came to it between two readings; programs that did not run are left out. */
export function grown(before: ReadonlyMap<string, Cost>, after: ReadonlyMap<string, Cost>): Map<string, Cost> {
  const out = new Map<string, Cost>()
  for (const [name, { runs, nanoseconds }] of after) {
    const old = before.get(name) ?? { runs: 0, nanoseconds: 0 }
    if (runs > old.runs) out.set(name, { runs: runs - old.runs, nanoseconds: nanoseconds - old.nanoseconds })
  }
  return out
}
