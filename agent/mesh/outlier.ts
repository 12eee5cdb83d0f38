// Outlier detection of one upstream, as Envoy does it for a DestinationRule: consecutive errors eject a host for a time
// that grows with every ejection; a share of the hosts at most. Time comes in as milliseconds of a monotonic clock.
// Must not live here: timers (the caller sweeps every `intervalMs`), picking (pick-endpoint.ts).
import type { OutlierDetection } from './upstream.ts'

/** Ejections last no longer than this unless the base is longer (Envoy's max_ejection_time). */
export const MAX_EJECTION_MS = 300_000

/** One host's record; kept by the caller beside its pool and passed back in. */
export interface HostHealth {
  readonly key: string
  readonly ejected: boolean
  /** Ejections so far, less one for every interval spent healthy since. */
  readonly ejections: number
}

class Host implements HostHealth {
  readonly key: string
  ejected = false
  ejections = 0
  ejectedAt = 0
  errors = 0
  gatewayErrors = 0
  localErrors = 0

  constructor(key: string) {
    this.key = key
  }

  clear(): void {
    this.errors = 0
    this.gatewayErrors = 0
    this.localErrors = 0
  }
}

export class OutlierDetector {
  readonly settings: OutlierDetection
  readonly #hosts = new Map<string, Host>()
  #ejected = 0

  constructor(settings: OutlierDetection) {
    this.settings = settings
  }

  /** Hosts that are ejected now. */
  get ejected(): number {
    return this.#ejected
  }

  /** Sets the hosts; records of those that stay are kept, others are forgotten. */
  sync(keys: Iterable<string>): void {
    const wanted = new Set(keys)
    for (const [key, host] of this.#hosts) {
      if (wanted.has(key)) continue
      if (host.ejected) this.#ejected--
      this.#hosts.delete(key)
    }
    for (const key of wanted) if (!this.#hosts.has(key)) this.#hosts.set(key, new Host(key))
  }

  /** The record of a host of the last `sync`. */
  host(key: string): HostHealth | undefined {
    return this.#hosts.get(key)
  }

  /**
   * False for an ejected host, unless so few are left that detection stands aside (`minHealthPercent`). All hosts may be
   * out at once: panic is off in Istio, the request is then answered with 503.
   */
  usable(host: HostHealth): boolean {
    if (!host.ejected) return true
    const healthy = this.#hosts.size - this.#ejected
    return healthy * 100 < this.settings.minHealthPercent * this.#hosts.size
  }

  /** An HTTP status came back (for gRPC by `grpcToHttpStatus`). True if the host was ejected by it. */
  onResponse(health: HostHealth, status: number, now: number): boolean {
    const host = health as Host
    if (this.settings.splitExternalLocalOriginErrors) host.localErrors = 0
    if (status < 500 || status > 599) {
      host.errors = 0
      host.gatewayErrors = 0
      return false
    }
    host.errors++
    if (status === 502 || status === 503 || status === 504) host.gatewayErrors++
    else host.gatewayErrors = 0
    const { consecutive5xxErrors, consecutiveGatewayErrors } = this.settings
    return (
      (reached(host.errors, consecutive5xxErrors) || reached(host.gatewayErrors, consecutiveGatewayErrors)) &&
      this.#eject(host, now)
    )
  }

  /** No answer: connect failure (counts as 503), timeout (504) or reset (503). Our own limits do not count. */
  onLocalFailure(health: HostHealth, kind: 'connect' | 'timeout' | 'reset', now: number): boolean {
    if (!this.settings.splitExternalLocalOriginErrors) {
      return this.onResponse(health, kind === 'timeout' ? 504 : 503, now)
    }
    const host = health as Host
    host.localErrors++
    return reached(host.localErrors, this.settings.consecutiveLocalOriginFailures) && this.#eject(host, now)
  }

  /** Called every `intervalMs`: takes hosts back whose time is over; gives their keys. */
  sweep(now: number): readonly string[] {
    const back: string[] = []
    const { baseEjectionTimeMs } = this.settings
    const longest = Math.max(MAX_EJECTION_MS, baseEjectionTimeMs)
    for (const host of this.#hosts.values()) {
      if (!host.ejected) {
        if (host.ejections > 0) host.ejections--
        continue
      }
      if (now - host.ejectedAt < Math.min(longest, baseEjectionTimeMs * host.ejections)) continue
      host.ejected = false
      host.clear()
      this.#ejected--
      back.push(host.key)
    }
    return back
  }

  #eject(host: Host, now: number): boolean {
    if (host.ejected) return false
    // One host may always go; further ones only within the share.
    const within = (this.#ejected + 1) * 100 <= this.settings.maxEjectionPercent * this.#hosts.size
    if (this.#ejected > 0 && !within) {
      host.clear()
      return false
    }
    host.ejected = true
    host.ejectedAt = now
    host.ejections++
    this.#ejected++
    return true
  }
}

function reached(count: number, threshold: number): boolean {
  return threshold > 0 && count >= threshold
}

const GRPC_STATUS: readonly number[] = [
  200, 499, 500, 400, 504, 404, 409, 403, 429, 500, 500, 500, 501, 500, 503, 500, 401,
]

/** The HTTP status a gRPC status counts as (Envoy's grpcToHttpStatus), for a trailers-only response. */
export function grpcToHttpStatus(status: number): number {
  return GRPC_STATUS[status] ?? 500
}
