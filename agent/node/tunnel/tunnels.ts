// The tunnel half of the agent as its main sees it: pods come and go, the state changes, the program drains. Must not live
// here: how one connection is carried (outbound.ts, hbone.ts, plaintext.ts).
import type { Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Http2Server } from '../../http/http2/index.ts'
import type { ListenOptions } from '../../io/connection.ts'
import { TunnelPool } from '../../http/hbone/pool.ts'
import { formatIdentity, sameIdentity, type Identity } from '../../mesh/identity.ts'
import { plaintextMode } from '../../mesh/plaintext-mode.ts'
import { identityOf } from '../../mesh/workload.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import { Canaries } from '../prove/canaries.ts'
import type { PodListeners } from '../redirect/contract.ts'
import type { AgentTarget, TunnelContext, TunnelOptions } from './contract.ts'
import { hboneServer, KEEPALIVE } from './hbone.ts'
import { InboundConnectionBase } from './inbound.ts'
import { LocalPod } from './local-pod.ts'
import { OutboundHandler } from './outbound.ts'
import { PlaintextHandler } from './plaintext.ts'
import { StateWait } from './state-wait.ts'
import { ClientTls, ServerTls } from './tls.ts'

/** Connections that wait in each listener's queue, also while there is no agent; the kernel caps it by net.core.somaxconn. */
const BACKLOG = 4_096
/** While draining: how often is looked, and the pauses after an answer in which a connection is ended. */
const DRAIN_LOOK_MS = 50
const LONG_PAUSE_MS = 1_000
const SHORT_PAUSE_MS = 100
/** Changes of the state are gathered this long before open connections are judged again. */
const REJUDGE_MS = 20

interface Held {
  readonly local: LocalPod
  readonly server: Http2Server
  /** Identity its certificate is kept for, once its workload is known. */
  identity: Identity | undefined
  mode: 'refuse' | 'judge'
}

export interface PodTunnels {
  readonly uid: string
  readonly name: string
  readonly identity: string
  readonly connections: number
  readonly tunnelsIn: number
  readonly plaintext: 'refuse' | 'judge'
}

export class Tunnels {
  readonly #context: TunnelContext
  readonly #wait: StateWait
  readonly #pods = new Map<string, Held>()
  readonly #pool: TunnelPool<AgentTarget>
  #rejudge: Timer | undefined
  #draining = false

  constructor(options: TunnelOptions) {
    const waitMs = options.waitMs ?? 5_000
    this.#wait = new StateWait(options.clock, waitMs)
    const context: TunnelContext = {
      ...options,
      random: options.random ?? Math.random,
      waitMs,
      connectMs: options.connectMs ?? 10_000,
      canaries: options.canaries ?? new Canaries(),
      until: (test) => this.#wait.until(test),
    }
    this.#context = context
    this.#pool = new TunnelPool<AgentTarget>({
      clock: options.clock,
      http2: { clock: options.clock, ...KEEPALIVE },
      // From inside the source pod, so that its own address is the TCP peer.
      open: (target, handler) => {
        const { address, port } = target
        const fd = context.redirect.socket(target.podUid, {
          family: address.includes(':') ? 6 : 4,
          tunnel: { address, port },
        })
        const tls = new ClientTls(context, target)
        return context.transport.connect({ handler, fd, host: address, port, tls, timeoutMs: context.connectMs })
      },
    })
    options.certificates.onRenewed((identity) => this.#renew(formatIdentity(identity)))
    options.certificates.onTrust(() => this.#renew(undefined))
  }

  /** Accepts on a captured pod's listeners. Rejects when one of them cannot be used; nothing is left of it then. */
  async addPod(pod: RegisteredPod, listeners: PodListeners): Promise<void> {
    await this.removePod(pod.uid)
    const context = this.#context
    const local = new LocalPod(context, pod)
    const server = hboneServer(context, local)
    const held: Held = { local, server, identity: undefined, mode: 'judge' }
    this.#pods.set(pod.uid, held)
    try {
      await this.#listen(held, listeners)
    } catch (error) {
      await this.removePod(pod.uid)
      throw error
    }
    this.#follow(held)
  }

  /** Accepts on these listeners from now on and on the old ones no more; connections stay. For a pod that is gone it does nothing. */
  async relisten(uid: string, listeners: PodListeners): Promise<void> {
    const held = this.#pods.get(uid)
    if (!held || this.#draining) return
    const before = held.local.listeners.splice(0)
    try {
      await this.#listen(held, listeners)
    } finally {
      for (const listener of before) await listener.stop()
    }
    if (this.#pods.get(uid) !== held || this.#draining) for (const late of held.local.listeners) await late.stop()
  }

  async #listen({ local, server }: Held, listeners: PodListeners): Promise<void> {
    const context = this.#context
    const outbound = new OutboundHandler(context, this.#pool, local)
    const plaintext = new PlaintextHandler(context, local)
    const tls = new ServerTls(context, local)
    for (let set: PodListeners | undefined = listeners; set; set = set.older) {
      const each: ListenOptions[] = [
        { fd: set.outbound, handler: outbound },
        { fd: set.hbone, handler: server, tls },
        { fd: set.plaintext, handler: plaintext },
      ]
      for (const options of each) local.listeners.push(await context.transport.listen({ ...options, backlog: BACKLOG }))
    }
  }

  /** Ends a pod's connections and lets go of its listeners. */
  async removePod(uid: string): Promise<void> {
    const held = this.#pods.get(uid)
    if (!held) return
    this.#pods.delete(uid)
    const { local, server, identity } = held
    local.stopped = true
    for (const carried of [...local.carried]) carried.cut('shutdown', 'the pod left the mesh')
    server.close()
    this.#pool.drop((target) => target.podUid === uid)
    await Promise.all(local.listeners.map((listener) => listener.stop()))
    if (identity) this.#release(identity)
  }

  /** Something in the state changed. Cheap; calls coalesce. */
  changed(): void {
    this.#wait.changed()
    this.#rejudge ??= this.#context.clock.after(REJUDGE_MS, () => this.#review(), true)
  }

  #review(): void {
    this.#rejudge = undefined
    for (const held of this.#pods.values()) {
      this.#follow(held)
      for (const carried of [...held.local.carried]) {
        // Those that are not open yet are judged when they get there.
        if (carried.flow && carried instanceof InboundConnectionBase) carried.rejudge()
      }
    }
    const view = this.#context.view()
    this.#pool.drop((target) => {
      const source = this.#pods.get(target.podUid)?.local.source
      const workload = view?.workload(target.destination)
      return (
        source === undefined ||
        !sameIdentity(identityOf(source), target.source) ||
        workload === undefined ||
        !workload.addresses.includes(target.address) ||
        !target.accepted.includes(formatIdentity(identityOf(workload)))
      )
    })
  }

  /**
   * Leads over to a new certificate of `uri`, or to a new trust bundle: what was agreed under the old one takes no new
   * connection, on either side, and ends with those it carries.
   */
  #renew(uri: string | undefined): void {
    this.#pool.drain((target) => uri === undefined || formatIdentity(target.source) === uri)
    for (const { server, identity } of this.#pods.values()) {
      if (uri !== undefined && (identity === undefined || formatIdentity(identity) !== uri)) continue
      for (const session of [...server.sessions]) session.drain()
    }
  }

  /** Keeps the certificate and the kernel's mode of a pod in step with its workload. */
  #follow(held: Held): void {
    const { certificates, redirect, view, log } = this.#context
    const { workload, source, uid } = held.local
    const mode = plaintextMode(view(), workload)
    if (mode !== held.mode) {
      try {
        redirect.setPlaintext(uid, mode)
        held.mode = mode
      } catch (error) {
        // The agent judges plaintext itself then, with the same outcome.
        log.error({ pod: held.local.name, error: messageOf(error) }, "the kernel's plaintext mode was not set")
      }
    }
    const identity = source && identityOf(source)
    if (!identity || (held.identity && formatIdentity(held.identity) === formatIdentity(identity))) return
    const before = held.identity
    held.identity = identity
    certificates.prefetch(identity)
    if (before) this.#release(before)
  }

  /** Drops a key once no pod of this node needs it. */
  #release(identity: Identity): void {
    const uri = formatIdentity(identity)
    for (const other of this.#pods.values()) if (other.identity && formatIdentity(other.identity) === uri) return
    this.#context.certificates.forget(identity)
  }

  /** Counts what long-lived connections carried so far: before a scrape. */
  progress(): void {
    for (const { local } of this.#pods.values()) for (const carried of local.carried) carried.progress()
  }

  get connections(): number {
    let count = 0
    for (const { local } of this.#pods.values()) count += local.carried.size
    return count
  }

  get pods(): number {
    return this.#pods.size
  }

  /** Tunnels this node opened. */
  get sessions(): number {
    return this.#pool.sessions
  }

  get waiting(): number {
    return this.#wait.waiting
  }

  status(): readonly PodTunnels[] {
    return [...this.#pods.values()].map(({ local, server, identity, mode }) => ({
      uid: local.uid,
      name: local.name,
      identity: identity ? formatIdentity(identity) : '',
      connections: local.carried.size,
      tunnelsIn: server.sessions.size,
      plaintext: mode,
    }))
  }

  /**
   * No new connections. Running ones may end by themselves for most of `deadlineMs`, are ended at a quiet moment in the rest of
   * it, and cut then.
   */
  async drain(deadlineMs: number): Promise<void> {
    if (this.#draining) return
    this.#draining = true
    this.#rejudge?.cancel()
    await Promise.all(
      [...this.#pods.values()].flatMap(({ local }) => local.listeners.map((listener) => listener.stop())),
    )
    for (const { server } of this.#pods.values()) server.drain()
    this.#pool.drain()
    const { clock } = this.#context
    const until = clock.monotonic() + deadlineMs
    for (;;) {
      const left = until - clock.monotonic()
      if (this.connections === 0 || left <= 0) break
      // Most of the time they may end by themselves. What is left then is kept alive by both ends: better ended between two
      // exchanges than cut within one, so the pause that is waited for becomes shorter.
      const share = left / deadlineMs
      if (share < 0.3) {
        const quietMs = share < 0.1 ? SHORT_PAUSE_MS : LONG_PAUSE_MS
        for (const { local } of this.#pods.values())
          for (const carried of [...local.carried]) carried.endIfQuiet(quietMs)
      }
      await new Promise<void>((resolve) => clock.after(DRAIN_LOOK_MS, resolve))
    }
    for (const uid of [...this.#pods.keys()]) await this.removePod(uid)
    this.#pool.close()
  }
}
