// A worker process of `ambit waypoint --workers N`: the serving program on a socket its supervisor holds, steered over the IPC
// channel. Started by process.ts only. Must not live here: serving (program.ts), the supervisor's side (crew.ts).
import { closeSync } from 'node:fs'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { Lifecycle } from '../../base/lifecycle.ts'
import { openLog, type Logger } from '../../base/log.ts'
import type { Listener } from '../../io/connection.ts'
import { json, setLevel } from '../../telemetry/admin.ts'
import { doorsOf, openDoor, type Door } from '../doors.ts'
import { waypointCommand, waypointLimits, type WaypointOptions } from '../options.ts'
import { startProgram } from '../program.ts'
import type { Waypoint } from '../waypoint.ts'
import { FIRST_SOCKET, WORKER_ENV, type Question, type ToSupervisor, type ToWorker } from './messages.ts'

function tell(message: ToSupervisor): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => resolve())
    else resolve()
  })
}

/** The sockets this worker has inherited, one a door and worker: its own, and the others' for when it must stand in. */
class Sockets {
  readonly #own: number
  readonly #count: number
  readonly #doors: readonly Door[]
  readonly #waypoint: Waypoint
  readonly #log: Logger
  readonly #listeners = new Map<number, Promise<readonly Listener[]>>()
  #released = false

  constructor(own: number, count: number, doors: readonly Door[], waypoint: Waypoint, log: Logger) {
    this.#own = own
    this.#count = count
    this.#doors = doors
    this.#waypoint = waypoint
    this.#log = log
  }

  listen(worker: number): Promise<readonly Listener[]> {
    let listeners = this.#listeners.get(worker)
    if (!listeners) {
      // Only while draining, when nobody is told of it.
      if (this.#released) return Promise.reject(new TypeError(`the sockets of worker ${worker} are closed here`))
      listeners = Promise.all(
        this.#doors.map((door, index) =>
          openDoor(this.#waypoint, door, { fd: FIRST_SOCKET + index * this.#count + worker }, this.#log),
        ),
      )
      this.#listeners.set(worker, listeners)
    }
    return listeners
  }

  /** Standing in for a worker that is down. */
  async cover(worker: number, on: boolean): Promise<void> {
    for (const listener of await this.listen(worker)) {
      if (on) listener.resume()
      else listener.pause()
    }
  }

  /**
   * Closes everything but the listeners of its own, which have descriptors of their own: a queue dies with its last descriptor,
   * and must not outlive who accepts from it.
   */
  async release(): Promise<void> {
    if (this.#released) return
    this.#released = true
    for (let i = 0; i < this.#count * this.#doors.length; i++) closeSync(FIRST_SOCKET + i)
    for (const [worker, listeners] of this.#listeners) {
      if (worker !== this.#own) for (const listener of await listeners) await listener.stop()
    }
  }
}

async function serve(options: WaypointOptions, own: number, count: number, log: Logger): Promise<number> {
  const limits = waypointLimits({ ...options, workers: String(count) })
  const lifecycle = new Lifecycle({
    deadlineMs: limits.drainMs + 5_000,
    onProblem: (step, error) => log.warn({ step, error: messageOf(error) }, 'stopping went wrong'),
  })
  let listening = false
  const stop = (reason: string): void => {
    // Nothing runs before the first listen, and nobody waits for this process.
    if (listening) void lifecycle.stop(reason)
    else process.exit(0)
  }
  // Ctrl-C reaches the whole process group, and SIGHUP is for the supervisor: it says what to do.
  process.on('SIGINT', () => {})
  process.on('SIGHUP', () => {})
  process.on('SIGTERM', () => stop('SIGTERM'))
  // A supervisor that died cannot replace anybody: what runs is ended in order.
  process.on('disconnect', () => stop('the supervisor is gone'))
  const tellState = (): void => {
    const { ready, draining, pending } = program.readiness
    void tell({ type: 'state', state: { listening, ready: ready && listening, draining, pending } })
  }
  const program = await startProgram(options, limits, log, () => tellState())
  const sockets = new Sockets(own, count, doorsOf(options), program.waypoint, log)

  const asJson = (value: unknown): Promise<string> => Promise.resolve(value === undefined ? '' : json(200, value).body)
  const answers: Readonly<Record<Question, (query: string) => Promise<string>>> = {
    metrics: () => program.metrics.text(),
    dump: () => asJson(program.dump()),
    status: () => asJson(program.status()),
    held: (query) => asJson(program.held(new URLSearchParams(query))),
    release: () => sockets.release().then(() => ''),
  }
  process.on('message', (message: ToWorker) => {
    switch (message.type) {
      case 'ask':
        void answers[message.what](message.query).then((text) => tell({ type: 'answer', id: message.id, text }))
        return
      case 'log':
        setLevel(message.level, log)
        return
      case 'cover':
        sockets.cover(message.worker, message.on).catch((error: unknown) => {
          log.warn({ socket: message.worker, error: messageOf(error) }, 'cannot stand in for a worker')
        })
        return
      case 'drain':
        stop('drain')
    }
  })

  await sockets.listen(own)
  lifecycle.onStop('last metrics', async () => tell({ type: 'final', metrics: await program.metrics.text() }))
  program.run(lifecycle)
  lifecycle.onStop('sockets', () => sockets.release())
  lifecycle.onStop('notice', () => {
    program.readiness.drain()
    tellState()
  })
  listening = true
  tellState()
  log.info({ identity: program.identity, restored: program.restored }, 'worker started')
  const ended = await lifecycle.ended
  log.info(ended, 'worker stopped')
  return ended.clean ? 0 : 1
}

const [own = 0, count = 1] = (process.env[WORKER_ENV] ?? '').split('/').map(Number)
let code = 0
await waypointCommand(async (options) => {
  const log = openLog({ program: 'waypoint', level: options.logLevel }).child({ worker: own })
  try {
    code = await serve(options, own, count, log)
  } catch (error) {
    log.fatal({ code: error instanceof AmbitError ? error.code : undefined }, messageOf(error))
    code = 1
  }
}).parseAsync(process.argv.slice(2), { from: 'user' })
process.stdout.write('', () => process.exit(code))
