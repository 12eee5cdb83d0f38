// Every rule of HTTP/1.1 that keeps two readers of the same bytes from differing, with where it stands. Each row is
// one request as bytes, and what must become of it: a status that refuses it and closes, or the request as seen.
import { describe, expect, it } from 'vitest'
import type { RequestHead } from '../message.ts'
import { http1Server } from './server.ts'
import { EchoServer, MemoryConnection, tick, type Seen } from './testing.ts'

type Expected =
  number | (Partial<Omit<RequestHead, 'headers'>> & { body?: string; headers?: string[]; trailers?: string[] })

const host = 'Host: a.example\r\n'
const get = (rest: string) => `GET / HTTP/1.1\r\n${host}${rest}\r\n`
const post = (fields: string, body: string) => `POST /p HTTP/1.1\r\n${host}${fields}\r\n${body}`
const chunked = (body: string) => post('Transfer-Encoding: chunked\r\n', body)

const rules: readonly (readonly [rule: string, section: string, bytes: string, expected: Expected])[] = [
  // Message framing
  ['takes a plain GET', '9112 §3', get(''), { method: 'GET', path: '/', authority: 'a.example' }],
  ['lower-cases names, keeps values', '9110 §5.1', get('X-CaSe: VaLue \r\n'), { headers: ['x-case', 'VaLue'] }],
  ['takes a length', '9112 §6.2', post('Content-Length: 5\r\n', 'hello'), { body: 'hello' }],
  [
    'takes leading zeros of a length and forwards a plain number',
    '9110 §8.6',
    post('Content-Length: 005\r\n', 'hello'),
    { body: 'hello', headers: ['content-length', '5'] },
  ],
  ['takes chunks', '9112 §7.1', chunked('3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n'), { body: 'abc0123456789' }],
  ['takes chunk sizes with leading zeros', '9112 §7.1', chunked('0003\r\nabc\r\n0\r\n\r\n'), { body: 'abc' }],
  [
    'takes and drops chunk extensions',
    '9112 §7.1.1',
    chunked('3;a=b;c="q\\"x";d\r\nabc\r\n0\r\n\r\n'),
    { body: 'abc' },
  ],
  [
    'takes trailers',
    '9112 §7.1.2',
    chunked('3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n'),
    { body: 'abc', trailers: ['x-sum', '1'] },
  ],
  [
    'drops framing fields from trailers',
    '9110 §6.5.1',
    chunked('0\r\nContent-Length: 9\r\nHost: b\r\nX: 1\r\n\r\n'),
    { trailers: ['x', '1'] },
  ],
  [
    'refuses length beside chunked',
    '9112 §6.3',
    post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    400,
  ],
  [
    'refuses chunked before length too',
    '9112 §6.3',
    post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n'),
    400,
  ],
  ['refuses two lengths', '9112 §6.3', post('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello'), 400],
  ['refuses two equal lengths', '9112 §6.3', post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello'), 400],
  ['refuses a list of lengths', '9110 §8.6', post('Content-Length: 5, 5\r\n', 'hello'), 400],
  ['refuses +5', '9110 §8.6', post('Content-Length: +5\r\n', 'hello'), 400],
  ['refuses -0', '9110 §8.6', post('Content-Length: -0\r\n', ''), 400],
  ['refuses 0x5', '9110 §8.6', post('Content-Length: 0x5\r\n', 'hello'), 400],
  ['refuses 5_0', '9110 §8.6', post('Content-Length: 5_0\r\n', 'hello'), 400],
  ['refuses a length with a blank inside', '9110 §8.6', post('Content-Length: 5 5\r\n', 'hello'), 400],
  ['refuses an empty length', '9110 §8.6', post('Content-Length: \r\n', ''), 400],
  ['refuses a length beyond 2^53', '9110 §8.6', post('Content-Length: 99999999999999999999\r\n', ''), 400],
  ['refuses a length of 16 digits beyond 2^53', '9110 §8.6', post('Content-Length: 9999999999999999\r\n', ''), 400],
  ['refuses chunked twice', '9112 §6.1', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'), 501],
  [
    'refuses chunked in two fields',
    '9112 §6.1',
    post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    501,
  ],
  ['refuses another coding', '9112 §6.1', post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), 501],
  ['refuses identity', '9112 §6.1', post('Transfer-Encoding: identity\r\n', ''), 501],
  ['refuses xchunked', '9112 §6.1', post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'), 501],
  ['refuses an empty coding', '9112 §6.1', post('Transfer-Encoding:\r\n', ''), 501],
  ['refuses a quoted coding', '9112 §6.1', post('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n'), 501],
  ['refuses a vertical tab in the coding', '9110 §5.5', post('Transfer-Encoding:\x0bchunked\r\n', '0\r\n\r\n'), 400],
  ['takes Chunked in any case', '9112 §7', post('Transfer-Encoding: ChUnKeD\r\n', '0\r\n\r\n'), { body: '' }],
  ['refuses chunked in HTTP/1.0', '9112 §6.1', 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
  ['refuses a chunk size with a sign', '9112 §7.1', chunked('+3\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a chunk size with 0x', '9112 §7.1', chunked('0x3\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a chunk size with a blank', '9112 §7.1', chunked('3 \r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a leading blank in a chunk size', '9112 §7.1', chunked(' 3\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses an underscore in a chunk size', '9112 §7.1', chunked('1_0\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses an empty chunk size', '9112 §7.1', chunked('\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses an overflowing chunk size', '9112 §7.1', chunked('fffffffffffffffff\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a bare semicolon', '9112 §7.1.1', chunked('3;\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a bare LF after a chunk size', '9112 §7.1', chunked('3\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a bare LF in a chunk extension', '9112 §7.1.1', chunked('3;a\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a NUL in a chunk extension', '9112 §7.1.1', chunked('3;a\0b\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses a CR alone in a chunk extension', '9112 §7.1.1', chunked('3;a\rb\r\nabc\r\n0\r\n\r\n'), 400],
  ['refuses chunk data longer than its size', '9112 §7.1', chunked('3\r\nabcd\r\n0\r\n\r\n'), 400],
  ['refuses chunk data ended by LF', '9112 §7.1', chunked('3\r\nabc\n0\r\n\r\n'), 400],
  [
    'refuses too many bytes of chunk extensions',
    'CVE-2024-22019',
    chunked(`3;${'a'.repeat(17_000)}\r\nabc\r\n0\r\n\r\n`),
    400,
  ],
  ['refuses a malformed trailer', '9112 §7.1.2', chunked('0\r\nX : 1\r\n\r\n'), 400],
  // Lines and fields
  ['refuses a bare LF after the request line', '9112 §2.2', `GET / HTTP/1.1\n${host}\r\n`, 400],
  ['refuses a bare LF after a field', '9112 §2.2', `GET / HTTP/1.1\r\nHost: a\n\r\n`, 400],
  ['refuses bare LFs only', '9112 §2.2', `GET / HTTP/1.1\nHost: a\n\n`, 400],
  ['refuses a bare CR in a value', '9112 §2.2', get('X: a\rb\r\n'), 400],
  ['refuses a NUL in a value', '9110 §5.5', get('X: a\0b\r\n'), 400],
  ['refuses DEL in a value', '9110 §5.5', get('X: a\x7fb\r\n'), 400],
  ['refuses a NUL in a name', '9110 §5.6.2', get('X\0: a\r\n'), 400],
  ['takes obs-text in a value', '9110 §5.5', get('X: caf\xe9\r\n'), { headers: ['x', 'caf\xe9'] }],
  ['takes a tab inside a value', '9110 §5.5', get('X: a\tb\r\n'), { headers: ['x', 'a\tb'] }],
  ['takes an empty value', '9110 §5.5', get('X:\r\n'), { headers: ['x', ''] }],
  ['refuses a blank before the colon', '9112 §5.1', get('X : a\r\n'), 400],
  ['refuses a tab before the colon', '9112 §5.1', get('X\t: a\r\n'), 400],
  ['refuses a folded field', '9112 §5.2', get('X: a\r\n b\r\n'), 400],
  ['refuses a field folded by a tab', '9112 §5.2', get('X: a\r\n\tb\r\n'), 400],
  ['refuses blanks before the first field', '9112 §2.2', `GET / HTTP/1.1\r\n ${host}\r\n`, 400],
  ['refuses a field without a colon', '9112 §5', get('nonsense\r\n'), 400],
  ['refuses an empty name', '9112 §5', get(': a\r\n'), 400],
  ['refuses a non-ASCII name', '9110 §5.6.2', get('X\xe9: a\r\n'), 400],
  ['refuses a name with a bracket', '9110 §5.6.2', get('X[1]: a\r\n'), 400],
  [
    'keeps repeated fields in order',
    '9110 §5.3',
    get('A: 1\r\nB: 2\r\nA: 3\r\n'),
    { headers: ['a', '1', 'b', '2', 'a', '3'] },
  ],
  ['keeps a field called __proto__ as a field', 'l7 §7.7', get('__proto__: x\r\n'), { headers: ['__proto__', 'x'] }],
  ['refuses a head beyond 60 KiB', '9110 §5.4', get(`X: ${'a'.repeat(62_000)}\r\n`), 431],
  ['refuses more than 100 fields', '9110 §5.4', get('X: a\r\n'.repeat(100)), 431],
  // Request line
  ['forgives one empty line before', '9112 §2.2', `\r\n${get('')}`, { method: 'GET' }],
  ['refuses a second empty line', '9112 §2.2', `\r\n\r\n${get('')}`, 400],
  ['refuses two blanks', '9112 §3', `GET  / HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses a tab as a blank', '9112 §3', `GET\t/ HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses a blank at the end of the line', '9112 §3', `GET / HTTP/1.1 \r\n${host}\r\n`, 400],
  ['refuses HTTP/0.9', '9112 §3', `GET /\r\n\r\n`, 400],
  ['refuses HTTP/2.0', '9110 §15.6.6', `GET / HTTP/2.0\r\n${host}\r\n`, 505],
  ['refuses HTTP/1.2', '9110 §15.6.6', `GET / HTTP/1.2\r\n${host}\r\n`, 505],
  ['refuses http/1.1', '9112 §2.3', `GET / http/1.1\r\n${host}\r\n`, 400],
  ['refuses HTTP/1.10', '9112 §2.3', `GET / HTTP/1.10\r\n${host}\r\n`, 400],
  ['takes any token as the method', '9110 §9.1', `M-S!x~9 /x HTTP/1.1\r\n${host}\r\n`, { method: 'M-S!x~9' }],
  ['refuses a method that is no token', '9110 §9.1', `FOO@ / HTTP/1.1\r\n${host}\r\n`, 400],
  ['takes an unknown method', '9110 §9.1', `PURGE /x HTTP/1.1\r\n${host}\r\n`, { method: 'PURGE', path: '/x' }],
  ['keeps the case of a method', '9110 §9.1', `get / HTTP/1.1\r\n${host}\r\n`, { method: 'get' }],
  ['refuses non-ASCII in the target', '9112 §3.2', `GET /\xe9 HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses a control character in the target', '9112 §3.2', `GET /\x01 HTTP/1.1\r\n${host}\r\n`, 400],
  ['keeps the query', '9112 §3.2.1', `GET /a?b=c&d HTTP/1.1\r\n${host}\r\n`, { path: '/a?b=c&d' }],
  ['keeps an empty query', '9112 §3.2.1', `GET /a? HTTP/1.1\r\n${host}\r\n`, { path: '/a?' }],
  [
    'takes absolute-form, whose authority beats Host',
    '9112 §3.2.2',
    `GET http://x.y:81/p?q HTTP/1.1\r\n${host}\r\n`,
    { authority: 'x.y:81', path: '/p?q', scheme: 'http' },
  ],
  [
    'takes absolute-form without a path',
    '9112 §3.2.2',
    `GET http://x.y HTTP/1.1\r\n${host}\r\n`,
    { authority: 'x.y', path: '/' },
  ],
  [
    'takes absolute-form with a query only',
    '9112 §3.2.2',
    `GET http://x.y?a HTTP/1.1\r\n${host}\r\n`,
    { authority: 'x.y', path: '/?a' },
  ],
  [
    'takes OPTIONS of a whole server in absolute-form',
    '9112 §3.2.4',
    `OPTIONS http://x.y HTTP/1.1\r\n${host}\r\n`,
    { path: '*' },
  ],
  ['refuses userinfo in absolute-form', '9110 §4.2.4', `GET http://u@x.y/ HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses another scheme', '9112 §3.2', `GET ftp://x.y/ HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses a target that is a name', '9112 §3.2', `GET index.html HTTP/1.1\r\n${host}\r\n`, 400],
  ['takes * for OPTIONS', '9112 §3.2.4', `OPTIONS * HTTP/1.1\r\n${host}\r\n`, { path: '*' }],
  ['refuses * for GET', '9112 §3.2.4', `GET * HTTP/1.1\r\n${host}\r\n`, 400],
  [
    'takes CONNECT host:port',
    '9112 §3.2.3',
    `CONNECT x.y:443 HTTP/1.1\r\nHost: x.y:443\r\n\r\n`,
    { method: 'CONNECT', authority: 'x.y:443', path: '' },
  ],
  ['refuses CONNECT without a port', '9112 §3.2.3', `CONNECT x.y HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses CONNECT with a path', '9112 §3.2.3', `CONNECT /x HTTP/1.1\r\n${host}\r\n`, 400],
  ['refuses CONNECT with a body', '9110 §9.3.6', `CONNECT x.y:1 HTTP/1.1\r\n${host}Content-Length: 3\r\n\r\nabc`, 400],
  // Host
  ['refuses a missing Host', '9112 §3.2', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['takes HTTP/1.0 without Host', '9112 §3.2', 'GET / HTTP/1.0\r\n\r\n', { authority: '' }],
  ['refuses two Hosts', '9112 §3.2', get('Host: b\r\n'), 400],
  ['refuses two equal Hosts', '9112 §3.2', get(host), 400],
  ['refuses an empty Host', 'l7 §7.9', 'GET / HTTP/1.1\r\nHost:\r\n\r\n', 400],
  ['refuses userinfo in Host', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: u@a\r\n\r\n', 400],
  ['refuses a list in Host', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: a,b\r\n\r\n', 400],
  ['refuses a path in Host', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n', 400],
  ['refuses a blank in Host', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n', 400],
  ['refuses a port that is no number', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: a:b\r\n\r\n', 400],
  ['takes a port', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: a:80\r\n\r\n', { authority: 'a:80' }],
  ['takes an IPv6 host', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n', { authority: '[::1]:80' }],
  ['refuses an open bracket', '9110 §7.2', 'GET / HTTP/1.1\r\nHost: [::1\r\n\r\n', 400],
  // Hop-by-hop
  [
    'removes connection fields',
    '9110 §7.6.1',
    get('Connection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nX-Hop: 1\r\nX: 2\r\n'),
    { headers: ['x', '2'] },
  ],
  [
    'does not let Connection remove what policy rests on',
    '9110 §7.6.1',
    get('Connection: authorization, x-forwarded-for\r\nAuthorization: t\r\nX-Forwarded-For: 1.2.3.4\r\n'),
    { headers: ['authorization', 't', 'x-forwarded-for', '1.2.3.4'] },
  ],
  [
    'keeps te: trailers and nothing else of te',
    '9110 §10.1.4',
    get('TE: gzip, trailers;q=0.5\r\nConnection: te\r\n'),
    { headers: ['te', 'trailers'] },
  ],
  ['drops another te', '9110 §10.1.4', get('TE: gzip\r\n'), { headers: [] }],
  [
    'takes an upgrade',
    '9110 §7.8',
    get('Connection: Upgrade\r\nUpgrade: WebSocket\r\n'),
    { protocol: 'websocket', headers: [] },
  ],
  [
    'strips h2c',
    '9113 §3.1',
    get('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n'),
    { protocol: '', headers: [] },
  ],
  [
    'strips an upgrade that Connection does not name',
    '9110 §7.8',
    get('Upgrade: websocket\r\n'),
    { protocol: '', headers: [] },
  ],
  [
    'strips an upgrade in HTTP/1.0',
    '9110 §7.8',
    'GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
    { protocol: '' },
  ],
]

async function serve(bytes: string, pieces: number): Promise<{ connection: MemoryConnection; seen: Seen[] }> {
  const events = new EchoServer()
  events.answer = () => undefined
  const server = http1Server(events)
  const connection = new MemoryConnection()
  server.onOpen(connection, connection.info)
  const buffer = Buffer.from(bytes, 'latin1')
  for (let at = 0; at < buffer.length; at += pieces) {
    server.onRead(connection, buffer, at, Math.min(buffer.length, at + pieces))
  }
  await tick()
  return { connection, seen: events.seen }
}

describe.each([
  ['in one read', 1 << 20],
  ['byte by byte', 1],
])('the rules of HTTP/1.1, %s', (_name, pieces) => {
  it.each(rules)('%s (RFC %s)', async (_rule, _section, bytes, expected) => {
    const { connection, seen } = await serve(bytes, pieces)
    if (typeof expected === 'number') {
      expect(connection.text).toMatch(new RegExp(`^HTTP/1\\.1 ${expected} [^\r]*\r\n`))
      expect(connection.text).toContain('connection: close\r\n')
      expect(connection.endedHere).toBe(true)
      expect(seen.every((one) => !one.complete)).toBe(true)
      return
    }
    expect(connection.text).toBe('')
    expect(seen).toHaveLength(1)
    const { head, body, trailers, complete } = seen[0] as Seen
    expect(complete || head.method === 'CONNECT' || head.protocol !== '').toBe(true)
    const { body: wantedBody, trailers: wantedTrailers, headers, ...rest } = expected
    expect(head).toMatchObject(rest)
    if (headers) expect(head.headers).toEqual(headers)
    if (wantedBody !== undefined) expect(body).toBe(wantedBody)
    if (wantedTrailers) expect(trailers).toEqual(wantedTrailers)
  })
})

describe('refusing', () => {
  it('answers 400 with a body and 431 without', async () => {
    expect((await serve('GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 4096)).connection.text).toBe(
      'HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nBad Request',
    )
    expect((await serve(get(`X: ${'a'.repeat(70_000)}\r\n`), 4096)).connection.text).toBe(
      'HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n',
    )
    expect((await serve('GET / HTTP/1.1\r\n\r\n', 4096)).connection.text).toContain('content-length: 0\r\n')
  })

  it('serves nothing that follows what it refused', async () => {
    const { seen } = await serve(`${get('X : 1\r\n')}${get('')}`, 1 << 20)
    expect(seen).toEqual([])
  })
})
