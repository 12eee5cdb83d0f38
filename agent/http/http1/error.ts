// How this codec refuses: one error class with the status a server answers and Envoy's word for the reason.
import { AmbitError } from '../../base/errors.ts'

export class Http1Error extends AmbitError {
  /** What a server answers before it closes. */
  readonly status: number
  /** RESPONSE_CODE_DETAILS, as Envoy names it where it has a name. */
  readonly details: string

  constructor(status: number, details: string, message: string) {
    super('HTTP1_MALFORMED', message)
    this.status = status
    this.details = details
  }
}

export function malformed(message: string): Http1Error {
  return new Http1Error(400, 'http1.codec_error', message)
}

export function tooLarge(message: string): Http1Error {
  return new Http1Error(431, 'http1.headers_too_large', message)
}

export function targetTooLong(limit: number): Http1Error {
  return new Http1Error(414, 'http1.target_too_long', `The request target is longer than ${limit} bytes.`)
}
