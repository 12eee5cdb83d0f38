// The error that ends a connection: thrown while frames are read, answered by GOAWAY (RFC 9113 §5.4.1).
import { codeName } from './constants.ts'

export class Http2ConnectionError extends Error {
  readonly http2Code: number

  constructor(code: number, message: string) {
    super(`${message} (${codeName(code)})`)
    this.name = 'Http2ConnectionError'
    this.http2Code = code
  }
}
