// The connection contract as tests: every implementation (Node's sockets, TLS, unix sockets, HTTP/2 CONNECT streams, native I/O)
// runs this one suite. Imported by test files only. Must not live here: what only one implementation does.
import { createHash } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import type { Connection, ConnectionHandler, OpenInfo } from './connection.ts'

/** A handler that writes down what happens and lets a test wait for it. Reads are copied, as `arena` is only borrowed. */
export class Recorder implements ConnectionHandler {
  readonly events: string[] = []
  readonly chunks: Buffer[] = []
  connection: Connection | undefined
  info: OpenInfo | undefined
  error: Error | undefined
  received = 0
  drains = 0
  closes = 0
  /** Run inside the event, for what a test wants done in that turn. */
  onOpening: ((connection: Connection) => void) | undefined
  onReading: ((connection: Connection, arena: Uint8Array, start: number, end: number) => void) | undefined
  onEnding: ((connection: Connection) => void) | undefined
  /** False: count bytes only, for big transfers. */
  keep = true
  #waiting: { test: () => boolean; resolve: () => void }[] = []

  get text(): string {
    return Buffer.concat(this.chunks).toString('latin1')
  }

  get ended(): boolean {
    return this.events.includes('end')
  }

  /** Resolves once `test` holds, judged after each event; the test's own time limit is the bound. */
  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push({ test, resolve }))
  }

  #note(event: string): void {
    this.#write(event)
    const left = this.#waiting.filter(({ test, resolve }) => {
      if (!test()) return true
      resolve()
      return false
    })
    this.#waiting = left
  }

  #write(event: string): void {
    if (this.events.at(-1) !== event) this.events.push(event)
  }

  onOpen(connection: Connection, info: OpenInfo): void {
    this.connection = connection
    this.info = info
    this.#write('open')
    this.onOpening?.(connection)
    this.#note('open')
  }

  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    if (this.keep) this.chunks.push(Buffer.from(arena.subarray(start, end)))
    this.received += end - start
    this.#write('read')
    this.onReading?.(connection, arena, start, end)
    this.#note('read')
  }

  onDrain(): void {
    this.drains++
    this.#note('drain')
  }

  onEnd(connection: Connection): void {
    this.#write('end')
    this.onEnding?.(connection)
    this.#note('end')
  }

  onClose(connection: Connection, error: Error | undefined): void {
    this.connection = connection
    this.closes++
    this.error = error
    this.#note('close')
  }
}

export interface Pair {
  readonly client: Connection
  readonly server: Connection
  /** Closes what the pair stands on. */
  dispose(): Promise<void> | void
}

/** Makes two connected ends, both open when it resolves. */
export type MakePair = (client: ConnectionHandler, server: ConnectionHandler) => Promise<Pair>

export interface Traits {
  /** The medium can say "reset": true everywhere but on unix sockets of Node. */
  readonly resets: boolean
  /** Upper bound of bytes that all buffers between a paused reader and its writer may swallow before `pending` stays above zero. */
  readonly buffered: number
}

const MEGABYTE = 1 << 20

function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

function digest(bytes: Uint8Array | readonly Uint8Array[]): string {
  const hash = createHash('sha256')
  for (const part of bytes instanceof Uint8Array ? [bytes] : bytes) hash.update(part)
  return hash.digest('hex')
}

const turn = () => new Promise((resolve) => setImmediate(resolve))

/** Runs the contract on one implementation. */
export function describeTransport(
  name: string,
  makePair: MakePair,
  traits: Traits = { resets: true, buffered: 64 * MEGABYTE },
): void {
  describe(`the connection contract on ${name}`, () => {
    let pair: Pair | undefined
    let client = new Recorder()
    let server = new Recorder()

    async function open(prepare?: () => void): Promise<Pair> {
      client = new Recorder()
      server = new Recorder()
      prepare?.()
      pair = await makePair(client, server)
      return pair
    }

    afterEach(async () => {
      pair?.client.abort('cancel')
      pair?.server.abort('cancel')
      await pair?.dispose()
      pair = undefined
    })

    it('opens both ends once, before any other event', async () => {
      const it = await open()
      it.client.write(Buffer.from('hello'))
      await server.until(() => server.received === 5)
      expect(client.events.filter((event) => event === 'open')).toEqual(['open'])
      expect(server.events[0]).toBe('open')
      expect(server.text).toBe('hello')
      expect(it.client.writable && it.server.writable).toBe(true)
    })

    it('carries a megabyte each way unchanged', async () => {
      const it = await open()
      const there = pattern(MEGABYTE, 1)
      const back = pattern(MEGABYTE, 2)
      it.client.write(there)
      it.server.write(back)
      await Promise.all([
        server.until(() => server.received >= there.length),
        client.until(() => client.received >= back.length),
      ])
      expect(digest(server.chunks)).toBe(digest(there))
      expect(digest(client.chunks)).toBe(digest(back))
    })

    it('writes only the range it was given', async () => {
      const it = await open()
      it.client.write(Buffer.from('..middle..'), 2, 8)
      it.client.write(Buffer.from('..empty'), 2, 2)
      it.client.end()
      await server.until(() => server.ended)
      expect(server.text).toBe('middle')
    })

    it('keeps what a turn wrote even when the bytes change afterwards', async () => {
      const it = await open()
      const bytes = Buffer.alloc(8 * MEGABYTE, 'a')
      it.client.write(bytes)
      await turn()
      bytes.fill('b')
      it.client.end()
      await server.until(() => server.ended)
      expect(digest(server.chunks)).toBe(digest(Buffer.alloc(8 * MEGABYTE, 'a')))
    })

    it('carries ten thousands of small writes of one turn unchanged, whatever memory they come from', async () => {
      const it = await open()
      const sent: Buffer[] = []
      for (let i = 0; i < 40_000; i++) {
        const piece = Buffer.from(`${i.toString(36)};`)
        sent.push(piece)
        it.client.write(piece)
      }
      const whole = Buffer.concat(sent)
      await server.until(() => server.received >= whole.length)
      expect(digest(server.chunks)).toBe(digest(whole))
    })

    it('lets a reader write the arena on without a copy', async () => {
      const it = await open(() => {
        server.onReading = (connection, arena, start, end) => connection.write(arena, start, end)
      })
      const sent = pattern(2 * MEGABYTE, 3)
      for (let at = 0; at < sent.length; at += 10_000) it.client.write(sent, at, Math.min(at + 10_000, sent.length))
      await client.until(() => client.received >= sent.length)
      expect(digest(client.chunks)).toBe(digest(sent))
    })

    it('ends one direction and goes on with the other', async () => {
      const it = await open()
      it.client.write(Buffer.from('question'))
      it.client.end()
      await server.until(() => server.ended)
      expect(server.text).toBe('question')
      expect(server.closes).toBe(0)
      expect(it.client.writable).toBe(false)
      it.server.write(Buffer.from('answer'))
      it.server.end()
      await Promise.all([client.until(() => client.closes > 0), server.until(() => server.closes > 0)])
      expect(client.text).toBe('answer')
      expect([client.error, server.error]).toEqual([undefined, undefined])
      expect([client.ended, server.ended]).toEqual([true, true])
    })

    it('ends the other way round too', async () => {
      const it = await open()
      it.server.write(Buffer.from('banner'))
      it.server.end()
      await client.until(() => client.ended)
      it.client.write(Buffer.from('bye'))
      it.client.end()
      await Promise.all([client.until(() => client.closes > 0), server.until(() => server.closes > 0)])
      expect(server.text).toBe('bye')
      expect([client.error, server.error]).toEqual([undefined, undefined])
    })

    it('sends what is queued before the end', async () => {
      const it = await open()
      const sent = pattern(3 * MEGABYTE, 4)
      it.client.write(sent)
      it.client.end()
      it.client.write(Buffer.from('ignored: after the end'))
      await server.until(() => server.ended)
      expect(digest(server.chunks)).toBe(digest(sent))
    })

    it('reports the drain after writes that had to wait, also when the end was asked for meanwhile', async () => {
      const it = await open(() => {
        server.keep = false
        server.onOpening = (connection) => connection.pause()
      })
      it.client.write(Buffer.alloc(traits.buffered + 8 * MEGABYTE))
      it.client.end()
      expect(it.client.pending).toBeGreaterThan(0)
      it.server.resume()
      await server.until(() => server.ended)
      await client.until(() => client.drains > 0)
      expect(it.client.pending).toBe(0)
    })

    it('holds the writer back while the reader is paused, and loses nothing', async () => {
      const it = await open(() => {
        server.keep = false
      })
      it.server.pause()
      const block = Buffer.alloc(MEGABYTE, 'x')
      let written = 0
      // Each turn gives the layers below a chance to take more; a paused reader must make them stop.
      for (let i = 0; i < 200 && it.client.pending < 4 * MEGABYTE; i++) {
        it.client.write(block)
        written += block.length
        await turn()
      }
      expect(it.client.pending).toBeGreaterThanOrEqual(4 * MEGABYTE)
      expect(written).toBeLessThan(traits.buffered + 16 * MEGABYTE)
      const before = server.received
      for (let i = 0; i < 20; i++) await turn()
      expect(server.received).toBe(before)
      it.server.resume()
      it.client.end()
      await server.until(() => server.ended)
      expect(server.received).toBe(written)
      expect(it.client.pending).toBe(0)
    })

    it('delivers nothing to an owner that paused in onOpen until it resumes', async () => {
      const it = await open(() => {
        server.onOpening = (connection) => connection.pause()
      })
      it.client.write(Buffer.from('early'))
      for (let i = 0; i < 50; i++) await turn()
      expect(server.received).toBe(0)
      it.server.resume()
      await server.until(() => server.received === 5)
    })

    it('shows an abort to the peer as an error and never as an end', async () => {
      const it = await open()
      it.client.write(Buffer.from('half a mess'))
      await server.until(() => server.received > 0)
      it.client.abort('cancel')
      await client.until(() => client.closes > 0)
      expect(client.error).toBeInstanceOf(Error)
      expect(client.ended).toBe(false)
      if (traits.resets) {
        await server.until(() => server.closes > 0)
        expect(server.error).toBeInstanceOf(Error)
        expect(server.ended).toBe(false)
      }
    })

    it('closes exactly once, whatever is asked for after an abort', async () => {
      const it = await open()
      it.client.abort('timeout')
      it.client.abort('internal')
      it.client.end()
      it.client.write(Buffer.from('nothing'))
      await client.until(() => client.closes > 0)
      it.client.abort('cancel')
      for (let i = 0; i < 20; i++) await turn()
      expect(client.closes).toBe(1)
      expect(it.client.writable).toBe(false)
      expect(it.client.pending).toBe(0)
      expect(it.client.fd).toBe(-1)
    })

    it('closes with an error when the peer ended and this side is cut', async () => {
      const it = await open()
      it.client.end()
      await server.until(() => server.ended)
      it.server.abort('internal')
      await Promise.all([client.until(() => client.closes > 0), server.until(() => server.closes > 0)])
      expect(server.error).toBeInstanceOf(Error)
      if (traits.resets) expect(client.error).toBeInstanceOf(Error)
    })

    it('delivers no event after the owner aborted inside one', async () => {
      const it = await open(() => {
        server.onReading = (connection) => connection.abort('denied')
      })
      it.client.write(Buffer.alloc(MEGABYTE))
      await server.until(() => server.closes > 0)
      expect(server.chunks).toHaveLength(1)
      expect(server.events.filter((event) => event !== 'drain')).toEqual(['open', 'read', 'close'])
    })

    it('cuts a connection whose handler throws, and says so in onClose', async () => {
      const it = await open(() => {
        server.onReading = () => {
          throw new Error('a defect')
        }
      })
      it.client.write(Buffer.from('trigger'))
      await server.until(() => server.closes > 0)
      expect(server.error).toBeInstanceOf(Error)
      if (!traits.resets) return
      await client.until(() => client.closes > 0)
      expect(client.error).toBeInstanceOf(Error)
    })

    it('leaves the slot to its owner', async () => {
      const it = await open()
      const mine = { state: 1 }
      it.server.slot = mine
      it.client.write(Buffer.from('x'))
      await server.until(() => server.received > 0)
      expect(server.connection?.slot).toBe(mine)
    })

    it('answers within the turn of a read, many times over', async () => {
      const it = await open(() => {
        server.onReading = (connection, arena, start, end) => connection.write(arena, start, end)
        client.onReading = (connection) => {
          if (client.received < 500) connection.write(Buffer.from('p'))
          else connection.end()
        }
        server.onEnding = (connection) => connection.end()
      })
      it.client.write(Buffer.from('p'))
      await Promise.all([client.until(() => client.closes > 0), server.until(() => server.closes > 0)])
      expect(client.received).toBe(500)
      expect([client.error, server.error]).toEqual([undefined, undefined])
    })
  })
}
