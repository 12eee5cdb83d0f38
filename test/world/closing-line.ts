// Prints `N passed, N failed, N skipped` as the last line of a run, so that whoever reads the output of `npm test`
// (a person or a machine) finds the count in one place and one form; above it, by name, what failed and what was tried twice, each
// with the first thing that went wrong.
import type { Reporter, TestModule } from 'vitest/node'

/** Characters of an error that are shown: its gist, where the whole stands far above. */
const GIST = 300

export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    let passed = 0
    let failed = errors.length
    let skipped = 0
    const told: string[] = []
    const tell = (what: string, name: string, error: { readonly message: string } | undefined): void => {
      const gist = (error?.message ?? '').replace(/\s+/g, ' ').slice(0, GIST)
      told.push(`${what}: ${name}${gist === '' ? '' : ` (${gist})`}\n`)
    }
    for (const module of modules) {
      failed += module.errors().length
      for (const error of module.errors()) tell('failed', module.relativeModuleId, error)
      for (const test of module.children.allTests()) {
        const result = test.result()
        const name = `${module.relativeModuleId} > ${test.fullName}`
        if (result.state === 'passed') passed++
        else if (result.state === 'failed') failed++
        else skipped++
        if (result.state === 'failed') tell('failed', name, result.errors[0])
        // Its errors are those of the tries before.
        else if ((test.diagnostic()?.retryCount ?? 0) > 0)
          tell('passed only at the second try', name, result.errors?.[0])
      }
    }
    if (passed + failed === 0) failed = 1
    // After the default reporter's own summary, which is written on the same turn.
    process.on('exit', () => process.stdout.write(`\n${told.join('')}`))
    process.on('exit', () => process.stdout.write(`\n${passed} passed, ${failed} failed, ${skipped} skipped\n`))
  }
}
