// Proves again and again that each enrolled pod is protected: what is in the kernel is looked at and put right, then a
// connection is sent through it, one way after the other. Must not live here: what is looked at (redirect/checkup.ts), one canary (flight.ts).
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { RegisteredPod } from '../enroll/contract.ts'
import type { Checks, KubeletState, Repair } from '../redirect/checks.ts'
import type { PodListeners } from '../redirect/contract.ts'
import { flyIn, flyOut, type FlightContext } from './flight.ts'

/** Every pod and the node are looked at this often. A look costs some 0.35 ms of CPU, nine tenths of it for the canary. */
const INTERVAL_MS = 5_000
/** On loopback of one machine a connection takes 0.1 ms; this much is a way that is broken, or a machine that is. */
const DEADLINE_MS = 2_000

/** What of the agent itself was put right, beside the kernel: `accept` = the agent did not take what reached its listeners. */
export type Mended = Repair | 'accept'

export interface ProverOptions extends Omit<FlightContext, 'redirect' | 'deadlineMs'> {
  readonly redirect: FlightContext['redirect'] & Checks
  /** Accepts anew, on these listeners, as the tunnel half does. */
  readonly relisten: (uid: string, listeners: PodListeners) => Promise<void>
  readonly clock: Clock
  readonly log: Logger
  readonly intervalMs?: number
  readonly deadlineMs?: number
  /**
   * True while another agent may accept on the same listeners: a canary could land there, so none is sent, and what is in the
   * kernel is all that is looked at. Default never.
   */
  readonly shared?: () => boolean
  /** [0, 1): spreads the pods over the interval. */
  readonly random?: () => number
  /** Told of each repair, the pod's uid or '' for the node's: what was made anew may have to be filled anew. */
  readonly onRepair?: (uid: string, what: Mended) => void
}

/** How an enrolled pod stands. */
export interface Proof {
  readonly uid: string
  readonly namespace: string
  readonly name: string
  /** The last look found everything in order, or put it there, and the last canary of each way arrived. */
  readonly protected: boolean
  /** Milliseconds since the epoch of the last look that did; undefined before the first. */
  readonly provedAt: number | undefined
  /** What is wrong, '' if nothing is known to be. */
  readonly problem: string
  readonly repairs: number
}

/** A way through a pod that canaries take. */
interface Way {
  readonly direction: 'outbound' | 'inbound'
  readonly family: 4 | 6
  /** The pod's, of that family. */
  readonly address: string
  /** What the last canary met, '' if it arrived. */
  problem: string
}

function waysOf(pod: RegisteredPod): readonly Way[] {
  const ways: Way[] = []
  for (const family of [4, 6] as const) {
    const address = pod.addresses.find((one) => one.includes(':') === (family === 6))
    if (address === undefined) continue
    for (const direction of ['outbound', 'inbound'] as const) ways.push({ direction, family, address, problem: '' })
  }
  return ways
}

interface Watched {
  readonly pod: RegisteredPod
  readonly ways: readonly Way[]
  looks: number
  timer: Timer | undefined
  protected: boolean
  provedAt: number | undefined
  problem: string
  /** The log has it that something is wrong. */
  told: boolean
  repairs: number
  /** Repairs of the last look, to log only what is new. */
  before: readonly Mended[]
}

export class Prover {
  readonly #options: ProverOptions
  readonly #flight: FlightContext
  readonly #intervalMs: number
  readonly #pods = new Map<string, Watched>()
  /** By what was repaired. */
  readonly repairs = new Map<Mended, number>()
  readonly failures = { outbound: 0, inbound: 0 }
  #nodeBefore: readonly Mended[] = []
  #kubelet = ''
  #node: Timer | undefined
  #closed = false
  #succeeded = false

  constructor(options: ProverOptions) {
    this.#options = options
    this.#flight = { ...options, deadlineMs: options.deadlineMs ?? DEADLINE_MS }
    this.#intervalMs = options.intervalMs ?? INTERVAL_MS
  }

  get kubelet(): KubeletState {
    return this.#options.redirect.kubelet
  }

  /** A newer agent has taken the node over: this one proves nothing any more. */
  get succeeded(): boolean {
    return this.#succeeded
  }

  start(): void {
    this.#tellKubelet()
    this.#node = this.#options.clock.after(
      this.#intervalMs,
      () => {
        this.checkNode()
        if (!this.#closed) this.start()
      },
      true,
    )
  }

  /** From now on this pod is proved; the first time at once. */
  add(pod: RegisteredPod): void {
    this.remove(pod.uid)
    if (this.#closed) return
    const watched: Watched = {
      pod,
      ways: waysOf(pod),
      looks: 0,
      timer: undefined,
      protected: false,
      provedAt: undefined,
      problem: 'not proved yet',
      told: false,
      repairs: 0,
      before: [],
    }
    this.#pods.set(pod.uid, watched)
    // Once at once, then at its own time within the interval, so that pods enrolled together are not looked at together.
    this.#later(watched, 0, (this.#options.random ?? Math.random)() * this.#intervalMs)
  }

  remove(uid: string): void {
    this.#pods.get(uid)?.timer?.cancel()
    this.#pods.delete(uid)
  }

  status(): readonly Proof[] {
    return [...this.#pods.values()].map(({ pod, protected: held, provedAt, problem, repairs }) => ({
      uid: pod.uid,
      namespace: pod.namespace,
      name: pod.name,
      protected: held,
      provedAt,
      problem,
      repairs,
    }))
  }

  close(): void {
    this.#closed = true
    this.#node?.cancel()
    for (const { timer } of this.#pods.values()) timer?.cancel()
    this.#pods.clear()
  }

  #later(watched: Watched, ms: number, next = this.#intervalMs): void {
    watched.timer = this.#options.clock.after(
      ms,
      () => {
        void this.#prove(watched).then(() => {
          if (this.#pods.get(watched.pod.uid) === watched) this.#later(watched, next)
        })
      },
      true,
    )
  }

  /** One look at what belongs to the node. */
  checkNode(): void {
    const { redirect, log } = this.#options
    try {
      const found = redirect.checkNode()
      if (found === 'succeeded') {
        this.#succeeded = true
        log.info('a newer agent has taken this node over; this one proves nothing any more')
        this.close()
        return
      }
      this.#count('', '', found, this.#nodeBefore)
      this.#nodeBefore = found
    } catch (error) {
      log.error({ error: messageOf(error) }, "the node's kernel programs cannot be put right")
    }
  }

  /** Says whose probes pass, whenever that changes. */
  #tellKubelet(): void {
    const { redirect, log } = this.#options
    const { state, cgroup, detail } = redirect.kubelet
    const now = `${state} ${cgroup} ${detail}`
    if (now === this.#kubelet) return
    this.#kubelet = now
    if (state === 'exempt') log.info({ cgroup, detail }, "the kubelet's probes pass")
    else if (state === 'shared')
      log.warn({ cgroup, detail }, "the kubelet cannot be told apart: policy judges the node's plaintext")
    else log.info({ detail }, 'no kubelet is known, no probe passes')
  }

  /** One look at one pod, now. Resolves with its state; undefined for a pod that is not watched. */
  async prove(uid: string): Promise<Proof | undefined> {
    const watched = this.#pods.get(uid)
    if (watched) await this.#prove(watched)
    return this.status().find((proof) => proof.uid === uid)
  }

  async #prove(watched: Watched): Promise<void> {
    const { uid } = watched.pod
    const repairs: Mended[] = []
    let problem: string
    try {
      problem = await this.#look(watched, repairs)
    } catch (error) {
      problem = messageOf(error)
    }
    // It left meanwhile, or a newer agent came: what was found means nothing.
    if (this.#pods.get(uid) !== watched) return
    if (problem !== '') this.checkNode()
    if (this.#pods.get(uid) === watched) this.#conclude(watched, problem, repairs)
  }

  async #look(watched: Watched, repairs: Mended[]): Promise<string> {
    const { pod } = watched
    const { redirect, relisten } = this.#options
    const found = await redirect.checkPod(pod.uid)
    repairs.push(...found.repairs)
    const relistened = found.repairs.includes('listener')
    if (relistened) await relisten(pod.uid, found.listeners)
    if (this.#options.shared?.() === true) return ''
    const { ways } = watched
    // One way a look, in turn; all of them at first, after a repair, and while one is broken.
    const all = watched.looks === 0 || repairs.length > 0 || ways.some(({ problem }) => problem !== '')
    const turn = watched.looks % Math.max(1, ways.length)
    const due = all ? ways : ways.slice(turn, turn + 1)
    watched.looks++
    await this.#send(pod, due)
    const broken = due.filter((way) => way.problem !== '')
    if (broken.length > 0 && !relistened && this.#pods.get(pod.uid) === watched) {
      // All looks well and nothing arrives: perhaps it is this agent that does not accept.
      await relisten(pod.uid, found.listeners)
      await this.#send(pod, broken)
      if (broken.every((way) => way.problem === '')) repairs.push('accept')
    }
    return ways
      .flatMap(({ direction, family, problem }) =>
        problem === '' ? [] : [`the ${direction} canary over IPv${family} failed: ${problem}`],
      )
      .join('; ')
  }

  async #send(pod: RegisteredPod, ways: readonly Way[]): Promise<void> {
    await Promise.all(
      ways.map(async (way) => {
        const { direction, family } = way
        way.problem =
          direction === 'outbound'
            ? await flyOut(this.#flight, pod.uid, family)
            : await flyIn(this.#flight, pod.uid, way.address)
        if (way.problem !== '') this.failures[direction]++
      }),
    )
  }

  #conclude(watched: Watched, problem: string, repairs: readonly Mended[]): void {
    const { log, clock } = this.#options
    const { pod } = watched
    const name = `${pod.namespace}/${pod.name}`
    this.#count(pod.uid, name, repairs, watched.before)
    watched.before = repairs
    watched.repairs += repairs.length
    if (problem === '') {
      if (!watched.protected && watched.provedAt !== undefined) log.info({ pod: name }, 'the pod is protected again')
      watched.provedAt = clock.now()
    } else if (!watched.told) log.error({ pod: name, problem }, 'the pod is not proved to be protected')
    watched.told = problem !== ''
    watched.protected = problem === ''
    watched.problem = problem
  }

  #count(uid: string, name: string, repairs: readonly Mended[], before: readonly Mended[]): void {
    for (const what of repairs) {
      this.repairs.set(what, (this.repairs.get(what) ?? 0) + 1)
      // Who undoes it again and again shall not fill the log.
      if (!before.includes(what)) {
        this.#options.log.warn({ ...(uid === '' ? {} : { pod: name }), what }, 'something in the kernel was put right')
      }
      this.#options.onRepair?.(uid, what)
    }
  }
}
