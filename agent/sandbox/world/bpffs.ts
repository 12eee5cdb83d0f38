// The BPF file system, where agents pin what must outlive them. Must not live here: what is pinned.
import { readFileSync } from 'node:fs'
import type { Journal } from './journal.ts'
import { run } from './run.ts'

export const BPFFS = '/sys/fs/bpf'

/** Mounts it where a machine has none (a minimal init leaves it out), and notes that for the removal. */
export async function mountBpffs(journal: Journal): Promise<void> {
  if (isMounted()) return
  journal.record('bpffs', BPFFS)
  await run('mount', ['-t', 'bpf', 'bpf', BPFFS])
}

function isMounted(): boolean {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === BPFFS && line.split(' ')[2] === 'bpf')
}
