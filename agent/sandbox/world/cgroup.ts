// Directories of the cgroup v2 hierarchy: where it is, making, killing and removing them. Must not live here: who goes
// into which (layout.ts, container.ts).
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AmbitError } from '../../base/errors.ts'

/** Where the v2 hierarchy is mounted, by the mount table (`/sys/fs/cgroup`, or `…/unified` beside v1). */
export function findCgroupRoot(mounts: string = readFileSync('/proc/self/mounts', 'utf8')): string {
  for (const line of mounts.split('\n')) {
    const [, where, type] = line.split(' ')
    if (type === 'cgroup2' && where) return where.replaceAll('\\040', ' ')
  }
  throw new AmbitError('SANDBOX_NO_CGROUP2', 'no cgroup v2 hierarchy is mounted', {
    hint: 'mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified',
  })
}

export function makeCgroup(path: string): void {
  mkdirSync(path, { recursive: true })
}

/** Every process in the directory and below it. */
export function processesIn(path: string): number[] {
  if (!existsSync(path)) return []
  const found = readPids(path)
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) found.push(...processesIn(join(path, entry.name)))
  return found
}

function readPids(path: string): number[] {
  try {
    return readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/** Kills every process in the directory and below it at once (`cgroup.kill`, Linux 5.14) and waits until none is left. */
export async function killCgroup(path: string, waitMs = 5_000): Promise<void> {
  if (!existsSync(path)) return
  const end = performance.now() + waitMs
  for (;;) {
    try {
      writeFileSync(join(path, 'cgroup.kill'), '1')
    } catch {
      // Gone in between, or an older kernel: signal one by one.
      for (const pid of processesIn(path)) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It ended by itself.
        }
      }
    }
    if (processesIn(path).length === 0 || performance.now() > end) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** How long a directory may stay busy after its last process was killed: the kernel lets go of it a little later. */
const BUSY_MS = 3_000

/** Removes the directory and those below it; their processes must be gone. */
export async function removeCgroup(path: string): Promise<void> {
  if (!existsSync(path)) return
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) await removeCgroup(join(path, entry.name))
  const end = performance.now() + BUSY_MS
  for (;;) {
    try {
      rmdirSync(path)
      return
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') return
      if (code !== 'EBUSY' || performance.now() > end) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
