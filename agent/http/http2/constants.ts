// Numbers of RFC 9113: frame types, flags, settings, error codes, and how error codes map to reasons that do not depend
// on the HTTP version. Must not live here: anything with state.
import type { AbortReason } from '../../io/connection.ts'
import type { ResetReason } from '../message.ts'

export const DATA = 0
export const HEADERS = 1
export const PRIORITY = 2
export const RST_STREAM = 3
export const SETTINGS = 4
export const PUSH_PROMISE = 5
export const PING = 6
export const GOAWAY = 7
export const WINDOW_UPDATE = 8
export const CONTINUATION = 9

export const END_STREAM = 1
export const ACK = 1
export const END_HEADERS = 4
export const PADDED = 8
export const PRIORITY_FLAG = 0x20

export const SETTINGS_HEADER_TABLE_SIZE = 1
export const SETTINGS_ENABLE_PUSH = 2
export const SETTINGS_MAX_CONCURRENT_STREAMS = 3
export const SETTINGS_INITIAL_WINDOW_SIZE = 4
export const SETTINGS_MAX_FRAME_SIZE = 5
export const SETTINGS_MAX_HEADER_LIST_SIZE = 6
export const SETTINGS_ENABLE_CONNECT_PROTOCOL = 8

export const NO_ERROR = 0
export const PROTOCOL_ERROR = 1
export const INTERNAL_ERROR = 2
export const FLOW_CONTROL_ERROR = 3
export const STREAM_CLOSED = 5
export const FRAME_SIZE_ERROR = 6
export const REFUSED_STREAM = 7
export const CANCEL = 8
export const COMPRESSION_ERROR = 9
export const ENHANCE_YOUR_CALM = 11

export const FRAME_HEADER = 9
export const DEFAULT_WINDOW = 65_535
export const MAX_WINDOW = 0x7fffffff
export const MAX_STREAM_ID = 0x7fffffff
export const MIN_MAX_FRAME = 16_384
export const PREFACE: Uint8Array = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1')

const CODE_NAMES = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
]

/** The name of an error code as RFC 9113 §7 writes it. */
export function codeName(code: number): string {
  return CODE_NAMES[code] ?? `error ${code}`
}

const CODE_OF_REASON: Record<ResetReason, number> = {
  cancel: CANCEL,
  refused: REFUSED_STREAM,
  protocol: PROTOCOL_ERROR,
  internal: INTERNAL_ERROR,
  flow: FLOW_CONTROL_ERROR,
  calm: ENHANCE_YOUR_CALM,
  closed: STREAM_CLOSED,
  timeout: CANCEL,
}

export function codeOfReason(reason: ResetReason): number {
  return CODE_OF_REASON[reason]
}

/** A code the peer sent. NO_ERROR in mid-stream is a cancellation: the message is not complete. */
export function reasonOfCode(code: number): ResetReason {
  switch (code) {
    case NO_ERROR:
    case CANCEL:
      return 'cancel'
    case PROTOCOL_ERROR:
      return 'protocol'
    case FLOW_CONTROL_ERROR:
      return 'flow'
    case STREAM_CLOSED:
      return 'closed'
    case REFUSED_STREAM:
      return 'refused'
    case ENHANCE_YOUR_CALM:
      return 'calm'
    default:
      return 'internal'
  }
}

const RESET_OF_ABORT: Record<AbortReason, ResetReason> = {
  cancel: 'cancel',
  refused: 'refused',
  protocol: 'protocol',
  internal: 'internal',
  timeout: 'timeout',
  // REFUSED_STREAM would promise that nothing was processed, which is not known of a tunnel that is open.
  denied: 'cancel',
  shutdown: 'cancel',
}

/** How cutting a tunnel is told on its stream. */
export function resetOfAbort(reason: AbortReason): ResetReason {
  return RESET_OF_ABORT[reason]
}
