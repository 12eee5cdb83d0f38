// What a run's closing lines say, on a run of a few tests of its own. Must not live here: the tests of the project.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { root } from './world/sandbox.ts'

const TESTS = `
let tries = 0
it('passes', () => undefined)
it.skip('is left out', () => undefined)
it('needs two tries', { retry: 1 }, () => expect(++tries).toBe(2))
it('fails', () => {
  throw new Error('of two\\n lines')
})`

it('count what passed and failed, and name what failed or was tried twice with what went wrong first', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ambit-closing-'))
  try {
    writeFileSync(join(folder, 'some.test.ts'), TESTS)
    const reporter = join(root, 'test/world/closing-line.ts')
    const vitest = join(root, 'node_modules/vitest/vitest.mjs')
    const args = [vitest, 'run', '--globals', '--root', folder, `--reporter=${reporter}`]
    const { stdout, status } = spawnSync(join(root, 'agent/bin/node'), args, { encoding: 'utf8' })
    expect(stdout.trim().split(/\n+/)).toEqual([
      'passed only at the second try: some.test.ts > needs two tries (expected 1 to be 2 // Object.is equality)',
      'failed: some.test.ts > fails (of two lines)',
      '2 passed, 1 failed, 1 skipped',
    ])
    expect(status).toBe(1)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
