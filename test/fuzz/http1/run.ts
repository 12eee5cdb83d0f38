// The run: generates cases, gives each to the codec and to llhttp, tells the first findings. A thread does it, so that a case that
// never returns is seen from outside. Must not live here: grammar, reading, judging.
import { Worker } from 'node:worker_threads'
import type { FuzzOptions } from '../main.ts'

/** A batch that makes no progress for this long hangs. */
const HANG_MS = 30_000

export interface Progress {
  readonly done: boolean
  readonly cases: number
  readonly messages: number
  /** Messages that the codec took, and that the peer framed the same way. */
  readonly accepted: number
  readonly refused: number
  /** Refusals of the peer's that are explained, by code. */
  readonly stricter: Readonly<Record<string, number>>
  readonly findings: readonly string[]
}

/** Runs until `messages` are generated or something is found. `seconds`: stops after that long. */
export function fuzzHttp1(
  options: { messages: number; seed: number; only?: number; seconds?: number },
  onProgress: (progress: Progress) => void = () => undefined,
): Promise<Progress> {
  return new Promise((resolve, reject) => {
    const { messages, seed, only, seconds } = options
    const worker = new Worker(new URL('./thread.ts', import.meta.url), {
      workerData: { messages, seed, only, seconds },
    })
    let watch: NodeJS.Timeout
    const alive = () => {
      clearTimeout(watch)
      watch = setTimeout(() => {
        void worker.terminate()
        reject(new Error(`a case hangs: no progress for ${HANG_MS / 1000} s`))
      }, HANG_MS)
    }
    alive()
    worker.on('message', (progress: Progress) => {
      alive()
      onProgress(progress)
      if (!progress.done) return
      clearTimeout(watch)
      resolve(progress)
    })
    worker.on('error', (error) => {
      clearTimeout(watch)
      reject(error)
    })
  })
}

export async function runHttp1(options: FuzzOptions): Promise<boolean> {
  const from = performance.now()
  let told = 0
  const tell = (progress: Progress) => {
    const seconds = (performance.now() - from) / 1000
    options.say(
      `${progress.messages} messages in ${progress.cases} cases, ${progress.accepted} accepted and framed alike, ${progress.refused} cases refused, ` +
        `${JSON.stringify(progress.stricter)} refused by llhttp only, ${progress.findings.length} findings, ${seconds.toFixed(0)} s`,
    )
  }
  const last = await fuzzHttp1(options, (progress) => {
    if (progress.messages < told) return
    told = progress.messages + 500_000
    tell(progress)
  })
  tell(last)
  for (const finding of last.findings) options.say(finding)
  return last.findings.length === 0
}
