// What the certificate authority has to say to the cluster: Events on a Secret that cannot be used, and the roots that were in force,
// for the next control. The leader writes; a control that cannot start for want of a usable Secret tells of it too. Must not live
// here: the authority (kube-authority.ts), the roots for pods (trust-bundle.ts).
import { createHash } from 'node:crypto'
import { Backoff } from '../../base/backoff.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import { apply } from '../../kube/apply.ts'
import type { KubeClient } from '../../kube/client.ts'
import { SECRETS } from '../../kube/mesh-kinds.ts'
import type { KubeObject, Resource } from '../../kube/resource.ts'
import type { Leadership } from '../lead.ts'
import { readSecret, ROOTS_SECRET, rootsData, type Secret } from './ca-secret.ts'
import type { CaProblem, KubeAuthority } from './kube-authority.ts'

const EVENTS: Resource = { group: '', version: 'v1', plural: 'events', kind: 'Event', namespaced: true }
/** The API server forgets Events after an hour. */
const REPEAT_MS = 30 * 60_000
const MAX_MESSAGE = 1_024

export interface CaReportOptions {
  readonly client: KubeClient
  readonly namespace: string
  /** Pod name of this replica. */
  readonly replica: string
  readonly clock: Clock
  readonly log: Logger
}

export class CaReport {
  readonly #options: CaReportOptions
  readonly #backoff = new Backoff({ baseMs: 500, maxMs: 30_000 })
  #authority: KubeAuthority | undefined
  #leadership: Leadership | undefined
  #off: (() => void) | undefined
  #turn: Promise<void> = Promise.resolve()
  #timer: Timer | undefined
  #stopped = false
  /** As written last, by this replica or one before. */
  #recorded = ''
  #told = ''

  constructor(options: CaReportOptions) {
    this.#options = options
  }

  /** From now on, while this replica leads. */
  start(authority: KubeAuthority, leadership: Leadership): void {
    this.#authority = authority
    this.#leadership = leadership
    authority.onChange(() => this.#soon())
    this.#off = leadership.onChange((leads) => {
      // Another one may have written meanwhile.
      this.#recorded = ''
      if (leads) this.#soon()
    })
    this.#soon()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#off?.()
    this.#timer?.cancel()
    await this.#turn
  }

  /** Writes an Event on the Secret, whoever leads. A failure is logged only. */
  async tell({ secret, message }: CaProblem): Promise<void> {
    const { client, namespace, replica, clock, log } = this.#options
    try {
      const object = await readSecret(client, namespace, secret)
      const uid = object?.metadata.uid
      if (uid === undefined) return
      const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z')
      const suffix = createHash('sha256').update(`${uid} ${message}`).digest('hex').slice(0, 16)
      const event: KubeObject & Record<string, unknown> = {
        metadata: { namespace, name: `${secret}.${suffix}` },
        involvedObject: { apiVersion: 'v1', kind: 'Secret', namespace, name: secret, uid },
        type: 'Warning',
        reason: 'InvalidCertificateAuthority',
        message: message.slice(0, MAX_MESSAGE),
        count: 1,
        firstTimestamp: now,
        lastTimestamp: now,
        source: { component: 'ambit-control' },
        reportingComponent: 'ambit-control',
        reportingInstance: replica,
      }
      await apply(client, EVENTS, event)
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'an Event on the Secret of the authority could not be written')
    }
  }

  #soon(afterMs = 0): void {
    if (this.#stopped) return
    this.#timer?.cancel()
    const look = (): void => {
      this.#turn = this.#turn.then(() => this.#look())
    }
    this.#timer = this.#options.clock.after(afterMs, look, true)
  }

  async #look(): Promise<void> {
    const problem = this.#authority?.problem
    if (!this.#authority || !this.#leadership?.leads || this.#stopped) return
    if (problem && problem.message !== this.#told) await this.tell(problem)
    this.#told = problem?.message ?? ''
    const recorded = await this.#record()
    if (!recorded) return this.#soon(this.#backoff.next())
    this.#backoff.reset()
    if (!problem) return
    this.#told = ''
    this.#soon(REPEAT_MS)
  }

  /** False if it could not be written. */
  async #record(): Promise<boolean> {
    const { client, namespace, log } = this.#options
    const data = rootsData(this.#authority?.knownRoots() ?? [])
    const text = JSON.stringify(data)
    if (text === this.#recorded) return true
    try {
      await apply<Secret>(client, SECRETS, {
        metadata: { namespace, name: ROOTS_SECRET, labels: { 'app.kubernetes.io/managed-by': 'ambit-control' } },
        type: 'Opaque',
        data,
      })
      this.#recorded = text
      return true
    } catch (error) {
      const why = `${ROOTS_SECRET}: ${messageOf(error)}`
      log.warn({ error: why }, 'the roots in force could not be written down for the next control')
      return false
    }
  }
}
