// The router: sends a request to an endpoint of its cluster and the answer back, with timeouts and retries. Both bodies
// stream; back-pressure goes through in both directions; a request body is kept (bounded) only while a retry is possible.
// No retry once a byte of a response went to the client; an aborted upstream is never a clean end towards the client.
// Must not live here: matching (mesh/), choosing hosts and limits (upstream/), header hygiene (filter/).
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import {
  header,
  type ClientExchange,
  type ClientSession,
  type ExchangeError,
  type Headers,
  type ResponseHead,
} from '../http/message.ts'
import type { Endpoint } from '../io/connection.ts'
import { applyHeaderOps, type CompiledHeaderOps } from '../mesh/header-ops.ts'
import { grpcToHttpStatus } from '../mesh/outlier.ts'
import { retriesStatus, retryDelay, type AttemptFailure, type CompiledRetry } from '../mesh/retry.ts'
import { attemptEvents, resetName, speaksExtendedConnect, type AttemptOwner } from './attempt.ts'
import type { Deadline, DeadlineOwner, Deadlines } from './deadlines.ts'
import { sendHead } from './filter/headers.ts'
import { overflow, replies, upstreamReset, type LocalReply } from './reply.ts'
import type { Run } from './run.ts'
import { isGranted, toClient, toUpstream } from './upgrade.ts'
import type { Cluster } from './upstream/cluster.ts'
import type { Host } from './upstream/host.ts'
import type { Pool, Waiting } from './upstream/pool.ts'

/** Request body kept for a retry, as Linkerd's bound; a larger body is sent once and never again. */
const RETRY_BUFFER = 65_536
/** Bytes that may wait on the far side before the near side is paused; it resumes when they are gone. */
const HIGH_WATER = 262_144

export interface ForwardOptions {
  readonly clock: Clock
  readonly random: () => number
  readonly deadlines: Deadlines
  /** Answers the client from here and completes the run. */
  reply(run: Run, reply: LocalReply): void
  /** The exchange is over towards the client. */
  complete(run: Run): void
}

/** An upgrade over HTTP/2 waits this long, this often, for the app's SETTINGS. */
const SETTINGS_WAIT_MS = 20
const SETTINGS_WAITS = 25

const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/** Kinds of deadline. */
const ROUTE = 0
const TRY = 1

const NO_BYTES: Buffer[] = []
const NO_HOSTS: Host[] = []
const NO_TRAILERS: Headers = []

export class Forwarding implements Waiting, AttemptOwner, DeadlineOwner {
  readonly run: Run
  readonly client: Endpoint
  readonly version: 1 | 2
  readonly cluster: Cluster
  readonly retry: CompiledRetry
  /** 0: none. */
  readonly timeoutMs: number
  /** Of the rule, and of the destination. */
  readonly responseOps: CompiledHeaderOps | undefined
  readonly moreResponseOps: CompiledHeaderOps | undefined
  pool: Pool | undefined
  readonly #options: ForwardOptions
  #upstream: ClientExchange | undefined
  #host: Host | undefined
  #waiting = false
  /** Hosts of earlier attempts. */
  #tried = NO_HOSTS
  #body = NO_BYTES
  #bodyBytes = 0
  /** The body is no longer whole in the buffer: it cannot be sent again. */
  #bodyLost = false
  #requestTrailers = NO_TRAILERS
  #responded = false
  /** The upstream granted an upgrade: raw bytes flow both ways. */
  #upgraded = false
  #answeredWhole = false
  #finished = false
  #raced = false
  #settingsWaits = 0
  #retrying = false
  #immediate = false
  #routeDeadline: Deadline | undefined
  #tryDeadline: Deadline | undefined
  #backoff: Timer | undefined

  constructor(
    run: Run,
    cluster: Cluster,
    version: 1 | 2,
    retry: CompiledRetry,
    timeoutMs: number,
    responseOps: CompiledHeaderOps | undefined,
    moreResponseOps: CompiledHeaderOps | undefined,
    options: ForwardOptions,
  ) {
    this.run = run
    this.client = run.downstream.client
    this.cluster = cluster
    this.version = version
    this.retry = retry
    this.timeoutMs = timeoutMs
    this.responseOps = responseOps
    this.moreResponseOps = moreResponseOps
    this.#options = options
  }

  /** The first attempt. `end`: the request has no body. `immediate`: it came in this very turn, and nothing held it. */
  start(end: boolean, immediate: boolean): void {
    if (end) this.#received()
    this.#immediate = immediate
    this.#attempt()
    this.#immediate = false
  }

  // --- from the client

  data(bytes: Uint8Array, start: number, end: number): void {
    if (this.#finished) return
    const { exchange } = this.run
    if (this.run.head.protocol && !this.#upgraded) {
      // Nothing may be sent before the upgrade is granted; what was sent all the same waits, bounded by the client's window.
      this.#keep(bytes, start, end)
      exchange.pause()
      return
    }
    const mayRepeat = !this.#bodyLost && !this.#responded && this.retry.attempts > 0 && !this.run.head.protocol
    if (mayRepeat || !this.#upstream) {
      if (this.#bodyBytes + (end - start) > RETRY_BUFFER && this.#upstream) {
        this.#bodyLost = true
        this.#body = NO_BYTES
      } else {
        this.#keep(bytes, start, end)
        this.#bodyBytes += end - start
      }
    }
    if (this.#upstream) {
      this.#upstream.write(bytes, start, end)
      if (this.#upstream.pending > HIGH_WATER) exchange.pause()
    } else if (this.#bodyBytes > RETRY_BUFFER) exchange.pause()
  }

  end(trailers: Headers): void {
    if (this.#finished) return
    this.#requestTrailers = trailers
    this.#received()
    if (!this.run.head.protocol || this.#upgraded) this.#upstream?.end(trailers)
    if (this.#answeredWhole) this.#finish()
  }

  #keep(bytes: Uint8Array, start: number, end: number): void {
    if (this.#body === NO_BYTES) this.#body = []
    this.#body.push(Buffer.from(bytes.subarray(start, end)))
  }

  /** The client took what was waiting for it. */
  drained(): void {
    this.#upstream?.resume()
  }

  /** The client is gone, or the pipeline answered in our place. */
  cancel(): void {
    if (this.#finished) return
    this.#leave()
    this.#finish()
  }

  // --- Waiting: from the cluster

  onSession(session: ClientSession, host: Host): void {
    this.#waiting = false
    const { run } = this
    this.#host = host
    run.host = host
    const { endpoint } = run.chain
    for (let i = 0; i < endpoint.length; i++) {
      const reply = endpoint[i]?.onEndpoint?.(run)
      if (!reply) continue
      this.cluster.release(host)
      this.#host = undefined
      this.#fail(reply)
      return
    }
    countAttempt(run.head.headers, run.attempts)
    const whole = run.requestEnded && this.#requestTrailers.length === 0 && this.#bodyBytes === 0 && !run.head.protocol
    // Most requests find a session at once: then the time they came is the time they go.
    run.upstreamSentAt = this.#immediate ? run.startedAt : this.#options.clock.monotonic()
    let { head } = run
    const upgrade = head.protocol !== ''
    if (upgrade) {
      if (this.version === 2 && !speaksExtendedConnect(session)) {
        this.#awaitSettings(host)
        return
      }
      // Each attempt gives it the form of its version: in a copy.
      head = { ...head, headers: [...head.headers] }
      toUpstream(head, this.version)
    }
    let upstream: ClientExchange
    try {
      upstream = session.request(head, whole, attemptEvents, this)
    } catch (error) {
      // Header operations of the route made something that cannot be sent: the codec wrote nothing.
      run.transportFailure = messageOf(error)
      this.cluster.release(host)
      this.#host = undefined
      this.#fail({ status: 500, body: '', flags: '-', details: 'request_not_sendable' })
      return
    }
    this.#upstream = upstream
    if (!whole && !upgrade) {
      for (const chunk of this.#body) upstream.write(chunk)
      if (this.#bodyBytes > RETRY_BUFFER || this.retry.attempts === 0) {
        this.#bodyLost = this.#bodyBytes > 0
        this.#body = NO_BYTES
      }
      if (run.requestEnded) upstream.end(this.#requestTrailers)
      else if (upstream.pending <= HIGH_WATER) run.exchange.resume()
    }
    this.#startTryTimer()
  }

  onNoSession(host: Host, kind: 'connect' | 'timeout', message: string): void {
    this.#waiting = false
    this.run.host = host
    this.run.transportFailure = message
    if (this.#retryAfter('connect', host)) return
    const retried = this.run.attempts > 1
    this.#fail(upstreamReset(kind === 'timeout' ? 'connection timeout' : 'connection failure', retried, message))
  }

  // --- from the upstream (through `events`)

  informational(head: ResponseHead): void {
    if (this.#finished || this.#responded) return
    // The client may have begun to send its body on the strength of it: the request cannot be repeated.
    if (head.status === 100) this.#bodyLost = true
    this.run.exchange.informational(head)
  }

  response(head: ResponseHead, end: boolean): void {
    if (this.#finished) return
    const { run, retry } = this
    this.#stop(this.#tryDeadline)
    run.upstreamHeadAt = this.#options.clock.monotonic()
    const grpcText = run.grpc ? header(head.headers, 'grpc-status') : undefined
    const grpcStatus = grpcText === undefined ? -1 : Number(grpcText)
    const status = grpcStatus >= 0 && end ? grpcToHttpStatus(grpcStatus) : head.status
    if (this.#host) this.cluster.reportStatus(this.#host, status)
    if (retry.attempts > 0 && (head.status >= 400 || grpcStatus > 0 || retry.statusCodes.size > 0)) {
      const limited = header(head.headers, 'x-envoy-ratelimited') !== undefined
      if (retriesStatus(retry, head.status, grpcStatus, limited) && this.#retryAfter('status', this.#host)) return
    }
    this.#responded = true
    const early = this.#body
    this.#body = NO_BYTES
    if (run.head.protocol && isGranted(head, this.version)) {
      this.#upgraded = true
      toClient(head, this.version, run.exchange.version, run.head.headers)
    }
    if (grpcStatus >= 0) run.grpcStatus = grpcStatus
    if (this.responseOps) applyHeaderOps(head.headers, this.responseOps)
    if (this.moreResponseOps) applyHeaderOps(head.headers, this.moreResponseOps)
    sendHead(run, head)
    const filters = run.chain.response
    for (let i = 0; i < filters.length; i++) filters[i]?.onResponse?.(run, head)
    run.status = head.status
    run.details = 'via_upstream'
    try {
      run.exchange.respond(head, end)
    } catch (error) {
      run.transportFailure = messageOf(error)
      this.#responded = false
      this.#fail({ status: 502, body: '', flags: 'UPE', details: 'response_not_sendable' })
      return
    }
    if (this.#upgraded) {
      for (const chunk of early) this.#upstream?.write(chunk)
      if (run.requestEnded) this.#upstream?.end()
      run.exchange.resume()
    }
    if (end) this.#answered()
  }

  responseData(upstream: ClientExchange, bytes: Uint8Array, start: number, end: number): void {
    if (this.#finished) return
    const { exchange } = this.run
    this.run.responseBytes += end - start
    const filters = this.run.chain.responseData
    for (let i = 0; i < filters.length; i++) filters[i]?.onResponseData?.(this.run, bytes, start, end)
    exchange.write(bytes, start, end)
    if (exchange.pending > HIGH_WATER) upstream.pause()
  }

  responseEnd(trailers: Headers): void {
    if (this.#finished) return
    const { run } = this
    const text = run.grpc ? header(trailers, 'grpc-status') : undefined
    if (text !== undefined) run.grpcStatus = Number(text)
    const filters = run.chain.responseEnd
    for (let i = 0; i < filters.length; i++) filters[i]?.onResponseEnd?.(run, trailers)
    run.exchange.end(trailers)
    this.#answered()
  }

  upstreamDrained(): void {
    if (!this.#finished) this.run.exchange.resume()
  }

  /** False for an attempt that was given up: what still comes of it concerns nobody. */
  owns(upstream: ClientExchange): boolean {
    return upstream === this.#upstream
  }

  closed(error: ExchangeError | undefined, upstream: ClientExchange): void {
    const host = this.#host
    this.#host = undefined
    this.#upstream = undefined
    if (host) this.cluster.release(host)
    if (this.#finished || !error) return
    if (host) this.cluster.reportFailure(host, 'reset')
    if (this.#responded) {
      // The head went out: the client must see that the rest is missing.
      const { run } = this
      run.flags = error.reason === 'closed' ? 'UC' : error.reason === 'protocol' ? 'UPE' : 'UR'
      run.details = `upstream_reset_after_response_started{${error.reason}}`
      this.#finish()
      run.exchange.reset('internal')
      return
    }
    if (this.#retryAfterReset(upstream, error, host)) return
    this.#fail(upstreamReset(resetName(error), this.run.attempts > 1, this.run.transportFailure))
  }

  // --- own

  #attempt(): void {
    this.run.attempts++
    this.#waiting = true
    const refused = this.cluster.acquire(this, this.#tried)
    if (!refused) return
    this.#waiting = false
    this.#fail(refused === 'overflow' ? overflow('') : replies.noHealthyUpstream)
  }

  /** A fresh HTTP/2 session does not know yet whether the app takes extended CONNECT: its settings are on their way. */
  #awaitSettings(host: Host): void {
    this.cluster.release(host)
    this.#host = undefined
    if (++this.#settingsWaits > SETTINGS_WAITS) {
      this.#fail(replies.upgradeFailed)
      return
    }
    this.run.attempts--
    this.#backoff = this.#options.clock.after(SETTINGS_WAIT_MS, () => {
      this.#backoff = undefined
      if (!this.#finished) this.#attempt()
    })
  }

  #received(): void {
    const { run } = this
    run.requestEnded = true
    // Envoy's timer starts when the request has been received whole, and covers all attempts.
    if (this.timeoutMs > 0 && !run.head.protocol) {
      this.#routeDeadline ??= this.#options.deadlines.start(this.timeoutMs, this, ROUTE)
    }
    if (this.#upstream) this.#startTryTimer()
  }

  #startTryTimer(): void {
    const limit = this.retry.perTryTimeoutMs
    if (!limit || !this.run.requestEnded || this.run.head.protocol) return
    this.#stop(this.#tryDeadline)
    this.#tryDeadline = this.#options.deadlines.start(limit, this, TRY)
  }

  #stop(deadline: Deadline | undefined): void {
    if (deadline) this.#options.deadlines.stop(deadline)
  }

  onDeadline(kind: number): void {
    if (this.#finished) return
    if (kind === ROUTE) {
      if (this.#responded) this.#cut('UT', 'response_timeout')
      else this.#fail(replies.routeTimeout, 'timeout')
      return
    }
    if (this.#responded) return
    if (this.#host) this.cluster.reportFailure(this.#host, 'timeout')
    if (!this.#retryAfter('timeout', this.#host)) this.#fail(replies.perTryTimeout)
  }

  #retryAfterReset(upstream: ClientExchange, error: ExchangeError, host: Host | undefined): boolean {
    // A kept-alive connection that the server closed just as it was used: the request was most likely never seen. Only what
    // may be repeated without harm is, once, and not as one of the policy's retries.
    const race = upstream.reused && error.reason === 'closed' && !this.#raced && IDEMPOTENT.has(this.run.head.method)
    if (race && !this.#bodyLost) {
      this.#raced = true
      this.#attempt()
      return true
    }
    return this.#retryAfter(error.reason === 'refused' ? 'refused' : 'reset', host)
  }

  /** Tries again if the policy, the budget and the buffered body allow it. */
  #retryAfter(why: AttemptFailure | 'status', host: Host | undefined): boolean {
    const { retry, cluster, run } = this
    if (why !== 'status' && !retry.failures[why]) return false
    if (this.#responded || this.#bodyLost || run.head.protocol !== '' || run.attempts > retry.attempts) return false
    const limit = cluster.policy.connectionPool?.maxRetries
    if (limit !== undefined && cluster.retries >= limit) {
      run.flags = 'UO'
      return false
    }
    if (!this.#retrying) {
      this.#retrying = true
      cluster.retries++
    }
    if (host && retry.ignorePreviousHosts) {
      if (this.#tried === NO_HOSTS) this.#tried = []
      this.#tried.push(host)
    }
    this.#leave()
    const delay = retryDelay(retry.backoffMs, run.attempts, this.#options.random)
    this.#backoff = this.#options.clock.after(delay, () => {
      this.#backoff = undefined
      if (!this.#finished) this.#attempt()
    })
    return true
  }

  /** Lets go of the current attempt. */
  #leave(): void {
    this.#stop(this.#tryDeadline)
    if (this.#waiting) this.cluster.cancel(this)
    this.#waiting = false
    const upstream = this.#upstream
    const host = this.#host
    this.#upstream = undefined
    this.#host = undefined
    if (host) this.cluster.release(host)
    upstream?.reset('cancel')
  }

  /** The answer is complete. An upgraded exchange goes on until the client has ended too; any other needs no more of the request. */
  #answered(): void {
    if (this.#answeredWhole) return
    this.#answeredWhole = true
    const { run } = this
    if (this.#upgraded && !run.requestEnded) return
    const upstream = this.#upstream
    this.#finish()
    if (!run.requestEnded) upstream?.reset('cancel')
  }

  #fail(reply: LocalReply, report?: 'timeout'): void {
    if (this.#finished) return
    if (report && this.#host) this.cluster.reportFailure(this.#host, report)
    this.#leave()
    this.#finish()
    this.#options.reply(this.run, reply)
  }

  /** The response has begun and cannot be completed. */
  #cut(flags: string, details: string): void {
    const { run } = this
    run.flags = flags
    run.details = details
    this.#leave()
    this.#finish()
    run.exchange.reset('timeout')
  }

  #finish(): void {
    if (this.#finished) return
    this.#finished = true
    this.#body = NO_BYTES
    this.#stop(this.#routeDeadline)
    this.#stop(this.#tryDeadline)
    this.#backoff?.cancel()
    if (this.#waiting) this.cluster.cancel(this)
    this.#waiting = false
    if (this.#retrying) this.cluster.retries--
    this.#retrying = false
  }
}

/** The number of the attempt, as Envoy tells the app. Clients cannot set it (filter/headers.ts). */
function countAttempt(headers: Headers, attempt: number): void {
  if (attempt > 1) {
    for (let i = 0; i < headers.length; i += 2) {
      if (headers[i] !== 'x-envoy-attempt-count') continue
      headers[i + 1] = String(attempt)
      return
    }
  }
  headers.push('x-envoy-attempt-count', attempt === 1 ? '1' : String(attempt))
}
