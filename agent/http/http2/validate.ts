// Header lists to heads, with the rules of RFC 9113 §8.2 and §8.3: which pseudo-header fields, in which order, and which
// fields may not stand here at all. A refusal is a string (why); the character rules were checked while decoding.
// Must not live here: policy, normalisation of paths.
import type { Headers, RequestHead, ResponseHead } from '../message.ts'

const FORBIDDEN = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade'])
/** uri-host of RFC 3986 §3.2.2 with an optional port; no user, which an authority must not have here (RFC 9113 §8.3.1). */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]{2,}\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]*)?$/
const SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*$/
/** A token (RFC 9110 §9.1), upper case and lower case being different methods. */
const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const COMMON_METHODS = new Set(['CONNECT', 'DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT'])
const DIGITS = /^[0-9]{1,15}$/

export interface ParsedRequest {
  head: RequestHead
  /** −1: none given. */
  contentLength: number
  /** Answer 400 rather than reset: well formed as HTTP/2, wrong as HTTP. '' when nothing is wrong. */
  bad: string
}

export interface ParsedResponse {
  head: ResponseHead
  contentLength: number
}

/** The answers, used again for every message; their heads are new. */
const request = { contentLength: -1, bad: '' } as ParsedRequest
const response = { contentLength: -1 } as ParsedResponse
/** The last authority that was well formed: most requests of a connection repeat it. */
let goodAuthority = ''

/** Where the fragment begins that a client should not have sent, the length when there is none, −1 when it is no path. */
function pathEnd(path: string): number {
  let end = path.length
  for (let i = 0; i < path.length; i++) {
    const code = path.charCodeAt(i)
    if (code <= 0x20 || code >= 0x7f) return -1
    if (code === 0x23 && i < end) end = i
  }
  return end
}

function isAuthority(text: string): boolean {
  if (text === goodAuthority) return true
  if (!AUTHORITY.test(text)) return false
  goodAuthority = text
  return true
}

/** The request of a header list, which becomes its head's, or why it is malformed. `extended`: `:protocol` is allowed (RFC 8441 §4). */
export function parseRequest(fields: Headers, extended: boolean): ParsedRequest | string {
  let method = ''
  let scheme = ''
  let authority: string | undefined
  let path = ''
  let protocol: string | undefined
  let at = 0
  for (; at < fields.length; at += 2) {
    const name = fields[at] as string
    if (name.charCodeAt(0) !== 0x3a) break
    const value = fields[at + 1] as string
    if (name === ':method' && method === '') method = value
    else if (name === ':scheme' && scheme === '') scheme = value
    else if (name === ':authority' && authority === undefined) authority = value
    else if (name === ':path' && path === '') path = value
    else if (name === ':protocol' && protocol === undefined && extended) protocol = value
    else return `'${name}' is repeated or unknown`
    if (value === '') return `'${name}' is empty`
  }
  const rest = checkFields(fields, at)
  if (rest.wrong !== '') return rest.wrong
  if (method === '') return "':method' is missing"
  if (!COMMON_METHODS.has(method) && !METHOD.test(method)) return "':method' is not a token"
  if (method === 'CONNECT' && protocol === undefined) {
    if (scheme !== '' || path !== '') return "CONNECT has a ':scheme' or ':path'"
    if (authority === undefined) return "CONNECT has no ':authority'"
  } else {
    if (scheme === '' || path === '') return "':scheme' or ':path' is missing"
    if (protocol !== undefined && method !== 'CONNECT') return "':protocol' without CONNECT"
    if (scheme !== 'http' && scheme !== 'https' && !SCHEME.test(scheme)) return "':scheme' is not a scheme"
    const end = pathEnd(path)
    if (end < 0) return "':path' has a character that is not visible ASCII"
    if (end < path.length) path = path.slice(0, end)
    if (path.charCodeAt(0) !== 0x2f && !(path === '*' && method === 'OPTIONS')) return "':path' does not begin with '/'"
  }
  let bad = ''
  if (rest.host !== undefined) {
    if (authority === undefined) authority = rest.host
    else if (authority !== rest.host && authority.toLowerCase() !== rest.host.toLowerCase()) {
      bad = "':authority' and 'host' differ"
    }
  }
  // As Envoy has it, and as HTTP/1.1 must (RFC 9112 §3.2): what nobody is named in cannot be routed.
  if (authority === undefined) bad = 'neither an authority nor a host is there'
  else if (!isAuthority(authority)) bad = 'the authority is not a host with an optional port'
  if (rest.hosts > 1) bad = "'host' is repeated"
  request.head = { method, scheme, authority: authority ?? '', path, protocol: protocol ?? '', headers: fields }
  request.contentLength = rest.contentLength
  request.bad = bad
  return request
}

/** The response of a header list, or why it is malformed. */
export function parseResponse(fields: Headers): ParsedResponse | string {
  if (fields[0] !== ':status') return "':status' is missing"
  const text = fields[1] as string
  const status = Number(text)
  if (text.length !== 3 || !(status >= 100 && status <= 999) || !DIGITS.test(text)) return `':status' is '${text}'`
  const rest = checkFields(fields, 2)
  if (rest.wrong !== '') return rest.wrong
  response.head = { status, headers: fields }
  response.contentLength = rest.contentLength
  return response
}

/** Why trailers are malformed, or ''. */
export function checkTrailers(fields: Headers): string {
  return checkFields(fields, 0).wrong
}

const checked = { wrong: '', host: undefined as string | undefined, hosts: 0, contentLength: -1 }

/**
 * The rules of regular fields, which begin at `from`. Drops what stands before them and `host`, and joins `cookie` crumbs
 * (§8.2.3), all in place. The answer is reused.
 */
function checkFields(headers: Headers, from: number): typeof checked {
  checked.wrong = ''
  checked.host = undefined
  checked.hosts = 0
  checked.contentLength = -1
  let cookie = -1
  let to = 0
  const length = headers.length
  for (let i = from; i < length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    switch (name.length) {
      case 2:
        if (name === 'te' && value !== 'trailers') checked.wrong = "'te' is not 'trailers'"
        break
      case 4:
        if (name === 'host') {
          checked.host ??= value
          checked.hosts++
          continue
        }
        break
      case 6:
        if (name === 'cookie') {
          if (cookie >= 0) {
            headers[cookie] = `${headers[cookie] as string}; ${value}`
            continue
          }
          cookie = to + 1
        }
        break
      case 14:
        if (name === 'content-length') {
          if (!DIGITS.test(value)) checked.wrong = "'content-length' is not a number"
          // Equal or not: who repeats it may mean two messages (RFC 9110 §8.6).
          else if (checked.contentLength >= 0) checked.wrong = "'content-length' is repeated"
          else checked.contentLength = Number(value)
        }
        break
      case 7:
      case 10:
      case 16:
      case 17:
        if (FORBIDDEN.has(name)) checked.wrong = `'${name}' is not allowed in HTTP/2`
        break
    }
    if (name.charCodeAt(0) === 0x3a) checked.wrong = `'${name}' stands after or without its head`
    headers[to] = name
    headers[to + 1] = value
    to += 2
  }
  while (headers.length > to) headers.pop()
  return checked
}
