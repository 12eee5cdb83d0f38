// Prints `N passed, N failed, N skipped` as the last line of a run, so that whoever reads the output of `npm test`
// (a person or a machine) finds the count in one place and one form.
import type { Reporter, TestModule } from 'vitest/node'

export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    let passed = 0
    let failed = errors.length
    let skipped = 0
    const retried: string[] = []
    for (const module of modules) {
      if (module.errors().length > 0) failed += module.errors().length
      for (const test of module.children.allTests()) {
        const state = test.result().state
        if ((test.diagnostic()?.retryCount ?? 0) > 0) retried.push(test.fullName)
        if (state === 'passed') passed++
        else if (state === 'failed') failed++
        else skipped++
      }
    }
    if (passed + failed === 0) failed = 1
    // After the default reporter's own summary, which is written on the same turn.
    const told = retried.map((name) => `passed or failed only at the second try: ${name}\n`).join('')
    process.on('exit', () => process.stdout.write(`\n${told}`))
    process.on('exit', () => process.stdout.write(`\n${passed} passed, ${failed} failed, ${skipped} skipped\n`))
  }
}
