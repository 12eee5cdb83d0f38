// A load of keep-alive HTTP/1.1 connections through HBONE, each a CONNECT stream of node:http2, that counts what was lost: a
// request that went out on a connection and got no whole answer, or a wrong one. A connection that could not be opened is no
// lost request; one the waypoint ended after an answer with `connection: close` is opened anew. Must not live here: the waypoint.
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import { tunnel, type Stage } from './waypoint-process.ts'

const REQUEST = 'GET /load HTTP/1.1\r\nhost: api\r\n\r\n'

export interface LoadOptions {
  readonly connections: number
  /** HBONE sessions they are spread over. */
  readonly sessions: number
  /** Waypoints, by host; those that refuse are passed over. */
  readonly hosts: readonly number[]
  readonly request?: string
}

interface Slot {
  session: ClientHttp2Session | undefined
  opening: Promise<ClientHttp2Session> | undefined
}

export class Load {
  answered = 0
  /** Requests without a whole answer: what must stay empty. */
  readonly lost: string[] = []
  readonly statuses = new Map<number, number>()
  /** Connections opened again. */
  reopened = 0
  refused = 0
  readonly #stage: Stage
  readonly #options: LoadOptions
  readonly #slots: Slot[]
  readonly #done: Promise<void>[] = []
  #stopped = false
  #next = 0

  constructor(stage: Stage, options: LoadOptions) {
    this.#stage = stage
    this.#options = options
    this.#slots = Array.from({ length: options.sessions }, () => ({ session: undefined, opening: undefined }))
    for (let i = 0; i < options.connections; i++) this.#done.push(this.#run(i % options.sessions))
  }

  /** Ends after the requests in flight. */
  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#done)
    for (const { session } of this.#slots) session?.destroy()
  }

  async #session(index: number): Promise<ClientHttp2Session> {
    const slot = this.#slots[index] as Slot
    const { session } = slot
    if (session && !session.closed && !session.destroyed) return session
    slot.opening ??= this.#open().finally(() => (slot.opening = undefined))
    return (slot.session = await slot.opening)
  }

  async #open(): Promise<ClientHttp2Session> {
    const { hosts } = this.#options
    for (;;) {
      try {
        return await this.#stage.session(hosts[this.#next++ % hosts.length])
      } catch (error) {
        this.refused++
        if (this.#stopped) throw error
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
  }

  async #run(index: number): Promise<void> {
    while (!this.#stopped) {
      let stream: ClientHttp2Stream
      try {
        stream = await tunnel(await this.#session(index))
      } catch {
        // Refused before a byte of the request: the next session takes it.
        this.refused++
        await new Promise((resolve) => setTimeout(resolve, 2))
        continue
      }
      await this.#requests(stream)
      this.reopened++
    }
  }

  /** Request after request on one connection, until it is ended. */
  #requests(stream: ClientHttp2Stream): Promise<void> {
    return new Promise((resolve) => {
      let text = ''
      let open = false
      let done = false
      const finish = (): void => {
        if (done) return
        done = true
        stream.close()
        resolve()
      }
      const send = (): void => {
        if (this.#stopped) return finish()
        open = true
        stream.write(this.#options.request ?? REQUEST)
      }
      const gone = (how: string) => () => {
        if (open && !done) this.lost.push(`${how} after ${text.length} bytes: ${text.slice(0, 60)}`)
        finish()
      }
      stream.on('data', (chunk: Buffer) => {
        text += chunk.toString('latin1')
        const head = text.indexOf('\r\n\r\n')
        if (head < 0) return
        const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1] ?? 0)
        if (text.length < head + 4 + length) return
        const status = Number(text.slice(9, 12))
        this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
        this.answered++
        open = false
        const close = /\r\nconnection: close/i.test(text.slice(0, head + 2))
        text = ''
        if (close) finish()
        else send()
      })
      stream.on('error', gone('error'))
      stream.on('end', gone('end'))
      stream.on('close', gone('close'))
      send()
    })
  }
}
