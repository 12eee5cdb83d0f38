// Heads, chunks and trailers as bytes. Framing is made here from what is known, never copied from a peer's fields; a field
// that would break a line is refused. Must not live here: which framing applies (server.ts, client.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Connection } from '../../io/connection.ts'
import { slab } from '../../io/slab.ts'
import type { Headers } from '../message.ts'
import { HOP_BY_HOP } from './fields.ts'
import { NOT_IN_TRAILERS } from './head.ts'

const REASONS: Readonly<Record<number, string>> = {
  100: 'Continue',
  101: 'Switching Protocols',
  103: 'Early Hints',
  200: 'OK',
  201: 'Created',
  202: 'Accepted',
  204: 'No Content',
  206: 'Partial Content',
  301: 'Moved Permanently',
  302: 'Found',
  303: 'See Other',
  304: 'Not Modified',
  307: 'Temporary Redirect',
  308: 'Permanent Redirect',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  409: 'Conflict',
  411: 'Length Required',
  413: 'Payload Too Large',
  414: 'URI Too Long',
  417: 'Expectation Failed',
  426: 'Upgrade Required',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  505: 'HTTP Version Not Supported',
}

/** Status line without its CRLF. */
export function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${REASONS[status] ?? ''}`
}

/**
 * Writes a head: start line, end-to-end fields, then the connection's own `own` (whole lines, `ownLines` of them) and the empty line.
 * `keepLength`: content-length is sent as it stands. The bytes are proved to hold exactly those lines and no other control
 * character, so that no value can add a field or a message; HTTP_BAD_FIELD otherwise, with nothing written.
 */
export function writeHead(
  connection: Connection,
  first: string,
  headers: Headers,
  keepLength: boolean,
  own: string,
  ownLines: number,
): void {
  let text = `${first}\r\n`
  let expected = ownLines + 2
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (HOP_BY_HOP.has(name) || name === 'host' || (!keepLength && name === 'content-length')) continue
    text += `${name}: ${headers[i + 1] as string}\r\n`
    expected++
  }
  writeLines(connection, `${text}${own}\r\n`, expected)
}

function writeLines(connection: Connection, text: string, expected: number): void {
  const at = slab.reserve(text.length)
  const { bytes } = slab
  const to = at + bytes.write(text, at, 'latin1')
  let lines = 0
  for (let i = at; i < to; i++) {
    const c = bytes[i] as number
    if (c >= 32 || c === 9) continue
    if (c !== 13 || bytes[i + 1] !== 10) throw badField()
    lines++
    i++
  }
  if (lines !== expected) throw badField()
  slab.advance(to)
  connection.write(bytes, at, to)
}

function badField(): AmbitError {
  return new AmbitError('HTTP_BAD_FIELD', 'A header field holds a line break or another control character.', {
    hint: 'Look at the header operations of the route.',
  })
}

const CHUNK_END = Buffer.from('\r\n')
const LAST_CHUNK = Buffer.from('0\r\n\r\n')

export function writeChunk(connection: Connection, bytes: Uint8Array, start: number, end: number): void {
  const size = `${(end - start).toString(16)}\r\n`
  const at = slab.reserve(size.length)
  const to = at + slab.bytes.write(size, at, 'latin1')
  slab.advance(to)
  connection.write(slab.bytes, at, to)
  connection.write(bytes, start, end)
  connection.write(CHUNK_END, 0, 2)
}

export function writeLastChunk(connection: Connection, trailers: Headers | undefined): void {
  if (!trailers || trailers.length === 0) {
    connection.write(LAST_CHUNK, 0, LAST_CHUNK.length)
    return
  }
  let text = '0\r\n'
  let lines = 2
  for (let i = 0; i < trailers.length; i += 2) {
    const name = trailers[i] as string
    if (NOT_IN_TRAILERS.has(name)) continue
    text += `${name}: ${trailers[i + 1] as string}\r\n`
    lines++
  }
  writeLines(connection, `${text}\r\n`, lines)
}
