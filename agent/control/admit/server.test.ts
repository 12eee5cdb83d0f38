// The webhook's server against clients that mean it ill, or are many. How the API server gets on with it: test/kube/control-plane/admission.test.ts.
import { Agent, request } from 'node:https'
import { connect } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLog } from '../../base/log.ts'
import type { Problem } from '../../config/problem.ts'
import { splitHostPort } from '../../base/ip.ts'
import { testRoot } from '../../io/testcerts.ts'
import { WebhookServer } from './server.ts'

const root = testRoot('webhook')
const [one, two] = [1, 2].map(() => root.issue('spiffe://webhook,IP:127.0.0.1'))

let server: WebhookServer
let port: number
beforeEach(async () => {
  const knowledge = { held: { get: () => undefined }, missing: () => [] }
  server = new WebhookServer({ listen: '127.0.0.1:0', knowledge, log: silentLog })
  server.setCertificate({ cert: one!.certificate, key: one!.key })
  await server.start()
  port = splitHostPort(server.address)?.port ?? 0
})
afterEach(async () => {
  await server.stop()
})

interface Answer {
  readonly status: number
  readonly text: string
}

function ask(
  body: string | Buffer,
  { path = '/validate', method = 'POST', agent }: { path?: string; method?: string; agent?: Agent } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', port, path, method, ca: root.certificate, ...(agent ? { agent } : { agent: false }) },
      (response) => {
        let text = ''
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      },
    )
    asked.on('error', reject)
    asked.end(body)
  })
}

const review = (object: unknown): string =>
  JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: { uid: 'u-1', object } })

const policy = (action: string) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { namespace: 'shop', name: 'p' },
  spec: { action },
})

describe('the webhook’s server', () => {
  it('answers a review with a review', async () => {
    const { status, text } = await ask(review(policy('ALOW')))
    expect(status).toBe(200)
    expect(JSON.parse(text)).toMatchObject({
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      response: { uid: 'u-1', allowed: false, status: { code: 422 } },
    })
    expect(JSON.parse((await ask(review(policy('DENY')))).text)).toMatchObject({ response: { allowed: true } })
    expect(server.counts).toEqual({ allowed: 1, refused: 1, failed: 0 })
  })

  it.each<[string, number, string | Buffer, object]>([
    ['what is no JSON', 400, '{', {}],
    ['nothing', 400, '', {}],
    ['no review', 400, '{"apiVersion":"v1"}', {}],
    ['null', 400, 'null', {}],
    ['a review without a request', 400, '{"apiVersion":"admission.k8s.io/v1"}', {}],
    ['an older review', 400, review({}).replace('k8s.io/v1', 'k8s.io/v1beta1'), {}],
    ['another path', 404, review({}), { path: '/' }],
    ['another method', 404, '', { method: 'GET' }],
  ])('refuses %s with %i, and goes on', async (_, status, body, how) => {
    expect((await ask(body, how)).status).toBe(status)
    expect(server.counts.failed).toBe(1)
    expect((await ask(review(policy('DENY')))).status).toBe(200)
  })

  it('reads no more than a review can have', async () => {
    const answer = await ask(Buffer.alloc(8 * 1024 * 1024, 'x')).catch((error: NodeJS.ErrnoException) => error.code)
    // The answer, or the end of the connection that the client saw first.
    expect([413, 'EPIPE', 'ECONNRESET']).toContain(typeof answer === 'object' ? answer.status : answer)
    expect(server.counts.failed).toBe(1)
    expect((await ask(review(policy('DENY')))).status).toBe(200)
  })

  it('has no more at once than it may, and answers the rest at once', async () => {
    // They send their head and then nothing.
    const idle = Array.from({ length: 64 }, () => {
      const socket = connect({ host: '127.0.0.1', port, ca: root.certificate })
      socket.on('error', () => undefined)
      socket.write('POST /validate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n')
      return socket
    })
    await expect.poll(async () => (await ask(review(policy('DENY')))).status).toBe(429)
    for (const socket of idle) socket.destroy()
    await expect.poll(async () => (await ask(review(policy('DENY')))).status).toBe(200)
  })

  it('shows another certificate to new connections and keeps the old ones', async () => {
    const shown = (agent?: Agent): Promise<string | undefined> =>
      new Promise((resolve, reject) => {
        const asked = request({ host: '127.0.0.1', port, ca: root.certificate, agent: agent ?? false }, (response) => {
          const { socket } = response as unknown as { socket: { getPeerCertificate(): { fingerprint256: string } } }
          resolve(socket.getPeerCertificate().fingerprint256)
          response.resume()
        })
        asked.on('error', reject)
        asked.end()
      })
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: root.certificate })
    await ask(review(policy('DENY')), { agent })
    const before = await shown()
    server.setCertificate({ cert: two!.certificate, key: two!.key })
    expect((await ask(review(policy('ALOW')), { agent })).status).toBe(200)
    expect(await shown()).not.toBe(before)
    agent.destroy()
  })

  it('tells of what is missing only if it still is a moment later', async () => {
    const lack: Problem = {
      severity: 'warning',
      code: 'CONFIG_UNKNOWN_SUBSET',
      message: 'no subset v1.',
      file: '',
      line: 0,
      field: 'spec',
      hint: '',
    }
    let settled = 0
    let missing: readonly Problem[] = [lack]
    const held = { get: () => undefined }
    let comes = true
    const quick = new WebhookServer({
      listen: '127.0.0.1:0',
      knowledge: { held, missing: () => missing },
      log: silentLog,
      settle: async () => {
        settled++
        if (comes) missing = []
      },
    })
    quick.setCertificate({ cert: one!.certificate, key: one!.key })
    await quick.start()
    port = splitHostPort(quick.address)!.port
    expect((await ask(review(policy('DENY')))).text).not.toContain('warnings')
    comes = false
    missing = [lack]
    expect((await ask(review(policy('DENY')))).text).toContain('no subset v1.')
    expect(settled).toBe(2)
    await quick.stop()
  })

  it('says why it cannot listen', async () => {
    const second = new WebhookServer({
      listen: `127.0.0.1:${port}`,
      knowledge: { held: { get: () => undefined }, missing: () => [] },
      log: silentLog,
    })
    await expect(second.start()).rejects.toMatchObject({ code: 'CONTROL_LISTEN' })
  })
})
