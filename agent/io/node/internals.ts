// The things Node has no public way for, each in one function that fails closed when Node changes: the descriptor of a
// socket, a reset below TLS, whether a TLS stream ended by close_notify or by a bare FIN, and OpenSSL's verdict on the peer's chain.
// transport.test.ts holds each to its meaning on the pinned Node. Must not live here: anything with a public API.
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** What of libuv's stream handle is used here. */
interface StreamHandle {
  readonly fd?: number
  readStart?(): number
  verifyError?(): Error | null
}

/** libuv's UV_EALREADY: the handle is reading already. */
const ALREADY_READING = -114

export type RawHandle = StreamHandle | undefined

export function handleOf(socket: Socket): RawHandle {
  return (socket as unknown as { _handle?: StreamHandle | null })._handle ?? undefined
}

/** The socket's descriptor, or -1. */
export function fdOf(handle: RawHandle): number {
  const fd = handle?.fd
  return typeof fd === 'number' ? fd : -1
}

/**
 * Asked at the moment a TLS socket reports its end: did the peer say so (close_notify), or did the bytes just stop?
 * Node reports both alike. libuv stops reading a socket at FIN but not at a TLS alert, so a raw handle that still reads means close_notify.
 */
export function endedByCloseNotify(raw: RawHandle): boolean {
  return raw?.readStart?.() === ALREADY_READING
}

/** OpenSSL's verdict on the peer's chain, server side; an error also when there is no certificate or no way to ask. */
export function chainError(socket: TLSSocket): Error | undefined {
  const handle = handleOf(socket)
  if (!handle?.verifyError) return new Error('the peer certificate could not be judged')
  return handle.verifyError() ?? undefined
}

/**
 * Cuts a TLS socket by a TCP reset. Node's own resetAndDestroy works on the TCP socket alone, and with its TLS socket destroyed
 * beside it Node 26 crashes; marking the TCP socket and destroying from the top takes the same path safely.
 */
export function resetBelowTls(raw: Socket, tls: Socket): void {
  const marked = raw as unknown as { resetAndClosing: boolean }
  marked.resetAndClosing = true
  tls.destroy()
}
