// The workers of a waypoint: starts one for each slot, replaces one that dies with back-off, has a neighbour stand in for it
// meanwhile, and replaces all of them one after the other. Each slot has a listening socket (SO_REUSEPORT) that the supervisor
// holds and never accepts from: workers come and go, the queue stays. Must not live here: signals, servers (supervise.ts).
import { BoundSocket } from 'node:net'
import type { Readable } from 'node:stream'
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { ToWorker } from './messages.ts'
import { MergedMetrics } from './merge.ts'
import { WorkerProcess, type WorkerEvents } from './process.ts'

export interface CrewOptions {
  readonly count: number
  /** Addresses to listen on. */
  readonly doors: readonly { readonly host: string; readonly port: number }[]
  readonly argv: readonly string[]
  readonly clock: Clock
  readonly log: Logger
  /** Takes a worker's output. */
  output(source: Readable): void
  /** A worker died: counted by its slot. */
  onRestart(slot: number): void
  /** The first worker could not even start: nothing will be better by trying again. */
  onHopeless(how: string): void
}

/** A worker that served for so long begins with the shortest wait again. */
const GOOD_MS = 60_000
const RESTART = { baseMs: 100, maxMs: 30_000 } as const
/** A replacement that is not ready by then is given up, and the old worker stays. */
const REPLACE_MS = 120_000

interface Slot {
  readonly index: number
  /** One a door. */
  readonly sockets: BoundSocket[]
  readonly backoff: Backoff
  current: WorkerProcess | undefined
  /** Its replacement, until it is ready. */
  next: WorkerProcess | undefined
  timer: Timer | undefined
  /** The slot whose worker stands in for this one. */
  cover: number | undefined
}

export interface WorkerStatus {
  readonly worker: number
  readonly pid: number
  readonly role: 'serving' | 'starting' | 'replacement' | 'draining'
  readonly ready: boolean
  readonly pending: readonly string[]
}

export class Crew implements WorkerEvents {
  readonly #options: CrewOptions
  readonly #slots: Slot[]
  readonly #leaving = new Set<WorkerProcess>()
  readonly #merged = new MergedMetrics()
  /** A worker has served once: from then on every death is an accident. */
  #served = false
  #stopping = false
  #leaves = false
  #replacing: Promise<void> | undefined
  #changed: (() => void)[] = []

  /** Binds the sockets. Throws WAYPOINT_LISTEN_FAILED naming the address. */
  constructor(options: CrewOptions) {
    this.#options = options
    this.#slots = Array.from({ length: options.count }, (_, index) => ({
      index,
      sockets: [],
      backoff: new Backoff(RESTART),
      current: undefined,
      next: undefined,
      timer: undefined,
      cover: undefined,
    }))
    try {
      for (const door of options.doors) this.#bind(door)
    } catch (error) {
      for (const { sockets } of this.#slots) for (const socket of sockets) socket.close()
      throw error
    }
  }

  #bind({ host, port }: CrewOptions['doors'][number]): void {
    try {
      for (const { sockets } of this.#slots) sockets.push(new BoundSocket({ host, port, reusePort: true }))
    } catch (error) {
      throw new AmbitError('WAYPOINT_LISTEN_FAILED', `Cannot listen on ${host}:${port}: ${messageOf(error)}`, {
        hint: 'Is another program on that port, or is the address not one of this machine?',
        cause: error,
      })
    }
  }

  start(): void {
    for (const slot of this.#slots) slot.current = this.#fork(slot)
  }

  get ready(): boolean {
    return !this.draining && this.#slots.every(({ current }) => current && !current.gone && current.state.ready)
  }

  get draining(): boolean {
    return this.#stopping || this.#leaves
  }

  /** Not ready any more; the workers go on, and those that die are still replaced. */
  leave(): void {
    this.#leaves = true
  }

  /** What readiness waits for. */
  get pending(): readonly string[] {
    return this.#slots.flatMap(({ index, current }) =>
      !current || current.gone
        ? [`worker ${index}: restart`]
        : current.state.ready
          ? []
          : current.state.pending.map((what) => `worker ${index}: ${what}`),
    )
  }

  status(): readonly WorkerStatus[] {
    const of = (worker: WorkerProcess, role: WorkerStatus['role']): WorkerStatus => ({
      worker: worker.slot,
      pid: worker.pid,
      role,
      ready: worker.state.ready,
      pending: worker.state.pending,
    })
    return [
      ...this.#slots.flatMap(({ current, next }) => [
        ...(current ? [of(current, current.serving ? 'serving' : 'starting')] : []),
        ...(next ? [of(next, 'replacement')] : []),
      ]),
      ...[...this.#leaving].map((worker) => of(worker, 'draining')),
    ]
  }

  /** All workers' metrics, and those given, as one exposition. */
  async metrics(own: string): Promise<string> {
    const workers = this.#all()
    await Promise.all(
      workers.map(async (worker) => {
        worker.metrics = (await worker.ask('metrics')) ?? worker.metrics
      }),
    )
    // One that died meanwhile is in the retired already.
    return this.#merged.merge([own, ...workers.filter(({ gone }) => !gone).map(({ metrics }) => metrics)])
  }

  /** What each worker dumps, by its number. */
  async dumps(): Promise<Record<string, unknown>> {
    const dumped = await Promise.all(
      this.#slots.map(async ({ index, current }): Promise<[string, unknown]> => {
        const text = await current?.ask('dump')
        return [String(index), text === undefined ? 'no answer' : (JSON.parse(text) as unknown)]
      }),
    )
    return Object.fromEntries(dumped)
  }

  /** The answer of the first worker that gives one, parsed; undefined when it has none. */
  async first(what: 'status' | 'held', query = ''): Promise<unknown> {
    for (const { current } of this.#slots) {
      const text = await current?.ask(what, query)
      if (text !== undefined) return text === '' ? undefined : (JSON.parse(text) as unknown)
    }
    return undefined
  }

  broadcast(message: ToWorker): void {
    for (const worker of this.#all()) worker.send(message)
  }

  /**
   * Replaces every worker, one after the other: the new one is ready before the old one drains, on the same socket. Resolves when
   * done, or when a replacement did not become ready, which is logged and leaves the rest as they are.
   */
  replace(): Promise<void> {
    this.#replacing ??= this.#replaceAll().finally(() => (this.#replacing = undefined))
    return this.#replacing
  }

  /** Drains all and resolves when they are gone. */
  async stop(): Promise<void> {
    this.#stopping = true
    for (const slot of this.#slots) {
      slot.timer?.cancel()
      for (const socket of slot.sockets) socket.close()
    }
    // A queue lives as long as anybody has its descriptor: each must be in the hands of the worker that empties it.
    const serving = this.#all().filter((worker) => worker.serving)
    await Promise.all(serving.map((worker) => worker.ask('release')))
    for (const worker of this.#all()) {
      if (worker.state.listening) worker.send({ type: 'drain' })
      else worker.kill('SIGTERM')
    }
    while (this.#all().length > 0) await this.#change()
  }

  /** Ends what is left at once. */
  kill(): void {
    for (const worker of this.#all()) worker.kill('SIGKILL')
  }

  // --- WorkerEvents

  onState(worker: WorkerProcess): void {
    if (worker.state.listening) this.#served = true
    const slot = this.#slots[worker.slot] as Slot
    // It drains without having been told (a SIGTERM of its own): another takes its place.
    if (worker.state.draining && slot.current === worker && !this.#stopping) {
      this.#leaving.add(worker)
      slot.current = this.#fork(slot)
    }
    this.#arrange()
    this.#tell()
  }

  onExit(worker: WorkerProcess, how: string): void {
    const { log, clock } = this.#options
    this.#merged.retire(worker.metrics)
    const slot = this.#slots[worker.slot] as Slot
    if (slot.next === worker) slot.next = undefined
    if (!this.#leaving.delete(worker) && slot.current === worker) {
      slot.current = undefined
      if (!this.#stopping && !this.#served) this.#options.onHopeless(how)
      else if (!this.#stopping) {
        if (clock.monotonic() - worker.startedAt > GOOD_MS) slot.backoff.reset()
        const wait = slot.backoff.next()
        log.error({ worker: slot.index, pid: worker.pid, how, restartMs: Math.round(wait) }, 'a worker died')
        this.#options.onRestart(slot.index)
        slot.timer = clock.after(wait, () => {
          slot.timer = undefined
          if (!this.#stopping) slot.current = this.#fork(slot)
        })
      }
    }
    this.#arrange()
    this.#tell()
  }

  // --- own

  #all(): WorkerProcess[] {
    return [...this.#slots.flatMap(({ current, next }) => [current, next]), ...this.#leaving].filter(
      (worker): worker is WorkerProcess => worker !== undefined && !worker.gone,
    )
  }

  #fork(slot: Slot): WorkerProcess {
    const { argv, output, clock, doors, count } = this.#options
    const sockets = doors.flatMap((_, door) => this.#slots.map((each) => (each.sockets[door] as BoundSocket).fd()))
    return new WorkerProcess(slot.index, count, argv, sockets, this, output, clock.monotonic())
  }

  /** Has somebody accept from every socket that once was listened on. */
  #arrange(): void {
    if (this.#stopping || !this.#served) return
    for (const slot of this.#slots) {
      const standIn = slot.cover === undefined ? undefined : this.#slots[slot.cover]?.current
      if (slot.current?.serving) {
        if (slot.cover === undefined) continue
        standIn?.send({ type: 'cover', worker: slot.index, on: false })
        slot.cover = undefined
      } else if (!standIn?.serving) {
        const other = this.#slots.find(({ current }) => current?.serving)
        slot.cover = other?.index
        other?.current?.send({ type: 'cover', worker: slot.index, on: true })
      }
    }
  }

  async #replaceAll(): Promise<void> {
    const { log, clock } = this.#options
    log.info({ workers: this.#slots.length }, 'replacing the workers')
    for (const slot of this.#slots) {
      if (this.#stopping) return
      const next = this.#fork(slot)
      slot.next = next
      let late = false
      const timer = clock.after(REPLACE_MS, () => {
        late = true
        this.#tell()
      })
      while (!next.gone && !next.state.ready && !late && !this.#stopping) await this.#change()
      timer.cancel()
      if (this.#stopping) return
      if (!next.state.ready || next.gone) {
        slot.next = undefined
        log.error({ worker: slot.index, pending: next.state.pending }, 'a replacement did not become ready: stopped')
        next.kill('SIGKILL')
        return
      }
      const old = slot.current
      slot.current = next
      slot.next = undefined
      slot.timer?.cancel()
      slot.backoff.reset()
      if (old && !old.gone) {
        this.#leaving.add(old)
        this.#arrange()
        old.send({ type: 'drain' })
        // One at a time: two generations of all workers would need twice the memory.
        while (!old.gone && !this.#stopping) await this.#change()
      }
    }
    log.info({ workers: this.#slots.length }, 'the workers are replaced')
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve))
  }

  #tell(): void {
    for (const resolve of this.#changed.splice(0)) resolve()
  }
}
