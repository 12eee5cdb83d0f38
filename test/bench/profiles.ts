// Profiles of what a suite measures: the load runs twice, and the second time is read. Recording begins before the first, since V8 tells
// inlined functions apart only in code that it optimised while it was recording. Must not live here: recording (attach.ts), reading (profile.ts).
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startRecording } from './attach.ts'
import { summarise, topText } from './profile.ts'
import { cpuMs } from './programs.ts'

export interface ProfiledProcess {
  readonly name: string
  readonly pid: number
}

export interface ProfiledLoad {
  readonly name: string
  run(): Promise<void>
}

/** Writes one .cpuprofile for each process and load into `folder` and prints the top of each. */
export async function recordProfiles(
  folder: string,
  processes: readonly ProfiledProcess[],
  loads: readonly ProfiledLoad[],
): Promise<void> {
  mkdirSync(folder, { recursive: true })
  for (const { name, run } of loads) {
    const begin = performance.now()
    const recordings = await Promise.all(processes.map(({ pid }) => startRecording(pid)))
    const starting = performance.now() - begin
    await run()
    const skipMs = performance.now() - begin - starting
    const before = processes.map(({ pid }) => cpuMs(pid))
    await run()
    const cpu = processes.map(({ pid }, i) => cpuMs(pid) - (before[i] ?? 0))
    for (const [i, recording] of recordings.entries()) {
      const text = await recording.stop()
      const process = processes[i] as ProfiledProcess
      const file = join(folder, `${slug(name)}.${slug(process.name)}.cpuprofile`)
      writeFileSync(file, text)
      console.log(`\n${name}, ${process.name} (${file})\n${topText(summarise(text, { skipMs }), 25, cpu[i])}`)
    }
  }
}

function slug(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '')
}
