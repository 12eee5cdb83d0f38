// Makes messages of HTTP/1.x as text, one character a byte: valid ones, and ones that are valid but for a choice or two, taken
// from what has fooled parsers before. Must not live here: changes of single bytes and cuts (mutate.ts), judging (compare.ts).
import type { Random } from './random.ts'

/** What a valid message must be taken for. */
export interface Meant {
  start: string
  body: string
  trailers: number
}

const KNOWN = ['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH', 'TRACE', 'PROPFIND', 'PURGE', 'M-SEARCH']
const UNKNOWN = ['FOO', 'get', 'M-S!x~9', 'GETT', 'G', 'PUTS', "!#$%&'*+-.^_`|~"]
const HOSTS = ['a', 'a.example', 'a.example:8080', '[::1]', '[::1]:80', '10.0.0.1:1', 'a_b.c', 'a%20b', 'A.B', 'a:']
const PATHS = ['/', '/a', '/a/b', '/a?b=c', '/?', '//', '/a//b/../c', '/%00', '/a;b', "/~!$&'()*+,=:@|^{}", '/a?b?c/']
const BAD_TARGETS = [
  '',
  '*',
  'a',
  'a:1',
  '/a b',
  '/a\tb',
  '/\x80',
  '/\x7f',
  '/\0',
  'http:///',
  'http://u@h/',
  'ftp://h/',
  '/a#b',
]
const BAD_TARGETS_2 = [
  'HTTP://h/p',
  'https://h',
  'http://h?q',
  'http://h#f',
  'http:/h',
  '?a',
  '#',
  '\\',
  '/a\r',
  '*a',
  '/\xff',
]
const BAD_VERSIONS = [
  'HTTP/1.2',
  'HTTP/2.0',
  'http/1.1',
  'HTTP/1.1 ',
  'HTTP/1.',
  'HTTP/01.1',
  '',
  'HTTP/1.1\0',
  'HTTP/0.9',
]
const LINE_ENDS = ['\n', '\r', '\r\r\n', '\n\r', '', ' \r\n', '\r\n ', '\0\r\n']
const NAMES = [
  'Accept',
  'User-Agent',
  'x-a',
  'X-B',
  'Cookie',
  'Via',
  'Content-Type',
  'ETag',
  '__proto__',
  "!#$%&'*+.^_`|~0",
]
const VALUES = [
  '',
  'a',
  'b c',
  'a\tb',
  'caf\xe9',
  '*/*',
  'a,b;q=0.5',
  '"x\\"y"',
  ':',
  'x: y',
  'chunked',
  '5',
  '\xa0x\xa0',
]
const BAD_NAMES = [
  '',
  ' x',
  'x y',
  'x[',
  'x\0',
  'x\xe9',
  'x:y',
  '\tx',
  'x\r',
  '(x)',
  'Content-Length\0',
  'Content Length',
]
const BAD_VALUES = ['a\0b', 'a\rb', 'a\nb', 'a\r\n b', 'a\r\n\tb', '\x7f', '\x01', '\x0b', 'a\r\n', '\r\n\r\n', '\n']
const COLONS = [':', ' :', '\t:', ': ', '::', '', ' : ', '\r\n:']
const BLANKS = [' ', ' ', ' ', '', '\t', '  ', ' \t ']
const BAD_LENGTHS = [
  '+5',
  '-0',
  '0x5',
  '5_0',
  '5 5',
  '5,5',
  '5, 5',
  '',
  '5;',
  '"5"',
  '99999999999999999999',
  '5\0',
  'a',
  '1e1',
]
const BAD_LENGTHS_2 = [
  '18446744073709551621',
  '4294967301',
  '9007199254740993',
  '5\x0b',
  '\x0b5',
  '0',
  '1',
  '00000000000000000005',
]
const CODINGS = [
  'Chunked',
  'CHUNKED',
  'chunked ',
  '\tchunked',
  'chunked, chunked',
  'gzip, chunked',
  'chunked, gzip',
  'identity',
]
const CODINGS_2 = [
  'xchunked',
  'chunkedx',
  'chunked;q=1',
  'chunked\x0b',
  '"chunked"',
  ',chunked',
  'chunked,',
  '',
  'chu nked',
  'gzip',
]
const CODING_NAMES = [
  'Transfer-Encoding ',
  'Transfer_Encoding',
  'transfer-encoding\t',
  'Transfer-Encodin',
  'TRANSFER-ENCODING',
]
const BAD_SIZES = [
  '',
  '+3',
  '-3',
  '0x3',
  ' 3',
  '3 ',
  '3\t',
  '1_0',
  'g',
  'ffffffffffffffff',
  '10000000000000003',
  '100000003',
  '3;',
]
const EXTENSIONS = ['', '', '', '', ';a', ';a=b', ';a="b c"', ';a="q\\"x";d', ';a=b;c=d']
const BAD_EXTENSIONS = [
  ';',
  ' ;a',
  '; a',
  ';a =b',
  ';a= b',
  ';a=',
  ';a="',
  ';a\n',
  ';a\0',
  ';a\r',
  ';"a"',
  ';a="b\r\nc"',
  ' ',
  ';;',
]
const CHUNK_ENDS = ['', '\n', '\r', 'x\r\n', '\r\nx', '\r\n\r\n', '\n\r\n', ' \r\n']
const BODIES = [
  '',
  'a',
  'hello',
  '\r\n',
  '0\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  '\0\x80\xff',
  'HTTP/1.1 200 OK\r\n\r\n',
]
const EXPECTS = ['100-Continue', '100-continue', '200-ok', '', '100-continue, x']
const BETWEEN = ['\r\n', '\n', '\r', ' ', '\0', '\r\n\r\n', 'x', '0\r\n\r\n']

/** 0: valid; above: the share of choices that are taken from the bad ones. */
export type Badness = number

class Maker {
  readonly r: Random
  readonly bad: Badness

  constructor(r: Random, bad: Badness) {
    this.r = r
    this.bad = bad
  }

  nasty(): boolean {
    return this.bad > 0 && this.r.chance(this.bad)
  }

  /** One of the good, or sometimes of the bad. */
  of(good: string, bad: readonly string[]): string {
    return this.nasty() ? this.r.pick(bad) : good
  }

  cased(name: string): string {
    const how = this.r.int(4)
    if (how === 0) return name.toLowerCase()
    return how === 1 ? name.toUpperCase() : name
  }

  field(name: string, value: string): string {
    const colon = this.of(':', COLONS)
    const end = this.of('\r\n', LINE_ENDS)
    return `${name}${colon}${this.r.pick(BLANKS)}${value}${this.r.chance(0.2) ? this.r.pick(BLANKS) : ''}${end}`
  }

  /** Fields that say nothing about framing. */
  plain(): string {
    const name = this.of(this.r.chance(0.1) ? `x-${this.r.int(1000)}` : this.r.pick(NAMES), BAD_NAMES)
    return this.field(name, this.of(this.r.pick(VALUES), BAD_VALUES))
  }

  body(): string {
    const body = this.r.pick(BODIES)
    return this.r.chance(0.02) ? body.repeat(1 + this.r.int(200)) : body
  }

  chunks(body: string): { text: string; trailers: number } {
    let text = ''
    let at = 0
    while (at < body.length) {
      const length = Math.min(body.length - at, 1 + this.r.int(8) + (this.r.chance(0.2) ? this.r.int(2000) : 0))
      text += this.size(length) + this.of(this.r.pick(EXTENSIONS), BAD_EXTENSIONS) + this.of('\r\n', LINE_ENDS)
      text += body.slice(at, at + length) + this.of('\r\n', CHUNK_ENDS)
      at += length
    }
    if (this.nasty()) return { text, trailers: 0 }
    text += this.of(this.r.pick(['0', '0', '00', '0000000000000']), BAD_SIZES)
    text += this.of(this.r.pick(EXTENSIONS), BAD_EXTENSIONS) + this.of('\r\n', LINE_ENDS)
    let trailers = 0
    while (this.r.chance(0.15)) {
      trailers++
      text += this.field(`x-t${trailers}`, this.of(this.r.pick(VALUES), BAD_VALUES))
    }
    if (this.nasty()) text += this.r.pick(['Content-Length: 3\r\n', 'Host: b\r\n', 'x : y\r\n', 'x\r\n', ' x: y\r\n'])
    return { text: text + this.of('\r\n', LINE_ENDS), trailers }
  }

  size(length: number): string {
    if (this.nasty()) return this.r.chance(0.5) ? this.r.pick(BAD_SIZES) : (length + this.r.int(3) - 1).toString(16)
    const hex = length.toString(16)
    const cased = this.r.chance(0.5) ? hex.toUpperCase() : hex
    return this.r.chance(0.2) ? `00${cased}` : cased
  }

  length(body: string): string {
    if (!this.nasty()) return this.r.chance(0.1) ? `00${body.length}` : String(body.length)
    const how = this.r.int(3)
    if (how === 0) return String(Math.max(0, body.length + this.r.int(5) - 2))
    return this.r.pick(how === 1 ? BAD_LENGTHS : BAD_LENGTHS_2)
  }

  coding(): string {
    return this.nasty() ? this.r.pick(this.r.chance(0.5) ? CODINGS : CODINGS_2) : 'chunked'
  }

  /** Puts fields of framing among the others, in any order. */
  shuffled(fields: string[]): string {
    for (let i = fields.length - 1; i > 0; i--) {
      const other = this.r.int(i + 1)
      const keep = fields[i] as string
      fields[i] = fields[other] as string
      fields[other] = keep
    }
    return fields.join('')
  }

  /** Fields and body of a message. `chunkable`: HTTP/1.1. `bodiless`: what is declared does not follow. */
  framed(
    fields: string[],
    chunkable: boolean,
    none: boolean,
    bodiless: boolean,
    must: boolean,
  ): Omit<Meant, 'start'> & { text: string } {
    const body = none ? '' : this.body()
    const how = none ? 0 : this.r.int(must ? 2 : 3)
    let text = ''
    let trailers = 0
    let meant = body
    if (none || (how === 2 && !must)) meant = ''
    else if (how === 1 && chunkable) {
      const name = this.of(this.cased('Transfer-Encoding'), CODING_NAMES)
      // Blanks around a coding are refused, so only what is not meant to be valid has them.
      if (this.bad > 0) fields.push(this.field(name, this.coding()))
      else fields.push(`${name}:${this.r.pick(['', ' ', '  '])}chunked\r\n`)
      const made = this.chunks(body)
      text = made.text
      trailers = made.trailers
      if (this.nasty()) fields.push(this.field('Content-Length', this.length(body)))
    } else {
      fields.push(this.field(this.cased('Content-Length'), this.length(body)))
      if (this.nasty()) fields.push(this.field('Content-Length', this.length(body)))
      text = body
      if (this.nasty()) fields.push(this.field(this.of('Transfer-Encoding', CODING_NAMES), this.coding()))
    }
    if (bodiless) return { text: '', body: '', trailers: 0 }
    return { text, body: meant, trailers }
  }
}

/** One request. `last`: it may end the connection or turn it into a tunnel. */
export function makeRequest(r: Random, bad: Badness, last: boolean): { text: string; meant: Meant } {
  const m = new Maker(r, bad)
  let method = r.chance(0.05) ? r.pick(UNKNOWN) : r.pick(KNOWN)
  let target = r.pick(PATHS)
  const form = r.int(20)
  const host = r.pick(HOSTS)
  let none = r.chance(0.4)
  if (form === 0) target = `${r.pick(['http', 'https', 'HTTP'])}://${r.pick(HOSTS)}${r.chance(0.7) ? target : ''}`
  else if (form === 1) {
    method = 'OPTIONS'
    target = '*'
  } else if (form === 2 && last) {
    method = 'CONNECT'
    target = 'a.example:443'
    none = true
  }
  if (bad > 0 && r.chance(bad)) target = r.pick(r.chance(0.5) ? BAD_TARGETS : BAD_TARGETS_2)
  const old = last && r.chance(0.08)
  const version = m.of(old ? 'HTTP/1.0' : 'HTTP/1.1', BAD_VERSIONS)
  const fields: string[] = []
  if (!m.nasty())
    fields.push(m.field(m.cased('Host'), m.of(host, ['', 'a,b', 'u@a', 'a b', 'a/b', '[::1', 'a:b', ':1', '\xe9'])))
  if (m.nasty()) fields.push(m.field('Host', host))
  while (r.chance(0.6)) fields.push(m.plain())
  if (last && r.chance(0.1)) fields.push(m.field('Connection', r.pick(['close', 'keep-alive', 'x-a, close', 'te'])))
  else if (last && r.chance(0.06)) {
    fields.push(m.field('Connection', r.pick(['upgrade', 'Upgrade, x-a'])))
    fields.push(m.field('Upgrade', r.pick(['websocket', 'WebSocket', 'h2c', 'spdy/3.1', 'a, b', ''])))
  } else if (r.chance(0.05))
    fields.push(m.field('Connection', r.pick(['keep-alive', 'x-a', 'X-B,Keep-Alive', 'host', ','])))
  if (r.chance(0.03)) fields.push(m.field('Expect', m.of('100-continue', EXPECTS)))
  if (r.chance(0.03)) fields.push(m.field('TE', r.pick(['trailers', 'gzip', 'trailers;q=1, x'])))
  const framed = m.framed(fields, !old, none, false, false)
  const between = m.nasty() ? r.pick(BETWEEN) : ''
  const blank = m.of(' ', ['  ', '\t', '', '\x0b', ' \r\n'])
  const line = `${m.of(method, ['', 'G@T', 'GE T', '\xe9', 'GET\0', 'get'])}${blank}${target}${m.of(' ', ['  ', '\t', ''])}${version}`
  const head = `${line}${m.of('\r\n', LINE_ENDS)}${m.shuffled(fields)}${m.of('\r\n', LINE_ENDS)}`
  return {
    text: between + head + framed.text,
    meant: { start: method, body: framed.body, trailers: framed.trailers },
  }
}

/** What a response answers. */
export const ASKED = ['GET', 'GET', 'GET', 'HEAD', 'CONNECT', 'upgrade'] as const
export type Asked = (typeof ASKED)[number]

const STATUSES = ['200', '200', '200', '404', '500', '204', '304', '206', '599', '201']
const BAD_STATUSES = ['20', '2000', '099', '600', '999', '2x0', ' 200', '-20', '', '000', '101', '100', '+20']

/** Informational responses and a final one, to a request that `asked`. */
export function makeResponse(
  r: Random,
  bad: Badness,
  asked: Asked,
): { text: string; meant: Meant; informational: number } {
  const m = new Maker(r, bad)
  let text = ''
  let informational = 0
  while (r.chance(0.15)) {
    informational++
    text += `HTTP/1.1 ${r.pick(['100', '103', '102', '199'])} x${m.of('\r\n', LINE_ENDS)}${r.chance(0.3) ? m.plain() : ''}`
    if (m.nasty()) text += r.pick(['Content-Length: 3\r\n', 'Transfer-Encoding: chunked\r\n'])
    text += m.of('\r\n', LINE_ENDS)
  }
  const upgraded = asked === 'upgrade' && r.chance(0.6)
  const old = !upgraded && r.chance(0.1)
  let status = r.pick(STATUSES)
  const fields: string[] = []
  if (upgraded) {
    status = '101'
    fields.push(m.field('Connection', m.of('upgrade', ['close', 'x'])))
    fields.push(m.field('Upgrade', m.of('websocket', ['x', 'h2c', ''])))
  }
  status = m.of(status, BAD_STATUSES)
  const tunnel = upgraded || (asked === 'CONNECT' && status.startsWith('2'))
  while (r.chance(0.6)) fields.push(m.plain())
  if (!upgraded && r.chance(0.1)) fields.push(m.field('Connection', r.pick(['close', 'keep-alive', 'x-a'])))
  const bodiless = asked === 'HEAD' || status === '204' || status === '304' || tunnel
  const untilClose = r.chance(0.15)
  const framed = m.framed(fields, !old, upgraded || untilClose, bodiless, true)
  let { text: body, body: meant } = framed
  if (untilClose && !bodiless) {
    body = m.body()
    meant = body
  }
  const reason = m.of(r.pick([' OK', ' ', '', ' Not Found', ' caf\xe9']), ['  ', '\t', ' a\0', ' \r', 'x'])
  const version = m.of(old ? 'HTTP/1.0' : 'HTTP/1.1', BAD_VERSIONS)
  const line = `${version}${m.of(' ', ['  ', '\t', ''])}${status}${reason}${m.of('\r\n', LINE_ENDS)}`
  text += `${line}${m.shuffled(fields)}${m.of('\r\n', LINE_ENDS)}${body}`
  if (tunnel) {
    meant = r.chance(0.5) ? 'raw' : ''
    text += meant
  } else if (m.nasty()) text += r.pick(['x', '\r\n', 'HTTP/1.1 200 OK\r\n\r\n'])
  return { text, meant: { start: status, body: meant, trailers: framed.trailers }, informational }
}
