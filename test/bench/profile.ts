// Where a process's time goes: reads a .cpuprofile (Chrome DevTools protocol, Profiler.Profile), sums self time by function and
// prints the top of it. As a command it reads a file, or records a running Node process (attach.ts) and reads what came:
//   agent/bin/node test/bench/profile.ts FILE.cpuprofile
//   agent/bin/node test/bench/profile.ts --pid PID --seconds 5 --out FILE.cpuprofile
// Code that was optimised before the recording began has what was inlined into it counted as its own: begin before the load, and
// leave its first seconds out with --skip (or start the program with --cpu-prof and read the file it leaves).
// Must not live here: talking to the process (attach.ts).
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { recordProfile } from './attach.ts'

export interface FunctionTime {
  /** The function's name, '(anonymous)' where it has none, or one of V8's own such as '(garbage collector)'. */
  readonly name: string
  /** `file:line` below the working directory, '' for V8's own. */
  readonly place: string
  readonly selfMs: number
  /** Of the time that was not idle, [0, 1]. */
  readonly share: number
}

export interface ProfileSummary {
  /** From first to last sample. */
  readonly totalMs: number
  /** Time in V8's '(idle)' node. */
  readonly idleMs: number
  /** Longest self time first; without '(idle)'. */
  readonly functions: readonly FunctionTime[]
}

interface ProfileNode {
  readonly id: number
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
}

interface CpuProfile {
  readonly nodes: readonly ProfileNode[]
  readonly samples: readonly number[]
  /** Microseconds between a sample and the one before. */
  readonly timeDeltas: readonly number[]
}

export interface SummaryOptions {
  /** Cut off the places; default the working directory. */
  readonly root?: string
  /** Leaves out what was recorded before this time. */
  readonly skipMs?: number
}

/** Sums a .cpuprofile. Throws if the text is none. */
export function summarise(text: string, { root = process.cwd(), skipMs = 0 }: SummaryOptions = {}): ProfileSummary {
  const profile = JSON.parse(text) as Partial<CpuProfile>
  const { nodes, samples, timeDeltas } = profile
  if (!nodes || !samples || !timeDeltas || samples.length !== timeDeltas.length)
    throw new Error('This is no CPU profile: nodes, samples and timeDeltas of one length are wanted.')
  const keys = new Map<number, string>()
  for (const { id, callFrame } of nodes) {
    const name = callFrame.functionName || '(anonymous)'
    keys.set(id, callFrame.url === '' ? `${name}\n` : `${name}\n${placeOf(callFrame.url, callFrame.lineNumber, root)}`)
  }
  const sums = new Map<string, number>()
  let totalUs = 0
  let at = 0
  for (let i = 0; i < samples.length; i++) {
    // A sample's node ran until the next sample: that delta is its own. Deltas can be negative where timers were corrected.
    const us = Math.max(0, timeDeltas[i + 1] ?? 0)
    const key = keys.get(samples[i] as number)
    if (key === undefined) throw new Error(`The profile has a sample of an unknown node ${samples[i]}.`)
    at += us
    if (at <= skipMs * 1000) continue
    totalUs += us
    sums.set(key, (sums.get(key) ?? 0) + us)
  }
  const idleUs = sums.get('(idle)\n') ?? 0
  sums.delete('(idle)\n')
  const busyUs = totalUs - idleUs
  const functions = [...sums]
    .map(([key, us]): FunctionTime => {
      const [name, place] = key.split('\n') as [string, string]
      return { name, place, selfMs: us / 1000, share: busyUs > 0 ? us / busyUs : 0 }
    })
    .sort((a, b) => b.selfMs - a.selfMs)
  return { totalMs: totalUs / 1000, idleMs: idleUs / 1000, functions }
}

function placeOf(url: string, line: number, root: string): string {
  const path = url.startsWith('file://') ? url.slice('file://'.length) : url
  return `${path.startsWith(`${root}/`) ? path.slice(root.length + 1) : path}:${line + 1}`
}

/**
 * The first `count` functions as lines of text. `cpuMs`: CPU time of the process meanwhile. Native code that the event loop calls, epoll, sockets and TLS of
 * native/io, runs where Node has told V8 that it is idle, and other threads V8 does not know: the difference is theirs.
 */
export function topText(summary: ProfileSummary, count = 25, cpuMs?: number): string {
  const { totalMs, idleMs, functions } = summary
  const busy = totalMs > 0 ? (totalMs - idleMs) / totalMs : 0
  const lines = [`${(totalMs / 1000).toFixed(1)} s recorded, ${(busy * 100).toFixed(0)} % of it busy; self time:`]
  if (cpuMs !== undefined) {
    const rest = Math.max(0, cpuMs - (totalMs - idleMs))
    const share = cpuMs > 0 ? (rest / cpuMs) * 100 : 0
    lines.push(
      `CPU time of the process: ${cpuMs.toFixed(0)} ms, of it ${rest.toFixed(0)} ms (${share.toFixed(0)} %) in native I/O and other threads, which V8 takes for idle`,
    )
  }
  for (const { name, place, selfMs, share } of functions.slice(0, count))
    lines.push(
      `${(share * 100).toFixed(1).padStart(6)} %  ${selfMs.toFixed(0).padStart(6)} ms  ${name.padEnd(32)}  ${place}`.trimEnd(),
    )
  return lines.join('\n')
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      pid: { type: 'string' },
      seconds: { type: 'string', default: '5' },
      skip: { type: 'string', default: '0' },
      out: { type: 'string', default: 'out.cpuprofile' },
      top: { type: 'string', default: '25' },
    },
  })
  let file = positionals[0]
  if (values.pid !== undefined) {
    file = values.out
    writeFileSync(file, await recordProfile(Number(values.pid), Number(values.seconds)))
  }
  if (file === undefined) throw new Error('Name a .cpuprofile, or give --pid PID.')
  const summary = summarise(readFileSync(file, 'utf8'), { skipMs: Number(values.skip) * 1000 })
  console.log(topText(summary, Number(values.top)))
}

if (import.meta.main) await main()
