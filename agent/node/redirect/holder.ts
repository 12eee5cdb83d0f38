// A client of the holder, which keeps listening sockets while there is no agent (native/holder/protocol.h). Each request is a
// connection of its own, so that nothing has to be known of holders that come and go. Must not live here: which sockets are
// kept (listeners.ts, vault.ts), and when (keeping.ts).
import { closeFd, packetSocket, recvFds, sendFds, BpfError } from '../../../native/bpf/index.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'

const MAGIC = 0x4842_4d41
const VERSION = 1
const HEAD = 24
const BODY_MAX = 16_384
const SET_MAX = 8
/** enum holder_kind */
const kinds = { status: 1, put: 2, get: 3, list: 4, drop: 5, dropAll: 6 } as const

/** errno: what may be otherwise soon. A holder that takes over from another is busy for a moment, one that starts is away. */
const EBUSY = 16
const ENOENT = 2
/** A take-over of a full node takes a tenth of it. */
export const PATIENCE_MS = 2_000
/** An answer may take so long, whatever the patience. */
const ANSWER_MS = 500
const AGAIN_MS = 20
/** Between looks for an answer, which is there after some 50 µs. */
const LOOK_MS = 1

interface Answer {
  readonly status: number
  readonly count: number
  readonly instance: bigint
  readonly body: Buffer
  readonly fds: readonly number[]
}

export class Holder {
  readonly path: string
  /** A request is tried for so long. */
  patienceMs = PATIENCE_MS

  constructor(path: string) {
    this.path = path
  }

  /** How many sets there are, and which run of which holder answered. Throws AmbitError REDIRECT_HOLDER, as all here do. */
  async status(): Promise<{ readonly sets: number; readonly instance: bigint }> {
    const { count, instance } = await this.#ask('status', '')
    return { sets: count, instance }
  }

  /** Has listening sockets, or one sealed memory, kept under a name, in place of what was; this process's descriptors stay its own. */
  async put(name: string, fds: readonly number[]): Promise<void> {
    await this.#ask('put', name, fds)
  }

  /** New descriptors of what has that name, the caller's to close; undefined if there is nothing. */
  async get(name: string): Promise<readonly number[] | undefined> {
    const { status, fds } = await this.#ask('get', name)
    return status === ENOENT ? undefined : fds
  }

  /** All names that begin so. */
  async list(prefix: string): Promise<string[]> {
    const found: string[] = []
    for (let after = ''; ;) {
      const { body } = await this.#ask('list', after)
      const names = body.toString('latin1').split('\0').filter(Boolean)
      const last = names.at(-1)
      if (last === undefined) return found
      found.push(...names.filter((name) => name.startsWith(prefix)))
      after = last
    }
  }

  /** No longer keeps what has that name. */
  async drop(name: string): Promise<void> {
    await this.#ask('drop', name)
  }

  /** No longer keeps anything whose name begins so; how many sets that were. */
  async dropAll(prefix: string): Promise<number> {
    return (await this.#ask('dropAll', prefix)).count
  }

  async #ask(kind: keyof typeof kinds, body: string, fds: readonly number[] = []): Promise<Answer> {
    const until = performance.now() + this.patienceMs
    for (;;) {
      let problem: string
      try {
        const answer = await this.#exchange(kinds[kind], body, fds)
        if (answer && (answer.status === 0 || answer.status === ENOENT)) return answer
        problem = answer ? `it answered errno ${answer.status}` : 'it did not answer'
        if (answer && answer.status !== EBUSY) throw this.#failure(kind, problem)
      } catch (error) {
        if (!(error instanceof BpfError)) throw error
        problem = messageOf(error)
      }
      if (performance.now() + AGAIN_MS > until) throw this.#failure(kind, problem)
      await sleep(AGAIN_MS)
    }
  }

  /** One request on a connection of its own; undefined if the other end went away, or time ran out. */
  async #exchange(kind: number, body: string, fds: readonly number[]): Promise<Answer | undefined> {
    const until = performance.now() + ANSWER_MS
    const socket = packetSocket(this.path)
    try {
      const request = Buffer.alloc(HEAD + Buffer.byteLength(body))
      request.writeUInt32LE(MAGIC, 0)
      request.writeUInt16LE(VERSION, 4)
      request.writeUInt16LE(kind, 6)
      request.write(body, HEAD)
      sendFds(socket, request, fds)
      for (;;) {
        const got = recvFds(socket, HEAD + BODY_MAX, SET_MAX)
        if (got) return answerOf(got)
        if (performance.now() > until) return undefined
        await sleep(LOOK_MS)
      }
    } finally {
      closeFd(socket)
    }
  }

  #failure(kind: string, problem: string): AmbitError {
    return new AmbitError('REDIRECT_HOLDER', `The holder at ${this.path} did not do '${kind}': ${problem}.`, {
      hint: 'Without it, connections that are opened while no agent runs are refused, and a new agent needs control to have its keys. See whether ambit-holder runs there.',
    })
  }
}

function answerOf({ bytes, fds }: { bytes: Uint8Array; fds: readonly number[] }): Answer | undefined {
  const packet = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (packet.length < HEAD || packet.readUInt32LE(0) !== MAGIC) {
    fds.forEach(closeFd)
    return undefined
  }
  return {
    status: packet.readInt32LE(8),
    count: packet.readUInt32LE(12),
    instance: packet.readBigUInt64LE(16),
    body: packet.subarray(HEAD),
    fds,
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
