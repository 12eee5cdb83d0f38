// What a sandbox made outside its own folder, written down before it is made, so that whoever comes after a crash can
// remove exactly that and nothing else. Must not live here: making things.
import { appendFileSync, existsSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { killCgroup, removeCgroup } from './cgroup.ts'
import { NETNS_ROOT, run } from './run.ts'

export type Made = 'cgroup' | 'netns' | 'link' | 'pins' | 'folder' | 'netns-root' | 'bpffs'

interface Entry {
  readonly kind: Made
  readonly name: string
}

const FILE = 'journal'

/** What each kind of name must look like: a damaged journal must not remove what is not ours. */
const OURS: Readonly<Record<Made, RegExp>> = {
  cgroup: /\/ambit-\d+(\/.*)?$/,
  netns: /^ambit-\d+-[a-z0-9.-]+$/,
  link: /^ambit\d+$/,
  pins: /^\/sys\/fs\/bpf\/ambit-\d+(\/.*)?$/,
  folder: /^\/var\/lib\/ambit\/sandbox\/[a-z0-9-]+$/,
  'netns-root': /^\/run\/netns$/,
  bpffs: /^\/sys\/fs\/bpf$/,
}

/** The order of removal: processes first, then what they held. */
const ORDER: readonly Made[] = ['cgroup', 'link', 'netns', 'pins', 'folder', 'netns-root', 'bpffs']

export class Journal {
  readonly #file: string

  constructor(home: string) {
    this.#file = join(home, FILE)
  }

  /** Call before making it. */
  record(kind: Made, name: string): void {
    appendFileSync(this.#file, `${JSON.stringify({ kind, name })}\n`)
  }

  entries(): Entry[] {
    if (!existsSync(this.#file)) return []
    const found = new Map<string, Entry>()
    for (const line of readFileSync(this.#file, 'utf8').split('\n')) {
      try {
        const entry = JSON.parse(line) as Entry
        if (OURS[entry.kind]?.test(entry.name)) found.set(`${entry.kind} ${entry.name}`, entry)
      } catch {
        // A line cut off by a crash: what it would have named was not made yet.
      }
    }
    return [...found.values()]
  }

  /** Removes everything recorded; what is gone already is fine. Returns what could not be removed. */
  async removeAll(): Promise<string[]> {
    const left: string[] = []
    const entries = this.entries()
    for (const kind of ORDER)
      for (const entry of entries.filter((one) => one.kind === kind)) {
        try {
          await remove(entry)
        } catch (error) {
          left.push(`${kind} ${entry.name}: ${error instanceof Error ? error.message : String(error)}`)
        }
      }
    return left
  }
}

async function remove({ kind, name }: Entry): Promise<void> {
  switch (kind) {
    case 'cgroup':
      await killCgroup(name)
      await removeCgroup(name)
      return
    case 'link':
      if (existsSync(`/sys/class/net/${name}`)) await run('ip', ['link', 'del', name])
      return
    case 'netns':
      if (existsSync(join(NETNS_ROOT, name))) await run('ip', ['netns', 'del', name])
      return
    case 'pins':
      rmSync(name, { recursive: true, force: true })
      return
    case 'folder':
      rmSync(name, { recursive: true, force: true })
      // The folders above it are ours too, when nobody else is in them.
      await run('rmdir', ['--ignore-fail-on-non-empty', '-p', dirname(name)]).catch(() => undefined)
      return
    case 'bpffs':
      // Only when nobody else has come to use it.
      await run('sh', ['-c', '[ -n "$(ls -A "$1")" ] || umount "$1"', 'sh', name])
      return
    case 'netns-root':
      // `ip netns add` made the folder a mount; when the last namespace is gone it goes too.
      await run('sh', [
        '-c',
        'rmdir "$1" 2>/dev/null || { [ -n "$(ls -A "$1")" ] || { umount "$1" && rmdir "$1"; }; }',
        'sh',
        name,
      ])
  }
}
