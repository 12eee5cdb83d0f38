// The codes of this room's refusals. A system error keeps its text and its syscall; what to try is said beside it.
// Must not live here: deciding what to do about them.
import { AmbitError, messageOf } from '../base/errors.ts'
import type { AbortReason } from './connection.ts'

const CONNECT_CODES: Readonly<Record<string, readonly [code: string, hint: string]>> = {
  ECONNREFUSED: ['IO_CONNECT_REFUSED', 'Nothing listens there, or a policy refused the connection.'],
  ETIMEDOUT: ['IO_CONNECT_TIMEOUT', 'Check that the address is up and that no NetworkPolicy blocks the port.'],
  EHOSTUNREACH: ['IO_UNREACHABLE', 'Check the routes between the two nodes.'],
  ENETUNREACH: ['IO_UNREACHABLE', 'Check the routes between the two nodes.'],
  EADDRNOTAVAIL: ['IO_ADDRESS', 'Check that the source address belongs to this host and that ports are left.'],
  ENOENT: ['IO_CONNECT_REFUSED', 'The unix socket does not exist yet.'],
  EACCES: ['IO_CONNECT_REFUSED', 'Check the permissions on the socket, and policies at the source.'],
  EPERM: ['IO_CONNECT_REFUSED', 'A policy at the source refused the connection.'],
  EMFILE: ['IO_DESCRIPTORS', 'Raise the limit of open files.'],
  ENFILE: ['IO_DESCRIPTORS', 'Raise the limit of open files.'],
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : ''
}

/** A connect that failed before it was open. */
export function connectError(target: string, error: unknown): AmbitError {
  if (error instanceof AmbitError) return error
  const [code, hint] = CONNECT_CODES[codeOf(error)] ?? ['IO_CONNECT', 'See the cause.']
  return new AmbitError(code, `Connecting to ${target} failed: ${messageOf(error)}.`, { hint, cause: error })
}

export function listenError(target: string, error: unknown): AmbitError {
  if (codeOf(error) === 'EADDRINUSE') {
    const hint = 'Stop the program that holds it, or choose another port.'
    return new AmbitError('IO_ADDRESS_IN_USE', `${target} is in use.`, { hint, cause: error })
  }
  const hint = 'Check that the address belongs to this host and that the port may be bound.'
  return new AmbitError('IO_LISTEN', `Listening on ${target} failed: ${messageOf(error)}.`, { hint, cause: error })
}

/** An open connection that failed. */
export function streamError(peer: string, error: unknown): AmbitError {
  if (error instanceof AmbitError) return error
  const code = codeOf(error)
  if (code === 'ECONNRESET' || code === 'EPIPE') {
    return new AmbitError('IO_RESET', `The connection with ${peer} was reset.`, { cause: error })
  }
  if (code.startsWith('ERR_SSL')) {
    return new AmbitError('IO_TLS', `TLS with ${peer} failed: ${messageOf(error)}.`, { cause: error })
  }
  return new AmbitError('IO_FAILED', `The connection with ${peer} failed: ${messageOf(error)}.`, { cause: error })
}

export function abortError(peer: string, reason: AbortReason): AmbitError {
  return new AmbitError('IO_ABORTED', `The connection with ${peer} was cut: ${reason}.`)
}

export function closedError(peer: string): AmbitError {
  return new AmbitError('IO_CLOSED', `The connection with ${peer} was closed before both directions ended.`)
}

export function truncatedError(peer: string): AmbitError {
  return new AmbitError('IO_TRUNCATED', `The bytes from ${peer} stopped without TLS close_notify.`, {
    hint: 'The peer died, or someone on the path cut the connection.',
  })
}

export function handshakeError(peer: string, error: unknown): AmbitError {
  if (error instanceof AmbitError) return error
  return new AmbitError('IO_TLS_HANDSHAKE', `The TLS handshake with ${peer} failed: ${messageOf(error)}.`, {
    hint: 'Check that both sides hold current certificates of one mesh root, and that the peer speaks TLS 1.3.',
    cause: error,
  })
}

export function timeoutError(peer: string, what: 'connect' | 'handshake', ms: number): AmbitError {
  return what === 'connect'
    ? new AmbitError('IO_CONNECT_TIMEOUT', `Connecting to ${peer} took longer than ${ms} ms.`, {
        hint: 'Check that the address is up and that no NetworkPolicy blocks the port.',
      })
    : new AmbitError('IO_HANDSHAKE_TIMEOUT', `The TLS handshake with ${peer} took longer than ${ms} ms.`)
}

/** The handler threw: its bug, reported through onClose and never through the event loop. */
export function handlerError(peer: string, error: unknown): AmbitError {
  return new AmbitError('IO_HANDLER_FAILED', `The handler of the connection with ${peer} threw.`, {
    hint: 'This is a defect in Ambit; please report it with the cause.',
    cause: error,
  })
}

export function idleError(peer: string, ms: number): AmbitError {
  return new AmbitError('IO_IDLE', `Nothing moved on the connection with ${peer} for ${ms} ms.`)
}

/** What a listen or connect names, for messages: a path, HOST:PORT, or a descriptor. */
export function describeTarget(where: { host?: string; port?: number; path?: string; fd?: number }): string {
  if (where.path !== undefined) return where.path
  if (where.host === undefined && where.port === undefined) return `descriptor ${where.fd ?? -1}`
  const host = where.host ?? '*'
  return `${host.includes(':') ? `[${host}]` : host}:${where.port ?? 0}`
}
