// Requests to the API server over node:https: one at a time with a JSON answer, or a stream. Waits as the server asks (429,
// Retry-After), shows fresh credentials after a 401. Must not live here: what is asked (resource.ts, reflector.ts, apply.ts).
import { Agent, request as httpsRequest } from 'node:https'
import { request as httpRequest, Agent as HttpAgent, type IncomingMessage } from 'node:http'
import { Backoff } from '../base/backoff.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Connection, Credentials } from './connection.ts'
import { errorOf, KubeError } from './errors.ts'

export interface Ask {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Begins with a slash; segments are encoded already (resource.ts). */
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  /** Sent as JSON. */
  readonly body?: unknown
  readonly contentType?: string
  /** Milliseconds until the head of the answer, and between two pieces of it. Default 30 000. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** Attempts at a request that the server is too busy for. */
const MAX_ATTEMPTS = 5
/** A page of 500 objects is a few MB; an object at most 1.5 MB by etcd's limit. */
const MAX_ANSWER = 256 * 1024 * 1024
const TIMEOUT_MS = 30_000
/** Connections at once: what is watched plus a few. */
const MAX_SOCKETS = 64
/** A host that vanished without a word is noticed by TCP itself, where the watchdog of a watch is not faster. */
const KEEP_ALIVE_MS = 15_000

export interface KubeClientOptions {
  readonly clock?: Clock
  /** In [0,1); for waiting times. */
  readonly random?: () => number
  /** What the API server's audit log says of who asks, before the version. */
  readonly userAgent?: string
}

export class KubeClient {
  readonly connection: Connection
  readonly #clock: Clock
  readonly #random: () => number
  readonly #userAgent: string
  #agent: { readonly of: string; readonly agent: Agent | HttpAgent } | undefined
  /** Answers by status class, for metrics: 429 apart from the rest. */
  readonly counts = { requests: 0, throttled: 0, refused: 0, failed: 0 }

  constructor(connection: Connection, options: KubeClientOptions = {}) {
    this.connection = connection
    this.#clock = options.clock ?? systemClock
    this.#random = options.random ?? Math.random
    this.#userAgent = options.userAgent ?? 'ambit'
  }

  /** The JSON of an answer below 300. Throws KubeError (KUBE_…); never waits more than five times for a busy server. */
  async ask<T>(ask: Ask): Promise<T> {
    const backoff = new Backoff({ baseMs: 500, maxMs: 10_000, random: this.#random })
    for (let attempt = 1; ; attempt++) {
      const response = await this.open(ask)
      const text = await this.#read(response, ask)
      const status = response.statusCode ?? 0
      if (status < 300) return (text === '' ? undefined : parse(text, ask)) as T
      const error = errorOf(nameOf(ask), status, parseQuietly(text), response.headers['retry-after'])
      // 429 always means that nothing was done; 503 only with the header.
      const again = status === 429 || (status === 503 && error.retryAfterMs !== undefined)
      if (!again || attempt === MAX_ATTEMPTS) throw error
      await this.#wait(Math.max(error.retryAfterMs ?? 0, backoff.next()), ask.signal)
    }
  }

  /** The head of an answer of any status; its body is the caller's to read. Throws KUBE_UNREACHABLE. */
  async open(ask: Ask): Promise<IncomingMessage> {
    let response = await this.#send(ask)
    if (response.statusCode === 401) {
      // A token that was replaced while the old one was kept here.
      this.connection.refused()
      response.resume()
      response = await this.#send(ask)
    }
    if (response.statusCode === 429) this.counts.throttled++
    else if ((response.statusCode ?? 0) >= 400) this.counts.refused++
    return response
  }

  /** Ends idle connections; those in use end with what they carry. */
  close(): void {
    this.#agent?.agent.destroy()
    this.#agent = undefined
  }

  async #send(ask: Ask, again = false): Promise<IncomingMessage> {
    const credentials = await this.connection.credentials()
    const { server } = this.connection
    const url = new URL(server.pathname.replace(/\/$/, '') + ask.path, server)
    for (const [name, value] of Object.entries(ask.query ?? {}))
      if (value !== undefined) url.searchParams.set(name, String(value))
    const body = ask.body === undefined ? undefined : Buffer.from(JSON.stringify(ask.body))
    this.counts.requests++
    return new Promise((resolve, reject) => {
      const outgoing = (url.protocol === 'http:' ? httpRequest : httpsRequest)(url, {
        method: ask.method ?? 'GET',
        agent: this.#agentFor(credentials, url.protocol === 'http:'),
        timeout: ask.timeoutMs ?? TIMEOUT_MS,
        ...(ask.signal ? { signal: ask.signal } : {}),
        headers: {
          accept: 'application/json',
          'user-agent': this.#userAgent,
          ...credentials.headers,
          ...(body ? { 'content-type': ask.contentType ?? 'application/json', 'content-length': body.length } : {}),
        },
      })
      outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${ask.timeoutMs ?? TIMEOUT_MS} ms`)))
      outgoing.on('response', resolve)
      outgoing.on('error', (cause: NodeJS.ErrnoException) => {
        // The server closed a kept connection just then: nothing was done, another one will do.
        if (outgoing.reusedSocket && !again && (cause.code === 'ECONNRESET' || cause.code === 'EPIPE')) {
          resolve(this.#send(ask, true))
          return
        }
        this.counts.failed++
        reject(unreachable(ask, server, cause))
      })
      outgoing.end(body)
    })
  }

  #agentFor(credentials: Credentials, plain: boolean): Agent | HttpAgent {
    if (credentials.agent) return credentials.agent
    const { tls } = credentials
    const of = [tls.ca, tls.cert, tls.key, tls.servername, tls.rejectUnauthorized].map(String).join('\0')
    if (this.#agent?.of === of) return this.#agent.agent
    // What the old one carries goes on; it takes nothing new.
    const old = this.#agent?.agent
    const options = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_MS, maxSockets: MAX_SOCKETS }
    this.#agent = { of, agent: plain ? new HttpAgent(options) : new Agent({ ...options, ...tls }) }
    if (old) for (const sockets of Object.values(old.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
    return this.#agent.agent
  }

  #read(response: IncomingMessage, ask: Ask): Promise<string> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > MAX_ANSWER)
          response.destroy(
            new KubeError('KUBE_TOO_LARGE', `${nameOf(ask)}: the answer is larger than ${MAX_ANSWER / 1048576} MB`),
          )
        else chunks.push(chunk)
      })
      response.on('end', () => resolve(Buffer.concat(chunks).toString()))
      response.on('error', (cause) =>
        reject(cause instanceof KubeError ? cause : unreachable(ask, this.connection.server, cause)),
      )
    })
  }

  /** Resolves after `ms`, rejects when the signal says so. */
  #wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(ms, () => {
        signal?.removeEventListener('abort', stop)
        resolve()
      })
      const stop = (): void => {
        timer.cancel()
        reject(new KubeError('KUBE_STOPPED', 'stopped'))
      }
      if (signal?.aborted) stop()
      else signal?.addEventListener('abort', stop, { once: true })
    })
  }
}

function nameOf(ask: Ask): string {
  return `${ask.method ?? 'GET'} ${ask.path}`
}

function unreachable(ask: Ask, server: URL, cause: unknown): KubeError {
  const stopped = ask.signal?.aborted ?? false
  return new KubeError(
    stopped ? 'KUBE_STOPPED' : 'KUBE_UNREACHABLE',
    stopped ? 'stopped' : `${nameOf(ask)}: no answer from ${server.host}: ${messageOf(cause)}`,
    { cause },
  )
}

function parse(text: string, ask: Ask): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new KubeError('KUBE_SERVER_ERROR', `${nameOf(ask)}: the answer is not JSON`, { cause })
  }
}

function parseQuietly(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return { message: text.slice(0, 200).trim() }
  }
}
