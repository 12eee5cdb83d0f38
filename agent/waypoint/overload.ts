// When a waypoint has too much: requests beyond a number, or memory beyond a mark. Then requests are shed with 503 and no
// connection is accepted, until memory is below the low mark again. Must not live here: the answer itself (reply.ts), sockets.
import type { Clock, Timer } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { collectGarbage } from '../base/memory.ts'
import { trimMemory } from '../io/index.ts'
import type { Metrics } from '../telemetry/exposition.ts'
import type { Series } from '../telemetry/series.ts'

export interface OverloadLimits {
  /** Requests in flight; more are answered 503 `envoy overloaded`. */
  readonly maxRequests: number
  /** Resident bytes (high mark); 0: no limit. */
  readonly maxMemory: number
}

/** What the process uses now, bytes. */
export interface MemoryUse {
  readonly resident: number
  readonly heapUsed: number
  /** Where V8 gives up and the process dies. */
  readonly heapLimit: number
}

export interface OverloadOptions {
  readonly limits: OverloadLimits
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  memory(): MemoryUse
  /** Memory passed a mark: stop or go on accepting connections. */
  onMemory(overloaded: boolean): void
  /** Gives memory back before requests are refused; default: a full collection, and what malloc keeps. */
  collect?(): void
}

/** How often memory is looked at: a reading costs some microseconds. */
export const LOOK_MS = 500
/** Under this share of the high mark it is well again. */
const LOW_MARK = 0.9
/** V8 dies at its limit, whatever the machine has left. */
const HEAP_HIGH = 0.85
/** Full collections while overloaded, at most one in this time: each stops the process for some tens of milliseconds. */
const COLLECT_MS = 5_000

export class Overload {
  /** Memory is above its mark, or was and is not yet below the low one. */
  shedding = false
  readonly #options: OverloadOptions
  readonly #byRequests: Series
  readonly #byMemory: Series
  #timer: Timer | undefined
  #collectedAt = -Infinity

  constructor(options: OverloadOptions) {
    this.#options = options
    const shed = options.metrics.counter({
      name: 'ambit_waypoint_requests_shed_total',
      help: 'Requests answered 503 because the waypoint has too much: too many in flight, or too little memory.',
      labels: ['reason'],
    })
    this.#byRequests = shed.with(['requests'])
    this.#byMemory = shed.with(['memory'])
    const gauge = options.metrics.gauge({
      name: 'ambit_waypoint_overloaded',
      help: '1 while memory is above its mark: no connection is accepted, requests are shed.',
      labels: [],
    })
    options.metrics.beforeScrape(() => {
      gauge.with([]).value = this.shedding ? 1 : 0
    })
  }

  /** Begins to watch memory. */
  start(): void {
    this.#timer = this.#options.clock.after(LOOK_MS, this.#look, true)
  }

  stop(): void {
    this.#timer?.cancel()
  }

  /** Whether a request is to be shed, which is counted. `active`: requests in flight, this one included. */
  refuses(active: number): boolean {
    if (this.shedding) {
      this.#byMemory.value++
      return true
    }
    if (active <= this.#options.limits.maxRequests) return false
    this.#byRequests.value++
    return true
  }

  readonly #look = (): void => {
    const { clock, limits, log, onMemory } = this.#options
    this.#timer = clock.after(LOOK_MS, this.#look, true)
    let share = this.#share()
    if (share < (this.shedding ? LOW_MARK : 1)) {
      if (!this.shedding) return
      this.shedding = false
      log.warn({ share }, 'memory is below its low mark again: accepting')
      onMemory(false)
      return
    }
    if (clock.monotonic() - this.#collectedAt >= COLLECT_MS) {
      this.#collectedAt = clock.monotonic()
      // Much of what is resident may be dead already.
      ;(this.#options.collect ?? collectAll)()
      share = this.#share()
    }
    if (share < 1 || this.shedding) return
    this.shedding = true
    log.warn({ share, limit: limits.maxMemory }, 'memory is above its mark: accepting nothing, shedding requests')
    onMemory(true)
  }

  /** Of the nearer mark: 1 is at it. */
  #share(): number {
    const { resident, heapUsed, heapLimit } = this.#options.memory()
    const { maxMemory } = this.#options.limits
    return Math.max(maxMemory > 0 ? resident / maxMemory : 0, heapUsed / (heapLimit * HEAP_HIGH))
  }
}

/** Of 10 000 connections that were gone 500 MB stayed resident, most of it malloc's: the low mark would never have been reached. */
function collectAll(): void {
  trimMemory()
  // Thorough: what stays in half-empty pages counts as resident too.
  collectGarbage(true)
}
