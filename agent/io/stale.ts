// What a crashed predecessor leaves at a unix socket's path. Must not live here: listening.
import { lstat, unlink } from 'node:fs/promises'
import { Socket } from 'node:net'

/** Removes a socket file nobody listens on, as a crashed predecessor leaves it; anything else at the path stays. */
export async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined)
  if (!found?.isSocket()) return
  const alive = await new Promise<boolean>((resolve) => {
    const probe = new Socket()
    probe.once('connect', () => resolve(true))
    probe.once('error', () => resolve(false))
    probe.connect({ path })
  })
  if (alive) throw Object.assign(new Error('a program listens on it'), { code: 'EADDRINUSE' })
  await unlink(path)
}
