// Prints `N passed, N failed, N skipped` as the last line of a run, so that whoever reads the output of `npm test`
// (a person or a machine) finds the count in one place and one form; above it, by name, what failed and what was tried twice.
import type { Reporter, TestModule } from 'vitest/node'

export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    let passed = 0
    let failed = errors.length
    let skipped = 0
    const retried: string[] = []
    const broken: string[] = []
    for (const module of modules) {
      failed += module.errors().length
      if (module.errors().length > 0) broken.push(module.relativeModuleId)
      for (const test of module.children.allTests()) {
        const state = test.result().state
        if ((test.diagnostic()?.retryCount ?? 0) > 0) retried.push(test.fullName)
        if (state === 'passed') passed++
        else if (state === 'failed') {
          failed++
          broken.push(`${module.relativeModuleId} > ${test.fullName}`)
        } else skipped++
      }
    }
    if (passed + failed === 0) failed = 1
    // After the default reporter's own summary, which is written on the same turn.
    const told = [
      ...retried.map((name) => `passed or failed only at the second try: ${name}\n`),
      ...broken.map((name) => `failed: ${name}\n`),
    ].join('')
    process.on('exit', () => process.stdout.write(`\n${told}`))
    process.on('exit', () => process.stdout.write(`\n${passed} passed, ${failed} failed, ${skipped} skipped\n`))
  }
}
