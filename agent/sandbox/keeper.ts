// Keeps one process running: starts it, writes its output to a file, starts it again with a growing pause when it ends.
// Must not live here: what is run (programs.ts, pod-runner.ts).
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { Backoff } from '../base/backoff.ts'

export interface KeeperOptions {
  readonly name: string
  /** The command line, made anew for every start. */
  readonly command: () => readonly string[]
  /** Output is appended here. */
  readonly logFile: string
  /** Start again after the end: always, after a failure, never (as Kubernetes' restartPolicy). */
  readonly restart: 'Always' | 'OnFailure' | 'Never'
  /** The command line forks (unshare --fork): the process that counts is its only child, and it says "ok" on descriptor 3. */
  readonly forks: boolean
  readonly onStarted?: (pid: number) => void
  /** `again`: milliseconds until it is started again; undefined: it is not. */
  readonly onEnded?: (code: number | undefined, signal: string | undefined, again: number | undefined) => void
}

/** A process that lived so long starts its pauses anew. */
const LONG_LIFE_MS = 10_000

export class Keeper {
  readonly #options: KeeperOptions
  readonly #backoff = new Backoff({ baseMs: 200, maxMs: 10_000, jitter: 0.2 })
  #child: ChildProcess | undefined
  #pid: number | undefined
  #timer: NodeJS.Timeout | undefined
  #stopped = false
  #ended: Promise<void> = Promise.resolve()
  restarts = 0

  constructor(options: KeeperOptions) {
    this.#options = options
  }

  get name(): string {
    return this.#options.name
  }

  /** The process that counts, while it runs. */
  get pid(): number | undefined {
    return this.#pid
  }

  get logFile(): string {
    return this.#options.logFile
  }

  start(): void {
    if (this.#stopped || this.#child) return
    const [command, ...args] = this.#options.command()
    const log = openSync(this.#options.logFile, 'a', 0o600)
    const child = spawn(command!, args, {
      stdio: ['ignore', log, log, this.#options.forks ? 'pipe' : 'ignore'],
      detached: true,
    })
    closeSync(log)
    this.#child = child
    const began = performance.now()
    if (this.#options.forks) {
      const ready = child.stdio[3] as Readable
      ready.once('data', () => this.#started(child, onlyChildOf(child.pid)))
      ready.on('error', () => undefined)
    } else child.once('spawn', () => this.#started(child, child.pid))
    this.#ended = new Promise((resolve) => {
      const end = (code: number | undefined, signal: string | undefined): void => {
        if (this.#child !== child) return
        this.#child = undefined
        this.#pid = undefined
        const { restart } = this.#options
        const again = !this.#stopped && (restart === 'Always' || (restart === 'OnFailure' && code !== 0))
        if (performance.now() - began > LONG_LIFE_MS) this.#backoff.reset()
        const pause = again ? this.#backoff.next() : undefined
        if (pause !== undefined)
          this.#timer = setTimeout(() => {
            this.restarts++
            this.start()
          }, pause)
        resolve()
        this.#options.onEnded?.(code, signal, pause)
      }
      child.once('error', () => end(127, undefined))
      child.once('exit', (code, signal) => end(code ?? undefined, signal ?? undefined))
    })
  }

  #started(child: ChildProcess, pid: number | undefined): void {
    if (this.#child !== child || pid === undefined) return
    this.#pid = pid
    this.#options.onStarted?.(pid)
  }

  /** It is not started again, however it ends: somebody else kills it. */
  abandon(): void {
    this.#stopped = true
    if (this.#timer) clearTimeout(this.#timer)
  }

  /** Ends it for good: SIGTERM, after `graceMs` SIGKILL. One that has no handler for SIGTERM is killed at once. */
  async stop(graceMs: number): Promise<void> {
    this.abandon()
    const child = this.#child
    if (!child) return
    const pid = this.#pid
    if (pid !== undefined && catchesTerm(pid)) {
      signal(pid, 'SIGTERM')
      let timer: NodeJS.Timeout | undefined
      await Promise.race([this.#ended, new Promise((resolve) => (timer = setTimeout(resolve, graceMs)))])
      clearTimeout(timer)
    }
    if (this.#child === child) {
      if (pid !== undefined) signal(pid, 'SIGKILL')
      child.kill('SIGKILL')
    }
    await this.#ended
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It ended in between.
  }
}

function onlyChildOf(pid: number | undefined): number | undefined {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]) || undefined
  } catch {
    return undefined
  }
}

/** The first process of a PID namespace ignores SIGTERM unless it has a handler; waiting for it would be in vain. */
function catchesTerm(pid: number): boolean {
  try {
    const caught = /^SigCgt:\s*([0-9a-f]+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return caught !== undefined && ((BigInt(`0x${caught}`) >> 14n) & 1n) === 1n
  } catch {
    return false
  }
}
