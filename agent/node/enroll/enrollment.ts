// The driver: runs the plan, one step after the other, whenever something changed, and again later for what failed. Must
// not live here: the decision (wanted.ts, plan.ts), the local socket (api.ts), looking for pods (finder.ts).
import { Backoff } from '../../base/backoff.ts'
import type { Timer } from '../../base/clock.ts'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { openApi, type Api } from './api.ts'
import type { Enrollment, EnrollmentOptions, PodPhase, PodStatus, RegisteredPod } from './contract.ts'
import { Finder, type MissingPod } from './finder.ts'
import { plan, samePod, type Step } from './plan.ts'
import { pathHere, Registry } from './registry.ts'
import { defaultExemptNamespaces, wantedPod, type Wanted } from './wanted.ts'

/** Between looks at the world without a cause: a namespace can vanish without anybody saying so. */
const SWEEP_MS = 10_000
/** A failed step is tried again after this, growing to the second. */
const RETRY = { baseMs: 250, maxMs: 30_000 }
/** `add` gives up waiting after this, before its plugin does; the pod stays registered and is tried on. */
const ADD_TIMEOUT_MS = 25_000
/**
 * So long `add` waits for control's word of a pod: it has the pod as early as the kubelet, which has more to do before the
 * network's turn. Then the namespace decides.
 */
const WORD_MS = 2_000

interface Failure {
  readonly message: string
  readonly backoff: Backoff
  timer: Timer | undefined
}

/** Opens the registry and the local API and brings the registered pods to where they belong. Throws AmbitError ENROLL_*. */
export async function startEnrollment(options: EnrollmentOptions): Promise<Enrollment> {
  const driver = new Driver(options, new Registry(options.stateDir, options.log))
  driver.api = await openApi(options.socketPath, driver, options.log)
  driver.start()
  return driver
}

class Driver implements Enrollment {
  api: Api | undefined
  readonly #options: EnrollmentOptions
  readonly #registry: Registry
  readonly #exempt: readonly string[]
  readonly #finder: Finder
  /** As they were when their listeners were handed over. */
  readonly #captured = new Map<string, RegisteredPod>()
  /** Asked to go, and not known to be gone yet. */
  readonly #released = new Set<string>()
  readonly #failures = new Map<string, Failure>()
  /** Told after each run, until they have what they wait for. */
  readonly #waiting = new Set<() => void>()
  #running: Promise<void> | undefined
  #dirty = false
  #sweep: Timer | undefined
  #closed = false

  constructor(options: EnrollmentOptions, registry: Registry) {
    this.#options = options
    this.#registry = registry
    this.#exempt = options.exemptNamespaces ?? defaultExemptNamespaces
    this.#finder = new Finder({
      view: options.view,
      exempt: this.#exempt,
      registered: () => this.#registry.pods,
      register: (pod) => {
        if (this.#closed || !this.#leads()) return
        this.#registry.add(pod)
        this.changed()
      },
      clock: options.clock,
      log: options.log,
      ...(options.discover ? { discover: options.discover } : {}),
    })
  }

  start(): void {
    this.changed()
    const again = (): void => {
      this.#sweep = this.#options.clock.after(SWEEP_MS, again, true)
      this.changed()
    }
    this.#sweep = this.#options.clock.after(SWEEP_MS, again, true)
  }

  changed(): void {
    if (this.#closed) return
    this.#dirty = true
    // In a turn of its own, so that a burst of updates is one run.
    this.#running ??= Promise.resolve().then(() => this.#run())
  }

  async add(asked: RegisteredPod): Promise<PodStatus> {
    this.#mustLead()
    const pod = { ...asked, netns: pathHere(asked.netns) }
    const wanted = this.#wanted(pod)
    if (wanted.verdict === 'unknown') {
      throw new AmbitError('ENROLL_NO_STATE', `Pod ${pod.namespace}/${pod.name} cannot be judged: ${wanted.reason}`, {
        hint: 'The agent has never reached control; see its log. The pod starts once it has.',
      })
    }
    if (wanted.guessed && this.#options.hearsOfPods?.() === true) {
      await this.#until(() => this.#wanted(pod).guessed !== true, WORD_MS)
      this.#mustLead()
    }
    const known = this.#registry.pods.get(pod.uid)
    const alive = known !== undefined && this.#registry.alive(known)
    // Told again by someone who has another path to the same namespace and knows nothing of sandboxes, it stays as it is.
    const told = alive && this.#registry.hasNamespaceOf(pod) ? { ...known, ...pod, netns: known.netns } : pod
    if (!alive || !samePod(known, told) || known.sandbox !== told.sandbox) {
      // The same path may be another namespace by now: what was captured there is captured no more.
      if (known && !alive) await this.del(pod.uid)
      this.#registry.add(told)
    }
    this.#forgive(pod.uid)
    this.changed()
    const decided = await this.#until(() => {
      const status = this.status(pod.uid)
      return (
        status === undefined || status.phase === 'out' || status.phase === 'captured' || this.#failures.has(pod.uid)
      )
    })
    if (!decided) throw undecided()
    const status = this.status(pod.uid)
    if (status?.phase === 'captured' || status?.phase === 'out') return status
    throw new AmbitError(
      'ENROLL_FAILED',
      `Pod ${pod.namespace}/${pod.name} is not captured: ${status?.reason ?? 'it was removed meanwhile.'}`,
      { hint: 'It is tried again until it succeeds or the pod is removed.' },
    )
  }

  async del(uid: string, sandbox?: string): Promise<boolean> {
    this.#mustLead()
    if (sandbox !== undefined && this.#registry.pods.get(uid)?.sandbox !== sandbox) return false
    const known = this.#registry.remove(uid)
    if (!known && !this.#captured.has(uid) && !this.#options.redirect.enrolled().includes(uid)) return false
    this.#released.add(uid)
    this.#finder.ended(uid)
    this.#forgive(uid)
    this.changed()
    if (!(await this.#until(() => !this.#released.has(uid) || this.#failures.has(uid)))) throw undecided()
    const failure = this.#failures.get(uid)
    if (!failure) return true
    throw new AmbitError('ENROLL_FAILED', `Pod ${uid} is not released: ${failure.message}`, {
      hint: 'It is tried again until it succeeds.',
    })
  }

  status(uid: string): PodStatus | undefined {
    const pod = this.#registry.pods.get(uid)
    if (!pod) return undefined
    const { verdict, reason } = this.#wanted(pod)
    const failure = this.#failures.get(uid)
    const captured = this.#captured.get(uid)
    const phases: Record<Wanted['verdict'], PodPhase> = {
      in: captured && samePod(captured, pod) && !failure ? 'captured' : 'pending',
      out: captured || failure || this.#options.redirect.enrolled().includes(uid) ? 'pending' : 'out',
      unknown: captured ? 'captured' : 'unknown',
    }
    return { pod, phase: phases[verdict], reason: failure?.message ?? reason }
  }

  list(): readonly PodStatus[] {
    return [...this.#registry.pods.keys()].flatMap((uid) => this.status(uid) ?? [])
  }

  missing(): readonly MissingPod[] {
    return this.#finder.missing()
  }

  async settled(): Promise<void> {
    do {
      while (this.#running) await this.#running
      await this.#finder.settled()
    } while (this.#running)
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#sweep?.cancel()
    for (const failure of this.#failures.values()) failure.timer?.cancel()
    await this.api?.close()
    await this.settled()
    for (const told of this.#waiting) told()
  }

  #wanted(pod: RegisteredPod): Wanted {
    const held = this.#captured.has(pod.uid) || this.#options.redirect.enrolled().includes(pod.uid)
    return wantedPod(this.#options.view(), this.#options.node, pod, this.#exempt, held)
  }

  async #run(): Promise<void> {
    try {
      while (this.#dirty && !this.#closed && this.#leads()) {
        this.#dirty = false
        const steps = plan({
          registered: this.#registry.pods,
          captured: this.#captured,
          released: this.#released,
          inKernel: new Set(this.#options.redirect.enrolled()),
          alive: (pod) => this.#registry.alive(pod),
          wanted: (pod) => this.#wanted(pod),
        })
        for (const step of steps) {
          if (this.#closed || !this.#leads()) break
          await this.#take(step)
          // Who waits for this one need not wait for the others.
          for (const told of this.#waiting) told()
        }
        this.#settleReleased()
        if (!this.#closed && this.#leads()) this.#finder.look()
        for (const told of this.#waiting) told()
      }
    } finally {
      this.#running = undefined
    }
    // Changed between the last look and now.
    if (this.#dirty && !this.#closed && this.#leads()) this.changed()
  }

  #leads(): boolean {
    return this.#options.leads?.() ?? true
  }

  #mustLead(): void {
    if (this.#leads()) return
    throw new AmbitError('ENROLL_SUPERSEDED', 'Another agent of this node has taken over.', {
      hint: 'Connect to the local socket again: that one listens there.',
    })
  }

  /** One step; a failure is remembered and tried again later, the others go on. */
  async #take(step: Step): Promise<void> {
    const uid = step.do === 'enroll' ? step.pod.uid : step.uid
    // It waits for its backoff: who changed something else must not hurry it.
    if (this.#failures.get(uid)?.timer) return
    if (this.#stale(step)) return
    const { log } = this.#options
    try {
      if (step.do === 'enroll') await this.#enroll(step.pod)
      else if (step.do === 'unenroll') await this.#unenroll(uid, step.pod)
      else {
        this.#registry.remove(uid)
        this.#finder.ended(uid)
      }
      this.#forgive(uid)
      log.info({ uid, reason: step.reason }, `pod: ${step.do}`)
    } catch (error) {
      this.#fail(uid, error)
      log.warn({ uid, reason: step.reason, error: messageOf(error) }, `pod: ${step.do} failed`)
    }
  }

  /** True if the registry changed since the plan was made: the next run, already due, sees it. */
  #stale(step: Step): boolean {
    if (step.do === 'enroll') return this.#registry.pods.get(step.pod.uid) !== step.pod
    if (step.do === 'unenroll') return false
    const pod = this.#registry.pods.get(step.uid)
    return pod === undefined || this.#registry.alive(pod)
  }

  #settleReleased(): void {
    const inKernel = this.#released.size > 0 ? this.#options.redirect.enrolled() : []
    for (const uid of this.#released) {
      if (this.#registry.pods.has(uid) || (!this.#captured.has(uid) && !inKernel.includes(uid))) {
        this.#released.delete(uid)
      }
    }
  }

  async #enroll(pod: RegisteredPod): Promise<void> {
    const { redirect, onEnrolled, onUnenrolled } = this.#options
    const before = this.#captured.get(pod.uid)
    if (before) {
      await onUnenrolled(before)
      this.#captured.delete(pod.uid)
    }
    const listeners = await redirect.enroll(pod)
    try {
      await onEnrolled(pod, listeners)
    } catch (error) {
      // Half handed over: the owner lets go, and gets everything anew.
      await Promise.resolve(onUnenrolled(pod)).catch(() => undefined)
      throw error
    }
    this.#captured.set(pod.uid, pod)
  }

  async #unenroll(uid: string, pod: RegisteredPod | undefined): Promise<void> {
    if (pod) await this.#options.onUnenrolled(pod)
    await this.#options.redirect.unenroll(uid)
    this.#captured.delete(uid)
  }

  #fail(uid: string, error: unknown): void {
    const backoff = this.#failures.get(uid)?.backoff ?? new Backoff(RETRY)
    const failure: Failure = { message: messageOf(error), backoff, timer: undefined }
    failure.timer = this.#options.clock.after(
      backoff.next(),
      () => {
        failure.timer = undefined
        this.changed()
      },
      true,
    )
    this.#failures.set(uid, failure)
  }

  #forgive(uid: string): void {
    this.#failures.get(uid)?.timer?.cancel()
    this.#failures.delete(uid)
  }

  /** Resolves once `done`, which is asked now and after each run; with false if that took too long. */
  #until(done: () => boolean, ms = ADD_TIMEOUT_MS): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (inTime: boolean): void => {
        this.#waiting.delete(told)
        timer.cancel()
        resolve(inTime)
      }
      const told = (): void => {
        if (this.#closed || done()) end(true)
      }
      const timer = this.#options.clock.after(ms, () => end(false))
      this.#waiting.add(told)
      told()
    })
  }
}

function undecided(): AmbitError {
  const message = `Nothing was decided within ${ADD_TIMEOUT_MS / 1000} seconds.`
  return new AmbitError('ENROLL_TIMEOUT', message, { hint: 'It goes on; ask with check.' })
}
