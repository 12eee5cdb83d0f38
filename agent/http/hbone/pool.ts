// Pooled HBONE client tunnels: HTTP/2 sessions over mutual TLS, shared by the CONNECT streams of one key and never across keys. The
// key is the caller's statement of who may share: source workload, identities, destination workload, address.
// Must not live here: who may talk to whom, how the TLS connection is made (the caller opens it), what flows in a tunnel.
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import type { Connection, ConnectionHandler } from '../../io/connection.ts'
import { http2Client, http2ClientHandler, openTunnel, type Http2Options, type TunnelInfo } from '../http2/index.ts'
import type { ClientSession, Headers, SessionEvents } from '../message.ts'

export interface TunnelTarget {
  /** Streams share a session only if their keys are equal. */
  readonly key: string
}

export interface TunnelPoolOptions<T extends TunnelTarget> {
  /** Starts the TLS connection of a session with the given handler (`Transport.connect`). Throwing fails the requests that wait. */
  readonly open: (target: T, handler: ConnectionHandler) => Connection
  readonly clock: Clock
  /** Streams on one session; default 100, as ztunnel. The peer's own limit holds as well. */
  readonly maxStreams?: number
  /** A session without streams is closed after this; default 300 000 ms. */
  readonly idleMs?: number
  /** Requests that may wait for sessions of one key; default 4 096. More fail with TUNNEL_OVERFLOW. */
  readonly maxWaiting?: number
  readonly http2?: Http2Options
}

export interface TunnelRequest {
  readonly authority: string
  readonly headers: Headers
  /** The tunnel's owner. `onClose` without `onOpen` says that the peer refused it. */
  readonly handler: ConnectionHandler
  readonly info?: TunnelInfo
  readonly slot?: unknown
  /** The stream was started: before `onOpen`. */
  onStream?(connection: Connection): void
  /**
   * The session underneath takes nothing new any more (its peer goes away, or its certificate was renewed) and ends with its last
   * stream: this tunnel had better end at a quiet moment, since a peer does not wait for ever. Told once.
   */
  onDraining?(): void
  /** No session could be had; the handler hears nothing. */
  onFailed(error: Error): void
}

interface Member<T extends TunnelTarget> {
  readonly group: Group<T>
  session: ClientSession
  opened: boolean
  /** Drained while it was still opening: it takes nothing and ends once it is open. */
  retired: boolean
  idle: Timer | undefined
  /** Those who want to hear of its draining. */
  readonly carries: Set<TunnelRequest>
}

interface Group<T extends TunnelTarget> {
  readonly target: T
  readonly members: Set<Member<T>>
  readonly waiting: TunnelRequest[]
}

export class TunnelPool<T extends TunnelTarget> implements SessionEvents {
  readonly #options: TunnelPoolOptions<T>
  readonly #groups = new Map<string, Group<T>>()
  readonly #maxStreams: number
  readonly #idleMs: number
  readonly #maxWaiting: number

  constructor(options: TunnelPoolOptions<T>) {
    this.#options = options
    this.#maxStreams = options.maxStreams ?? 100
    this.#idleMs = options.idleMs ?? 300_000
    this.#maxWaiting = options.maxWaiting ?? 4_096
  }

  /** Sessions: opening, open or draining. */
  get sessions(): number {
    let count = 0
    for (const group of this.#groups.values()) count += group.members.size
    return count
  }

  /** Opens a tunnel on a pooled session, or on a new one. */
  request(target: T, request: TunnelRequest): void {
    let group = this.#groups.get(target.key)
    if (!group) this.#groups.set(target.key, (group = { target, members: new Set(), waiting: [] }))
    for (const member of group.members) {
      if (member.opened && member.session.available > 0) {
        this.#start(member, request)
        return
      }
    }
    if (group.waiting.length >= this.#maxWaiting) {
      request.onFailed(
        new AmbitError('TUNNEL_OVERFLOW', `${this.#maxWaiting} connections already wait for a tunnel to this peer.`),
      )
      return
    }
    group.waiting.push(request)
    this.#grow(group)
  }

  /** A request that waits for a session gave up. True if it was still waiting. */
  cancel(target: T, request: TunnelRequest): boolean {
    const group = this.#groups.get(target.key)
    const at = group ? group.waiting.indexOf(request) : -1
    if (!group || at < 0) return false
    group.waiting.splice(at, 1)
    return true
  }

  /** A request that hears of draining is over. */
  ended(target: T, request: TunnelRequest): void {
    for (const member of this.#groups.get(target.key)?.members ?? []) if (member.carries.delete(request)) return
  }

  /** Closes the sessions of targets that must not be used any more (a workload went), with their streams. */
  drop(unwanted: (target: T) => boolean): void {
    for (const [key, group] of this.#groups) {
      if (!unwanted(group.target)) continue
      this.#groups.delete(key)
      this.#fail(group, new AmbitError('TUNNEL_DROPPED', 'The workload at one end of the tunnel is gone.'))
      for (const member of [...group.members]) member.session.close()
    }
  }

  /**
   * GOAWAY on every session, or on those of the targets asked for (a certificate was renewed): running streams end by
   * themselves, new ones get a new session.
   */
  drain(wanted: (target: T) => boolean = () => true): void {
    for (const group of this.#groups.values()) {
      if (!wanted(group.target)) continue
      for (const member of [...group.members]) {
        if (member.opened) member.session.drain()
        else member.retired = true
      }
      // Who waits for a session that is retired before it opened must not wait for it alone.
      if (group.waiting.length > 0) this.#grow(group)
    }
  }

  close(): void {
    this.drop(() => true)
  }

  // --- SessionEvents; `slot` of a session is its Member.

  onAvailable(session: ClientSession): void {
    const member = session.slot as Member<T>
    member.opened = true
    if (member.retired) {
      session.drain()
      return
    }
    const { waiting } = member.group
    while (waiting.length > 0 && session.available > 0) this.#start(member, waiting.shift() as TunnelRequest)
    if (session.active === 0) this.#startIdle(member)
    else this.#stopIdle(member)
    if (waiting.length > 0) this.#grow(member.group)
  }

  onDraining(session: ClientSession): void {
    const member = session.slot as Member<T>
    this.#stopIdle(member)
    const carried = [...member.carries]
    member.carries.clear()
    for (const request of carried) request.onDraining?.()
    // It stays a member, which has nothing available, until it closes: `drop` must reach its streams too.
    this.#settle(member.group)
  }

  onClose(session: ClientSession, error: Error | undefined): void {
    const member = session.slot as Member<T> | null
    if (!member) return
    this.#stopIdle(member)
    const { group } = member
    group.members.delete(member)
    if (!member.opened) {
      // A failed connect fails who waited for it; the others wait for sessions that are still opening.
      const opening = [...group.members].some((other) => !other.opened && !other.retired)
      if (!opening)
        this.#fail(group, error ?? new AmbitError('TUNNEL_CLOSED', 'The peer closed before the tunnel was open.'))
    }
    this.#settle(group)
  }

  #settle(group: Group<T>): void {
    if (group.waiting.length > 0) this.#grow(group)
    else if (group.members.size === 0 && this.#groups.get(group.target.key) === group)
      this.#groups.delete(group.target.key)
  }

  /** One new session while more wait than those that are opening will take. */
  #grow(group: Group<T>): void {
    let room = 0
    for (const member of group.members) if (!member.opened && !member.retired) room += this.#maxStreams
    if (room >= group.waiting.length) return
    const member: Member<T> = {
      group,
      session: undefined as never,
      opened: false,
      retired: false,
      idle: undefined,
      carries: new Set(),
    }
    let connection: Connection
    try {
      connection = this.#options.open(group.target, http2ClientHandler)
    } catch (error) {
      this.#fail(group, error instanceof Error ? error : new AmbitError('TUNNEL_OPEN', messageOf(error)))
      return
    }
    group.members.add(member)
    const session = http2Client(connection, this, { maxStreams: this.#maxStreams, ...this.#options.http2 })
    member.session = session
    session.slot = member
  }

  #start(member: Member<T>, request: TunnelRequest): void {
    this.#stopIdle(member)
    const { session } = member
    let connection: Connection
    try {
      connection = openTunnel(session, request.authority, request.headers, request.handler, request.info, request.slot)
    } catch (error) {
      // What this one asked for cannot be sent; the session and the others are none the worse.
      request.onFailed(error instanceof Error ? error : new AmbitError('TUNNEL_OPEN', messageOf(error)))
      return
    }
    if (request.onDraining) member.carries.add(request)
    request.onStream?.(connection)
  }

  #fail(group: Group<T>, error: Error): void {
    for (const request of group.waiting.splice(0)) request.onFailed(error)
  }

  #startIdle(member: Member<T>): void {
    if (member.idle) return
    member.idle = this.#options.clock.after(
      this.#idleMs,
      () => {
        member.idle = undefined
        if (member.session.active === 0) member.session.close()
      },
      true,
    )
  }

  #stopIdle(member: Member<T>): void {
    member.idle?.cancel()
    member.idle = undefined
  }
}
