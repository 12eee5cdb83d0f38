// Looks at the folder of YAML again whenever something in it changes. Must not live here: what the files mean.
import { existsSync, watch, type FSWatcher } from 'node:fs'

/** After the first event of a burst, so that an editor's rename and write are one change. */
const SETTLE_MS = 40
/** A look without an event, for file systems that send none. */
const IDLE_LOOK_MS = 2_000

/** Calls back some milliseconds after a change, and every two seconds anyway. Returns a function that stops it. */
export function watchFolder(dir: string, look: () => void): () => void {
  let watcher: FSWatcher | undefined
  let timer: NodeJS.Timeout | undefined
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined
      look()
    }, SETTLE_MS)
  }
  const open = (): void => {
    if (watcher || !existsSync(dir)) return
    try {
      watcher = watch(dir, { recursive: true }, soon)
      watcher.on('error', () => {
        watcher?.close()
        watcher = undefined
      })
    } catch {
      // No inotify instance left: the idle look does it.
    }
  }
  open()
  const idle = setInterval(() => {
    open()
    look()
  }, IDLE_LOOK_MS)
  return () => {
    clearInterval(idle)
    if (timer) clearTimeout(timer)
    watcher?.close()
  }
}
