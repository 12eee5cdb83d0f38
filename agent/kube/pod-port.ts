// Connections to a TCP port of a pod's own loopback through the API server (`pods/portforward`): what `kubectl port-forward`
// does, without a listener. It takes `get` and `create` on pods/portforward of one namespace; unlike `pods/exec` it lets nobody
// run anything in the pod. Must not live here: what is asked (cli/).
import { request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { Duplex } from 'node:stream'
import WebSocket from 'ws'
import { messageOf } from '../base/errors.ts'
import type { KubeClient } from './client.ts'
import { errorOf, KubeError } from './errors.ts'
import { PODS } from './mesh-kinds.ts'
import { pathOf } from './resource.ts'

/** The kubelet's own protocol: byte 0 of a message says the channel, the first message of each begins with the port. */
const PROTOCOL = 'v4.channel.k8s.io'
const DATA = 0
const ERROR = 1
/** Of what the other side may say in one message. */
const MAX_MESSAGE = 1 << 20
const MAX_ANSWER = 64 << 20
const TIMEOUT_MS = 10_000

export interface PodPort {
  readonly namespace: string
  readonly pod: string
  readonly port: number
}

/** A connection to the port. Throws KubeError: KUBE_FORBIDDEN, KUBE_NOT_FOUND, KUBE_UNREACHABLE … */
export async function dialPod(client: KubeClient, to: PodPort, timeoutMs: number = TIMEOUT_MS): Promise<Duplex> {
  const { server } = client.connection
  const path = pathOf(PODS, to.namespace, to.pod, 'portforward')
  const url = new URL(`${server.pathname.replace(/\/$/, '')}${path}?ports=${to.port}`, server)
  url.protocol = server.protocol === 'http:' ? 'ws:' : 'wss:'
  for (let attempt = 1; ; attempt++) {
    try {
      return await open(client, url, path, timeoutMs)
    } catch (error) {
      // A token that was replaced while the old one was kept.
      if (!(error instanceof KubeError) || error.status !== 401 || attempt > 1) throw error
      client.connection.refused()
    }
  }
}

async function open(client: KubeClient, url: URL, path: string, timeoutMs: number): Promise<Duplex> {
  const { tls, headers, agent } = await client.connection.credentials()
  const what = `port-forward ${path}`
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, [PROTOCOL], {
      ...tls,
      headers,
      ...(agent ? { agent } : {}),
      handshakeTimeout: timeoutMs,
      maxPayload: MAX_MESSAGE,
      perMessageDeflate: false,
      // It may lead to another server, which must not get the credentials.
      followRedirects: false,
    })
    const failed = (error: Error): void =>
      reject(
        error instanceof KubeError
          ? error
          : new KubeError('KUBE_UNREACHABLE', `${what}: ${messageOf(error)}`, { cause: error }),
      )
    socket.once('unexpected-response', (_, response: IncomingMessage) => {
      void bodyOf(response).then((body) => {
        socket.terminate()
        failed(errorOf(what, response.statusCode ?? 0, parsed(body), response.headers['retry-after']))
      }, failed)
    })
    socket.on('error', failed)
    socket.once('open', () => {
      socket.off('error', failed)
      resolve(new Forwarded(socket, what))
    })
  })
}

/** The port's bytes both ways. The protocol knows no half-close: to end is to close. */
class Forwarded extends Duplex {
  readonly #socket: WebSocket
  readonly #begun = new Set<number>()

  constructor(socket: WebSocket, what: string) {
    super({ allowHalfOpen: false })
    this.#socket = socket
    let said = ''
    // Until somebody reads: what came before that would be nobody's, an error nobody's to catch.
    socket.pause()
    this.on('error', () => undefined)
    socket.binaryType = 'nodebuffer'
    socket.on('message', (message: Buffer) => {
      const channel = message[0] ?? 0
      const first = !this.#begun.has(channel)
      this.#begun.add(channel)
      const body = message.subarray(first ? 3 : 1)
      if (body.length === 0) return
      if (channel === DATA) {
        if (!this.push(body)) socket.pause()
      } else if (channel === ERROR) {
        said += body.toString()
        this.destroy(new KubeError('KUBE_UNREACHABLE', `${what}: ${said.trim()}`))
      }
    })
    socket.on('error', (error) => this.destroy(error))
    socket.on('close', () => this.push(null))
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.send(Buffer.concat([Buffer.of(DATA), chunk]), done)
  }

  override _final(done: () => void): void {
    this.#socket.close()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.terminate()
    done(error)
  }
}

export interface PodAnswer {
  readonly status: number
  readonly body: string
}

/** One HTTP request to the port, answered in full within the time. Throws KubeError. */
export async function askPod(
  client: KubeClient,
  to: PodPort,
  path: string,
  options: { readonly method?: 'GET' | 'POST'; readonly timeoutMs?: number } = {},
): Promise<PodAnswer> {
  const { method = 'GET', timeoutMs = TIMEOUT_MS } = options
  const connection = await dialPod(client, to, timeoutMs)
  const what = `${method} ${path} of ${to.namespace}/${to.pod}:${to.port}`
  const late = setTimeout(
    () => connection.destroy(new Error(`no whole answer within ${timeoutMs} ms`)),
    timeoutMs,
  ).unref()
  try {
    return await new Promise<PodAnswer>((resolve, reject) => {
      // What the connection failed of, where the request only sees that it ended.
      connection.on('error', reject)
      if (connection.errored) throw connection.errored
      const asked = request({
        createConnection: () => connection,
        method,
        path,
        headers: { host: 'localhost', connection: 'close' },
      })
      asked.on('error', reject)
      asked.on('response', (response) => {
        bodyOf(response).then((body) => resolve({ status: response.statusCode ?? 0, body }), reject)
      })
      asked.end()
    })
  } catch (error) {
    if (error instanceof KubeError) throw error
    throw new KubeError('KUBE_UNREACHABLE', `${what}: ${messageOf(error)}`, { cause: error })
  } finally {
    clearTimeout(late)
    connection.destroy()
  }
}

async function bodyOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    if ((size += chunk.length) > MAX_ANSWER) throw new Error(`the answer is larger than ${MAX_ANSWER >> 20} MB`)
  }
  return Buffer.concat(chunks).toString()
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return { message: text.slice(0, 200).trim() }
  }
}
