// Reads bytes with llhttp in strict mode: the parser inside node:http, taken out of it so that no socket is needed. What comes
// after its raw fields (hop-by-hop, forms of the target) is done again here in the plainest way, so that the codec's own way
// has something to differ from. Must not live here: judging.
import { createRequire } from 'node:module'
import { latin1 } from '../../../agent/http/http1/bytes.ts'
import { flagsOf, NOT_IN_TRAILERS } from '../../../agent/http/http1/names.ts'
import type { Asked } from './grammar.ts'
import { emptyMessage, lines, type Message, type Reading } from './message.ts'

type Parser = Record<number, unknown> & {
  initialize(type: number, resource: object, maxHeaderSize: number, lenient: number): void
  execute(bytes: Uint8Array): number | (Error & { code: string; bytesParsed: number })
  finish(): undefined | (Error & { code: string })
}

interface Common {
  methods: string[]
  HTTPParser: (new () => Parser) & Record<string, number>
}

const { HTTPParser, methods } = createRequire(import.meta.url)('_http_common') as Common
/** Methods as the parser numbers them. */
const { REQUEST, RESPONSE, kOnMessageBegin, kOnHeaders, kOnHeadersComplete, kOnBody, kOnMessageComplete } = HTTPParser

const GO_ON = 0
const NO_BODY = 1
const UPGRADED = 2

/** The codec's own bounds are tested elsewhere; here the peer must not stop first. */
const MAX_HEADER = 1 << 24

interface State {
  reading: Reading
  raw: string[]
  url: string
  current: Message
  tunnel: (index: number, status: number) => number
  request: boolean
}

let state: State

function headersComplete(
  _major: number,
  minor: number,
  headers: string[] | undefined,
  method: number | undefined,
  url: string | undefined,
  status: number,
): number {
  const message = emptyMessage()
  if (headers) state.raw.push(...headers)
  if (url !== undefined && url !== null) state.url += url
  message.minor = minor
  const verdict = state.tunnel(state.reading.messages.length, status)
  message.tunnel = verdict === UPGRADED
  const { kept, host } = endToEnd(state.raw, minor, state.request, status, message.tunnel)
  message.fields = lines(kept)
  if (state.request) {
    message.start = methodNames[method as number] ?? '?'
    message.target = targetOf(message.start, state.url, host)
  } else message.start = String(status)
  state.raw = []
  state.url = ''
  state.current = message
  state.reading.messages.push(message)
  return verdict
}

// `methods` is sorted for users; the parser's numbers are found by asking it.
const methodNames: string[] = []

function newParser(): Parser {
  const parser = new HTTPParser()
  parser[kOnMessageBegin as number] = () => undefined
  parser[kOnHeaders as number] = (headers: string[], url: string) => {
    state.raw.push(...headers)
    state.url += url
  }
  parser[kOnHeadersComplete as number] = headersComplete
  parser[kOnBody as number] = (bytes: Buffer) => {
    state.current.body += latin1(bytes, 0, bytes.length)
  }
  parser[kOnMessageComplete as number] = () => {
    state.current.complete = true
    state.current.trailers = lines(trailersOf(state.raw))
    state.raw = []
    state.url = ''
  }
  return parser
}

const parser = newParser()
for (const method of methods) {
  let number = -1
  parser[kOnHeadersComplete as number] = (_a: number, _b: number, _c: unknown, id: number) => {
    number = id
    return GO_ON
  }
  state = fresh(true, () => GO_ON)
  parser.initialize(REQUEST as number, {}, MAX_HEADER, 0)
  parser.execute(Buffer.from(`${method} ${method === 'CONNECT' ? 'a:1' : '/'} HTTP/1.1\r\nHost: a\r\n\r\n`))
  if (number >= 0) methodNames[number] = method
}
parser[kOnHeadersComplete as number] = headersComplete

function fresh(request: boolean, tunnel: State['tunnel']): State {
  return { reading: { messages: [], stopped: '' }, raw: [], url: '', current: emptyMessage(), tunnel, request }
}

/** Requests; `tunnels` says which of them the codec took for the beginning of a tunnel, which the peer leaves to its user. */
export function readRequests(bytes: Buffer, tunnels: (index: number) => boolean): Reading {
  state = fresh(true, (index) => (tunnels(index) ? UPGRADED : GO_ON))
  run(REQUEST as number, bytes, false)
  return state.reading
}

/** Responses to one request, up to the end of the connection. */
export function readResponses(bytes: Buffer, asked: Asked): Reading {
  state = fresh(false, (_index, status) => {
    // As node:http decides it (lib/_http_client.js): upgrades and CONNECT, then 1xx and HEAD.
    if (asked === 'CONNECT' && status >= 200 && status < 300) return UPGRADED
    if (status === 101) return UPGRADED
    if (status >= 100 && status < 200) return NO_BODY
    return asked === 'HEAD' ? NO_BODY : GO_ON
  })
  run(RESPONSE as number, bytes, true)
  return state.reading
}

function run(type: number, bytes: Buffer, finish: boolean): void {
  let at = 0
  for (;;) {
    parser.initialize(type, {}, MAX_HEADER, 0)
    const result = parser.execute(at === 0 ? bytes : bytes.subarray(at))
    if (typeof result !== 'number') {
      state.reading.stopped = result.code
      return
    }
    at += result
    if (at >= bytes.length) break
    // It stopped after a message that asked for an upgrade: the rest is raw bytes, or goes on as HTTP if nobody took it.
    if (state.current.tunnel) {
      state.current.body += latin1(bytes, at, bytes.length)
      return
    }
  }
  if (!finish) return
  const error = parser.finish()
  if (error) state.reading.stopped = error.code
}

const HOP = /^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|host)$/
const KEPT =
  /^(host|content-length|authorization|cookie|forwarded|x-forwarded-.*|x-request-id|traceparent|tracestate|via|origin|content-type|expect)$/

function endToEnd(
  raw: readonly string[],
  minor: number,
  request: boolean,
  status: number,
  tunnel: boolean,
): { kept: string[]; host: string } {
  const named = new Set<string>()
  let host = ''
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    if (name === 'host') host = raw[i + 1] as string
    if (name !== 'connection') continue
    for (const token of (raw[i + 1] as string).toLowerCase().split(/[ \t]*,[ \t]*/)) {
      if (token !== 'te' && token !== 'close' && token !== 'keep-alive' && !KEPT.test(token)) named.add(token)
    }
  }
  const kept: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    let value = raw[i + 1] as string
    if (HOP.test(name) || named.has(name)) continue
    if (name === 'te') {
      if (!/(^|,)[ \t]*trailers[ \t]*(;|,|$)/i.test(value)) continue
      value = 'trailers'
    } else if (name === 'expect' && request) {
      if (minor === 0 || kept.includes('expect')) continue
      value = value.toLowerCase()
    } else if (name === 'content-length') {
      if (!request && (status < 200 || status === 204 || tunnel)) continue
      value = value.replace(/^0+(?=[0-9])/, '')
    }
    kept.push(name, value)
  }
  return { kept, host }
}

function trailersOf(raw: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    if (((flagsOf(name) ?? 0) & NOT_IN_TRAILERS) === 0) kept.push(name, raw[i + 1] as string)
  }
  return kept
}

function targetOf(method: string, url: string, host: string): string {
  if (method === 'CONNECT') return `${url} `
  const match = /^https?:\/\/([^/?#]*)([^#]*)/i.exec(url)
  if (!match) return `${host} ${url.replace(/#.*/, '')}`
  const [, authority = '', rest = ''] = match
  if (rest === '') return `${authority} ${method === 'OPTIONS' ? '*' : '/'}`
  return `${authority} ${rest.startsWith('/') ? rest : `/${rest}`}`
}
