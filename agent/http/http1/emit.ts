// Heads, chunks and trailers as bytes. Framing is made here from what is known, never copied from a peer's fields; a field
// that would break a line is refused. Must not live here: which framing applies (server-exchange.ts, client-exchange.ts).
import { AmbitError } from '../../base/errors.ts'
import type { Connection } from '../../io/connection.ts'
import { slab } from '../../io/slab.ts'
import type { Headers } from '../message.ts'
import { TOKEN } from './bytes.ts'
import { flagsOf, FRAMING, NOT_IN_TRAILERS } from './names.ts'

/**
 * Writes a head: `first` (start line), end-to-end fields, then the connection's own `own` (both whole lines, `ownLines` in `own`) and
 * the empty line, as one write. `keepLength`: content-length is sent as it stands. The bytes are proved to hold exactly those
 * lines and no other control character, so that no value can add a field or a message; HTTP_BAD_FIELD otherwise, with
 * nothing written.
 */
export function writeHead(
  connection: Connection,
  first: string,
  headers: Headers,
  keepLength: boolean,
  own: string,
  ownLines: number,
): void {
  let text = first
  let expected = ownLines + 2
  let lengths = 0
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const flags = flagsOf(name)
    if (flags === undefined) checkName(name)
    else if ((flags & FRAMING) !== 0) {
      if (!keepLength || name !== 'content-length') continue
      if (++lengths > 1) throw badField('Content-Length is given twice.')
    }
    text += `${name}: ${headers[i + 1] as string}\r\n`
    expected++
  }
  writeLines(connection, `${text}${own}\r\n`, expected)
}

/** A name that is not known must be a token in lower case, as all names in the model are: else it might be one that is known. */
function checkName(name: string): void {
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i)
    if (TOKEN[c] !== c) throw badField(`The field name '${name}' is not a token in lower case.`)
  }
  if (name === '') throw badField('A field has no name.')
}

/** Writes text that must be `expected` lines, the last one empty. */
function writeLines(connection: Connection, text: string, expected: number): void {
  const at = slab.reserve(text.length)
  const { bytes } = slab
  const to = at + bytes.write(text, at, 'latin1')
  if (!holdsLines(bytes, at, to, expected)) {
    throw badField('A header field holds a line break or another control character.')
  }
  slab.advance(to)
  connection.write(bytes, at, to)
}

function holdsLines(bytes: Uint8Array, from: number, to: number, expected: number): boolean {
  let lines = 0
  for (let i = from; i < to; i++) {
    const c = bytes[i] as number
    if (c >= 32 ? c !== 127 : c === 9) continue
    if (c !== 13 || bytes[++i] !== 10 || i === to) return false
    lines++
  }
  return lines === expected
}

function badField(message: string): AmbitError {
  return new AmbitError('HTTP_BAD_FIELD', message, { hint: 'Look at the header operations of the route.' })
}

const LAST_CHUNK = '0\r\n\r\n'

/** Up to this many bytes a chunk is copied beside its size, so that it is one write. */
const SMALL_CHUNK = 1_024
/** Room for the size of a chunk and two line ends: no write is longer than 2^32. */
const CHUNK_FRAME = 14

/** One chunk of bytes[start, end), which are not empty (an empty chunk would end the body). */
export function writeChunk(connection: Connection, bytes: Uint8Array, start: number, end: number): void {
  const length = end - start
  const small = length <= SMALL_CHUNK
  const at = slab.reserve(CHUNK_FRAME + (small ? length : 0))
  const out = slab.bytes
  let to = at + out.write(length.toString(16), at, 'latin1')
  out[to++] = 13
  out[to++] = 10
  if (small) {
    for (let i = start; i < end; i++) out[to++] = bytes[i] as number
    out[to++] = 13
    out[to++] = 10
    slab.advance(to)
    connection.write(out, at, to)
    return
  }
  const tail = to
  out[to++] = 13
  out[to++] = 10
  slab.advance(to)
  connection.write(out, at, tail)
  connection.write(bytes, start, end)
  connection.write(out, tail, to)
}

/** The last chunk with its trailers; those that must not stand there are left out. Throws HTTP_BAD_FIELD with nothing written. */
export function writeLastChunk(connection: Connection, trailers: Headers | undefined): void {
  if (!trailers || trailers.length === 0) {
    writeLines(connection, LAST_CHUNK, 2)
    return
  }
  let text = '0\r\n'
  let lines = 2
  for (let i = 0; i < trailers.length; i += 2) {
    const name = trailers[i] as string
    const flags = flagsOf(name)
    if (flags === undefined) checkName(name)
    else if ((flags & NOT_IN_TRAILERS) !== 0) continue
    text += `${name}: ${trailers[i + 1] as string}\r\n`
    lines++
  }
  writeLines(connection, `${text}\r\n`, lines)
}
