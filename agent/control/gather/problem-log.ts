// Problems of the configuration in the log, each once while it lasts. Must not live here: finding them (config/).
import type { Logger } from '../../base/log.ts'
import { describeProblem, type Problem, type Severity } from '../../config/problem.ts'

const LEVELS: Readonly<Record<Severity, 'error' | 'warn' | 'info'>> = { error: 'error', warning: 'warn', info: 'info' }

export class ProblemLog {
  readonly #log: Logger
  #told = new Set<string>()

  constructor(log: Logger) {
    this.#log = log
  }

  /** Logs what was not among the problems of the last call; what went away may be logged again. */
  tell(problems: readonly Problem[]): void {
    const now = new Set<string>()
    for (const problem of problems) {
      const text = describeProblem(problem)
      if (!now.has(text) && !this.#told.has(text)) {
        const { severity, code, file, line, field, resource } = problem
        this.#log[LEVELS[severity]]({ code, file, line, field, resource }, text)
      }
      now.add(text)
    }
    this.#told = now
  }
}
