// Which replica of control writes to the cluster: the holder of one Lease. Every replica serves; what follows from leading is
// each part's own. Must not live here: how a lease is held (kube/lease.ts).
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { KubeClient } from '../kube/client.ts'
import { Election } from '../kube/lease.ts'

export const LEADER_LEASE = 'ambit-control-leader'

/** What a part that writes asks. */
export interface Leadership {
  readonly leads: boolean
  /** Who holds the lease, as last seen; '' before anybody was seen. */
  readonly holder: string
  /** Hears when that changes; the call-back of a part must stop its writing at once when it is told false. Returns the end of hearing. */
  onChange(listener: (leads: boolean) => void): () => void
}

export interface LeadOptions {
  readonly client: KubeClient
  readonly namespace: string
  /** Pod name of this replica. */
  readonly replica: string
  readonly clock: Clock
  readonly log: Logger
  /** As in kube/lease.ts; for tests. */
  readonly leaseMs?: number
  readonly renewDeadlineMs?: number
  readonly retryMs?: number
}

/** Takes part in the election from `start` until `stop`, which gives the lease back. */
export class Leader implements Leadership {
  readonly #election: Election
  readonly #log: Logger
  readonly #listeners = new Set<(leads: boolean) => void>()

  constructor({ replica, log, ...options }: LeadOptions) {
    this.#log = log
    this.#election = new Election({
      ...options,
      log,
      name: LEADER_LEASE,
      identity: replica,
      onLeading: () => this.#tell(true),
      onLost: () => this.#tell(false),
    })
  }

  get leads(): boolean {
    return this.#election.leading
  }

  get holder(): string {
    return this.#election.holder ?? ''
  }

  onChange(listener: (leads: boolean) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  start(): void {
    this.#election.start()
  }

  stop(): Promise<void> {
    return this.#election.stop()
  }

  #tell(leads: boolean): void {
    for (const listener of this.#listeners)
      try {
        listener(leads)
      } catch (error) {
        // One part's fault must not keep the others from hearing that they may not write any more.
        this.#log.error({ error: messageOf(error) }, 'a part could not take up a change of the leader')
      }
  }
}
