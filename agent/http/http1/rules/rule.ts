// What a row of the tables is: a rule, where it stands, bytes, and what must become of them. Rows are in the files beside.
import type { Headers, RequestHead } from '../../message.ts'

/**
 * Bytes of a request, and what a server makes of them: a status that refuses it and closes, or the request as its user sees it.
 * `more`: paths of the requests that follow (absent: none may).
 */
export type RequestRule = readonly [
  rule: string,
  section: string,
  bytes: string,
  expected:
    | number
    | (Partial<Omit<RequestHead, 'headers'>> & {
        body?: string
        headers?: Headers
        trailers?: Headers
        more?: readonly string[]
      }),
]

/**
 * Bytes of a server, to a request with `method` ('upgrade': a GET that asks for websocket), then the end of the connection; and what
 * a client makes of them: 'cut' (a protocol error or a truncation: never a clean end), or the response as its user sees it.
 * `again`: whether the connection serves another request, before its end.
 */
export type ResponseRule = readonly [
  rule: string,
  section: string,
  method: string,
  bytes: string,
  expected:
    | 'cut'
    | {
        status: number
        headers?: Headers
        body?: string
        trailers?: Headers
        informational?: readonly number[]
        again?: boolean
      },
]

export const host = 'Host: a.example\r\n'
export const get = (rest: string): string => `GET / HTTP/1.1\r\n${host}${rest}\r\n`
export const post = (fields: string, body: string): string => `POST /p HTTP/1.1\r\n${host}${fields}\r\n${body}`
export const chunked = (body: string): string => post('Transfer-Encoding: chunked\r\n', body)
