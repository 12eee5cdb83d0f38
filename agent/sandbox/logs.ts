// The log files of a sandbox: kept small, and read as one stream of JSON objects, one a line. Must not live here: writing.
import { closeSync, copyFileSync, existsSync, openSync, readdirSync, readSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'

/** A file that grew over this is moved to `.1` (one generation) and begun anew; /run is memory on most systems. */
const MAX_BYTES = 32 * 1024 * 1024
const LOOK_MS = 5_000
const POLL_MS = 150

/** Looks every five seconds; returns a function that stops it. */
export function keepLogsSmall(folder: string): () => void {
  const timer = setInterval(() => {
    for (const name of existsSync(folder) ? readdirSync(folder) : []) {
      const file = join(folder, name)
      if (!name.endsWith('.log') || statSync(file).size < MAX_BYTES) continue
      // Writers append, so they go on at the new end.
      copyFileSync(file, `${file}.1`)
      truncateSync(file)
    }
  }, LOOK_MS)
  return () => clearInterval(timer)
}

export interface LogSource {
  readonly file: string
  /** What is added to each line: `program`, or `namespace`, `pod`, `container`. */
  readonly about: Readonly<Record<string, string>>
}

/** The log files that match: a program (`control`, `agent`, `agent-node-1`, `sandbox`, `dns`, `waypoint`), a pod, or all. */
export function logSources(folder: string, wanted: string | undefined): LogSource[] {
  const sources: LogSource[] = []
  for (const name of existsSync(folder) ? readdirSync(folder).toSorted() : []) {
    if (!name.endsWith('.log')) continue
    const stem = name.slice(0, -'.log'.length)
    const [kind, namespace, pod, container] = stem.split('_')
    const file = join(folder, name)
    if (kind === 'pod' && namespace && pod && container) {
      const match =
        wanted === undefined ||
        wanted === pod ||
        wanted === `${namespace}/${pod}` ||
        pod.startsWith(`${wanted}-`) ||
        `${namespace}/${pod}`.startsWith(`${wanted}-`) ||
        wanted === container
      if (match) sources.push({ file, about: { namespace, pod, container } })
    } else if (wanted === undefined || wanted === stem || stem.startsWith(`${wanted}-`))
      sources.push({ file, about: { program: stem } })
  }
  return sources
}

/** One line of a log as one JSON object a line; text becomes `{message}`. */
export function asJson(line: string, about: Readonly<Record<string, string>>): string {
  if (line.startsWith('{'))
    try {
      const value: unknown = JSON.parse(line)
      if (typeof value === 'object' && value !== null) return JSON.stringify({ ...about, ...value })
    } catch {
      // Text that begins with a brace.
    }
  return JSON.stringify({ ...about, message: line })
}

class Tail {
  readonly source: LogSource
  #position = 0
  #rest = ''

  constructor(source: LogSource) {
    this.source = source
  }

  /** Complete lines since the last call; at the end of reading also the last, unfinished one. */
  lines(last: boolean): string[] {
    let size: number
    try {
      size = statSync(this.source.file).size
    } catch {
      return []
    }
    if (size < this.#position) this.#position = 0
    const chunks: Buffer[] = []
    const fd = openSync(this.source.file, 'r')
    try {
      while (this.#position < size) {
        const chunk = Buffer.alloc(Math.min(1 << 20, size - this.#position))
        const read = readSync(fd, chunk, 0, chunk.length, this.#position)
        if (read === 0) break
        this.#position += read
        chunks.push(chunk.subarray(0, read))
      }
    } finally {
      closeSync(fd)
    }
    const lines = (this.#rest + Buffer.concat(chunks).toString()).split('\n')
    this.#rest = lines.pop() ?? ''
    if (last && this.#rest !== '') lines.push(this.#rest)
    return lines.filter((line) => line !== '')
  }
}

function timeOf(json: string): string {
  return /"time":"([^"]+)"/.exec(json)?.[1] ?? ''
}

/** Prints what is there, merged by time; with `follow` goes on until `stopped`. New files join in. */
export async function printLogs(
  folder: string,
  wanted: string | undefined,
  follow: boolean,
  print: (line: string) => void,
  stopped: () => boolean,
): Promise<number> {
  const tails = new Map<string, Tail>()
  const read = (last: boolean): void => {
    for (const source of logSources(folder, wanted))
      if (!tails.has(source.file)) tails.set(source.file, new Tail(source))
    const lines: { time: string; json: string }[] = []
    for (const tail of tails.values()) {
      // A line without a time belongs where the line before it is.
      let time = ''
      for (const line of tail.lines(last)) {
        const json = asJson(line, tail.source.about)
        time = timeOf(json) || time
        lines.push({ time, json })
      }
    }
    for (const { json } of lines.toSorted((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))) print(json)
  }
  read(!follow)
  while (follow && !stopped()) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    read(false)
  }
  return tails.size
}
