// Who of several replicas writes: the holder of a Lease (coordination.k8s.io/v1), as client-go's leaderelection does it. Times
// are measured here from the moment something was seen, never compared with another machine's clock. Must not live here: what
// a leader does.
import { systemClock, type Clock, type Timer } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { messageOf } from '../base/errors.ts'
import { create, read, replace } from './apply.ts'
import type { KubeClient } from './client.ts'
import { KubeError } from './errors.ts'
import { LEASES } from './mesh-kinds.ts'
import type { KubeObject } from './resource.ts'

interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string
    readonly leaseDurationSeconds?: number
    readonly acquireTime?: string
    readonly renewTime?: string
    readonly leaseTransitions?: number
  }
}

export interface ElectionOptions {
  readonly client: KubeClient
  readonly log: Logger
  readonly namespace: string
  readonly name: string
  /** Who one is: the pod's name. */
  readonly identity: string
  readonly onLeading: () => void
  /** The lease is lost, or could not be renewed in time: nothing more may be written. */
  readonly onLost: () => void
  readonly clock?: Clock
  readonly random?: () => number
  /** How long others wait for a holder that says nothing. Default 15 000. */
  readonly leaseMs?: number
  /** A holder that could not renew for so long stops leading; less than leaseMs. Default 10 000. */
  readonly renewDeadlineMs?: number
  /** Between two attempts, up to 1.2 times as long. Default 2 000. */
  readonly retryMs?: number
}

export class Election {
  readonly #options: ElectionOptions
  readonly #clock: Clock
  readonly #leaseMs: number
  readonly #renewDeadlineMs: number
  readonly #retryMs: number
  /** The lease as last seen, and when it was first seen like that. */
  #seen: { readonly version: string; readonly at: number } | undefined
  #renewedAt = -Infinity
  #leading = false
  #stopped = false
  #timer: Timer | undefined
  #deadline: Timer | undefined
  #turn: Promise<void> = Promise.resolve()
  #holder: string | undefined
  /** Logged last, so that a server that stays away is told of once. */
  #told = ''

  constructor(options: ElectionOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#leaseMs = options.leaseMs ?? 15_000
    this.#renewDeadlineMs = options.renewDeadlineMs ?? 10_000
    this.#retryMs = options.retryMs ?? 2_000
  }

  get leading(): boolean {
    return this.#leading
  }

  /** Who holds it, as last seen. */
  get holder(): string | undefined {
    return this.#holder
  }

  start(): void {
    this.#turn = this.#attempt()
  }

  /** Gives the lease back, so that another one need not wait for its end. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#turn
    if (!this.#leading) return
    this.#lose()
    const { client, namespace, name, identity, log } = this.#options
    try {
      const lease = await read<Lease>(client, LEASES, { namespace, name })
      if (lease?.spec?.holderIdentity === identity)
        await replace(client, LEASES, {
          ...lease,
          spec: { ...lease.spec, holderIdentity: '', leaseDurationSeconds: 1 },
        })
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the lease could not be given back; it ends by itself')
    }
  }

  async #attempt(): Promise<void> {
    try {
      await this.#acquireOrRenew()
      this.#told = ''
    } catch (error) {
      const expected = error instanceof KubeError && error.status === 409
      const code = error instanceof KubeError ? error.code : messageOf(error)
      if (!expected && code !== this.#told) {
        this.#told = code
        this.#options.log.warn({ code, error: messageOf(error) }, 'the lease could not be read or written')
      }
    }
    if (this.#stopped) return
    const random = (this.#options.random ?? Math.random)()
    this.#timer = this.#clock.after(this.#retryMs * (1 + 0.2 * random), () => {
      this.#turn = this.#attempt()
    })
  }

  async #acquireOrRenew(): Promise<void> {
    const { client, namespace, name, identity } = this.#options
    // A write that arrives late must not count as made late.
    const began = this.#clock.monotonic()
    const lease = await read<Lease>(client, LEASES, { namespace, name }, this.#renewDeadlineMs)
    const now = new Date(this.#clock.now()).toISOString().replace('Z', '000Z')
    const spec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#leaseMs / 1000),
      renewTime: now,
    }
    if (!lease) {
      await create<Lease>(client, LEASES, {
        metadata: { namespace, name },
        spec: { ...spec, acquireTime: now, leaseTransitions: 0 },
      })
      return this.#renewed(began)
    }
    const holder = lease.spec?.holderIdentity
    this.#holder = holder
    const version = lease.metadata.resourceVersion ?? ''
    if (this.#seen?.version !== version) this.#seen = { version, at: this.#clock.monotonic() }
    if (holder && holder !== identity) {
      if (this.#leading) this.#lose()
      const theirs = Math.max(this.#leaseMs, (lease.spec?.leaseDurationSeconds ?? 0) * 1000)
      if (this.#clock.monotonic() - this.#seen.at < theirs) return
    }
    const same = holder === identity
    const mine = {
      ...lease,
      spec: {
        ...spec,
        acquireTime: same ? (lease.spec?.acquireTime ?? now) : now,
        leaseTransitions: (lease.spec?.leaseTransitions ?? 0) + (same ? 0 : 1),
      },
    }
    await replace<Lease>(client, LEASES, mine, this.#renewDeadlineMs)
    this.#renewed(began)
  }

  #renewed(began: number): void {
    this.#renewedAt = began
    this.#holder = this.#options.identity
    // The answer came so late that others may have taken it.
    if (this.#clock.monotonic() - began >= this.#renewDeadlineMs) return
    this.#watchDeadline()
    if (this.#leading || this.#stopped) return
    this.#leading = true
    this.#options.log.info({ lease: this.#options.name, identity: this.#options.identity }, 'leading')
    this.#options.onLeading()
  }

  #watchDeadline(): void {
    this.#deadline?.cancel()
    const left = this.#renewedAt + this.#renewDeadlineMs - this.#clock.monotonic()
    this.#deadline = this.#clock.after(left, () => {
      if (this.#leading) this.#lose()
    })
  }

  #lose(): void {
    this.#leading = false
    this.#deadline?.cancel()
    this.#options.log.info({ lease: this.#options.name, identity: this.#options.identity }, 'not leading any more')
    this.#options.onLost()
  }
}
