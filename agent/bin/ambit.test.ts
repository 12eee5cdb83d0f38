// The command as a shell starts it. Must not live here: what the programs behind it do.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'

const COMPILED = join(import.meta.dirname, '../../build/compiled')
/** Runs `ambit app --help` in a Node that tells at its end where it keeps what it compiled. */
const SCRIPT = `
import { getCompileCacheDir } from 'node:module'
process.on('exit', () => console.error(getCompileCacheDir()))
process.argv = [process.argv[0], 'ambit', 'app', '--help']
await import('${pathToFileURL(join(import.meta.dirname, 'ambit.ts')).href}')`

describe('ambit', () => {
  it('keeps what it compiled for the next start, apart by version and user', () => {
    const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', SCRIPT]
    const { status, stdout, stderr } = spawnSync(join(import.meta.dirname, 'node'), args, { encoding: 'utf8' })
    expect(status).toBe(0)
    expect(stdout).toContain('ambit app')
    const folder = stderr.trim()
    expect(folder.startsWith(`${COMPILED}/${process.version}-`), folder).toBe(true)
    expect(folder.endsWith(`-${process.getuid!()}`), folder).toBe(true)
  })
})
