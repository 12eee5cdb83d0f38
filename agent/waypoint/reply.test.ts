import { describe, expect, it } from 'vitest'
import type { RequestHead, ResponseHead, ServerExchange } from '../http/message.ts'
import { receiveHead } from './filter/headers.ts'
import { grpcTimeout } from './pipeline.ts'
import {
  accessDenied,
  grpcMessage,
  isGrpc,
  overflow,
  replies,
  sendReply,
  upstreamReset,
  type LocalReply,
} from './reply.ts'
import type { Run } from './run.ts'

function send(reply: LocalReply, head: Partial<RequestHead> = {}, version: 1 | 2 = 1) {
  const out = { head: undefined as ResponseHead | undefined, ended: false, body: '' }
  const exchange = {
    version,
    respond(response: ResponseHead, end: boolean) {
      out.head = response
      out.ended = end
    },
    write: (bytes: Uint8Array) => void (out.body += Buffer.from(bytes).toString()),
    end: () => void (out.ended = true),
  } as unknown as ServerExchange
  const request = { method: 'GET', scheme: 'http', authority: 'a', path: '/', protocol: '', headers: [], ...head }
  return { ...out, sent: sendReply(exchange, request, reply), get: () => out }
}

describe('local replies', () => {
  it('carry their body with length and type', () => {
    const { sent, get } = send(accessDenied('x'))
    expect(sent).toEqual({ status: 403, bytes: 19 })
    expect(get()).toMatchObject({ body: 'RBAC: access denied', ended: true })
    expect(get().head?.headers.slice(0, 4)).toEqual(['content-length', '19', 'content-type', 'text/plain'])
  })

  it('keep the length and send no body to HEAD', () => {
    const { get } = send(replies.noHealthyUpstream, { method: 'HEAD' })
    expect(get()).toMatchObject({ body: '', ended: true })
    expect(get().head?.headers).toContain('19')
  })

  it('become trailers-only for gRPC, with the status mapped', () => {
    const mapping: [LocalReply, string][] = [
      [{ status: 400, body: '', flags: '-', details: '' }, '13'],
      [{ status: 401, body: '', flags: '-', details: '' }, '16'],
      [accessDenied(''), '7'],
      [replies.routeNotFound, '12'],
      [{ status: 429, body: '', flags: '-', details: '' }, '14'],
      [upstreamReset('protocol error', false), '14'],
      [replies.noHealthyUpstream, '14'],
      [replies.routeTimeout, '14'],
      [{ status: 500, body: '', flags: '-', details: '' }, '2'],
    ]
    for (const [reply, code] of mapping) {
      const { sent, get } = send(reply, { headers: ['content-type', 'application/grpc+proto'] }, 2)
      expect(sent.status).toBe(200)
      expect(get().ended).toBe(true)
      const { headers } = get().head as ResponseHead
      expect(headers[headers.indexOf('grpc-status') + 1]).toBe(code)
    }
  })

  it("say why an upstream failed in Envoy's words", () => {
    expect(upstreamReset('connection termination', false)).toMatchObject({
      status: 503,
      flags: 'UC',
      body: 'upstream connect error or disconnect/reset before headers. reset reason: connection termination',
      details: 'upstream_reset_before_response_started{connection_termination}',
    })
    expect(upstreamReset('connection failure', true, 'refused')).toMatchObject({
      flags: 'UF,URX',
      body: 'upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure, transport failure reason: refused',
    })
    expect(upstreamReset('protocol error', false)).toMatchObject({ status: 502, flags: 'UPE' })
    expect(overflow('')).toMatchObject({ status: 503, flags: 'UO', headers: ['x-envoy-overloaded', 'true'] })
  })

  it('percent-encode what grpc-message cannot carry', () => {
    expect(grpcMessage('a b~')).toBe('a b~')
    expect(grpcMessage('50% é\n')).toBe('50%25 %C3%A9%0A')
  })

  it('know gRPC by its content type', () => {
    expect(isGrpc(['content-type', 'application/grpc'])).toBe(true)
    expect(isGrpc(['content-type', 'application/grpc+json'])).toBe(true)
    expect(isGrpc(['content-type', 'application/grpc;x'])).toBe(true)
    expect(isGrpc(['content-type', 'application/grpc-web'])).toBe(false)
    expect(isGrpc([])).toBe(false)
  })
})

describe('header hygiene', () => {
  it('keeps te: trailers on requests and framing whatever Connection says', () => {
    const headers = [
      'connection',
      'content-length, x-a',
      'content-length',
      '5',
      'x-a',
      '1',
      'te',
      'gzip, trailers',
      'x-b',
      '2',
    ]
    const head = { method: 'GET', scheme: 'http', authority: 'a', path: '/', protocol: '', headers }
    receiveHead({ head, exchange: { version: 1 }, requestId: '', grpc: false } as unknown as Run)
    expect(headers.slice(0, 6)).toEqual(['content-length', '5', 'x-b', '2', 'te', 'trailers'])
    expect(headers[6]).toBe('x-request-id')
    expect(headers[7]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(headers.slice(8)).toEqual(['x-forwarded-proto', 'http'])
  })
})

describe('grpc-timeout', () => {
  it.each([
    ['5S', 5_000],
    ['100m', 100],
    ['2M', 120_000],
    ['1H', 3_600_000],
    ['1500u', 2],
    ['1n', 1],
    ['123456789S', 0],
    ['5', 0],
    ['-1S', 0],
    ['', 0],
  ])('%s is %d ms', (text, ms) => {
    expect(grpcTimeout(text)).toBe(ms)
  })
})
