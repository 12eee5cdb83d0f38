// One agent of a node after the other, for a while beside each other: whether another one is here, whether it has taken over,
// and what a superseded one does when that one is gone. Must not live here: what only the newest may do (redirect/lease.ts).
import { connect } from 'node:net'
import type { Clock, Timer } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { openAdmin, type AdminOptions } from '../telemetry/admin.ts'

/** How often a superseded agent looks, and how often its successor must be missed in a row to count as gone. */
const LOOK_MS = 2_000
const MISSED = 5
/** A live agent answers a connect at once. */
const ANSWER_MS = 1_000
const AGAIN_MS = 250

/** True if an agent accepts at this unix socket. */
export function agentAnswers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    const end = (answers: boolean) => (): void => {
      socket.destroy()
      resolve(answers)
    }
    socket.setTimeout(ANSWER_MS, end(false))
    socket.once('connect', end(true))
    socket.once('error', end(false))
  })
}

export interface SuccessionOptions {
  readonly leads: () => boolean
  /** The local API's path: the newest agent listens there. */
  readonly socketPath: string
  readonly clock: Clock
  readonly log: Logger
  /** True if somebody answers at the path. Default agentAnswers. */
  readonly answers?: (path: string) => Promise<boolean>
  /**
   * The agent that took over is gone, as after a roll-back: nobody changes the kernel's tables. To start anew is the way to
   * lead again with everything looked at afresh.
   */
  readonly onOrphaned: () => void
}

/** Watches who leads, until closed. */
export class Succession {
  readonly #options: SuccessionOptions
  #timer: Timer | undefined
  #superseded = false
  #missed = 0
  #closed = false

  constructor(options: SuccessionOptions) {
    this.#options = options
    this.#again()
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  #again(): void {
    if (!this.#closed) this.#timer = this.#options.clock.after(LOOK_MS, () => void this.#look(), true)
  }

  async #look(): Promise<void> {
    const { leads, log, socketPath, answers = agentAnswers, onOrphaned } = this.#options
    if (!this.#superseded && !leads()) {
      this.#superseded = true
      log.info('another agent of this node has taken over; this one carries its connections to their end')
    }
    if (this.#superseded) {
      this.#missed = (await answers(socketPath)) ? 0 : this.#missed + 1
      if (this.#missed >= MISSED && !this.#closed) {
        this.close()
        onOrphaned()
      }
    }
    this.#again()
  }
}

/**
 * Opens a server of fixed address; while the agent before this one still has it, again and again in the background. Gives
 * what closes it. Throws as openAdmin does, and ADMIN_PORT_IN_USE only if no other agent of this node runs.
 */
export async function openInSuccession(
  options: AdminOptions,
  overlaps: boolean,
  clock: Clock,
): Promise<() => Promise<void>> {
  let server = await open(options, overlaps)
  let timer: Timer | undefined
  let closed = false
  if (!server) {
    options.log.info({ listen: options.listen }, 'the agent before this one still listens there: waiting for it to end')
  }
  const again = (): void => {
    timer = clock.after(AGAIN_MS, () => void attempt(), true)
  }
  const attempt = async (): Promise<void> => {
    try {
      server = await open(options, true)
    } catch (error) {
      options.log.error({ listen: options.listen, error: messageOf(error) }, 'a server cannot be opened')
      return
    }
    if (!server) again()
    if (closed) await server?.close()
  }
  if (!server) again()
  return async () => {
    closed = true
    timer?.cancel()
    await server?.close()
  }
}

async function open(options: AdminOptions, overlaps: boolean): Promise<{ close(): Promise<void> } | undefined> {
  try {
    return await openAdmin(options)
  } catch (error) {
    if (overlaps && error instanceof AmbitError && error.code === 'ADMIN_PORT_IN_USE') return undefined
    throw error
  }
}
