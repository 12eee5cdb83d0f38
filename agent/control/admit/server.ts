// The webhook's HTTPS server. Bounded on every side: the API server waits for it, and so does whoever applies. Must not live here:
// the answer (review.ts), the certificate (certificate.ts).
import { createServer, type Server } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { joinHostPort, splitHostPort } from '../../base/ip.ts'
import type { Logger } from '../../base/log.ts'
import { review, type AdmissionRequest, type AdmissionResponse, type Knowledge } from './review.ts'

/** etcd takes 1.5 MB an object, and a review has the new one and the old one. */
const MAX_BODY = 4 * 1024 * 1024
/** At once, and bytes of them all; more are answered 429, which `failurePolicy: Ignore` lets pass. */
const MAX_REQUESTS = 64
const MAX_BYTES = 32 * 1024 * 1024
/** The API server itself waits three seconds. */
const REQUEST_MS = 5_000
/** Within it control hears of what was written before; the API server waits ten times as long. */
const SETTLE_MS = 300

export interface WebhookServerOptions {
  /** `HOST:PORT`; port 0 for any. */
  readonly listen: string
  readonly knowledge: Knowledge
  readonly log: Logger
  /** Waits for what was written a moment before; default 300 ms. */
  readonly settle?: () => Promise<unknown>
}

export class WebhookServer {
  readonly #options: WebhookServerOptions
  readonly #server: Server
  #running = 0
  #bytes = 0
  /** For metrics. */
  readonly counts = { allowed: 0, refused: 0, failed: 0 }

  constructor(options: WebhookServerOptions) {
    this.#options = options
    this.#server = createServer(
      {
        minVersion: 'TLSv1.2',
        requestTimeout: REQUEST_MS,
        headersTimeout: REQUEST_MS,
        connectionsCheckingInterval: 1_000,
        maxHeaderSize: 16_384,
      },
      (request, response) => void this.#answer(request, response),
    )
    this.#server.maxConnections = 256
    this.#server.on('tlsClientError', () => undefined)
  }

  /** The certificate of connections from now on. */
  setCertificate(material: { readonly cert: string; readonly key: string }): void {
    this.#server.setSecureContext({ ...material, minVersion: 'TLSv1.2' })
  }

  /** Throws CONTROL_LISTEN. */
  async start(): Promise<void> {
    const { listen } = this.#options
    const { host = '', port = 0 } = splitHostPort(listen) ?? {}
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error) =>
        reject(new AmbitError('CONTROL_LISTEN', `The webhook cannot listen on ${listen}: ${messageOf(error)}`)),
      )
      this.#server.listen({ host, port }, resolve)
    })
    this.#server.on('error', (error) =>
      this.#options.log.error({ error: messageOf(error) }, 'the webhook’s server is in trouble'),
    )
  }

  get address(): string {
    const { address, port } = this.#server.address() as AddressInfo
    return joinHostPort(address, port)
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeIdleConnections()
    const forced = setTimeout(() => this.#server.closeAllConnections(), 1_000)
    await closed
    clearTimeout(forced)
  }

  /** What is applied together is heard of a moment later: of what seems to be missing is told only if it still is by then. */
  async #review(request: AdmissionRequest): Promise<AdmissionResponse> {
    const { knowledge, settle = () => sleep(SETTLE_MS) } = this.#options
    let lacks = false
    const missing: Knowledge['missing'] = (resource) => {
      const found = knowledge.missing(resource)
      lacks ||= found.length > 0
      return found
    }
    const answer = review(request, { held: knowledge.held, missing })
    if (!lacks) return answer
    await settle()
    return review(request, knowledge)
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined)
    const fail = (status: number, text: string): void => {
      this.counts.failed++
      response.writeHead(status, { 'content-type': 'text/plain', connection: 'close' }).end(`${text}\n`)
      request.resume()
    }
    if (request.method !== 'POST' || request.url?.split('?', 1)[0] !== '/validate')
      return fail(404, 'POST an AdmissionReview to /validate')
    if (this.#running >= MAX_REQUESTS) return fail(429, 'too many reviews at once')
    this.#running++
    let length = 0
    try {
      const chunks: Buffer[] = []
      for await (const chunk of request as AsyncIterable<Buffer>) {
        length += chunk.length
        this.#bytes += chunk.length
        if (length > MAX_BODY) return fail(413, `a review has at most ${MAX_BODY} bytes`)
        if (this.#bytes > MAX_BYTES) return fail(429, 'too many bytes of reviews at once')
        chunks.push(chunk)
      }
      const asked = JSON.parse(Buffer.concat(chunks).toString()) as { apiVersion?: string; request?: AdmissionRequest }
      if (asked.apiVersion !== 'admission.k8s.io/v1' || typeof asked.request?.uid !== 'string')
        return fail(400, 'this is no AdmissionReview of admission.k8s.io/v1')
      const answer = await this.#review(asked.request)
      this.counts[answer.allowed ? 'allowed' : 'refused']++
      const body = JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer })
      response.writeHead(200, { 'content-type': 'application/json' }).end(body)
    } catch (error) {
      if (request.destroyed && !request.complete) return
      this.#options.log.warn({ error: messageOf(error) }, 'a review could not be answered')
      if (!response.headersSent) fail(400, 'the review cannot be read')
    } finally {
      this.#running--
      this.#bytes -= length
    }
  }
}
