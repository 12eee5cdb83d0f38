// The TypeScript half of a turn: the memory shared with the addon, the table of connections, what each event becomes, and the
// commands collected until the turn ends. One per process (per worker thread), started at first use. Must not live here: the
// contract's objects (connection.ts, transport.ts), certificates (tls.ts).
import {
  ABORT,
  ACCEPT_FAILED,
  ACCEPTED,
  ASKED,
  CLOSED,
  CONNECTED,
  DRAINED,
  ENDED,
  HELLO,
  nativeIo,
  READ,
  REGION_ARENA,
  REGION_COPIES,
  REGION_SLAB,
  RESUME,
  PAUSED,
  SECURE,
  WAITING,
  WRITE,
  type NativeIo,
} from '../../../native/io/index.ts'
import { slab } from '../slab.ts'
import type { NativeConnection } from './connection.ts'
import type { NativeListener } from './listener.ts'

/**
 * Bytes of one round of reads. Measured (ARCHITECTURE.md, "Batched I/O"): from 256 KiB up throughput does not change, and all
 * of it counts as resident memory once a busy round has touched it.
 */
export const ARENA_SIZE = Number(process.env['AMBIT_IO_ARENA'] ?? 524_288)
/** What `write` copies of foreign arrays before it hands them over; full, they are handed over at once. */
const COPIES_SIZE = 262_144
/** Bound on connections open at once, both directions together: the tables below take 9 bytes for each, touched as used. */
const MOST_CONNECTIONS = 131_072
const MOST_EVENTS = 2_048
const MOST_COMMANDS = 8_192
/** An owner that sees this much pending waits for `onDrain`; one that sees less goes on, and is not woken for it. */
const ASK_FROM = 65_536

export class Engine {
  readonly native: NativeIo = nativeIo()
  readonly arena: Buffer = Buffer.allocUnsafeSlow(ARENA_SIZE)
  readonly pending = new Uint32Array(MOST_CONNECTIONS)
  readonly flags = new Uint8Array(MOST_CONNECTIONS)
  readonly stamps = new Uint32Array(MOST_CONNECTIONS)
  readonly connections: (NativeConnection | undefined)[] = []
  readonly listeners: (NativeListener | undefined)[] = []
  readonly #events = new Int32Array(MOST_EVENTS * 4)
  readonly #commands = new Int32Array(MOST_COMMANDS * 4)
  /** [0]: commands given and not carried out. */
  readonly #control = new Int32Array(4)
  readonly #copies: Buffer = Buffer.allocUnsafeSlow(COPIES_SIZE)
  #copied = 0
  #inTurn = false
  #scheduled = false

  constructor() {
    this.native.start(
      {
        arena: this.arena,
        slab: slab.home,
        copies: this.#copies,
        events: this.#events,
        commands: this.#commands,
        control: this.#control,
        pending: this.pending,
        flags: this.flags,
        stamps: this.stamps,
      },
      (count) => this.#turn(count),
    )
  }

  /** Queues bytes[start, end) for a connection: arena and slab by reference, anything else by a copy. */
  write(id: number, bytes: Uint8Array, start: number, end: number): void {
    this.pending[id] = (this.pending[id] as number) + (end - start)
    if (bytes === this.arena) this.command(WRITE | (REGION_ARENA << 8), id, start, end)
    else if (bytes === slab.home) this.command(WRITE | (REGION_SLAB << 8), id, start, end)
    else this.#copy(id, bytes, start, end)
  }

  /** What a connection has pending. */
  look(id: number): number {
    const pending = this.pending[id] as number
    if (pending >= ASK_FROM) this.flags[id] = (this.flags[id] as number) | ASKED
    return pending
  }

  pause(id: number): void {
    this.flags[id] = (this.flags[id] as number) | PAUSED
  }

  resume(id: number): void {
    const flags = this.flags[id] as number
    this.flags[id] = flags & ~(PAUSED | WAITING)
    if ((flags & WAITING) !== 0) this.command(RESUME, id, 0, 0)
  }

  /** Gives a command, to be carried out at the end of the turn, or of the task where no turn is running. */
  command(operation: number, id: number, a: number, b: number): void {
    const control = this.#control
    let count = control[0] as number
    if (count === MOST_COMMANDS) {
      this.flush()
      count = 0
    }
    const commands = this.#commands
    const at = count * 4
    commands[at] = operation
    commands[at + 1] = id
    commands[at + 2] = a
    commands[at + 3] = b
    control[0] = count + 1
    if (!this.#inTurn && !this.#scheduled) {
      this.#scheduled = true
      process.nextTick(this.#onTick)
    }
  }

  /** Carries out what was asked for so far. */
  flush(): void {
    const count = this.#control[0] as number
    this.#control[0] = 0
    this.#copied = 0
    if (count > 0) this.native.flush(count)
  }

  readonly #onTick = (): void => {
    this.#scheduled = false
    this.flush()
  }

  #copy(id: number, bytes: Uint8Array, start: number, end: number): void {
    let from = start
    while (from < end) {
      let room = COPIES_SIZE - this.#copied
      if (room === 0) {
        this.flush()
        room = COPIES_SIZE
      }
      const take = Math.min(end - from, room)
      const at = this.#copied
      this.#copies.set(from === 0 && take === bytes.length ? bytes : bytes.subarray(from, from + take), at)
      this.command(WRITE | (REGION_COPIES << 8), id, at, at + take)
      // After the command: a full list is carried out first, which frees the room of the others but not of this one.
      this.#copied = at + take
      from += take
    }
  }

  #turn(count: number): void {
    // Promises of the last turn have run and its commands are carried out: nothing refers to these any more.
    if (this.#control[0] === 0) {
      slab.restart()
      this.#copied = 0
    }
    this.#inTurn = true
    const events = this.#events
    const { connections } = this
    for (let i = 0, at = 0; i < count; i++, at += 4) {
      const kind = events[at] as number
      const id = events[at + 1] as number
      const a = events[at + 2] as number
      if (kind === READ) {
        connections[id]?.read(this.arena, a, events[at + 3] as number)
        continue
      }
      switch (kind) {
        case ACCEPTED:
          if (this.listeners[a]) this.listeners[a].accepted(id)
          else this.command(ABORT, id, 0, 0)
          break
        case ACCEPT_FAILED:
          this.listeners[id]?.acceptFailed(a)
          break
        case CONNECTED:
          connections[id]?.connected()
          break
        case HELLO:
          connections[id]?.hello()
          break
        case SECURE:
          connections[id]?.secured()
          break
        case DRAINED:
          connections[id]?.drained()
          break
        case ENDED:
          connections[id]?.peerEnded()
          break
        case CLOSED: {
          const connection = connections[id]
          connections[id] = undefined
          connection?.closed(a)
          break
        }
      }
    }
    this.#inTurn = false
    // What the turn's own promises still write is carried out with it; Node runs them before the addon looks at the commands.
  }
}

let engine: Engine | undefined

/** The process's engine, started at first use. Throws when the addon is not built. */
export function theEngine(): Engine {
  return (engine ??= new Engine())
}
