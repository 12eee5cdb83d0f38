// One worker as its supervisor sees it: a child process, what it last said of itself, questions with a time limit. Must not
// live here: when workers are started and ended (crew.ts).
import { fork, type ChildProcess } from 'node:child_process'
import type { Readable } from 'node:stream'
import { WORKER_ENV, type Question, type ToSupervisor, type ToWorker, type WorkerState } from './messages.ts'

/** A worker that has not answered by then is passed over: its last metrics stand. */
const ANSWER_MS = 2_000

const entry = new URL('./worker.ts', import.meta.url).pathname

export interface WorkerEvents {
  onState(worker: WorkerProcess): void
  /** Once; `how`: `code 1` or `signal SIGKILL`. */
  onExit(worker: WorkerProcess, how: string): void
}

export class WorkerProcess {
  /** Which of the crew: its socket. */
  readonly slot: number
  readonly startedAt: number
  state: WorkerState = { listening: false, ready: false, draining: false, pending: ['start'] }
  /** The latest exposition, '' before the first. */
  metrics = ''
  gone = false
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (text: string | undefined) => void>()
  #asked = 0

  /** Starts it. `sockets`: descriptors of all doors and slots; `argv`: the flags of `ambit waypoint`. */
  constructor(
    slot: number,
    count: number,
    argv: readonly string[],
    sockets: readonly number[],
    events: WorkerEvents,
    output: (source: Readable) => void,
    now: number,
  ) {
    this.slot = slot
    this.startedAt = now
    this.#child = fork(entry, [...argv], {
      env: { ...process.env, [WORKER_ENV]: `${slot}/${count}` },
      stdio: ['ignore', 'pipe', 'inherit', 'ipc', ...sockets],
    })
    if (this.#child.stdout) output(this.#child.stdout)
    this.#child.on('message', (message: ToSupervisor) => {
      if (message.type === 'answer') {
        this.#waiting.get(message.id)?.(message.text)
      } else if (message.type === 'final') {
        this.metrics = message.metrics
      } else {
        this.state = message.state
        events.onState(this)
      }
    })
    // It could not be started, or not be told something: its end says so too.
    this.#child.on('error', () => {
      if (this.#child.pid === undefined) this.#exit(events, 'not started')
    })
    this.#child.once('exit', (code, signal) => this.#exit(events, signal ? `signal ${signal}` : `code ${code}`))
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** It takes connections and will go on doing so. */
  get serving(): boolean {
    return !this.gone && this.state.listening && !this.state.draining
  }

  send(message: ToWorker): void {
    if (!this.gone && this.#child.connected) this.#child.send(message, () => {})
  }

  /** The answer, or undefined when none came in time. */
  ask(what: Question, query = ''): Promise<string | undefined> {
    if (this.gone) return Promise.resolve(undefined)
    const id = ++this.#asked
    return new Promise((resolve) => {
      const done = (text: string | undefined): void => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        resolve(text)
      }
      const timer = setTimeout(() => done(undefined), ANSWER_MS)
      this.#waiting.set(id, done)
      this.send({ type: 'ask', id, what, query })
    })
  }

  kill(signal: 'SIGTERM' | 'SIGKILL'): void {
    if (!this.gone) this.#child.kill(signal)
  }

  #exit(events: WorkerEvents, how: string): void {
    if (this.gone) return
    this.gone = true
    for (const done of [...this.#waiting.values()]) done(undefined)
    events.onExit(this, how)
  }
}
