// An earlier version of this project, out of its history: its own programs and its own agent, for tests of upgrades. Built once
// into build/older. Must not live here: expectations.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync, symlinkSync } from 'node:fs'

const root = new URL('../..', import.meta.url).pathname

/** The last one whose kernel tables had schema 1. */
export const SCHEMA_1 = '01dda37'

/**
 * The folder of that commit, its kernel programs compiled; undefined where there is no history (a tarball, a shallow clone).
 * It runs on this version's Node, packages and addon: they must still do what it asks of them.
 */
export function olderVersion(commit: string): string | undefined {
  const folder = `${root}/build/older/${commit}`
  if (existsSync(folder)) return folder
  if (spawnSync('git', ['cat-file', '-e', `${commit}^{commit}`], { cwd: root }).status !== 0) return undefined
  const making = `${folder}.${process.pid}`
  rmSync(making, { recursive: true, force: true })
  mkdirSync(making, { recursive: true })
  const archive = execFileSync(
    'git',
    ['archive', commit, 'agent', 'native/bpf', 'native/io', 'bpf', 'test', 'package.json'],
    {
      cwd: root,
      maxBuffer: 1 << 28,
    },
  )
  execFileSync('tar', ['-x', '-C', making], { input: archive })
  symlinkSync(`${root}/node_modules`, `${making}/node_modules`)
  symlinkSync(`${root}/build`, `${making}/build`)
  execFileSync(`${making}/bpf/build.sh`, { stdio: 'ignore' })
  renameSync(making, folder)
  return folder
}
