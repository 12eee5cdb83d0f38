// Field lines as bytes (RFC 9112 §5): one pass that finds where names and values lie, and what stands in them that must not.
// Must not live here: start lines (request.ts, response.ts), what the fields mean (fields.ts).
import { COLON, CR, HTAB, LF, SP, TOKEN, VALUE } from './bytes.ts'
import { malformed, tooLarge } from './error.ts'
import { addToHash, NAMES, nameId } from './names.ts'

/** The bytes end before the section does. */
export const INCOMPLETE = -1

/** Numbers per field in `section.spans`: id, start and end of the name, start and end of the value. */
export const STRIDE = 5

/** A name that is not known, and one that is not and has upper case. */
export const UNKNOWN = 0
const UNKNOWN_UPPER = -1

/**
 * Where the fields of the section that was scanned last lie. One for the whole process: it is read before anything else is
 * scanned, and nothing in between calls a user.
 */
export const section = { count: 0, spans: new Int32Array(128 * STRIDE) }

/**
 * Scans field lines from `from` up to and with the empty line; returns the offset behind it, or INCOMPLETE. A refusal is final
 * only if the section is complete (a caller that reads pieces must find the end first). Throws Http1Error.
 */
export function scanFields(bytes: Uint8Array, from: number, end: number, maxFields: number): number {
  let at = from
  let count = 0
  for (;;) {
    if (at + 2 > end) return INCOMPLETE
    const nameStart = at
    let hash = 0
    let cased = 0
    for (; at < end; at++) {
      const c = bytes[at] as number
      const lower = TOKEN[c] as number
      if (lower === 0) break
      hash = addToHash(hash, lower)
      cased |= c ^ lower
    }
    if (at === end) return INCOMPLETE
    if (at === nameStart && bytes[at] === CR && bytes[at + 1] === LF) break
    if (bytes[at] !== COLON || at === nameStart) throw badName(bytes[nameStart] as number)
    const nameEnd = at++
    while (at < end && (bytes[at] === SP || bytes[at] === HTAB)) at++
    const valueStart = at
    while (at < end && VALUE[bytes[at] as number] === 1) at++
    if (at + 1 >= end) return INCOMPLETE
    if (bytes[at] !== CR || bytes[at + 1] !== LF) throw malformed('A field value holds a control character.')
    let valueEnd = at
    while (valueEnd > valueStart && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === HTAB)) valueEnd--
    at += 2
    if (count === maxFields) throw tooLarge(`A head has more than ${maxFields} fields.`)
    let { spans } = section
    let to = count * STRIDE
    if (to === spans.length) {
      section.spans = new Int32Array(to * 2)
      section.spans.set(spans)
      spans = section.spans
    }
    let id = nameId(bytes, nameStart, nameEnd, hash)
    if (id === UNKNOWN && cased !== 0) id = UNKNOWN_UPPER
    spans[to++] = id
    spans[to++] = nameStart
    spans[to++] = nameEnd
    spans[to++] = valueStart
    spans[to] = valueEnd
    count++
  }
  section.count = count
  return at + 2
}

function badName(first: number): Error {
  if (first === SP || first === HTAB) return malformed('A field is folded over two lines.')
  return malformed('A field name is not a token directly followed by a colon.')
}

/** Name of the field whose spans begin at `at`, lower case; `text` begins at bytes[base]. */
export function nameAt(at: number, text: string, base: number): string {
  const { spans } = section
  const id = spans[at] as number
  if (id > 0) return NAMES[id] as string
  const name = text.slice((spans[at + 1] as number) - base, (spans[at + 2] as number) - base)
  return id === UNKNOWN_UPPER ? name.toLowerCase() : name
}

/** Value of the field whose spans begin at `at`. */
export function valueAt(at: number, text: string, base: number): string {
  const { spans } = section
  return text.slice((spans[at + 3] as number) - base, (spans[at + 4] as number) - base)
}
