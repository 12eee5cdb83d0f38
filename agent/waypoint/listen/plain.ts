// A Gateway's HTTP listener: requests in plaintext at an address of the waypoint, served as requests for one service. The
// client has no identity, so that every policy by principal refuses it. What is no HTTP is answered 400, never relayed.
// Must not live here: the codecs' choice (inner.ts), policy, routes.
import { AmbitError } from '../../base/errors.ts'
import { parsePort } from '../../base/ip.ts'
import type { ConnectionHandler } from '../../io/connection.ts'
import type { MeshState } from '../../mesh/state.ts'
import { Downstream } from '../downstream.ts'
import type { InnerServer } from './inner.ts'

/** The service that a plaintext listener serves. */
export interface PlainTarget {
  /** `namespace/hostname`. */
  readonly service: string
  readonly port: number
}

export interface PlainListen extends PlainTarget {
  readonly listen: string
}

/** Reads `HOST:PORT=NAMESPACE/HOSTNAME:PORT`. Throws WAYPOINT_LISTEN_INVALID. */
export function parsePlainListen(text: string): PlainListen {
  const equals = text.indexOf('=')
  const colon = text.lastIndexOf(':')
  const service = text.slice(equals + 1, colon)
  const port = parsePort(text.slice(colon + 1))
  if (equals <= 0 || colon < equals || !/^[^/]+\/[^/]+$/.test(service) || !(port > 0)) {
    throw new AmbitError('WAYPOINT_LISTEN_INVALID', `'${text}' is no HTTP listener.`, {
      hint: 'Write HOST:PORT=NAMESPACE/HOSTNAME:PORT.',
    })
  }
  return { listen: text.slice(0, equals), service, port }
}

/** Handler for a listener without TLS. While the service is not known, requests are answered 404. */
export function plainHandler(state: MeshState, target: PlainTarget, inner: InnerServer): ConnectionHandler {
  return {
    ...inner.handler,
    onOpen(connection, info) {
      const address = state.service(target.service)?.addresses[0] ?? info.local.address
      const parts = { client: info.peer, identity: undefined, address, port: target.port, service: target.service }
      connection.slot = inner.slot(new Downstream(parts, state), { protocol: 'http' })
      inner.handler.onOpen(connection, info)
    },
    // A connection that never opened has no slot.
    onClose(connection, error) {
      if (connection.slot) inner.handler.onClose(connection, error)
    },
  }
}
