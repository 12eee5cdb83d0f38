// Giving memory back: V8 keeps the pages of what is dead until it has a reason to look. Must not live here: when that is worth a pause,
// and what malloc keeps (io's trimMemory).
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options?: { type: 'major'; flavor: 'last-resort' }) => void

let collect: Collect | undefined

/**
 * Collects all garbage now; `thorough`: and gives back every page that is empty then. Holds the thread: a tenth of a second for a
 * heap of 100 MB. Nothing where V8 has no such function.
 */
export function collectGarbage(thorough = false): void {
  try {
    if (!collect) {
      // V8's own function, which is hidden unless asked for.
      setFlagsFromString('--expose-gc')
      collect = runInNewContext('gc') as Collect
    }
    if (thorough) collect({ type: 'major', flavor: 'last-resort' })
    else collect()
  } catch {
    collect = () => {}
  }
}
