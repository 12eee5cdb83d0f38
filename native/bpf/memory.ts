// Memory as a descriptor, to be passed on: written once, sealed, read whole. It never has a name in a file system. Must not live
// here: what is in it.
import { fstatSync, readSync } from 'node:fs'
import { native } from './addon.ts'
import { check } from './errors.ts'

/**
 * A descriptor of memory with these bytes, which nobody can change, shorten or lengthen (memfd_create, F_SEAL_*). `name` is for
 * people who look at /proc. The memory is gone with its last descriptor. Close it with closeFd.
 */
export function sealedMemory(name: string, bytes: Uint8Array): number {
  return check(native().sealedMemory(name, bytes), 'memfd_create', `Making ${bytes.length} bytes of memory '${name}'`)
}

/**
 * What is in it; undefined if the descriptor is something else, not sealed, or has more than `maxBytes`. The descriptor stays
 * the caller's.
 */
export function readSealed(fd: number, maxBytes: number): Buffer | undefined {
  if (check(native().isSealed(fd), 'fcntl', `Asking for the seals of descriptor ${fd}`) === 0) return undefined
  const { size } = fstatSync(fd)
  if (size > maxBytes) return undefined
  const bytes = Buffer.alloc(size)
  // Sealed: it cannot become shorter meanwhile.
  for (let at = 0; at < size;) at += readSync(fd, bytes, at, size - at, at)
  return bytes
}
