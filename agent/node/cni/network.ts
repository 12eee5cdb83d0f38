// The folder of a node's network configurations: which one its runtime takes, putting the agent's entry there, taking it out.
// Must not live here: when (keeper.ts), what an entry is (conflist.ts).
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { chain, hasEntry, isOnlyListOf, listOf, unchain, type Entry } from './conflist.ts'
import { readSeen, removeFile, replaceFile, type Seen } from './files.ts'

/** What runtimes read, in the order of names. */
const CONFIGURATION = /\.(conf|conflist|json)$/
/**
 * The list made of `NAME.conf` or `NAME.json`, which stays as it is: this name is before it in order, so that a runtime takes
 * the list, and the original again as soon as the list is gone.
 */
const MADE = '.ambit.conflist'
const madeOf = (name: string): string => name.replace(CONFIGURATION, MADE)

export interface Placed {
  /** The file the entry is in. */
  readonly file: string
  /** True if it was put there now. */
  readonly written: boolean
}

interface Found {
  readonly name: string
  readonly path: string
  readonly seen: Seen
  /** True if one before it makes no sense: it may be in the middle of being written, and be the first in a moment. */
  readonly doubtful: boolean
}

/**
 * Puts the entry into the configuration that runtimes take: the first one in the order of names that is one at all. With
 * `write` false it only looks. Throws CNI_NO_NETWORK while there is none; CNI_CONFIG, CNI_VERSION if the entry cannot be put into
 * it; CNI_NOT_CHAINED if it is not there and was not to be put there; CNI_FILE for what the kernel refused.
 */
export async function place(confDir: string, entry: Entry, write: boolean): Promise<Placed> {
  return guarded(confDir, async () => {
    // Somebody else writes at the same time: look again, a few times.
    for (let attempt = 0; attempt < 5; attempt++) {
      const placed = await placeOnce(confDir, entry, write)
      if (placed) return placed
    }
    throw new AmbitError('CNI_FILE', `The network configuration in ${confDir} changes all the time.`)
  })
}

/** The configuration that runtimes take as it is now, and whether the plugin is chained in it. Throws CNI_NO_NETWORK, CNI_FILE. */
export async function look(confDir: string): Promise<{ readonly file: string; readonly chained: boolean }> {
  return guarded(confDir, async () => {
    const names = await configurations(confDir)
    const found = await firstUsable(confDir, names)
    const made = found.name.endsWith('.conflist') ? undefined : await readSeen(join(confDir, madeOf(found.name)))
    return {
      file: made ? join(confDir, madeOf(found.name)) : found.path,
      chained: made ? true : found.name.endsWith('.conflist') && hasEntry(found.seen.text),
    }
  })
}

/** Takes the entry out of every configuration and removes the lists made for it; the files that were changed. Throws CNI_FILE. */
export async function displace(confDir: string): Promise<string[]> {
  return guarded(confDir, async () => {
    const changed: string[] = []
    const names = await configurations(confDir)
    for (const name of names) {
      for (let attempt = 0; ; attempt++) {
        const done = await displaceOnce(confDir, name, names)
        if (done === 'changed') changed.push(name)
        if (done !== 'again') break
        if (attempt >= 5) throw new AmbitError('CNI_FILE', `${join(confDir, name)} changes all the time.`)
      }
    }
    return changed
  })
}

async function placeOnce(confDir: string, entry: Entry, write: boolean): Promise<Placed | undefined> {
  const names = await configurations(confDir)
  if (write) await removeOrphans(confDir, names)
  const found = await firstUsable(confDir, names)
  if (write && !found.doubtful) await removeFormer(confDir, names, madeOf(found.name))
  const isList = found.name.endsWith('.conflist')
  const name = isList ? found.name : madeOf(found.name)
  const path = join(confDir, name)
  const seen = isList ? found.seen : await readSeen(path)
  const text = inFile(found.path, () => chain(isList ? found.seen.text : listOf(found.seen.text, seen?.text), entry))
  if (seen?.text === text) return { file: path, written: false }
  if (!write) throw new AmbitError('CNI_NOT_CHAINED', `The plugin is not in ${path} as it should be.`)
  // A list that is made has the mode of what it is made of.
  const done = await replaceFile(path, text, seen, found.seen.mode)
  return done ? { file: path, written: true } : undefined
}

async function displaceOnce(
  confDir: string,
  name: string,
  names: readonly string[],
): Promise<'unchanged' | 'changed' | 'again'> {
  const path = join(confDir, name)
  const seen = await readSeen(path).catch(() => undefined)
  if (!seen || !isUsable(name, seen.text) || !name.endsWith('.conflist') || !hasEntry(seen.text)) return 'unchanged'
  const original = originalOf(name, names)
  const conf = original === undefined ? undefined : await readSeen(join(confDir, original))
  if (name.endsWith(MADE) && (conf === undefined || isOnlyListOf(seen.text, conf.text))) {
    await removeFile(path)
    return 'changed'
  }
  return (await replaceFile(path, unchain(seen.text), seen)) ? 'changed' : 'again'
}

/** Lists whose original is gone: their network is nobody's any more. */
async function removeOrphans(confDir: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (name.endsWith(MADE) && originalOf(name, names) === undefined) await removeFile(join(confDir, name))
  }
}

/** Lists made of configurations that are not the first any more, if nobody else has chained himself there. */
async function removeFormer(confDir: string, names: readonly string[], current: string): Promise<void> {
  for (const name of names) {
    const original = name.endsWith(MADE) && name !== current ? originalOf(name, names) : undefined
    if (original === undefined) continue
    const [list, conf] = await Promise.all([readSeen(join(confDir, name)), readSeen(join(confDir, original))])
    if (list && conf && isOnlyListOf(list.text, conf.text)) await removeFile(join(confDir, name))
  }
}

function originalOf(made: string, names: readonly string[]): string | undefined {
  return names.find((name) => !name.endsWith('.conflist') && madeOf(name) === made)
}

/** Names in the order in which runtimes take them. */
async function configurations(confDir: string): Promise<string[]> {
  const names = (await readdir(confDir)).filter((name) => CONFIGURATION.test(name))
  return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
}

/** The first that somebody else wrote and that makes sense. */
async function firstUsable(confDir: string, names: readonly string[]): Promise<Found> {
  let doubtful = false
  for (const name of names) {
    if (name.endsWith(MADE)) continue
    const path = join(confDir, name)
    // One that cannot be read, or is being written, is not one yet.
    const seen = await readSeen(path).catch(() => undefined)
    if (seen && isUsable(name, seen.text)) return { name, path, seen, doubtful }
    doubtful = true
  }
  throw new AmbitError('CNI_NO_NETWORK', `There is no network configuration in ${confDir} yet.`, {
    hint: "The node's CNI plugin writes one when it is installed; --cni-conf-dir must be the folder its runtime reads.",
  })
}

/** True if a runtime could take it: an object, with the plugins or the type that its name promises. */
function isUsable(name: string, text: string): boolean {
  try {
    if (name.endsWith('.conflist')) hasEntry(text)
    else listOf(text)
    return true
  } catch {
    return false
  }
}

function inFile<T>(path: string, task: () => T): T {
  try {
    return task()
  } catch (error) {
    if (!(error instanceof AmbitError)) throw error
    throw new AmbitError(error.code, `${path}: ${error.message}`, { ...(error.hint ? { hint: error.hint } : {}) })
  }
}

async function guarded<T>(confDir: string, task: () => Promise<T>): Promise<T> {
  try {
    return await task()
  } catch (error) {
    if (error instanceof AmbitError) throw error
    throw new AmbitError(
      'CNI_FILE',
      `The network configuration in ${confDir} cannot be changed: ${messageOf(error)}.`,
      {
        cause: error,
      },
    )
  }
}
