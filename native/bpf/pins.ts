// The bpffs, where pins live. Must not live here: naming of pins.
import { mkdirSync } from 'node:fs'
import { native } from './addon.ts'
import { check } from './errors.ts'

/** True if a path lies on a mounted bpffs. */
export function isBpffs(path: string): boolean {
  return native().isBpffs(path) === 1
}

/** Mounts a bpffs at a folder (made if absent) unless one is there. Needs CAP_SYS_ADMIN. */
export function ensureBpffs(path = '/sys/fs/bpf'): void {
  if (isBpffs(path)) return
  mkdirSync(path, { recursive: true })
  check(native().mountBpffs(path), 'mount', `Mounting a bpffs at ${path}`)
}
