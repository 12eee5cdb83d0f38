// Upgrades between HTTP versions (RFC 8441, RFC 6455): inside the waypoint an upgrade is a GET with a protocol, whichever way
// it came; here it takes the form of the version it goes out with, and its answer that of the client's. Must not live here: bytes.
import { createHash, randomBytes } from 'node:crypto'
import { header, removeHeader, setHeader, type Headers, type RequestHead, type ResponseHead } from '../http/message.ts'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

/** An extended CONNECT as what it means, so that policies and routes see one method for both versions (as Envoy does). */
export function normalizeUpgrade(head: RequestHead): void {
  if (head.protocol !== '' && head.method === 'CONNECT') head.method = 'GET'
}

/** Makes an upgrade request ready for the upstream's version. Changes `head`, which is the attempt's own. */
export function toUpstream(head: RequestHead, version: 1 | 2): void {
  if (version === 2) {
    head.method = 'CONNECT'
    removeHeader(head.headers, 'sec-websocket-key')
  } else if (header(head.headers, 'sec-websocket-key') === undefined) {
    head.headers.push('sec-websocket-key', randomBytes(16).toString('base64'))
  }
}

/** True if the upstream granted the upgrade. */
export function isGranted(head: ResponseHead, upstream: 1 | 2): boolean {
  return upstream === 1 ? head.status === 101 : head.status >= 200 && head.status < 300
}

/** Gives a granted upgrade's answer the form of the client's version. `request`: the client's fields. */
export function toClient(head: ResponseHead, upstream: 1 | 2, client: 1 | 2, request: Headers): void {
  if (upstream === client) return
  if (client === 2) {
    head.status = 200
    removeHeader(head.headers, 'sec-websocket-accept')
    return
  }
  head.status = 101
  const key = header(request, 'sec-websocket-key')
  if (key === undefined) return
  setHeader(
    head.headers,
    'sec-websocket-accept',
    createHash('sha1')
      .update(key + GUID)
      .digest('base64'),
  )
}
