// A trailer section as fields. Must not live here: where it ends (body.ts).
import type { Headers } from '../message.ts'
import { latin1 } from './bytes.ts'
import type { Collector } from './collector.ts'
import { malformed } from './error.ts'
import { nameAt, scanFields, section, STRIDE, valueAt } from './lines.ts'
import { CONTENT_LENGTH, FLAGS, NOT_IN_TRAILERS, TRANSFER_ENCODING } from './names.ts'

/**
 * Those that would change routing, authentication or content are dropped (RFC 9110 §6.5.1); those that other readers could take for
 * framing are refused, as llhttp does.
 */
export function parseTrailers(collector: Collector, maxFields: number): Headers {
  const { bytes, start, end } = collector
  if (end - start === 2) return []
  if (scanFields(bytes, start, end, maxFields) !== end) throw malformed('The trailers end too early.')
  const text = latin1(bytes, start, end)
  const kept: Headers = []
  for (let i = 0; i < section.count; i++) {
    const at = i * STRIDE
    const id = section.spans[at] as number
    if (id === CONTENT_LENGTH || id === TRANSFER_ENCODING) throw malformed('Trailers hold a field of framing.')
    if (id > 0 && (FLAGS[id] as number) & NOT_IN_TRAILERS) continue
    kept.push(nameAt(at, text, start), valueAt(at, text, start))
  }
  return kept
}
