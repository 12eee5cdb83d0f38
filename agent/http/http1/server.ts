// The server side of HTTP/1.x as a listener's handler: its connections, draining and closing them. Must not live here: what a
// connection does (server-connection.ts).
import type { Connection, OpenInfo } from '../../io/connection.ts'
import type { ServerEvents } from '../message.ts'
import { resolveHttp1Options, type Http1Options, type Http1Server, type Http1ServerSessionEvents } from './contract.ts'
import { ServerConnection, type ServerState } from './server-connection.ts'
import { Sweep } from './sweep.ts'

/** Makes the handler that a listener serves HTTP/1.x with. */
export function http1Server(
  events: ServerEvents,
  options: Http1Options = {},
  sessionEvents: Http1ServerSessionEvents = {},
): Http1Server {
  const resolved = resolveHttp1Options(options)
  const sweep = new Sweep(resolved.clock)
  const state: ServerState = { draining: false }
  const adopt = (connection: Connection, info: OpenInfo) =>
    new ServerConnection(connection, info, events, sessionEvents, resolved, sweep, state)
  const feedOf = (connection: Connection) => connection.slot as ServerConnection
  return {
    get connections() {
      return sweep.size
    },
    adopt,
    drain(idleMs = 0) {
      state.draining = true
      for (const member of sweep.values()) (member as ServerConnection).drain(idleMs)
    },
    close() {
      for (const member of sweep.values()) (member as ServerConnection).connection.abort('shutdown')
    },
    onOpen(connection, info) {
      connection.slot = adopt(connection, info)
    },
    onRead: (connection, arena, start, end) => feedOf(connection).receive(arena, start, end),
    onDrain: (connection) => feedOf(connection).drained(),
    onEnd: (connection) => feedOf(connection).ended(),
    // A connection that never opened (a failed handshake) has no feed.
    onClose: (connection, error) => (connection.slot as ServerConnection | undefined)?.closed(error),
  }
}
